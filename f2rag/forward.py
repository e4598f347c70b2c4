"""The model itself: loading the weights onto a device, and the state of each text's last token.

Right padding without an attention mask: in a causal model no token sees what follows it, so the padding cannot change
the EOS's state, and without a mask the fast attention kernels stay available. A self-test at load compares this with
the stock, masked forward of transformers. Nothing here knows text or dimensions.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from f2rag.checkpoint import Checkpoint, weight_files
from f2rag.errors import CorruptCheckpointError, ModelLoadError, OutOfMemoryError

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3Model

    from f2rag.device import DevicePlan

logger = logging.getLogger(__name__)

SELF_TEST_TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest difference of a unit vector's component that rounding alone explains, by dtype."""


def load_model(checkpoint: Checkpoint, plan: DevicePlan) -> Qwen3Model:
    """Load the weights in the planned dtype, straight to the planned device, from safetensors only.

    Raises:
        ModelNotFoundError: There are no safetensors.
        CorruptCheckpointError: A file is cut short, or names or shapes of tensors do not fit the config.
        OutOfMemoryError: The weights do not fit on the device.
        ModelLoadError: The installed transformers reads the config's rotary base differently.
    """
    weight_files(checkpoint.folder)
    from safetensors import SafetensorError
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(**{**checkpoint.config, "use_cache": False})
    # accelerate is needed for any device map; a plain load is already on the CPU.
    placement: dict[str, Any] = {} if plan.device == "cpu" else {"device_map": {"": plan.device}}
    # Typed loosely: with output_loading_info it returns a pair, which transformers' own annotations do not say.
    from_pretrained: Any = Qwen3Model.from_pretrained
    try:
        with _quiet_transformers():
            model, info = from_pretrained(
                checkpoint.folder,
                config=config,
                dtype=plan.torch_dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **placement,
            )
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            message = (
                f"{checkpoint.name} in {plan.dtype} does not fit into the memory of {plan.device}. "
                "Use a smaller model ('f2rag models' shows the memory of each), another dtype or another device."
            )
            raise OutOfMemoryError(message) from error
        message = (
            f"The weights in {str(checkpoint.folder)!r} cannot be loaded ({error}). Download the checkpoint again."
        )
        raise CorruptCheckpointError(message) from error
    _check_complete(checkpoint, info)
    _check_rotary_base(checkpoint, model)
    loaded: Qwen3Model = model.eval()
    return loaded


def last_token_states(model: Qwen3Model, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Final-norm hidden state of the last real token of right-padded rows.

    Args:
        model: The loaded model.
        ids: int64 (rows, tokens) on the model's device; anything after a row's last token is ignored.
        last: int64 (rows,), the position of each row's EOS.

    Returns:
        float32 (rows, native dimensions). The cast comes before slicing and normalising: norms of bf16 vectors are off
        by up to 0.4 %.
    """
    import torch

    hidden: torch.Tensor = model(
        input_ids=ids, attention_mask={"full_attention": None}, use_cache=False
    ).last_hidden_state
    return hidden[torch.arange(len(ids), device=ids.device), last].float()


def stock_last_token_states(model: Qwen3Model, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The same as ``last_token_states`` with transformers' own attention mask: slower, and the measure of right."""
    import torch

    positions = torch.arange(ids.shape[1], device=ids.device)
    mask = (positions[None, :] <= last[:, None]).long()
    hidden: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(ids), device=ids.device), last].float()


def self_test(model: Qwen3Model, plan: DevicePlan) -> float:
    """Largest difference between the fast and the stock forward on three rows of different lengths.

    Returns:
        Largest absolute difference of the unit vectors' components; NaN counts as infinite.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 3, 12])
    ids = torch.randint(0, model.config.vocab_size, (3, 12), generator=generator).to(plan.device)
    last = (lengths - 1).to(plan.device)
    with torch.inference_mode():
        fast = torch.nn.functional.normalize(last_token_states(model, ids, last), dim=1)
        stock = torch.nn.functional.normalize(stock_last_token_states(model, ids, last), dim=1)
    difference = float((fast - stock).abs().max())
    return difference if np.isfinite(difference) else float("inf")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that a device, or the CPU, had too little memory."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _check_complete(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key) for key in info["mismatched_keys"])
    if missing or mismatched:
        shown = ", ".join([*missing, *mismatched][:4])
        message = (
            f"The weights in {str(checkpoint.folder)!r} do not fit the config: {len(missing)} tensors are missing and "
            f"{len(mismatched)} have another shape ({shown}). Missing weights would be random: download the "
            "checkpoint again, config.json and weights from one revision."
        )
        raise CorruptCheckpointError(message)


def _check_rotary_base(checkpoint: Checkpoint, model: Qwen3Model) -> None:
    head_dim = int(checkpoint.config["head_dim"])
    expected = checkpoint.rope_theta ** (-2.0 / head_dim)
    frequencies = model.rotary_emb.inv_freq
    # bfloat16 frequencies would shift every position; they must stay float32 whatever the model's dtype.
    if str(frequencies.dtype) != "torch.float32" or abs(float(frequencies[1]) - expected) > 1e-6:
        message = (
            f"Rotary frequencies are {float(frequencies[1]):.6f} in {frequencies.dtype}; rope_theta="
            f"{checkpoint.rope_theta:g} needs {expected:.6f} in float32. This version of transformers reads the "
            "config differently: install one that f2rag supports."
        )
        raise ModelLoadError(message)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the weight progress bar and the tie-weights chatter of transformers while a model loads."""
    import transformers.utils.logging

    # Its helper functions carry no annotations.
    transformers_logging: Any = transformers.utils.logging
    shown = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()
