"""What a reader needs to know of the machine to judge a time, and whether something else was computing beside it.

Knows no contestant and imports no torch: what it reports must not depend on what was measured.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
"""What decides which matrix products are fast."""

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", "ONEDNN_MAX_CPU_ISA")
"""Environment variables that change times."""

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "langchain-huggingface",
    "langchain-qdrant",
    "llama-index-core",
    "llama-index-embeddings-huggingface",
    "llama-index-vector-stores-qdrant",
    "qdrant-client",
    "numpy",
)

QUIET_SHARE = 0.10
"""Others may take this share of all cores; beyond it bf16 peers fall by half and more, and no ratio holds."""


@dataclasses.dataclass(frozen=True)
class Load:
    """How busy the machine is.

    Attributes:
        others: Share of all cores that every process but this one takes, 0..1.
        average: The system's load average over one minute, or -1 where there is none.
    """

    others: float
    average: float

    @property
    def is_quiet(self) -> bool:
        """Whether times may be believed."""
        return self.others <= QUIET_SHARE


def measure_load(seconds: float = 3.0) -> Load:
    """Watch the machine for some seconds, during which this process sleeps."""
    others = psutil.cpu_percent(interval=seconds) / 100
    average = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    return Load(others=round(others, 3), average=round(average, 2))


def processor() -> tuple[str, list[str]]:
    """Name of the processor, and which of the flags that matter it has; both empty where the system does not say."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor(), []
    fields = dict(
        [part.strip() for part in line.split(":", 1)]
        for line in info.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        if ":" in line
    )
    flags = set(fields.get("flags", "").split())
    return fields.get("model name", platform.machine()), [flag for flag in _FLAGS if flag in flags]


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions; packages that are absent are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured, with a ``+`` if files had been changed since; empty outside a repository."""
    folder = Path(__file__).parent
    asked = [["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
    try:
        name, changed = (
            subprocess.run(["git", *each], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for each in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{name}+" if changed else name


def facts(*, load: Load, packages: Sequence[str] = PACKAGES, **given: Any) -> dict[str, Any]:
    """Everything that goes beside the numbers of a result file.

    Args:
        load: As it was before the first measurement.
        packages: Whose versions matter.
        **given: Seeds, sizes and whatever else was chosen.
    """
    import f2rag

    name, flags = processor()
    return {
        "processor": name,
        "architecture": platform.machine(),
        "flags": flags,
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit(),
        "f2rag": f2rag.__version__,
        **versions(packages),
        "environment": {key: os.environ[key] for key in _VARIABLES if key in os.environ},
        "load_before": dataclasses.asdict(load),
        **given,
    }
