"""All workloads of one model size: who can take part, how many texts fit the time, heat by heat.

    checkpoint ─► texts ─► reference vectors ─► a trial of everyone ─► texts per workload ─► heats ─► rows

With many contestants, or a large model, not all fit into memory at once: they then run in heats, each with f2rag and
the limit among them, so that every ratio is of one and the same round.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil

from benchmarks.machine import measure_load
from benchmarks.speed.contestants import ENTRIES, LIMIT, OURS, Entry
from benchmarks.speed.field import Field, Setup, references
from benchmarks.speed.measure import Outcome, Told, Trials, measure, sample
from benchmarks.speed.processes import ContestantError, Process, has_modules
from benchmarks.speed.workloads import PLANS, Workload

WIDE = ("P", "M")
"""Workloads that everyone takes part in; the others have those who are ``everywhere``."""

_TRIAL_TOKENS = {"cpu": 3_000, "cuda": 100_000}
_OVERHEAD_BYTES = 1.0e9
"""Of a worker besides the weights: Python, torch, activations."""

_MEMORY_SHARE = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """Who does not take part, and what to do about it."""

    key: str
    label: str
    reason: str
    get: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A workload and what was measured in it.

    Attributes:
        load: Share of the machine that others took just before.
        tokenizer_seconds: What the tokenizer alone takes for the texts.
    """

    workload: Workload
    outcomes: list[Outcome]
    load: list[float]
    tokenizer_seconds: float


def participants(
    wanted: Iterable[str], pythons: Sequence[str], *, device: str, avx2: bool
) -> tuple[list[Entry], dict[str, str], list[Skipped]]:
    """Who can run here, with which Python.

    Args:
        wanted: Keys; f2rag and the limit take part in any case.
        pythons: Executables, the first one that has all modules of a contestant runs it.
        device: Where to compute.
        avx2: Whether instruction sets are masked by environment variables.
    """
    keys = {*wanted, OURS, LIMIT}
    entries = [entry for entry in ENTRIES if entry.key in keys]
    names = sorted({"triton", *(name for entry in entries for name in entry.needs)})
    have = {python: has_modules(python, names) for python in pythons}
    taking, chosen, skipped = [], {}, []
    for entry in entries:
        fitting = [python for python in pythons if have[python].issuperset(entry.needs)]
        compiles = compiler(device) or any("triton" in have[python] for python in fitting)
        reason = _why_not(entry, device=device, avx2=avx2, compiles=compiles)
        reason = reason or ("" if fitting else f"lacks {_missing(entry, have)}")
        if reason:
            skipped.append(Skipped(key=entry.key, label=entry.label, reason=reason, get=entry.get))
            continue
        taking.append(entry)
        chosen[entry.key] = fitting[0]
    return taking, chosen, skipped


def compiler(device: str) -> bool:
    """Whether torch can compile for a CPU here: it needs a C++ compiler; for a GPU it needs triton instead."""
    return device == "cpu" and any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl"))


def _why_not(entry: Entry, *, device: str, avx2: bool, compiles: bool) -> str:
    if device.split(":", 1)[0] not in entry.devices:
        return f"does not run on {device} here"
    if avx2 and not entry.honours_isa:
        return "its kernels do not heed the variables that mask instruction sets"
    if entry.needs_compiler and not compiles:
        return "there is no C++ compiler" if device == "cpu" else "there is no triton"
    return ""


def _missing(entry: Entry, have: Mapping[str, set[str]]) -> str:
    best = max(have.values(), key=lambda found: len(found.intersection(entry.needs)), default=set())
    return ", ".join(name for name in entry.needs if name not in best)


