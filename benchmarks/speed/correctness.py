"""Whose times count: who gives the vectors of stock transformers in float32, one text at a time.

Random weights amplify rounding, whereas trained ones have learned to live with it. So a contestant may be as far from
float32 as the plain rule for its dtype allows, or twice as far as stock transformers itself in that dtype, one text at
a time, whichever is more: a yardstick that a wrong pooling, a missing EOS or a shifted mask misses by far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from benchmarks.speed.contestants import Made

Vectors = npt.NDArray[np.float32]

YARDSTICKS = ("float32", "bfloat16", "int8")
"""The stock model's own forms; float32 is the measure of right."""

_WORST_ALLOWED = {"float32": 1e-4, "bfloat16": 1e-3, "float16": 1e-3, "int8": 1e-2, "q8_0": 1e-2}
"""Largest 1 - cosine of a single text that is right without asking the yardstick."""

_MEAN_ALLOWED = {"float32": 1e-5, "bfloat16": 1e-4, "float16": 1e-4, "int8": 5e-3, "q8_0": 5e-3}
"""The same for the mean over all compared texts."""

_YARDSTICK_OF = {"float16": "bfloat16", "q8_0": "int8"}
_TIMES_AS_FAR = 2.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a contestant's vectors are right.

    Attributes:
        right: Whether its times count.
        lowest: Lowest cosine to the reference.
        mean: Mean cosine to the reference.
        allowed: Lowest cosine that would have counted.
    """

    right: bool
    lowest: float
    mean: float
    allowed: float


def judge(vectors: Vectors, references: Mapping[str, Vectors], *, dtype: str) -> Verdict:
    """Compare a contestant's vectors with the reference.

    Args:
        vectors: float32 (n, dimensions), of any length.
        references: float32 (n, dimensions) by yardstick; ``"float32"`` is the reference.
        dtype: What the contestant computes in; one that nothing is known of is held to float32.
    """
    exact = references["float32"]
    if vectors.shape != exact.shape or not np.isfinite(vectors).all():
        return Verdict(right=False, lowest=float("nan"), mean=float("nan"), allowed=1.0)
    stock = references.get(_YARDSTICK_OF.get(dtype, dtype), exact)
    distances, yardstick = 1 - cosines(vectors, exact), 1 - cosines(stock, exact)
    worst = max(_WORST_ALLOWED.get(dtype, _WORST_ALLOWED["float32"]), _TIMES_AS_FAR * float(yardstick.max()))
    mean = max(_MEAN_ALLOWED.get(dtype, _MEAN_ALLOWED["float32"]), _TIMES_AS_FAR * float(yardstick.mean()))
    right = bool(distances.max() <= worst and distances.mean() <= mean)
    return Verdict(right, 1 - float(distances.max()), 1 - float(distances.mean()), 1 - worst)


def cosines(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Cosine of each pair of rows; rows need no unit length."""
    above = np.einsum("ij,ij->i", left.astype(np.float64), right.astype(np.float64))
    found: npt.NDArray[np.float64] = above / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return found


def sample_rows(lengths: Sequence[int], *, count: int) -> list[int]:
    """Positions of texts to compare: from the shortest to the longest, evenly."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    picked = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return sorted({int(order[position]) for position in picked})


def reference(*, folder: str, device: str, max_length: int, query_prefix: str, yardstick: str, **_: Any) -> Made:
    """Stock transformers, one text at a time, without any wrapper's tokenizer settings; runs in a worker."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from benchmarks.speed.contestants import Made

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(max_length)
    dtype = torch.bfloat16 if yardstick == "bfloat16" else torch.float32
    model = AutoModel.from_pretrained(folder, dtype=dtype).to(device).eval()
    if yardstick == "int8":
        round_to_int8(model)

    def embed(text: str) -> Any:
        ids = torch.tensor([tokenizer.encode(text).ids], device=device)
        with torch.inference_mode():
            state = model(input_ids=ids, use_cache=False).last_hidden_state[0, -1].float()
        return torch.nn.functional.normalize(state, dim=0).cpu().numpy()

    return Made(
        documents=lambda texts, _: [embed(text) for text in texts],
        queries=lambda texts, _: [embed(query_prefix + text) for text in texts],
        facts={"dtype": yardstick},
    )


def round_to_int8(model: torch.nn.Module) -> None:
    """Replace each weight matrix by what 8 bits with a scale for each row keep of it."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.abs().amax(dim=1, keepdim=True) / 127
                module.weight.copy_(torch.round(module.weight / scale) * scale)
