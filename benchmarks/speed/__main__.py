"""``python -m benchmarks.speed``: measure, and write ``benchmarks/results/speed.json``, ``.md`` and ``.png``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.machine import QUIET_SHARE, facts
from benchmarks.material import qwen3_tokenizer_file
from benchmarks.measuring import require_quiet
from benchmarks.speed import latency, plot, report
from benchmarks.speed.aims import judged
from benchmarks.speed.contestants import ENTRIES, Entry
from benchmarks.speed.field import Setup
from benchmarks.speed.limit import Shape
from benchmarks.speed.measure import Told
from benchmarks.speed.processes import ROOT
from benchmarks.speed.run import Skipped, our_trials, participants, run_size, versions_of
from benchmarks.speed.workloads import MAXIMUM, PLANS, make_workload
from f2rag.models import resolve
from f2rag.prompts import DEFAULT_INSTRUCTION, query_prefix
from f2rag.testing import write_checkpoint

LATENCY_KEYS = (
    "st-default",
    "st-tuned",
    "st-compiled",
    "langchain-huggingface",
    "llama-index-huggingface",
    "transformers",
)
"""Who answers single queries besides f2rag."""

PEERS = ROOT / ".venv" / "peers"
"""Environments of engines that cannot share one with the newest transformers; ``make bench-peers`` makes them."""

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "optimum-intel",
    "optimum-onnx",
    "openvino",
    "onnxruntime",
    "llama_cpp_python",
    "langchain-huggingface",
    "llama-index-embeddings-huggingface",
    "numpy",
)
"""Whose versions are written down for each Python."""


def peer_pythons(given: Sequence[Path]) -> list[str]:
    """This Python, those given, those in ``F2RAG_BENCH_PEERS``, and those under ``.venv/peers``."""
    named = [Path(each) for each in os.environ.get("F2RAG_BENCH_PEERS", "").split(os.pathsep) if each]
    found = [*given, *named, *sorted(PEERS.glob("*/bin/python"))]
    for each in (*given, *named):
        if not each.is_file():
            raise typer.BadParameter(f"There is no Python at {each}.")
    return list(dict.fromkeys([sys.executable, *(str(each.absolute()) for each in found)]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured in each size.

    Attributes:
        letters: Workloads.
        queries: Single queries in a round, in place of the workloads; ``None`` measures the workloads.
        entries: Who takes part, f2rag first.
        pythons: Executable by key of a contestant.
        device: Where to compute.
        avx2: Whether AMX and AVX-512 are masked off.
        rounds: Counted ones.
        minutes: How long the rounds of a size may take, judged by everyone's speed with passages.
        texts: At most so many of a workload; 0 takes the device's number.
        thorough: Everyone in every workload.
        seed: Of texts and weights.
        tokenizer: ``tokenizer.json`` of Qwen3.
        shrink: Divides widths.
        keep: Where checkpoints and exports stay for the next run.
    """

    letters: Sequence[str]
    queries: int | None
    entries: Sequence[Entry]
    pythons: dict[str, str]
    device: str
    avx2: bool
    rounds: int
    minutes: float
    texts: int
    thorough: bool
    seed: int
    tokenizer: Path
    shrink: int
    keep: Path | None


@contextlib.contextmanager
def checkpoint(plan: Plan, size: str) -> Iterator[Path]:
    """A random checkpoint in the shape of a size, and what engines export beside it."""
    with tempfile.TemporaryDirectory(prefix="f2rag-speed-") as temporary:
        folder = (plan.keep or Path(temporary)) / (size if plan.shrink == 1 else f"{size}-by-{plan.shrink}")
        if not (folder / "config.json").is_file():
            write_checkpoint(
                folder,
                model=size,
                scale=None if plan.shrink == 1 else plan.shrink,
                dtype="bfloat16",
                tokenizer_file=plan.tokenizer,
                seed=plan.seed,
            )
        yield folder


def measure_size(plan: Plan, size: str, console: Console) -> dict[str, Any]:
    """Everything that a run measures in one size, as it is stored."""
    with checkpoint(plan, size) as folder:
        setup = Setup(
            folder=folder,
            device=plan.device,
            max_length=MAXIMUM,
            query_prefix=query_prefix(DEFAULT_INSTRUCTION),
            pythons=plan.pythons,
            rounds=plan.rounds,
            avx2=plan.avx2,
        )
        console.print(f"{size}: making texts")
        counts = {key: plan.texts or _count(key, plan.device) for key in plan.letters}
        made = [make_workload(key, folder / "tokenizer.json", count=n, seed=plan.seed) for key, n in counts.items()]
        with _progress(console) as progress:
            told = Told(progress)
            if plan.queries is not None:
                found = latency.measure_latency(
                    setup, plan.entries, made[0], per_round=plan.queries, trials=our_trials(setup), told=told
                )
                return {**report.size_content(size, Shape.read(folder), []), "latency": latency.rows(found)}
            measured = run_size(
                setup,
                plan.entries,
                made,
                minutes=plan.minutes,
                parameters=_parameters(size, plan.shrink),
                thorough=plan.thorough,
                told=told,
            )
            return report.size_content(size, Shape.read(folder), measured)