def run_size(
    setup: Setup,
    entries: Sequence[Entry],
    workloads: Sequence[Workload],
    *,
    minutes: float,
    parameters: int,
    thorough: bool,
    told: Told,
) -> list[Measured]:
    """Measure a size.

    Args:
        setup: What all contestants have in common.
        entries: Who takes part, f2rag first.
        workloads: As many texts as may be wanted.
        minutes: How long the rounds of all workloads may take, judged by everyone's speed in a trial of the first.
        parameters: Of the model, for what fits into memory.
        thorough: Everyone in every workload.
        told: Told how far it is.
    """
    told.say("vectors of stock transformers, one text at a time")
    known = references(setup, [sample(workload) for workload in workloads], setup.pythons[OURS])
    trials = our_trials(setup)
    free = free_memory(setup)
    groups = heats(entries, parameters=parameters, free=free, device=setup.device)
    speeds, problems = calibrate(setup, groups, workloads, trials=trials, told=told)
    working = [entry for entry in entries if entry.key in speeds or entry.key == OURS]
    groups = heats(working, parameters=parameters, free=free, device=setup.device)
    chosen = [
        cut(workload, working, speeds, rounds=setup.rounds, seconds=seconds, thorough=thorough)
        for workload, seconds in zip(workloads, _shares(workloads, 60 * minutes), strict=True)
    ]
    seconds = sum(predicted(part, working, speeds, rounds=setup.rounds, thorough=thorough) for part in chosen)
    told.say(
        f"{', '.join(f'{part.key} {len(part.texts)} texts' for part in chosen)}; {len(groups)} heat(s); "
        f"about {seconds / 60:.0f} minutes of rounds"
    )
    found = {part.key: Measured(workload=part, outcomes=[], load=[], tokenizer_seconds=0.0) for part in chosen}
    told.expect(sum(len(_in(group, part, thorough)) * (setup.rounds + 1) for group in groups for part in chosen))
    for group in groups:
        with Field(setup) as field:
            for whole, part in zip(workloads, chosen, strict=True):
                found[part.key].load.append(measure_load(1.0).others)
                found[part.key].outcomes.extend(
                    measure(
                        field,
                        _in(group, part, thorough),
                        part,
                        trials=trials,
                        trial=_trial(whole, setup),
                        references=known[part.key],
                        told=told,
                    )
                )
    return [
        dataclasses.replace(
            each,
            outcomes=[*merged(each.outcomes), *_failed(_in(entries, each.workload, thorough), problems)],
            tokenizer_seconds=tokenizer_seconds(each.workload, setup),
        )
        for each in found.values()
    ]


def _failed(entries: Sequence[Entry], problems: Mapping[str, str]) -> list[Outcome]:
    """Outcomes of those who failed in the trial and were not asked again."""
    return [
        Outcome(key=entry.key, label=entry.label, problem=problems[entry.key])
        for entry in entries
        if entry.key in problems and entry.key != OURS
    ]


def our_trials(setup: Setup) -> Trials:
    """Trials that know what f2rag computes in.

    A laptop's processor without AMX makes f2rag choose float32 by itself; masking does not hide AMX from that choice.
    """
    from f2rag.device import plan_device

    variant = {"dtype": "float32"} if setup.avx2 else {}
    return Trials(our_dtype=variant.get("dtype") or plan_device(setup.device).dtype, our_variant=variant)


