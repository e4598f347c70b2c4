"""Matrices in whole numbers: a model in a quarter to a half of its memory, at a measured cost in quality.

``int8`` has one scale per output; ``int4`` has a scale and a lowest value per group of inputs, since one scale per
output loses too much (https://arxiv.org/abs/2210.17323). What multiplies them stays floating point, except on CPUs
whose units multiply int8: there each token's activations are rounded to int8 too, with a scale of that token's own, so
that no vector depends on what else is in its batch. Matrices whose input bears that badly, because a few channels are
far larger than the rest, are found at load and left out of it. Plain torch: what libraries add compiles to the same
products. Embedding table and norms stay as they are. Nothing here knows text, files or devices' sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2rag.errors import InputError
from f2rag.options import check_weight_dtype

if TYPE_CHECKING:
    from transformers import Qwen3Model

logger = logging.getLogger(__name__)

GROUP: Final = 32
"""Inputs that share a scale in int4, or a divisor of it where the number of inputs is no multiple."""

_LARGEST: Final = {"int8": 127, "int4": 15}

_TOLERATED: Final = 0.03
"""Relative error of a matrix's outputs up to which its activations are rounded to int8. Even inputs give 0.01."""

_PROBE_SHAPE: Final = (2, 48)
"""Texts and tokens of the input on which that error is measured at load."""


