"""Measures of rankings, and how far they can be trusted: means with bootstrap intervals.

The measures are those of trec_eval, computed by ``ir_measures``; nDCG has linear gains, as BEIR and MTEB report it.
This file knows neither vectors nor stores.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from f2rag.errors import MissingExtraError

Values = npt.NDArray[np.float64]
"""Float64 array of shape (queries,): one measure, query by query."""

EXTRA: Final = "evaluate"
CONFIDENCE: Final = 0.95
RANK: Final = 10
"""Hits that nDCG and MRR look at, as BEIR and MTEB do."""

_RESAMPLES: Final = 2_000
_VALUES_AT_ONCE: Final = 2_000_000
"""Resampled values that are held at once: 16 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of a measure over queries, with its 95 % interval.

    Attributes:
        mean: Of the queries that were measured.
        low: Lower end of the interval; ``None`` of a single query, which has none.
        high: Upper end.
        count: Queries.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "queries": self.count}


def estimate(values: Values, *, seed: int) -> Estimate:
    """The mean with its interval by the bootstrap over queries: bias-corrected, accelerated, 2 000 resamples.

    Where all queries have one value the interval has no width: resampling has nothing to vary. With a handful of
    queries that says little.

    Args:
        values: Float array of shape (queries,), at least one.
        seed: Of the resampling; the same seed gives the same interval.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    rows = np.asarray(values, dtype=np.float64)
    mean = float(rows.mean())
    if len(rows) == 1:
        return Estimate(mean, None, None, 1)
    if (rows == rows[0]).all():
        return Estimate(float(rows[0]), float(rows[0]), float(rows[0]), len(rows))
    low, high = _interval(rows, "BCa", seed)
    if not np.isfinite([low, high]).all():  # too few distinct resamples for the acceleration
        low, high = _interval(rows, "percentile", seed)
    return Estimate(mean, min(low, mean), max(high, mean), len(rows))


def _interval(values: Values, method: str, seed: int) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate distribution shows in the result
        found = optional("scipy.stats").bootstrap(
            (values,),
            np.mean,
            n_resamples=_RESAMPLES,
            batch=max(1, _VALUES_AT_ONCE // len(values)),
            confidence_level=CONFIDENCE,
            method=method,
            random_state=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def measure_names(cutoffs: Sequence[int]) -> list[str]:
    """The measures in the order in which they are reported: nDCG@10, recall at each cutoff, MRR@10."""
    return [f"nDCG@{RANK}", *(f"recall@{cutoff}" for cutoff in cutoffs), f"MRR@{RANK}"]


def measured(
    rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Mapping[str, int]], *, cutoffs: Sequence[int]
) -> dict[str, Values]:
    """Measure rankings query by query.

    Args:
        rankings: Ids of documents by query, best first; a query without one found nothing.
        judgements: Grades by query and document. Every query in them is measured.
        cutoffs: Ranks at which recall is taken.

    Returns:
        For each of ``measure_names``, an array in the order of ``judgements``.

    Raises:
        MissingExtraError: ir_measures is not installed.
    """
    library = optional("ir_measures")
    measures = [library.nDCG @ RANK, *(library.R @ cutoff for cutoff in cutoffs), library.RR @ RANK]
    names = dict(zip(map(str, measures), measure_names(cutoffs), strict=True))
    # The library behind it knows no grades below 0.
    grades = {query: {key: max(grade, 0) for key, grade in rows.items()} for query, rows in judgements.items()}
    # Its order of equal scores is not ours, so that the ranks themselves are the scores.
    run = {query: {key: float(-rank) for rank, key in enumerate(found)} for query, found in rankings.items() if found}
    rows = {query: row for row, query in enumerate(judgements)}
    values = {name: np.zeros(len(rows)) for name in names.values()}
    for one in library.evaluator(measures, grades).iter_calc(run):
        values[names[str(one.measure)]][rows[one.query_id]] = one.value
    return values


@functools.cache
def optional(module: str) -> ModuleType:
    """Import a module of the extra ``evaluate``.

    Raises:
        MissingExtraError: It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module.partition(".")[0], extra=EXTRA) from error
