"""Arrays to a device and back, on CUDA without making the host wait.

A copy from pageable memory stops the host until the device has caught up, and a plain copy back waits for all that was
queued, also for the batch behind. So ids leave from pinned memory, and results are copied into pinned memory right
behind the forward that made them, with an event that says when they have arrived: meanwhile the next batch is queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from f2rag.types import FloatMatrix


def to_device(array: npt.NDArray[Any], device: str) -> torch.Tensor:
    """Copy an array to a device; on CUDA the call returns before the copy is done, and later work there waits for it.

    Args:
        array: C-contiguous and writable; it may be dropped at once.
        device: As in ``DevicePlan.device``.
    """
    import torch

    tensor = torch.from_numpy(array)
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Arriving:
    """Rows on their way from a CUDA device; the copy is queued behind what makes them.

    Args:
        rows: float32 (n, d) on a CUDA device, perhaps not computed yet. It may be dropped at once.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        import torch

        self._host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        self._host.copy_(rows, non_blocking=True)
        self._event: torch.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # The stream by its device: the event's own default is that of the current device, which may be another.
        self._event.record(torch.cuda.current_stream(rows.device))

    def wait(self) -> FloatMatrix:
        """The rows on the host, once they are there; float32 (n, d)."""
        self._event.synchronize()
        rows: FloatMatrix = self._host.numpy()
        return rows


def from_device(rows: torch.Tensor | FloatMatrix, dimensions: int) -> FloatMatrix | Arriving:
    """Bring the first ``dimensions`` columns of a result to the host; only those are copied.

    Args:
        rows: (n, at least ``dimensions``), a tensor on any device or an array; of any floating dtype.
        dimensions: How many columns are wanted.

    Returns:
        float32 (n, dimensions); from CUDA an ``Arriving``, before the rows are computed.
    """
    if isinstance(rows, np.ndarray):
        return np.asarray(rows[:, :dimensions], dtype=np.float32)
    wanted = rows[:, :dimensions].float()
    if wanted.is_cuda:
        return Arriving(wanted)
    found: FloatMatrix = wanted.cpu().numpy()
    return found
