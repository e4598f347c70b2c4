"""How the tokens of a batch lie side by side on the device: padded rows, end to end, or each distinct one once.

Whatever a token's state depends on precedes it, so texts that begin alike (the queries of one instruction, documents
with one header) have equal states for as long as they do. Everything but attention works on single tokens and may
therefore compute each distinct beginning once; attention then sees every row whole again through an index. The idea is
that of RadixMLP (https://arxiv.org/abs/2601.15013). Pure NumPy; nothing here knows a model or a device.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from f2rag.tokenizer import TokenIds

Index = npt.NDArray[np.int64]

_BEGINNING = 4
"""Tokens that rows have to share at least: fewer save less than the look-up costs."""

_MOST_BEGINNINGS = 0.9
"""Distinct beginnings for each row, above which too few rows share theirs."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Tokens that are computed, and where each row finds its own.

    Attributes:
        ids: int64 (tokens,), what the model computes.
        positions: int64 (tokens,), of each token in its text.
        last: int64 (rows,), where in ``ids`` each row's last token is.
        lengths: int64 (rows,), tokens of each row.
        width: Places of each padded row, or tokens of the longest row.
        joined: Whether attention sees the rows end to end; else it sees them padded.
        expand: int64, for each place of the attention's own layout the token that stands there; ``None`` where the
            tokens lie in that layout already.
        fold: int64 (tokens,), for each token a place in the attention's layout that holds it; ``None`` with ``expand``.
    """

    ids: TokenIds
    positions: Index
    last: Index
    lengths: Index
    width: int
    joined: bool = False
    expand: Index | None = None
    fold: Index | None = None

    @property
    def rows(self) -> int:
        """How many texts there are."""
        return len(self.lengths)


def pad(ids: Sequence[TokenIds], *, pad_id: int, rows: int | None = None, width: int | None = None) -> Packing:
    """Rows padded on the right to one length.

    Args:
        ids: Token ids of each text, at least one.
        pad_id: What stands behind a row's last token; no real token ever looks at it.
        rows: Rows that there shall be, filled up with copies of the first, for a device that wants a fixed shape.
        width: Places that each row shall have, for the same reason.
    """
    texts = [*ids, *itertools.repeat(ids[0], (rows or len(ids)) - len(ids))]
    lengths = np.asarray([len(row) for row in texts], dtype=np.int64)
    width = width or int(lengths.max())
    padded = np.full((len(texts), width), pad_id, dtype=np.int64)
    padded[np.arange(width)[None, :] < lengths[:, None]] = np.concatenate(texts)
    positions = np.tile(np.arange(width), len(texts))
    last = np.arange(len(texts)) * width + lengths - 1
    return Packing(padded.ravel(), positions, last, lengths, width)


def join(ids: Sequence[TokenIds]) -> Packing:
    """Rows end to end, without any padding, for attention that takes where each row begins."""
    lengths = np.asarray([len(row) for row in ids], dtype=np.int64)
    ends = np.cumsum(lengths)
    positions = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return Packing(np.concatenate(ids), positions, ends - 1, lengths, int(lengths.max()), joined=True)


def fold(ids: Sequence[TokenIds], *, joined: bool) -> Packing:
    """Each distinct beginning once.

    Args:
        ids: Token ids of each text, at least one.
        joined: See ``Packing``.

    Returns:
        A packing with ``expand`` and ``fold``. Rows keep the order of ``ids``.
    """
    lengths = np.asarray([len(row) for row in ids], dtype=np.int64)
    width = int(lengths.max())
    real = np.arange(width)[None, :] < lengths[:, None]
    owner = _owners(ids, lengths, width)
    new = real & (owner == np.arange(len(ids))[:, None])
    number = np.cumsum(new).reshape(new.shape) - 1
    token = number[owner, np.arange(width)[None, :]]
    table = np.zeros((len(ids), width), dtype=np.int64)
    table[real] = np.concatenate(ids)
    last = token[np.arange(len(ids)), lengths - 1]
    # Padding repeats the row's last token: attention never looks at it, but it has to be some token.
    expand = token[real] if joined else np.where(real, token, last[:, None]).ravel()
    places = np.flatnonzero(new[real]) if joined else np.flatnonzero(new)
    positions = np.broadcast_to(np.arange(width), new.shape)[new]
    return Packing(table[new], positions, last, lengths, width, joined, expand, places)


def may_share(ids: Sequence[TokenIds]) -> bool:
    """Whether enough rows begin alike that folding is worth a closer look; much cheaper than folding."""
    beginnings = {row[:_BEGINNING].tobytes() for row in ids}
    return len(beginnings) <= _MOST_BEGINNINGS * len(ids)


def _owners(ids: Sequence[TokenIds], lengths: Index, width: int) -> Index:
    """For each row and position, the row that computes this token: itself, or one that begins alike.

    Sorted by their tokens, rows that begin alike are neighbours; a row then shares with the one before it as many
    tokens as are equal from the beginning on.
    """
    count = len(ids)
    # As big-endian bytes, rows sort as their tokens do.
    order = np.asarray(sorted(range(count), key=lambda row: ids[row].astype(">i8").tobytes()), dtype=np.int64)
    table = np.full((count, width), -1, dtype=np.int64)
    table[np.arange(width)[None, :] < lengths[order][:, None]] = np.concatenate([ids[row] for row in order])
    shared = np.zeros((count, width), dtype=bool)
    shared[1:] = np.logical_and.accumulate((table[1:] == table[:-1]) & (table[1:] >= 0), axis=1)
    # The row whose token it is: the last one so far, in this order, that does not share it with the row before.
    places = np.maximum.accumulate(np.where(shared, 0, np.arange(count)[:, None]), axis=0)
    owners = np.empty((count, width), dtype=np.int64)
    owners[order] = order[places]
    return owners
