"""One short query at a time, and many callers at once: what a search box waits for.

Contestants answer in turns, with the same queries; 1 caller asks one after the other, more ask concurrently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import ratio_of_medians
from benchmarks.speed.contestants import LIMIT, OURS, Entry
from benchmarks.speed.field import Field, Setup
from benchmarks.speed.measure import Told, Trials
from benchmarks.speed.processes import ContestantError
from benchmarks.speed.workloads import Workload

CALLERS = (1, 8, 64)
PERCENTILES = (50, 95, 99)


@dataclasses.dataclass(kw_only=True)
class Latency:
    """What was measured of one contestant with so many callers.

    Attributes:
        milliseconds: Of each query, by round.
        seconds: Of each round, for all its queries.
        queries: Of a round.
    """

    key: str
    label: str
    dtype: str
    callers: int
    queries: int
    milliseconds: list[list[float]] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    problem: str = ""

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of all queries stayed below."""
        return float(np.percentile(np.concatenate(self.milliseconds), share))

    @property
    def round_medians(self) -> list[float]:
        """p50 of each round."""
        return [float(np.median(each)) for each in self.milliseconds]


def measure_latency(
    setup: Setup,
    entries: Sequence[Entry],
    queries: Workload,
    *,
    per_round: int,
    trials: Trials,
    told: Told,
) -> list[Latency]:
    """Measure single queries.

    Args:
        setup: What all have in common.
        entries: Who; the limit is left out, as it knows no single query.
        queries: Their texts, which are asked in turn.
        per_round: Queries of a contestant in a round, for each number of callers.
        trials: Chooses variants by a few queries.
        told: Told how far it is.
    """
    taking = [entry for entry in entries if entry.key != LIMIT]
    told.expect(len(taking) * len(CALLERS) * setup.rounds)
    found: list[Latency] = []
    with Field(setup) as field:
        names = {}
        for entry in taking:
            try:
                choice, _ = trials.choose(field, entry, queries.first(1))
                names[entry.key] = field.start(entry, choice.variant)
                field.embed(names[entry.key], queries, choice.batch_size, rows=[0])
            except ContestantError as error:
                told.say(f"{entry.label}: {error}")
        for number in range(setup.rounds):
            for callers in CALLERS:
                for entry in taking if number % 2 == 0 else reversed(taking):
                    if entry.key in names:
                        one = _of(found, field, names, entry, callers=callers, queries=per_round)
                        _ask(field, names[entry.key], one, queries, first=number * per_round)
                    told.tick(f"{callers} callers: {entry.key}, round {number + 1}")
    return found


def _of(
    found: list[Latency], field: Field, names: dict[str, str], entry: Entry, *, callers: int, queries: int
) -> Latency:
    for each in found:
        if each.key == entry.key and each.callers == callers:
            return each
    facts = field.facts(names[entry.key])
    made = Latency(
        key=entry.key, label=entry.label, dtype=str(facts.get("dtype", "")), callers=callers, queries=queries
    )
    found.append(made)
    return made


def _ask(field: Field, name: str, one: Latency, queries: Workload, *, first: int) -> None:
    if one.problem:
        return
    try:
        said = field.ask(
            name,
            "latency",
            name=f"{queries.key}{len(queries.texts)}",
            callers=one.callers,
            first=first,
            count=one.queries,
        ).said
    except ContestantError as error:
        one.problem = str(error)
        return
    one.milliseconds.append(said["milliseconds"])
    one.seconds.append(said["seconds"])


def rows(found: Sequence[Latency]) -> list[dict[str, Any]]:
    """As they are stored."""
    listed = []
    for one in found:
        row: dict[str, Any] = {
            "key": one.key,
            "label": one.label,
            "dtype": one.dtype,
            "callers": one.callers,
            "problem": one.problem,
        }
        ours = next((each for each in found if each.key == OURS and each.callers == one.callers), None)
        if ours is not None and not one.problem and not ours.problem:
            row |= {f"p{share}_ms": round(one.percentile(share), 3) for share in PERCENTILES}
            row["queries_per_second"] = round(one.queries * len(one.seconds) / sum(one.seconds), 1)
            ratio = ratio_of_medians(one.round_medians, ours.round_medians)
            row["p50_ratio"] = [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)]
        listed.append(row)
    return listed
