"""Which device, dtype and token budget a model runs with, and the one line that explains the choice.

The dtype follows what the hardware computes fast, never what the checkpoint happens to store: transformers 5 loads the
stored dtype (bf16 for F2LLM-v2), which is emulated, and many times slower, on most CPUs. This file loads no model.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from f2rag.errors import DeviceError
from f2rag.onednn import limit_kept_products
from f2rag.threads import import_torch

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
"""The compute dtypes that can be asked for."""

ROUNDING = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest difference of a unit vector's component that rounding alone explains, by dtype."""

_CPU_TOKEN_BUDGET = 1024
"""Padded tokens per forward on a CPU.

Activations stay near the caches, and their memory is used again instead of being mapped anew for every layer. Measured
in the 80M's shape on a Zen 4, with passages: 2,048 tokens take 1.19 times as long in bfloat16, 1.11 times in float32;
with 512, headers and instructions that texts share are computed more often.
"""

_ACCELERATOR_TOKEN_BUDGET = 16384
"""Padded tokens per forward on a GPU: matrix products stop getting more efficient at about this size."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """Where and how a model runs.

    Attributes:
        device: ``"cpu"``, ``"cuda:0"``, ``"mps"``, or several with commas between, over which the model is split.
        dtype: Compute dtype by name, one of ``DTYPES``.
        token_budget: Padded tokens per forward, before any out-of-memory back-off.
        reason: Why, in one line.
        weight_dtype: What the layers' matrices are held in, if not the compute dtype; see ``quantization.py``.
    """

    device: str
    dtype: str
    token_budget: int
    reason: str
    weight_dtype: str | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices one by one; more than one if the model is split."""
        return tuple(self.device.split(","))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The compute dtype as torch's own object."""
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def rounding(self) -> float:
        """Largest difference of a unit vector's component that rounding alone explains."""
        # Rounded to int8, two activations that differ in their last bit may differ by a whole step.
        return max(ROUNDING[self.dtype], ROUNDING["bfloat16"] if self.weight_dtype == "int8" else 0.0)

    def describe(self) -> str:
        """One line for people: ``cpu, bfloat16: the CPU has AMX tiles for bfloat16``."""
        weights = f" with {self.weight_dtype} weights" if self.weight_dtype else ""
        return f"{self.device}, {self.dtype}{weights}: {self.reason}"


def plan_device(device: str | None = None, dtype: str | None = None, weight_dtype: str | None = None) -> DevicePlan:
    """Choose device and dtype by capability; what is given is kept, or refused if this machine lacks it.

    Args:
        device: ``None`` takes the first CUDA device, else Apple's MPS, else the CPU. Several, ``"cuda:0,cuda:1"``,
            split the model over them.
        dtype: ``None`` chooses by capability.
        weight_dtype: ``"int8"`` or ``"int4"`` for the layers' matrices; ``None`` for the dtype.

    Raises:
        DeviceError: The device is absent, or the dtype is unknown or not supported there.
    """
    import_torch()
    wanted = _check_dtype(dtype)
    devices = _check_devices(device, weight_dtype) if device is not None else (_first_device(),)
    # What all of them compute fast: their shares of one layer are added up.
    best, reason = max(map(_best_dtype, devices), key=lambda choice: choice[0] == "float32")
    if wanted is not None and wanted != best:
        reason = "dtype as given"
    if len(devices) > 1:
        reason = f"split over {len(devices)} {'processes' if devices[0] == 'cpu' else 'cards'}; {reason}"
    on_cpu = devices[0] == "cpu"
    if on_cpu:
        limit_kept_products()
    budget = _CPU_TOKEN_BUDGET if on_cpu else _ACCELERATOR_TOKEN_BUDGET
    return DevicePlan(
        device=",".join(devices), dtype=wanted or best, token_budget=budget, reason=reason, weight_dtype=weight_dtype
    )


def check_dtype_name(dtype: object) -> str | None:
    """Return the plain name of a dtype given as ``None``, ``"auto"``, a name or a torch dtype; imports no torch.

    Raises:
        DeviceError: The name is none of ``DTYPES``.
    """
    return _check_dtype(dtype)


