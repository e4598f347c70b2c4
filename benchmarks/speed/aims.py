"""What the results are held against, where this kind of machine is the one that an aim was set for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from benchmarks.measuring import Aim
from benchmarks.speed.contestants import LIMIT

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """An aim before anything was measured.

    Attributes:
        what: In words; the contestant that f2rag is compared with, or what is bounded.
        device: Kind of device it was set for.
        sizes: Models it was set for.
        workloads: By letter.
        bound: Of the value.
        of: Gives the value with its interval out of a workload's rows, or ``None`` where it was not measured.
        kind: On which side of the bound the value should be.
        masked: Whether it was set for a CPU without AMX and AVX-512.
        of_times: Whether the value is a contestant's time divided by f2rag's, so that the limit's time bounds it.
    """

    what: str
    device: str
    sizes: tuple[str, ...]
    workloads: tuple[str, ...]
    bound: float
    of: Callable[[Row], Sequence[float] | None]
    kind: Literal["at least", "at most"] = "at least"
    masked: bool = False
    of_times: bool = False


def _row(workload: Row, key: str) -> Row | None:
    return next((row for row in workload["rows"] if row["key"] == key and "ratio" in row), None)


def times_as_long(key: str) -> Callable[[Row], Sequence[float] | None]:
    """How many times as long as f2rag a contestant takes."""

    def of(workload: Row) -> Sequence[float] | None:
        row = _row(workload, key)
        return None if row is None else list(row["ratio"])

    return of


def fastest_engine(workload: Row) -> Sequence[float] | None:
    """The same of the fastest engine besides torch that computes in f2rag's dtype or in float32."""
    ours = _row(workload, "f2rag")
    if ours is None:
        return None
    engines = [
        row["ratio"]
        for row in workload["rows"]
        if row["key"].startswith(("openvino", "onnx", "llama-cpp"))
        and "ratio" in row
        and row["dtype"] in {ours["dtype"], "float32"}
    ]
    return min(engines, default=None)


def limit_share(workload: Row) -> Sequence[float] | None:
    """What share of the machine's limit f2rag reaches: the larger of the shape's time and the tokenizer's."""
    found = workload.get("limit_share")
    return None if found is None else list(found)


def memory_against(key: str) -> Callable[[Row], Sequence[float] | None]:
    """F2rag's peak memory, the contestant's = 1."""

    def of(workload: Row) -> Sequence[float] | None:
        ours, theirs = _row(workload, "f2rag"), _row(workload, key)
        if ours is None or theirs is None or not theirs["peak_mib"]:
            return None
        share = ours["peak_mib"] / theirs["peak_mib"]
        return [share, share, share]

    return of


_MET = ("P", "M")
_TUNED = "sentence-transformers, best tuned"
_COMPILED = "sentence-transformers, best tuned and compiled"
_LIMIT = "share of the machine's limit for the shape"


def _time(what: str, key: str, bound: float, device: str, sizes: tuple[str, ...], workloads: tuple[str, ...]) -> Wanted:
    said = f"times as fast as {what}"
    return Wanted(
        what=said, device=device, sizes=sizes, workloads=workloads, bound=bound, of=times_as_long(key), of_times=True
    )


