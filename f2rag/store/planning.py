"""Which layout a new collection gets, which mode a search takes, and what a mode does, stage by stage.

Every choice comes with its reason, for ``f2rag doctor --collection`` and for logs. The figures are measurements on
clustered 1024-dimensional vectors, 100 000 and 500 000 of them, on two cores.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from f2rag.errors import InputError
from f2rag.store.layout import FULL, LEXICAL, Layout, level_name
from f2rag.store.modes import DenseMode, Diverse, Exact, Funnel, Hnsw, Hybrid, Mode, Prefix, Quantized
from f2rag.store.stages import Fused, Nearest, SparseVector, Stage

if TYPE_CHECKING:
    from f2rag.store.homes import HomeKind
    from f2rag.types import FloatVector

EXACT_BELOW = 10_000
"""Points up to which comparing all of them takes a few milliseconds, so that an index gains nothing."""

CANDIDATES = 100
"""What a first stage passes on for a limit of 10: recall 0.998 (50: 0.996; 200: 1.0, a third slower)."""

CANDIDATES_PER_HIT = 10
STAGE_FACTOR = 4
"""How many times the next stage's candidates an earlier, shorter level passes on."""

WIDE = 512
"""Dimensions from which a short level pays: its index is built nine times as fast at 1024."""

SHORTEST_LEVEL = 128
"""The shortest level that is planned; 64 of 1024 dimensions lost 2.6 points of recall."""

_LEVEL_RESCORING = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What ``"auto"`` chose.

    Attributes:
        mode: The mode.
        reason: Why, in a sentence.
    """

    mode: DenseMode
    reason: str


def plan_layout(*, dimensions: int, home: HomeKind) -> tuple[Layout, str]:
    """The layout of a new collection for which none was given, and why."""
    if home in ("memory", "client-local"):
        return Layout(), "the client's local mode compares every vector whatever is stored beside it"
    if dimensions < WIDE:
        return Layout(), f"vectors of {dimensions} dimensions are small enough for a graph of their own"
    level = max(SHORTEST_LEVEL, 1 << ((dimensions // 8).bit_length() - 1))
    return (
        Layout(levels=(level,)),
        f"a graph over the first {level} of {dimensions} dimensions is built many times as fast, and the full vectors, "
        "read for the last stage only, lie on disk in half the bytes",
    )


def plan_mode(layout: Layout, *, points: int, home: HomeKind) -> Plan:
    """The mode of a search for which none was given."""
    if home in ("memory", "client-local"):
        return Plan(mode=Exact(), reason="the client's local mode compares every vector anyway")
    if points < EXACT_BELOW:
        return Plan(mode=Exact(), reason=f"comparing all {points:,} vectors takes a few milliseconds")
    if layout.levels:
        stages = " → ".join(str(level) for level in (*layout.levels, "full"))
        return Plan(mode=Funnel(), reason=f"{points:,} documents, and the levels {stages} are stored")
    if layout.quantization is not None:
        return Plan(mode=Quantized(), reason=f"{points:,} documents, compressed as {layout.quantization}")
    return Plan(mode=Hnsw(), reason=f"{points:,} documents, and a graph over the full vectors")


def stages_of(
    mode: Mode, *, vector: FloatVector, words: SparseVector | None, limit: int, layout: Layout, dense: DenseMode
) -> Stage:
    """What a mode does, stage by stage.

    Args:
        mode: The mode.
        vector: Float32 array of shape (dimensions,).
        words: The words of the query, for ``Hybrid``.
        limit: Hits that are wanted.
        layout: What the collection stores.
        dense: The dense half of a ``Hybrid`` that names none.

    Raises:
        InputError: The collection does not store what the mode needs.
    """
    if isinstance(mode, Hybrid):
        return _fused(mode, vector, words, limit=limit, layout=layout, dense=dense)
    if isinstance(mode, Diverse):
        candidates = mode.candidates or candidates_of(limit)
        before = _level_stages(Funnel(), vector, limit=candidates, layout=layout) if layout.levels else None
        return Nearest(
            vector=vector,
            using=FULL,
            limit=limit,
            diversity=mode.diversity,
            candidates=max(candidates, limit),
            prefetch=before,
            rescore=True if layout.quantization and not layout.levels else None,
        )
    return _dense(mode, vector, limit=limit, layout=layout)


def candidates_of(limit: int) -> int:
    """How many candidates the last stage chooses ``limit`` hits from, unless it is told."""
    return max(CANDIDATES, CANDIDATES_PER_HIT * limit)


def _dense(mode: DenseMode, vector: FloatVector, *, limit: int, layout: Layout) -> Nearest:
    if isinstance(mode, Exact):
        return Nearest(vector=vector, using=FULL, limit=limit, exact=True)
    if isinstance(mode, Funnel):
        before = _level_stages(mode, vector, limit=limit, layout=layout)
        return Nearest(vector=vector, using=FULL, limit=limit, prefetch=before)
    if isinstance(mode, Prefix):
        return _prefix(mode, vector, limit=limit, layout=layout)
    if layout.levels:
        raise InputError(
            f"The mode {type(mode).__name__.lower()!r} walks a graph over the full vectors, and this collection has "
            f"one over its levels {layout.levels} only. Use the mode 'funnel', 'prefix' or 'exact'."
        )
    if isinstance(mode, Hnsw):
        compressed = layout.quantization is not None
        return Nearest(vector=vector, using=FULL, limit=limit, ef=mode.ef, uncompressed=compressed)
    if layout.quantization is None:
        raise InputError(
            "The mode 'quantized' needs compressed vectors, and this collection has none. Use the mode 'hnsw', or copy "
            "it with Layout(quantization='int8')."
        )
    return Nearest(
        vector=vector, using=FULL, limit=limit, ef=mode.ef, rescore=mode.rescore, oversampling=mode.oversampling
    )


def level_of(mode: Prefix, layout: Layout) -> int:
    """The stored level that a ``Prefix`` compares.

    Raises:
        InputError: It is not stored, or none is.
    """
    if not layout.levels:
        raise InputError(
            "The mode 'prefix' needs stored levels, and this collection has none. Use the mode 'auto', or copy it with "
            f"Layout(levels=({mode.level or 128},))."
        )
    level = layout.levels[-1] if mode.level is None else mode.level
    if level not in layout.levels:
        raise InputError(
            f"The level {level} is not stored here; this collection has {list(layout.levels)}. Give one of these, or "
            f"copy it with Layout(levels={tuple(sorted((*layout.levels, level)))})."
        )
    return level


def _prefix(mode: Prefix, vector: FloatVector, *, limit: int, layout: Layout) -> Nearest:
    """One stage; compressed comparisons are repeated with the level's own values, so that scores are its cosines."""
    level = level_of(mode, layout)
    compressed = layout.quantization is not None and not mode.exact
    return Nearest(
        vector=vector[:level],
        using=level_name(level),
        limit=limit,
        exact=mode.exact,
        rescore=True if compressed else None,
        oversampling=_LEVEL_RESCORING if compressed else None,
    )


