"""A search as a tree of stages, in the words of no engine.

``planning.py`` makes a tree of a mode; ``edge.py`` and ``client.py`` say it in their engine's words, so that a mode
means the same in every home.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from f2rag.types import FloatVector


@dataclasses.dataclass(frozen=True, slots=True)
class SparseVector:
    """A vector of words: ascending ids of words with their weights."""

    indices: list[int]
    values: list[float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """The points nearest to a vector: of all that match, or of those that ``prefetch`` passes on.

    Attributes:
        vector: To be near to.
        using: Name of the stored vector that is compared.
        limit: How many to pass on.
        exact: Compare with every point instead of walking the graph.
        ef: Candidates that the walk keeps.
        rescore: Whether compressed comparisons are repeated with the originals; ``None`` where nothing is compressed.
        oversampling: How many times the limit is fetched for that.
        uncompressed: Walk the graph with the originals although there are compressed vectors.
        diversity: Choose by maximal marginal relevance with this weight of variety, 0 to 1.
        candidates: Of how many the diverse are chosen.
        prefetch: The stage before.
    """

    vector: FloatVector | SparseVector
    using: str
    limit: int
    exact: bool = False
    ef: int | None = None
    rescore: bool | None = None
    oversampling: float | None = None
    uncompressed: bool = False
    diversity: float | None = None
    candidates: int | None = None
    prefetch: Nearest | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fused:
    """Several searches joined by reciprocal rank fusion.

    Attributes:
        searches: One or more.
        limit: How many to pass on.
        constant: The k of the fusion.
        weights: One for each search; ``None`` for equal ones.
    """

    searches: tuple[Nearest, ...]
    limit: int
    constant: int
    weights: tuple[float, ...] | None = None


Stage: TypeAlias = Nearest | Fused
