"""Which size and which compression a collection needs: measured on its own documents and queries.

    queries, given or made of documents ─► exact search at full width: the truth
                                        ├► each shorter size, exact
                                        ├► each shorter size for the first pass, full width for the second
                                        ├► int8 and bits for the first pass, full width for the second
                                        └► the collection's own modes, with the time that they take

All but the last are computed in numpy, in one pass over the stored vectors and whatever the collection stores beside
them. No time is claimed for what was not searched.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from f2rag.errors import InputError
from f2rag.evaluation.files import Query
from f2rag.evaluation.measures import CONFIDENCE, Estimate, estimate
from f2rag.evaluation.retrieval import OnProgress, embedded
from f2rag.evaluation.scan import Binary, Found, Int8, Page, Prefix, Scan, Scheme, scan
from f2rag.models import mrl_ladder
from f2rag.options import check_whole_number
from f2rag.sentences import first_sentence
from f2rag.store.modes import ModeName, Quantized
from f2rag.store.planning import candidates_of
from f2rag.vectors import memory_per_million

if TYPE_CHECKING:
    from f2rag.engine import SearchEngine
    from f2rag.store import QdrantStore
    from f2rag.types import FloatMatrix

Kind: TypeAlias = Literal["prefix", "funnel", "int8", "binary"]

TARGET: Final = 0.98
SAMPLE: Final = 100_000
QUERIES: Final = 200

_FEW_QUERIES: Final = 50
_DOCUMENTS_PER_CANDIDATE: Final = 10
"""A first pass that hands on more than a tenth of all documents says nothing about larger collections."""

_PAGE: Final = 2_048
_POOL: Final = 10
"""Documents that are looked at for each query that is made of one."""

_TOLERANCE: Final = 1e-6
"""Cosines that differ by less are equal: rounding decides which of two equal documents comes first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to store vectors, and what it finds.

    Attributes:
        kind: ``"prefix"``, vectors cut to ``dimensions``; ``"funnel"``, these for the first pass and the full width for
            the second; ``"int8"`` and ``"binary"``, compressed for the first pass and the full width for the second.
        dimensions: That the first pass compares.
        memory: Bytes per million vectors that every search reads, and that belong into memory. Graph and payload are
            not in it.
        disk: Bytes per million vectors that are read for the second pass only.
        candidates: That the first pass hands to the second; 0 where there is one pass.
        recall: Share of the true hits that were found; see ``Advice``.
        overlap: Agreement with their order, too.
    """

    kind: Kind
    dimensions: int
    memory: int
    disk: int
    candidates: int
    recall: Estimate
    overlap: Estimate

    @property
    def name(self) -> str:
        """What a table calls it."""
        return {"prefix": f"{self.dimensions}", "funnel": f"{self.dimensions} → full"}.get(
            self.kind, f"{self.kind} → full"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return _plain(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A mode of the collection as it is now.

    Attributes:
        mode: Its name.
        recall: Against the collection's own exact search.
        overlap: Likewise.
        search_ms: Median milliseconds of a search, without embedding.
        searches: How many were timed.
    """

    mode: ModeName
    recall: Estimate
    overlap: Estimate
    search_ms: float
    searches: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return _plain(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What ``advise`` found.

    ``recall`` is the share of the best ``limit`` hits of an exact search at full width that were found; a document that
    is as close as the last of them counts too. ``overlap`` is the mean over the ranks 1 to ``limit`` of the share that
    the two lists have in common down to there (average overlap), so that it also falls when their order differs.

    Attributes:
        collection: That was looked at.
        location: Where it lies.
        model: That filled it.
        dimensions: Of its vectors.
        documents: In it.
        compared: Documents that were compared; fewer where the collection is larger than the sample.
        queries: How many were asked.
        given: Whether they were given; else they are first sentences of documents, which are then no hits themselves.
        limit: Hits per query.
        target: Recall that the recommendation keeps.
        seed: Of the choice of documents and of the intervals.
        choices: Ways to store the vectors.
        measured: Modes of the collection as it is.
        recommended: The choice of the least memory, then disk, that keeps ``target`` at the lower end of its interval.
        sentence: The recommendation in words.
        notes: What limits what was found.
    """

    collection: str
    location: str
    model: str
    dimensions: int
    documents: int
    compared: int
    queries: int
    given: bool
    limit: int
    target: float
    seed: int
    choices: Sequence[Choice]
    measured: Sequence[Measured]
    recommended: Choice | None
    sentence: str
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        best = self.recommended
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "choices": [choice.to_dict() for choice in self.choices],
            "measured": [mode.to_dict() for mode in self.measured],
            "recommended": None if best is None else best.to_dict(),
            "notes": list(self.notes),
            "confidence": CONFIDENCE,
        }


def advise(
    engine: SearchEngine,
    queries: Sequence[Query] | None = None,
    *,
    limit: int = 10,
    target: float = TARGET,
    sample: int = SAMPLE,
    query_count: int = QUERIES,
    instruction: str | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Advice:
    """Measure what a collection loses by shorter and by compressed vectors, and recommend how to store it.

    Args:
        engine: The encoder and the collection.
        queries: Typical ones; ``None`` makes them of the collection's own documents.
        limit: Hits that matter.
        target: Recall that is to be kept, above 0 and up to 1.
        sample: At most so many documents are compared, the first by Qdrant's id: f2rag's ids are hashes, so that these
            are a fair part.
        query_count: How many queries to make where none are given.
        instruction: Another instruction than the encoder's own; ``""`` for none.
        seed: Of the choice of documents and of the intervals.
        on_progress: Called with a step, its finished and its total amount.

    Raises:
        InputError: A number that is out of range, no queries, or a collection of fewer than two documents.
        MissingExtraError: scipy is not installed.
        StoreError: The collection failed.
    """
    for name, value in (("limit", limit), ("sample", sample), ("query_count", query_count)):
        check_whole_number(value, name=name, least=1)
    if not 0 < target <= 1:
        raise InputError(f"target={target!r} was given; expected a recall above 0 and up to 1, e.g. {TARGET}.")
    report = on_progress or (lambda *_: None)
    store = engine.store
    documents = store.count()
    asked, sources = _asked(store, queries, pool=min(sample, _POOL * query_count), count=query_count, seed=seed)
    vectors = embedded(engine, asked, instruction=instruction, on_progress=report)
    total = min(sample, documents)
    found = scan(
        _first(store.iter_vectors(batch=_PAGE), sample),
        vectors,
        _schemes(vectors, ladder=_ladder(store), limit=limit),
        excluded=sources,
        on_progress=lambda done: report("comparing", done, max(total, done)),
    )
    choices = _choices(found, ladder=_ladder(store), limit=limit, seed=seed)
    best = recommend(choices, documents=len(found.ids), target=target)
    return Advice(
        collection=store.collection,
        location=store.location,
        model=store.contract.model,
        dimensions=store.dimensions,
        documents=documents,
        compared=len(found.ids),
        queries=len(asked),
        given=queries is not None,
        limit=limit,
        target=target,
        seed=seed,
        choices=choices,
        measured=_measured(store, asked, vectors, sources, limit=limit, seed=seed, report=report),
        recommended=best,
        sentence=_sentence(best, dimensions=store.dimensions, limit=limit, target=target),
        notes=_notes(documents=documents, compared=len(found.ids), queries=len(asked), limit=limit),
    )


def recommend(choices: Sequence[Choice], *, documents: int, target: float) -> Choice | None:
    """The choice of the least memory, then disk, whose recall is at least ``target`` at the lower end of its interval.

    A single query has no interval, and nothing can be recommended by it. A first pass that hands on more than a tenth
    of the ``documents`` that were compared is not recommended either: there it can hardly miss anything.
    """
    good = [
        choice
        for choice in choices
        if choice.recall.low is not None
        and choice.recall.low >= target
        and choice.candidates * _DOCUMENTS_PER_CANDIDATE <= documents
    ]
    return min(good, key=lambda choice: (choice.memory, choice.disk), default=None)


def _plain(found: Choice | Measured) -> dict[str, Any]:
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return {**fields, "recall": found.recall.to_dict(), "overlap": found.overlap.to_dict()}


def _ladder(store: QdrantStore) -> list[int]:
    """Sizes that were trained, up to the collection's own."""
    return [size for size in mrl_ladder(store.contract.native_dimensions) if size < store.dimensions] + [
        store.dimensions
    ]


def _schemes(vectors: FloatMatrix, *, ladder: Sequence[int], limit: int) -> dict[str, tuple[Scheme, int]]:
    """Ways to compare, with how many they keep: what a second pass would be given."""
    candidates, rescored = candidates_of(limit), math.ceil(Quantized().oversampling * limit)
    schemes: dict[str, tuple[Scheme, int]] = {str(size): (Prefix(vectors, size), candidates) for size in ladder}
    return {**schemes, "int8": (Int8(vectors), rescored), "binary": (Binary(vectors), rescored)}


def _choices(found: Scan, *, ladder: Sequence[int], limit: int, seed: int) -> list[Choice]:
    *shorter, width = ladder
    truth = found.found[str(width)]

    def choice(kind: Kind, dimensions: int, scheme: str, *, memory: int, disk: int = 0) -> Choice:
        """What is on disk is there for a second pass over all that the first one kept."""
        first = found.found[scheme]
        recall, overlap = agreement(first.rescored(limit) if disk else first, truth, limit=limit)
        return Choice(
            kind=kind,
            dimensions=dimensions,
            memory=memory,
            disk=disk,
            candidates=first.kept if disk else 0,
            recall=estimate(recall, seed=seed),
            overlap=estimate(overlap, seed=seed),
        )

    half, full = memory_per_million(width, "float16"), memory_per_million(width)
    return [
        *(choice("prefix", size, str(size), memory=memory_per_million(size)) for size in ladder),
        *(choice("funnel", size, str(size), memory=memory_per_million(size), disk=half) for size in shorter),
        *(choice(kind, width, kind, memory=memory_per_million(width, kind), disk=full) for kind in _COMPRESSED),
    ]


_COMPRESSED: Final[tuple[Kind, ...]] = ("int8", "binary")


def agreement(found: Found, truth: Found, *, limit: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Recall and average overlap of each query, see ``Advice``.

    Args:
        found: At least ``limit`` columns.
        truth: The best at full width, likewise.
        limit: Ranks that count.

    Returns:
        Two float64 arrays of shape (queries,).
    """
    rows = [
        _agreement(
            found.positions[row, :limit],
            found.exact[row, :limit],
            truth.positions[row, :limit],
            truth.exact[row, :limit],
        )
        for row in range(len(truth.positions))
    ]
    recall, overlap = np.array(rows, dtype=np.float64).T
    return recall, overlap


def _agreement(ids: Any, cosines: Any, true_ids: Any, true_cosines: Any) -> tuple[float, float]:
    """The same for one query, of arrays or lists; an id of -1 stands for nothing."""
    wanted = [each for each in true_ids if each != -1]
    if not wanted:
        return 1.0, 1.0  # nothing is there to be found
    last = true_cosines[len(wanted) - 1] - _TOLERANCE
    known = set(wanted)
    recalled = sum(each in known or cosine >= last for each, cosine in zip(ids, cosines, strict=True) if each != -1)
    common = [len(set(ids[:rank]) & set(wanted[:rank])) / rank for rank in range(1, len(wanted) + 1)]
    return min(1.0, recalled / len(wanted)), statistics.fmean(common)


def _asked(
    store: QdrantStore, queries: Sequence[Query] | None, *, pool: int, count: int, seed: int
) -> tuple[list[str], list[str | None]]:
    """The texts of the queries, and the documents that they are made of, which are no hits of theirs."""
    if queries is not None:
        if not queries:
            raise InputError("No query was given; expected at least one, or None for queries made of documents.")
        return [query.text for query in queries], [None] * len(queries)
    documents = list(itertools.islice(store.documents(), pool))
    texts = {document.key: first_sentence(document.text) for document in documents}
    usable = sorted(key for key, text in texts.items() if text)
    if len(documents) < 2 or not usable:
        raise InputError(
            f"Collection {store.collection!r} holds {len(documents)} documents to make queries of; expected at least "
            "2. Index more, or give queries."
        )
    chosen = np.random.default_rng(seed).permutation(len(usable))[:count]
    keys = [usable[row] for row in chosen]
    return [texts[key] for key in keys], list(keys)


def _first(pages: Iterator[tuple[list[str], FloatMatrix]], count: int) -> Iterator[Page]:
    """The first ``count`` vectors."""
    for ids, rows in pages:
        yield ids[:count], rows[:count]
        count -= len(ids)
        if count <= 0:
            return


def _measured(
    store: QdrantStore,
    texts: Sequence[str],
    vectors: FloatMatrix,
    sources: Sequence[str | None],
    *,
    limit: int,
    seed: int,
    report: OnProgress,
) -> list[Measured]:
    """The collection's own modes against its own exact search."""
    truth: list[tuple[list[str], list[float]]] = []
    rows = []
    for mode in _measurable(store):
        times, found = [], []
        for number, (text, vector, source) in enumerate(zip(texts, vectors, sources, strict=True), start=1):
            started = time.perf_counter()
            hits = store.search(vector, text=text, limit=limit + (source is not None), mode=mode)
            times.append((time.perf_counter() - started) * 1e3)
            kept = [hit for hit in hits if hit.id != source][:limit]
            found.append(([hit.id for hit in kept], [hit.score for hit in kept]))
            report(mode, number, len(texts))
        truth = truth or found
        shares = [_agreement(*mine, *true) for mine, true in zip(found, truth, strict=True)]
        recall, overlap = np.array(shares, dtype=np.float64).T
        rows.append(
            Measured(
                mode=mode,
                recall=estimate(recall, seed=seed),
                overlap=estimate(overlap, seed=seed),
                search_ms=statistics.median(times),
                searches=len(times),
            )
        )
    return rows


def _measurable(store: QdrantStore) -> list[ModeName]:
    """The modes whose hits are by the full vectors, the exact one first.

    Prefixes are measured without the collection; words and variety are not meant to find what an exact search finds;
    and the times of the client's local mode say nothing about any other home.
    """
    if store.home in ("memory", "client-local"):
        return ["exact"]
    return [mode for mode in store.modes() if mode in ("exact", "hnsw", "quantized", "funnel")]


def _sentence(best: Choice | None, *, dimensions: int, limit: int, target: float) -> str:
    if best is None:
        return "One query is too few to recommend anything by; give more."
    how = {
        "prefix": f"Store {best.dimensions} of {dimensions} dimensions"
        if best.dimensions < dimensions
        else f"Keep all {dimensions} dimensions as they are",
        "funnel": f"Search {best.dimensions} dimensions first and compare the best {candidates_of(limit)} at all "
        f"{dimensions} (a funnel)",
        "int8": f"Keep all {dimensions} dimensions, compressed to int8 in memory, with rescoring",
        "binary": f"Keep all {dimensions} dimensions, compressed to bits in memory, with rescoring",
    }[best.kind]
    disk = f" and {readable_bytes(best.disk)} on disk" if best.disk else ""
    full = memory_per_million(dimensions)
    saved = f", instead of {readable_bytes(full)} in memory" if best.memory < full else ""
    return (
        f"{how}: {readable_bytes(best.memory)} in memory{disk} per million vectors{saved}. Recall@{limit} is "
        f"{best.recall.mean:.3f}, and with 95 % confidence at least {best.recall.low:.3f} (target {target:g})."
    )


def _notes(*, documents: int, compared: int, queries: int, limit: int) -> list[str]:
    notes = []
    if compared < documents:
        notes.append(f"{compared:,} of {documents:,} documents were compared; more of them make every choice harder.")
    if compared < candidates_of(limit) * _DOCUMENTS_PER_CANDIDATE:
        notes.append(
            f"With only {compared:,} documents, a first pass that hands on {candidates_of(limit):,} of them can hardly "
            "miss anything: such choices are shown, and not recommended."
        )
    if queries < _FEW_QUERIES:
        notes.append(f"{queries:,} queries are few: their intervals say little. Give {_FEW_QUERIES} or more.")
    return notes


def readable_bytes(count: int) -> str:
    """Bytes for people, in powers of ten."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
