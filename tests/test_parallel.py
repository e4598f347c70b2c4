from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

from f2rag.checkpoint import Checkpoint, read_checkpoint
from f2rag.device import DevicePlan
from f2rag.errors import (
    CorruptCheckpointError,
    DeviceError,
    EncoderClosedError,
    ModelNotFoundError,
    OutOfMemoryError,
)
from f2rag.models import resolve
from f2rag.parallel import ParallelForward, check_split
from f2rag.testing import write_checkpoint

# Each start is two new interpreters that import torch and transformers, on machines that may have two busy cores.
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch cannot join processes"),
]

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, or limits another process's memory")
TWO = ("cpu", "cpu")


def checkpoint_in(folder: Path) -> Checkpoint:
    return read_checkpoint(resolve(folder), folder)


def plan(dtype: str = "float32") -> DevicePlan:
    return DevicePlan(device="cpu,cpu", dtype=dtype, token_budget=2048, reason="a test")


def batch(checkpoint: Checkpoint, lengths: list[int], *, seed: int = 0) -> list[np.ndarray]:
    """Random token ids of texts of these lengths."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, checkpoint.config["vocab_size"], size=length) for length in lengths]


def stock_states(checkpoint: Checkpoint, ids: list[np.ndarray]) -> np.ndarray:
    """One text at a time through the whole model in float32, as transformers computes it: no padding, no mask."""
    model = Qwen3Model.from_pretrained(
        checkpoint.folder, config=Qwen3Config(**checkpoint.config), dtype=torch.float32, attn_implementation="sdpa"
    )
    with torch.inference_mode():
        rows = [model(torch.from_numpy(row)[None]).last_hidden_state[0, -1] for row in ids]
    return torch.stack(rows).numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def wait_until_gone(processes: tuple[int, ...] | list[int], *, seconds: float = 60) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def eight_heads(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A random model with 8 key-value heads, as all published sizes have, of which each of two processes gets 4."""
    folder = write_checkpoint(tmp_path_factory.mktemp("parallel") / "model", model="14B", scale=32)
    changes = {"num_attention_heads": 40, "num_key_value_heads": 8}
    config = {**checkpoint_in(folder).config, **changes}
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) / tensor.shape[-1] ** 0.5
        if tensor.ndim == 2
        else 1 + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in Qwen3Model(Qwen3Config(**config)).state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return dataclasses.replace(checkpoint_in(folder), config=config)


@pytest.fixture(scope="module")
def forward(eight_heads: Checkpoint) -> Iterator[ParallelForward]:
    """Two processes on the CPU; the tests that end them leave it to the next call to start them again."""
    made = ParallelForward(eight_heads, plan(), TWO, pad_id=0)
    yield made
    made.close()


def processes_of(forward: ParallelForward) -> tuple[int, ...]:
    assert forward._processes is not None
    return forward._processes.ids


@pytest.mark.parametrize("lengths", [[1], [33, 4, 1, 20], [7] * 9, [300, 2]])
def test_two_processes_compute_what_one_does(
    forward: ParallelForward, eight_heads: Checkpoint, lengths: list[int]
) -> None:
    ids = batch(eight_heads, lengths, seed=len(lengths))
    found = forward.states(ids)
    assert (found.dtype, found.shape) == (np.float32, (len(lengths), eight_heads.hidden_size))
    assert np.abs(unit(found) - unit(stock_states(eight_heads, ids))).max() < 1e-5
    assert forward.uses_fast_forward
    assert forward.self_test_difference < 1e-5
    forward.uses_fast_forward = False
    try:
        masked = forward.states(ids)
    finally:
        forward.uses_fast_forward = True
    assert np.abs(unit(found) - unit(masked)).max() < 1e-5


@pytest.mark.parametrize(("model", "dtype", "tolerance"), [("80M", "float32", 1e-5), ("0.6B", "bfloat16", 3e-2)])
def test_other_shapes_and_dtypes(tmp_path: Path, model: str, dtype: str, tolerance: float) -> None:
    checkpoint = checkpoint_in(write_checkpoint(tmp_path / "model", model=model))
    ids = batch(checkpoint, [12, 5, 40])
    forward = ParallelForward(checkpoint, plan(dtype), TWO, pad_id=0)
    started = processes_of(forward)
    found = forward.states(ids)
    assert np.abs(unit(found) - unit(stock_states(checkpoint, ids))).max() < tolerance
    # Dropped and not closed: the processes end with it.
    del forward
    gc.collect()
    assert wait_until_gone(started) == []


@linux
def test_each_process_holds_a_part_and_is_reachable_from_this_machine_only(
    forward: ParallelForward, eight_heads: Checkpoint
) -> None:
    forward.states(batch(eight_heads, [3]))
    opened = [entry for process in processes_of(forward) for entry in Path(f"/proc/{process}/fd").iterdir()]
    names = {str(entry.readlink()) for entry in opened if entry.is_symlink()}
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in names
    ]
    assert listening
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}


def test_a_killed_process_is_an_error_at_once_and_the_next_call_starts_anew(
    forward: ParallelForward, eight_heads: Checkpoint
) -> None:
    ids = batch(eight_heads, [9, 2])
    expected = forward.states(ids)
    before = processes_of(forward)
    os.kill(before[1], signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"computes on cpu \(2 of 2\) was killed by signal 9"):
        forward.states(ids)
    assert time.monotonic() - started < forward._batch_seconds / 10  # noticed, not waited for
    assert wait_until_gone(before) == []
    np.testing.assert_array_equal(forward.states(ids), expected)
    assert set(processes_of(forward)).isdisjoint(before)


