"""What importing f2rag takes, and when the first vector is there, in fresh processes: ``make bench-startup``.

    python -c pass │ import f2rag │ import the encoder      ─► many rounds, the difference to an empty interpreter
    f2rag │ transformers │ sentence-transformers │ LangChain ─► from the start of the process to the first vector

Files are in the system's cache: one uncounted round reads them. Contestants take turns, and their vectors are compared
before a time counts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.machine import facts
from benchmarks.material import MODEL, full_checkpoint
from benchmarks.measuring import SILENCE, Aim, interleave, page, python_path, ratio_of_medians, require_quiet, write
from benchmarks.startup_contestants import CONTESTANTS, REPOSITORY_MODEL
from f2rag.models import resolve

AIM_IMPORT_MS = 100.0
LOWEST_COSINE = 0.98
NOTHING = "pass"
IMPORTS = {
    NOTHING: "pass",
    "import f2rag": "import f2rag",
    "from f2rag import F2LLMEncoder": "from f2rag import F2LLMEncoder",
}
PLAIN = ("transformers, dtype as stored", "transformers, float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
    """What one module costs, of ``python -X importtime``.

    Attributes:
        own_ms: The module alone.
        total_ms: With all that it imports first.
    """

    module: str
    own_ms: float
    total_ms: float


def environment() -> dict[str, str]:
    """Of the measured processes."""
    return {**os.environ, **SILENCE, "PYTHONPATH": python_path()}


def run_import(code: str) -> float:
    """Milliseconds of a fresh interpreter that runs a line, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    return 1e3 * (time.perf_counter() - started)


def costly_imports(code: str, *, count: int = 12) -> list[Imported]:
    """The modules that take longest, each alone, the most costly first."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    said = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stderr
    found = []
    for line in said.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        total, _, module = rest.partition("|")
        if own.strip().isdigit():
            found.append(Imported(module=module.strip(), own_ms=int(own) / 1e3, total_ms=int(total) / 1e3))
    return sorted(found, key=lambda each: -each.own_ms)[:count]


def hub_cache(folder: Path, model: Path) -> Path:
    """A cache in the hub's layout that holds a checkpoint under the name of a published one."""
    resolved = resolve(REPOSITORY_MODEL)
    snapshots = folder / f"models--{resolved.repo.replace('/', '--')}" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / str(resolved.revision)).symlink_to(model, target_is_directory=True)
    return folder


def first_vector(name: str, model: Path, cache: Path) -> tuple[float, list[float]]:
    """Seconds from before the process exists to its first vector, and the vector."""
    started = time.perf_counter()
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup_contestants", name, str(model), str(cache)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if said.returncode:
        message = f"{name} failed:\n{said.stderr[-3000:]}"
        raise RuntimeError(message)
    answer = json.loads(said.stdout.splitlines()[-1])
    return float(answer["at"]) - started, answer["vector"]


