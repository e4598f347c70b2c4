"""The state of each text's last token: the fast way, the stock way, and the test that they agree.

The fast way computes the loaded weights of transformers' Qwen3 without an attention mask, each distinct beginning of a
batch once, and of the last layer only what the last tokens need. A self-test at load compares every form of it that
the device may take with the stock, masked forward. Nothing here knows text or dimensions.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from f2rag import layers
from f2rag.attention import (
    QUERY_BLOCK,
    EqualLengthsAttention,
    JoinedAttention,
    PaddedAttention,
    Rows,
    VariableLength,
    variable_length_kernel,
)
from f2rag.compilation import Compilation
from f2rag.graphs import GraphedForward
from f2rag.loading import is_out_of_memory
from f2rag.packing import Packing, fold, join, may_share, pad
from f2rag.transfer import to_device

if TYPE_CHECKING:
    from transformers import Qwen3Model

    from f2rag.device import DevicePlan
    from f2rag.tokenizer import TokenIds
    from f2rag.types import FloatMatrix

logger = logging.getLogger(__name__)

_WORTH_FOLDING = 0.8
"""Folded tokens per token of whole rows, below which computing fewer tokens pays for moving them about in attention."""

_TOKENS_OF_A_CALL = 16
"""Padding, for each call of attention, above which a CPU computes rows of one length at a time. With 9 to 12 for each,
queries took 1 % more time than padded ones (80M, bfloat16, two cores of a Zen 4)."""

_FIRST_POSITIONS = 512
"""Positions whose rotations are computed at load; longer texts double them."""


Attention: TypeAlias = PaddedAttention | EqualLengthsAttention | JoinedAttention


class FastForward:
    """The restructured model.

    Args:
        model: As loaded; its weights become views of fused ones.
        device: Where it is, e.g. ``"cpu"`` or ``"cuda:0"``.
        pad_id: What stands behind the last tokens of padded rows.
        kernel: Attention on rows that lie end to end. Without it a CPU computes those of one length at a time, where
            that saves more padding than the calls cost, and other devices padded rows.

    Attributes:
        query_block: See ``attention.causal_attention``; on a CPU whose threads one text's heads keep busy.
    """

    def __init__(self, model: Qwen3Model, *, device: str, pad_id: int, kernel: VariableLength | None = None) -> None:
        self.project = layers.project
        self.finish = layers.finish
        self._model = model
        self._device = device
        self._pad_id = pad_id
        self._kernel = kernel
        # The kernel shares out heads and, coarsely, queries: in blocks, many threads would find nothing to do.
        few_threads = torch.get_num_threads() <= model.config.num_attention_heads
        self.query_block = QUERY_BLOCK if device == "cpu" and few_threads else None
        self._epsilon = float(model.config.rms_norm_eps)
        self._layers, self._last_layer = layers.restructure(model)
        # Older tables are kept: a recorded CUDA graph reads the one that was there when it was recorded.
        self._rotations = [self._make_rotations(_FIRST_POSITIONS)]

    def states(self, ids: Sequence[TokenIds]) -> Tensor:
        """Final-norm hidden state of the last token of each text.

        Args:
            ids: One int64 array per text, ending in the EOS.

        Returns:
            float32 (rows, native dimensions) on the device. The cast comes before slicing and normalising: norms of
            bf16 vectors are off by up to 0.4 %.
        """
        return self.compute(self.pack(ids))

    def pack(self, ids: Sequence[TokenIds]) -> Packing:
        """The cheapest way to lay these texts side by side."""
        joined = self._kernel is not None or (self._device == "cpu" and _joining_pays(list(map(len, ids))))
        unfolded = join(ids) if joined else pad(ids, pad_id=self._pad_id)
        if not may_share(ids) and len(unfolded.ids) == sum(map(len, ids)):
            return unfolded
        folded = fold(ids, joined=joined)
        return folded if len(folded.ids) <= _WORTH_FOLDING * len(unfolded.ids) else unfolded

    def packings(self, ids: Sequence[TokenIds]) -> list[Packing]:
        """All ways that ``pack`` chooses from."""
        joined, padded = [join(ids), fold(ids, joined=True)], [pad(ids, pad_id=self._pad_id), fold(ids, joined=False)]
        if self._kernel is not None:
            return joined
        return padded + joined if self._device == "cpu" else padded

    def compute(self, packing: Packing) -> Tensor:
        """``states`` of texts that are packed already."""
        ids, positions, last = (
            to_device(part, self._device) for part in (packing.ids, packing.positions, packing.last)
        )
        self.prepare(packing.width)
        return self.compute_on_device(ids, positions, last, Rows.of(packing, self._device))

    def prepare(self, width: int) -> None:
        """Compute the rotations of all positions up to ``width``, if they are not there yet."""
        if width > len(self._rotations[-1][0]):
            self._rotations.append(self._make_rotations(1 << (width - 1).bit_length()))

    def compute_on_device(self, ids: Tensor, positions: Tensor, last: Tensor, rows: Rows) -> Tensor:
        """``compute`` of what is on the device: no copy and no wait, so that a CUDA graph can record it."""
        attention = self._attention(rows)
        cosines, sines = (table[positions] for table in self._rotations[-1])
        hidden = functional.embedding(ids, self._model.embed_tokens.weight)
        for layer in self._layers:
            turned, values = self.project(
                hidden, cosines, sines, layer.input_norm, layer.projection, layer.head_norms, self._epsilon
            )
            heads = turned.shape[1] - values.shape[1]
            hidden = self._finish(hidden, attention(turned[:, :heads], turned[:, heads:], values), layer)
        return self._last_states(hidden, cosines, sines, last, attention)

    def _attention(self, rows: Rows) -> Attention:
        if not rows.joined:
            return PaddedAttention(rows, query_block=self.query_block)
        if self._kernel is None:
            return EqualLengthsAttention(rows, query_block=self.query_block)
        return JoinedAttention(rows, kernel=self._kernel)

    def _make_rotations(self, count: int) -> tuple[Tensor, Tensor]:
        rotary = self._model.rotary_emb
        angles = torch.outer(torch.arange(count, device=self._device).float(), rotary.inv_freq.to(self._device))
        scaling = float(getattr(rotary, "attention_scaling", 1.0))
        return angles.cos().mul_(scaling)[:, None], angles.sin().mul_(scaling)[:, None]

    def _last_states(
        self, hidden: Tensor, cosines: Tensor, sines: Tensor, last: Tensor, attention: Attention
    ) -> Tensor:
        special = self._last_layer
        layer = special.layer
        keys, values = layers.project(
            hidden, cosines, sines, layer.input_norm, layer.projection, special.key_norms, self._epsilon
        )
        hidden = hidden[last]
        normalised = layers.normalised(hidden, layer.input_norm, self._epsilon)
        queries = layers.multiply(normalised, special.query_projection).view(len(last), -1, keys.shape[2])
        queries = layers.normalise_and_rotate(queries, cosines[last], sines[last], special.query_norm, self._epsilon)
        hidden = self._finish(hidden, attention.of_last(queries, keys, values), layer)
        return layers.normalised(hidden, self._model.norm.weight, self._epsilon).float()

    def _finish(self, hidden: Tensor, attended: Tensor, layer: layers.Layer) -> Tensor:
        return self.finish(
            hidden, attended, layer.output, layer.middle_norm, layer.gate_and_up, layer.down, self._epsilon
        )


def _joining_pays(lengths: Sequence[int]) -> bool:
    calls = sum(1 for _ in itertools.groupby(lengths))
    return max(lengths) * len(lengths) - sum(lengths) > _TOKENS_OF_A_CALL * calls


class StockForward:
    """The model as transformers computes it, with its own attention mask: slower, and the measure of right.

    Args:
        model: The loaded model.
        device: Where it is.
        pad_id: What stands behind the last tokens of padded rows.
    """

    def __init__(self, model: Qwen3Model, *, device: str, pad_id: int) -> None:
        self._model = model
        self._device = device
        self._pad_id = pad_id

    def states(self, ids: Sequence[TokenIds]) -> Tensor:
        """See ``FastForward.states``."""
        packing = pad(ids, pad_id=self._pad_id)
        shape = (packing.rows, packing.width)
        lengths = to_device(packing.lengths, self._device)
        positions = torch.arange(packing.width, device=self._device)
        hidden: Tensor = self._model(
            input_ids=to_device(packing.ids.reshape(shape), self._device),
            attention_mask=(positions[None, :] < lengths[:, None]).long(),
            use_cache=False,
        ).last_hidden_state
        return hidden[torch.arange(len(ids), device=self._device), lengths - 1].float()


class Forward(Protocol):
    """What turns token ids into the states of the last tokens."""

    def states(self, ids: Sequence[TokenIds]) -> Tensor | FloatMatrix:
        """See ``FastForward.states``; an array if it was computed elsewhere."""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The forward in use.

    Attributes:
        forward: It.
        difference: Largest difference that the fast forward's unit vectors had from the stock one's at load.
        is_fast: Whether it is the fast one.
        compilation: Compiles the fast one, when asked or when it pays; ``None`` for the stock one.
    """

    forward: Forward
    difference: float
    is_fast: bool
    compilation: Compilation | None = None


