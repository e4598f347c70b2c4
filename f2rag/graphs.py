"""CUDA graphs for short queries: one launch instead of some fifteen hundred.

A short query keeps a GPU busy for a fraction of the time that it takes to launch its kernels one by one. A recorded
graph launches them all at once, but only for the shape that it was recorded with; so a batch is filled up to the next
of a few shapes, and each is recorded when it comes for the second time.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from f2rag.attention import Rows
from f2rag.packing import Packing, pad
from f2rag.transfer import to_device

if TYPE_CHECKING:
    from f2rag.forward import FastForward
    from f2rag.tokenizer import TokenIds

logger = logging.getLogger(__name__)

ROW_COUNTS = (1, 2, 4, 8, 16, 32)
WIDTHS = (16, 32, 48, 64, 96, 128)

Replay = Callable[[], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Replay]
"""Records what a function launches; what it returns launches it again, on the tensors that the function used."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """A recorded shape: where its inputs lie, and what computes them."""

    ids: Tensor
    last: Tensor
    lengths: Tensor
    replay: Replay


class GraphedForward:
    """A fast forward whose small batches are replayed from CUDA graphs.

    Used by one thread at a time. A shape that cannot be recorded, or whose replay differs from what was computed
    without, is computed without from then on.

    Args:
        fast: What is recorded, and computes all that is larger.
        device: A CUDA device.
        pad_id: What fills rows up.
        tolerance: Largest difference of a state that rounding explains, as a part of the largest state.
        recorder: For tests.
    """

    def __init__(
        self, fast: FastForward, *, device: str, pad_id: int, tolerance: float, recorder: Recorder | None = None
    ) -> None:
        self.fast = fast
        self._device = device
        self._pad_id = pad_id
        self._tolerance = tolerance
        self._recorder = recorder or CudaRecorder(device)
        self._records: dict[tuple[int, int], _Record | None] = {}
        self._seen: set[tuple[int, int]] = set()

    def states(self, ids: Sequence[TokenIds]) -> Tensor:
        """See ``FastForward.states``."""
        shape = shape_for(rows=len(ids), width=max(map(len, ids)))
        if shape is None:
            return self.fast.states(ids)
        if shape not in self._seen:
            self._seen.add(shape)
            return self.fast.states(ids)
        packing = pad(ids, pad_id=self._pad_id, rows=shape[0], width=shape[1])
        if shape not in self._records:
            self._records[shape] = self._record(packing)
        record = self._records[shape]
        if record is None:
            return self.fast.states(ids)
        self._fill(record, packing)
        # A copy: the next replay writes into the same place.
        return record.replay()[: len(ids)].clone()

    def _record(self, packing: Packing) -> _Record | None:
        try:
            record = self._recorded(packing)
            expected = self.fast.compute(packing)
            difference = float((record.replay() - expected).abs().max() / expected.abs().max())
        except (RuntimeError, ValueError, NotImplementedError) as error:
            logger.warning("No CUDA graph for %d x %d tokens: %s", packing.rows, packing.width, error)
            return None
        if not difference <= self._tolerance:
            logger.warning(
                "The CUDA graph for %d x %d tokens differs by %.1e from what it recorded and is not used.",
                *(packing.rows, packing.width, difference),
            )
            return None
        return record

    def _recorded(self, packing: Packing) -> _Record:
        self.fast.prepare(packing.width)
        ids, last, lengths, positions = (
            to_device(part, self._device) for part in (packing.ids, packing.last, packing.lengths, packing.positions)
        )
        rows = Rows(packing.rows, packing.width, joined=False, lengths=lengths, expand=None, fold=None)
        replay = self._recorder(lambda: self.fast.compute_on_device(ids, positions, last, rows))
        return _Record(ids, last, lengths, replay)

    def _fill(self, record: _Record, packing: Packing) -> None:
        for target, source in (
            (record.ids, packing.ids),
            (record.last, packing.last),
            (record.lengths, packing.lengths),
        ):
            target.copy_(to_device(source, self._device), non_blocking=True)


class CudaRecorder:
    """Records with ``torch.cuda.CUDAGraph``; all graphs share one pool of memory, since only one runs at a time.

    Args:
        device: Where it records, which need not be torch's current device.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        """Run ``function`` once to warm up and once to record it."""
        with torch.cuda.device(self._device):
            side = _new_stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                function()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate or copy meanwhile; only this one's mistakes are to end the recording.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = function()
        self._pool = self._pool or graph.pool()

        def replay() -> Tensor:
            with torch.cuda.device(self._device):
                graph.replay()
            return result

        return replay


def _new_stream() -> Any:
    # Torch's class has no annotations.
    stream: Any = torch.cuda.Stream
    return stream()


def shape_for(*, rows: int, width: int) -> tuple[int, int] | None:
    """The smallest recorded shape that holds a batch; ``None`` if none does."""
    count = next((count for count in ROW_COUNTS if count >= rows), None)
    tokens = next((tokens for tokens in WIDTHS if tokens >= width), None)
    return None if count is None or tokens is None else (count, tokens)
