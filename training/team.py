"""Several one-thread training processes that average their weights every few seconds.

On cores shared with other work this is faster than one process with several threads: threads wait for each other at
every operation, these processes only at every average, and between two averages each makes as many steps as it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn
from torch.multiprocessing.spawn import start_processes

PERIOD = 4.0  # seconds between two averages


class Team:
    """One process's view of its team."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @torch.no_grad()
    def average(self, model: nn.Module, steps: int) -> None:
        """Replaces every parameter by its mean over the team, weighted by the `steps` each member made."""
        if self.size == 1:
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        flat = torch.cat([*(weight.reshape(-1) * steps for weight in weights), torch.tensor([float(steps)])])
        distributed.all_reduce(flat)
        flat /= flat[-1].clone()
        start = 0
        for weight in weights:
            weight.copy_(flat[start : start + weight.numel()].view_as(weight))
            start += weight.numel()

    def until(self, step: Callable[[], float], moment: float) -> list[float]:
        """Makes steps until the clock shows `moment`, at least one; returns their losses."""
        losses = [step()]
        while time.monotonic() < moment:
            losses.append(step())
        return losses

    def agree(self, value: float) -> float:
        """Returns the largest of the team's values, so that all members stop at the same step."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
        return shared.item()


def _member(rank: int, size: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    work(Team(rank, size), *arguments)
    if size > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def run(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Runs `work(team, *arguments)` in `size` processes and waits for them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        start: Callable[..., Any] = start_processes
        start(_member, (size, meeting, work, arguments), nprocs=size)
