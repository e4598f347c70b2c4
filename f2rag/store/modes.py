"""The ways to search a collection; each says in its first sentence what it costs.

A mode is given as an object, or by name for its defaults: ``search(vector, mode="funnel")``,
``search(vector, mode=Funnel(stages=((64, 400), (256, 100))))``. ``"auto"`` lets ``planning.py`` choose.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal, TypeAlias, get_args

from f2rag.errors import InputError

ModeName: TypeAlias = Literal["auto", "exact", "hnsw", "quantized", "funnel", "prefix", "hybrid", "diverse"]
"""The modes by name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Compares every full vector: nothing is missed, and the time grows with the collection.

    Some 35 ms for 100 000 vectors of 1024 dimensions on two cores.
    """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hnsw:
    """Walks a graph over the full vectors: a millisecond or two at any size, at the price of building the graph.

    Attributes:
        ef: Candidates that the walk keeps; more find more and take longer. ``None`` leaves it to the collection.
    """

    ef: int | None = None

    def __post_init__(self) -> None:
        _whole(self.ef, "ef", optional=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """Walks the graph over compressed vectors, then rescores ``oversampling`` times the limit with the originals.

    As fast as ``Hnsw`` with a fraction of its memory; without rescoring some percent of the hits are lost.

    Attributes:
        oversampling: How many times the limit is fetched for rescoring.
        rescore: Whether the originals are read at all.
        ef: As for ``Hnsw``.
    """

    oversampling: float = 3.0
    rescore: bool = True
    ef: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.oversampling <= 100:
            raise InputError(f"oversampling={self.oversampling!r} was given; expected 1 to 100.")
        _whole(self.ef, "ef", optional=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Walks the graph over a short prefix, then compares its candidates at full width: one request, 2 to 4 ms.

    The graph is small and quick to build, and the full vectors may lie on disk.

    Attributes:
        stages: Pairs (stored level, candidates that it passes on), the first stage first. Empty: every stored level;
            the last one passes on 100, or ten times the limit if that is more, and each one before it four times that.
        ef: As for ``Hnsw``, of the first stage.
    """

    stages: tuple[tuple[int, int], ...] = ()
    ef: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(tuple(stage) for stage in self.stages))
        for stage in self.stages:
            if len(stage) != 2:
                raise InputError(f"stages={self.stages!r}; expected pairs (level, candidates), e.g. ((128, 100),).")
            _whole(stage[0], "a stage's level")
            _whole(stage[1], "a stage's candidates")
        pairs = itertools.pairwise(self.stages)
        if any(before[0] >= after[0] or before[1] < after[1] for before, after in pairs):
            raise InputError(f"stages={self.stages!r}; expected ascending levels, none passing on more than the last.")
        _whole(self.ef, "ef", optional=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Prefix:
    """Compares a stored level alone, with no second pass: a millisecond or two, and what the cut loses stays lost.

    Scores are the cosines of the prefixes. It shows what a collection of shorter vectors would find; what a second pass
    brings back, ``Funnel`` shows.

    Attributes:
        level: The stored level; ``None`` is the longest one.
        exact: Compare every document's prefix instead of walking the level's graph.
    """

    level: int | None = None
    _: dataclasses.KW_ONLY
    exact: bool = False

    def __post_init__(self) -> None:
        _whole(self.level, "level", optional=True)
        if not isinstance(self.exact, bool):
            raise InputError(f"exact={self.exact!r} was given; expected True or False.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """Joins dense search with BM25 over the words by reciprocal rank fusion: the dense search and a millisecond or two.

    It needs the query's text and a collection with a lexical half. Scores are sums of
    ``1 / (rank / weight + constant - 1)`` over the halves, ranks counted from 1 (Qdrant's formula).

    Attributes:
        dense: The dense half; ``None`` takes what ``"auto"`` would.
        candidates: What each half passes on; ``None`` is 100, or ten times the limit if that is more.
        constant: The k of reciprocal rank fusion; larger makes the first ranks count less.
        weights: Of the dense and of the lexical half. Unequal ones need a server from 1.17.
    """

    dense: Exact | Hnsw | Quantized | Funnel | Prefix | None = None
    candidates: int | None = None
    constant: int = 60
    weights: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        _whole(self.candidates, "candidates", optional=True)
        _whole(self.constant, "constant")
        if len(self.weights) != 2 or min(self.weights) < 0 or max(self.weights) <= 0:
            raise InputError(f"weights={self.weights!r}; expected (dense, lexical), from 0, not both 0.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diverse:
    """Chooses among the nearest candidates those that differ from each other (maximal marginal relevance).

    Costs a comparison of the candidates with each other: a millisecond at 100.

    Attributes:
        diversity: 0 looks at the query alone, 1 at variety alone.
        candidates: How many of the nearest are chosen from; ``None`` is 100, or ten times the limit if that is more.
    """

    diversity: float = 0.5
    candidates: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.diversity <= 1:
            raise InputError(f"diversity={self.diversity!r} was given; expected 0 (the query alone) to 1 (variety).")
        _whole(self.candidates, "candidates", optional=True)


DenseMode: TypeAlias = Exact | Hnsw | Quantized | Funnel | Prefix
Mode: TypeAlias = DenseMode | Hybrid | Diverse

_BY_NAME: dict[str, type[Any]] = {
    "exact": Exact,
    "hnsw": Hnsw,
    "quantized": Quantized,
    "funnel": Funnel,
    "prefix": Prefix,
    "hybrid": Hybrid,
    "diverse": Diverse,
}


def mode_of(given: Mode | ModeName) -> Mode | None:
    """The mode that a caller means; ``None`` for ``"auto"``.

    Raises:
        InputError: It means none.
    """
    if isinstance(given, (Exact, Hnsw, Quantized, Funnel, Prefix, Hybrid, Diverse)):
        return given
    if given == "auto":
        return None
    if given not in _BY_NAME:
        raise InputError(f"mode={given!r} is unknown; give one of {', '.join(get_args(ModeName))}.")
    mode: Mode = _BY_NAME[given]()
    return mode


def mode_name(mode: Mode) -> ModeName:
    """The name of a mode."""
    (name,) = (name for name, kind in _BY_NAME.items() if type(mode) is kind)
    return name  # type: ignore[return-value]  # the keys are ModeName


def _whole(value: object, name: str, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}={value!r} was given; expected a whole number from 1.")
