"""Short batches replayed from recorded graphs; a recorder that runs again on the same tensors stands for CUDA's."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from f2rag.checkpoint import read_checkpoint
from f2rag.device import DevicePlan
from f2rag.forward import FastForward
from f2rag.graphs import GraphedForward, shape_for
from f2rag.loading import load_model
from f2rag.models import resolve
from f2rag.testing import write_checkpoint

PLAN = DevicePlan(device="cpu", dtype="float32", token_budget=1024, reason="test")


class Recorder:
    """As CUDA graphs do, the replay reads and writes the places that it was recorded with."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, function):
        self.recorded += 1
        result = function().clone()

        def replay() -> torch.Tensor:
            self.replayed += 1
            result.copy_(function())
            return result

        return replay


@pytest.fixture(scope="module")
def fast(tmp_path_factory) -> FastForward:
    folder = write_checkpoint(tmp_path_factory.mktemp("graphs"), model="80M")
    return FastForward(load_model(read_checkpoint(resolve(folder), folder), PLAN), device="cpu", pad_id=0)


def graphed(fast: FastForward, recorder) -> GraphedForward:
    return GraphedForward(fast, device="cpu", pad_id=0, tolerance=1e-5, recorder=recorder)


def queries(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 250, size=length) for length in lengths]


@torch.inference_mode()
def states(forward, ids) -> np.ndarray:
    return forward.states(ids).numpy()


class TestGraphedForward:
    @pytest.mark.parametrize("lengths", [(5,), (16,), (17,), (30, 9, 12), tuple(range(1, 33)), (128,)])
    def test_replays_are_what_is_computed_without(self, fast, lengths):
        recorder = Recorder()
        forward = graphed(fast, recorder)
        for seed in range(4):
            ids = queries(*lengths, seed=seed)
            np.testing.assert_allclose(states(forward, ids), states(fast, ids), atol=2e-5)
        assert recorder.recorded == 1
        # Once to check the recording, and for each batch from the second on.
        assert recorder.replayed == 4

    def test_a_result_survives_the_next_replay(self, fast):
        forward = graphed(fast, Recorder())
        for seed in range(2):
            states(forward, queries(8, seed=seed))
        with torch.inference_mode():
            first = forward.states(queries(8, seed=3))
            kept = first.clone()
            forward.states(queries(8, seed=4))
        assert torch.equal(first, kept)

    def test_larger_batches_are_never_recorded(self, fast):
        recorder = Recorder()
        forward = graphed(fast, recorder)
        for _ in range(3):
            states(forward, queries(*[4] * 33))
            states(forward, queries(129))
        assert recorder.recorded == 0

    def test_a_graph_that_computes_something_else_is_not_used(self, fast, caplog):
        def wrong(function):
            result = function().clone() * 1.1
            return lambda: result

        forward = graphed(fast, wrong)
        with caplog.at_level(logging.WARNING):
            for seed in range(3):
                ids = queries(8, seed=seed)
                np.testing.assert_array_equal(states(forward, ids), states(fast, ids))
        assert caplog.text.count("is not used") == 1

    def test_a_device_that_cannot_record_goes_on_without(self, fast, caplog):
        def refuse(function):
            raise RuntimeError("operation not permitted when stream is capturing")

        forward = graphed(fast, refuse)
        with caplog.at_level(logging.WARNING):
            for seed in range(3):
                ids = queries(8, seed=seed)
                np.testing.assert_array_equal(states(forward, ids), states(fast, ids))
        assert caplog.text.count("not permitted") == 1


def test_a_batch_is_filled_up_to_the_next_shape():
    assert shape_for(rows=1, width=16) == (1, 16)
    assert shape_for(rows=3, width=33) == (4, 48)
    assert shape_for(rows=32, width=128) == (32, 128)
    assert shape_for(rows=33, width=1) is None
    assert shape_for(rows=1, width=129) is None
