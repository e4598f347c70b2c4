"""One model that is split over several devices of this machine, behind the interface of one.

For a model that no single card can hold: each device has some of the attention heads and a part of every MLP, by the
tensor-parallel plan of transformers, which needs one process per device. This file starts those processes
(``f2rag.parallel_worker``), hands them batches and makes sure that none outlives this process, waits for ever or is
asked again after a failure. Nothing here knows text or dimensions, and nothing here computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from f2rag.checkpoint import weight_files
from f2rag.device import ROUNDING
from f2rag.errors import DeviceError, EncoderClosedError, F2RagError
from f2rag.packing import pad
from f2rag.parallel_worker import BACKENDS, Part, Work

if TYPE_CHECKING:
    from f2rag.checkpoint import Checkpoint
    from f2rag.device import DevicePlan
    from f2rag.tokenizer import TokenIds
    from f2rag.types import FloatMatrix

logger = logging.getLogger(__name__)

_START_SECONDS = 900.0
"""Until all processes have loaded: 28 GB come from a slow disk in five minutes."""

_BATCH_SECONDS = 600.0
"""Until a batch is back; one of 16,384 tokens takes seconds on two cards."""

_END_SECONDS = 5.0
"""Until a process that was asked to end is killed."""

_CAUSE_SECONDS = 1.0
"""Until a failure is taken for a process's own: the connections of one that dies are closed before its end is known."""

_POLL_SECONDS = 0.01


