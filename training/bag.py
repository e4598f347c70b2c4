"""Stage 1: token vectors whose plain average already means something. Minutes on two cores.

The bag computes exactly what the untrained layers of `model.StandIn` compute, more than ten times faster. Every text
looks for the teacher's vector among those of its batch, over the Matryoshka prefixes; in a quarter of the steps
translations also look for each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional

from training import dataset
from training.dataset import Integers, Sampler, Texts, pair_index
from training.model import STREAM_SCALE, Shape, StandIn
from training.team import PERIOD, Team

#: Matryoshka prefixes and their weights in the loss.
PREFIXES = {256: 1.0, 128: 0.8, 64: 0.8, 32: 0.6, 16: 0.4, 8: 0.1}
TEMPERATURE = 0.05
Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how fast stage 1 trains."""

    minutes: float
    batch: int = 2048
    rate: float = 0.02  # of the token vectors, whose entries are about 0.3
    prompted: float = 0.15  # share of texts behind the query prompt
    aligned: float = 0.25  # share of steps that also align translations
    seed: int = 0


def some_prefixes(generator: np.random.Generator, count: int = 2) -> dict[int, float]:
    """Returns the full width and `count` random shorter prefixes: the same loss on average as all of them, cheaper."""
    shorter = [size for size in PREFIXES if size != 256]
    weights = np.array([PREFIXES[size] for size in shorter])
    drawn = generator.choice(shorter, size=count, replace=False, p=weights / weights.sum())
    return {256: 1.0} | {int(size): weights.sum() / count for size in drawn}


def contrast(left: torch.Tensor, right: torch.Tensor, prefixes: dict[int, float], *, pull: float) -> torch.Tensor:
    """Row i of `left` looks for row i of `right`; plus `pull` times one minus their cosine; mean over prefixes."""
    labels, total = torch.arange(len(left)), left.new_zeros(())
    for size, weight in prefixes.items():
        scores = functional.normalize(left[:, :size], dim=-1) @ functional.normalize(right[:, :size], dim=-1).T
        total = total + weight * functional.cross_entropy(scores / TEMPERATURE, labels)
        if pull:
            total = total + weight * pull * (1 - scores.diagonal()).mean()
    return total / sum(prefixes.values())


def flat(
    texts: Texts, chosen: Integers, prompt: Integers, prompted: npt.NDArray[np.bool_]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenates the chosen texts' ids, with the query prompt before those marked in `prompted`."""
    rows = [texts.tokens(number) for number in chosen]
    rows = [np.concatenate((prompt, row)) if mark else row for row, mark in zip(rows, prompted, strict=True)]
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])[:-1]))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(offsets)


class Partners:
    """Finds, for each text, another text with the same target."""

    def __init__(self, texts: Texts, *, seed: int) -> None:
        self.order, self.starts = pair_index(texts)
        self.group = texts.group
        self.generator = np.random.default_rng(seed)

    def of(self, chosen: Integers) -> Integers:
        """Returns one random text of the same target for each text (possibly itself, when it is alone)."""
        start, end = self.starts[self.group[chosen]], self.starts[self.group[chosen] + 1]
        found: Integers = self.order[start + (self.generator.random(len(chosen)) * (end - start)).astype(np.int64)]
        return found


class Trainer:
    """One process's part of stage 1."""

    def __init__(
        self, model: StandIn, texts: Texts, goal: torch.Tensor, prompt: Integers, plan: Plan, seed: int
    ) -> None:
        self.model, self.texts, self.goal, self.prompt, self.plan = model, texts, goal, prompt, plan
        self.optimizer = torch.optim.Adam([model.embed_tokens.weight], betas=(0.9, 0.98), eps=1e-12)
        self.sampler, self.partners = Sampler(texts, seed=seed), Partners(texts, seed=seed + 1)
        self.generator = np.random.default_rng(seed + 2)
        self.steps, self.tokens = 0, 0

    def step(self, progress: float) -> float:
        """Makes one step; returns the loss."""
        decay = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
        self.optimizer.param_groups[0]["lr"] = self.plan.rate * STREAM_SCALE * min(1.0, (self.steps + 1) / 50) * decay
        chosen = self.sampler.draw(self.plan.batch)
        chosen = chosen[np.unique(self.texts.group[chosen], return_index=True)[1]]
        count, everything = len(chosen), chosen
        align = self.generator.random() < self.plan.aligned
        if align:
            everything = np.concatenate((chosen, self.partners.of(chosen)))
        prompted = (np.arange(len(everything)) < count) & (self.generator.random(len(everything)) < self.plan.prompted)
        ids, offsets = flat(self.texts, everything, self.prompt, prompted)
        vectors, prefixes = self.model.bag(ids, offsets), some_prefixes(self.generator)
        loss = contrast(vectors[:count], self.goal[torch.from_numpy(self.texts.group[chosen])], prefixes, pull=1.0)
        if align:
            pairs = torch.from_numpy(np.flatnonzero(everything[:count] != everything[count:]))
            loss = loss + contrast(vectors[:count][pairs], vectors[count:][pairs], prefixes, pull=0.0)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.steps, self.tokens = self.steps + 1, self.tokens + len(ids)
        return loss.item()


def work(team: Team, data: Path, weights: Path, prompt: Integers, shape: Shape, plan: Plan, report: Report) -> None:
    """Trains the token table in one process of a team; rank 0 writes `weights`."""
    torch.manual_seed(plan.seed)
    texts, goal = dataset.load(data)
    model = StandIn(shape)
    if weights.exists():
        model.load_state_dict(torch.load(weights))
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("embed_tokens"))
    trainer = Trainer(model, texts, goal, prompt, plan, plan.seed + 100 * team.rank)
    started = noted = time.monotonic()
    progress, losses = 0.0, list[float]()
    while progress < 1:
        before = trainer.steps
        losses += team.until(partial(trainer.step, progress), time.monotonic() + PERIOD)
        team.average(model, trainer.steps - before)
        progress = team.agree((time.monotonic() - started) / (60 * plan.minutes))
        if team.rank == 0 and (time.monotonic() - noted > 20 or progress >= 1):
            noted = time.monotonic()
            speed = team.size * trainer.tokens / (noted - started)
            report(f"bag {progress:.2f} step {trainer.steps} loss {np.mean(losses):.3f} {speed:,.0f} tokens/s")
            losses = []
    if team.rank == 0:
        torch.save(model.state_dict(), weights)
