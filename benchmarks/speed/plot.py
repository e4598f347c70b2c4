"""The picture of a result file: a panel for each workload, a bar for each contestant, the limit as a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import LIMIT

_OURS = "#1b6ca8"
_COMPILED = "#7f8ea3"
_OTHERS = "#b4bfcc"
_INK = "#22303c"
_LIMIT = "#c2410c"

_SHORT = {
    "sentence-transformers": "sent.-transf.",
    " through sent.-transf.": "",
    " through llama-cpp-python": "",
    "llama-index-embeddings-": "llama-index-",
    ", nothing set": "",
    " in a loop, one text at a time": ", a loop",
    "best tuned and compiled": "tuned + compiled",
    "best tuned": "tuned",
}


def draw(content: Mapping[str, Any], target: Path) -> bool:
    """Draw all measured workloads of a result file.

    Returns:
        Whether there was anything to draw with, and anything to draw.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [
        (key, size["size"], workload)
        for key, run in content["runs"].items()
        for size in run["sizes"]
        for workload in size["workloads"]
        if any("ratio" in row for row in workload["rows"])
    ]
    if not panels:
        return False
    columns = min(len(panels), 2)
    lines = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    heights = [max(_bars(workload) for _, _, workload in line) for line in lines]
    figure, grid = pyplot.subplots(
        len(lines),
        columns,
        figsize=(6.9 * columns, sum(0.27 * height + 0.95 for height in heights)),
        height_ratios=[height + 2.5 for height in heights],
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat:
        axes.set_visible(False)
    for line, row in zip(lines, grid, strict=True):
        for (key, size, workload), axes in zip(line, row, strict=False):
            axes.set_visible(True)
            _panel(axes, workload, title=f"{size} · {workload['key']}: {_first_parts(workload)}", run=key)
    figure.savefig(target, dpi=150, facecolor="white")
    pyplot.close(figure)
    return True


def _bars(workload: Mapping[str, Any]) -> int:
    return sum("ratio" in row and row["key"] != LIMIT for row in workload["rows"])


def _first_parts(workload: Mapping[str, Any], *, most: int = 44) -> str:
    """As much of its title as fits over a panel, cut at a comma between words."""
    parts = str(workload["title"]).split(", ")
    fitting = [", ".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return max((part for part in fitting if len(part) <= most), key=len, default=fitting[0])


def _panel(axes: Any, workload: Mapping[str, Any], *, title: str, run: str) -> None:
    rows = [row for row in workload["rows"] if "ratio" in row]
    bars = sorted((row for row in rows if row["key"] != LIMIT), key=lambda row: row["tokens_per_second"])
    rates = [row["tokens_per_second"] for row in bars]
    names = [f"{_shorten(row['label'])}  ({_dtype(row['dtype'])})" for row in bars]
    drawn = axes.barh(names, rates, color=[_colour(row) for row in bars], height=0.72)
    labels = axes.bar_label(drawn, labels=[_label(row) for row in bars], padding=4, fontsize=8, color=_INK)
    for label in labels:
        label.set(zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # readable across the limit
    limit = next((row for row in rows if row["key"] == LIMIT), None)
    most = max(rates)
    if limit is not None:
        most = max(most, limit["tokens_per_second"])
        axes.axvline(limit["tokens_per_second"], color=_LIMIT, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.text(1, 1.02, "- - limit of the shape", transform=axes.transAxes, fontsize=8, color=_LIMIT, ha="right")
    axes.set_xlim(0, most * 1.22)
    axes.set_title(f"{title}\n", fontsize=10, loc="left", color=_INK, fontweight="bold")
    axes.text(0, 1.02, f"{run}; tokens/s, × f2rag's time", transform=axes.transAxes, fontsize=8, color=_INK)
    axes.tick_params(axis="both", labelsize=8, length=0, colors=_INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", color="#e6eaef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _label(row: Mapping[str, Any]) -> str:
    rate = f"{row['tokens_per_second']:,}"
    return rate if row["key"] == "f2rag" else f"{rate}   ×{row['ratio'][0]:.1f}"


def _colour(row: Mapping[str, Any]) -> str:
    if "f2rag" in row["key"] or "f2llm" in row["key"]:
        return _OURS
    return _COMPILED if row["key"] == "st-compiled" else _OTHERS


def _shorten(label: str) -> str:
    for long, short in _SHORT.items():
        label = label.replace(long, short)
    return label


def _dtype(name: str) -> str:
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)
