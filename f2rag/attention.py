"""Attention on a batch, through torch's own kernels: on padded rows, or on rows laid end to end.

All are exact for a causal model whose padding is on the right: no real token sees what follows it, and no row needs a
mask of its own. Only the last layer's single queries on padded rows do, and theirs is one row.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from f2rag.packing import Packing
from f2rag.transfer import to_device

QUERY_BLOCK = 64
"""Queries of one call on a CPU. Of up to ``_KEYS_AT_ONCE`` keys torch's kernel computes the scores above the diagonal,
too; in blocks of 64, each with the keys up to its own end, attention takes 17 to 27 % less time in bfloat16 and 8 to
20 % less in float32 (one text of 128 to 512 tokens, two cores of a Zen 4)."""

_KEYS_AT_ONCE = 512
"""The kernel's own block of keys: it leaves out whole blocks above the diagonal by itself."""

VariableLength = Callable[..., Any]
"""``torch.nn.attention.varlen.varlen_attn``, or in a test what stands for it."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The attention's layout of one batch, on the device.

    Attributes:
        count: Rows of the batch.
        width: See ``Packing``.
        joined: See ``Packing``.
        lengths: int64 (rows,).
        expand: See ``Packing``.
        fold: See ``Packing``.
    """

    count: int
    width: int
    joined: bool
    lengths: Tensor
    expand: Tensor | None
    fold: Tensor | None

    @classmethod
    def of(cls, packing: Packing, device: str) -> Rows:
        """Move a packing's indices to a device."""
        return cls(
            count=packing.rows,
            width=packing.width,
            joined=packing.joined,
            lengths=to_device(packing.lengths, device),
            expand=None if packing.expand is None else to_device(packing.expand, device),
            fold=None if packing.fold is None else to_device(packing.fold, device),
        )

    def spread(self, tokens: Tensor) -> Tensor:
        """From one row for each computed token to the attention's layout."""
        return tokens if self.expand is None else tokens[self.expand]

    def gather(self, places: Tensor) -> Tensor:
        """And back."""
        return places if self.fold is None else places[self.fold]


class PaddedAttention:
    """Scaled dot product attention on rows padded to one length.

    Args:
        rows: The layout.
        query_block: See ``causal_attention``.
    """

    def __init__(self, rows: Rows, *, query_block: int | None = None) -> None:
        self._rows = rows
        self._query_block = query_block

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Causal attention of all tokens.

        Args:
            queries: (tokens, heads, size).
            keys: (tokens, key heads, size).
            values: The same.

        Returns:
            (tokens, heads x size).
        """
        attended = causal_attention(
            self._by_row(queries), self._by_row(keys), self._by_row(values), query_block=self._query_block
        )
        return self._rows.gather(attended.flatten(2).flatten(0, 1))

    def of_last(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of each row's last token, which sees all of its row.

        Args:
            queries: (rows, heads, size).
            keys: (tokens, key heads, size).
            values: The same.

        Returns:
            (rows, heads x size).
        """
        places = torch.arange(self._rows.width, device=queries.device)
        visible = places[None, None, None, :] < self._rows.lengths[:, None, None, None]
        attended = functional.scaled_dot_product_attention(
            queries[:, :, None], self._by_row(keys), self._by_row(values), attn_mask=visible, enable_gqa=True
        )
        return attended.flatten(1)

    def _by_row(self, tokens: Tensor) -> Tensor:
        """(rows, heads, width, size)."""
        return self._rows.spread(tokens).view(self._rows.count, self._rows.width, *tokens.shape[1:]).transpose(1, 2)


class EqualLengthsAttention:
    """Attention on rows that lie end to end, one call for all neighbours of one length: without padding.

    For a CPU, where a call costs little and the lengths are at hand. Arguments and results as of ``PaddedAttention``.

    Args:
        rows: The layout.
        query_block: See ``causal_attention``.
    """

    def __init__(self, rows: Rows, *, query_block: int | None = None) -> None:
        self._rows = rows
        self._query_block = query_block
        self._groups = [(length, len(list(group))) for length, group in itertools.groupby(rows.lengths.tolist())]

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See ``PaddedAttention``."""
        groups = zip(*map(self._by_length, (queries, keys, values)), strict=True)
        attended = [causal_attention(*group, query_block=self._query_block).flatten(0, 1) for group in groups]
        return self._rows.gather(torch.cat(attended).flatten(1))

    def of_last(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See ``PaddedAttention``."""
        singles = torch.split(queries[:, :, None], [count for _, count in self._groups])
        groups = zip(singles, self._by_length(keys), self._by_length(values), strict=True)
        attended = [functional.scaled_dot_product_attention(*group, enable_gqa=True).flatten(1) for group in groups]
        return torch.cat(attended)

    def _by_length(self, tokens: Tensor) -> Iterator[Tensor]:
        """(rows, heads, length, size) of each length."""
        parts = torch.split(self._rows.spread(tokens), [length * count for length, count in self._groups])
        for part, (length, count) in zip(parts, self._groups, strict=True):
            yield part.view(count, length, *part.shape[1:]).transpose(1, 2)


