"""The reading half of a store: what is there, and what is near to a query.

``QdrantStore`` (``qdrant.py``) adds opening, writing and closing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from f2rag.errors import InputError
from f2rag.store.agreement import Record, refuse_mismatch
from f2rag.store.asynchronous import AsynchronousStore
from f2rag.store.completeness import missing, pages, vectors_of
from f2rag.store.failures import closed
from f2rag.store.filters import select
from f2rag.store.homes import (
    Backend,
    Home,
    HomeKind,
    Status,
)
from f2rag.store.identity import State, states, stored_rows
from f2rag.store.layout import Layout
from f2rag.store.modes import Mode, ModeName
from f2rag.store.offers import first_pass_bytes, offered_modes
from f2rag.store.payloads import document_of, hit_of
from f2rag.store.planner import Planner
from f2rag.store.points import checked_query
from f2rag.types import HitGroup

if TYPE_CHECKING:
    from qdrant_client import models

    from f2rag.contract import EmbeddingContract
    from f2rag.store.lexical import WordEncoder
    from f2rag.store.stages import Stage
    from f2rag.types import Document, FloatMatrix, FloatVector, Hit

_FACET_LIMIT = 10_000


class ReadableCollection(AsynchronousStore):
    """An open collection as its readers see it; ``QdrantStore`` is one. Threads may share it."""

    def __init__(
        self, home: Home, backend: Backend, *, collection: str, record: Record, owns_home: bool = True
    ) -> None:
        self._home = home
        self._backend = backend
        self._collection = collection
        self._record = record
        self._closed = False
        self._owns_home = owns_home
        self._words = _word_encoder(record.layout)
        self._planner = Planner(backend, home=home.kind, layout=record.layout, words=self._words)

    @property
    def contract(self) -> EmbeddingContract:
        """What the stored vectors are."""
        return self._record.contract

    @property
    def layout(self) -> Layout:
        """What is stored of each document."""
        return self._record.layout

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._collection

    @property
    def location(self) -> str:
        """Where it lies: a folder, ``":memory:"``, or the address of a server."""
        return self._home.name

    @property
    def home(self) -> HomeKind:
        """What keeps it.

        ``"edge"``, the embedded engine in a folder; ``"memory"``; ``"client-local"``, the slow fallback in a folder;
        ``"server"``.
        """
        return self._home.kind

    @property
    def closed(self) -> bool:
        """Whether it was closed; then every other use is refused."""
        return self._closed

    @property
    def dimensions(self) -> int:
        """The width of the stored vectors."""
        return self.contract.dimensions

    def check(self, contract: EmbeddingContract) -> None:
        """Make sure that vectors under ``contract`` may go in here.

        Raises:
            ContractMismatchError: They are not comparable with the stored ones.
        """
        refuse_mismatch(self.contract, contract, f"Collection {self._collection!r} in {self.location}")

    def states(self, documents: Sequence[Document]) -> list[State]:
        """How each document stands to what would be stored under its id when those before it were upserted.

        Raises:
            DocumentError: Metadata that JSON cannot hold.
            StoreError: The engine failed, or the store is closed.
        """
        return states(self._open_backend(), documents)

    def unchanged(self, documents: Sequence[Document]) -> list[bool]:
        """Whether each document is stored already with equal text, language, source and metadata."""
        return [state == "unchanged" for state in self.states(documents)]

    def search(
        self,
        vector: FloatVector,
        *,
        text: str | None = None,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        score_threshold: float | None = None,
        mode: Mode | ModeName = "auto",
    ) -> list[Hit]:
        """The documents nearest to a query vector, best first.

        Args:
            vector: Float array of shape (dimensions,).
            text: The query's text, which the mode ``"hybrid"`` looks up word by word.
            limit: At most so many.
            language: Only documents in this language, or in any of these.
            filter: Only documents that match; metadata keys are written ``metadata.<key>``, ``has_id`` takes
                document ids.
            score_threshold: Only documents with at least this cosine similarity; of ``Prefix`` that of the prefixes.
            mode: How to search, see ``f2rag.store.modes``; ``"auto"`` takes what suits the collection (``plan``).

        Raises:
            InputError: A vector, limit, language, filter or mode that cannot be searched for.
            ContractMismatchError: A vector of another width.
            UnsupportedFeatureError: The server is too old for the mode.
            StoreUnavailableError: The server does not answer.
            StoreError: The engine failed, or the store is closed.
        """
        stage = self._stage(vector, text=text, limit=limit, mode=mode, score_threshold=score_threshold)
        rows = self._open_backend().search(stage, selection=select(language, filter), score_threshold=score_threshold)
        return [hit_of(row) for row in rows]

    def search_groups(
        self,
        vector: FloatVector,
        *,
        by: str = "source",
        text: str | None = None,
        limit: int = 10,
        size: int = 3,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        score_threshold: float | None = None,
        mode: Mode | ModeName = "auto",
    ) -> list[HitGroup]:
        """The best documents with their best passages: hits, grouped by a metadata field.

        Args:
            vector: As for ``search``.
            by: A metadata field of text or whole numbers; documents without it are left out.
            text: As for ``search``.
            limit: At most so many groups.
            size: At most so many hits of each.
            language: As for ``search``.
            filter: As for ``search``.
            score_threshold: As for ``search``.
            mode: As for ``search``.

        Raises:
            As for ``search``.
        """
        _whole(size, "size")
        stage = self._stage(vector, text=text, limit=limit, mode=mode, score_threshold=score_threshold)
        found = self._open_backend().search_groups(
            stage,
            selection=select(language, filter),
            score_threshold=score_threshold,
            key=_path(by),
            groups=limit,
            size=size,
        )
        return [HitGroup(value=value, hits=[hit_of(row) for row in rows]) for value, rows in found]

    def plan(self, mode: Mode | ModeName = "auto") -> tuple[ModeName, str]:
        """The mode that a search would take, by name, and why.

        Raises:
            InputError: No mode.
            StoreError: The engine failed, or the store is closed.
        """
        self._open_backend()
        return self._planner.describe(mode)

    def modes(self) -> list[ModeName]:
        """The modes that this collection offers, by name, ``"exact"`` first.

        Those that the layout or the server lacks are left out, and in the client's local mode also those that would do
        the same as ``"exact"``.

        Raises:
            StoreError: The server does not say its version, or the store is closed.
        """
        return offered_modes(self.layout, home=self.home, version=self._open_backend().version)

    def compared_dimensions(self, mode: Mode | ModeName = "auto") -> int:
        """The vector size that decides over the hits of a mode: the level of a ``Prefix``, else the full width.

        Raises:
            InputError: No mode, or a level that is not stored.
        """
        return self._planner.level(mode) or self.dimensions

    def memory_per_million(self, mode: Mode | ModeName = "auto") -> int:
        """Bytes per million vectors that the first dense pass of a mode compares, and that belong into memory.

        In it are the vectors as they are stored: a level or the full width; float32, the float16 of full vectors beside
        levels, or their compressed form. Not in it are what later passes and rescoring read of single candidates, the
        graph, the words of a hybrid search, payloads and indexes, and the few bytes beside each vector that an engine
        keeps for itself. A walk through a graph reads a part of it.

        Raises:
            InputError: A mode that needs what this collection does not store.
            StoreError: The engine failed, or the store is closed.
        """
        self._open_backend()
        mode = self._planner.resolved(mode)
        dense = self._planner.plan().mode
        return first_pass_bytes(mode, layout=self.layout, dimensions=self.dimensions, home=self.home, dense=dense)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents with these ids, in this order; absent ones are left out.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        return [document_of(row) for row in stored_rows(self._open_backend(), ids, keys=None).values()]

    def vectors(self, ids: Sequence[str]) -> dict[str, FloatVector]:
        """The stored vectors of the documents with these ids, in this order; absent ones are left out.

        Returns:
            Float32 arrays of shape (dimensions,), of unit length, by id.

        Raises:
            InputError: ``ids`` is one string instead of several, or holds something else than strings.
            StoreError: The engine failed, or the store is closed.
        """
        points = {key: row.id for key, row in stored_rows(self._open_backend(), ids, keys=["f2rag.id"]).items()}
        found = vectors_of(self._open_backend(), list(points.values()))
        return {key: found[point] for key, point in points.items() if point in found}

    def iter_vectors(self, *, batch: int = 1_000) -> Iterator[tuple[list[str], FloatMatrix]]:
        """All stored vectors, page by page, in no meaningful order.

        Args:
            batch: Documents per page.

        Yields:
            The documents' ids and a float32 array of shape (ids, dimensions), rows of unit length.

        Raises:
            StoreError: The engine failed, or the store is closed.
        """
        for rows in pages(self._open_backend(), size=batch):
            found = vectors_of(self._open_backend(), [row.id for row in rows])
            present = [row for row in rows if row.id in found]
            if present:
                yield [document_of(row).key for row in present], np.stack([found[row.id] for row in present])

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
        return self.facet("language")

    def facet(
        self,
        field: str,
        *,
        limit: int = _FACET_LIMIT,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
    ) -> dict[str, int]:
        """The values of a metadata field with the numbers of documents that have them, the most frequent first.

        Args:
            field: ``language``, ``source``, or a field that the layout declares.
            limit: At most so many values.
            language: Only documents in this language, or in any of these.
            filter: Only documents that match.

        Raises:
            InputError: A field without an index, or a language or filter that cannot be used.
            StoreError: The engine failed, or the store is closed.
        """
        _whole(limit, "limit")
        path = _path(field)
        if path not in self.layout.indexes:
            known = ", ".join(key.removeprefix("metadata.") for key in self.layout.indexes if key != "doc_id")
            raise InputError(
                f"The field {field!r} has no index, which counting its values needs; there is one on {known}. "
                f"Declare it when the collection is made: Layout(fields={{{field!r}: 'keyword'}})."
            )
        found = self._open_backend().facet(path, selection=select(language, filter), limit=limit)
        # The embedded engine still names values whose last document was deleted, with 0.
        present = [(value, count) for value, count in found.items() if count]
        return dict(sorted(present, key=lambda item: (-item[1], item[0])))

    def documents(
        self,
        *,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
    ) -> Iterator[Document]:
        """All stored documents that match, page by page, in no meaningful order."""
        for rows in pages(self._open_backend(), select(language, filter)):
            yield from (document_of(row) for row in rows)

    def status(self) -> Status:
        """How many points there are, whether the index is ready, and which engine keeps it.

        Raises:
            StoreError: The engine failed, or the store is closed.
        """
        return self._open_backend().status()

    def missing(self) -> dict[str, int]:
        """How many documents lack one of the layout's vectors, by its name; none where everything is there.

        Tools that know nothing of levels write points without them, and neither the funnel nor a prefix finds those.
        """
        return missing(self._open_backend(), self.layout, self._words)

    def __repr__(self) -> str:
        return f"QdrantStore({self.location!r}, collection={self._collection!r}, home={self.home!r})"

    def _open_backend(self) -> Backend:
        if self._closed:
            raise closed(f"Collection {self._collection!r} in {self.location}")
        return self._backend

    def _stage(
        self,
        vector: FloatVector,
        *,
        text: str | None,
        limit: int,
        mode: Mode | ModeName,
        score_threshold: float | None,
    ) -> Stage:
        self._open_backend()
        _whole(limit, "limit")
        query = checked_query(vector, dimensions=self.dimensions, collection=self._collection)
        return self._planner.stage(query, text=text, limit=limit, mode=mode, score_threshold=score_threshold)


def _word_encoder(layout: Layout) -> WordEncoder | None:
    if layout.lexical is None:
        return None
    from f2rag.store.lexical import WordEncoder

    return WordEncoder(layout.lexical)


def _path(field: str) -> str:
    """The payload path of a metadata field."""
    if not isinstance(field, str) or not field or field.startswith("metadata."):
        raise InputError(f"{field!r} is no metadata field; write it bare, e.g. 'source' or 'author.name'.")
    return f"metadata.{field}"


def _whole(value: object, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number from 1, not {value!r}.")
