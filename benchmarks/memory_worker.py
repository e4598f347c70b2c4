"""What ``memory.py`` runs in processes of their own: one contestant, one workload, and the memory that it took.

    python -m benchmarks.memory_worker '{"what": "encode", ...}'  ─►  lines of JSON, the last of them the result

Imports of a contestant are a part of its memory, so this file imports none of them at its top.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from f2rag.types import FloatMatrix

MEBIBYTE = 2**20
WINDOW = 2048


@dataclasses.dataclass(frozen=True)
class Sample:
    """The memory of this process at one moment.

    Attributes:
        done: Texts, calls or encoders so far.
        rss: MiB that are resident.
        pss: MiB, with what is shared divided by those who share it; 0 where the system does not say.
        native: MiB that C code holds, as the C library counts them; 0 where it does not.
        blocks: Objects of Python that are allocated: exact, where megabytes come in steps.
    """

    done: int
    rss: float
    pss: float
    native: float
    blocks: int


def sample(done: int) -> Sample:
    """Look at this process; garbage in cycles is collected before objects are counted."""
    process = psutil.Process()
    rss = process.memory_info().rss / MEBIBYTE
    pss = float(getattr(process.memory_full_info(), "pss", 0)) / MEBIBYTE
    gc.collect()
    return Sample(done, round(rss, 3), round(pss, 3), round(native_bytes() / MEBIBYTE, 3), sys.getallocatedblocks())


def peak_mebibytes() -> float:
    """The most that was ever resident in this process.

    Not ``ru_maxrss`` where Linux has something better: a child inherits that from the parent that it was forked from.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken / MEBIBYTE if sys.platform == "darwin" else taken / 1024


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of the GNU C library."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def native_bytes() -> int:
    """What the C library has handed out and not got back, in all arenas; 0 where it cannot say."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    function.restype = _Mallinfo2
    info = function()
    return int(info.uordblks) + int(info.hblkhd)


def encode(spec: dict[str, Any]) -> dict[str, Any]:
    """Load a contestant, embed the texts of a workload, and say what it took.

    Args:
        spec: ``contestant`` (``"f2rag"`` or ``"sentence-transformers"``), ``model``, ``texts`` (a JSON file),
            ``max_length``, ``vectors`` (where to save them), and of sentence-transformers ``dtype`` and ``batch_size``.
    """
    embed = _ours(spec) if spec["contestant"] == "f2rag" else _theirs(spec)
    embed(["warm up"])
    loaded = sample(0)
    loading_peak = peak_mebibytes()
    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    started = time.perf_counter()
    vectors = embed(texts)
    seconds = time.perf_counter() - started
    peak = peak_mebibytes()
    import numpy as np

    np.save(spec["vectors"], vectors)
    return {
        "seconds": round(seconds, 3),
        "loaded": loaded.rss,
        "loading_peak": round(loading_peak, 3),
        "peak": round(peak, 3),
    }


def _ours(spec: dict[str, Any]) -> Callable[[list[str]], FloatMatrix]:
    from f2rag import F2LLMEncoder

    encoder = F2LLMEncoder(spec["model"], max_length=spec["max_length"], on_overflow="truncate")
    return encoder.embed_documents


def _theirs(spec: dict[str, Any]) -> Callable[[list[str]], FloatMatrix]:
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = (
        {} if spec["dtype"] is None else {"model_kwargs": {"dtype": getattr(torch, spec["dtype"])}}
    )
    model = SentenceTransformer(spec["model"], **options)
    model.max_seq_length = spec["max_length"]
    batch = {} if spec["batch_size"] is None else {"batch_size": spec["batch_size"]}
    return lambda texts: np.asarray(
        model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False, **batch), dtype=np.float32
    )


def stream(spec: dict[str, Any]) -> Iterator[int]:
    """``iter_documents`` over different short texts; yields how many are done."""
    from benchmarks.material import short_texts
    from f2rag import F2LLMEncoder

    done, kept = 0, []
    with F2LLMEncoder(spec["model"], on_overflow="truncate") as encoder:
        for vectors in encoder.iter_documents(short_texts(spec["count"]), window=WINDOW):
            done += len(vectors)
            if spec["leak"]:
                kept.append(bytearray(b"x") * (spec["leak"] * len(vectors)))
            yield done


def calls(spec: dict[str, Any]) -> Iterator[int]:
    """One query and one document with a line too many in each call, as a service gets them; yields how many are done.

    Some documents are too long, so that whatever is kept of warnings shows.
    """
    import warnings

    from benchmarks.material import short_texts
    from f2rag import F2LLMEncoder

    kept = []
    warnings.simplefilter("default")
    with F2LLMEncoder(spec["model"], max_length=64, on_overflow="warn") as encoder:
        for done, text in enumerate(short_texts(spec["count"]), start=1):
            encoder.embed_query(text)
            encoder.embed_documents([text if done % 4 else text * (8 + done % 1000)])
            if spec["leak"]:
                kept.append(bytearray(b"x") * spec["leak"])
            yield done


def lifetimes(spec: dict[str, Any]) -> Iterator[int]:
    """An encoder that is opened, used and closed, again and again; yields how many there were."""
    from f2rag import F2LLMEncoder

    kept = []
    for done in range(1, spec["count"] + 1):
        with F2LLMEncoder(spec["model"]) as encoder:
            encoder.embed_query(f"query {done}")
        if spec["leak"]:
            kept.append(bytearray(b"x") * spec["leak"])
        yield done


ENDLESS: dict[str, Callable[[dict[str, Any]], Iterator[int]]] = {
    "stream": stream,
    "calls": calls,
    "lifetimes": lifetimes,
}
"""What may go on for ever, and must not grow."""


def watch(steps: Iterator[int], *, every: int, report: Callable[[Sample], object]) -> float:
    """Go through the steps and report the memory every so many; returns the seconds it took, looking included."""
    started = time.perf_counter()
    due = every
    for done in steps:
        if done >= due:
            report(sample(done))
            due = done + every
    return time.perf_counter() - started


def main() -> None:
    """Do what the argument says, and print it."""
    spec = json.loads(sys.argv[1])
    if spec["what"] == "encode":
        print(json.dumps(encode(spec)), flush=True)
        return
    seconds = watch(
        ENDLESS[spec["what"]](spec),
        every=spec["every"],
        report=lambda seen: print(json.dumps(dataclasses.asdict(seen)), flush=True),
    )
    print(json.dumps({"seconds": round(seconds, 2), "peak": round(peak_mebibytes(), 3)}), flush=True)


if __name__ == "__main__":
    main()
