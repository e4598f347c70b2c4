"""How well a collection answers queries whose answers are known, in any mode and at any number of dimensions.

    queries ─► vectors ─┬► store.search, mode by mode ────────┬► rankings ─► measures with intervals
                        └► exact search in numpy, all sizes ──┘
                           in one pass over the stored vectors

It knows no model and no engine of Qdrant.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from f2rag.errors import InputError
from f2rag.evaluation.files import Judgements, Query
from f2rag.evaluation.measures import CONFIDENCE, RANK, Estimate, Values, estimate, measure_names, measured
from f2rag.evaluation.scan import Prefix, scan
from f2rag.options import check_whole_number
from f2rag.store.modes import Mode, ModeName, mode_name, mode_of
from f2rag.vectors import check_dimensions

if TYPE_CHECKING:
    from f2rag.engine import SearchEngine
    from f2rag.store import QdrantStore
    from f2rag.types import FloatMatrix

OnProgress: TypeAlias = Callable[[str, int, int], object]
"""Called with a step, how much of it is done, and how much there is."""

_QUERIES_AT_ONCE: Final = 128
_IDS_AT_ONCE: Final = 1_000
_CHUNK = re.compile(r"#\d+$")
_CHUNKS_PER_DOCUMENT: Final = 4
"""So many times the hits are fetched at first where documents were split; more if that is not enough."""


class EvaluationWarning(UserWarning):
    """Figures that say less than they seem to."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way to search, measured.

    Attributes:
        mode: As it was asked for, e.g. ``"auto"``; ``"numpy"`` for the exact search outside the collection.
        ran: What that was, e.g. ``"funnel"``.
        reason: Why that, where ``"auto"`` was asked for.
        dimensions: That were compared.
        overall: By measure: nDCG@10, recall at the cutoffs, MRR@10.
        by_language: The same by language of the query, the most frequent first.
        search_ms: Median milliseconds of a search, without embedding; ``None`` outside the collection.
    """

    mode: str
    ran: str
    reason: str
    dimensions: int
    overall: Mapping[str, Estimate]
    by_language: Mapping[str, Mapping[str, Estimate]]
    search_ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "mode": self.mode,
            "ran": self.ran,
            "reason": self.reason,
            "dimensions": self.dimensions,
            "search_ms": None if self.search_ms is None else round(self.search_ms, 3),
            "overall": _plain(self.overall),
            "by_language": {tag: _plain(found) for tag, found in self.by_language.items()},
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What ``evaluate`` found, with all that is needed to read it.

    Attributes:
        collection: That was searched.
        location: Where it lies.
        model: That embedded the queries.
        instruction: That the queries got.
        documents: In the collection.
        dimensions: Of the stored vectors.
        queries: That were measured: those with a relevant document.
        unjudged: Queries without a relevant document in the judgements; they are left out.
        missing: Relevant documents that are not in the collection; they count as not found.
        seed: Of the intervals.
        runs: The modes in the order in which they were given, then the sizes.
    """

    collection: str
    location: str
    model: str
    instruction: str
    documents: int
    dimensions: int
    queries: int
    unjudged: int
    missing: int
    seed: int
    runs: Sequence[Run]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "runs"]
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "confidence": CONFIDENCE, "runs": [run.to_dict() for run in self.runs]}


