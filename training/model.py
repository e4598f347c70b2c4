"""The student: Qwen3's function in a few lines of torch, with parameter names as in the exported file.

It equals `transformers.Qwen3Model` followed by last-token pooling (tests/test_stand_in.py compares them), but computes
the last layer for the last token only and shares the states of the query prompt between all texts of a batch, which a
causal model allows. Both make training on two cores about twice as fast.

Stage 1 and stage 2 share the weights: `bag` is exactly what `forward` computes before stage 2 has moved anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as functional
from torch import nn

#: Token embeddings and everything the first layers add to them live at this scale, so that RMSNorm's epsilon of 1e-6
#: is not negligible: a token with a small vector then weighs little in the average (it acts like epsilon 1 at scale 1).
STREAM_SCALE = 1e-3


@dataclass(frozen=True)
class Shape:
    """Sizes of the student, as `config.json` spells them."""

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 64
    intermediate_size: int = 320
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    max_position_embeddings: int = 4096


State = tuple[torch.Tensor, torch.Tensor]  # keys and values of one layer: (texts, kv heads, length, head_dim)


class Attention(nn.Module):
    """Grouped-query attention with RMS-normed queries and keys and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)

    def keys_values(self, hidden: torch.Tensor, rotary: State) -> State:
        """Returns the layer's keys (rotated) and values."""
        split = (*hidden.shape[:2], self.shape.num_key_value_heads, self.shape.head_dim)
        keys = rotate(self.k_norm(self.k_proj(hidden).view(split)).transpose(1, 2), rotary)
        return keys, self.v_proj(hidden).view(split).transpose(1, 2)

    def forward(self, hidden: torch.Tensor, state: State, rotary: State, mask: torch.Tensor) -> torch.Tensor:
        """Mixes `state` for the positions of `hidden`; `mask` is added to the scores, (rows or 1, queries, keys)."""
        texts, length = hidden.shape[:2]
        shape, groups = self.shape, self.shape.num_attention_heads // self.shape.num_key_value_heads
        split = (texts, length, shape.num_attention_heads, shape.head_dim)
        queries = rotate(self.q_norm(self.q_proj(hidden).view(split)).transpose(1, 2), rotary)
        # The heads that share keys stand in one matrix, so that keys and values need no copies.
        folded = queries.reshape(texts, shape.num_key_value_heads, groups * length, shape.head_dim)
        keys, values = state
        scores = folded @ keys.transpose(2, 3) * shape.head_dim**-0.5 + mask.repeat(1, groups, 1)[:, None]
        mixed = (scores.softmax(dim=-1) @ values).view(texts, shape.num_attention_heads, length, shape.head_dim)
        result: torch.Tensor = self.o_proj(mixed.transpose(1, 2).reshape(texts, length, -1))
        return result


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Transforms each position by itself."""
        result: torch.Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return result


class Layer(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


def rotate(values: torch.Tensor, rotary: State) -> torch.Tensor:
    """Applies rotary positions to (texts, heads, length, head_dim)."""
    cosine, sine = rotary
    first, second = values.chunk(2, dim=-1)
    return values * cosine + torch.cat((-second, first), dim=-1) * sine


class StandIn(nn.Module):
    """The student: token ids in, one vector per text out (not normalised)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.num_hidden_layers)])
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.outer(torch.arange(1024, dtype=torch.float32), shape.rope_theta**-half)
        self.register_buffer("angles", torch.cat((angles, angles), dim=-1), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Makes the model compute the average of its scaled token vectors: see `bag`.

        Layers before the last add nothing yet (`o_proj` and `down_proj` are zero), so they can learn to put pieces into
        context without a jump. The last layer attends uniformly (`q_norm` is zero) with identity values.
        """
        shape = self.shape
        nn.init.normal_(self.embed_tokens.weight, std=0.3 * STREAM_SCALE)
        for layer in self.stack():
            for name, weight in layer.named_parameters():
                if weight.dim() == 2:
                    nn.init.normal_(weight, std=0.04)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
        last = self.stack()[-1].self_attn
        last.q_norm.weight.zero_()
        last.v_proj.weight.copy_(torch.eye(shape.hidden_size))
        groups = shape.num_attention_heads // shape.num_key_value_heads
        columns = torch.arange(shape.num_attention_heads * shape.head_dim)
        source = columns // shape.head_dim // groups * shape.head_dim + columns % shape.head_dim
        last.o_proj.weight[source, columns] = 1.0 / groups

    def stack(self) -> list[Layer]:
        """Returns the layers."""
        return cast("list[Layer]", list(self.layers))

    def bag(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Averages scaled token vectors of concatenated texts; returns (texts, hidden)."""
        weight = self.embed_tokens.weight / STREAM_SCALE
        scaled = weight * torch.rsqrt(weight.square().mean(dim=1, keepdim=True) + 1)
        return functional.embedding_bag(ids, scaled, offsets, mode="mean")

    def _rotary(self, start: int, length: int) -> State:
        angles = cast(torch.Tensor, self.angles)[start : start + length]
        return angles.cos(), angles.sin()

    def forward(self, ids: torch.Tensor, last: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """Embeds right-padded texts.

        Args:
            ids: Token ids (texts, length). Padding needs no mask: a causal model never looks to the right.
            last: Index of each text's last token (texts,).
            prompt: Token ids that stand before every text (length,), computed once for the whole batch.

        Returns:
            The state of each last token after the final norm (texts, hidden).
        """
        texts, length = ids.shape
        before = 0 if prompt is None else len(prompt)
        hidden = self.embed_tokens(ids)
        prefix = None if prompt is None else self.embed_tokens(prompt)[None]
        rotary, prefix_rotary = self._rotary(before, length), self._rotary(0, before)
        mask, prefix_mask = causal_mask(length, before)[None], causal_mask(before, 0)[None]
        rows = torch.arange(texts)
        for index, layer in enumerate(self.stack()):
            attention, final = layer.self_attn, index == len(self.layers) - 1
            normed = layer.input_layernorm(hidden)
            keys, values = attention.keys_values(normed, rotary)
            if prefix is not None:
                prefix_normed = layer.input_layernorm(prefix)
                state = attention.keys_values(prefix_normed, prefix_rotary)
                keys, values = (
                    torch.cat((left.expand(texts, -1, -1, -1), right), dim=2)
                    for left, right in zip(state, (keys, values), strict=True)
                )
                if not final:
                    prefix = prefix + attention(prefix_normed, state, prefix_rotary, prefix_mask)
                    prefix = prefix + layer.mlp(layer.post_attention_layernorm(prefix))
            if final:
                hidden, normed = hidden[rows, last][:, None], normed[rows, last][:, None]
                rotary = (rotary[0][last][:, None, None], rotary[1][last][:, None, None])
                mask = mask[0, last][:, None]
            hidden = hidden + attention(normed, (keys, values), rotary, mask)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        result: torch.Tensor = self.norm(hidden[:, 0])
        return result


def causal_mask(length: int, before: int) -> torch.Tensor:
    """Returns what is added to the scores of `length` tokens after `before` shared ones (length, before + length)."""
    mask = torch.full((length, before + length), float("-inf"))
    return mask.triu(before + 1)
