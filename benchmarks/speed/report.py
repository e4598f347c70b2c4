"""What was measured as JSON, as a page and in the terminal.

A result file holds several runs: of this machine as it is, with instruction sets masked, of single queries. Measuring
one of them again keeps the others.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speed.aims import judged
from benchmarks.speed.contestants import LIMIT, OURS
from benchmarks.speed.limit import Shape
from benchmarks.speed.measure import Outcome
from benchmarks.speed.run import Measured, Skipped

RESULTS = Path(__file__).parent.parent / "results"
MEBIBYTE = 2**20


def size_content(size: str, shape: Shape, measured: Sequence[Measured]) -> dict[str, Any]:
    """Everything of one model size, as it is stored."""
    return {
        "size": size,
        "shape": dataclasses.asdict(shape),
        "workloads": [_workload(each, shape) for each in measured],
    }


def _workload(measured: Measured, shape: Shape) -> dict[str, Any]:
    workload = measured.workload
    flops = shape.flops(workload.distinct_lengths())
    content: dict[str, Any] = {
        "key": workload.key,
        "title": workload.title,
        "texts": len(workload.texts),
        "tokens": workload.tokens,
        "flops": flops,
        "tokenizer_seconds": round(measured.tokenizer_seconds, 4),
        "load_of_others": measured.load,
        "rows": [_row(outcome, tokens=workload.tokens, texts=len(workload.texts)) for outcome in measured.outcomes],
    }
    return content | _limits(measured, flops)


def _row(outcome: Outcome, *, tokens: int, texts: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": outcome.key,
        "label": outcome.label,
        "dtype": outcome.facts.get("dtype", ""),
        # Where things lie on the machine that measured is nobody's business.
        "problem": re.sub(r"/\S*/", "…/", outcome.problem),
        "settings": {} if outcome.choice is None else dataclasses.asdict(outcome.choice),
        "facts": outcome.facts,
    }
    if outcome.verdict is not None:
        row["cosine"] = {
            "lowest": round(outcome.verdict.lowest, 7),
            "mean": round(outcome.verdict.mean, 7),
            "lowest_allowed": round(outcome.verdict.allowed, 7),
        }
    if outcome.seconds:
        ratio = outcome.ratio
        row |= {
            "seconds": [round(value, 4) for value in outcome.seconds],
            "tokens_per_second": round(tokens / outcome.median),
            "texts_per_second": round(texts / outcome.median, 2),
            "ratio": [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)],
            "first_vector_seconds": round(outcome.facts.get("first_vector_seconds", 0.0), 1),
            "warm_up_seconds": round(outcome.warm_up_seconds, 2),
            "extra_seconds": round(_extra(outcome), 2),
            "peak_mib": round(outcome.peak_bytes / MEBIBYTE),
        }
    return row


def _extra(outcome: Outcome) -> float:
    """What first calls took longer than later ones, over the life of the process: compilation, mostly."""
    return float(outcome.facts.get("extra_seconds", 0.0)) + max(outcome.warm_up_seconds - outcome.median, 0.0)


def _limits(measured: Measured, flops: int) -> dict[str, Any]:
    """What share f2rag reaches of the shape's own limit, and of a large square product's rate."""
    found = {outcome.key: outcome for outcome in measured.outcomes if outcome.seconds}
    if LIMIT not in found or OURS not in found:
        return {}
    limit, ours = found[LIMIT], found[OURS]
    # Where the tokenizer alone takes longer than the model's products, nobody can be faster than it.
    stretch = max(measured.tokenizer_seconds / limit.median, 1.0)
    ratio = limit.ratio
    square = float(limit.facts["square_flops_per_second"])
    return {
        "limit_share": [round(stretch * value, 3) for value in (ratio.value, ratio.low, ratio.high)],
        "limited_by": "the tokenizer" if stretch > 1 else "matrix products and attention",
        "square_share": round(flops / ours.median / square, 3),
        "limit_gflops": round(flops / limit.median / 1e9, 1),
        "square_gflops": round(square / 1e9, 1),
    }


def store(name: str, key: str, run: Mapping[str, Any], skipped: Sequence[Skipped], *, folder: Path = RESULTS) -> Any:
    """Put a run into a result file beside its other runs, and write the page.

    Returns:
        The whole content.
    """
    file = folder / f"{name}.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"runs": {}}
    kept = {**run, "skipped": [dataclasses.asdict(each) for each in skipped], "aims": list(judged(run))}
    content["runs"][key] = kept
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(as_markdown(name, content), encoding="utf-8")
    return content


def as_markdown(name: str, content: Mapping[str, Any]) -> str:
    """The page."""
    gpu = "gpu" in name
    lines = [
        "# Embedding speed, f2rag and its peers",
        "",
        f"Made by `make {'bench-gpu' if gpu else 'bench'}`. Every contestant has a process of its own and embeds the",
        "same texts in interleaved rounds; real tokens are counted once, with the model's own tokenizer. A time counts",
        "only if the vectors agree with stock transformers in float32, one text at a time. Ratios are of medians, with",
        "a 95 % bootstrap interval over rounds. Weights are random in the exact shapes. Ratios hold for machines like",
        "the one below; times for it alone. *Peak* is of the whole process on a CPU, of torch's allocations on a GPU;",
        "*first* is from the start of the process to its first vector; *warm-up* is what its first calls took longer",
        "than later ones, compilation included; no round holds any of it.",
        "",
        f"![Tokens per second of each contestant]({name}.png)",
    ]
    for key, run in content["runs"].items():
        lines += ["", f"## {key}", *_warnings(run), *_aims(run)]
        for size in run["sizes"]:
            for workload in size["workloads"]:
                lines += _workload_lines(size["size"], workload)
            lines += _latency_lines(size)
        lines += _skipped_lines(run)
        lines += ["", "```json", json.dumps(run["machine"], indent=1, ensure_ascii=False), "```"]
    return "\n".join([*lines, ""])


def _warnings(run: Mapping[str, Any]) -> list[str]:
    lines = []
    if run["machine"]["load_before"]["others"] > run["machine"]["quiet_share"]:
        share = run["machine"]["load_before"]["others"]
        lines += ["", f"**Others took {share:.0%} of the machine before the first round: no reference.**"]
    if run["shrunk"]:
        lines += ["", "**Measured on a shrunken shape, to try the benchmark out: no result.**"]
    if run["avx2"]:
        lines += ["", "AMX and AVX-512 are masked off for all contestants, to speak for laptops."]
    return lines


def _aims(run: Mapping[str, Any]) -> list[str]:
    if not run["aims"]:
        return []
    lines = [
        "",
        "*At the limit* is what the ratio would be if f2rag took only the time that torch takes here for the shape's",
        "own matrix products and attention, called in the fastest of several ways: an aim above it is out of reach of",
        "any program that calls these, in this dtype. Where one below it is missed, the last column says what share of",
        "the limit it takes; what share f2rag reaches stands with each workload.",
        "",
        "| aim | where | measured | at the limit | aim is | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for aim in run["aims"]:
        low, high = aim["interval"] or (aim["value"], aim["value"])
        if not aim["applies"]:
            verdict = "set for another kind of machine"
        elif aim["met"]:
            verdict = "met"
        else:
            verdict = f"missed by {abs(aim['value'] - aim['bound']) / aim['bound']:.0%}"
        reach = "–" if aim["at_limit"] is None else f"{aim['at_limit']:.2f}"
        side = "≥" if aim["kind"] == "at least" else "≤"
        lines.append(
            f"| {aim['what']} | {aim['where']} | {aim['value']:.2f} ({low:.2f} to {high:.2f}) | {reach} | "
            f"{side} {aim['bound']:g} | {verdict}{_reach(aim)} |"
        )
    return lines


def _reach(aim: Mapping[str, Any]) -> str:
    """Why an aim is missed: what share of the limit it takes, where it is not above the limit itself."""
    found = aim["at_limit"]
    if found is None or aim["met"] or not aim["applies"]:
        return ""
    return "; out of reach here" if found < aim["bound"] else f"; takes {aim['bound'] / found:.0%} of the limit"


def _workload_lines(size: str, workload: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        f"### {size}, {workload['key']}: {workload['title']}",
        "",
        f"{workload['texts']:,} texts, {workload['tokens']:,} tokens; the tokenizer alone takes "
        f"{workload['tokenizer_seconds']:.2f} s.",
    ]
    if "limit_share" in workload:
        share, low, high = workload["limit_share"]
        lines.append(
            f"f2rag reaches {share:.0%} ({low:.0%} to {high:.0%}) of the limit that {workload['limited_by']} set, and "
            f"{workload['square_share']:.0%} of a large square product's {workload['square_gflops']:,.0f} GFLOP/s."
        )
        if share > 1:
            lines.append("It can be more than all of it: the limit computes every token, f2rag shared beginnings once.")
    lines += [
        "",
        "| contestant | dtype | batch | tokens/s | texts/s | time, f2rag = 1 | lowest cosine | peak MiB | first s "
        "| warm-up s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    measured = [row for row in workload["rows"] if "ratio" in row]
    for row in sorted(measured, key=lambda row: -row["tokens_per_second"]):
        value, low, high = row["ratio"]
        cosine = f"{row['cosine']['lowest']:.5f}" if "cosine" in row else "–"
        lines.append(
            f"| {row['label']} | {row['dtype']} | {row['settings'].get('batch_size') or '–'} | "
            f"{row['tokens_per_second']:,} | {row['texts_per_second']:,.1f} | {value:.2f} ({low:.2f} to {high:.2f}) | "
            f"{cosine} | {row['peak_mib']:,} | {row['first_vector_seconds']:.1f} | {row['extra_seconds']:.1f} |"
        )
    return lines + [
        f"| {row['label']} | {row['dtype']} | | no time: {_short(row['problem'])} | | | | | | |"
        for row in workload["rows"]
        if "ratio" not in row
    ]


def _latency_lines(size: Mapping[str, Any]) -> list[str]:
    if not size.get("latency"):
        return []
    lines = [
        "",
        f"### {size['size']}, one short query",
        "",
        "| contestant | dtype | callers | p50 ms | p95 ms | p99 ms | queries/s | p50, f2rag = 1 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(size["latency"], key=lambda row: (row["callers"], row.get("p50_ms", 0.0))):
        start = f"| {row['label']} | {row['dtype']} | {row['callers']}"
        if "p50_ratio" not in row:
            lines.append(f"{start} | no time: {_short(row['problem'])} | | | | |")
            continue
        value, low, high = row["p50_ratio"]
        lines.append(
            f"{start} | {row['p50_ms']:,.1f} | {row['p95_ms']:,.1f} | {row['p99_ms']:,.1f} | "
            f"{row['queries_per_second']:,.1f} | {value:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return lines


def _skipped_lines(run: Mapping[str, Any]) -> list[str]:
    if not run["skipped"]:
        return []
    rows = [f"- {each['label']}: {each['reason']}; `{each['get']}`" for each in run["skipped"]]
    return ["", "Not measured:", "", *rows]


def _short(problem: str, most: int = 160) -> str:
    text = " ".join(problem.split()).replace("|", "/")
    return text if len(text) <= most else f"{text[:most]}…"


def show(run: Mapping[str, Any], skipped: Sequence[Skipped]) -> None:
    """Print a run."""
    console = Console()
    for size in run["sizes"]:
        for workload in size["workloads"]:
            table = Table(title=f"{size['size']}, {workload['key']}: {workload['title']}")
            table.add_column("contestant")
            table.add_column("dtype")
            for name in ("tokens/s", "time, f2rag = 1", "lowest cosine", "peak MiB"):
                table.add_column(name, justify="right")
            for row in workload["rows"]:
                if "ratio" in row:
                    cosine = f"{row['cosine']['lowest']:.5f}" if "cosine" in row else "–"
                    cells = (f"{row['tokens_per_second']:,}", f"{row['ratio'][0]:.2f}", cosine, f"{row['peak_mib']:,}")
                else:
                    cells = ("no time", _short(row["problem"], 60), "", "")
                table.add_row(row["label"], row["dtype"], *cells)
            console.print(table)
    for each in skipped:
        console.print(f"not measured: {each.label}: {each.reason} ({each.get})", style="dim")
