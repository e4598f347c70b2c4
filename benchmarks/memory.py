"""Peak memory beside sentence-transformers, and whether anything grows that goes on for ever: ``make bench-memory``.

    each contestant in a process of its own ─► the most that was resident, imports and weights included
    a stream of texts, calls, encoders       ─► resident memory and objects along the way ─► slope

Workload M has texts of lognormal length (median 300 tokens, sigma 1.1), workload D texts of 2,048 tokens. Absolute
values are of this machine and these versions; nothing is subtracted from them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import facts
from benchmarks.material import CAP, MODEL, full_checkpoint, lognormal_lengths, qwen3_tokenizer_file, texts_of_lengths
from benchmarks.measuring import RESULTS, SILENCE, Aim, page, python_path, require_quiet, slope, write
from f2rag.testing import write_checkpoint

AIM_RATIO = 1.2
AIM_SLOPE = 0.5
"""MiB that a stream may seem to grow in 100,000 texts: 5 MiB in a million, what allocators need to settle."""

AIM_LIFETIME = 0.1
"""MiB that opening and closing may leave behind for each encoder; a kept model of the smallest kind is 0.3."""

POLL_SECONDS = 0.05
SAMPLES = 200
DEFAULT = "sentence-transformers, default"
OURS = "f2rag, nothing set"
TUNED = [
    ("sentence-transformers, float32, batch 8", "float32", 8),
    ("sentence-transformers, float32, batch 32", "float32", 32),
    ("sentence-transformers, bfloat16, batch 8", "bfloat16", 8),
]
LOWEST_COSINE = 0.98


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak:
    """What one contestant took for one workload, in MiB.

    Attributes:
        loaded: Resident with the model loaded and warm.
        loading_peak: The most until then.
        peak: The most of all.
        pss: The most, with what is shared with other processes divided; polled, so a short peak may lie above.
        lowest_cosine: Of its vectors to f2rag's.
    """

    workload: str
    name: str
    seconds: float
    loaded: float
    loading_peak: float
    peak: float
    pss: float
    lowest_cosine: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """How memory went along.

    Attributes:
        what: A stream, calls or lifetimes.
        unit: How many of them the slopes are for.
        rss: MiB per unit: value and interval.
        native: MiB per unit that the C library counts.
        blocks: Objects of Python per unit.
        samples: Everything that was seen.
    """

    what: str
    count: int
    unit: int
    seconds: float
    rss: tuple[float, float, float]
    native: tuple[float, float, float]
    blocks: tuple[float, float, float]
    samples: list[dict[str, float]]


def run_worker(
    spec: dict[str, Any], *, on_line: Callable[[dict[str, Any]], object] = lambda line: line
) -> tuple[dict[str, Any], float]:
    """Run ``memory_worker`` and watch its proportional memory from outside.

    Args:
        spec: What it does.
        on_line: Gets every line but the last.

    Returns:
        Its last line, and the largest PSS in MiB (0 where the system does not say).

    Raises:
        RuntimeError: It failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.memory_worker", json.dumps(spec)],
        env={**os.environ, **SILENCE, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    largest = [0.0]
    errors: list[str] = []
    helpers = [
        threading.Thread(target=_watch_pss, args=(process, largest)),
        threading.Thread(target=errors.extend, args=(process.stderr,)),  # a full pipe would stop the worker
    ]
    for helper in helpers:
        helper.start()
    last: dict[str, Any] | None = None
    for line in process.stdout:
        if last is not None:
            on_line(last)
        last = json.loads(line)
    code = process.wait()
    for helper in helpers:
        helper.join()
    process.stdout.close()
    process.stderr.close()
    if code or last is None:
        message = f"{spec} ended with {code}:\n{''.join(errors)[-3000:]}"
        raise RuntimeError(message)
    return last, largest[0]


def _watch_pss(process: subprocess.Popen[str], largest: list[float]) -> None:
    try:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            largest[0] = max(largest[0], float(getattr(watched.memory_full_info(), "pss", 0)) / 2**20)
            threading.Event().wait(POLL_SECONDS)
    except psutil.Error:  # it has just ended
        return


def workloads(folder: Path, *, mixed: int, long: int, seed: int) -> dict[str, Path]:
    """The texts of M and D as files; D's are a little longer, so that all end at exactly ``CAP`` tokens."""
    tokenizer = qwen3_tokenizer_file()
    lengths = {"M": lognormal_lengths(mixed, seed=seed), "D": [CAP + 16] * long}
    files = {}
    for name, wanted in lengths.items():
        files[name] = folder / f"{name}.json"
        files[name].write_text(json.dumps(texts_of_lengths(wanted, tokenizer, seed=seed)), encoding="utf-8")
    return files


def peaks(model: Path, files: dict[str, Path], folder: Path, *, max_length: int = CAP) -> Iterator[Peak]:
    """Every contestant on every workload, each in a fresh process; f2rag first, for the others' vectors to meet."""
    specs: list[tuple[str, dict[str, Any]]] = [
        (OURS, {"contestant": "f2rag"}),
        (DEFAULT, {"contestant": "sentence-transformers", "dtype": None, "batch_size": None}),
        *(
            (name, {"contestant": "sentence-transformers", "dtype": dtype, "batch_size": batch})
            for name, dtype, batch in TUNED
        ),
    ]
    for workload, file in files.items():
        reference: Any = None
        for number, (name, given) in enumerate(specs):
            target = folder / f"{workload}-{number}.npy"
            spec = {
                "what": "encode",
                "model": str(model),
                "texts": str(file),
                "max_length": max_length,
                "vectors": str(target),
                **given,
            }
            found, pss = run_worker(spec)
            vectors = np.load(target)
            reference = vectors if reference is None else reference
            lowest = float((vectors * reference).sum(axis=1).min())
            yield Peak(workload=workload, name=name, pss=round(pss, 3), lowest_cosine=round(lowest, 6), **found)


def growth(what: str, model: Path | str, *, count: int, unit: int, leak: int = 0) -> Growth:
    """Let one of ``memory_worker.ENDLESS`` run and fit slopes to what was seen; see ``measuring.slope``.

    Args:
        what: Which.
        model: Of the encoders.
        count: Texts, calls or encoders.
        unit: How many the slopes are for.
        leak: Bytes to keep for each text, call or encoder on purpose.
    """
    samples: list[dict[str, float]] = []
    every = max(1, count // SAMPLES)
    spec = {"what": what, "model": str(model), "count": count, "every": every, "leak": leak}
    last, _ = run_worker(spec, on_line=samples.append)
    at = [each["done"] / unit for each in samples]

    def fitted(key: str) -> tuple[float, float, float]:
        found = slope(at, [each[key] for each in samples])
        return round(found.value, 4), round(found.low, 4), round(found.high, 4)

    return Growth(
        what=what,
        count=count,
        unit=unit,
        seconds=last["seconds"],
        rss=fitted("rss"),
        native=fitted("native"),
        blocks=fitted("blocks"),
        samples=samples,
    )


def best_tuned(rows: list[Peak], workload: str) -> Peak:
    """The fastest of sentence-transformers' settings in this run, the default among them."""
    return min((row for row in rows if row.workload == workload and row.name != OURS), key=lambda row: row.seconds)


def report(rows: list[Peak], grown: list[Growth], machine: dict[str, Any]) -> dict[str, Any]:
    """All figures as they are stored."""
    aims = []
    for workload in dict.fromkeys(row.workload for row in rows):
        ours = next(row for row in rows if row.workload == workload and row.name == OURS)
        best = best_tuned(rows, workload)
        what = f"peak memory on {workload}, as a share of {best.name}, the fastest of its settings"
        aims.append(Aim(what=what, value=ours.peak / best.peak, bound=AIM_RATIO, kind="at most", unit="x"))
    for each in grown:
        lifetimes = each.what == "lifetimes"
        bound = AIM_LIFETIME * each.unit if lifetimes else AIM_SLOPE
        what = f"growth in {each.unit:,} {'encoders' if lifetimes else 'texts' if each.what == 'stream' else 'calls'}"
        aims.append(Aim(what=what, value=each.rss[0], bound=bound, kind="at most", unit=" MiB"))
    wrong = [f"{row.name} on {row.workload}" for row in rows if not row.lowest_cosine >= LOWEST_COSINE]
    return {
        "peaks": [dataclasses.asdict(row) for row in rows],
        "growth": [dataclasses.asdict(each) for each in grown],
        "aims": [aim.as_json() for aim in aims],
        "aims_in_words": [
            *(str(aim) for aim in aims),
            *(f"{name}: its vectors are others, so that its memory says nothing" for name in wrong),
        ],
        "machine": machine,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The result as a page."""
    machine = content["machine"]
    lines = [
        f"Made by `make bench-memory`, F2LLM-v2-{MODEL}'s shape with random weights. Every contestant has a process of",
        "its own; MiB are all that was resident in it, imports and weights included, nothing subtracted. PSS divides",
        "what is shared with other processes and is polled. The ratio is to the fastest setting of",
        "sentence-transformers in this run.",
    ]
    for workload in dict.fromkeys(row["workload"] for row in content["peaks"]):
        rows = [row for row in content["peaks"] if row["workload"] == workload]
        best = min((row for row in rows if row["name"] != OURS), key=lambda row: float(row["seconds"]))
        said = (
            f"M: {machine['mixed']} texts, lognormal, median 300 tokens, cut at {CAP}"
            if workload == "M"
            else f"D: {machine['long']} texts of {CAP} tokens"
        )
        lines += [
            "",
            f"## {said}",
            "",
            "| contestant | loaded | peak | peak PSS | ratio | seconds | lowest cosine to f2rag |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(
                f"| {row['name']}{' (fastest)' if row is best else ''} | {row['loaded']:,.0f} | {row['peak']:,.0f} | "
                f"{row['pss']:,.0f} | {row['peak'] / best['peak']:.2f} | {row['seconds']:.1f} | "
                f"{row['lowest_cosine']:.4f} |"
                for row in rows
            ),
        ]
    if content["growth"]:
        lines += [
            "",
            "## What goes on for ever",
            "",
            "Slopes are medians of all slopes between two samples, the first tenth left out, with their 95 %",
            "intervals. `stream` is `iter_documents` over different short texts; `calls` are a query and a document",
            "each, every fourth document too long; `lifetimes` are encoders that are opened, used and closed.",
            "",
            "| what | how many | seconds | resident MiB | C library MiB | Python objects | per |",
            "| --- | ---: | ---: | --- | --- | --- | ---: |",
            *(
                f"| {each['what']} | {each['count']:,} | {each['seconds']:,.0f} | {_slope(each['rss'])} | "
                f"{_slope(each['native'])} | {_slope(each['blocks'])} | {each['unit']:,} |"
                for each in content["growth"]
            ),
        ]
    return page("Memory", lines, content)


def _slope(found: list[float]) -> str:
    value, low, high = found
    return f"{value:+,.2f} ({low:+,.2f} to {high:+,.2f})"


def show(content: dict[str, Any]) -> None:
    """The tables on the screen."""
    console = Console()
    table = Table(title="Peak memory, MiB")
    for name in ("workload", "contestant", "loaded", "peak", "peak PSS", "seconds", "lowest cosine"):
        table.add_column(name, justify="left" if name in {"workload", "contestant"} else "right")
    for row in content["peaks"]:
        numbers = (f"{row[key]:,.0f}" for key in ("loaded", "peak", "pss"))
        table.add_row(row["workload"], row["name"], *numbers, f"{row['seconds']:.1f}", f"{row['lowest_cosine']:.4f}")
    if content["peaks"]:
        console.print(table)
    for each in content["growth"]:
        console.print(
            f"{each['what']}, {each['count']:,} in {each['seconds']:,.0f} s: {_slope(each['rss'])} MiB and "
            f"{_slope(each['blocks'])} objects per {each['unit']:,}"
        )
    for aim in content["aims_in_words"]:
        console.print(aim)


def main(
    mixed: Annotated[int, typer.Option(help="Texts of workload M; 0 skips both workloads.")] = 128,
    long: Annotated[int, typer.Option(help="Texts of workload D.")] = 48,
    stream: Annotated[int, typer.Option(help="Short texts of the stream; 0 skips it.")] = 1_000_000,
    calls: Annotated[int, typer.Option(help="Calls one by one; 0 skips them.")] = 20_000,
    lifetimes: Annotated[int, typer.Option(help="Encoders opened and closed; 0 skips them.")] = 300,
    stream_model: Annotated[str, typer.Option(help="Instead of a tiny random checkpoint, e.g. stand-in.")] = "",
    leak: Annotated[int, typer.Option(help="Bytes to keep on purpose, to see that they are found.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights and texts.")] = 0,
    even_if_busy: Annotated[bool, typer.Option("--even-if-busy", help="Measure though others compute.")] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure peak memory and growth, and write the tables."""
    console = Console(stderr=True)
    load = require_quiet(console, even_if_busy=even_if_busy)
    rows: list[Peak] = []
    grown: list[Growth] = []
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as temporary:
        folder = Path(temporary)
        if mixed:
            model = full_checkpoint(folder / "model", seed=seed)
            for row in peaks(model, workloads(folder, mixed=mixed, long=long, seed=seed), folder):
                rows.append(row)
                console.print(f"{row.workload} {row.name}: {row.peak:,.0f} MiB in {row.seconds:.1f} s")
        small = stream_model or write_checkpoint(folder / "small", seed=seed)
        for what, count, unit in (("stream", stream, 100_000), ("calls", calls, 10_000), ("lifetimes", lifetimes, 100)):
            if count:
                grown.append(growth(what, small, count=count, unit=unit, leak=leak))
                console.print(f"{what}: {grown[-1].rss[0]:+.3f} MiB per {unit:,} in {grown[-1].seconds:.0f} s")
    machine = facts(load=load, mixed=mixed, long=long, seed=seed, leak=leak, stream_model=stream_model or "tiny random")
    content = report(rows, grown, machine)
    if json_only:
        print(json.dumps(content))
        return
    if leak:
        console.print(f"Not written to {RESULTS}: memory was kept on purpose.")
    else:
        write("memory", content, as_markdown(content))
    show(content)


if __name__ == "__main__":
    typer.run(main)
