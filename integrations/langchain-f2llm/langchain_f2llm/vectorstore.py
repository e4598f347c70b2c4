"""F2LLMVectorStore: LangChain's vector store over f2rag's Qdrant store, with sync and async ways for everything.

    texts ─► documents, all checked ─► which are new? ─► embeddings ─► store.upsert
    query ─► embeddings ─► store.search ─► documents with scores

It knows no model and no engine: the embeddings and the store do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from f2rag.errors import InputError
from f2rag.store import QdrantStore
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langchain_f2llm.documents import check_count, columns, from_document, to_documents, to_filter
from langchain_f2llm.embeddings import F2LLMEmbeddings
from langchain_f2llm.habits import refuse_others
from langchain_f2llm.writing import WINDOW, awrite, write

if TYPE_CHECKING:
    from f2rag.store.homes import Location
    from f2rag.store.layout import Layout
    from f2rag.store.modes import Mode, ModeName
    from f2rag.types import FloatVector, Hit

    from langchain_f2llm.documents import Filter
    from langchain_f2llm.retriever import F2LLMRetriever


class F2LLMVectorStore(VectorStore):
    """Documents and their F2LLM-v2 vectors in Qdrant: in memory, in a folder, or on a server.

    A collection remembers which model filled it and refuses vectors of another. Ids are any strings; documents without
    one get an id from their text and metadata, so that adding them again changes nothing and embeds nothing.

    Args:
        embedding: ``F2LLMEmbeddings``; of others nothing says which vectors may be compared.
        location: ``":memory:"``; a folder, kept by Qdrant's embedded engine, for one process at a time; the address of
            a server, or a ``f2rag.store.Server`` with its key; or a ``QdrantClient``, which stays yours.
        collection_name: The collection; it is made if absent.
        dimensions: Width of the stored vectors; ``None`` takes the embeddings'.
        store: An open ``f2rag.QdrantStore`` instead of location and collection; it stays yours.
        create: ``False`` refuses a collection that is absent.
        adopt: Take over a collection that something else filled, e.g. langchain-qdrant. Only you can know that this
            very model made its vectors.
        layout: What is stored of each document, see ``f2rag.store.Layout``; ``None`` takes what is there, or for a new
            collection what suits it.
        **others: None; arguments of other stores are refused with what to use instead.

    Raises:
        InputError: Other embeddings, or an argument that cannot be honoured.
        ContractMismatchError: The collection was filled by another model or at another width.
        StoreError: It cannot be opened; see ``f2rag.QdrantStore.open``.

    Example:
        >>> from f2rag.testing import FakeEncoder
        >>> from langchain_f2llm import F2LLMEmbeddings
        >>> embeddings = F2LLMEmbeddings.from_encoder(FakeEncoder(dimensions=32))  # in earnest: F2LLMEmbeddings()
        >>> with F2LLMVectorStore(embeddings) as store:
        ...     ids = store.add_texts(["a red house", "the blue sea"], metadatas=[{"page": 1}, {"page": 2}])
        ...     store.similarity_search("blue sea", k=1)[0].metadata
        {'page': 2}
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        location: Location = ":memory:",
        collection_name: str = "documents",
        dimensions: int | None = None,
        store: QdrantStore | None = None,
        create: bool = True,
        adopt: bool = False,
        layout: Layout | None = None,
        **others: Any,
    ) -> None:
        refuse_others(others, "F2LLMVectorStore")
        if not isinstance(embedding, F2LLMEmbeddings):
            raise InputError(
                f"embedding is {type(embedding).__name__}; expected F2LLMEmbeddings. Of others nothing says which "
                "vectors may be compared, so that the collection could not refuse wrong ones. For an encoder of your "
                "own use F2LLMEmbeddings.from_encoder(...)."
            )
        self._embedding = embedding
        self._owned = store is None
        if store is None:
            contract = embedding.contract(dimensions=dimensions)
            store = QdrantStore.open(
                location, collection=collection_name, contract=contract, create=create, adopt=adopt, layout=layout
            )
        else:
            # A collection wider than the model is a mismatch, and the model cannot state a contract of that width.
            width = min(store.dimensions, embedding.encoder.native_dimensions) if dimensions is None else dimensions
            store.check(embedding.contract(dimensions=width))
        self._store = store

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = WINDOW,
        **options: Any,
    ) -> Self:
        """Open or make a collection and add texts; ``options`` are the constructor's."""
        documents = to_documents(texts, metadatas, ids)
        made = cls(embedding, **options)
        try:
            write(made.embeddings, made.store, documents, batch_size)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = WINDOW,
        **options: Any,
    ) -> Self:
        """``from_texts`` without blocking the event loop."""
        documents = to_documents(texts, metadatas, ids)
        made = await asyncio.to_thread(cls, embedding, **options)
        try:
            await awrite(made.embeddings, made.store, documents, batch_size)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def from_documents(cls, documents: Iterable[LangChainDocument], embedding: Embeddings, **options: Any) -> Self:
        """Open or make a collection and add documents; ``options`` are those of ``from_texts``."""
        return cls.from_texts(embedding=embedding, **{**columns(documents), **options})

    @classmethod
    async def afrom_documents(
        cls, documents: Iterable[LangChainDocument], embedding: Embeddings, **options: Any
    ) -> Self:
        """``from_documents`` without blocking the event loop."""
        return await cls.afrom_texts(embedding=embedding, **{**columns(documents), **options})

    @classmethod
    def from_existing_collection(
        cls,
        embedding: Embeddings,
        collection_name: str,
        *,
        location: Location,
        dimensions: int | None = None,
        adopt: bool = False,
        **others: Any,
    ) -> Self:
        """Open a collection that is there.

        Args:
            embedding: The embeddings of the model that filled it.
            collection_name: The collection.
            location: As for the constructor.
            dimensions: Width of its vectors; ``None`` takes the embeddings'.
            adopt: Take over a collection that langchain-qdrant, or something else with its layout, filled.
            **others: None.

        Raises:
            CollectionNotFoundError: It is absent.
            ContractMismatchError: Another model filled it, or something else than f2rag and ``adopt`` is false.
        """
        options = {"dimensions": dimensions, "adopt": adopt, "create": False, **others}
        return cls(embedding, location=location, collection_name=collection_name, **options)

    @property
    def embeddings(self) -> F2LLMEmbeddings:
        """The embeddings."""
        return self._embedding

    @property
    def store(self) -> QdrantStore:
        """The store beneath, for what LangChain has no word for: counting, languages, all documents."""
        return self._store

    # -- add, get, delete ---------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = WINDOW,
        **others: Any,
    ) -> list[str]:
        """Add texts; those that are stored already and equal are not embedded again.

        Everything is checked before anything is embedded. Should embedding or the engine fail, the batches before are
        stored; the same call completes the rest.

        Args:
            texts: Any iterable, also a generator.
            metadatas: One dictionary of JSON-like values, or ``None``, for each text.
            ids: Any string, or ``None``, for each text; a stored document of that id is replaced.
            batch_size: Texts that are embedded and stored together.
            **others: None.

        Returns:
            The ids, in the order of the texts.

        Raises:
            InputError: Columns of different lengths, or a text that cannot be embedded.
            DocumentError: Something that is not text, or metadata that JSON cannot hold.
            StoreError: The collection failed.
        """
        refuse_others(others, "add_texts")
        return write(self._embedding, self._store, to_documents(texts, metadatas, ids), batch_size)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = WINDOW,
        **others: Any,
    ) -> list[str]:
        """``add_texts`` without blocking the event loop; a cancelled one leaves whole batches."""
        refuse_others(others, "aadd_texts")
        return await awrite(self._embedding, self._store, to_documents(texts, metadatas, ids), batch_size)

    def add_documents(self, documents: Iterable[LangChainDocument], **options: Any) -> list[str]:
        """Add documents; ``options`` are those of ``add_texts``, and ``ids`` goes before the documents' own."""
        return self.add_texts(**{**columns(documents), **options})

    async def aadd_documents(self, documents: Iterable[LangChainDocument], **options: Any) -> list[str]:
        """``add_documents`` without blocking the event loop."""
        return await self.aadd_texts(**{**columns(documents), **options})

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """The documents with these ids, in this order; absent ones are left out."""
        return [from_document(found) for found in self._store.get(ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """``get_by_ids`` without blocking the event loop."""
        return await asyncio.to_thread(self.get_by_ids, ids)

    def delete(self, ids: Sequence[str] | None = None, **others: Any) -> bool:
        """Delete the documents with these ids; absent ones are no error.

        Raises:
            InputError: No ids: what some stores take for "everything" is refused here.
        """
        refuse_others(others, "delete")
        if ids is None:
            raise InputError("delete() without ids deletes nothing here. Give ids, or use f2rag.store.drop_collection.")
        self._store.delete(ids)
        return True

    async def adelete(self, ids: Sequence[str] | None = None, **others: Any) -> bool:
        """``delete`` without blocking the event loop."""
        return await asyncio.to_thread(self.delete, ids, **others)

    # -- search -------------------------------------------------------------------------------------------------

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[LangChainDocument]:
        """The documents nearest to a query, best first; ``options`` as in ``similarity_search_with_score``."""
        return _documents(self.similarity_search_with_score(query, k, **options))

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[LangChainDocument]:
        """``similarity_search`` without blocking the event loop."""
        return _documents(await self.asimilarity_search_with_score(query, k, **options))

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, instruction: str | None = None, **options: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The documents nearest to a query with their cosine similarities, -1..1, best first.

        Args:
            query: The text, bare; the embeddings add the instruction.
            k: At most so many.
            instruction: Another instruction for this query; ``""`` for none.
            **options: Any of these.

                - filter: A dictionary of metadata values that must be equal, or a ``qdrant_client.models.Filter``,
                  whose keys are written ``metadata.<key>``.
                - language: Only documents with this ``language`` in the metadata, or one of these.
                - score_threshold: Only documents with at least this cosine similarity.
                - mode: How to search, e.g. ``"exact"``, ``"funnel"`` or ``"hybrid"``; see ``f2rag.store.modes``. The
                  scores of a hybrid search are sums of reciprocal ranks.

        Raises:
            InputError: A query or an option that cannot be searched for.
            StoreError: The collection failed.
        """
        vector = self._embedding.embed_query_array(query, dimensions=self._store.dimensions, instruction=instruction)
        return _scored(self._search(vector, k, text=query, **options))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, instruction: str | None = None, **options: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """``similarity_search_with_score`` without blocking the event loop."""
        vector = await self._aquery(query, instruction)
        return _scored(await asyncio.to_thread(self._search, vector, k, text=query, **options))

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **options: Any
    ) -> list[LangChainDocument]:
        """The documents nearest to a vector; ``options`` as in ``similarity_search_with_score``."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, **options))

    async def asimilarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **options: Any
    ) -> list[LangChainDocument]:
        """``similarity_search_by_vector`` without blocking the event loop."""
        return await asyncio.to_thread(self.similarity_search_by_vector, embedding, k, **options)

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **options: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The documents nearest to a vector with their cosine similarities."""
        return _scored(self._search(_vector(embedding), k, **options))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **options: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """``similarity_search_with_score_by_vector`` without blocking the event loop."""
        return await asyncio.to_thread(self.similarity_search_with_score_by_vector, embedding, k, **options)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        instruction: str | None = None,
        **options: Any,
    ) -> list[LangChainDocument]:
        """Documents near a query and unlike one another.

        Args:
            query: The text, bare.
            k: At most so many.
            fetch_k: So many of the nearest are chosen from.
            lambda_mult: 0 for the greatest variety to 1 for the nearest.
            instruction: Another instruction for this query.
            **options: As in ``similarity_search_with_score``.
        """
        vector = self._embedding.embed_query_array(query, dimensions=self._store.dimensions, instruction=instruction)
        return self._diverse(vector, k, fetch_k, lambda_mult, options)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        instruction: str | None = None,
        **options: Any,
    ) -> list[LangChainDocument]:
        """``max_marginal_relevance_search`` without blocking the event loop."""
        vector = await self._aquery(query, instruction)
        return await asyncio.to_thread(self._diverse, vector, k, fetch_k, lambda_mult, options)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[LangChainDocument]:
        """Documents near a vector and unlike one another; see ``max_marginal_relevance_search``."""
        return self._diverse(_vector(embedding), k, fetch_k, lambda_mult, options)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[LangChainDocument]:
        """``max_marginal_relevance_search_by_vector`` without blocking the event loop."""
        return await asyncio.to_thread(self._diverse, _vector(embedding), k, fetch_k, lambda_mult, options)

    def as_retriever(self, **options: Any) -> F2LLMRetriever:
        """A retriever over this store; ``options`` are the fields of ``F2LLMRetriever``, e.g. ``k=6``."""
        from langchain_f2llm.retriever import F2LLMRetriever

        tags = [*(options.pop("tags", None) or []), *self._get_retriever_tags()]
        return F2LLMRetriever(vectorstore=self, tags=tags, **options)

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the collection, so that another process may open its folder; a store of yours is left open."""
        if self._owned:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"F2LLMVectorStore({self._embedding.model_name!r}, {self._store!r})"

    # -- inside -------------------------------------------------------------------------------------------------

    async def _aquery(self, query: str, instruction: str | None) -> FloatVector:
        return await self._embedding.aembed_query_array(
            query, dimensions=self._store.dimensions, instruction=instruction
        )

    def _search(
        self,
        vector: FloatVector,
        k: int,
        *,
        filter: Filter | None = None,  # noqa: A002 - LangChain's word
        language: str | Sequence[str] | None = None,
        score_threshold: float | None = None,
        text: str | None = None,
        mode: Mode | ModeName = "auto",
        **others: Any,
    ) -> list[Hit]:
        refuse_others(others, "A search")
        return self._store.search(
            vector,
            limit=k,
            filter=to_filter(filter),
            language=language,
            score_threshold=score_threshold,
            text=text,
            mode=mode,
        )

    def _diverse(
        self, vector: FloatVector, k: int, fetch_k: int, lambda_mult: float, options: Mapping[str, Any]
    ) -> list[LangChainDocument]:
        check_count(k, "k")
        check_count(fetch_k, "fetch_k")
        if not 0 <= lambda_mult <= 1:
            raise InputError(f"lambda_mult={lambda_mult!r} was given; expected 0 (variety) to 1 (nearness).")
        hits = self._search(vector, max(k, fetch_k), **options)
        if not hits:
            return []
        stored = self._store.vectors([hit.id for hit in hits])
        hits = [hit for hit in hits if hit.id in stored]  # another caller may have deleted one meanwhile
        rows: Any = [stored[hit.id] for hit in hits]  # arrays do for the lists that LangChain declares
        chosen = maximal_marginal_relevance(vector, rows, lambda_mult=lambda_mult, k=k)
        return [from_document(hits[position]) for position in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Cosine similarity, -1..1, as LangChain's relevance, 0..1; as langchain-qdrant does it."""
        return lambda cosine: (cosine + 1.0) / 2.0


def _scored(hits: Iterable[Hit]) -> list[tuple[LangChainDocument, float]]:
    return [(from_document(hit), hit.score) for hit in hits]


def _documents(scored: Iterable[tuple[LangChainDocument, float]]) -> list[LangChainDocument]:
    return [document for document, _ in scored]


def _vector(embedding: Sequence[float]) -> FloatVector:
    try:
        return np.asarray(embedding, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"The vector is no list of numbers: {error}") from error