class ParallelForward:
    """The forward pass of a model that is split over several devices.

    May be called from many threads; one batch is computed at a time. After a failure the processes are ended, because
    those that did not fail may wait for the one that did; the next call starts them again.

    Args:
        checkpoint: The files.
        plan: The dtype; its device is not looked at.
        devices: One process each: distinct CUDA devices, or ``"cpu"`` several times.
        pad_id: What fills the rows behind their EOS.
        start_seconds: How long loading may take.
        batch_seconds: How long a batch may take.

    Attributes:
        self_test_difference: Largest difference of the mask-free forward from the masked one at load, over all devices.
        uses_fast_forward: Whether it is small enough for the mask-free one to be used.

    Raises:
        DeviceError: The model cannot be split that way, a device is absent, or a process ends or takes too long.
        ModelLoadError: As from ``load_model``.
        OutOfMemoryError: A part of the weights does not fit on its device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: DevicePlan,
        devices: Sequence[str],
        *,
        pad_id: int,
        start_seconds: float = _START_SECONDS,
        batch_seconds: float = _BATCH_SECONDS,
    ) -> None:
        check_split(checkpoint.config, devices)
        _check_present(devices)
        weight_files(checkpoint.folder)
        self._checkpoint, self._plan, self._devices = checkpoint, plan, tuple(devices)
        self._pad_id, self._start_seconds, self._batch_seconds = pad_id, start_seconds, batch_seconds
        self._computing = threading.Lock()
        self._closed = False
        self._processes: _Processes | None = None
        self.self_test_difference = 0.0
        self.uses_fast_forward = True
        self._start()

    def states(self, ids: Sequence[TokenIds]) -> FloatMatrix:
        """Final-norm hidden state of the last token of each text.

        Args:
            ids: One int64 array per text, ending in the EOS.

        Returns:
            float32 (rows, native dimensions).

        Raises:
            OutOfMemoryError: The batch does not fit on one of the devices.
            DeviceError: A process ended, failed or took too long.
            EncoderClosedError: After ``close``.
        """
        packing = pad(ids, pad_id=self._pad_id)
        padded, last = packing.ids.reshape(packing.rows, packing.width), packing.lengths - 1
        try:
            with self._computing:
                return self._compute(padded, last)
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """End the processes, after the batch that runs; may be called twice and in any thread.

        Waits for no batch: then the call that computes it ends them.
        """
        self._closed = True
        if self._computing.acquire(blocking=False):
            try:
                self._end(kill=False)
            finally:
                self._computing.release()

    def _compute(self, ids: TokenIds, last: TokenIds) -> FloatMatrix:
        if self._closed:
            message = f"The encoder of {self._checkpoint.name} was closed. Make a new one."
            raise EncoderClosedError(message)
        if self._processes is None or self._processes.owner != os.getpid():  # a forked child loads for itself
            self._start()
        assert self._processes is not None
        try:
            work = Work(ids=ids, last=last, stock=not self.uses_fast_forward)
            states: FloatMatrix = self._processes.ask(work, seconds=self._batch_seconds)[0]
        except BaseException:
            self._end(kill=True)
            raise
        return states

    def _start(self) -> None:
        self._processes = _Processes(self._devices)
        try:
            differences = self._processes.load(
                self._checkpoint, self._plan, start_seconds=self._start_seconds, batch_seconds=self._batch_seconds
            )
        except BaseException:
            self._end(kill=True)
            raise
        self.self_test_difference = max(differences)
        self.uses_fast_forward = self.self_test_difference <= ROUNDING[self._plan.dtype]
        if not self.uses_fast_forward:
            logger.warning(
                "On %s the forward without a mask differs from the one with it by %.1e (at most %.1e is rounding); "
                "using the slower one with it. Please report your torch and transformers versions.",
                *(", ".join(self._devices), self.self_test_difference, ROUNDING[self._plan.dtype]),
            )

    def _end(self, *, kill: bool) -> None:
        if self._processes is not None:
            self._processes.end(kill=kill)
            self._processes = None


def check_split(config: Mapping[str, Any], devices: Sequence[str]) -> None:
    """Check that a model can be split over so many devices.

    Args:
        config: Of the checkpoint.
        devices: At least two.

    Raises:
        DeviceError: Heads or MLP columns do not divide evenly.
    """
    keys = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    most = int(config["num_key_value_heads"])
    fitting = [n for n in range(2, most + 1) if not any(int(config[key]) % n for key in keys)]
    if len(devices) not in fitting:
        shown = ", ".join(map(str, fitting)) or "none but one"
        message = (
            f"{len(devices)} devices were given ({', '.join(devices)}); this model has "
            f"{config['num_attention_heads']} attention heads, {most} key-value heads and MLPs of "
            f"{config['intermediate_size']}, which split evenly over these numbers of devices: {shown}."
        )
        raise DeviceError(message)


def _check_present(devices: Sequence[str]) -> None:
    import torch

    kind = torch.device(devices[0]).type
    if kind == "cuda" and max(torch.device(device).index or 0 for device in devices) >= torch.cuda.device_count():
        message = (
            f"{', '.join(devices)} were given; this machine has {torch.cuda.device_count()} CUDA devices that torch "
            "can use. Name devices that it has, or use a smaller model on one."
        )
        raise DeviceError(message)
    joined = torch.distributed.is_available() and torch.distributed.is_backend_available(BACKENDS[kind])
    # transformers splits over an Apple GPU where there is one, and refuses to.
    if not joined or torch.backends.mps.is_available():
        message = (
            f"{', '.join(devices)} were given; torch {torch.__version__} cannot split a model on this machine. "
            f"On Linux the usual builds, which have {BACKENDS[kind]}, can; elsewhere use one device."
        )
        raise DeviceError(message)


class _Processes:
    """One process per device, from their start to their end; used for one question at a time."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._running: list[_Running] = []
        # Also when it is dropped without a word, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _end, self._running, os.getpid(), kill=False)
        self.owner = os.getpid()
        try:
            for rank in range(len(self._devices)):
                self._running.append(_Running(self._devices, rank, self._answers))
        except OSError as error:
            self.end(kill=True)
            message = f"No process could be started for {self._devices[rank]} ({error}). Use one device."
            raise DeviceError(message) from error

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(running.process.pid for running in self._running)

    def load(
        self, checkpoint: Checkpoint, plan: DevicePlan, *, start_seconds: float, batch_seconds: float
    ) -> list[float]:
        """Load the model; returns each process's difference in the self-test."""
        import torch

        deadline = time.monotonic() + start_seconds
        count = len(self._devices)
        for rank, (running, device) in enumerate(zip(self._running, self._devices, strict=True)):
            part = Part(
                checkpoint=checkpoint,
                plan=dataclasses.replace(plan, device=device),
                rank=rank,
                count=count,
                threads=max(torch.get_num_threads() // count, 1),
                seconds=max(start_seconds, batch_seconds),
            )
            running.requests.put(part)
        port = self._collect([0], deadline=deadline)[0]
        for running in self._running[1:]:
            running.requests.put(port)
        return self._collect(range(count), deadline=deadline)

    def ask(self, what: object, *, seconds: float) -> list[Any]:
        """Tell all the same thing; returns their answers in the order of the devices."""
        deadline = time.monotonic() + seconds
        for running in self._running:
            running.requests.put(what)
        return self._collect(range(len(self._running)), deadline=deadline)

    def end(self, *, kill: bool) -> None:
        """End the processes and wait until they are gone, a few seconds at most."""
        self._finalizer.detach()
        _end(self._running, os.getpid(), kill=kill)

    def _collect(self, ranks: Sequence[int], *, deadline: float) -> list[Any]:
        found: dict[int, Any] = {}
        while len(found) < len(ranks):
            try:
                rank, answer = self._answers.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                raise self._late([rank for rank in ranks if rank not in found]) from None
            if answer is None:
                raise self._lost(rank)
            if isinstance(answer, DeviceError) and (ended := self._first_ended(seconds=_CAUSE_SECONDS)) is not None:
                raise self._lost(ended) from answer  # a process that lost the other tells of its connection only
            if isinstance(answer, F2RagError):
                raise answer
            found[rank] = answer
        return [found[rank] for rank in ranks]

    def _late(self, ranks: Sequence[int]) -> DeviceError:
        message = (
            f"No answer came in time from {', '.join(self._devices[rank] for rank in ranks)}, over which the model is "
            "split. If two cards cannot reach each other's memory, set NCCL_P2P_DISABLE=1; or use one device."
        )
        return DeviceError(message)

    def _first_ended(self, *, seconds: float) -> int | None:
        """The rank of a process that has ended by itself, or does so within that time."""
        deadline = time.monotonic() + seconds
        while True:
            for rank, running in enumerate(self._running):
                if running.process.poll() is not None:
                    return rank
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)

    def _lost(self, rank: int) -> DeviceError:
        try:
            code = self._running[rank].process.wait(timeout=_END_SECONDS)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        except subprocess.TimeoutExpired:
            how = "closed its pipe"
        message = (
            f"The process that computes on {self._devices[rank]} ({rank + 1} of {len(self._devices)}) {how}. "
            "The next call loads the model again. If this machine ran out of memory, use a smaller model."
        )
        return DeviceError(message)


