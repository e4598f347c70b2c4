"""The most memory that this process held since it was last asked: of the machine, or of the GPU it computes on.

On Linux the kernel's own high-water mark is read and reset, so nothing is missed between samples; elsewhere the mark of
the whole life of the process is all there is. Nothing here knows what is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"
"""See ``man 5 proc``."""


def reset_peak(device: str) -> bool:
    """Forget the peak so far.

    Returns:
        Whether that is possible here; if not, ``peak_bytes`` is the peak since the process began.
    """
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _CLEAR.write_text(_RESET_HIGH_WATER_MARK, encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes(device: str) -> int:
    """Peak since the last reset: what torch allocated on a GPU, else the resident memory of this process."""
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
