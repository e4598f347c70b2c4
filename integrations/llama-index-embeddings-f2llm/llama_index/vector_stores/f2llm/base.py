"""F2LLMVectorStore: f2rag's Qdrant store as a LlamaIndex vector store.

It turns nodes into documents and queries into searches; keeping and finding them is the store's. It knows no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from f2rag.errors import InputError
from f2rag.store import Hybrid, QdrantStore
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index.vector_stores.f2llm.filters import to_qdrant
from llama_index.vector_stores.f2llm.nodes import document_of, node_of

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from f2rag.store.homes import Location
    from f2rag.store.layout import Layout
    from f2rag.types import FloatMatrix, FloatVector, Hit
    from qdrant_client import models

MEMORY = ":memory:"
_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)
_MMR_THRESHOLD = 0.5
_MMR_PREFETCH_FACTOR = 4


class HasContract(Protocol):
    """An encoder of f2rag."""

    def contract(self) -> EmbeddingContract:
        """What makes its document vectors comparable."""


class HasEncoder(Protocol):
    """``F2LLMEmbedding``."""

    @property
    def encoder(self) -> HasContract:
        """Its encoder."""


class F2LLMVectorStore(BasePydanticVectorStore):
    """A collection of nodes in Qdrant, under the contract of the model that filled it.

    Any string is a node's id, adding a node again replaces it, and it comes back as it was. The collection may lie in
    a folder (Qdrant's own engine, in this process), in memory, or on a server; LangChain's F2LLMVectorStore opens the
    same one. Threads and event loops may share an object.

    Args:
        store: An open store; ``F2LLMVectorStore.open`` opens one.

    Example:
        >>> from llama_index.core import Document, StorageContext, VectorStoreIndex
        >>> from llama_index.embeddings.f2llm import F2LLMEmbedding
        >>> from llama_index.vector_stores.f2llm import F2LLMVectorStore
        >>> embedding = F2LLMEmbedding(model_name="stand-in")
        >>> store = F2LLMVectorStore.open(":memory:", embed_model=embedding)
        >>> index = VectorStoreIndex.from_documents(
        ...     [Document(text="The hotel is by the lake."), Document(text="Bread is baked in the morning.")],
        ...     storage_context=StorageContext.from_defaults(vector_store=store),
        ...     embed_model=embedding,
        ... )
        >>> index.as_retriever(similarity_top_k=1).retrieve("hotel by the lake")[0].text
        'The hotel is by the lake.'
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False
    location: str = Field(default=MEMORY, frozen=True, description="Where the collection lies.")
    collection: str = Field(default="documents", frozen=True, description="Its name.")

    _store: QdrantStore = PrivateAttr()

    def __init__(self, store: QdrantStore) -> None:
        fields: dict[str, Any] = {"location": store.location, "collection": store.collection}
        super().__init__(**fields)
        self._store = store

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        embed_model: HasEncoder | HasContract | None = None,
        collection: str = "documents",
        create: bool = True,
        adopt: bool = False,
        layout: Layout | None = None,
    ) -> Self:
        """Open a collection, and make it if it is absent and an embedding is given.

        Args:
            location: A folder, ``":memory:"``, the address of a server, a ``f2rag.store.Server`` with its key, or a
                ``QdrantClient`` of your own.
            embed_model: What makes the vectors, an ``F2LLMEmbedding`` or an encoder of f2rag; one that is not
                comparable with the collection's is refused. ``None`` opens what is there, unchecked.
            collection: Its name.
            create: Make the collection if it is absent.
            adopt: Take over a collection that something else filled with this embedding's vectors.
            layout: What is stored of each node; ``None`` takes what is there, or for a new collection what suits it.

        Raises:
            InputError: An impossible name or location, or ``embed_model`` is another kind of embedding.
            CollectionNotFoundError: It is absent and may not or cannot be made.
            ContractMismatchError: Another model filled it.
            StoreError: It is open elsewhere, damaged, or cannot be read or written.
        """
        contract = None if embed_model is None else _contract_of(embed_model)
        store = QdrantStore.open(
            location, collection=collection, contract=contract, create=create, adopt=adopt, layout=layout
        )
        return cls(store)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised forms."""
        return "F2LLMVectorStore"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Open the collection that ``to_dict`` described.

        Raises:
            InputError: It lay in memory or behind a client, which a dictionary cannot bring back.
            StoreError: It cannot be opened.
        """
        location = str({**data, **kwargs}["location"])
        if location == MEMORY or location.startswith("Qdrant at "):
            raise InputError(
                f"A collection at {location!r} cannot be opened again from a dictionary; hand its store to "
                "F2LLMVectorStore, or open it with F2LLMVectorStore.open."
            )
        return cls.open(location, collection=data["collection"])

    @property
    def client(self) -> QdrantStore:
        """The store that keeps the nodes."""
        return self._store

    def check(self, embed_model: HasEncoder | HasContract) -> None:
        """Make sure that an embedding's vectors may go in here.

        Raises:
            ContractMismatchError: They are not comparable with the stored ones.
            InputError: ``embed_model`` is another kind of embedding.
        """
        self._store.check(_contract_of(embed_model))

    def close(self) -> None:
        """Let go of the collection; a second time does nothing."""
        self._store.close()

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ARG002 - LlamaIndex's signature
        """Store nodes with their embeddings; those with a stored id replace it.

        Returns:
            The nodes' ids.

        Raises:
            InputError: A node without an embedding, or with one that is no unit vector. Nothing is stored.
            DocumentError: Metadata that JSON cannot hold. Nothing is stored.
            ContractMismatchError: Embeddings of another width. Nothing is stored.
            StoreError: The engine failed.
        """
        listed = list(nodes)
        if listed:
            self._store.upsert([document_of(node) for node in listed], _embeddings(listed))
        return [node.node_id for node in listed]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002 - LlamaIndex's signature
        """Delete all nodes that were cut from a document."""
        self._delete_where(to_qdrant(doc_ids=[ref_doc_id]))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002 - LlamaIndex's signature
    ) -> None:
        """Delete the nodes that have these ids and match these filters.

        Raises:
            InputError: Neither ids nor filters are given; ``clear`` deletes everything.
        """
        if node_ids is None and not (filters and filters.filters):
            raise InputError("delete_nodes takes node_ids, filters or both; to delete everything, call clear().")
        if not (filters and filters.filters):
            self._store.delete(node_ids or [])
        elif node_ids != []:
            self._delete_where(to_qdrant(filters, node_ids=node_ids))

    def clear(self) -> None:
        """Delete all nodes; the collection and its contract stay."""
        self._store.delete([document.key for document in self._store.documents()])

    # -- reading ------------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that have these ids and match these filters; all of them if neither is given."""
        if filters and filters.filters:
            found = [] if node_ids == [] else list(self._store.documents(filter=to_qdrant(filters, node_ids=node_ids)))
        elif node_ids is not None:
            found = self._store.get(node_ids)
        else:
            found = list(self._store.documents())
        return [node_of(document) for document in found]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to the query's embedding, best first; similarities are cosines.

        Args:
            query: LlamaIndex's query; its filters, node ids and document ids all hold.
            **kwargs: ``qdrant_filters`` (a ``qdrant_client.models.Filter``, besides the others), ``score_threshold``
                (the least cosine) and ``search_mode`` (how to search, see ``f2rag.store.modes``); in an index as
                ``vector_store_kwargs``. The mode ``"hybrid"`` joins dense search with BM25, and ``alpha`` is the weight
                of the dense half, 0 to 1; the collection must have been made with words,
                ``Layout(lexical=Lexical())``. For the mode ``"mmr"`` also ``mmr_threshold`` (1 looks at the query
                alone, 0 at variety alone; 0.5) and ``mmr_prefetch_k`` (how many candidates to choose from; four times
                as many as are wanted).

        Raises:
            InputError: A mode that this store does not have, an unknown argument, or a filter that Qdrant lacks.
            ContractMismatchError: An embedding of another width.
            StoreError: The engine failed.
        """
        options = _options(query, kwargs)
        selection = to_qdrant(
            query.filters,
            # An index without a record of its nodes asks with an empty list and means every node.
            doc_ids=query.doc_ids or None,
            node_ids=query.node_ids or None,
            further=options.pop("qdrant_filters", None),
        )
        vector = np.asarray(query.query_embedding, dtype=np.float32)
        mode = options.pop("search_mode", "auto")
        if query.mode == VectorStoreQueryMode.MMR:
            hits = self._various(vector, query, selection, mode=mode, **options)
        elif query.mode == VectorStoreQueryMode.HYBRID:
            limit = query.hybrid_top_k or query.similarity_top_k
            hits = self._store.search(
                vector, text=query.query_str, limit=limit, filter=selection, mode=_hybrid(query), **options
            )
        else:
            hits = self._store.search(vector, limit=query.similarity_top_k, filter=selection, mode=mode, **options)
        return VectorStoreQueryResult(
            nodes=[node_of(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    # -- without blocking the event loop ---------------------------------------------------------------------------

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """``add`` without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """``delete`` without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """``delete_nodes`` without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """``clear`` without blocking the event loop."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """``get_nodes`` without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """``query`` without blocking the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    # -- inside -------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return self.to_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(type(self).from_dict(state).client)  # type: ignore[misc]  # what the base class does as well

    def _various(
        self,
        vector: FloatVector,
        query: VectorStoreQuery,
        selection: models.Filter | None,
        *,
        mmr_threshold: float | None = None,
        mmr_prefetch_k: int | None = None,
        **options: Any,
    ) -> list[Hit]:
        """Maximal marginal relevance over the nearest nodes."""
        if mmr_threshold is None:
            mmr_threshold = _MMR_THRESHOLD if query.mmr_threshold is None else query.mmr_threshold
        if not 0.0 <= mmr_threshold <= 1.0:
            raise InputError(f"mmr_threshold={mmr_threshold!r} was given; expected 0 (variety) to 1 (the query alone).")
        limit = max(mmr_prefetch_k or _MMR_PREFETCH_FACTOR * query.similarity_top_k, query.similarity_top_k)
        hits = self._store.search(vector, limit=limit, filter=selection, **options)
        vectors = self._store.vectors([hit.id for hit in hits])
        hits = [hit for hit in hits if hit.id in vectors]  # one may have been deleted in between
        if not hits:
            return []
        chosen = _marginal(vector, np.stack([vectors[hit.id] for hit in hits]), query.similarity_top_k, mmr_threshold)
        return [hits[row] for row in chosen]

    def _delete_where(self, selection: models.Filter | None) -> None:
        if selection is not None:
            self._store.delete_where(filter=selection)


def _contract_of(embed_model: Any) -> EmbeddingContract:
    encoder = getattr(embed_model, "encoder", embed_model)
    if not hasattr(encoder, "contract"):
        raise InputError(
            f"embed_model is a {type(embed_model).__name__}, which cannot say what its vectors are; "
            "an F2LLMEmbedding is expected."
        )
    contract: EmbeddingContract = encoder.contract()
    return contract


def _embeddings(nodes: Sequence[BaseNode]) -> FloatMatrix:
    for node in nodes:
        if node.embedding is None:
            raise InputError(f"Node {node.node_id!r} has no embedding; embed nodes before they are added.")
    try:
        return np.asarray([node.embedding for node in nodes], dtype=np.float32)
    except ValueError as error:
        raise InputError(f"The nodes' embeddings differ in width: {error}") from error


def _options(query: VectorStoreQuery, given: dict[str, Any]) -> dict[str, Any]:
    """The search's own arguments, after what cannot be honoured has been refused."""
    if query.mode not in _MODES:
        raise InputError(
            f"The query mode {query.mode.value!r} was asked for; this store has "
            f"{', '.join(repr(mode.value) for mode in _MODES)}."
        )
    if query.query_embedding is None:
        raise InputError("The query has no embedding; retrieve through an index that has an embed_model.")
    known = ["qdrant_filters"]
    if query.mode != VectorStoreQueryMode.HYBRID:
        known += ["score_threshold", "search_mode"]
    if query.mode == VectorStoreQueryMode.MMR:
        known += ["mmr_threshold", "mmr_prefetch_k"]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"{', '.join(unknown)} is no argument of a query here; it takes {', '.join(known)}.")
    return dict(given)


def _hybrid(query: VectorStoreQuery) -> Hybrid:
    """LlamaIndex's ``alpha`` is the weight of the dense half; without one both count alike."""
    if query.query_str is None:
        raise InputError("A hybrid query needs its text; give VectorStoreQuery(query_str=...).")
    alpha = query.alpha
    if alpha is not None and not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha!r} was given; expected 0 (words alone) to 1 (vectors alone).")
    weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return Hybrid(weights=weights, candidates=query.sparse_top_k)


def _marginal(query: FloatVector, vectors: FloatMatrix, limit: int, threshold: float) -> list[int]:
    """Rows of ``vectors`` that are near the query and far from those chosen before, in the order of choice."""
    relevance = vectors @ (query / np.linalg.norm(query))
    overlap = np.zeros(len(vectors), dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(vectors)):
        worth = threshold * relevance - (1.0 - threshold) * overlap
        worth[chosen] = -np.inf
        chosen.append(int(np.argmax(worth)))
        overlap = np.max(vectors @ vectors[chosen].T, axis=1)
    return chosen