def first_vectors(
    model: Path, cache: Path, *, rounds: int, only: str = ""
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every contestant in every round, and the lowest cosine of its vectors to plain float32."""
    reference = np.asarray(first_vector(PLAIN[-1], model, cache)[1])
    lowest: dict[str, float] = {}
    names = [name for name in CONTESTANTS if only in name or name in PLAIN]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("first vectors", total=(rounds + 1) * len(names))

        def once(name: str) -> float:
            seconds, vector = first_vector(name, model, cache)
            row = np.asarray(vector)
            cosine = float(row @ reference / np.linalg.norm(row))
            lowest[name] = min(cosine, lowest.get(name, 1.0))
            progress.advance(task)
            return seconds

        interleave(names, 1, once)
        return interleave(names, rounds, once), lowest


def report(
    imports: dict[str, list[float]],
    costly: list[Imported],
    seconds: dict[str, list[float]],
    cosines: dict[str, float],
    machine: dict[str, Any],
) -> dict[str, Any]:
    """All figures as they are stored."""
    nothing = statistics.median(imports[NOTHING])
    beyond = {name: statistics.median(taken) - nothing for name, taken in imports.items()}
    aims = [Aim(what="import f2rag", value=beyond["import f2rag"], bound=AIM_IMPORT_MS, kind="at most", unit=" ms")]
    fastest = min((name for name in PLAIN if name in seconds), key=lambda name: statistics.median(seconds[name]))
    rows = []
    for name, taken in seconds.items():
        ratio = ratio_of_medians(taken, seconds[fastest])
        rows.append(
            {
                "name": name,
                "seconds": [round(value, 3) for value in taken],
                "median": round(statistics.median(taken), 3),
                "times_as_long": round(ratio.value, 3),
                "interval": [round(ratio.low, 3), round(ratio.high, 3)],
                "cosine": round(cosines[name], 6),
            }
        )
        if name.startswith("f2rag"):
            what = f"first vector of {name}, as a share of {fastest}"
            aims.append(Aim(what=what, value=ratio.value, bound=1.0, kind="at most", unit="x"))
    wrong = [name for name, cosine in cosines.items() if not cosine >= LOWEST_COSINE]
    return {
        "imports": {
            name: {
                "milliseconds": [round(value, 2) for value in taken],
                "median": round(statistics.median(taken), 2),
                "beyond_pass": round(beyond[name], 2),
            }
            for name, taken in imports.items()
        },
        "costly_imports": [dataclasses.asdict(each) for each in costly],
        "first_vectors": rows,
        "aims": [aim.as_json() for aim in aims],
        "aims_in_words": [
            *(str(aim) for aim in aims),
            *(f"{name}: its vector is another, so that its time says nothing" for name in wrong),
        ],
        "machine": machine,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The result as a page."""
    machine = content["machine"]
    lines = [
        f"Made by `make bench-startup`, every time in a fresh process, medians of {machine['import_rounds']} and "
        f"{machine['rounds']} interleaved rounds",
        "after an uncounted one that brings all files into the system's cache.",
        "",
        "## Imports",
        "",
        "| line | ms, interpreter and all | ms beyond `pass` |",
        "| --- | ---: | ---: |",
        *(
            f"| `{name}` | {each['median']:.1f} | {each['beyond_pass']:.1f} |"
            for name, each in content["imports"].items()
        ),
        "",
        "The most costly modules of `import f2rag` by `-X importtime`, each alone (those of the interpreter's own",
        "start among them): "
        + ", ".join(f"`{each['module']}` {each['own_ms']:.1f} ms" for each in content["costly_imports"])
        + ".",
        "",
        f"## First vector of F2LLM-v2-{MODEL}'s shape",
        "",
        "From before the process exists. A share of 1 is the faster of both plain ways.",
        "",
        "| contestant | seconds | share | 95 % interval | cosine to float32 |",
        "| --- | ---: | ---: | --- | ---: |",
        *(
            f"| {row['name']} | {row['median']:.2f} | {row['times_as_long']:.2f} | "
            f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f} | {row['cosine']:.4f} |"
            for row in content["first_vectors"]
        ),
    ]
    return page("Start-up", lines, content)


def show(content: dict[str, Any]) -> None:
    """The tables on the screen."""
    console = Console()
    table = Table(title="Fresh interpreters, ms")
    for name in ("line", "all", "beyond pass"):
        table.add_column(name, justify="left" if name == "line" else "right")
    for name, each in content["imports"].items():
        table.add_row(name, f"{each['median']:.1f}", f"{each['beyond_pass']:.1f}")
    console.print(table)
    table = Table(title="First vector, seconds")
    for name in ("contestant", "seconds", "share", "95 % interval", "cosine"):
        table.add_column(name, justify="left" if name == "contestant" else "right")
    for row in content["first_vectors"]:
        interval = f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f}"
        table.add_row(
            row["name"], f"{row['median']:.2f}", f"{row['times_as_long']:.2f}", interval, f"{row['cosine']:.4f}"
        )
    console.print(table)
    for aim in content["aims_in_words"]:
        console.print(aim)


def main(
    import_rounds: Annotated[int, typer.Option(help="Rounds of fresh interpreters that only import.")] = 40,
    rounds: Annotated[int, typer.Option(help="Counted rounds of first vectors.")] = 9,
    only: Annotated[str, typer.Option(help="Beside plain transformers, only contestants whose name holds this.")] = "",
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    even_if_busy: Annotated[bool, typer.Option("--even-if-busy", help="Measure though others compute.")] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure imports and first vectors, and write the tables."""
    load = require_quiet(Console(stderr=True), even_if_busy=even_if_busy)
    interleave(list(IMPORTS), 1, lambda name: run_import(IMPORTS[name]))
    imports = interleave(list(IMPORTS), import_rounds, lambda name: run_import(IMPORTS[name]))
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as temporary:
        model = full_checkpoint(Path(temporary) / "model", seed=seed)
        cache = hub_cache(Path(temporary) / "cache", model)
        seconds, cosines = first_vectors(model, cache, rounds=rounds, only=only)
    machine = facts(load=load, model=MODEL, import_rounds=import_rounds, rounds=rounds, seed=seed)
    content = report(imports, costly_imports("import f2rag"), seconds, cosines, machine)
    if json_only:
        print(json.dumps(content))
        return
    write("startup", content, as_markdown(content))
    show(content)


if __name__ == "__main__":
    typer.run(main)
