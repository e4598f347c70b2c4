from __future__ import annotations

import numpy as np
import pytest
import torch

from f2rag.transfer import Arriving, from_device, to_device


def test_ids_arrive_unchanged_and_results_come_back_as_float32() -> None:
    ids = np.arange(12, dtype=np.int64)
    assert to_device(ids, "cpu").tolist() == ids.tolist()
    rows = torch.arange(12.0).reshape(3, 4)
    for given in (rows, rows.to(torch.bfloat16), rows.numpy(), rows.numpy().astype(np.float64)):
        found = from_device(given, 2)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert found.tolist() == [[0, 1], [4, 5], [8, 9]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_rows_from_cuda_arrive_behind_what_makes_them() -> None:
    """The factor is computed on the device behind a long queue; the copy must not overtake it."""
    numbers = np.arange(64, dtype=np.int64)
    on_device = to_device(numbers, "cuda:0")
    numbers[:] = -1  # the copy is of what was given
    work = torch.randn(2048, 2048, device="cuda:0")
    for _ in range(50):
        work = torch.tanh(work @ work)
    rows = on_device.float().reshape(8, 8) + 0 * work[:8, :8]
    arriving = from_device(rows, 3)
    assert isinstance(arriving, Arriving)
    later = rows * 2  # queued behind
    assert arriving.wait().tolist() == np.arange(64).reshape(8, 8)[:, :3].tolist()
    assert later.cpu()[0, 1] == 2
