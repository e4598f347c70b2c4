"""Compiling the parts of a layer between its matrix products, so that norms, rotation and gate are one pass each.

Where the matrix products are fast (a GPU, or a CPU with AMX) these passes over memory take as long as the products. Two
functions are compiled once for all layers and all lengths. That takes tens of seconds, so it begins when enough has
been computed to say that it will pay, in a thread beside the work, and its result is used only if it computes the same.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from f2rag import layers
from f2rag.device import cpu_has_amx

if TYPE_CHECKING:
    from f2rag.device import DevicePlan
    from f2rag.forward import FastForward

logger = logging.getLogger(__name__)

_PAYS_AFTER_CPU = 200_000
"""Tokens after which compiling pays on a CPU with AMX: 13 s of compiling against 5.4 k and then 8.5 k tokens/s."""

_PAYS_AFTER_ACCELERATOR = 4_000_000
"""The same on a GPU; between 2 M tokens with a warm cache of compiled kernels and 13 M with a cold one for 0.6B."""


class Compilation:
    """Compiles a fast forward, when asked or when it pays.

    Args:
        fast: Whose parts are compiled; replaced in place when they are ready.
        plan: Device and dtype.
        difference: Compares a fast forward with the stock one, as at load.
        tolerance: Largest difference that is rounding.
    """

    def __init__(
        self, fast: FastForward, plan: DevicePlan, *, difference: Callable[[FastForward], float], tolerance: float
    ) -> None:
        self.state = "not compiled"
        self._fast = fast
        self._plan = plan
        self._difference = difference
        self._tolerance = tolerance
        self._tokens = 0
        self._once = threading.Lock()
        self._counted = False
        self._begun = False
        self._pays_after = _pays_after(plan)

    def count(self, tokens: int) -> None:
        """Note that tokens were computed; begins to compile in the background when it pays."""
        self._tokens += tokens
        if self._pays_after is not None and self._tokens >= self._pays_after and not self._counted:
            self._counted = True
            threading.Thread(target=self.run, name="f2rag-compile", daemon=True).start()

    def run(self) -> bool:
        """Compile now, once in a lifetime.

        Returns:
            Whether compiled parts are in use.
        """
        with self._once:
            if not self._begun:
                self._begun = True
                self._compile()
            return self.state == "compiled"

    def _compile(self) -> None:
        lacking = what_lacks(self._plan.device)
        if lacking is not None:
            self.state = f"not compiled: {lacking}"
            logger.info("Not compiled: %s.", lacking)
            return
        started = time.monotonic()
        trial = copy.copy(self._fast)
        try:
            trial.project = torch.compile(layers.project, dynamic=True)
            trial.finish = torch.compile(layers.finish, dynamic=True)
            difference = self._difference(trial)
        except Exception as error:  # whatever a compiler raises: the work goes on without it
            self.state = f"not compiled: {type(error).__name__}"
            logger.warning("Compiling failed, going on without: %s: %s", type(error).__name__, error)
            return
        if difference > self._tolerance:
            self.state = f"not compiled: the result differs by {difference:.1e}"
            logger.warning("What was compiled differs by %.1e and is not used.", difference)
            return
        self._fast.project, self._fast.finish = trial.project, trial.finish
        self.state = "compiled"
        logger.info("Compiled in %.0f s.", time.monotonic() - started)


def what_lacks(device: str) -> str | None:
    """What torch needs for compiling and does not find; ``None`` if nothing."""
    if device == "cpu":
        compilers = (os.environ.get("CXX", ""), "g++", "clang++")
        return None if any(map(shutil.which, filter(None, compilers))) else "there is no C++ compiler (g++)"
    if device.startswith("cuda"):
        return None if importlib.util.find_spec("triton") else "the package triton is not installed"
    return f"torch does not compile for {device}"


def _pays_after(plan: DevicePlan) -> int | None:
    if plan.weight_dtype is not None:
        return None
    if plan.device.startswith("cuda"):
        return _PAYS_AFTER_ACCELERATOR
    # Elsewhere a CPU's matrix products and attention take five sixths of the time: measured, in float32 on Intel and in
    # bfloat16 on AMD, nothing was gained.
    return _PAYS_AFTER_CPU if plan.device == "cpu" and plan.dtype != "float32" and cpu_has_amx() else None
