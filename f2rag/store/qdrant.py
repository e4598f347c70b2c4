"""QdrantStore: one collection of documents, filled and searched under its contract.

It knows documents, vectors and contracts. It knows no model, and not which engine keeps the points (``homes.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import numpy as np

from f2rag.errors import CollectionNotFoundError, InputError
from f2rag.store.agreement import agree, refuse_mismatch
from f2rag.store.failures import closed
from f2rag.store.filters import select, stored_ids
from f2rag.store.homes import (
    LANGUAGE_KEY,
    Backend,
    CollectionInfo,
    Home,
    HomeKind,
    Point,
    PointId,
    Row,
    check_collection_name,
    home_of,
)
from f2rag.store.points import (
    HASH_KEY,
    batches,
    checked_query,
    checked_rows,
    content_hash,
    document_of,
    hash_of,
    hit_of,
    last_of_each,
    make_point,
)

if TYPE_CHECKING:
    from qdrant_client import models

    from f2rag.contract import EmbeddingContract
    from f2rag.store.homes import Location
    from f2rag.types import Document, FloatMatrix, FloatVector, Hit

State: TypeAlias = Literal["new", "changed", "unchanged"]
"""How a document stands to what is stored under its id."""

_PAGE = 256
_IDS_PER_CALL = 1_000


class QdrantStore:
    """One collection of documents and their vectors; made by ``open``. Threads may share it.

    Example:
        >>> from f2rag.testing import FakeEncoder
        >>> from f2rag.types import Document
        >>> encoder = FakeEncoder(dimensions=32)
        >>> with QdrantStore.open(":memory:", contract=encoder.contract()) as store:
        ...     store.upsert([Document(text="red house", language="en")], encoder.embed_documents(["red house"]))
        ...     [hit.text for hit in store.search(encoder.embed_query("house"), language="en")]
        1
        ['red house']
    """

    def __init__(self, home: Home, backend: Backend, *, collection: str, contract: EmbeddingContract) -> None:
        self._home = home
        self._backend = backend
        self._collection = collection
        self._contract = contract
        self._closed = False

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        collection: str = "documents",
        contract: EmbeddingContract | None = None,
        create: bool = True,
        adopt: bool = False,
    ) -> Self:
        """Open a collection, and make it if it is absent and a contract is given.

        Args:
            location: A folder; ``":memory:"`` for a new, empty home in memory; or a ``QdrantClient`` of your own, which
                stays open when the store is closed.
            collection: Its name.
            contract: What the vectors are that will be stored and searched, from ``encoder.contract()``. ``None`` opens
                what is there and takes its contract.
            create: Make the collection if it is absent.
            adopt: Write ``contract`` to a collection that something else filled. Only you can know that it is true.

        Raises:
            InputError: An impossible name or location.
            CollectionNotFoundError: It is absent, and ``contract`` is ``None`` or ``create`` false.
            ContractMismatchError: It was filled by another model, or by something else than f2rag.
            StoreLockedError: It is open elsewhere.
            StorePermissionError: The folder may not be written.
            StorageFullError: Too little free space to open it safely.
            StoreError: It is damaged, or was written by a newer f2rag.
        """
        check_collection_name(collection)
        home = home_of(location)
        try:
            if collection not in home.collections():
                if contract is None or not create:
                    raise _not_found(home, collection)
                home.create(collection, contract)
            backend = home.open(collection)
            try:
                # Also of a new one: another process may have made it at the same moment, for another model.
                agreed = agree(backend, contract, collection=collection, adopt=adopt)
            except BaseException:
                backend.close()
                raise
        except BaseException:
            home.close()
            raise
        return cls(home, backend, collection=collection, contract=agreed)

    @property
    def contract(self) -> EmbeddingContract:
        """What the stored vectors are."""
        return self._contract

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._collection

    @property
    def location(self) -> str:
        """Where it lies: a folder, ``":memory:"``, or the name of a server."""
        return self._home.name

    @property
    def home(self) -> HomeKind:
        """What keeps it.

        ``"edge"``, the embedded engine in a folder; ``"memory"``; ``"client-local"``, the slow fallback in a folder;
        ``"client"``, a server.
        """
        return self._home.kind

    @property
    def dimensions(self) -> int:
        """The width of the stored vectors."""
        return self._contract.dimensions

    def check(self, contract: EmbeddingContract) -> None:
        """Make sure that vectors under ``contract`` may go in here.

        Raises:
            ContractMismatchError: They are not comparable with the stored ones.
        """
        refuse_mismatch(self._contract, contract, f"Collection {self._collection!r} in {self.location}")

    def upsert(self, documents: Sequence[Document], vectors: FloatMatrix) -> int:
        """Store documents with their vectors; those with a stored id replace it. Repeating it changes nothing.

        Everything is checked before anything is stored. When it returns, all of it is durable; when it raises, the
        batches before the failing one are.

        Args:
            documents: Of several with one id the last wins.
            vectors: Float array of shape (len(documents), dimensions), rows of unit length.

        Returns:
            How many documents were stored.

        Raises:
            InputError: Vectors of the wrong count, that are not finite or not of unit length.
            ContractMismatchError: Vectors of another width.
            DocumentError: Metadata that JSON cannot hold.
            StorageFullError: Too little free space.
            StoreError: The engine failed, or the store is closed.
        """
        backend = self._open_backend()
        rows = checked_rows(vectors, count=len(documents), dimensions=self.dimensions, collection=self._collection)
        points = [make_point(documents[position], rows[position]) for position in last_of_each(documents)]
        for batch in batches(points):
            backend.upsert(batch)
            self._delete_replaced(batch)
        if points:
            backend.flush()
        return len(points)

    def states(self, documents: Sequence[Document]) -> list[State]:
        """How each document stands to what would be stored under its id when those before it were upserted.

        Raises:
            DocumentError: Metadata that JSON cannot hold.
            StoreError: The engine failed, or the store is closed.
        """
        backend = self._open_backend()
        hashes = [content_hash(document) for document in documents]
        ids = list(dict.fromkeys(document.point_id for document in documents))
        known: dict[PointId, str | None] = {}
        for start in range(0, len(ids), _IDS_PER_CALL):
            rows = backend.retrieve(ids[start : start + _IDS_PER_CALL], keys=[HASH_KEY])
            known.update({row.id: hash_of(row) for row in rows})
        states: list[State] = []
        for document, digest in zip(documents, hashes, strict=True):
            identifier = document.point_id
            if identifier not in known:
                states.append("new")
            else:
                states.append("unchanged" if known[identifier] == digest else "changed")
            known[identifier] = digest
        return states

    def unchanged(self, documents: Sequence[Document]) -> list[bool]:
        """Whether each document is stored already with equal text, language, source and metadata."""
        return [state == "unchanged" for state in self.states(documents)]

    def search(
        self,
        vector: FloatVector,
        *,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        score_threshold: float | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The documents nearest to a query vector, best first.

        Args:
            vector: Float array of shape (dimensions,).
            limit: At most so many.
            language: Only documents in this language, or in any of these.
            filter: Only documents that match; metadata keys are written ``metadata.<key>``, ``has_id`` takes
                document ids.
            score_threshold: Only documents with at least this cosine similarity.
            exact: Compare with every document instead of asking the index.

        Raises:
            InputError: A vector, limit, language or filter that cannot be searched for.
            ContractMismatchError: A vector of another width.
            StoreError: The engine failed, or the store is closed.
        """
        backend = self._open_backend()
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InputError(f"limit must be a whole number from 1, not {limit!r}.")
        query = checked_query(vector, dimensions=self.dimensions, collection=self._collection)
        rows = backend.search(
            query, limit=limit, selection=select(language, filter), score_threshold=score_threshold, exact=exact
        )
        return [hit_of(row) for row in rows]

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents with these ids, in this order; absent ones are left out.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        return [document_of(row) for row in self._stored(ids, keys=None).values()]

    def vectors(self, ids: Sequence[str]) -> dict[str, FloatVector]:
        """The stored vectors of the documents with these ids, in this order; absent ones are left out.

        Returns:
            Float32 arrays of shape (dimensions,), of unit length, by id.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        points = {key: row.id for key, row in self._stored(ids, keys=["f2rag.id"]).items()}
        found = self._open_backend().vectors(list(points.values())) if points else {}
        return {key: np.asarray(found[point], dtype=np.float32) for key, point in points.items() if point in found}

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the documents with these ids.

        Returns:
            How many there were.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        backend = self._open_backend()
        present = [row.id for row in self._stored(ids, keys=["f2rag.id"]).values()]
        for start in range(0, len(present), _IDS_PER_CALL):
            backend.delete(present[start : start + _IDS_PER_CALL])
        return len(present)

    def count(
        self,
        *,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
    ) -> int:
        """How many documents are stored, or match.

        Raises:
            InputError: A language or filter that cannot be used.
            StoreError: The engine failed, or the store is closed.
        """
        return self._open_backend().count(select(language, filter))

    def languages(self) -> dict[str, int]:
        """The languages of the stored documents with their numbers, the most frequent first."""
        found = self._open_backend().facet(LANGUAGE_KEY)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def documents(self) -> Iterator[Document]:
        """All stored documents, page by page, in no meaningful order."""
        offset = None
        while True:
            rows, offset = self._open_backend().scroll(offset=offset, limit=_PAGE)
            yield from (document_of(row) for row in rows)
            if offset is None:
                return

    def optimize(self) -> bool:
        """Build the search index where enough documents have none; says whether it did.

        Only the embedded engine needs it. It takes seconds per 10 000 documents and holds up the whole process.
        """
        return self._open_backend().optimize()

    def close(self) -> None:
        """Let go of the collection; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._backend.close()
            self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"QdrantStore({self.location!r}, collection={self._collection!r}, home={self.home!r})"

    def _open_backend(self) -> Backend:
        if self._closed:
            raise closed(f"Collection {self._collection!r} in {self.location}")
        return self._backend

    def _delete_replaced(self, batch: Sequence[Point]) -> None:
        """In an adopted collection a document may lie under its own id as Qdrant's; the new point replaces it."""
        foreign = [each for point in batch for each in stored_ids(point.payload["f2rag"]["id"]) if each != point.id]
        if foreign:
            rows = self._open_backend().retrieve(foreign, keys=["f2rag.id"])
            if replaced := [row.id for row in rows if "f2rag" not in row.payload]:
                self._open_backend().delete(replaced)

    def _stored(self, ids: Sequence[str], *, keys: Sequence[str] | None) -> dict[str, Row]:
        """The stored points among ``ids``, by the documents' own ids and in their order."""
        if isinstance(ids, str) or not all(isinstance(key, str) for key in ids):
            raise InputError("ids is a list of strings, the documents' own ids.")
        backend = self._open_backend()
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), _IDS_PER_CALL):
            chunk = [each for key in wanted[start : start + _IDS_PER_CALL] for each in stored_ids(key)]
            found.update({document_of(row).key: row for row in backend.retrieve(chunk, keys=keys)})
        # An id that is another document's Qdrant id found that one.
        return {key: found[key] for key in wanted if key in found}


def list_collections(location: Location) -> list[CollectionInfo]:
    """The collections of a home, sorted by name; none where the folder does not exist.

    Raises:
        InputError: An impossible location.
        StoreError: The home cannot be read.
    """
    home = home_of(location)
    try:
        return [home.info(name) for name in home.collections()]
    finally:
        home.close()


def drop_collection(location: Location, name: str) -> None:
    """Delete a collection with all its documents.

    Raises:
        InputError: An impossible name or location.
        CollectionNotFoundError: It is absent.
        StoreLockedError: It is open.
        StorePermissionError: The folder may not be written.
    """
    check_collection_name(name)
    home = home_of(location)
    try:
        if name not in home.collections():
            raise _not_found(home, name)
        home.drop(name)
    finally:
        home.close()


def _not_found(home: Home, collection: str) -> CollectionNotFoundError:
    present = home.collections()
    there = f"it holds {', '.join(map(repr, present))}" if present else "it holds none"
    return CollectionNotFoundError(
        f"There is no collection {collection!r} in {home.name}; {there}. "
        "Index documents into it first, or check the name and the location."
    )
