"""One loaded model per (model, revision, device, dtype) in a process, and the single worker that feeds the device.

Encoders, and through them every LangChain, LlamaIndex or app object, lease a runtime; the last one to let go frees the
memory. One thread computes, batch by batch, so that a short query waits for one batch of a long job and not for all of
it. Nothing here knows text: token ids go in, vectors come out.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from f2rag.batching import Batch, plan_batches
from f2rag.errors import DeviceError, EncoderClosedError, OutOfMemoryError
from f2rag.forward import (
    SELF_TEST_TOLERANCE,
    last_token_states,
    self_test,
    stock_last_token_states,
)
from f2rag.loading import is_out_of_memory, load_model
from f2rag.vectors import normalize

if TYPE_CHECKING:
    import torch

    from f2rag.checkpoint import Checkpoint
    from f2rag.device import DevicePlan
    from f2rag.tokenizer import TokenIds
    from f2rag.types import FloatMatrix

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Batches that one caller has submitted and not yet collected: enough to keep the worker busy, not more."""


class ModelRuntime:
    """A loaded model and its worker.

    Args:
        checkpoint: The files.
        plan: Device, dtype and token budget.
        pad_id: What fills the rows behind their EOS.
    """

    def __init__(self, checkpoint: Checkpoint, plan: DevicePlan, *, pad_id: int) -> None:
        self.checkpoint = checkpoint
        self.plan = plan
        self.self_test_difference = 0.0
        self.uses_fast_forward = True
        self._pad_id = pad_id
        self._budget_limit: int | None = None
        _prepare_forked_child(plan)
        self._model = load_model(checkpoint, plan)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"f2rag-{plan.device}")
        self._check_forward()

    def compute(self, ids: Sequence[TokenIds], *, dimensions: int, token_budget: int | None = None) -> FloatMatrix:
        """Embed token ids.

        Args:
            ids: One int64 array per text, ending in the EOS.
            dimensions: Output size; the vector is sliced before it is normalised.
            token_budget: Padded tokens per forward; ``None`` takes the plan's.

        Returns:
            float32 (n, dimensions), rows of unit length, in the order of ``ids``.

        Raises:
            OutOfMemoryError: A single text does not fit on the device.
        """
        vectors = np.empty((len(ids), dimensions), dtype=np.float32)
        budget = min(token_budget or self.plan.token_budget, self._budget_limit or np.iinfo(np.int64).max)
        waiting: collections.deque[concurrent.futures.Future[None]] = collections.deque()
        try:
            for batch in plan_batches([len(row) for row in ids], token_budget=budget):
                if len(waiting) == _IN_FLIGHT:
                    waiting.popleft().result()
                waiting.append(self._submit(vectors, batch, ids))
            while waiting:
                waiting.popleft().result()
        except concurrent.futures.CancelledError:
            raise _closed(self.checkpoint.name) from None
        finally:
            for future in waiting:
                future.cancel()
        return vectors

    def close(self) -> None:
        """Take no more work; the batch that runs is finished, and then the weights are freed.

        Does not wait: the garbage collector may call this, in any thread, the worker's own among them.
        """
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _submit(self, vectors: FloatMatrix, batch: Batch, ids: Sequence[TokenIds]) -> concurrent.futures.Future[None]:
        try:
            return self._worker.submit(self._fill, vectors, batch, ids)
        except RuntimeError as error:  # the worker takes no more: closed, or the interpreter ends
            raise _closed(self.checkpoint.name) from error

    def _check_forward(self) -> None:
        self.self_test_difference = self_test(self._model, self.plan)
        tolerance = SELF_TEST_TOLERANCE[self.plan.dtype]
        if self.self_test_difference > tolerance:
            self.uses_fast_forward = False
            logger.warning(
                "The mask-free forward differs from the stock one by %.1e (at most %.1e is rounding) on %s; "
                "using the slower stock forward. Please report your torch and transformers versions.",
                self.self_test_difference,
                tolerance,
                self.plan.describe(),
            )

    def _fill(self, vectors: FloatMatrix, batch: Batch, ids: Sequence[TokenIds]) -> None:
        """Compute one batch into its rows; runs on the worker. Halves the batch for as long as memory is short."""
        pending = [batch]
        while pending:
            part = pending.pop()
            if self._budget_limit is not None and part.padded_tokens > self._budget_limit and len(part.rows) > 1:
                pending.extend(reversed(part.halves() or ()))
                continue
            try:
                vectors[part.rows] = self._forward([ids[row] for row in part.rows], dimensions=vectors.shape[1])
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                halves = part.halves()
                if halves is None:
                    raise _text_too_large(part, self.plan) from error
            # Outside the except block, so that the failed batch's tensors are gone before memory is given back.
            self._back_off(part)
            pending.extend(reversed(halves))

    def _back_off(self, part: Batch) -> None:
        self._budget_limit = min(max(part.padded_tokens // 2, 1), self._budget_limit or part.padded_tokens)
        logger.warning(
            "%s ran out of memory at %d tokens per batch; continuing with %d.",
            self.plan.device,
            part.padded_tokens,
            self._budget_limit,
        )
        if self.plan.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _forward(self, ids: Sequence[TokenIds], *, dimensions: int) -> FloatMatrix:
        import torch

        padded, last = _pad(ids, pad_id=self._pad_id)
        states: Callable[..., torch.Tensor] = last_token_states if self.uses_fast_forward else stock_last_token_states
        with torch.inference_mode():
            rows = states(
                self._model,
                torch.from_numpy(padded).to(self.plan.device, non_blocking=True),
                torch.from_numpy(last).to(self.plan.device, non_blocking=True),
            )
            # Sliced on the device: only what is wanted is copied.
            sliced = rows[:, :dimensions].cpu().numpy()
        return normalize(sliced)


def _pad(ids: Sequence[TokenIds], *, pad_id: int) -> tuple[TokenIds, TokenIds]:
    lengths = np.asarray([len(row) for row in ids])
    padded = np.full((len(ids), int(lengths.max())), pad_id, dtype=np.int64)
    padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = np.concatenate(ids)
    return padded, lengths - 1


def _text_too_large(part: Batch, plan: DevicePlan) -> OutOfMemoryError:
    message = (
        f"A single text of {part.tokens} tokens does not fit into the memory of {plan.device} in {plan.dtype}. "
        "Set a smaller max_length, split the text, or use a smaller model or another device."
    )
    return OutOfMemoryError(message)


def _closed(name: str) -> EncoderClosedError:
    message = f"The encoder of {name} was closed while it worked. Close it after its last call has returned."
    return EncoderClosedError(message)


@dataclasses.dataclass(frozen=True, slots=True)
class RuntimeKey:
    """What two encoders must agree on to share one loaded model."""

    folder: str
    revision: str
    weights: tuple[tuple[str, int, int, int], ...]
    device: str
    dtype: str


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

    if not _forked:
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
