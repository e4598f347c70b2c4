"""The way data flows, in one file: documents to a collection, a query to hits.

    documents ─► which are new? ─► encoder.embed_documents ─► store.upsert
    query ─► encoder.embed_query ─► store.search ─► hits with evidence
    a stored document's vector ───► store.search ─► its neighbours

It knows no model, no prompt and no database; the encoder and the store do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from f2rag.errors import InputError
from f2rag.store.qdrant import QdrantStore
from f2rag.types import Document, Encoder, FloatMatrix, FloatVector, IndexReport, SearchResult, Timings

if TYPE_CHECKING:
    from qdrant_client import models

    from f2rag.store.homes import Location
    from f2rag.store.identity import State
    from f2rag.store.layout import Layout
    from f2rag.store.modes import Mode, ModeName


@dataclasses.dataclass(frozen=True, slots=True)
class _Window:
    """Documents that are embedded, and on their way into the store."""

    documents: Sequence[Document]
    states: Sequence[State]
    upload: concurrent.futures.Future[int] | None


class SearchEngine:
    """Indexes documents and searches them, with one encoder and one collection.

    The encoder stays its owner's: ``close`` closes the collection only.

    Args:
        encoder: Makes the vectors.
        store: Keeps them.

    Raises:
        ContractMismatchError: The collection was filled by another model.

    Example:
        >>> from f2rag.testing import FakeEncoder
        >>> engine = SearchEngine.open(FakeEncoder(dimensions=32), ":memory:")
        >>> report = engine.index([Document(text="a red house"), Document(text="the blue sea")])
        >>> report.added
        2
        >>> engine.search("blue sea", limit=1).hits[0].text
        'the blue sea'
        >>> engine.close()
    """

    def __init__(self, encoder: Encoder, store: QdrantStore) -> None:
        # A collection wider than the model is a mismatch, and the encoder cannot state a contract of that width.
        store.check(encoder.contract(dimensions=min(store.dimensions, encoder.native_dimensions)))
        self.encoder = encoder
        self.store = store

    @classmethod
    def open(
        cls,
        encoder: Encoder,
        location: Location,
        *,
        collection: str = "documents",
        dimensions: int | None = None,
        create: bool = True,
        layout: Layout | None = None,
    ) -> Self:
        """Open or make a collection for this encoder's vectors.

        Args:
            encoder: Makes the vectors.
            location: A folder, ``":memory:"``, the address of a server, a ``Server``, or a ``QdrantClient``.
            collection: Its name.
            dimensions: Width of the stored vectors; ``None`` takes the encoder's.
            create: Make the collection if it is absent.
            layout: What is stored of each document; ``None`` takes what is there, or for a new one what suits it.

        Raises:
            ContractMismatchError: The collection was filled by another model, at another width or with another layout.
            StoreError: It cannot be opened; see ``QdrantStore.open``.
        """
        contract = encoder.contract(dimensions=dimensions)
        store = QdrantStore.open(location, collection=collection, contract=contract, create=create, layout=layout)
        try:
            return cls(encoder, store)
        except BaseException:
            store.close()
            raise

    def index(
        self,
        documents: Iterable[Document],
        *,
        window: int = 512,
        on_progress: Callable[[int], object] | None = None,
    ) -> IndexReport:
        """Store documents; those that are stored already and equal are not embedded again.

        While one window is stored, the next one is embedded. After an error or a kill everything up to the last
        finished window is stored; the same call completes the rest.

        Args:
            documents: Any number, also a generator; they are read window by window.
            window: Documents per step.
            on_progress: Called after each window with the number of documents that are stored so far.

        Raises:
            InputError: ``window`` is not positive, or a text cannot be embedded.
            DocumentError: Metadata that JSON cannot hold.
            StoreError: The collection failed.
        """
        if window < 1:
            raise InputError(f"window must be at least 1, not {window}.")
        started = time.perf_counter()
        truncated_before = self.encoder.truncated_count
        counts: Counter[str] = Counter()

        def finish(window: _Window | None) -> None:
            if window is not None:
                if window.upload is not None:
                    window.upload.result()
                counts.update(window.states)
                if on_progress is not None:
                    on_progress(counts.total())

        remaining = iter(documents)
        before: _Window | None = None
        # While one window is stored, the next is embedded; there is never a third, so memory stays bounded.
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="f2rag-upload") as uploader:
            while batch := list(itertools.islice(remaining, window)):
                # What is being stored counts as stored already.
                under_way = before.documents if before is not None else []
                states = self.store.states([*under_way, *batch])[len(under_way) :]
                # By id, so that of several versions in one window only the last is embedded.
                wanted = list(
                    {doc.key: doc for doc, state in zip(batch, states, strict=True) if state != "unchanged"}.values()
                )
                vectors = self._embed(wanted) if wanted else None
                finish(before)
                upload = None if vectors is None else uploader.submit(self.store.upsert, wanted, vectors)
                before = _Window(wanted, states, upload)
            finish(before)
        self.store.optimize()
        return IndexReport(
            added=counts["new"],
            updated=counts["changed"],
            unchanged=counts["unchanged"],
            truncated=self.encoder.truncated_count - truncated_before,
            seconds=time.perf_counter() - started,
        )

    def _embed(self, documents: Sequence[Document]) -> FloatMatrix:
        texts = [document.text for document in documents]
        return self.encoder.embed_documents(texts, dimensions=self.store.dimensions)

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        instruction: str | None = None,
        mode: Mode | ModeName = "auto",
    ) -> SearchResult:
        """Find the documents that answer a query, in any language.

        Args:
            query: The text, bare; the encoder adds the instruction.
            limit: At most so many hits.
            language: Only documents in this language, or in any of these.
            filter: Only documents that match; metadata keys are written ``metadata.<key>``.
            instruction: Another instruction than the encoder's own; ``""`` for none.
            mode: How to search, see ``f2rag.store.modes``; ``"auto"`` takes what suits the collection.

        Raises:
            InputError: A query, limit, language, filter or mode that cannot be searched for.
            StoreError: The collection failed.
        """
        started = time.perf_counter()
        vector = self.encoder.embed_query(query, dimensions=self.store.dimensions, instruction=instruction)
        return self._look_up(
            *(query, vector, instruction, started), limit=limit, language=language, filter=filter, mode=mode
        )

    def _look_up(
        self,
        query: str,
        vector: FloatVector,
        instruction: str | None,
        started: float,
        *,
        limit: int,
        language: str | Sequence[str] | None,
        filter: models.Filter | None,  # noqa: A002 - Qdrant's word
        mode: Mode | ModeName,
    ) -> SearchResult:
        encoded = time.perf_counter()
        hits = self.store.search(vector, text=query, limit=limit, language=language, filter=filter, mode=mode)
        searched = time.perf_counter()
        name, _ = self.store.plan(mode)
        return SearchResult(
            query=query,
            instruction=self.encoder.instruction if instruction is None else instruction,
            model=self.encoder.model_name,
            dimensions=self.store.compared_dimensions(mode),
            mode=name,
            hits=hits,
            timings=Timings(encode_ms=(encoded - started) * 1e3, search_ms=(searched - encoded) * 1e3),
        )

    def similar(
        self,
        id: str,  # noqa: A002 - the documents' own word
        *,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        mode: Mode | ModeName = "auto",
    ) -> SearchResult:
        """Find the documents that are nearest to a stored one, in any language; itself is left out.

        Its stored vector is the query, so nothing is embedded. Two documents are closer than a query and a document, so
        scores are higher here than those of ``search``.

        Args:
            id: The document's own id.
            limit: At most so many hits.
            language: Only documents in this language, or in any of these.
            filter: Only documents that match.
            mode: How to search; ``"hybrid"`` looks up the words of the document's text.

        Returns:
            The hits, with the document's text for the query and without an instruction.

        Raises:
            InputError: No document has this id, or the limit, language, filter or mode cannot be searched for.
            StoreError: The collection failed.
        """
        started = time.perf_counter()
        documents, vectors = self.store.get([id]), self.store.vectors([id])
        if not documents or id not in vectors:
            raise InputError(
                f"Collection {self.store.collection!r} holds no document {id!r} with a vector. "
                "Give the id of a hit, or search by a text."
            )
        text = documents[0].text
        others = _without(id, filter)
        hits = self.store.search(vectors[id], text=text, limit=limit, language=language, filter=others, mode=mode)
        searched = time.perf_counter()
        name, _ = self.store.plan(mode)
        return SearchResult(
            query=text,
            instruction="",
            model=self.encoder.model_name,
            dimensions=self.store.compared_dimensions(mode),
            mode=name,
            hits=hits,
            timings=Timings(encode_ms=0.0, search_ms=(searched - started) * 1e3),
        )

    async def aindex(
        self,
        documents: Iterable[Document],
        *,
        window: int = 512,
        on_progress: Callable[[int], object] | None = None,
    ) -> IndexReport:
        """``index`` in a thread of its own, where ``documents`` is read and ``on_progress`` called too."""
        return await asyncio.to_thread(self.index, documents, window=window, on_progress=on_progress)

    async def asearch(
        self,
        query: str,
        *,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        instruction: str | None = None,
        mode: Mode | ModeName = "auto",
    ) -> SearchResult:
        """``search`` without blocking the event loop; queries that wait for the model share a batch."""
        # Only what an encoder must have is a protocol; ours holds no thread while its text waits for the device.
        embed: Any = getattr(self.encoder, "aembed_query", None)
        started = time.perf_counter()
        if embed is None:
            vector = await asyncio.to_thread(
                self.encoder.embed_query, query, dimensions=self.store.dimensions, instruction=instruction
            )
        else:
            vector = await embed(query, dimensions=self.store.dimensions, instruction=instruction)
        look_up = functools.partial(
            self._look_up,
            query,
            vector,
            instruction,
            started,
            limit=limit,
            language=language,
            filter=filter,
            mode=mode,
        )
        return await asyncio.to_thread(look_up)

    async def asimilar(
        self,
        id: str,  # noqa: A002 - the documents' own word
        *,
        limit: int = 10,
        language: str | Sequence[str] | None = None,
        filter: models.Filter | None = None,  # noqa: A002 - Qdrant's word
        mode: Mode | ModeName = "auto",
    ) -> SearchResult:
        """``similar`` in a thread of its own."""
        return await asyncio.to_thread(self.similar, id, limit=limit, language=language, filter=filter, mode=mode)

    def close(self) -> None:
        """Close the collection; the encoder is left to its owner."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _without(id: str, filter: Any) -> models.Filter:  # noqa: A002 - as above
    """The documents that match a filter, but one.

    Leaving it out of the hits instead would not do: a diverse search chooses what differs from the hits before.
    """
    from qdrant_client import models

    if filter is None or isinstance(filter, models.Filter):
        return models.Filter(must=filter, must_not=models.HasIdCondition(has_id=[id]))
    refused: models.Filter = filter  # by the store, which says what it takes
    return refused
