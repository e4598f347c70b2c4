"""What the benchmarks of ingestion, memory and start-up share: intervals, aims, slopes and result files.

Pure functions over measured numbers; nothing here knows what was measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer
from rich.console import Console
from scipy import stats  # type: ignore[import-untyped]  # ships no types

from benchmarks.machine import QUIET_SHARE, Load, measure_load

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 2_000

SILENCE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Environment of every measured process: nobody asks a hub for what lies in a folder, or draws progress."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with the interval that holds it in 95 of 100 repetitions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aim:
    """What a result is held against.

    Attributes:
        what: In words.
        value: What was measured.
        bound: What was aimed at.
        kind: ``"at least"`` or ``"at most"``.
        unit: Of both, for people.
    """

    what: str
    value: float
    bound: float
    kind: Literal["at least", "at most"]
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the aim is reached; a value that is no number reaches none."""
        return bool(self.value >= self.bound if self.kind == "at least" else self.value <= self.bound)

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {**dataclasses.asdict(self), "value": round(self.value, 4), "met": self.met}

    def __str__(self) -> str:
        said = f"{self.what}: {self.value:,.2f}{self.unit}, aim {self.kind} {self.bound:,g}{self.unit}"
        return f"{said}: {'met' if self.met else f'missed by {self._missed_by:.0%}'}"

    @property
    def _missed_by(self) -> float:
        return abs(self.value - self.bound) / self.bound if self.bound else float("inf")


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Interval:
    """How many times as much one took as the other, with a bootstrap interval.

    Rounds are drawn as a whole, with both their values: what slowed one contestant down in a round slowed the other
    down, too, and must not widen the interval of the ratio.

    Args:
        numerator: One value for each round.
        denominator: Of the same rounds, in the same order.
        seed: Of the draws.

    Raises:
        ValueError: The two do not come from the same rounds, or there are none.
    """
    if len(numerator) != len(denominator) or not numerator:
        message = f"{len(numerator)} and {len(denominator)} rounds were given; expected the same rounds of both."
        raise ValueError(message)
    value = statistics.median(numerator) / statistics.median(denominator)
    if len(numerator) == 1:
        return Interval(value, value, value)
    found = stats.bootstrap(
        (np.asarray(numerator), np.asarray(denominator)),
        lambda above, below, axis: np.median(above, axis=axis) / np.median(below, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def slope(positions: Sequence[float], values: Sequence[float], *, skip: float = 0.1) -> Interval:
    """How much a value grows per unit of position: the median of all slopes between two samples (Theil and Sen).

    A leak grows everywhere, whereas what an allocator takes comes in single steps; the median of the slopes is moved by
    the first and hardly by the second.

    Args:
        positions: Where the samples were taken, ascending.
        values: The samples.
        skip: Share of the positions at the start that is left out: caches fill and pools grow there.

    Raises:
        ValueError: Fewer than three samples remain.
    """
    at, seen = np.asarray(positions, dtype=np.float64), np.asarray(values, dtype=np.float64)
    kept = at >= skip * at[-1] if len(at) else np.zeros(0, dtype=bool)
    if kept.sum() < 3:
        message = (
            f"{int(kept.sum())} samples are left after the first {skip:.0%}; a slope needs three. Sample more often."
        )
        raise ValueError(message)
    found = stats.theilslopes(seen[kept], at[kept])
    return Interval(float(found.slope), float(found.low_slope), float(found.high_slope))


def interleave(names: Sequence[str], rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """Measure all, one after the other, and again for each round; every other round runs backwards.

    Backwards, so that nobody always runs after the same neighbour or always comes last in a machine that grows warm.
    """
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            taken[name].append(measure(name))
    return taken


def require_quiet(console: Console, *, even_if_busy: bool, patience: float = 60.0) -> Load:
    """Watch the machine until others leave it alone.

    Args:
        console: Where to say that others compute.
        even_if_busy: Do not wait, and measure all the same.
        patience: Seconds to wait until others have finished.

    Raises:
        typer.Exit: They did not finish in time, and that was not accepted.
    """
    started = time.monotonic()
    while not (load := measure_load()).is_quiet:
        busy = f"Others take {load.others:.0%} of this machine"
        bound = f"{busy} (at most {QUIET_SHARE:.0%} leaves times worth having)"
        if even_if_busy:
            console.print(f"{bound}: measuring all the same.", style="yellow")
            break
        if (waited := time.monotonic() - started) > patience:
            console.print(f"{bound}: end them, or accept it with --even-if-busy.", style="yellow")
            raise typer.Exit(2)
        console.print(f"{busy}; waiting ({waited:.0f} s).", style="yellow")
        time.sleep(min(5.0, patience))
    return load


def python_path() -> str:
    """``PYTHONPATH`` with which a new interpreter finds these benchmarks, wherever it is started."""
    return os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def write(name: str, content: dict[str, Any], markdown: str, *, folder: Path = RESULTS) -> None:
    """Keep a result as JSON and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")


def page(title: str, lines: Sequence[str], content: dict[str, Any]) -> str:
    """A result as a page: what it says, the aims, and the machine."""
    machine = content["machine"]
    others = machine["load_before"]["others"]
    busy = [] if others <= QUIET_SHARE else ["", f"**Others took {others:.0%} of the machine: not a reference.**"]
    aims = ["", "## Aims", "", *(f"- {aim}" for aim in content["aims_in_words"])]
    return "\n".join([f"# {title}", "", *lines, *busy, *aims, "", "```json", json.dumps(machine, indent=1), "```", ""])
