"""Torch's threads: no more than the cores that a process may use, and none that spins while another program waits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from f2rag import threads
from f2rag.testing import write_checkpoint

PROGRAM = """
import os, sys
from f2rag.threads import import_torch
import_torch()
assert "torch" in sys.modules
print(os.environ.get("GOMP_SPINCOUNT"))
"""


LOADING = """
import sys, time
from pathlib import Path
import torch
from f2rag.checkpoint import read_checkpoint
from f2rag.device import plan_device
from f2rag.models import resolve
from f2rag.runtime import ModelRuntime
from transformers import Qwen3Model  # starts a thread of its own

def count():
    return len(list(Path("/proc/self/task").iterdir()))

folder = Path(sys.argv[1])
checkpoint, plan = read_checkpoint(resolve(folder), folder), plan_device("cpu", "float32")
before = count()
runtime = ModelRuntime(checkpoint, plan, pad_id=0)
deadline = time.monotonic() + 30
while count() > before and time.monotonic() < deadline:  # a thread is there for a moment after it has ended
    time.sleep(0.01)
loaded = count()
torch.ones(1000, 1000).mul_(2)
print(torch.get_num_threads(), loaded - before, count() - loaded)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts native threads in /proc")
def test_loading_leaves_no_helper_threads_behind(tmp_path):
    folder = write_checkpoint(tmp_path / "model", model="80M", scale=4)
    command = [sys.executable, "-c", LOADING, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    computing, left, kept = map(int, found.stdout.split())
    assert left == 0
    assert kept == computing - 1  # who computes in the main thread, by contrast, keeps every other thread of torch's


class TestCallInThread:
    def test_what_it_returns_is_returned_and_the_thread_has_ended(self):
        thread = threads.call_in_thread(threading.current_thread)
        assert thread is not threading.current_thread()
        assert not thread.is_alive()

    def test_what_it_raises_is_raised_here(self):
        with pytest.raises(ZeroDivisionError):
            threads.call_in_thread(lambda: 1 / 0)


class TestImportTorch:
    def run(self, **environment: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(
            command, env={**kept, **environment}, capture_output=True, text=True, check=True, timeout=120
        ).stdout.strip()

    def test_the_environment_is_as_it_was_afterwards(self):
        assert self.run() == "None"

    def test_what_was_chosen_stays(self):
        assert self.run(GOMP_SPINCOUNT="7") == "7"

    def test_torch_reads_the_spin_count(self, monkeypatch):
        seen = []

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    seen.append(os.environ.get("GOMP_SPINCOUNT"))
                raise ImportError("stop here")

        monkeypatch.delitem(sys.modules, "torch")
        monkeypatch.setattr(sys, "meta_path", [Finder()])
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        with pytest.raises(ImportError):
            threads.import_torch()
        monkeypatch.setenv("OMP_WAIT_POLICY", "active")
        with pytest.raises(ImportError):
            threads.import_torch()
        assert seen == ["10000", None]


class TestLimitThreads:
    @pytest.fixture(autouse=True)
    def four_threads(self, monkeypatch):
        chosen = [4]
        monkeypatch.setattr(torch, "get_num_threads", lambda: chosen[0])
        monkeypatch.setattr(torch, "set_num_threads", lambda number: chosen.__setitem__(0, number))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        return chosen

    def test_more_threads_than_cores_are_lowered(self, monkeypatch):
        monkeypatch.setattr(threads, "usable_cores", lambda: 3)
        assert threads.limit_threads() == 3
        assert torch.get_num_threads() == 3

    def test_fewer_are_left_alone(self, monkeypatch):
        monkeypatch.setattr(threads, "usable_cores", lambda: 16)
        assert threads.limit_threads() == 4

    def test_a_choice_in_the_environment_is_left_alone(self, monkeypatch):
        monkeypatch.setattr(threads, "usable_cores", lambda: 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert threads.limit_threads() == 4


class TestUsableCores:
    def test_siblings_are_one_core(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(threads, "_core_of", lambda processor: str(processor % 2))
        monkeypatch.setattr(threads, "container_share", lambda: None)
        assert threads.usable_cores() == 2

    @pytest.mark.parametrize(("share", "cores"), [(1.5, 2), (0.2, 1), (64.0, 4)])
    def test_a_container_has_its_share(self, monkeypatch, share, cores):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(threads, "_core_of", str)
        monkeypatch.setattr(threads, "container_share", lambda: share)
        assert threads.usable_cores() == cores

    def test_of_this_machine(self):
        assert 1 <= threads.usable_cores() <= (os.cpu_count() or 1)


class TestContainerShare:
    @pytest.mark.parametrize(("text", "share"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("broken", None)])
    def test_version_2(self, tmp_path, text, share):
        (tmp_path / "cpu.max").write_text(text)
        assert threads.container_share(tmp_path) == share

    @pytest.mark.parametrize(("quota", "share"), [("50000", 0.5), ("-1", None)])
    def test_version_1(self, tmp_path, quota, share):
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert threads.container_share(tmp_path) == share

    def test_nothing_mounted(self, tmp_path):
        assert threads.container_share(tmp_path) is None