class _Running:
    """A process and the two threads that keep its pipes moving, so that no full pipe can stop the caller."""

    def __init__(self, devices: Sequence[str], rank: int, answers: queue.SimpleQueue[tuple[int, Any]]) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Not multiprocessing's spawn, which runs the caller's script again, and that script may have no main guard.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from f2rag.parallel_worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # buffers have locks, which a forked child would inherit locked
            env=_environment(devices, rank),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        _pipes.update((self.process.stdin, self.process.stdout))
        for target, arguments in (
            (_write, (self.process.stdin, self.requests)),
            (_read, (self.process.stdout, rank, answers)),
        ):
            threading.Thread(target=target, args=arguments, name=f"f2rag-{devices[rank]}", daemon=True).start()


def _environment(devices: Sequence[str], rank: int) -> dict[str, str]:
    device, _, index = devices[rank].partition(":")
    environment = {
        **os.environ,
        # The child finds the same packages as this process, however that came by them.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # Read by transformers, which takes LOCAL_RANK for the number of the card.
        "RANK": str(rank),
        "LOCAL_RANK": index if device == "cuda" else str(rank),
        "WORLD_SIZE": str(len(devices)),
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # or transformers would take the cards
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:  # all devices are in this machine: nobody outside needs to reach the processes
        environment["GLOO_SOCKET_IFNAME"] = environment["NCCL_SOCKET_IFNAME"] = loopback
    return environment


def _write(pipe: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    # A process that is gone is noticed by the reader.
    with contextlib.suppress(OSError), pipe, open(pipe.fileno(), "wb", closefd=False) as stream:
        while (request := requests.get()) is not None:
            pickle.dump(request, stream)
            stream.flush()


def _read(pipe: IO[bytes], rank: int, answers: queue.SimpleQueue[tuple[int, Any]]) -> None:
    with contextlib.suppress(Exception), pipe, open(pipe.fileno(), "rb", closefd=False) as stream:
        while True:  # until the pipe ends, or what it holds cannot be read
            answers.put((rank, pickle.load(stream)))  # noqa: S301  # from a process that this one started
    answers.put((rank, None))


def _end(processes: Sequence[_Running], owner: int, *, kill: bool) -> None:
    if os.getpid() != owner:  # a forked child: they are its parent's
        return
    for running in processes:
        running.requests.put(None)
    deadline = time.monotonic() + (0.0 if kill else _END_SECONDS)
    for running in processes:
        try:
            running.process.wait(timeout=max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()


_pipes: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _close_after_fork() -> None:
    """In a forked child: let go of the pipes, or the processes would not see their parent end."""
    for pipe in list(_pipes):
        pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_after_fork)