def _check_dtype(dtype: object) -> str | None:
    if dtype is None or dtype == "auto":
        return None
    aliases = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16", "half": "float16"}
    name = str(dtype).removeprefix("torch.").lower()
    name = aliases.get(name, name)
    if name not in DTYPES:
        message = f"dtype={dtype!r} was given; expected one of {', '.join(DTYPES)}, or None to choose by hardware."
        raise DeviceError(message)
    return name


def _check_devices(device: str, weight_dtype: str | None) -> tuple[str, ...]:
    names = tuple(_check_device(name.strip()) for name in device.split(","))
    if len(names) == 1:
        return names
    cards = all(name.startswith("cuda") for name in names) and len(set(names)) == len(names)
    if not cards and set(names) != {"cpu"}:
        message = (
            f"device={device!r} was given; a model is split over different CUDA devices, e.g. 'cuda:0,cuda:1' "
            "(or, to try it, over processes on one CPU: 'cpu,cpu')."
        )
        raise DeviceError(message)
    if weight_dtype is not None:
        message = (
            f"device={device!r} and weight_dtype={weight_dtype!r} were given; a model that is split is held in its "
            "compute dtype. Leave one of the two out."
        )
        raise DeviceError(message)
    return names


def _check_device(device: str) -> str:
    import torch

    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        message = f"device={device!r} was given; expected 'cpu', 'cuda', 'cuda:0', 'mps', or None to choose."
        raise DeviceError(message) from error
    if parsed.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = parsed.index or 0
        if index >= count:
            message = (
                f"device={device!r} was given; this machine has {count} CUDA devices that torch can use. "
                "Use device='cpu', or install a torch build for your CUDA driver."
            )
            raise DeviceError(message)
        return f"cuda:{index}"
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        message = f"device={device!r} was given; torch finds no Apple GPU here. Use device='cpu'."
        raise DeviceError(message)
    if parsed.type not in {"cpu", "mps"}:
        message = f"device={device!r} was given; f2rag runs on 'cpu', 'cuda' and 'mps'."
        raise DeviceError(message)
    return parsed.type


def _first_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: str) -> tuple[str, str]:
    import torch

    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return "bfloat16", f"{name} computes bfloat16"
        # No one has shown float16 to be safe for F2LLM-v2, whose MLPs have large activation outliers.
        return "float32", f"{name} has no bfloat16 units, and float16 is unproven for these models"
    if device == "mps":
        return "float32", "exact on Apple GPUs"
    if cpu_has_amx():
        return "bfloat16", "the CPU has AMX tiles for bfloat16"
    if _amd_computes_bfloat16():
        return "bfloat16", "the CPU is an AMD with bfloat16 units, twice as fast as float32"
    # Measured on an Intel CPU with AVX512-BF16 but no AMX: bfloat16 products ran at 0.6-0.8 times the speed of float32.
    return "float32", "neither AMX tiles nor AMD's bfloat16 units are usable here, without which bfloat16 is slower"


def cpu_has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 in AMX tiles, and torch's libraries may use them."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        has_tiles = torch.cpu.get_capabilities().get("amx_bf16")
    else:  # before torch 2.10 only a private function tells
        has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return bool(has_tiles) and _onednn_takes_bfloat16()


def _amd_computes_bfloat16() -> bool:
    """Whether this is an AMD CPU from Zen 4 on, as far as torch tells its maker; before 2.10 it does not.

    Measured on Zen 4: matrix products in bfloat16 run at 2.3 to 2.7 times the speed of float32. On Intel the same
    instructions have no such advantage.
    """
    import torch

    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return str(found.get("cpu_name")).startswith("AMD") and bool(found.get("avx512_bf16")) and _onednn_takes_bfloat16()


def _onednn_takes_bfloat16() -> bool:
    """Whether torch's CPU library computes bfloat16: it is part of the build, and no ``ONEDNN_MAX_CPU_ISA`` forbids."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # nothing public asks the library
    except (AttributeError, RuntimeError):
        return False