WANTED: tuple[Wanted, ...] = (
    _time("langchain-huggingface, default", "langchain-huggingface", 10, "cpu", ("80M",), _MET),
    _time("llama-index-embeddings-huggingface, default", "llama-index-huggingface", 8, "cpu", ("80M",), _MET),
    _time(_TUNED, "st-tuned", 5, "cpu", ("80M",), _MET),
    _time(_COMPILED, "st-compiled", 2, "cpu", ("80M",), _MET),
    Wanted(
        what="times as fast as the fastest of OpenVINO, ONNX and llama.cpp at equal precision",
        device="cpu",
        sizes=("80M",),
        workloads=_MET,
        bound=1,
        of=fastest_engine,
        of_times=True,
    ),
    Wanted(what=_LIMIT, device="cpu", sizes=("80M",), workloads=_MET, bound=0.5, of=limit_share),
    dataclasses.replace(_time(_TUNED, "st-tuned", 1.5, "cpu", ("80M",), _MET), masked=True),
    *(
        Wanted(
            what=f"peak memory, {_TUNED} = 1",
            device=device,
            sizes=("80M", "0.6B"),
            workloads=("M", "D"),
            bound=1.2,
            kind="at most",
            of=memory_against("st-tuned"),
        )
        for device in ("cpu", "cuda")
    ),
    _time(_TUNED, "st-tuned", 1.8, "cuda", ("0.6B",), ("P",)),
    _time(_COMPILED, "st-compiled", 1.1, "cuda", ("0.6B",), ("P",)),
    _time(_TUNED, "st-tuned", 2.2, "cuda", ("0.6B",), ("M",)),
    _time(_TUNED, "st-tuned", 2.5, "cuda", ("80M",), ("P",)),
    _time(_TUNED, "st-tuned", 1.25, "cuda", ("8B",), ("P",)),
    Wanted(what=_LIMIT, device="cuda", sizes=("0.6B",), workloads=("P",), bound=0.65, of=limit_share),
    Wanted(what=_LIMIT, device="cuda", sizes=("8B",), workloads=("P",), bound=0.8, of=limit_share),
)
"""The aims of the issue that asked for this benchmark."""

LATENCY_AIM = 5.0
"""How many times as long as f2rag tuned sentence-transformers takes for one short query on a GPU, 80M to 0.6B."""


def applies(run: Row) -> bool:
    """Whether the machine is of the kind that the aims for a CPU were set for: one that computes bfloat16."""
    flags = run["machine"]["flags"]
    return run["device"] != "cpu" or run["avx2"] or "amx_bf16" in flags or "avx512_bf16" in flags


def judged(run: Row) -> Iterator[dict[str, Any]]:
    """Every aim that this run measured something for, with the value, its interval, and whether it is met."""
    if run["shrunk"]:
        return
    for size in run["sizes"]:
        for workload in size["workloads"]:
            for wanted in WANTED:
                fits = wanted.device == run["device"].split(":", 1)[0] and wanted.masked == run["avx2"]
                if not fits or size["size"] not in wanted.sizes or workload["key"] not in wanted.workloads:
                    continue
                found = wanted.of(workload)
                if found is not None:
                    judgement = _judge(wanted, found, where=f"{size['size']} {workload['key']}", holds=applies(run))
                    yield {**judgement, "at_limit": at_limit(workload, found[0]) if wanted.of_times else None}
    yield from _judged_latency(run)


def at_limit(workload: Row, value: float) -> float | None:
    """What the ratio would be if f2rag took only the time of the shape's own products and attention."""
    limit = _row(workload, LIMIT)
    return None if limit is None else round(value / limit["ratio"][0], 3)


def _judged_latency(run: Row) -> Iterator[dict[str, Any]]:
    if not run["device"].startswith("cuda"):
        return
    for size in run["sizes"]:
        for row in size.get("latency", ()):
            if (
                size["size"] in ("80M", "0.6B")
                and row["key"] == "st-tuned"
                and row["callers"] == 1
                and "p50_ratio" in row
            ):
                aim = Aim(
                    what=f"one short query, p50, {_TUNED}",
                    value=row["p50_ratio"][0],
                    bound=LATENCY_AIM,
                    kind="at least",
                )
                more = {"interval": row["p50_ratio"][1:], "applies": True, "at_limit": None}
                yield {**aim.as_json(), "where": size["size"], **more}


def _judge(wanted: Wanted, found: Sequence[float], *, where: str, holds: bool) -> dict[str, Any]:
    aim = Aim(what=wanted.what, value=found[0], bound=wanted.bound, kind=wanted.kind)
    return {**aim.as_json(), "where": where, "interval": list(found[1:]), "applies": holds}
