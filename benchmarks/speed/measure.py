"""Takes the times of one heat of contestants in one workload, each against f2rag in the same rounds.

    trial ─► the best variant and batch size of who has several
    warm-up ─► vectors against stock transformers ─► who is wrong drops out
    rounds ─► A B C, C B A, A B C ... ─► vectors once more

A contestant that fails or dies is reported with its reason; the others go on.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Interval, ratio_of_medians
from benchmarks.speed.contestants import LIMIT, Entry
from benchmarks.speed.correctness import Vectors, Verdict, judge, sample_rows
from benchmarks.speed.field import Field
from benchmarks.speed.processes import Answer, ContestantError
from benchmarks.speed.workloads import PLANS, Workload

if TYPE_CHECKING:
    from rich.progress import Progress

COMPARED = 12
"""Texts of each workload whose vectors are compared."""

_WORSE = 1.1
"""Where a larger batch takes this much longer than a smaller one, still larger ones are not tried."""

_HOPELESS = 1.5
"""A variant that took this much longer than the best one in the first trial is not tried again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """How a contestant takes part: one of its variants, and a batch size."""

    variant: dict[str, Any]
    batch_size: int | None


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What was measured of one contestant in one workload.

    Attributes:
        problem: Why it has no times; empty if it has.
        seconds: Of each round.
        against: f2rag's seconds in the same rounds.
        warm_up_seconds: Of the first run over all texts, compilation included.
        peak_bytes: Largest of the rounds.
        facts: What the contestant says of itself.
        verdict: Of its vectors; ``None`` for the limit, and where it never gave any.
    """

    key: str
    label: str
    problem: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    against: list[float] = dataclasses.field(default_factory=list)
    warm_up_seconds: float = 0.0
    peak_bytes: int = 0
    choice: Choice | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def median(self) -> float:
        """Median seconds of the rounds."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> Interval:
        """How many times as long as f2rag it takes; rounds are drawn as pairs."""
        return ratio_of_medians(self.seconds, self.against)

    def fail(self, problem: str) -> None:
        """Take its times away: they do not count."""
        self.problem, self.seconds, self.against, self.peak_bytes = problem, [], [], 0


