"""A network of its own for programs that change one, as containers do when they start.

Every address that comes or goes makes Chromium give up all requests that wait for a connection, those to loopback too
(``net::ERR_NETWORK_CHANGED``): tests in a browser that run meanwhile would see blank pages.

The tests themselves stay where they are, with all threads of theirs. This file, run as a program, lives in the new
network, and hands on what reaches the ports that it was given from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

_READY = "ready\n"


@contextlib.contextmanager
def own_network(*ports: int) -> Iterator[tuple[str, ...]]:
    """Hold a network that has loopback alone; a test is skipped where that cannot be had.

    Args:
        ports: Of its loopback; they are reached from here under the same numbers.

    Yields:
        What a command begins with that shall run there.
    """
    if absent := [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]:
        pytest.skip(f"a network of its own takes {', '.join(absent)} (Debian: iproute2, util-linux)")
    with contextlib.ExitStack() as stack:
        here = [stack.enter_context(socket.create_server(("127.0.0.1", port))) for port in ports]
        numbers = [each.fileno() for each in here]
        holder = subprocess.Popen(
            ["unshare", "--net", "--", sys.executable, __file__, *map(str, numbers)],
            pass_fds=numbers, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        stack.enter_context(holder)  # which ends when its standard input does
        assert holder.stdout is not None
        if (told := holder.stdout.readline()).startswith("unshare: "):
            pytest.skip(f"a network of its own takes root's rights: {told}")
        assert told == _READY, told + holder.stdout.read()
        yield (str(shutil.which("nsenter")), f"--net=/proc/{holder.pid}/ns/net")


async def _hold(listening: list[socket.socket]) -> None:
    """Hand on what comes until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    for each in listening:
        await asyncio.start_server(functools.partial(_hand_on, each.getsockname()[1]), sock=each)
    sys.stdout.write(_READY)
    sys.stdout.flush()
    await ended.wait()


async def _hand_on(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        answers, requests = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(requests):
            await asyncio.gather(_copy(reader, requests), _copy(answers, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    asyncio.run(_hold([socket.socket(fileno=int(number)) for number in sys.argv[1:]]))