def evaluate(
    engine: SearchEngine,
    queries: Iterable[Query],
    judgements: Judgements,
    *,
    modes: Sequence[Mode | ModeName] = ("auto",),
    dimensions: Sequence[int] = (),
    cutoffs: Sequence[int] = (10, 100),
    instruction: str | None = None,
    exclude_same_id: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure how well the engine's collection answers queries whose answers are known.

    Queries are embedded once. Every mode is a search of the collection itself. Every size in ``dimensions`` is an exact
    search in numpy over the stored vectors, cut to it and normalised again: one pass over the collection for all sizes.

    Args:
        engine: The encoder and the collection.
        queries: With distinct ids.
        judgements: Grades by query and document.
        modes: Ways to search the collection.
        dimensions: Sizes up to the collection's.
        cutoffs: Ranks at which recall is taken.
        instruction: Another instruction than the encoder's own; ``""`` for none.
        exclude_same_id: Leave out of a query's hits the document with the query's id, as BEIR does.
        seed: Of the bootstrap.
        on_progress: Called with a step, its finished and its total amount.

    Raises:
        InputError: Nothing to measure: no mode and no size, cutoffs below 1, queries that share an id, judgements of
            unknown queries, or none of the judged documents is in the collection.
        DimensionsError: A size above the collection's.
        MissingExtraError: ir_measures or scipy is not installed.
        StoreError: The collection failed, or cannot search in that mode.

    Warns:
        EvaluationWarning: Some relevant documents are not in the collection.
    """
    report = on_progress or _silent
    store, encoder = engine.store, engine.encoder
    given = list(queries)
    depths = [check_whole_number(cutoff, name="a cutoff", least=1) for cutoff in dict.fromkeys(cutoffs)]
    chosen = {_title(mode): mode_of(mode) for mode in modes}
    sizes = [_size(size, store.dimensions) for size in dict.fromkeys(dimensions)]
    if not chosen and not sizes:
        raise InputError("Neither a mode nor a size was given; expected at least one, e.g. modes=('auto',).")
    judged = _judged(given, judgements)
    asked = [query for query in given if query.id in judged]
    missing, chunked = _missing(store, judged)
    vectors = embedded(engine, [query.text for query in asked], instruction=instruction, on_progress=report)
    rank = _Ranking(store, asked, vectors, depth=max(*depths, RANK), chunked=chunked, exclude=exclude_same_id)
    measure = _Measuring(asked, judged, depths, seed)
    runs = []
    for name, mode in chosen.items():
        rankings, milliseconds = rank.by_search(mode, title=name, report=report)
        ran, reason = store.plan(mode or "auto")
        overall, by_language = measure(rankings)
        size = store.compared_dimensions(mode or "auto")
        runs.append(_run(name, ran, "" if mode else reason, size, overall, by_language, milliseconds))
    for size, rankings in rank.by_scan(sizes, report=report).items():
        runs.append(_run("numpy", "exact", "", size, *measure(rankings), None))
    return Evaluation(
        collection=store.collection,
        location=store.location,
        model=encoder.model_name,
        instruction=encoder.instruction if instruction is None else instruction,
        documents=store.count(),
        dimensions=store.dimensions,
        queries=len(asked),
        unjudged=len(given) - len(asked),
        missing=missing,
        seed=seed,
        runs=runs,
    )


def _run(
    mode: str,
    ran: str,
    reason: str,
    dimensions: int,
    overall: Mapping[str, Estimate],
    by_language: Mapping[str, Mapping[str, Estimate]],
    search_ms: float | None,
) -> Run:
    return Run(
        mode=mode,
        ran=ran,
        reason=reason,
        dimensions=dimensions,
        overall=overall,
        by_language=by_language,
        search_ms=search_ms,
    )


class _Measuring:
    """Rankings to estimates, overall and by language."""

    def __init__(self, queries: Sequence[Query], judged: Judgements, cutoffs: Sequence[int], seed: int) -> None:
        self._judged = {query.id: judged[query.id] for query in queries}
        self._cutoffs = cutoffs
        self._seed = seed
        spoken = Counter(query.language for query in queries if query.language)
        self._rows = {
            tag: np.array([row for row, query in enumerate(queries) if query.language == tag])
            for tag in sorted(spoken, key=lambda tag: (-spoken[tag], tag))
        }

    def __call__(
        self, rankings: Mapping[str, Sequence[str]]
    ) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
        values = measured(rankings, self._judged, cutoffs=self._cutoffs)
        by_language = {tag: self._estimates(values, rows) for tag, rows in self._rows.items()}
        return self._estimates(values, np.arange(len(self._judged))), by_language

    def _estimates(self, values: Mapping[str, Values], rows: Any) -> dict[str, Estimate]:
        return {name: estimate(values[name][rows], seed=self._seed) for name in measure_names(self._cutoffs)}


class _Ranking:
    """Ids of documents by query, best first, from the collection or from its vectors."""

    def __init__(
        self,
        store: QdrantStore,
        queries: Sequence[Query],
        vectors: FloatMatrix,
        *,
        depth: int,
        chunked: bool,
        exclude: bool,
    ) -> None:
        self._store = store
        self._queries = queries
        self._vectors = vectors
        self._depth = depth
        self._chunked = chunked
        self._exclude = exclude
        self._first = depth * (_CHUNKS_PER_DOCUMENT if chunked else 1) + exclude

    def by_search(
        self, mode: Mode | None, *, title: str, report: OnProgress
    ) -> tuple[dict[str, list[str]], float | None]:
        """Rankings by searching the collection, and the median milliseconds of a search."""
        rankings, times = {}, []
        for number, (query, vector) in enumerate(zip(self._queries, self._vectors, strict=True), start=1):
            limit = self._first
            while True:
                started = time.perf_counter()
                hits = self._store.search(vector, text=query.text, limit=limit, mode=mode or "auto")
                times.append((time.perf_counter() - started) * 1e3)
                rankings[query.id] = self._documents(query, [hit.id for hit in hits])
                if len(rankings[query.id]) >= self._depth or len(hits) < limit or not self._chunked:
                    break
                limit *= 2
            report(title, number, len(self._queries))
        return rankings, statistics.median(times) if times else None

    def by_scan(self, sizes: Sequence[int], *, report: OnProgress) -> dict[int, dict[str, list[str]]]:
        """Rankings by exact search at each size, in one pass over the stored vectors."""
        if not sizes:
            return {}
        total = self._store.count()
        found = scan(
            self._store.iter_vectors(),
            self._vectors,
            {str(size): (Prefix(self._vectors, size), self._first) for size in sizes},
            on_progress=lambda done: report("numpy", done, max(total, done)),
        )
        return {
            size: {
                query.id: self._documents(query, found.ranking(str(size), row))
                for row, query in enumerate(self._queries)
            }
            for size in sizes
        }

    def _documents(self, query: Query, ids: Sequence[str]) -> list[str]:
        """Ids of documents instead of chunks, each once at its best rank, at most ``depth``."""
        names = dict.fromkeys(_CHUNK.sub("", key) if self._chunked else key for key in ids)
        if self._exclude:
            names.pop(query.id, None)
        return list(names)[: self._depth]


def _judged(queries: Sequence[Query], judgements: Judgements) -> dict[str, Mapping[str, int]]:
    """The judgements of queries that have a relevant document."""
    counts = Counter(query.id for query in queries)
    if doubled := [key for key, count in counts.items() if count > 1]:
        raise InputError(f"Queries share an id: {_some(doubled)}. Give each query its own.")
    if unknown := [key for key in judgements if key not in counts]:
        raise InputError(
            f"{len(unknown):,} of {len(judgements):,} judged queries are not among the queries: {_some(unknown)}. "
            "Give the queries that belong to these judgements."
        )
    judged = {key: grades for key, grades in judgements.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError(
            f"None of {len(queries):,} queries has a relevant document; expected judgements with grades from 1. "
            "Give judgements that name the queries' ids."
        )
    return judged


def _missing(store: QdrantStore, judged: Judgements) -> tuple[int, bool]:
    """How many relevant documents the collection lacks, and whether some are there in chunks."""
    wanted = list(dict.fromkeys(key for grades in judged.values() for key, grade in grades.items() if grade > 0))
    absent = _absent(store, wanted)
    # Documents that were split are stored as <id>#1, <id>#2 and so on.
    missing = [name.removesuffix("#1") for name in _absent(store, [f"{key}#1" for key in absent])]
    if len(missing) == len(wanted):
        raise InputError(
            f"None of the {len(wanted):,} relevant documents is in collection {store.collection!r}, e.g. "
            f"{_some(missing)}; it holds {_some([document.key for document in _head(store)]) or 'nothing'}. Index the "
            "corpus that the judgements belong to, under its own ids."
        )
    if missing:
        gone = set(missing)
        lost = sum(gone >= {key for key, grade in grades.items() if grade > 0} for grades in judged.values())
        message = (
            f"{len(missing):,} of {len(wanted):,} relevant documents are not in collection {store.collection!r}, "
            f"e.g. {_some(missing)}. They count as not found; {lost:,} of {len(judged):,} queries have no other."
        )
        warnings.warn(message, EvaluationWarning, stacklevel=3)
    return len(missing), len(missing) < len(absent)


def _absent(store: QdrantStore, ids: Sequence[str]) -> list[str]:
    absent = []
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = ids[start : start + _IDS_AT_ONCE]
        there = {document.key for document in store.get(part)}
        absent += [key for key in part if key not in there]
    return absent


def _head(store: QdrantStore) -> list[Any]:
    return [document for document, _ in zip(store.documents(), range(3), strict=False)]


def embedded(
    engine: SearchEngine, texts: Sequence[str], *, instruction: str | None, on_progress: OnProgress
) -> FloatMatrix:
    """Embed queries in batches; float32 of shape (queries, dimensions of the collection)."""
    encoder, parts = engine.encoder, []
    for start in range(0, len(texts), _QUERIES_AT_ONCE):
        part = texts[start : start + _QUERIES_AT_ONCE]
        parts.append(encoder.embed_queries(part, dimensions=engine.store.dimensions, instruction=instruction))
        on_progress("embedding", start + len(part), len(texts))
    return np.concatenate(parts)


def _title(mode: Mode | ModeName) -> str:
    """A mode's name, with what differs from its defaults."""
    if isinstance(mode, str):
        return mode
    kind = type(mode)
    changed = [
        f"{field.name}={getattr(mode, field.name)!r}"
        for field in dataclasses.fields(mode)
        if getattr(mode, field.name) != getattr(kind(), field.name)
    ]
    return f"{mode_name(mode)}({', '.join(changed)})" if changed else mode_name(mode)


def _size(size: int, width: int) -> int:
    return check_dimensions(size, native=width, ladder=range(1, width + 1), model_name="the collection")


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.to_dict() for name, one in found.items()}


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" …" if len(names) > 3 else "")


def _silent(_step: str, _done: int, _total: int) -> None:
    return None
