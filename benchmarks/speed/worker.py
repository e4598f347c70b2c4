"""A contestant in a process of its own, which answers requests over its standard input and output.

A process each, since threads, dtypes, allocators and even virtual environments of contestants must not touch each
other, and since only so the memory of each can be told. What a library prints goes to standard error.

A message is two big-endian 32-bit lengths, a JSON object, and float32 numbers (rows, columns) where it has any.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_LENGTHS = struct.Struct(">II")


def send(stream: BinaryIO, message: dict[str, Any], numbers: bytes = b"") -> None:
    """Write one message."""
    text = json.dumps(message).encode()
    stream.write(_LENGTHS.pack(len(text), len(numbers)) + text + numbers)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Raises:
        EOFError: The other side is gone.
    """
    text, numbers = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    message: dict[str, Any] = json.loads(_exactly(stream, text))
    return message, _exactly(stream, numbers)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError
    return found


class Worker:
    """What the process holds between requests: the contestant, and texts by name.

    Args:
        started: When the process began, by the wall clock.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._made: Any = None
        self._device = "cpu"
        self._texts: dict[str, tuple[list[str], str]] = {}

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Do what is asked; the name of the method is in ``do``."""
        asked: Callable[..., tuple[dict[str, Any], bytes]] = getattr(self, f"do_{request.pop('do')}")
        return asked(**request)

    def do_modules(self, names: list[str]) -> tuple[dict[str, Any], bytes]:
        """Which of these modules this Python has, with versions of the distributions that are asked for beside them."""
        return {"found": [name for name in names if _has(name)]}, b""

    def do_versions(self, names: list[str]) -> tuple[dict[str, Any], bytes]:
        """Versions of installed distributions."""
        from importlib import metadata

        found = {}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {"versions": found}, b""

    def do_free_memory(self, device: str) -> tuple[dict[str, Any], bytes]:
        """Bytes that a GPU has left."""
        import torch

        return {"bytes": torch.cuda.mem_get_info(device)[0]}, b""

    def do_make(self, maker: str, settings: dict[str, Any], first: str) -> tuple[dict[str, Any], bytes]:
        """Make the contestant and embed one short text: from the start of the process to its vector."""
        from benchmarks.speed.contestants import make

        self._device = str(settings.get("device", "cpu"))
        self._made = make(maker, settings)
        made = time.time()
        if self._made.prepare is None:
            self._made.documents([first], None)
        now = time.time()
        return {
            "facts": self._made.facts,
            "first_vector_seconds": now - self._started,
            "first_call_seconds": now - made,
        }, b""

    def do_texts(self, name: str, texts: list[str], lengths: list[int], role: str) -> tuple[dict[str, Any], bytes]:
        """Remember texts, so that no round waits for a pipe."""
        self._texts[name] = (texts, role)
        prepared = {} if self._made.prepare is None else self._made.prepare(lengths)
        return {"prepared": prepared}, b""

    def do_embed(self, name: str, batch_size: int | None, rows: list[int] | None) -> tuple[dict[str, Any], bytes]:
        """Embed the texts of a name; the clock runs until the package has given back what it gives back.

        The vectors of ``rows`` come with the answer, outside of the time.
        """
        import numpy as np

        from benchmarks.speed import memory

        texts, role = self._texts[name]
        embed = self._made.queries if role == "query" else self._made.documents
        reset = memory.reset_peak(self._device)
        started = time.perf_counter()
        found = embed(texts, batch_size)
        seconds = time.perf_counter() - started
        said = {"seconds": seconds, "peak_bytes": memory.peak_bytes(self._device), "peak_is_of_this_call": reset}
        if rows is None:
            return said, b""
        chosen = np.stack([np.asarray(found[row], dtype=np.float32) for row in rows])
        return {**said, "shape": list(chosen.shape)}, chosen.tobytes()

    def do_latency(self, name: str, callers: int, first: int, count: int) -> tuple[dict[str, Any], bytes]:
        """Answer single queries for so many concurrent callers; milliseconds of each, seconds of all."""
        texts, _ = self._texts[name]
        chosen = [texts[(first + row) % len(texts)] for row in range(count)]
        if callers == 1:
            times, total = _one_after_the_other(lambda text: self._made.queries([text], None), chosen)
        else:
            times, total = asyncio.run(self._concurrently(chosen, callers))
        return {"milliseconds": times, "seconds": total}, b""

    async def _concurrently(self, texts: Sequence[str], callers: int) -> tuple[list[float], float]:
        async def ask(text: str) -> Any:
            if self._made.aquery is not None:
                return await self._made.aquery(text)
            return await asyncio.to_thread(self._made.queries, [text], None)

        waiting = iter(texts)
        times: list[float] = []

        async def call() -> None:
            for text in waiting:  # all callers take from one iterator
                asked = time.perf_counter()
                await ask(text)
                times.append(1e3 * (time.perf_counter() - asked))

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return times, time.perf_counter() - started


def _one_after_the_other(ask: Callable[[str], Any], texts: Sequence[str]) -> tuple[list[float], float]:
    times = []
    started = time.perf_counter()
    for text in texts:
        asked = time.perf_counter()
        ask(text)
        times.append(1e3 * (time.perf_counter() - asked))
    return times, time.perf_counter() - started


def _has(name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent package is missing, or is no package
        return False


def _process_start() -> float:
    """When this process began, by the wall clock; now, where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except (OSError, IndexError, ValueError):
        return time.time()
    return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    sys.stdout = sys.stderr
    worker = Worker(_process_start())
    while True:
        try:
            request, _ = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            message, numbers = worker.answer(request)
        except Exception as error:  # a contestant may fail in any way; the parent decides what that means
            traceback.print_exc()
            message, numbers = {"error": f"{type(error).__name__}: {error}"}, b""
        send(answers, message, numbers)


if __name__ == "__main__":
    main()
