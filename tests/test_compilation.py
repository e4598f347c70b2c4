"""Compiled parts of a layer: only when they pay, only if they compute the same, and never in the way."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch

from f2rag import F2LLMEncoder, compilation, layers
from f2rag.checkpoint import read_checkpoint
from f2rag.compilation import Compilation
from f2rag.device import DevicePlan
from f2rag.forward import choose_forward
from f2rag.loading import load_model
from f2rag.models import resolve
from f2rag.testing import write_checkpoint


def plan(dtype: str) -> DevicePlan:
    return DevicePlan(device="cpu", dtype=dtype, token_budget=1024, reason="test")


@pytest.fixture
def load(tmp_path):
    folder = write_checkpoint(tmp_path, model="80M")

    def make(dtype: str = "float32"):
        return choose_forward(load_model(read_checkpoint(resolve(folder), folder), plan(dtype)), plan(dtype), pad_id=0)

    return make


@pytest.fixture
def fake_compiler(monkeypatch):
    """Stands for the compiler, which takes a minute: its functions count their calls."""
    calls: list[str] = []

    def compiled(function, *, dynamic):
        assert dynamic

        def counted(*parts):
            calls.append(function.__name__)
            return function(*parts)

        return counted

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(compilation, "what_lacks", lambda device: None)
    return calls


TEXTS = [np.arange(1, length) for length in (9, 4, 20)]


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "f2rag-compile":
            thread.join(timeout=60)


class TestCompilation:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler about torch itself
    @pytest.mark.skipif(compilation.what_lacks("cpu") is not None, reason="no C++ compiler (Debian: g++)")
    def test_the_real_compiler_computes_the_same(self, load):
        choice = load()
        with torch.inference_mode():
            before = choice.forward.states(TEXTS)
            assert choice.compilation.run(), choice.compilation.state
            after = choice.forward.states(TEXTS)
        assert choice.forward.project is not layers.project
        torch.testing.assert_close(after, before, atol=2e-5, rtol=0)

    def test_it_begins_when_enough_was_computed(self, load, fake_compiler, monkeypatch):
        monkeypatch.setattr(compilation, "_PAYS_AFTER_CPU", 100)
        monkeypatch.setattr(compilation, "cpu_has_amx", lambda: True)
        choice = load("bfloat16")
        choice.compilation.count(99)
        assert choice.compilation.state == "not compiled"
        choice.compilation.count(1)
        wait_for_threads()
        assert choice.compilation.state == "compiled"
        choice.compilation.count(1000)
        fake_compiler.clear()
        with torch.inference_mode():
            choice.forward.states(TEXTS)
        assert set(fake_compiler) == {"project", "finish"}

    @pytest.mark.parametrize(("dtype", "amx"), [("float32", True), ("bfloat16", False)])
    def test_where_it_gains_nothing_it_is_not_compiled_unasked(self, load, fake_compiler, monkeypatch, dtype, amx):
        monkeypatch.setattr(compilation, "cpu_has_amx", lambda: amx)
        choice = load(dtype)
        choice.compilation.count(10**12)
        wait_for_threads()
        assert choice.compilation.state == "not compiled"

    def test_what_computes_something_else_is_not_used(self, load, fake_compiler, monkeypatch, caplog):
        monkeypatch.setattr(torch, "compile", lambda function, *, dynamic: lambda *parts: wrong(function(*parts)))

        def wrong(result):
            return result * 1.5 if isinstance(result, torch.Tensor) else result

        choice = load()
        with caplog.at_level(logging.WARNING):
            assert not choice.compilation.run()
        assert "is not used" in caplog.text
        assert choice.forward.project is layers.project

    def test_a_compiler_that_fails_is_survived(self, load, fake_compiler, monkeypatch, caplog):
        def fails(function, *, dynamic):
            raise ZeroDivisionError("inside the compiler")

        monkeypatch.setattr(torch, "compile", fails)
        choice = load()
        with caplog.at_level(logging.WARNING):
            assert not choice.compilation.run()
        assert "inside the compiler" in caplog.text

    def test_without_a_compiler_it_says_what_lacks(self, load, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda name: None)
        choice = load()
        assert not choice.compilation.run()
        assert "g++" in choice.compilation.state

    def test_it_runs_once(self, load, fake_compiler):
        made = []
        choice = load()
        inner = choice.compilation
        counted = Compilation(
            inner._fast, plan("float32"), difference=lambda trial: made.append(trial) or 0.0, tolerance=1e-5
        )
        threads = [threading.Thread(target=counted.run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1


def test_an_encoder_compiles_when_asked(tmp_path, fake_compiler):
    with F2LLMEncoder(write_checkpoint(tmp_path, model="80M")) as encoder:
        before = encoder.embed_documents(["one", "two words"])
        assert encoder.compile() == "compiled"
        fake_compiler.clear()
        np.testing.assert_allclose(encoder.embed_documents(["one", "two words"]), before, atol=1e-6)
        assert fake_compiler
