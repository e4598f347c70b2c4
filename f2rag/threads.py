"""How many threads torch computes with on a CPU, and how they wait for each other.

Three things make a CPU many times slower than it is. More threads than cores: torch counts the machine's cores and not
those that a container may use. Threads that spin while they wait: libgomp lets a thread that is done turn in a loop
until the others are, and if another program wants that core, it takes the time from the very thread that is waited for.
And threads that do not spin at all: to sleep and wake between a forward's hundreds of small steps takes as long as a
short query's products. libgomp stops spinning once it has more threads than there are cores, and it keeps helpers for
each thread that ever computed; so what computes once, like the test of a model at load, does so in a thread that ends.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_OWN_CHOICE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Who sets one of these has chosen the number of threads."""

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Who sets one of these has chosen how threads wait."""

_SPINS = "10000"
"""Turns of a waiting thread before it sleeps: tens of microseconds, longer than most steps of a forward, shorter than
the slice of time that another process gets. Measured on two cores: with 1,000 a short query takes 1.2 to 1.4 times as
long, idle or beside two busy processes; with libgomp's own 300,000 a batch beside two takes 2.6 times as long as with
1,000."""

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_PROCESSORS = Path("/sys/devices/system/cpu")


def import_torch() -> None:
    """Import torch with threads that wait without spinning for long, unless that was chosen already.

    The environment is read once, when torch's OpenMP library is loaded; afterwards it is as it was before.
    """
    if "torch" in sys.modules:
        return
    with _environment("GOMP_SPINCOUNT", _SPINS, unless=_WAITING):
        import torch  # noqa: F401  # loads libgomp


def call_in_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread that ends with it, and with it the helpers that libgomp keeps for the thread.

    Returns:
        What the function returned; what it raised is raised here.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    # A daemon, so that Ctrl-C while a large model is loaded ends the program and not only the wait.
    thread = threading.Thread(target=call, name="f2rag-once", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return results.pop()


def limit_threads() -> int:
    """Lower torch's threads to the cores that this process may use, unless their number was chosen by environment.

    Never raises the number: a program that lowered it knows why.

    Returns:
        Threads that torch uses from now on.
    """
    import torch

    threads = torch.get_num_threads()
    cores = usable_cores()
    if threads > cores and not any(os.environ.get(name) for name in _OWN_CHOICE):
        logger.info("torch was to use %d threads; this process may use %d cores.", threads, cores)
        torch.set_num_threads(cores)
        threads = cores
    return threads


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1: of its affinity, and no more than its container's share."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len({_core_of(processor) for processor in allowed})
    share = container_share()
    return max(min(cores, math.ceil(share)) if share is not None else cores, 1)


def container_share(root: Path = _CONTROL_GROUPS) -> float | None:
    """How many processors the control group grants, e.g. 1.5; ``None`` without a limit.

    Args:
        root: Where control groups are mounted; version 2 has ``cpu.max``, version 1 a folder ``cpu``.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        granted = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        return None if granted <= 0 else granted / int((root / "cpu" / "cpu.cfs_period_us").read_text())
    return None


def _core_of(processor: int) -> str:
    """The core of a logical processor, by the processors that share it; itself where the system does not say."""
    try:
        return (_PROCESSORS / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(processor)


@contextlib.contextmanager
def _environment(name: str, value: str, *, unless: tuple[str, ...]) -> Iterator[None]:
    if any(os.environ.get(other) for other in unless):
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
