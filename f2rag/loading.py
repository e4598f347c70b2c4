"""Loading the weights onto a device, and the checks that they are whole, in the planned dtype and read rightly.

From safetensors only, through transformers' public loading. Nothing here computes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from f2rag.checkpoint import Checkpoint, weight_files
from f2rag.errors import CorruptCheckpointError, ModelLoadError, OutOfMemoryError
from f2rag.memory import available_bytes, check_fits, shape_of

if TYPE_CHECKING:
    from transformers import Qwen3Model

    from f2rag.device import DevicePlan

_loading = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: the thread that held the lock, if one did, does not exist here."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

_NEVER_USED = ("lm_head.weight", "rotary_emb.inv_freq")
"""Tensors that some exports store and an embedder does not need."""


def load_model(checkpoint: Checkpoint, plan: DevicePlan) -> Qwen3Model:
    """Load the weights in the planned dtype, straight to the planned device, from safetensors only.

    What is held rounded is read on the CPU as stored, and rounded onto the device matrix by matrix. One model at a
    time in a process, whatever the thread: transformers sets torch's default dtype while it loads.

    Raises:
        ModelNotFoundError: There are no safetensors.
        CorruptCheckpointError: A file is cut short, or names or shapes of tensors do not fit the config.
        OutOfMemoryError: The weights do not fit on the device; where that is known, nothing was read yet.
        ModelLoadError: The config holds what f2rag does not run, or transformers reads it differently.
    """
    weight_files(checkpoint.folder)
    check_fits(
        checkpoint.name,
        shape_of(checkpoint.config),
        device=plan.device,
        dtype=plan.dtype,
        weight_dtype=plan.weight_dtype,
        available=available_bytes(plan.device),
    )
    rounded = plan.weight_dtype is not None
    # accelerate is needed for any device map; a plain load is already on the CPU.
    placement: dict[str, Any] = {} if plan.device == "cpu" or rounded else {"device_map": {"": plan.device}}
    # As stored, the weights stay mapped from their file until each is rounded.
    dtype = "auto" if rounded else plan.torch_dtype
    model = _read(checkpoint, dtype=dtype, options=placement, too_large=_too_large(checkpoint, plan))
    if rounded:
        _round(checkpoint, model, plan)
    mapped = plan.device == "cpu" and checkpoint.is_local and plan.dtype in _stored_dtypes(checkpoint)
    return _checked(checkpoint, model, plan, copy=mapped)


def load_part(checkpoint: Checkpoint, plan: DevicePlan, *, split: dict[str, Any], count: int) -> Qwen3Model:
    """Load this process's part of a model that several processes hold together.

    Args:
        checkpoint: The files.
        plan: dtype, and this process's own device.
        split: What asks transformers for its tensor-parallel plan.
        count: How many processes there are.

    Raises:
        CorruptCheckpointError: See ``load_model``.
        OutOfMemoryError: The part is too large for the device.
        ModelLoadError: See ``load_model``.
        torch.distributed.DistError: The processes lost each other.
    """
    import torch

    too_large = (
        f"The part of {checkpoint.name} in {plan.dtype} that {plan.device} should hold is too large: it ran out of "
        f"memory. Split the model over more than {count} devices, or use a smaller model ('f2rag models' shows the "
        "memory of each)."
    )
    lost = torch.distributed.DistError
    model = _read(checkpoint, dtype=plan.torch_dtype, options=split, too_large=too_large, passes=lost)
    return _checked(checkpoint, model, plan, copy=plan.device == "cpu")


def _read(
    checkpoint: Checkpoint,
    *,
    dtype: Any,
    options: dict[str, Any],
    too_large: str,
    passes: type[Exception] | tuple[type[Exception], ...] = (),
) -> Qwen3Model:
    """Read all weights, with transformers' errors in our words, except for those that pass as they are."""
    from transformers import Qwen3Config, Qwen3Model

    # Typed loosely: with output_loading_info it returns a pair, which transformers' own annotations do not say.
    from_pretrained: Any = Qwen3Model.from_pretrained
    try:
        with _loading, _quiet_transformers():
            model, info = from_pretrained(
                checkpoint.folder,
                config=Qwen3Config(**{**checkpoint.config, "use_cache": False}),
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except passes:
        raise
    except Exception as error:  # safetensors, huggingface_hub and transformers each raise classes of their own
        if is_out_of_memory(error):
            raise OutOfMemoryError(too_large) from error
        message = (
            f"The model in {str(checkpoint.folder)!r} cannot be loaded ({type(error).__name__}: {error}). "
            "Download the checkpoint again, config.json and weights from one revision."
        )
        raise CorruptCheckpointError(message) from error
    _check_complete(checkpoint, info)
    loaded: Qwen3Model = model
    return loaded


def _checked(checkpoint: Checkpoint, model: Qwen3Model, plan: DevicePlan, *, copy: bool) -> Qwen3Model:
    """The model, ready to compute, if it is what was planned.

    Args:
        checkpoint: The files.
        model: As read.
        plan: What it should be.
        copy: Weights that need no conversion are mapped from the file: whoever saves into that folder would change, or
            kill, this process. They are copied out of it.
    """
    _check_dtypes(checkpoint, model, plan)
    _check_rotary_frequencies(checkpoint, model)
    if copy:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    model.train(mode=False)
    return model


def _stored_dtypes(checkpoint: Checkpoint) -> set[str]:
    """Names of the floating dtypes in the files; of the headers only."""
    from safetensors import safe_open

    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    found: set[str] = set()
    for file in weight_files(checkpoint.folder):
        with safe_open(file, framework="numpy") as tensors:
            found.update(str(tensors.get_slice(name).get_dtype()) for name in tensors.keys())  # noqa: SIM118
    return {names.get(name, name) for name in found}


def _round(checkpoint: Checkpoint, model: Qwen3Model, plan: DevicePlan) -> None:
    # Imported here since whoever loads a model as it is does not need it.
    from f2rag.quantization import quantize_model

    assert plan.weight_dtype is not None
    try:
        quantize_model(model, weight_dtype=plan.weight_dtype, device=plan.device, dtype=plan.torch_dtype)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_too_large(checkpoint, plan)) from error


