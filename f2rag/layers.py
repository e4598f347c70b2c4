"""The layers of a loaded Qwen3 model, restructured for speed: the same numbers with fewer passes over memory.

The projections of query, key and value are one matrix product, and so are the two of the MLP's gate; norm, rotation and
residual happen in place. The matrices replace transformers' own, which become views of them: no weight is held twice,
and the stock forward goes on working. Attention lies between ``project`` and ``finish`` and is not here.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from f2rag.quantization import QuantizedLinear, fuse, rows_of

if TYPE_CHECKING:
    from transformers import Qwen3Model

Matrix = Tensor | QuantizedLinear
"""A matrix (outputs, inputs), or one that is held in whole numbers."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The weights of one layer.

    Attributes:
        input_norm: (width,), before attention.
        projection: (heads and twice the key heads x head size, width): query, key and value in this order.
        head_norms: (heads and key heads, head size), the norm's weight of each query and key head.
        output: (width, heads x head size).
        middle_norm: (width,), before the MLP.
        gate_and_up: (2 x MLP width, width).
        down: (width, MLP width).
    """

    input_norm: Tensor
    projection: Matrix
    head_norms: Tensor
    output: Matrix
    middle_norm: Tensor
    gate_and_up: Matrix
    down: Matrix


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LastLayer:
    """The last layer, of whose queries only those of the last tokens are needed.

    Attributes:
        layer: What both kinds of layer have; its ``projection`` is for keys and values alone.
        query_projection: (heads x head size, width).
        query_norm: (head size,).
        key_norms: (key heads, head size).
    """

    layer: Layer
    query_projection: Matrix
    query_norm: Tensor
    key_norms: Tensor


def restructure(model: Qwen3Model) -> tuple[list[Layer], LastLayer]:
    """Fuse the matrices of all layers; the model's own parameters become views of the fused ones."""
    layers = [_fused(layer) for layer in model.layers]
    last, heads = layers[-1], model.config.num_attention_heads
    queries = heads * last.head_norms.shape[1]
    keys_and_values = dataclasses.replace(last, projection=_rows(last.projection, queries, None))
    query_projection = _rows(last.projection, 0, queries)
    return layers[:-1], LastLayer(keys_and_values, query_projection, last.head_norms[0], last.head_norms[heads:])


def _fused(layer: Any) -> Layer:
    # Typed loosely: torch's modules say of their parts only that they are modules or tensors.
    attention, mlp = layer.self_attn, layer.mlp
    heads = attention.q_proj.out_features // attention.head_dim
    key_heads = attention.k_proj.out_features // attention.head_dim
    norms = [attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(key_heads, -1)]
    return Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        projection=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        head_norms=torch.cat(norms).detach(),
        output=_matrix(attention.o_proj),
        middle_norm=layer.post_attention_layernorm.weight.detach(),
        gate_and_up=_joined(mlp.gate_proj, mlp.up_proj),
        down=_matrix(mlp.down_proj),
    )


def _matrix(linear: torch.nn.Linear | QuantizedLinear) -> Matrix:
    return linear if isinstance(linear, QuantizedLinear) else linear.weight.detach()


def _joined(*linears: torch.nn.Linear | QuantizedLinear) -> Matrix:
    quantized = [linear for linear in linears if isinstance(linear, QuantizedLinear)]
    if quantized:
        return fuse(quantized)
    plain = [linear for linear in linears if isinstance(linear, torch.nn.Linear)]
    joined = torch.cat([linear.weight.detach() for linear in plain])
    parts = torch.split(joined, [linear.out_features for linear in plain])
    for linear, part in zip(plain, parts, strict=True):
        linear.weight.data = part
    return joined


def _rows(matrix: Matrix, start: int, stop: int | None) -> Matrix:
    return rows_of(matrix, start, stop) if isinstance(matrix, QuantizedLinear) else matrix[start:stop]


