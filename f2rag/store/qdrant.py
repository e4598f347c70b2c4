"""QdrantStore: one collection of documents, filled and searched under its contract.

It knows documents, vectors, contracts and layouts. It knows no model, and not which engine keeps the points
(``homes.py``). Reading is in ``reading.py``.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from f2rag.errors import InputError
from f2rag.store.agreement import Record, agree
from f2rag.store.catalog import not_found, switch_alias_in
from f2rag.store.completeness import backfill
from f2rag.store.filters import select
from f2rag.store.homes import (
    Backend,
    Home,
    Status,
    check_collection_name,
    home_of,
)
from f2rag.store.identity import IDS_PER_CALL, delete_replaced, stored_rows
from f2rag.store.layout import Layout
from f2rag.store.planning import plan_layout
from f2rag.store.points import PendingBatch, checked_rows, pending_batches
from f2rag.store.reading import ReadableCollection

if TYPE_CHECKING:
    from qdrant_client import models

    from f2rag.contract import EmbeddingContract
    from f2rag.store.homes import Location
    from f2rag.types import Document, FloatMatrix


class QdrantStore(ReadableCollection):
    """One collection of documents and their vectors; made by ``open``. Threads may share it.

    Every method that talks to the engine has an async twin with ``a`` before its name.

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

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        collection: str = "documents",
        contract: EmbeddingContract | None = None,
        create: bool = True,
        adopt: bool = False,
        layout: Layout | None = None,
    ) -> Self:
        """Open a collection, and make it if it is absent and a contract is given.

        Args:
            location: A folder, for the embedded engine; the address of a server, ``"http://..."``, or a ``Server`` with
                its key; ``":memory:"`` for a new, empty home in memory; or a ``QdrantClient`` of your own, which stays
                open when the store is closed.
            collection: Its name, or an alias.
            contract: What the vectors are that will be stored and searched, from ``encoder.contract()``. ``None`` opens
                what is there and takes its contract.
            create: Make the collection if it is absent.
            adopt: Write ``contract`` to a collection that something else filled. Only you can know that it is true.
            layout: What is stored of each document. ``None`` takes what an existing collection has, and for a new one
                what suits its width and home.

        Raises:
            InputError: An impossible name, location or layout.
            CollectionNotFoundError: It is absent, and ``contract`` is ``None`` or ``create`` false.
            ContractMismatchError: It was filled by another model, by something else than f2rag, or has another layout.
            StoreLockedError: It is open elsewhere.
            StorePermissionError: The folder may not be written.
            StorageFullError: Too little free space to open it safely.
            StoreUnavailableError: The server does not answer.
            StoreAccessError: The server refuses the key.
            UnsupportedFeatureError: The engine lacks something that the layout asks for.
            StoreError: It is damaged, or was written by a newer f2rag.
        """
        home = home_of(location)
        try:
            return cls.open_in(home, collection, contract=contract, create=create, adopt=adopt, layout=layout)
        except BaseException:
            home.close()
            raise

    def beside(
        self, collection: str, *, contract: EmbeddingContract | None = None, layout: Layout | None = None
    ) -> QdrantStore:
        """Open or make another collection of the same home, through the same connection.

        Close it before this store, which owns the connection.

        Args:
            collection: Its name, or an alias.
            contract: As for ``open``.
            layout: As for ``open``.

        Raises:
            As ``open`` does.
        """
        self._open_backend()
        return QdrantStore.open_in(self._home, collection, contract=contract, layout=layout, owns_home=False)

    @classmethod
    def open_in(
        cls,
        home: Home,
        collection: str,
        *,
        contract: EmbeddingContract | None,
        layout: Layout | None,
        create: bool = True,
        adopt: bool = False,
        owns_home: bool = True,
    ) -> Self:
        """``open`` in a home that is open; with ``owns_home`` closing the store closes it."""
        check_collection_name(collection)
        if collection not in home.collections() and collection not in home.aliases():
            if contract is None or not create:
                raise not_found(home, collection)
            _create(home, collection, contract, layout)
        backend = home.open(collection)
        try:
            # Also of a new one: another process may have made it at the same moment, for another model.
            record = _agreed(backend, contract, layout=layout, collection=collection, adopt=adopt)
            return cls(home, backend, collection=collection, record=record, owns_home=owns_home)
        except BaseException:
            backend.close()
            raise

    def is_current(self, contract: EmbeddingContract | None = None, *, layout: Layout | None = None) -> bool:
        """Whether what is stored under the name is still what was opened, and not a collection made anew meanwhile.

        Args:
            contract: As for ``open``, compared with what is stored now.
            layout: As for ``open``, likewise.

        Raises:
            As ``open`` does for a collection that exists.
        """
        backend = self._open_backend()
        return self._record == _agreed(backend, contract, layout=layout, collection=self._collection, adopt=False)

    def upsert(self, documents: Sequence[Document], vectors: FloatMatrix) -> int:
        """Store documents with their vectors; those with a stored id replace it. Repeating it changes nothing.

        Everything is checked before anything is stored. When it returns, all of it is durable; when it raises, whole
        batches are, and repeating it completes the rest.

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
        words_of = None if self._words is None else self._words.document
        batches = pending_batches(documents, rows, layout=self.layout, words_of=words_of)
        if backend.writers == 1 or len(batches) == 1:
            for batch in batches:
                self._write(backend, batch)
        else:
            self._write_at_once(backend, batches)
        if batches:
            backend.flush()
            self._planner.forget_size()
        return sum(len(batch.positions) for batch in batches)

    def _write_at_once(self, backend: Backend, batches: Sequence[PendingBatch]) -> None:
        """Several batches on their way; after a failure no further one is sent."""
        with concurrent.futures.ThreadPoolExecutor(backend.writers, thread_name_prefix="f2rag-write") as pool:
            under_way = [pool.submit(self._write, backend, batch) for batch in batches]
            try:
                for each in under_way:
                    each.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _write(self, backend: Backend, pending: PendingBatch) -> None:
        batch = pending.make()
        backend.upsert(batch)
        if self._record.adopted:
            delete_replaced(backend, batch)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the documents with these ids.

        Returns:
            How many there were.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        backend = self._open_backend()
        present = [row.id for row in stored_rows(self._open_backend(), ids, keys=["f2rag.id"]).values()]
        for start in range(0, len(present), IDS_PER_CALL):
            backend.delete(present[start : start + IDS_PER_CALL])
        self._planner.forget_size()
        return len(present)

    def delete_where(
        self,
        *,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
    ) -> int:
        """Delete the documents that match.

        Returns:
            How many there were.

        Raises:
            InputError: Neither a language nor a filter, or one that cannot be used.
            StoreError: The engine failed, or the store is closed.
        """
        if language is None and filter is None:
            raise InputError(
                "delete_where() needs a language or a filter. To delete everything, use f2rag.store.drop_collection."
            )
        backend, selection = self._open_backend(), select(language, filter)
        count = backend.count(selection)
        if count:
            backend.delete_where(selection)
            self._planner.forget_size()
        return count

    def backfill(self, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Give every document the vectors of the layout that it lacks; repeating it changes nothing.

        Levels are cut from the stored full vectors, words are read from the stored texts: no text is embedded.

        Args:
            on_progress: Called with the number of vectors made so far.

        Returns:
            How many vectors were made.

        Raises:
            StoreError: The engine failed, or the store is closed.
        """
        return backfill(self._open_backend(), self.layout, self._words, on_progress)

    def optimize(self, *, wait: float | None = None, on_progress: Callable[[Status], object] | None = None) -> bool:
        """Build the search index where enough documents have none, or wait for a server to do it.

        The embedded engine builds when it is told to: seconds per 10 000 documents, in which it holds up the whole
        process. A server builds by itself; searches work meanwhile and are slower.

        Args:
            wait: Most seconds to wait for a server; ``None`` does not wait.
            on_progress: Called with the status while waiting.

        Returns:
            Whether anything was built or waited for.

        Raises:
            StoreUnavailableError: The server is not ready within ``wait`` seconds.
            StoreError: The engine failed, or the store is closed.
        """
        return self._open_backend().optimize(wait=wait, on_progress=on_progress)

    def switch_alias(self, alias: str) -> None:
        """Let ``alias`` stand for this collection from now on, in one step; readers see the old one or this one.

        Raises:
            InputError: An impossible name, or the name of a collection.
            StoreError: The home cannot be read or written.
        """
        self._open_backend()
        switch_alias_in(self._home, alias, self._collection)

    def refuse_itself(self, other: str) -> None:
        """Make sure that another name of the same home does not mean this collection.

        Raises:
            InputError: It does, by itself or as an alias.
        """
        aliases = self._home.aliases()
        if aliases.get(other, other) == aliases.get(self._collection, self._collection):
            raise InputError(f"{other!r} is the collection that is read. Give another name for the new one.")

    def close(self) -> None:
        """Let go of the collection; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._backend.close()
            if self._owns_home:
                self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _agreed(
    backend: Backend, contract: EmbeddingContract | None, *, layout: Layout | None, collection: str, adopt: bool
) -> Record:
    """The record of a collection, which a writer leaves with all its indexes."""
    record = agree(backend, contract, layout=layout, collection=collection, adopt=adopt)
    if contract is not None:  # a writer; one that was killed while it made the collection left some out
        backend.create_indexes(record.layout.indexes)
    return record


def _create(home: Home, collection: str, contract: EmbeddingContract, layout: Layout | None) -> None:
    if layout is None:
        layout, _ = plan_layout(dimensions=contract.dimensions, home=home.kind)
    layout.check(contract.dimensions)
    record = Record(contract=contract, layout=layout)
    home.create(collection, record.to_dict(), layout=layout, dimensions=contract.dimensions)
