"""One loaded model per (model, revision, device, dtype) in a process, with the scheduler that feeds the device.

Encoders, and through them every LangChain, LlamaIndex or app object, lease a runtime; the last one to let go frees the
memory. Nothing here knows text: token ids go in, vectors come out. Who computes next stands in ``scheduling.py``.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from f2rag.errors import DeviceError
from f2rag.loading import load_model
from f2rag.parallel import ParallelForward
from f2rag.scheduling import Scheduler
from f2rag.threads import call_in_thread, limit_threads
from f2rag.transfer import Arriving, from_device

if TYPE_CHECKING:
    from f2rag.checkpoint import Checkpoint
    from f2rag.device import DevicePlan
    from f2rag.forward import Choice
    from f2rag.tokenizer import TokenIds
    from f2rag.types import FloatMatrix

logger = logging.getLogger(__name__)

_FORWARD_COSTS_CPU = 256
"""Tokens that a forward on a CPU costs beside its own: the weights are read once, small products are less efficient."""

_FORWARD_COSTS_ACCELERATOR = 4096
"""The same on a GPU, where a short forward takes the time of its kernel launches: some milliseconds, or this many."""


class ModelRuntime:
    """A loaded model and its scheduler.

    Args:
        checkpoint: The files.
        plan: Device, dtype and token budget.
        pad_id: What fills the rows behind their EOS.
    """

    def __init__(self, checkpoint: Checkpoint, plan: DevicePlan, *, pad_id: int) -> None:
        self.checkpoint = checkpoint
        self.plan = plan
        _prepare_forked_child(plan)
        if plan.device == "cpu":
            limit_threads()
        self._chosen = call_in_thread(lambda: _load(checkpoint, plan, pad_id=pad_id))
        self._scheduler = Scheduler(
            self._compute,
            name=checkpoint.name,
            device=plan.device,
            padding=_FORWARD_COSTS_CPU if plan.devices[0] == "cpu" else _FORWARD_COSTS_ACCELERATOR,
            on_out_of_memory=self._give_memory_back,
        )

    def submit(
        self, ids: Sequence[TokenIds], *, dimensions: int, token_budget: int | None = None, owner: object = None
    ) -> concurrent.futures.Future[FloatMatrix]:
        """Embed token ids, without waiting; see ``Scheduler.submit``.

        Args:
            ids: One int64 array per text, ending in the EOS; must not change.
            dimensions: Output size; the vector is sliced before it is normalised.
            token_budget: Padded tokens per forward; ``None`` takes the plan's.
            owner: Long calls of one owner have one turn among them.

        Returns:
            A future of float32 (n, dimensions), rows of unit length, in the order of ``ids``.

        Raises:
            EncoderClosedError: The model was let go.
        """
        budget = token_budget or self.plan.token_budget
        return self._scheduler.submit(ids, dimensions=dimensions, token_budget=budget, owner=owner)

    @property
    def self_test_difference(self) -> float:
        """Largest difference of the fast forward from the stock one at load."""
        return self._chosen.difference

    @property
    def uses_fast_forward(self) -> bool:
        """Whether the fast forward passed that test and is in use."""
        return self._chosen.is_fast

    def compile(self) -> str:
        """Compile what can be compiled, once; see ``compilation.py``. Work goes on meanwhile.

        Returns:
            ``"compiled"``, or why not.
        """
        if self._chosen.compilation is None:
            return "not compiled: the fast forward is not in use"
        call_in_thread(self._chosen.compilation.run)
        return self._chosen.compilation.state

    def close(self) -> None:
        """Take no more work; the batch that runs is finished, and then the weights are freed.

        Does not wait: the garbage collector may call this, in any thread, the worker's own among them.
        """
        self._scheduler.close()
        if isinstance(self._chosen.forward, ParallelForward):
            self._chosen.forward.close()

    def _give_memory_back(self) -> None:
        if self.plan.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _compute(self, ids: Sequence[TokenIds], dimensions: int) -> FloatMatrix | Arriving:
        """One batch, on the worker; float32 (rows, dimensions), not normalised."""
        import torch

        with torch.inference_mode():
            rows = from_device(self._chosen.forward.states(ids), dimensions)
        if self._chosen.compilation is not None:
            self._chosen.compilation.count(sum(map(len, ids)))
        return rows


def _load(checkpoint: Checkpoint, plan: DevicePlan, *, pad_id: int) -> Choice:
    # Imported here: it imports torch, and that second is for who loads a model.
    from f2rag.forward import Choice, choose_forward

    if len(plan.devices) > 1:
        split = ParallelForward(checkpoint, plan, plan.devices, pad_id=pad_id)
        return Choice(split, split.self_test_difference, is_fast=split.uses_fast_forward)
    return choose_forward(load_model(checkpoint, plan), plan, pad_id=pad_id)


@dataclasses.dataclass(frozen=True, slots=True)
class RuntimeKey:
    """What two encoders must agree on to share one loaded model."""

    folder: str
    revision: str
    weights: tuple[tuple[str, int, int, int], ...]
    device: str
    dtype: str
    weight_dtype: str | None = None


@dataclasses.dataclass(slots=True)
class _Entry:
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    runtime: ModelRuntime | None = None
    leases: int = 0


_entries: dict[RuntimeKey, _Entry] = {}
# Reentrant: the garbage collector may release one model while this thread is about to lease another.
_entries_lock = threading.RLock()


class Lease:
    """A share in a runtime, which also ends when its owner is garbage-collected without having ended it."""

    def __init__(self, owner: object, key: RuntimeKey, runtime: ModelRuntime) -> None:
        self.runtime = runtime
        self._finalizer = weakref.finalize(owner, release, key)
        self._finalizer.atexit = False

    def end(self) -> None:
        """Give the share back, once; the last one frees the model."""
        self._finalizer()

    def forget(self) -> None:
        """Give nothing back: in a forked child the share is the parent's."""
        self._finalizer.detach()