class Told:
    """Tells a person how far it is.

    Args:
        progress: Where; ``None`` tells nobody.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("starting", total=None)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._progress is not None:
            self._progress.console.print(line)

    def expect(self, ticks: int) -> None:
        """How many runs there will be."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=ticks)

    def tick(self, what: str) -> None:
        """One run is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=what)


class Trials:
    """Which variant and batch size each contestant takes part with.

    Args:
        our_dtype: What f2rag computes in, and so the limit.
        our_variant: Settings of f2rag's own contestants.
    """

    def __init__(self, *, our_dtype: str, our_variant: Mapping[str, Any]) -> None:
        self._our_dtype = our_dtype
        self._our_variant = dict(our_variant)
        self._left: dict[str, list[dict[str, Any]]] = {}
        self._chosen: dict[tuple[str, str], Choice] = {}

    def choose(self, field: Field, entry: Entry, trial: Workload) -> tuple[Choice, float]:
        """Find a contestant's fastest way through the first texts of a workload.

        Returns:
            The choice, and its seconds for the trial.

        Raises:
            ContestantError: No variant works.
        """
        sizes = self._sizes(entry, trial)
        taken: list[tuple[float, Choice]] = []
        problems: list[str] = []
        for variant in self._variants(entry, trial):
            try:
                taken.append(_try(field, entry, trial, Choice(variant=variant, batch_size=sizes[0])))
            except ContestantError as error:
                problems.append(str(error))
        if not taken:
            raise ContestantError("; ".join(problems))
        seconds, choice = min(taken, key=lambda each: each[0])
        self._left[entry.key] = [each.variant for time, each in taken if time <= _HOPELESS * seconds]
        field.close_all(of=entry.key, but=self._left[entry.key])
        for smaller, size in itertools.pairwise(sizes):
            if (smaller or 0) >= len(trial.texts):  # all texts are one batch already
                break
            again = _try(field, entry, trial, Choice(variant=choice.variant, batch_size=size))
            if again[0] > _WORSE * seconds:
                break
            seconds, choice = min((seconds, choice), again, key=lambda each: each[0])
        self._chosen[entry.key, trial.key] = choice
        return choice, seconds

    def settle(self, field: Field, entry: Entry, trial: Workload) -> Choice:
        """The choice for a workload; who has only one way needs no trial."""
        variants, sizes = self._variants(entry, trial), self._sizes(entry, trial)
        if len(variants) == len(sizes) == 1:
            return Choice(variant=variants[0], batch_size=sizes[0])
        return self.choose(field, entry, trial)[0]

    def _variants(self, entry: Entry, trial: Workload) -> list[dict[str, Any]]:
        if entry.key == LIMIT:
            return [{"dtype": self._our_dtype}]
        if entry.ours:
            return [self._our_variant]
        if (like := self._like(entry, trial)) is not None:
            return [{**like.variant, **variant} for variant in entry.variants]
        return self._left.get(entry.key, list(entry.variants))

    def _sizes(self, entry: Entry, trial: Workload) -> tuple[int | None, ...]:
        like = self._like(entry, trial)
        return entry.batch_sizes if like is None else (like.batch_size,)

    def _like(self, entry: Entry, trial: Workload) -> Choice | None:
        """What the contestant that this one follows chose for the same workload, or for any other."""
        if entry.like is None:
            return None
        others = [choice for (key, _), choice in self._chosen.items() if key == entry.like]
        return self._chosen.get((entry.like, trial.key), others[-1] if others else None)


def _try(field: Field, entry: Entry, trial: Workload, choice: Choice) -> tuple[float, Choice]:
    name = field.start(entry, choice.variant)
    first, second = (float(field.embed(name, trial, choice.batch_size).said["seconds"]) for _ in range(2))
    field.add_extra(name, first - second)
    return second, choice


def compared_rows(workload: Workload) -> list[int]:
    """Positions of the texts whose vectors are compared: the same however many texts are measured."""
    return sample_rows(workload.lengths[: PLANS[workload.key].floor], count=COMPARED)


def sample(workload: Workload) -> Workload:
    """The texts whose vectors are compared."""
    rows = compared_rows(workload)
    return dataclasses.replace(
        workload,
        texts=[workload.texts[row] for row in rows],
        lengths=[workload.lengths[row] for row in rows],
    )


def measure(
    field: Field,
    entries: Sequence[Entry],
    workload: Workload,
    *,
    trials: Trials,
    trial: Workload,
    references: Mapping[str, Vectors],
    told: Told,
) -> list[Outcome]:
    """Measure f2rag and some others in a workload.

    Args:
        field: Where they run; f2rag comes first in ``entries``.
        entries: Who.
        workload: All texts that are embedded in every round.
        trials: Chooses variants.
        trial: The first texts of the workload.
        references: Of ``sample(workload)``, by yardstick.
        told: Told after each run.

    Returns:
        One outcome for each entry.
    """
    outcomes = [Outcome(key=entry.key, label=entry.label) for entry in entries]
    names: dict[str, str] = {}
    for entry, outcome in zip(entries, outcomes, strict=True):
        try:
            outcome.choice = trials.settle(field, entry, trial)
            names[entry.key] = field.start(entry, outcome.choice.variant)
            _warm_up(field, names[entry.key], workload, outcome, references)
        except ContestantError as error:
            outcome.fail(str(error))
        told.tick(f"{workload.key}: {entry.key}, warm-up")
    _rounds(field, names, workload, outcomes, references=references, told=told)
    ours = outcomes[0]
    for outcome in outcomes:
        outcome.against = ours.seconds if outcome.seconds else []
        if outcome.seconds and not ours.seconds:
            outcome.fail(f"{ours.key} has no times to compare with: {ours.problem}")
    return outcomes


def _warm_up(field: Field, name: str, workload: Workload, outcome: Outcome, references: Mapping[str, Vectors]) -> None:
    answer = field.embed(name, workload, _size(outcome), rows=_rows(workload, outcome))
    outcome.facts = dict(field.facts(name))
    outcome.warm_up_seconds = answer.said["seconds"]
    _check(answer, outcome, references)


def _rounds(
    field: Field,
    names: Mapping[str, str],
    workload: Workload,
    outcomes: Sequence[Outcome],
    *,
    references: Mapping[str, Vectors],
    told: Told,
) -> None:
    """Every other round runs backwards, so that nobody always follows the same neighbour."""
    for number in range(field.setup.rounds):
        is_last = number == field.setup.rounds - 1
        for outcome in outcomes if number % 2 == 0 else reversed(outcomes):
            if not outcome.problem:
                try:
                    rows = _rows(workload, outcome) if is_last else None
                    answer = field.embed(names[outcome.key], workload, _size(outcome), rows=rows)
                    outcome.seconds.append(answer.said["seconds"])
                    outcome.peak_bytes = max(outcome.peak_bytes, answer.said["peak_bytes"])
                    if is_last:
                        _check(answer, outcome, references)
                except ContestantError as error:
                    outcome.fail(str(error))
            told.tick(f"{workload.key}: {outcome.key}, round {number + 1}")


def _check(answer: Answer, outcome: Outcome, references: Mapping[str, Vectors]) -> None:
    """Take the times away from who gives wrong vectors."""
    if outcome.key == LIMIT:
        return
    outcome.verdict = judge(answer.vectors, references, dtype=str(outcome.facts["dtype"]))
    if not outcome.verdict.right:
        outcome.fail(
            f"wrong vectors: lowest cosine {outcome.verdict.lowest:.4f}, allowed {outcome.verdict.allowed:.4f}, "
            f"mean {outcome.verdict.mean:.5f}"
        )


def _rows(workload: Workload, outcome: Outcome) -> list[int] | None:
    return None if outcome.key == LIMIT else compared_rows(workload)


def _size(outcome: Outcome) -> int | None:
    return None if outcome.choice is None else outcome.choice.batch_size