def heats(entries: Sequence[Entry], *, parameters: int, free: int, device: str) -> list[list[Entry]]:
    """Groups that fit into memory together, each with f2rag and the limit."""
    bytes_each = parameters * (4 if device == "cpu" else 2.5) + _OVERHEAD_BYTES
    always = [entry for entry in entries if entry.key in (OURS, LIMIT)]
    others = [entry for entry in entries if entry not in always]
    room = max(int(_MEMORY_SHARE * free / bytes_each) - len(always), 1)
    count = -(-len(others) // room) or 1
    size = -(-len(others) // count) or 1
    return [[always[0], *others[first : first + size], *always[1:]] for first in range(0, max(len(others), 1), size)]


def free_memory(setup: Setup) -> int:
    """Bytes that contestants may share: of the GPU, or of the machine."""
    if setup.device.startswith("cuda"):
        process = Process(setup.pythons[OURS])
        try:
            return int(process.ask("free_memory", device=setup.device).said["bytes"])
        finally:
            process.close()
    return int(psutil.virtual_memory().available)


def calibrate(
    setup: Setup,
    groups: Sequence[Sequence[Entry]],
    workloads: Sequence[Workload],
    *,
    trials: Trials,
    told: Told,
) -> tuple[dict[str, float], dict[str, str]]:
    """Tokens per second of everyone in a short trial of a common workload, and the problems of those who fail."""
    common = next((each for each in workloads if each.key in WIDE), workloads[0])
    trial = _trial(common, setup)
    speeds: dict[str, float] = {}
    problems: dict[str, str] = {}
    for group in groups:
        with Field(setup) as field:
            for entry in group:
                if entry.key in speeds or entry.key in problems:
                    continue
                try:
                    choice, seconds = trials.choose(field, entry, trial)
                except ContestantError as error:
                    problems[entry.key] = str(error)
                    told.say(f"{entry.label}: {error}")
                    continue
                speeds[entry.key] = trial.tokens / seconds
                size = "" if choice.batch_size is None else f", {choice.batch_size} texts a batch"
                told.say(f"{entry.label}: {speeds[entry.key]:,.0f} tokens/s in the trial {choice.variant or ''}{size}")
    return speeds, problems


def cut(
    workload: Workload,
    entries: Sequence[Entry],
    speeds: Mapping[str, float],
    *,
    rounds: int,
    seconds: float,
    thorough: bool,
) -> Workload:
    """As many of a workload's texts as its share of the time allows, but never fewer than its floor."""
    each = predicted(workload, entries, speeds, rounds=rounds, thorough=thorough) / workload.tokens
    return workload.up_to(int(seconds / each), least=PLANS[workload.key].floor)


def predicted(
    workload: Workload, entries: Sequence[Entry], speeds: Mapping[str, float], *, rounds: int, thorough: bool
) -> float:
    """Seconds that all rounds of a workload take, warm-up included."""
    slowness = sum(1 / speeds[entry.key] for entry in _in(entries, workload, thorough) if entry.key in speeds)
    return (rounds + 1) * workload.tokens * slowness


def merged(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome for each contestant: who ran in several heats keeps the rounds of all of them."""
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        first = found.setdefault(outcome.key, outcome)
        if first is not outcome and not outcome.problem and not first.problem:
            first.seconds = first.seconds + outcome.seconds
            first.against = first.against + outcome.against
            first.peak_bytes = max(first.peak_bytes, outcome.peak_bytes)
    return list(found.values())


def tokenizer_seconds(workload: Workload, setup: Setup) -> float:
    """What the tokenizer alone takes for all texts, on all cores; median of three."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(setup.folder / "tokenizer.json"))
    prefix = setup.query_prefix if workload.role == "query" else ""
    texts = [prefix + text for text in dict.fromkeys(workload.texts)]
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        tokenizer.encode_batch_fast(texts)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def versions_of(pythons: Mapping[str, str], entries: Sequence[Entry], names: Sequence[str]) -> dict[str, Any]:
    """Versions of packages by Python, named after the first contestant that it runs."""
    found = {}
    for python in dict.fromkeys(pythons.values()):
        first = next(entry.key for entry in entries if pythons[entry.key] == python)
        process = Process(python, patience=120)
        try:
            found[first] = process.ask("versions", names=list(names)).said["versions"]
        except ContestantError as error:
            found[first] = {"unknown": str(error)}
        finally:
            process.close()
    return found


def _in(entries: Sequence[Entry], workload: Workload, thorough: bool) -> list[Entry]:  # noqa: FBT001 - internal
    return [entry for entry in entries if thorough or entry.everywhere or workload.key in WIDE]


def _trial(workload: Workload, setup: Setup) -> Workload:
    return workload.up_to(_TRIAL_TOKENS[setup.device.split(":", 1)[0]], least=PLANS[workload.key].floor)


def _shares(workloads: Sequence[Workload], seconds: float) -> list[float]:
    shares = [PLANS[workload.key].share for workload in workloads]
    return [seconds * share / sum(shares) for share in shares]