def _too_large(checkpoint: Checkpoint, plan: DevicePlan) -> str:
    return (
        f"{checkpoint.name} in {plan.weight_dtype or plan.dtype} does not fit into the memory of {plan.device}. Use a "
        "smaller model ('f2rag models' shows the memory of each), weight_dtype='int8', or another device."
    )


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
    unused = sorted(key for key in info["unexpected_keys"] if not key.endswith(_NEVER_USED))
    if missing or mismatched or unused:
        shown = ", ".join([*missing, *mismatched, *unused][:4])
        message = (
            f"The weights in {str(checkpoint.folder)!r} do not fit the config: {len(missing)} tensors are missing, "
            f"{len(mismatched)} have another shape and {len(unused)} have no place ({shown}). The vectors would be "
            "wrong: download the checkpoint again, config.json and weights from one revision."
        )
        raise CorruptCheckpointError(message)


def _check_dtypes(checkpoint: Checkpoint, model: Qwen3Model, plan: DevicePlan) -> None:
    wrong = {parameter.dtype for parameter in model.parameters()} - {plan.torch_dtype}
    if wrong:
        message = (
            f"{checkpoint.name} was loaded with weights in {', '.join(map(str, wrong))} instead of {plan.dtype}: "
            "something else in this process loaded a model at the same moment. Load again, one at a time."
        )
        raise ModelLoadError(message)


def _check_rotary_frequencies(checkpoint: Checkpoint, model: Qwen3Model) -> None:
    import torch

    head_dim = int(checkpoint.config["head_dim"])
    powers = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    expected = checkpoint.rope_theta**-powers
    found = model.rotary_emb.inv_freq
    # bfloat16 frequencies would shift every position; they must stay float32 whatever the model's dtype.
    if found.dtype != torch.float32 or not torch.allclose(found.cpu().double(), expected, rtol=1e-5, atol=0):
        message = (
            f"The rotary frequencies ({found.dtype}) are not those of rope_theta={checkpoint.rope_theta:g} in "
            "float32. This version of transformers reads the config differently: install one that f2rag supports."
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
