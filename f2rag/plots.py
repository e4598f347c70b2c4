"""The picture of an advice: what is found, against the memory that it takes. It needs the extra ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from f2rag.advice import readable_bytes
from f2rag.errors import InputError
from f2rag.evaluation.measures import optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from f2rag.advice import Advice, Choice, Kind

# Colours that people with any colour vision tell apart (Okabe and Ito, 2008), and markers for prints without colour.
_SERIES: Final[tuple[tuple[str, tuple[Kind, ...], str, str, str], ...]] = (
    ("shorter vectors, one pass", ("prefix",), "#0072B2", "o", "-"),
    ("shorter first pass, full second (on disk)", ("funnel",), "#009E73", "s", "-"),
    ("compressed first pass, full second (on disk)", ("int8", "binary"), "#D55E00", "D", "none"),
)


def plot_advice(advice: Advice, file: Path) -> None:
    """Draw recall against memory per million vectors, with 95 % intervals; the suffix of ``file`` says the format.

    Raises:
        InputError: The file cannot be written, or its suffix is no format of pictures.
        MissingExtraError: matplotlib is not installed.
    """
    optional("matplotlib").use("Agg")
    pyplot = optional("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    try:
        for label, kinds, colour, marker, line in _SERIES:
            chosen = [choice for choice in advice.choices if choice.kind in kinds]
            _draw(axes, chosen, label=label, color=colour, marker=marker, linestyle=line)
        _decorate(axes, advice)
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The plot {file} cannot be written: {error}. Give a .png, .svg or .pdf file in a folder that exists."
        ) from error
    finally:
        pyplot.close(figure)


def _draw(axes: Any, choices: Sequence[Choice], **style: Any) -> None:
    means = [choice.recall.mean for choice in choices]
    below = [choice.recall.mean - (_or(choice.recall.low, choice.recall.mean)) for choice in choices]
    above = [_or(choice.recall.high, choice.recall.mean) - choice.recall.mean for choice in choices]
    memory = [choice.memory / 1e9 for choice in choices]
    axes.errorbar(memory, means, yerr=[below, above], capsize=3, markersize=5, linewidth=1.4, elinewidth=1, **style)
    for choice, x, y in zip(choices, memory, means, strict=True):
        compressed = choice.kind in ("int8", "binary")
        axes.annotate(
            choice.kind if compressed else str(choice.dimensions),
            (x, y),
            # The two lie at the sizes of prefixes, and often beside one: they are written to the other side.
            xytext=(-8, 5) if compressed else (5, -11),
            ha="right" if compressed else "left",
            textcoords="offset points",
            fontsize=8,
            color=style["color"],
        )


def _decorate(axes: Any, advice: Advice) -> None:
    axes.axhline(advice.target, color="#777777", linestyle="--", linewidth=1)
    axes.annotate(
        f"target\n{advice.target:g}",
        (1, advice.target),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color="#777777",
    )
    if (best := advice.recommended) is not None:
        axes.scatter(
            [best.memory / 1e9],
            [best.recall.mean],
            s=190,
            facecolors="none",
            edgecolors="black",
            linewidths=1.5,
            zorder=5,
            label=f"recommended: {best.name}, {readable_bytes(best.memory)}",
        )
    ticks = sorted({choice.memory for choice in advice.choices if choice.kind == "prefix"})
    axes.set_xscale("log", base=2)
    axes.set_xticks([tick / 1e9 for tick in ticks], [readable_bytes(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("in memory per million vectors (graph and payload not counted)")
    axes.set_ylabel(f"recall@{advice.limit} of exact search at full width")
    axes.set_title(
        f"{advice.collection}: {advice.compared:,} documents of {advice.dimensions} dimensions, "
        f"{advice.queries:,} queries",
        loc="left",
        fontsize=10,
    )
    axes.margins(x=0.1, y=0.08)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda row: labels[row].startswith("recommended"))
    axes.figure.legend(
        [handles[row] for row in order],
        [labels[row] for row in order],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
        markerscale=0.7,
    )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
