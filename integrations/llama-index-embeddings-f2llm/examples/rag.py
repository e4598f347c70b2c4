"""Retrieval-augmented generation with LlamaIndex: the Universal Declaration of Human Rights, asked across languages.

    python rag.py "Can my employer make me work without rest?"

It runs offline: F2RAG_EXAMPLE_MODEL chooses the embedding model (default: the bundled stand-in, which is not F2LLM-v2;
in earnest take "0.6B"), and LlamaIndex's MockLLM, which repeats the prompt, stands in for a chat model. Put any LLM of
LlamaIndex in its place.
"""

import os
import sys

from f2rag.corpus import load_udhr
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CitationQueryEngine

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore

QUESTION = "Can my employer make me work without rest?"
LANGUAGES = ["en", "fr", "de", "es", "zh", "ar"]


def documents() -> list[Document]:
    """Every article in every language, with what a citation needs."""
    return [
        Document(
            text=article.text,
            id_=article.key,
            metadata={**article.metadata, "language": article.language, "source": article.source},
            # What is embedded is the article alone; LlamaIndex would put the metadata before it.
            excluded_embed_metadata_keys=[*article.metadata, "language", "source"],
        )
        for article in load_udhr(LANGUAGES)
    ]


def main() -> None:
    """Index the articles, retrieve for a question, and answer with citations."""
    question = sys.argv[1] if len(sys.argv) > 1 else QUESTION
    embedding = F2LLMEmbedding(os.environ.get("F2RAG_EXAMPLE_MODEL", "stand-in"))
    store = F2LLMVectorStore.open(":memory:", embed_model=embedding)  # a folder keeps it
    index = VectorStoreIndex.from_documents(
        documents(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embedding
    )
    engine = CitationQueryEngine.from_args(index, llm=MockLLM(), similarity_top_k=4)
    answer = engine.query(question)

    print(f"Question: {question}\nModel: {embedding.encoder.model_name}\n")
    for number, source in enumerate(answer.source_nodes, start=1):
        metadata = source.node.metadata
        print(f"[{number}] {metadata['source']}, {metadata['title']} ({metadata['language']}), {source.score:.3f}")
        print("   ", source.node.get_content().removeprefix(f"Source {number}:\n").strip()[:150].replace("\n", " "))
    print("\nThe end of the answer (MockLLM repeats its prompt: the sources, then the question):")
    print(str(answer)[-300:])


if __name__ == "__main__":
    main()