def project(
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    input_norm: Tensor,
    projection: Matrix,
    head_norms: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """What attention needs of each token: normalised, rotated queries and keys, and values.

    Args:
        hidden: (tokens, width).
        cosines: float32 (tokens, 1, half the head size) of each token's position.
        sines: The same.
        input_norm: See ``Layer``; so are the next two.
        projection: Of queries, keys and values, or of keys and values.
        head_norms: One row for each head that is not a value.
        epsilon: Of the norms.

    Returns:
        (tokens, heads and key heads, head size), and the values (tokens, key heads, head size).
    """
    projected = multiply(normalised(hidden, input_norm, epsilon), projection)
    heads, size = head_norms.shape
    turned = projected[:, : heads * size].view(-1, heads, size)
    values = projected[:, heads * size :].view(len(hidden), -1, size)
    return normalise_and_rotate(turned, cosines, sines, head_norms, epsilon), values


def finish(
    hidden: Tensor,
    attended: Tensor,
    output: Matrix,
    middle_norm: Tensor,
    gate_and_up: Matrix,
    down: Matrix,
    epsilon: float,
) -> Tensor:
    """The rest of a layer after attention: both residuals and the MLP.

    Args:
        hidden: (tokens, width), what entered the layer.
        attended: (tokens, heads x head size).
        output: See ``Layer``; so are the next three.
        middle_norm: Of the MLP's input.
        gate_and_up: One matrix for both.
        down: Back to the width.
        epsilon: Of the norm.

    Returns:
        (tokens, width), what leaves the layer.
    """
    hidden = add_product(hidden, attended, output)
    gate, up = multiply(normalised(hidden, middle_norm, epsilon), gate_and_up).chunk(2, dim=1)
    return add_product(hidden, functional.silu(gate, inplace=True).mul_(up), down)


def normalised(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square norm (https://arxiv.org/abs/1910.07467), computed in float32 inside torch."""
    return functional.rms_norm(hidden, (hidden.shape[-1],), weight, epsilon)


def normalise_and_rotate(heads: Tensor, cosines: Tensor, sines: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    """Norm and rotary position (https://arxiv.org/abs/2104.09864) of query or key heads, in float32.

    In place where they are float32 already: each pass over these, the widest rows of a small model, costs as much as a
    good part of a matrix product. A compiler gets the formula instead: of steps in place it makes one that computes the
    norm again for each element, which took five times as long as not compiling.

    Args:
        heads: (tokens, heads, size); overwritten if float32.
        cosines: float32 (tokens, 1, half of size).
        sines: The same.
        weights: (heads, size) or (size,).
        epsilon: Of the norm.
    """
    if torch.compiler.is_compiling():
        return _normalised_and_rotated(heads.float(), cosines, sines, weights, epsilon).to(heads.dtype)
    wide = heads.float()
    squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    wide.mul_(squares.div_(wide.shape[-1]).add_(epsilon).rsqrt_()).mul_(weights)
    first, second = wide.chunk(2, dim=-1)
    turned = first * sines
    first.mul_(cosines).addcmul_(second, sines, value=-1)
    second.mul_(cosines).add_(turned)
    return wide.to(heads.dtype)


def _normalised_and_rotated(wide: Tensor, cosines: Tensor, sines: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon) * weights
    first, second = wide.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def multiply(hidden: Tensor, matrix: Matrix) -> Tensor:
    """Product with a matrix."""
    if isinstance(matrix, QuantizedLinear):
        product: Tensor = matrix(hidden)
        return product
    return functional.linear(hidden, matrix)


def add_product(residual: Tensor, hidden: Tensor, matrix: Matrix) -> Tensor:
    """``residual`` plus a product: one pass over memory instead of two."""
    if isinstance(matrix, QuantizedLinear):
        product: Tensor = matrix(hidden)
        return product.add_(residual)
    return torch.addmm(residual, hidden, matrix.t())
