"""Exact search over vectors that come in pages, at any number of sizes and compressions in one pass.

Memory is one page, its comparisons with a block of queries, and the best of each query; however many vectors there are.
This file needs nothing but numpy, and knows neither models nor stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from f2rag.errors import InputError
from f2rag.types import FloatMatrix
from f2rag.vectors import Int8Range, binary_quantize, normalize, truncate

_QUERIES_AT_ONCE: Final = 512

Page = tuple[Sequence[str], FloatMatrix]
"""Ids, and float32 rows of shape (ids, dimensions), of unit length."""


class Scheme(Protocol):
    """A way to compare: what it makes of stored vectors, and what it scores by that."""

    def encode(self, page: FloatMatrix) -> FloatMatrix:
        """What is kept of the rows."""

    def compare(self, queries: slice, encoded: FloatMatrix) -> FloatMatrix:
        """Scores of shape (queries, rows), higher is closer."""


class Prefix:
    """The first ``dimensions`` values, at unit length.

    Args:
        queries: Float array of shape (queries, width).
        dimensions: At most the width.
    """

    def __init__(self, queries: FloatMatrix, dimensions: int) -> None:
        self.dimensions = dimensions
        self._queries = truncate(queries, dimensions)

    def encode(self, page: FloatMatrix) -> FloatMatrix:
        """The rows, cut and at unit length."""
        return truncate(page, self.dimensions)

    def compare(self, queries: slice, encoded: FloatMatrix) -> FloatMatrix:
        """Cosines."""
        scores: FloatMatrix = self._queries[queries] @ encoded.T
        return scores


class Int8:
    """A byte for each value, in the range that the dimension has in the first page.

    Args:
        queries: Float array of shape (queries, dimensions).
    """

    def __init__(self, queries: FloatMatrix) -> None:
        self._given = queries
        self._queries = queries
        self._range: Int8Range | None = None

    def encode(self, page: FloatMatrix) -> FloatMatrix:
        """The values that the bytes stand for."""
        if self._range is None:
            self._range = Int8Range.fit(page)
            self._queries = self._rounded(self._given)
        return self._rounded(page)

    def compare(self, queries: slice, encoded: FloatMatrix) -> FloatMatrix:
        """Dot products."""
        scores: FloatMatrix = self._queries[queries] @ encoded.T
        return scores

    def _rounded(self, rows: FloatMatrix) -> FloatMatrix:
        assert self._range is not None
        return self._range.dequantize(self._range.quantize(rows))


class Binary:
    """One bit for each value, its sign.

    Args:
        queries: Float array of shape (queries, dimensions).
    """

    def __init__(self, queries: FloatMatrix) -> None:
        self._queries = _signs(queries)

    def encode(self, page: FloatMatrix) -> FloatMatrix:
        """1 and -1 for the bits."""
        return _signs(page)

    def compare(self, queries: slice, encoded: FloatMatrix) -> FloatMatrix:
        """Dot products of the signs, which are ``dimensions - 2 * hamming``: a matrix product is the quickest way."""
        scores: FloatMatrix = self._queries[queries] @ encoded.T
        return scores


def _signs(rows: FloatMatrix) -> FloatMatrix:
    bits = np.unpackbits(binary_quantize(rows), axis=-1, count=rows.shape[-1])
    return bits.astype(np.float32) * 2 - 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best of each query under one scheme, best first.

    Attributes:
        positions: Int64 array of shape (queries, limit), into the ids in the order of the pages; -1 where there are
            fewer.
        scores: Float32 array of that shape, by the scheme.
        exact: Float32 array of that shape, the cosine at full width; -inf where there is none.
    """

    positions: npt.NDArray[np.int64]
    scores: FloatMatrix
    exact: FloatMatrix

    @property
    def kept(self) -> int:
        """How many are kept for each query."""
        return int(self.positions.shape[1])

    def rescored(self, limit: int) -> Found:
        """The best ``limit`` by the cosine at full width: what a second stage makes of the first one's candidates."""
        order = np.argsort(-self.exact, axis=1, kind="stable")[:, :limit]
        return Found(
            np.take_along_axis(self.positions, order, axis=1),
            np.take_along_axis(self.scores, order, axis=1),
            np.take_along_axis(self.exact, order, axis=1),
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What one pass over the vectors found.

    Attributes:
        ids: Of all vectors, in the order of the pages.
        found: By scheme.
    """

    ids: Sequence[str]
    found: Mapping[str, Found]

    def ranking(self, scheme: str, query: int) -> list[str]:
        """Ids that a scheme found for a query, best first."""
        return [self.ids[position] for position in self.found[scheme].positions[query] if position >= 0]


def scan(
    pages: Iterable[Page],
    queries: FloatMatrix,
    schemes: Mapping[str, tuple[Scheme, int]],
    *,
    excluded: Sequence[str | None] = (),
    on_progress: Callable[[int], object] | None = None,
) -> Scan:
    """Compare every vector with every query under every scheme, and keep the best.

    Args:
        pages: Read once, and one at a time.
        queries: Float32 array of shape (queries, width), rows of unit length.
        schemes: By name, how to compare and how many to keep.
        excluded: For each query the id that is no answer to it, e.g. of the document that it was made of.
        on_progress: Called after each page with the number of vectors so far.

    Raises:
        InputError: Vectors of another width than the queries.
    """
    ids: list[str] = []
    unit = normalize(queries)
    best = {name: _Best(len(queries), limit) for name, (_, limit) in schemes.items()}
    owners: dict[str, list[int]] = {}
    for row, key in enumerate(excluded):
        if key is not None:
            owners.setdefault(key, []).append(row)
    for keys, page in pages:
        if page.shape[1] != queries.shape[1]:
            raise InputError(
                f"The stored vectors have {page.shape[1]} dimensions and the queries {queries.shape[1]}; expected "
                "equal ones. Embed the queries at the width of the collection."
            )
        page = normalize(page)  # a home may keep them in float16
        barred = [(row, column) for column, key in enumerate(keys) for row in owners.get(key, ())]
        encoded = {name: scheme.encode(page) for name, (scheme, _) in schemes.items()}
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, start + _QUERIES_AT_ONCE)
            exact = unit[block] @ page.T
            here = [(row - start, column) for row, column in barred if start <= row < start + _QUERIES_AT_ONCE]
            for name, (scheme, _) in schemes.items():
                scores = scheme.compare(block, encoded[name])
                for row, column in here:
                    scores[row, column] = -np.inf
                best[name].add(block, scores, exact, first=len(ids))
        ids.extend(keys)
        if on_progress is not None:
            on_progress(len(ids))
    return Scan(ids, {name: each.found() for name, each in best.items()})


class _Best:
    """The best so far, sorted; of equal scores the earlier position comes first."""

    def __init__(self, queries: int, limit: int) -> None:
        self._limit = limit
        self._positions = np.full((queries, limit), -1, dtype=np.int64)
        self._scores = np.full((queries, limit), -np.inf, dtype=np.float32)
        self._exact = np.full((queries, limit), -np.inf, dtype=np.float32)

    def add(self, block: slice, scores: FloatMatrix, exact: FloatMatrix, *, first: int) -> None:
        """Take in the scores of a page, float32 (queries of the block, rows)."""
        columns = _largest(scores, self._limit)
        fresh = np.take_along_axis(scores, columns, axis=1)
        positions = np.where(np.isneginf(fresh), -1, columns + first)
        cosines = np.where(np.isneginf(fresh), -np.inf, np.take_along_axis(exact, columns, axis=1))
        all_scores = np.concatenate([self._scores[block], fresh], axis=1)
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, : self._limit]
        self._scores[block] = np.take_along_axis(all_scores, order, axis=1)
        merged = ((self._positions, positions), (self._exact, cosines))
        for kept, new in merged:
            kept[block] = np.take_along_axis(np.concatenate([kept[block], new], axis=1), order, axis=1)

    def found(self) -> Found:
        return Found(self._positions, self._scores, self._exact)


def _largest(scores: FloatMatrix, limit: int) -> npt.NDArray[np.int64]:
    """Columns of the ``limit`` largest scores of each row, ascending: the stable sort then keeps them in order."""
    if scores.shape[1] <= limit:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.sort(np.argpartition(-scores, limit - 1, axis=1)[:, :limit], axis=1)
