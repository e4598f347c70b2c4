"""What a model needs and what a device has, known before a weight is read.

Weights are counted exactly, matrix by matrix. Activations are estimated from the shape, since what is alive at once
depends on kernels. A refusal is for what cannot work: it looks at the weights alone, because a batch that does not fit
is halved, and it lets borderline cases try. Needs no torch to count; asking a GPU imports it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from f2rag.errors import InputError, OutOfMemoryError

if TYPE_CHECKING:
    from f2rag.models import ModelSpec

    Shape: TypeAlias = "ModelSpec | ConfigShape"

BYTES: Final[Mapping[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by compute dtype."""

WEIGHT_DTYPES: Final = ("int8", "int4")
"""What the layers' matrices can be held in, besides the compute dtype; see ``quantization.py``."""

INT4_GROUP: Final = 32
"""As ``quantization.GROUP``, which cannot be imported without torch; a test compares them."""

_CUDA_OVERHEAD: Final = 500_000_000
"""Bytes of kernels, libraries' workspaces and the allocator's remainders in a process that computes on CUDA."""

_OTHER_OVERHEAD: Final = 100_000_000
"""The same elsewhere, beyond what the process holds anyway."""

_TRY: Final = 1.1
"""Weights up to so many times the free memory are tried: what is free is an estimate, and other programs let go."""

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_MEMORY_FILE: Final = Path("/proc/meminfo")
_NO_LIMIT: Final = 1 << 60
"""Version 1 of control groups writes a number above this where there is no limit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConfigShape:
    """What of a model decides its size, as ``ModelSpec`` has it too."""

    hidden_size: int
    layers: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that a model takes on its device.

    Attributes:
        weights: Embedding table, matrices and norms, exactly.
        activations: Of one batch; a smaller batch takes less.
        overhead: Of the libraries.
    """

    weights: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it, for batches of full size."""
        return self.weights + self.activations + self.overhead


def shape_of(config: Mapping[str, Any]) -> ConfigShape:
    """The shape in a repaired ``config.json``."""
    return ConfigShape(
        hidden_size=int(config["hidden_size"]),
        layers=int(config["num_hidden_layers"]),
        intermediate_size=int(config["intermediate_size"]),
        attention_heads=int(config["num_attention_heads"]),
        key_value_heads=int(config["num_key_value_heads"]),
        head_dim=int(config["head_dim"]),
        vocab_size=int(config["vocab_size"]),
    )


def weight_bytes(shape: Shape, *, dtype: str, weight_dtype: str | None = None) -> int:
    """Bytes of all weights, exactly.

    Args:
        shape: Of the model.
        dtype: Compute dtype, which the embedding table and the norms always have.
        weight_dtype: ``"int8"`` or ``"int4"`` for the layers' matrices, their scales included.

    Raises:
        InputError: One of the two is unknown.
    """
    if dtype not in BYTES:
        message = f"dtype={dtype!r} was given; expected one of {', '.join(BYTES)}."
        raise InputError(message)
    wide = BYTES[dtype]
    matrices = sum(_matrix_bytes(*matrix, wide=wide, weight_dtype=weight_dtype) for matrix in _matrices(shape))
    norms = 2 * shape.hidden_size + 2 * shape.head_dim
    table = (shape.vocab_size + 1) * shape.hidden_size  # the final norm is one row more
    return table * wide + shape.layers * (matrices + norms * wide)


def activation_bytes(shape: Shape, *, dtype: str, tokens: int, weight_dtype: str | None = None) -> int:
    """About the most bytes of activations that are alive at once in a forward of so many tokens.

    Per token, in numbers of the compute dtype: the residual, its norm and the sum of both (three times the hidden
    size), and the wider of the two halves of a layer. In attention that is queries, keys and values, with the queries
    and keys once more in float32 while they are turned, and what was attended; in the MLP, gate, up and their product.
    Rounded matrices are widened to the compute dtype one at a time, of which the largest counts.
    """
    wide = BYTES[dtype]
    heads = shape.attention_heads + shape.key_value_heads
    attention = (shape.attention_heads + heads + shape.key_value_heads) * wide + heads * 4
    mlp = 3 * shape.intermediate_size * wide
    widest = max(attention * shape.head_dim, mlp)
    matrix = 0 if weight_dtype is None else max(rows * columns for rows, columns in _matrices(shape)) * wide
    return tokens * (3 * shape.hidden_size * wide + widest) + matrix


def needed(shape: Shape, *, device: str, dtype: str, tokens: int, weight_dtype: str | None = None) -> Need:
    """What a model takes on a device.

    Args:
        shape: Of the model.
        device: ``"cpu"``, ``"cuda:0"``...
        dtype: Compute dtype.
        tokens: Padded tokens of a batch.
        weight_dtype: Of the layers' matrices, if not the compute dtype.
    """
    return Need(
        weights=weight_bytes(shape, dtype=dtype, weight_dtype=weight_dtype),
        activations=activation_bytes(shape, dtype=dtype, tokens=tokens, weight_dtype=weight_dtype),
        overhead=_CUDA_OVERHEAD if device.startswith("cuda") else _OTHER_OVERHEAD,
    )


def available_bytes(device: str) -> int | None:
    """Bytes that this process can still take on a device; ``None`` where nothing tells.

    On CUDA also what torch holds and does not use. On the CPU what the system and its control groups leave, with the
    page cache counted as free, since it is given back when memory is asked for.
    """
    if device == "cpu":
        known = [free for free in (_system_memory(), _control_group_memory()) if free is not None]
        return min(known, default=None)
    import torch

    try:
        if device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info(device)
            return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    except (RuntimeError, AssertionError, AttributeError):  # no such device, or a torch that cannot tell
        return None


def check_fits(
    name: str, shape: Shape, *, device: str, dtype: str, weight_dtype: str | None = None, available: int | None
) -> None:
    """Refuse a model whose weights cannot fit; say nothing where it is close, or where nothing is known.

    Args:
        name: Of the model, for the message.
        shape: Of the model.
        device: ``"cpu"``, ``"cuda:0"``...
        dtype: Compute dtype.
        weight_dtype: Of the layers' matrices, if not the compute dtype.
        available: What ``available_bytes`` said.

    Raises:
        OutOfMemoryError: It cannot, with what is needed, what is free and what to do.
    """
    weights = weight_bytes(shape, dtype=dtype, weight_dtype=weight_dtype)
    if available is None or weights <= available * _TRY:
        return
    message = (
        f"{name} needs {gigabytes(weights)} for its weights in {weight_dtype or dtype}; {device} has "
        f"{gigabytes(available)} free. {advice(shape, device=device, dtype=dtype, available=available)}"
    )
    raise OutOfMemoryError(message)


def fits(shape: Shape, *, device: str, dtype: str, tokens: int, weight_dtype: str | None = None) -> tuple[bool, str]:
    """Whether a model fits, and one line that says so: ``"needs 1.6 GB in bfloat16, cuda:0 has 22 GB free: fits"``."""
    need = needed(shape, device=device, dtype=dtype, tokens=tokens, weight_dtype=weight_dtype)
    available = available_bytes(device)
    wanted = f"needs {gigabytes(need.total)} in {weight_dtype or dtype}"
    if available is None:
        return True, f"{wanted}; what {device} has free cannot be known here"
    found = f"{wanted}, {device} has {gigabytes(available)} free"
    if need.total <= available:
        return True, f"{found}: fits"
    if need.weights + need.overhead <= available:
        return True, f"{found}: fits with smaller batches"
    return False, f"{found}: does not fit. {advice(shape, device=device, dtype=dtype, available=available)}"


def advice(shape: Shape, *, device: str, dtype: str, available: int) -> str:
    """What fits instead: this model in fewer bits, or the largest published one that does, or neither."""
    from f2rag.models import MODELS

    smaller = [
        f"weight_dtype={kind!r} ({gigabytes(size)})"
        for kind in WEIGHT_DTYPES
        if (size := weight_bytes(shape, dtype=dtype, weight_dtype=kind)) <= available
    ]
    own = weight_bytes(shape, dtype=dtype)
    fitting: list[ModelSpec] = [
        spec
        for spec in MODELS
        if spec.kind == "instruct" and weight_bytes(spec, dtype=dtype) <= min(available, own - 1)
    ]
    if fitting:
        largest = max(fitting, key=lambda spec: spec.parameters)
        smaller.append(f"the {largest.short_name} model ({gigabytes(weight_bytes(largest, dtype=dtype))})")
    if not smaller:
        return "No F2LLM-v2 model fits: free some memory" + ("." if device == "cpu" else ", or use device='cpu'.")
    elsewhere = "" if device == "cpu" else ", or another device"
    return f"Use {' or '.join(smaller)}{elsewhere}."


def gigabytes(size: int) -> str:
    """A size for people: ``"28 GB"``, ``"1.2 GB"``, ``"160 MB"``."""
    if size >= 9.95e9:
        return f"{size / 1e9:.0f} GB"
    return f"{size / 1e9:.1f} GB" if size >= 0.9995e9 else f"{size / 1e6:.0f} MB"


def _matrices(shape: Shape) -> Iterator[tuple[int, int]]:
    """Outputs and inputs of the seven matrices of a layer."""
    queries, keys = shape.attention_heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    yield queries, shape.hidden_size
    yield keys, shape.hidden_size
    yield keys, shape.hidden_size
    yield shape.hidden_size, queries
    yield shape.intermediate_size, shape.hidden_size
    yield shape.intermediate_size, shape.hidden_size
    yield shape.hidden_size, shape.intermediate_size


def _matrix_bytes(outputs: int, inputs: int, *, wide: int, weight_dtype: str | None) -> int:
    if weight_dtype is None:
        return outputs * inputs * wide
    if weight_dtype == "int8":
        return outputs * (inputs + 4)
    if weight_dtype == "int4":
        group = INT4_GROUP
        while inputs % group:
            group //= 2
        return outputs * (inputs // 2 + inputs // group * 4)
    message = f"weight_dtype={weight_dtype!r} was given; expected 'int8' or 'int4', or None."
    raise InputError(message)


def _system_memory() -> int | None:
    try:
        lines = _MEMORY_FILE.read_text(encoding="ascii").splitlines()
    except OSError:
        return _from_psutil() if sys.platform != "linux" else None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    free = sizes.get("MemAvailable", "").split()
    return int(free[0]) * 1024 if free else None


def _from_psutil() -> int | None:
    """Where there is no ``/proc``: the system's word through psutil, if that happens to be installed."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _control_group_memory() -> int | None:
    """What the limits of a container or service leave to this process."""
    free = [left for folder in _control_groups() if (left := _left_in(folder)) is not None]
    return min(free, default=None)


def _control_groups() -> Iterator[Path]:
    """The folders of this process's groups and of all groups around them; in a container their root is at the top."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUP_ROOT / "memory" if controllers else _CGROUP_ROOT
        folder = root / path.lstrip("/")
        yield folder
        yield from (above for above in folder.parents if above == root or root in above.parents)
        yield root


def _left_in(folder: Path) -> int | None:
    for limit_name, used_name, cached_name, kept_name in (
        ("memory.max", "memory.current", "file", "shmem"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
    ):
        try:
            limit = (folder / limit_name).read_text(encoding="ascii").strip()
            used = int((folder / used_name).read_text(encoding="ascii"))
            statistics = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            continue
        if limit == "max" or int(limit) >= _NO_LIMIT:
            return None
        sizes = dict(line.split(maxsplit=1) for line in statistics)
        # Page cache is given back under pressure; files that live in memory (tmpfs) are counted in it and are not.
        cached = int(sizes.get(cached_name, 0)) - int(sizes.get(kept_name, 0))
        return max(int(limit) - used + max(cached, 0), 0)
    return None
