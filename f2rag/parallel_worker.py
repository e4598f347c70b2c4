"""One of the processes that together hold a model which is split over several devices.

``f2rag.parallel`` starts one per device, in an interpreter of its own. Each loads its part with transformers'
tensor-parallel plan, every one is given the same token ids, and the first answers with the states. What is said goes
over the process's standard input and output; a closed input means that the parent is gone, and ends the process
wherever it is. Nothing here knows text or dimensions.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pickle
import queue
import signal
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from f2rag.checkpoint import Checkpoint
from f2rag.device import DevicePlan
from f2rag.errors import DeviceError, F2RagError, OutOfMemoryError

if TYPE_CHECKING:
    from transformers import Qwen3Model

    from f2rag.tokenizer import TokenIds
    from f2rag.types import FloatMatrix

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""What processes on such devices are joined with."""

_GRACE_SECONDS = 3.0
"""How long a process may still work when its parent is gone, before it ends in the middle of whatever it does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process is told first.

    Attributes:
        checkpoint: The files.
        plan: dtype, and this process's own device.
        rank: Which of the processes it is, from 0.
        count: How many there are.
        threads: For torch, on a CPU.
        seconds: How long one exchange between the processes may take. The parent waits no longer than that, so this
            only matters if it cannot end them.
    """

    checkpoint: Checkpoint
    plan: DevicePlan
    rank: int
    count: int
    threads: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One batch.

    Attributes:
        ids: int64 (rows, tokens), right-padded.
        last: int64 (rows,), the position of each row's EOS.
        stock: Compute it with transformers' own mask.
    """

    ids: TokenIds
    last: TokenIds
    stock: bool


def main() -> None:
    """Serve the parent until it closes the pipe; never returns."""
    # Ctrl-C reaches every process of a terminal; this one ends with its parent and not before.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _take_pipes()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    part = inbox.get()
    if part is not None:
        _serve(part, inbox, answers)
    os._exit(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep standard input and output for the parent: nothing that a library prints may get in between."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


def _listen(requests: BinaryIO, inbox: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(pickle.load(requests))  # noqa: S301  # from the parent, over a pipe that only it can write to
    except Exception:  # the end of the pipe, or what cannot be read: there is nobody to tell
        inbox.put(None)
        # While it loads, or waits for a process that is no longer there, the main thread does not look.
        time.sleep(_GRACE_SECONDS)
        os._exit(1)


def _serve(part: Part, inbox: queue.SimpleQueue[Any], answers: BinaryIO) -> None:
    def answer(what: object) -> None:
        pickle.dump(what, answers)
        answers.flush()

    try:
        try:
            _work(part, inbox, answer)
        except Exception as error:
            answer(_typed(error, part.plan))
            # The others may still wait for this process: it stays until the parent, which now knows, ends all.
            while inbox.get() is not None:
                pass
    except BrokenPipeError:
        pass


def _work(part: Part, inbox: queue.SimpleQueue[Any], answer: Any) -> None:
    import torch

    from f2rag.loading import load_part

    torch.set_num_threads(part.threads)
    if not _meet(part, inbox, answer):
        return
    split = _tensor_parallel_plan(part.count)
    model = load_part(part.checkpoint, part.plan, split=split, count=part.count)
    answer(_self_test(model, device=part.plan.device))
    while (work := inbox.get()) is not None:
        states = _states(model, work, device=part.plan.device)
        answer(states if part.rank == 0 else True)
    torch.distributed.destroy_process_group()


def _meet(part: Part, inbox: queue.SimpleQueue[Any], answer: Any) -> bool:
    """Join the other processes; the first tells the parent its port, and the parent tells it to the others.

    Returns:
        Whether it did; not if the parent is gone.
    """
    import torch

    device = torch.device(part.plan.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if part.rank == 0:
        # Bound here, because a store that binds for itself listens on all networks.
        listener = socket.create_server(("127.0.0.1", 0), backlog=part.count)
        port = listener.getsockname()[1]
        store = _store(port, part, listen_on=listener.detach())
        answer(port)
    else:
        port = inbox.get()
        if port is None:
            return False
        store = _store(port, part)
    torch.distributed.init_process_group(
        BACKENDS[device.type],
        store=store,
        rank=part.rank,
        world_size=part.count,
        timeout=timedelta(seconds=part.seconds),
        device_id=device if device.type == "cuda" else None,
    )
    return True


def _store(port: int, part: Part, *, listen_on: int | None = None) -> Any:
    import torch

    distributed: Any = torch.distributed  # it does not declare all that it exports
    return distributed.TCPStore(
        "127.0.0.1",
        port,
        part.count,
        is_master=listen_on is not None,
        timeout=timedelta(seconds=part.seconds),
        wait_for_workers=False,
        master_listen_fd=listen_on,
    )


def _tensor_parallel_plan(count: int) -> dict[str, Any]:
    """How this version of transformers is asked for the plan that Qwen3's own config brings."""
    config = importlib.import_module("transformers.distributed").DistributedConfig  # which it exports without a type
    if "tp_plan" in inspect.signature(config).parameters:  # from there on the argument of that name is deprecated
        return {"distributed_config": config(tp_size=count, tp_plan="auto")}
    return {"tp_plan": "auto"}


def _states(model: Qwen3Model, work: Work, *, device: str) -> FloatMatrix:
    """The state of each row's EOS: float32 (rows, native dimensions)."""
    import torch

    ids, last = torch.from_numpy(work.ids).to(device), torch.from_numpy(work.last).to(device)
    # In a causal model no token sees the padding behind it, and without a mask the fast kernels stay available.
    mask: Any = {"full_attention": None}
    if work.stock:
        mask = (torch.arange(ids.shape[1], device=device)[None, :] <= last[:, None]).long()
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        # Copied on every rank, though one is asked for it: the copy waits for the device, so that no failure is missed.
        states: FloatMatrix = hidden[torch.arange(len(ids), device=device), last].float().cpu().numpy()
    return states


def _self_test(model: Qwen3Model, *, device: str) -> float:
    """Largest difference of unit vectors' components between the mask-free and the masked forward; NaN is infinite."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, size=(3, 12))
    last = np.asarray([6, 2, 11])
    fast, stock = (_states(model, Work(ids=ids, last=last, stock=stock), device=device) for stock in (False, True))
    difference = np.abs(_unit(fast) - _unit(stock)).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def _unit(rows: FloatMatrix) -> FloatMatrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _typed(error: Exception, plan: DevicePlan) -> F2RagError:
    from f2rag.loading import is_out_of_memory

    if isinstance(error, F2RagError):
        return error
    if is_out_of_memory(error):
        message = f"{plan.device} ran out of memory. Use a smaller token_budget, or shorter texts."
        return OutOfMemoryError(message)
    message = (
        f"The process that computes on {plan.device} failed ({type(error).__name__}: {error}). "
        "The next call loads the model again; if that fails too, use one device."
    )
    return DeviceError(message)