def choose_forward(model: Qwen3Model, plan: DevicePlan, *, pad_id: int) -> Choice:
    """The fast forward if it computes what the stock one does on this device, else, with a warning, the stock one."""
    stock = StockForward(model, device=plan.device, pad_id=pad_id)
    vocabulary_size = int(model.config.vocab_size)
    tolerance = plan.rounding
    # Torch's kernel for rows of different lengths exists for CUDA alone, and for half precision alone.
    usable = plan.device.startswith("cuda") and plan.dtype != "float32"
    kernel = variable_length_kernel() if usable else None
    difference = float("inf")
    for attempt in [kernel, None] if kernel is not None else [None]:
        fast = FastForward(model, device=plan.device, pad_id=pad_id, kernel=attempt)
        difference = largest_difference(fast, stock, vocabulary_size=vocabulary_size)
        if difference <= tolerance:
            compilation = Compilation(
                fast,
                plan,
                difference=lambda trial: largest_difference(trial, stock, vocabulary_size=vocabulary_size),
                tolerance=tolerance,
            )
            forward = _with_graphs(fast, plan, pad_id=pad_id)
            return Choice(forward, difference, is_fast=True, compilation=compilation)
        logger.warning(
            "The fast forward differs from the stock one by %.1e (at most %.1e is rounding) on %s, %s; "
            "using a slower one. Please report your torch and transformers versions.",
            *(difference, tolerance, plan.describe(), "joined" if attempt else "padded"),
        )
    return Choice(stock, difference, is_fast=False)


def _with_graphs(fast: FastForward, plan: DevicePlan, *, pad_id: int) -> Forward:
    if not plan.device.startswith("cuda"):
        return fast
    return GraphedForward(fast, device=plan.device, pad_id=pad_id, tolerance=plan.rounding)


@torch.inference_mode()
def largest_difference(fast: FastForward, stock: StockForward, *, vocabulary_size: int) -> float:
    """Compare every packing of the fast forward with the stock one, on rows of different lengths that begin alike.

    Returns:
        Largest absolute difference of the unit vectors' components; infinite for NaN, and for whatever raises.
    """
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, vocabulary_size, size=length) for length in (7, 3, 12, 12)]
    rows[3][:8] = rows[2][:8]
    trial = copy.copy(fast)
    if trial.query_block is not None:
        trial.query_block = 5  # of 12 tokens: two whole blocks and a part of one
    try:
        expected = functional.normalize(stock.states(rows), dim=1)
        found = [functional.normalize(trial.compute(packing), dim=1) for packing in trial.packings(rows)]
        difference = max(float((vectors - expected).abs().max()) for vectors in found)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        logger.warning("The fast forward does not run here: %s: %s", type(error).__name__, error)
        return float("inf")
    return difference if np.isfinite(difference) else float("inf")
