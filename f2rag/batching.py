"""Which texts go through the model together: sorted by tokens, packed under a budget of padded tokens.

Pure arithmetic over lengths; nothing here knows a tokenizer, a model or a device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are computed together.

    Attributes:
        rows: Positions in the caller's list, longest text first.
        tokens: Length of the longest of them: the width of the padded batch.
    """

    rows: npt.NDArray[np.intp]
    tokens: int

    @property
    def padded_tokens(self) -> int:
        """What the model computes for this batch."""
        return len(self.rows) * self.tokens


def plan_batches(lengths: Sequence[int], *, token_budget: int, padding: int | None = None) -> list[Batch]:
    """Group texts of similar length so that each group, padded to its longest, stays within the budget.

    A text that is longer than the budget goes alone. The longest batch comes first, so that a device without enough
    memory shows it at once and not after an hour.

    Args:
        lengths: Tokens of each text.
        token_budget: Largest allowed rows x longest of a batch.
        padding: Most tokens of padding in a batch; ``None`` allows any number. With the tokens that one forward more
            would cost, the groups are about the cheapest: none pads for more than a batch of its own would cost.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        tokens = max(int(lengths[order[start]]), 1)
        rows = order[start : start + max(token_budget // tokens, 1)]
        if padding is not None:
            wasted = np.cumsum([tokens - lengths[row] for row in rows])
            rows = rows[: max(int(np.searchsorted(wasted, padding, side="right")), 1)]
        batches.append(Batch(rows, tokens))
        start += len(rows)
    return batches


class MemoryLimit:
    """Padded tokens per forward that a device had memory for: halved at once, raised again with care.

    Memory runs short for a moment too, where other programs use the same device. So after ``patience`` forwards of at
    least half the limit it is doubled; and each time that this turns out to have been too much, the patience doubles,
    so that a device which is simply small pays for ever fewer attempts.
    """

    def __init__(self, *, patience: int = 64) -> None:
        self.tokens = int(np.iinfo(np.int64).max)
        self._patience = patience
        self._passed = 0
        self._was_raised = False

    @property
    def is_set(self) -> bool:
        """Whether memory has run out at all."""
        return self.tokens < np.iinfo(np.int64).max

    def lower(self, padded_tokens: int) -> None:
        """Note that a forward of so many padded tokens did not fit."""
        if self._was_raised:
            self._patience *= 2
        self.tokens = min(max(padded_tokens // 2, 1), self.tokens)
        self._passed = 0
        self._was_raised = False

    def passed(self, padded_tokens: int) -> None:
        """Note that a forward of so many padded tokens fitted."""
        if not self.is_set or padded_tokens * 2 < self.tokens:
            return
        self._passed += 1
        if self._passed >= self._patience:
            self._passed = 0
            self._was_raised = True
            self.tokens *= 2


def deduplicate(keys: Sequence[Key]) -> tuple[list[int], npt.NDArray[np.intp]]:
    """Find the first position of each distinct key, and for every position which of those it equals.

    Returns:
        ``(firsts, inverse)`` with ``keys[firsts[inverse[i]]] == keys[i]`` for every ``i``.
    """
    seen: dict[Key, int] = {}
    firsts: list[int] = []
    inverse = np.empty(len(keys), dtype=np.intp)
    for position, key in enumerate(keys):
        if key not in seen:
            seen[key] = len(firsts)
            firsts.append(position)
        inverse[position] = seen[key]
    return firsts, inverse


def windows(items: Iterable[Item], *, size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of up to ``size`` items, reading no further ahead than one window."""
    window: list[Item] = []
    for item in items:
        window.append(item)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