class JoinedAttention:
    """Attention on rows that lie end to end, by a kernel that takes where each begins.

    Args:
        rows: The layout.
        kernel: As ``variable_length_kernel`` gives it.
    """

    def __init__(self, rows: Rows, *, kernel: VariableLength) -> None:
        self._rows = rows
        self._kernel = kernel
        ends = torch.cumsum(rows.lengths, 0)
        self._begins = functional.pad(ends, (1, 0)).int()

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See ``PaddedAttention``."""
        attended = self._kernel(
            *(self._rows.spread(part).contiguous() for part in (queries, keys, values)),
            *(self._begins, self._begins, self._rows.width, self._rows.width),
            causal=True,
        )
        return self._rows.gather(attended.flatten(1))

    def of_last(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See ``PaddedAttention``."""
        singles = torch.arange(self._rows.count + 1, dtype=torch.int32, device=queries.device)
        spread = (self._rows.spread(part).contiguous() for part in (keys, values))
        attended: Tensor = self._kernel(
            queries.contiguous(), *spread, singles, self._begins, 1, self._rows.width, causal=False
        )
        return attended.flatten(1)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, *, query_block: int | None = None) -> Tensor:
    """Causal attention of rows of one width.

    Args:
        queries: (rows, heads, width, size).
        keys: (rows, key heads, width, size).
        values: The same.
        query_block: Queries of one call, where several calls are faster (see ``QUERY_BLOCK``); ``None`` makes one.

    Returns:
        (rows, width, heads, size).
    """
    width = queries.shape[2]
    if query_block is None or not query_block < width <= _KEYS_AT_ONCE:
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
        return attended.transpose(1, 2)
    hidden = _above_diagonal(queries.dtype)
    blocks = []
    for begin in range(0, width, query_block):
        end = min(begin + query_block, width)
        block = functional.scaled_dot_product_attention(
            queries[:, :, begin:end],
            keys[:, :, :end],
            values[:, :, :end],
            attn_mask=hidden[begin:end, :end],
            enable_gqa=True,
        )
        blocks.append(block.transpose(1, 2))
    return torch.cat(blocks, dim=1)


@functools.lru_cache
def _above_diagonal(dtype: torch.dtype) -> Tensor:
    """What is added to the scores of queries and keys of one row: minus infinity where a key lies behind its query."""
    return torch.full((_KEYS_AT_ONCE, _KEYS_AT_ONCE), float("-inf"), dtype=dtype).triu_(1)


def variable_length_kernel() -> VariableLength | None:
    """Torch's own kernel for rows of different lengths, with one way to call it; ``None`` where torch has none.

    Its arguments differ between releases: 2.10 says ``is_causal``, later ones give a window, and ``enable_gqa``
    came in 2.12; where it is missing the kernel takes fewer key heads without being told.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return adapt_kernel(varlen_attn)


def adapt_kernel(function: Callable[..., Any]) -> VariableLength | None:
    """See ``variable_length_kernel``; ``None`` for a signature that is not known."""
    parameters = inspect.signature(function).parameters
    shared: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in parameters else {}
    causal: dict[str, Any]
    full: dict[str, Any]
    if "window_size" in parameters:
        causal, full = {"window_size": (-1, 0)}, {"window_size": (-1, -1)}
    elif "is_causal" in parameters:
        causal, full = {"is_causal": True}, {"is_causal": False}
    else:
        return None
    return functools.partial(_call_kernel, function, {**shared, **causal}, {**shared, **full})


def _call_kernel(
    function: Callable[..., Any], when_causal: dict[str, Any], when_full: dict[str, Any], *tensors: Any, causal: bool
) -> Any:
    return function(*tensors, **(when_causal if causal else when_full))
