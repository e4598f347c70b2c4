"""Stage 2: all layers learn, with word order, starting from the bag.

Every text is pulled to its own target, so a batch needs no pairs: texts are drawn, sorted by length and cut into
batches of about equal length, right-padded without a mask (a causal model never looks to the right). A bank of other
texts' targets serves as negatives beside the batch's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from training import dataset
from training.bag import TEMPERATURE, Report, some_prefixes
from training.dataset import Integers, Sampler, Texts
from training.model import STREAM_SCALE, Shape, StandIn
from training.team import PERIOD, Team


@dataclass(frozen=True)
class Plan:
    """How long and how fast stage 2 trains."""

    minutes: float
    tokens: int = 3072  # per step and process, padding included
    draw: int = 4096  # texts drawn and sorted at a time
    bank: int = 1024  # extra targets used as negatives
    rate: float = 1.2e-3  # of the layers
    table_rate: float = 3e-3  # of the token vectors, whose entries are about 0.3
    prompted: float = 0.25  # share of steps that carry the query prompt
    checkpoint_minutes: float = 4.0
    seed: int = 0


def parameter_groups(model: StandIn, plan: Plan) -> list[dict[str, object]]:
    """Splits parameters by scale: the token table and what adds to its stream move a thousandth as fast."""
    stream: list[nn.Parameter] = []
    layers: list[nn.Parameter] = []
    last = f"layers.{len(model.layers) - 1}."
    for name, weight in model.named_parameters():
        if not name.startswith("embed_tokens"):
            in_stream = name.endswith(("o_proj.weight", "down_proj.weight")) and not name.startswith(last)
            (stream if in_stream else layers).append(weight)
    return [
        {"params": [model.embed_tokens.weight], "peak": plan.table_rate * STREAM_SCALE},
        {"params": stream, "peak": plan.rate * STREAM_SCALE},
        {"params": layers, "peak": plan.rate},
    ]


def batches(texts: Texts, sampler: Sampler, plan: Plan, generator: np.random.Generator) -> Iterator[Integers]:
    """Yields text numbers of about equal length, forever."""
    lengths = texts.lengths()
    while True:
        drawn = sampler.draw(plan.draw)
        drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
        parts, start = [], 0
        while start < len(drawn):
            end = start + 1
            while end < len(drawn) and (end + 1 - start) * lengths[drawn[end]] <= plan.tokens:
                end += 1
            parts.append(drawn[start:end])
            start = end
        for index in generator.permutation(len(parts)):
            yield parts[index]


def padded(texts: Texts, chosen: Integers) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (ids, index of the last token) of right-padded texts; what fills the gap does not matter."""
    rows = [texts.tokens(number) for number in chosen]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(ids), torch.from_numpy(lengths - 1)


def loss_of(
    vectors: torch.Tensor, goal: torch.Tensor, groups: torch.Tensor, bank: torch.Tensor, prefixes: dict[int, float]
) -> torch.Tensor:
    """Every text looks for its target among the batch's and the bank's, and is pulled towards it; mean over prefixes.

    `goal` holds all targets; `groups` and `bank` number those of the batch and the extra negatives.
    """
    owners = torch.cat((groups, bank))
    everyone, total = goal[owners], vectors.new_zeros(())
    labels = torch.arange(len(vectors))
    # The same target elsewhere in the list is no negative.
    same = (owners[None] == groups[:, None]).fill_diagonal_(fill_value=False)
    for size, weight in prefixes.items():
        scores = functional.normalize(vectors[:, :size], dim=-1) @ functional.normalize(everyone[:, :size], dim=-1).T
        found = functional.cross_entropy((scores / TEMPERATURE).masked_fill(same, float("-inf")), labels)
        total = total + weight * (found + (1 - scores.diagonal()).mean())
    return total / sum(prefixes.values())


class Trainer:
    """One process's part of stage 2."""

    def __init__(
        self, model: StandIn, texts: Texts, goal: torch.Tensor, prompt: Integers, plan: Plan, seed: int
    ) -> None:
        self.model, self.texts, self.goal, self.plan = model, texts, goal, plan
        self.optimizer = torch.optim.Adam(parameter_groups(model, plan), lr=0.0, betas=(0.9, 0.98), eps=1e-12)
        self.generator = np.random.default_rng(seed)
        self.source = batches(texts, Sampler(texts, seed=seed + 1), plan, self.generator)
        self.group, self.prompt = torch.from_numpy(texts.group), torch.from_numpy(prompt)
        self.steps, self.tokens = 0, 0

    def step(self, progress: float) -> float:
        """Makes one step; returns the loss."""
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (self.steps + 1) / 100) * decay
        chosen = next(self.source)
        ids, last = padded(self.texts, chosen)
        vectors = self.model(ids, last, self.prompt if self.generator.random() < self.plan.prompted else None)
        bank = torch.from_numpy(self.generator.integers(len(self.goal), size=self.plan.bank))
        groups = self.group[torch.from_numpy(chosen)]
        loss = loss_of(vectors, self.goal, groups, bank, some_prefixes(self.generator))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.steps, self.tokens = self.steps + 1, self.tokens + int(last.sum()) + len(last)
        return loss.item()


def work(
    team: Team,
    data: Path,
    start: Path,
    prompt: Integers,
    shape: Shape,
    plan: Plan,
    report: Report,
    checkpoint: Callable[[StandIn, float], None],
) -> None:
    """Trains all parameters in one process of a team; rank 0 calls `checkpoint` every few minutes and at the end."""
    torch.manual_seed(plan.seed)
    texts, goal = dataset.load(data)
    model = StandIn(shape)
    model.load_state_dict(torch.load(start))
    trainer = Trainer(model, texts, goal, prompt, plan, plan.seed + 100 * team.rank)
    started = noted = saved = time.monotonic()
    progress, losses = 0.0, list[float]()
    while progress < 1:
        before = trainer.steps
        losses += team.until(partial(trainer.step, progress), time.monotonic() + PERIOD)
        team.average(model, trainer.steps - before)
        now = time.monotonic()
        progress = team.agree((now - started) / (60 * plan.minutes))
        if team.rank == 0 and (now - noted > 30 or progress >= 1):
            noted, speed = now, team.size * trainer.tokens / (now - started)
            report(f"attention {progress:.2f} step {trainer.steps} loss {np.mean(losses):.3f} {speed:,.0f} tokens/s")
            losses = []
        if team.rank == 0 and (now - saved > 60 * plan.checkpoint_minutes or progress >= 1):
            saved = now
            checkpoint(model, progress)
