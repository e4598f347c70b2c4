"""Which texts go through the model together: sorted by tokens, packed under a budget of padded tokens.

Pure functions over lengths; nothing here knows a tokenizer, a model or a device.
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

    def halves(self) -> tuple[Batch, Batch] | None:
        """Two batches of half the rows, after the device ran out of memory; ``None`` for a single row."""
        if len(self.rows) < 2:
            return None
        middle = len(self.rows) // 2
        # The second half keeps the width of the first; its own longest text is not known here and may be shorter.
        return Batch(self.rows[:middle], self.tokens), Batch(self.rows[middle:], self.tokens)


def plan_batches(lengths: Sequence[int], *, token_budget: int) -> list[Batch]:
    """Group texts of similar length so that each group, padded to its longest, stays within the budget.

    A text that is longer than the budget goes alone. The longest batch comes first, so that a device without enough
    memory shows it at once and not after an hour.

    Args:
        lengths: Tokens of each text.
        token_budget: Largest allowed rows x longest of a batch.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        tokens = max(int(lengths[order[start]]), 1)
        rows = order[start : start + max(token_budget // tokens, 1)]
        batches.append(Batch(rows, tokens))
        start += len(rows)
    return batches


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
