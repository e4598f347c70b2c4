"""Loading, indexing and searching Qdrant beside the default paths of LangChain and LlamaIndex: ``make bench-store``.

    load ─► indexed ─► warm ─► recall and time of each query, one after the other ─► memory, disk

Each contestant has a server, or a process, of its own. Recall is measured against an exact search with numpy; a time
counts for nothing without it. Ratios hold on any machine, times only on the one that is named in the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

import f2rag
from benchmarks.store_contestants import WINDOW, Contestant, entries
from benchmarks.store_data import LIMIT, Data, clustered, folder_bytes, multilingual
from f2rag.store.server import Server

RESULTS = Path(__file__).parent / "results"
SERVER = "1.17.0"
UPLOAD_POINTS = 10_000
UPLOAD_ROUNDS = 5
MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one contestant in one mode.

    Attributes:
        memory: MiB of the process that searches, of its own and mapped from files, after the queries.
    """

    home: str
    data: str
    points: int
    name: str
    mode: str
    load_seconds: float
    index_seconds: float
    disk_megabytes: float
    memory: tuple[float, float]
    recall: float
    p50_ms: float
    p95_ms: float


@contextlib.contextmanager
def server() -> Iterator[Any]:
    """A fresh server of the tests' version."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from servers import QdrantServer  # type: ignore[import-not-found,unused-ignore]  # a module of the tests

    binary = Path(os.environ.get("F2RAG_TEST_QDRANT_BINARY", f".venv/qdrant/{SERVER}/qdrant")).resolve()
    if not binary.is_file():
        raise typer.BadParameter(f"There is no Qdrant at {binary}; 'make servers' fetches it.")
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder) / "qdrant"
        copy.write_bytes(binary.read_bytes())
        copy.chmod(0o755)
        running = QdrantServer(copy, Path(folder) / "home").start()
        try:
            yield running
        finally:
            running.remove()


def measure(contestant: Contestant, data: Data, process: psutil.Process, storage: Path) -> list[dict[str, Any]]:
    """Load everything, wait for the index, then ask every query in every mode."""
    started = time.perf_counter()
    contestant.load(data, 0, len(data.documents))
    loaded = time.perf_counter()
    contestant.finish()
    finished = time.perf_counter()
    found = []
    for mode in contestant.modes:
        for vector in data.queries[:50]:
            contestant.search(vector, mode)  # pages, connections and caches are warm from here on
        ids, times = [], []
        for vector in data.queries:
            asked = time.perf_counter()
            ids.append(contestant.search(vector, mode))
            times.append(1e3 * (time.perf_counter() - asked))
        memory = process.memory_info()
        found.append(
            {
                "mode": mode,
                "load_seconds": loaded - started,
                "index_seconds": finished - started,
                "disk_megabytes": folder_bytes(storage) / 1e6,
                "memory": ((memory.rss - memory.shared) / MEBIBYTE, memory.shared / MEBIBYTE),
                "recall": data.recall(ids),
                "p50_ms": float(np.percentile(times, 50)),
                "p95_ms": float(np.percentile(times, 95)),
            }
        )
    return found


def on_server(data: Data, *, level: int, only: str) -> Iterator[Row]:
    """Every contestant of the server, each on a fresh one."""
    for entry in entries(level=level):
        if "server" not in entry.homes or only not in entry.name:
            continue
        with server() as running:
            # f2rag takes gRPC for arrays by itself; the others take what they take by default.
            ours = entry.name.startswith("f2rag")
            location = Server(running.url, grpc_port=running.grpc_port) if ours else running.url
            contestant = entry.make(location, data.documents.shape[1])
            for row in measure(contestant, data, psutil.Process(running.pid), running.folder / "storage"):
                yield Row(home="server", data=data.name, points=len(data.documents), name=entry.name, **row)
            contestant.close()


def in_folder(data: Data, *, level: int, only: str) -> Iterator[Row]:
    """Every contestant of the embedded engine, each in a process of its own, so that its memory can be told apart."""
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as given:
        data.save(Path(given))
        for number, entry in enumerate(entries(level=level)):
            if "folder" in entry.homes and only in entry.name:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rows = pool.apply(_measure_folder, (given, number, level))
                for row in rows:
                    yield Row(home="folder", data=data.name, points=len(data.documents), name=entry.name, **row)


def _measure_folder(given: str, number: int, level: int) -> list[dict[str, Any]]:
    data = Data.load(Path(given))
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as folder:
        contestant = entries(level=level)[number].make(folder, data.documents.shape[1])
        rows = measure(contestant, data, psutil.Process(), Path(folder))
        contestant.close()
    return rows


def uploads(data: Data, *, level: int) -> dict[str, list[float]]:
    """Points per second of f2rag and of both peers, interleaved, each time into a new collection of a fresh server.

    Of f2rag the layout that it plans for such vectors, the funnel, and the one that the peers have, full vectors alone.
    """
    chosen = [entry for entry in entries(level=level) if entry.name.endswith(("→ full", "full vectors", "default"))]
    rates: dict[str, list[float]] = {entry.name: [] for entry in chosen}
    for _ in range(UPLOAD_ROUNDS):
        for entry in chosen:
            with server() as running:
                ours = entry.name.startswith("f2rag")
                location = Server(running.url, grpc_port=running.grpc_port) if ours else running.url
                contestant = entry.make(location, data.documents.shape[1])
                contestant.load(data, 0, WINDOW)  # connections, imports and the first segment
                started = time.perf_counter()
                contestant.load(data, WINDOW, WINDOW + UPLOAD_POINTS)
                rates[entry.name].append(UPLOAD_POINTS / (time.perf_counter() - started))
                contestant.close()
    return rates


def machine_facts(**given: Any) -> dict[str, Any]:
    """What a reader needs to judge the times."""
    packages = ("qdrant-client", "qdrant-edge-py", "langchain-qdrant", "llama-index-vector-stores-qdrant", "numpy")
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "f2rag": f2rag.__version__,
        "qdrant": SERVER,
        **{name: importlib.metadata.version(name) for name in packages},
        **given,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# Qdrant through f2rag and through its peers",
        "",
        "Made by `make bench-store`. Every contestant has a server, or a process, of its own; queries go one after",
        f"the other. Recall is of the {LIMIT} nearest against an exact search with numpy. Ratios hold on any machine,",
        "times only on the one below. Memory is of the searching process, its own and mapped from files (the system",
        "takes the latter back when it needs to); in a folder it holds Python, too.",
        "",
        "## Upload",
        "",
        "| contestant | points per second, each round | rate, langchain-qdrant = 1 |",
        "| --- | --- | ---: |",
    ]
    peer = statistics.median(content["uploads"]["langchain-qdrant, default"])
    lines += [
        f"| {name} | {', '.join(f'{rate:,.0f}' for rate in rates)} | {statistics.median(rates) / peer:.1f} |"
        for name, rates in content["uploads"].items()
    ]
    ours = [statistics.median(content["uploads"][name]) / peer for name in content["uploads"] if "f2rag" in name]
    lines += [
        "",
        "The aim was four times langchain-qdrant's rate; with f2rag's layouts it is "
        f"{' and '.join(f'{ratio:.1f}' for ratio in ours)}.",
        f"Server and client share {content['machine']['cores']} cores. f2rag keeps both busy, so that their sum is the",
        "limit, the server's part being the larger one; with full vectors it also builds the graph meanwhile.",
        "langchain-qdrant waits for one of them at a time.",
    ]
    for home, data, points in dict.fromkeys((row["home"], row["data"], row["points"]) for row in content["rows"]):
        lines += [
            "",
            f"## {points:,} {data} vectors, {'a server' if home == 'server' else 'a folder'}",
            "",
            "| contestant | mode | load s | load + index s | disk MB | memory MiB | recall@10 | p50 ms | p95 ms |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {row['name']} | {row['mode']} | {row['load_seconds']:.0f} | {row['index_seconds']:.0f} | "
            f"{row['disk_megabytes']:,.0f} | {row['memory'][0]:,.0f} + {row['memory'][1]:,.0f} | "
            f"{row['recall']:.3f} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} |"
            for row in content["rows"]
            if (row["home"], row["data"], row["points"]) == (home, data, points)
        ]
    return "\n".join([*lines, "", "```json", json.dumps(content["machine"], indent=1), "```", ""])


def main(
    points: Annotated[int, typer.Option(help="Clustered vectors, in a folder and on a server.")] = 100_000,
    large: Annotated[
        int, typer.Option(help="Clustered vectors for f2rag's funnel and int8 on a server; 0 for none.")
    ] = 0,
    dimensions: Annotated[int, typer.Option(help="Width of the clustered vectors.")] = 1024,
    level: Annotated[int, typer.Option(help="Prefix that the funnel stores.")] = 128,
    queries: Annotated[int, typer.Option(help="Queries of each mode.")] = 200,
    seed: Annotated[int, typer.Option(help="Of vectors and queries.")] = 0,
    only: Annotated[str, typer.Option(help="Only contestants whose name holds this.")] = "",
    home: Annotated[str, typer.Option(help="server, folder or both.")] = "both",
    uploads_only: Annotated[
        bool, typer.Option("--uploads-only", help="Measure uploads again, and keep the other results.")
    ] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure the store beside langchain-qdrant and llama-index's Qdrant store, and write the table."""
    console = Console(stderr=True)
    if uploads_only:
        data = clustered(WINDOW + UPLOAD_POINTS, dimensions, queries=1, seed=seed)
        content = json.loads((RESULTS / "store_speed.json").read_text(encoding="utf-8"))
        _report({**content, "uploads": uploads(data, level=level)}, json_only=json_only)
        return
    rows: list[Row] = []

    def add(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            console.print(f"{row.home:7} {row.points:,} {row.data} {row.name}, {row.mode}: recall {row.recall:.3f}")

    corpus = multilingual(queries=queries, seed=seed)
    add(in_folder(corpus, level=64, only=only or "f2rag"))
    del corpus
    data = clustered(points, dimensions, queries=queries, seed=seed)
    rates = uploads(data, level=level)
    if home in ("both", "folder"):
        add(in_folder(data, level=level, only=only))
    if home in ("both", "server"):
        add(on_server(data, level=level, only=only))
    if large:
        del data
        data = clustered(large, dimensions, queries=queries, seed=seed)
        for name in ("funnel", "int8"):
            add(on_server(data, level=level, only=name))
    content = {
        "uploads": rates,
        "rows": [dataclasses.asdict(row) for row in rows],
        "machine": machine_facts(dimensions=dimensions, queries=queries, seed=seed, upload_points=UPLOAD_POINTS),
    }
    _report(content, json_only=json_only)


def _report(content: dict[str, Any], *, json_only: bool) -> None:
    """Print the result, and write its files unless only JSON was asked for."""
    if json_only:
        print(json.dumps(content))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "store_speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "store_speed.md").write_text(as_markdown(content), encoding="utf-8")
    _show(content)


def _show(content: dict[str, Any]) -> None:
    table = Table(title="Qdrant through f2rag and through its peers")
    for name in ("home", "points", "contestant", "mode"):
        table.add_column(name)
    for name in ("load + index s", "disk MB", "recall@10", "p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    for row in content["rows"]:
        table.add_row(
            row["home"],
            f"{row['points']:,} {row['data']}",
            row["name"],
            row["mode"],
            f"{row['index_seconds']:.0f}",
            f"{row['disk_megabytes']:,.0f}",
            f"{row['recall']:.3f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