def _level_stages(mode: Funnel, vector: FloatVector, *, limit: int, layout: Layout) -> Nearest:
    """The stages over the levels, the last one outermost."""
    if not layout.levels:
        raise InputError(
            "The mode 'funnel' needs stored levels, and this collection has none. Use the mode 'auto', or copy it with "
            "Layout(levels=(128,))."
        )
    stages = mode.stages
    if not stages:
        last = candidates_of(limit)
        count = len(layout.levels)
        stages = tuple((level, last * STAGE_FACTOR ** (count - 1 - i)) for i, level in enumerate(layout.levels))
    absent = [level for level, _ in stages if level not in layout.levels]
    if absent:
        raise InputError(f"The levels {absent} are not stored here; this collection has {list(layout.levels)}.")
    stage: Nearest | None = None
    for level, candidates in stages:
        first = stage is None
        stage = Nearest(
            vector=vector[:level],
            using=level_name(level),
            limit=max(candidates, limit),
            ef=mode.ef if first else None,
            rescore=True if first and layout.quantization else None,
            oversampling=_LEVEL_RESCORING if first and layout.quantization else None,
            prefetch=stage,
        )
    assert stage is not None
    return stage


def _fused(
    mode: Hybrid,
    vector: FloatVector,
    words: SparseVector | None,
    *,
    limit: int,
    layout: Layout,
    dense: DenseMode,
) -> Fused:
    if layout.lexical is None:
        raise InputError(
            "The mode 'hybrid' needs the words of the documents, and this collection does not store them. "
            "Copy it with Layout(lexical=Lexical())."
        )
    if words is None:
        raise InputError("The mode 'hybrid' needs the query's text beside its vector; give text=...")
    candidates = max(mode.candidates or candidates_of(limit), limit)
    searches = [_dense(mode.dense or dense, vector, limit=candidates, layout=layout)]
    weights: tuple[float, ...] = mode.weights
    if words.indices:
        searches.append(Nearest(vector=words, using=LEXICAL, limit=candidates))
    else:  # punctuation alone, say: there is nothing to look up
        weights = weights[:1]
    equal = len(set(weights)) == 1
    return Fused(searches=tuple(searches), limit=limit, constant=mode.constant, weights=None if equal else weights)