class QuantizedLinear(nn.Module):
    """A linear layer without gradient whose matrix is held in whole numbers; called like ``nn.Linear``.

    Attributes:
        in_features: Width of what comes in.
        out_features: Width of what goes out.
    """

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias: Tensor | None
        self.register_buffer("bias", bias)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The matrix (outputs, inputs) that this one stands for."""
        raise NotImplementedError

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply (..., inputs) to (..., outputs) in the dtype of ``hidden``."""
        return functional.linear(hidden, self.dequantized(hidden.dtype), self.bias)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Int8Linear(QuantizedLinear):
    """A matrix in int8 with one scale per output.

    Attributes:
        integers: int8 (outputs, inputs), -127..127.
        scales: float32 (outputs,).
        rounds_activations: Whether activations are int8 too; see ``choose_activations``.
    """

    def __init__(self, integers: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(integers.shape[1], integers.shape[0], bias)
        self.integers: Tensor
        self.scales: Tensor
        self.register_buffer("integers", integers)
        self.register_buffer("scales", scales)
        self.rounds_activations = False

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The matrix (outputs, inputs) that this one stands for."""
        return self.integers.to(dtype) * self.scales.to(dtype)[:, None]

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply (..., inputs) to (..., outputs) in the dtype of ``hidden``."""
        product = self.whole_product(hidden) if self.rounds_activations else self.mixed_product(hidden)
        return product if self.bias is None else product.add_(self.bias)

    def mixed_product(self, hidden: Tensor) -> Tensor:
        """Product with activations as they are, without the bias: scaled afterwards, which is the smaller tensor."""
        if hidden.dtype == torch.float16:  # sums of whole numbers go beyond what it can hold
            return functional.linear(hidden, self.dequantized(hidden.dtype))
        return functional.linear(hidden, self.integers.to(hidden.dtype)).mul_(self.scales.to(hidden.dtype))

    def whole_product(self, hidden: Tensor) -> Tensor:
        """Product with each token's activations rounded to int8, without the bias."""
        rows = hidden.reshape(-1, self.in_features).float()
        largest = torch.linalg.vector_norm(rows, ord=float("inf"), dim=1, keepdim=True)
        steps = largest.clamp_min_(torch.finfo(torch.float32).tiny * 256).div_(_LARGEST["int8"])
        # torch has no other name for it; torchao multiplies by it too.
        whole: Tensor = torch._int_mm((rows / steps).round_().to(torch.int8), self.integers.t())  # noqa: SLF001
        product: Tensor = (whole * steps).mul_(self.scales).to(hidden.dtype)
        return product.view(*hidden.shape[:-1], self.out_features)


class Int4Linear(QuantizedLinear):
    """A matrix in four bits with a scale and a lowest value per group of inputs.

    Attributes:
        pairs: uint8 (outputs, inputs / 2): of two neighbouring inputs the first in the lower bits.
        scales: bfloat16 (outputs, groups, 1), the step from one number to the next.
        lowest: bfloat16 (outputs, groups, 1), what 0 stands for.
    """

    def __init__(self, pairs: Tensor, scales: Tensor, lowest: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(2 * pairs.shape[1], pairs.shape[0], bias)
        self.pairs: Tensor
        self.scales: Tensor
        self.lowest: Tensor
        self.register_buffer("pairs", pairs)
        self.register_buffer("scales", scales)
        self.register_buffer("lowest", lowest)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The matrix (outputs, inputs) that this one stands for."""
        numbers = torch.stack((self.pairs & 15, self.pairs >> 4), dim=-1).view(*self.scales.shape[:2], -1)
        return (numbers.to(dtype) * self.scales.to(dtype)).add_(self.lowest.to(dtype)).flatten(1)


def quantized_linear(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    weight_dtype: str,
    device: str | torch.device | None = None,
) -> QuantizedLinear:
    """Round a matrix; pure, and the original may be freed afterwards.

    Args:
        weight: (outputs, inputs), floating point. For int4 the number of inputs is even.
        bias: (outputs,), kept as it is.
        weight_dtype: ``"int8"`` or ``"int4"``.
        device: Where the result lies and is computed; ``None`` for the weight's own.

    Raises:
        InputError: The dtype is unknown, or the matrix has a shape that int4 cannot hold.
    """
    check_weight_dtype(weight_dtype)
    matrix = weight.detach().to(device=device or weight.device, dtype=torch.float32)
    kept = None if bias is None else bias.detach().to(device=matrix.device)
    return Int8Linear(*_int8(matrix), kept) if weight_dtype == "int8" else Int4Linear(*_int4(matrix), kept)


def joined(parts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """One linear layer whose outputs are those of all parts, side by side; equal to calling each.

    Exact, because scales belong to outputs: matrices can be joined after they were rounded. Its activations are rounded
    if those of every part are.

    Raises:
        InputError: The parts have different kinds, or some have a bias and others none.
    """
    kinds = {(type(part), part.in_features, part.bias is None) for part in parts}
    if len(kinds) != 1:
        message = "Linear layers of different kinds were given; expected the same dtype, inputs and bias for all."
        raise InputError(message)
    buffers = [dict(part.named_buffers()) for part in parts]
    made = _like(parts[0], {name: torch.cat([each[name] for each in buffers]) for name in buffers[0]})
    if isinstance(made, Int8Linear):
        made.rounds_activations = all(getattr(part, "rounds_activations", False) for part in parts)
    return made


def fuse(parts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """``joined``, with the parts made views of the whole: nothing is held twice, and each part can still be called."""
    whole = joined(parts)
    start = 0
    for part in parts:
        view = rows_of(whole, start, start + part.out_features)
        for name, buffer in view.named_buffers():
            part.register_buffer(name, buffer)
        if isinstance(part, Int8Linear) and isinstance(whole, Int8Linear):
            part.rounds_activations = whole.rounds_activations
        start += part.out_features
    return whole


def rows_of(linear: QuantizedLinear, start: int, stop: int | None = None) -> QuantizedLinear:
    """The outputs from ``start`` to ``stop`` of a linear layer, in the same memory."""
    made = _like(linear, {name: buffer[start:stop] for name, buffer in linear.named_buffers()})
    if isinstance(made, Int8Linear) and isinstance(linear, Int8Linear):
        made.rounds_activations = linear.rounds_activations
    return made


def quantize_model(model: Qwen3Model, *, weight_dtype: str, device: str, dtype: torch.dtype) -> None:
    """Round the matrices of all layers one by one, and move everything to the device and dtype.

    In place. The floating-point model is never whole on the device: a model can be loaded there that fits only rounded.

    Args:
        model: As loaded, on the CPU, in any dtype.
        weight_dtype: ``"int8"`` or ``"int4"``.
        device: Where it is to run.
        dtype: Compute dtype of everything else.
    """
    for owner in list(model.modules()):
        for name, linear in list(owner.named_children()):
            if isinstance(linear, nn.Linear):
                rounded = quantized_linear(linear.weight, linear.bias, weight_dtype=weight_dtype, device=device)
                setattr(owner, name, rounded)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(device=device, dtype=dtype)
    for owner in model.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            # The dtype of buffers is their own: rotary frequencies and scales stay float32.
            owner.register_buffer(name, buffer.to(device), persistent=False)
    if weight_dtype == "int8" and device == "cpu" and cpu_multiplies_int8():
        choose_activations(model)


def cpu_multiplies_int8() -> bool:
    """Whether this CPU has units for int8 products (VNNI, AMX) and torch uses them.

    Elsewhere torch multiplies whole numbers one by one, or with sums that overflow.
    """
    mkldnn: Any = torch.backends.mkldnn  # carries no annotations
    if not mkldnn.is_available():
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(bool(found.get(name)) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    # Before torch 2.10 only private functions tell.
    return bool(getattr(torch.cpu, "_is_vnni_supported", lambda: False)())


def choose_activations(model: Qwen3Model) -> list[str]:
    """Decide matrix by matrix whether its activations are rounded to int8: only where that costs little.

    A few tokens go through the model, and each matrix is asked how far its rounded product is from the exact one. A few
    very large channels in its input, as the MLPs of these models have, leave few steps for the rest.

    Returns:
        Names of the matrices whose activations stay as they are.
    """
    errors: dict[str, float] = {}

    def measure(name: str, linear: Int8Linear, arguments: tuple[Any, ...]) -> None:
        hidden = arguments[0]
        exact = linear.mixed_product(hidden)
        errors[name] = float((linear.whole_product(hidden) - exact).norm() / exact.norm().clamp_min(1e-30))

    linears = {name: part for name, part in model.named_modules() if isinstance(part, Int8Linear)}
    for linear in linears.values():
        linear.rounds_activations = False
    hooks = [
        linear.register_forward_pre_hook(lambda part, arguments, name=name: measure(name, part, arguments))
        for name, linear in linears.items()
    ]
    ids = torch.randint(0, model.config.vocab_size, _PROBE_SHAPE, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for name, linear in linears.items():
        linear.rounds_activations = errors[name] <= _TOLERATED
    kept = [name for name, linear in linears.items() if not linear.rounds_activations]
    if kept:
        logger.info("Activations stay in floating point for %d of %d matrices.", len(kept), len(linears))
    return kept


def _like(linear: QuantizedLinear, buffers: dict[str, Tensor]) -> QuantizedLinear:
    # Typed loosely: each kind has buffers of its own, which are its constructor's arguments.
    kind: Any = type(linear)
    made: QuantizedLinear = kind(**buffers)
    return made


def _int8(matrix: Tensor) -> tuple[Tensor, Tensor]:
    largest = matrix.abs().amax(dim=1, keepdim=True)
    scales = largest.clamp_min(torch.finfo(torch.float32).tiny * 256) / _LARGEST["int8"]
    return (matrix / scales).round_().to(torch.int8), scales[:, 0]


def _int4(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    outputs, inputs = matrix.shape
    if inputs % 2:
        message = f"A matrix with {inputs} inputs was given; int4 needs an even number. Use weight_dtype='int8'."
        raise InputError(message)
    groups = matrix.view(outputs, -1, group_size(inputs))
    lowest = groups.amin(dim=2, keepdim=True).to(torch.bfloat16)
    # Rounded to what is stored first: the numbers are then those that fit the stored step best.
    spread = groups.amax(dim=2, keepdim=True) - lowest.float()
    scales = (spread / _LARGEST["int4"]).clamp_min_(1e-30).to(torch.bfloat16)
    numbers = ((groups - lowest.float()) / scales.float()).round_().clamp_(0, _LARGEST["int4"])
    pairs = numbers.to(torch.uint8).view(outputs, -1, 2)
    return pairs[..., 0] | pairs[..., 1] << 4, scales, lowest


def group_size(inputs: int) -> int:
    """Inputs that share a scale in int4: ``GROUP``, or the largest power of two below it that divides ``inputs``."""
    size = GROUP
    while inputs % size:
        size //= 2
    return size