def test_a_killed_process_is_named_also_when_the_other_is_heard_first(
    forward: ParallelForward, eight_heads: Checkpoint
) -> None:
    ids = batch(eight_heads, [9, 2])
    forward.states(ids)
    assert forward._processes is not None
    broken = DeviceError("The process that computes on cpu failed (RuntimeError: Connection reset by peer).")
    forward._processes._answers.put((0, broken))
    os.kill(processes_of(forward)[1], signal.SIGKILL)
    with pytest.raises(DeviceError, match=r"computes on cpu \(2 of 2\) was killed by signal 9") as raised:
        forward.states(ids)
    assert raised.value.__cause__ is broken


@linux
def test_a_process_that_stands_still_is_an_error_after_the_deadline(
    forward: ParallelForward, eight_heads: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward.states(batch(eight_heads, [9, 2]))
    stopped = processes_of(forward)
    monkeypatch.setattr(forward, "_batch_seconds", 3.0)
    os.kill(stopped[0], signal.SIGSTOP)
    # Larger than a pipe holds: writing it may not wait for the process either.
    with pytest.raises(DeviceError, match="No answer came in time from cpu, cpu"):
        forward.states(batch(eight_heads, [3000] * 10))
    assert wait_until_gone(stopped) == []


@linux
def test_too_little_memory_is_told_from_other_failures(forward: ParallelForward, eight_heads: Checkpoint) -> None:
    ids = batch(eight_heads, [5, 8])
    expected = forward.states(ids)
    before = processes_of(forward)
    used = int(Path(f"/proc/{before[1]}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(before[1], resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    # "out of memory" is what the runtime looks for before it halves a batch.
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        forward.states(batch(eight_heads, [2500] * 80))
    assert wait_until_gone(before) == []
    np.testing.assert_array_equal(forward.states(ids), expected)


def test_what_fails_while_all_processes_live_comes_back_with_its_reason(
    forward: ParallelForward, eight_heads: Checkpoint
) -> None:
    ids = batch(eight_heads, [4])
    expected = forward.states(ids)
    with pytest.raises(DeviceError, match=r"computes on cpu failed .*index 4 is out of bounds"):
        forward._compute(np.zeros((1, 4), dtype=np.int64), np.asarray([4]))
    np.testing.assert_array_equal(forward.states(ids), expected)


def test_close_lets_the_running_batch_end_and_refuses_the_next(eight_heads: Checkpoint) -> None:
    forward = ParallelForward(eight_heads, plan(), TWO, pad_id=0)
    ids = batch(eight_heads, [2000] * 4)
    started = processes_of(forward)
    found: list[Any] = []
    worker = threading.Thread(target=lambda: found.append(forward.states(ids)))
    worker.start()
    while not forward._computing.locked() and not found:
        time.sleep(0.001)
    forward.close()
    worker.join()
    assert len(found) == 1
    assert np.isfinite(found[0]).all()
    assert wait_until_gone(started) == []
    with pytest.raises(EncoderClosedError):
        forward.states(ids)
    forward.close()


@linux
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "pass"])
def test_no_process_outlives_its_parent(eight_heads: Checkpoint, tmp_path: Path, end: str) -> None:
    # No main guard, a forked child that still sleeps when its parent ends, and nothing closed.
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import os, pickle, sys, time, pathlib
checkpoint, plan = pickle.loads({_pickled(eight_heads)!r})
from f2rag.parallel import ParallelForward
forward = ParallelForward(checkpoint, plan, ("cpu", "cpu"), pad_id=0)
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(120)
    os._exit(0)
print(*forward._processes.ids, child, flush=True)
{end}
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=500, check=False, env=_environment())
    *workers, child = map(int, done.stdout.split())
    try:
        assert len(workers) == 2
        assert wait_until_gone(workers) == []
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def _pickled(checkpoint: Checkpoint) -> bytes:
    return pickle.dumps((checkpoint, plan()))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_fork_leaves_the_parents_processes_alone(forward: ParallelForward, eight_heads: Checkpoint) -> None:
    ids = batch(eight_heads, [6, 3])
    expected = forward.states(ids)
    before = processes_of(forward)
    child = os.fork()
    if child == 0:
        forward.close()
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.5)
    np.testing.assert_array_equal(forward.states(ids), expected)
    assert processes_of(forward) == before


def test_loading_takes_no_longer_than_allowed(eight_heads: Checkpoint) -> None:
    with pytest.raises(DeviceError, match="No answer came in time"):
        ParallelForward(eight_heads, plan(), TWO, pad_id=0, start_seconds=0.2)


def test_weights_that_do_not_fit_are_refused_as_on_one_device(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", model="80M")
    tensors = load_file(folder / "model.safetensors")
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptCheckpointError, match="1 tensors are missing"):
        ParallelForward(checkpoint_in(folder), plan(), TWO, pad_id=0)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError):
        ParallelForward(checkpoint_in(folder), plan(), TWO, pad_id=0)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_heads_must_divide(eight_heads: Checkpoint, count: int) -> None:
    check_split(eight_heads.config, ("cpu",) * 4)
    with pytest.raises(
        DeviceError, match=rf"{count} devices were given .*40 attention heads, 8 key-value .*: 2, 4, 8\."
    ):
        check_split(eight_heads.config, ("cpu",) * count)


def test_cards_that_are_not_there_are_refused(eight_heads: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="this machine has 1 CUDA devices"):
        ParallelForward(eight_heads, plan(), ("cuda:0", "cuda:1"), pad_id=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: name != "nccl")
    with pytest.raises(DeviceError, match=r"cannot split a model on this machine.*nccl"):
        ParallelForward(eight_heads, plan(), ("cuda:0", "cuda:1"), pad_id=0)
