"""Answer questions over the Universal Declaration of Human Rights, in any language, with sources.

    python examples/rag.py                                             # offline: stand-in and fake chat model
    python examples/rag.py "Qui a droit au repos ?" --language en fr sw
    python examples/rag.py --model 0.6B --chat-model ollama:llama3.2   # needs langchain and langchain-ollama

The fake chat model does not read: it shows that the chain works. What was retrieved is printed either way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from f2rag.corpus import load_udhr
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore

PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Answer in the language of the question, from the sources alone, and cite them as [1], [2].\n\n{context}",
        ),
        ("human", "{question}"),
    ]
)


def load(languages: Sequence[str]) -> list[Document]:
    """The thirty articles in each language, as LangChain documents."""
    return [
        Document(
            id=article.id,
            page_content=article.text,
            metadata={
                "source": f"{article.source}, article {article.metadata['article']} ({article.language})",
                "language": article.language,
                "article": article.metadata["article"],
            },
        )
        for article in load_udhr(languages)
    ]


def numbered(documents: Sequence[Document]) -> str:
    """The retrieved documents as the chat model sees them, and as its citations count them."""
    return "\n\n".join(
        f"[{number}] {document.metadata['source']}\n{document.page_content}"
        for number, document in enumerate(documents, start=1)
    )


def build_chain(retriever: Runnable[str, list[Document]], chat_model: BaseChatModel) -> Runnable[Any, Any]:
    """A chain from a question to ``{"question", "documents", "answer"}``."""
    answer = (
        {"context": lambda state: numbered(state["documents"]), "question": itemgetter("question")}
        | PROMPT
        | chat_model
        | StrOutputParser()
    )
    return RunnablePassthrough.assign(documents=itemgetter("question") | retriever).assign(answer=answer)


def choose_chat_model(name: str | None) -> BaseChatModel:
    """Any chat model that ``langchain`` can make by name, or the offline fake one."""
    if name is None:
        return FakeListChatModel(
            responses=["(No chat model is set; see --chat-model. The sources are above: [1], [2].)"]
        )
    from langchain.chat_models import init_chat_model  # type: ignore[import-not-found,unused-ignore]  # optional

    model: BaseChatModel = init_chat_model(name)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Index, retrieve, answer."""
    parser = argparse.ArgumentParser(description="Questions to the Universal Declaration of Human Rights.")
    parser.add_argument("question", nargs="?", default="Who may go to school for free?")
    parser.add_argument("--language", nargs="+", default=["en", "fr", "sw", "zh"], help="tags, e.g. en fr")
    parser.add_argument("--model", default="stand-in", help="F2LLM-v2 size, e.g. 0.6B; the stand-in is not F2LLM-v2")
    parser.add_argument("--index", default=":memory:", help="a folder to keep the index in")
    parser.add_argument("--chat-model", help="e.g. ollama:llama3.2")
    parser.add_argument("-k", type=int, default=4, help="how many sources")
    options = parser.parse_args(arguments)

    with (
        F2LLMEmbeddings(model=options.model) as embeddings,
        F2LLMVectorStore.from_documents(load(options.language), embeddings, location=options.index) as store,
    ):
        chain = build_chain(store.as_retriever(k=options.k), choose_chat_model(options.chat_model))
        result = chain.invoke({"question": options.question})
    print(f"Question: {result['question']}\n\n{numbered(result['documents'])}\n\nAnswer: {result['answer']}")


if __name__ == "__main__":
    main()
