"""F2LLMRetriever: LangChain's retriever over an F2LLMVectorStore, with the number of results as a field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import Field

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document


class F2LLMRetriever(VectorStoreRetriever):
    """A retriever; ``store.as_retriever(k=6)`` makes one.

    ``search_kwargs`` and the keyword arguments of ``invoke`` take every option of
    ``F2LLMVectorStore.similarity_search_with_score``, e.g. ``filter``, ``language``, ``instruction``; the latter win.

    Example:
        >>> from f2rag.testing import FakeEncoder
        >>> from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore
        >>> embeddings = F2LLMEmbeddings.from_encoder(FakeEncoder(dimensions=32))
        >>> store = F2LLMVectorStore.from_texts(["a red house", "the blue sea"], embeddings)
        >>> [document.page_content for document in store.as_retriever(k=1).invoke("sea")]
        ['the blue sea']
    """

    k: int = Field(default=4, ge=1)
    """How many documents to return."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = {"k": self.k, **self.search_kwargs, **kwargs}
        return super()._get_relevant_documents(query, run_manager=run_manager, **options)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = {"k": self.k, **self.search_kwargs, **kwargs}
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **options)
