"""A network of its own for a test that changes one.

Every address that comes or goes makes Chromium give up all requests that wait for a connection, those to loopback too
(``net::ERR_NETWORK_CHANGED``): containers that start beside the tests in a browser would leave them blank pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
"""From ``linux/sched.h``; Python has ``os.unshare`` and ``os.setns`` from 3.12 on only."""


@contextlib.contextmanager
def own_network() -> Iterator[Path]:
    """Let this thread, and every program that it starts meanwhile, see a network that holds loopback alone.

    Threads that are there already stay where they are. The test is skipped where this cannot be had.

    Yields:
        The file by which other programs may enter it (``nsenter --net=FILE``).
    """
    if absent := [name for name in ("ip", "nsenter") if shutil.which(name) is None]:
        pytest.skip(f"a network of its own takes {' and '.join(absent)} (Debian: iproute2, util-linux)")
    here = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    kernel = ctypes.CDLL(None, use_errno=True)
    with Path(here).open() as before:
        if kernel.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"a network of its own takes root's rights: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield Path(here)
        finally:
            if kernel.setns(before.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