def main(
    sizes: Annotated[str, typer.Option(help="Shapes, with commas: 80M,0.6B,4B,8B,14B.")] = "80M",
    workloads: Annotated[str, typer.Option(help=f"Letters, with commas, of {','.join(PLANS)}.")] = ",".join(PLANS),
    contestants: Annotated[str, typer.Option(help="Keys, with commas; f2rag and the limit always. All if empty.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    minutes: Annotated[
        float,
        typer.Option(
            help="How long the rounds of a size may take, judged by everyone's speed with passages: "
            "who pads takes up to four times that with mixed lengths."
        ),
    ] = 15,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds; five give an interval.")] = 5,
    texts: Annotated[int, typer.Option(help="At most so many texts of a workload; 0 takes the device's number.")] = 0,
    seed: Annotated[int, typer.Option(help="Of texts and weights.")] = 0,
    thorough: Annotated[bool, typer.Option(help="Every contestant in every workload, not in P and M alone.")] = False,
    isa: Annotated[str, typer.Option(help="'avx2' masks AMX and AVX-512 off.")] = "",
    only_latency: Annotated[bool, typer.Option("--latency", help="Single queries instead of workloads.")] = False,
    queries: Annotated[int, typer.Option(help="Queries in a round of --latency.")] = 64,
    peers_python: Annotated[
        list[Path] | None, typer.Option(help="Python of a virtual environment with other engines; may be repeated.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json of Qwen3, where its package is absent.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep checkpoints and exports here for the next run.")] = None,
    even_if_busy: Annotated[bool, typer.Option("--even-if-busy", help="Measure though others compute.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds to wait until others have finished.")] = 60,
    shrink: Annotated[int, typer.Option(help="Divide widths by this, to try the benchmark out.")] = 1,
    name: Annotated[str, typer.Option(help="Of the result files; by device if empty.")] = "",
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure f2rag beside its peers and beside the machine's limit."""
    console = Console(stderr=True)
    if isa not in ("", "avx2"):
        raise typer.BadParameter(f"--isa {isa} was given; expected avx2, or nothing.")
    letters = _known(workloads, PLANS, what="workload")
    wanted = _known(contestants, [entry.key for entry in ENTRIES], what="contestant") or [e.key for e in ENTRIES]
    if only_latency:
        wanted = [key for key in wanted if key in LATENCY_KEYS]
    load = require_quiet(console, even_if_busy=even_if_busy, patience=patience)
    entries, pythons, skipped = participants(wanted, peer_pythons(peers_python or []), device=device, avx2=bool(isa))
    for each in skipped:
        console.print(f"not measured: {each.label}: {each.reason} ({each.get})", style="dim")
    plan = Plan(
        letters=["Q"] if only_latency else letters,
        queries=queries if only_latency else None,
        entries=entries,
        pythons=pythons,
        device=device,
        avx2=bool(isa),
        rounds=rounds,
        minutes=minutes,
        texts=texts,
        thorough=thorough,
        seed=seed,
        tokenizer=tokenizer or qwen3_tokenizer_file(),
        shrink=shrink,
        keep=keep,
    )
    run: dict[str, Any] = {
        "device": device,
        "avx2": plan.avx2,
        "shrunk": shrink != 1,
        "machine": {
            **facts(load=load, sizes=sizes, rounds=rounds, seed=seed, minutes=minutes),
            "quiet_share": QUIET_SHARE,
            "packages_by_python": versions_of(pythons, entries, PACKAGES),
        },
        "sizes": [],
    }
    for size in _known(sizes, None, what="size"):
        run["sizes"].append(measure_size(plan, size, console))
        if not json_only:  # after each size, so that an end before the last one loses nothing
            _write(run, skipped, name=name, only_latency=only_latency)
    if json_only:
        print(json.dumps({**run, "aims": list(judged(run))}))
    else:
        report.show(run, skipped)


def _count(key: str, device: str) -> int:
    plan = PLANS[key]
    return plan.on_cpu if device == "cpu" else plan.on_gpu


def _known(given: str, known: Sequence[str] | dict[str, Any] | None, *, what: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise typer.BadParameter(f"There is no {what} {', '.join(unknown)}; expected some of {', '.join(known or ())}.")
    return names


def _parameters(size: str, shrink: int) -> int:
    spec = resolve(size).spec
    assert spec is not None
    return spec.parameters // shrink


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", justify="left"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _write(run: dict[str, Any], skipped: Sequence[Skipped], *, name: str, only_latency: bool) -> None:
    title = "Single queries" if only_latency else "Texts"
    where = "AVX2 only" if run["avx2"] else ("GPU" if run["device"] != "cpu" else "CPU")
    stem = name or ("speed" if run["device"] == "cpu" else "speed_gpu")
    content = report.store(stem, f"{title}, {where}", run, skipped)
    plot.draw(content, report.RESULTS / f"{stem}.png")


if __name__ == "__main__":
    typer.run(main)