def lease(key: RuntimeKey, make: Callable[[], ModelRuntime], *, owner: object) -> Lease:
    """Take a share in the runtime of ``key``, loading it with ``make`` if nobody has it yet.

    Two threads that ask for the same model load it once.

    Args:
        key: Which model.
        make: Loads it.
        owner: The share ends with this object at the latest.
    """
    with _entries_lock:
        entry = _entries.setdefault(key, _Entry())
        entry.leases += 1
    try:
        with entry.lock:
            if entry.runtime is None:
                entry.runtime = make()
            return Lease(owner, key, entry.runtime)
    except BaseException:
        release(key)
        raise


def release(key: RuntimeKey) -> None:
    """Give back one share; the last one frees the model."""
    with _entries_lock:
        entry = _entries.get(key)
        if entry is None:  # forked child: the parent's runtimes are not ours
            return
        entry.leases -= 1
        if entry.leases > 0:
            return
        del _entries[key]
    if entry.runtime is not None:
        entry.runtime.close()


def loaded_count() -> int:
    """How many models this process holds."""
    with _entries_lock:
        return sum(entry.runtime is not None for entry in _entries.values())


def _prepare_forked_child(plan: DevicePlan) -> None:
    """Make torch usable in a child that was forked from a process in which it had computed already.

    Raises:
        DeviceError: CUDA cannot be used in such a child.
    """
    import torch

    if not _forked or len(plan.devices) > 1:  # what is split computes in processes of its own
        return
    if plan.device.startswith("cuda"):
        message = (
            "CUDA cannot be used in a forked process. Start processes with the 'spawn' or 'forkserver' method, "
            "or use device='cpu'."
        )
        raise DeviceError(message)
    if torch.get_num_threads() > 1:
        # The OpenMP threads stayed in the parent; waiting for them would never end.
        torch.set_num_threads(1)
        logger.warning("This process was forked: torch computes with one thread. Use 'spawn' for all of them.")


def _forget_after_fork() -> None:
    """A forked child has the parent's memory but none of its threads: it must load for itself."""
    global _entries_lock, _forked
    _entries_lock = threading.RLock()  # the inherited lock may be held by a thread that does not exist here
    _entries.clear()
    _forked = True


_forked = False

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
