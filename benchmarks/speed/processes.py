"""The parent's side of a worker: start it with some Python, ask it, and notice when it is gone.

Nothing here knows what is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from benchmarks.speed.worker import receive, send

ROOT = Path(__file__).parent.parent.parent
"""What workers import ``benchmarks`` from."""

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Nothing is ever to be downloaded: the checkpoint is a folder."""

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""Masks AMX and AVX-512 off for torch and what it calls, to speak for laptops."""

_LAST_WORDS = 6
"""Lines of a dead worker's standard error that are reported."""


class ContestantError(Exception):
    """A contestant failed, or its process died; the run goes on without it."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a worker said.

    Attributes:
        said: The JSON object.
        vectors: float32 (rows, columns); empty where none were asked for.
    """

    said: dict[str, Any]
    vectors: npt.NDArray[np.float32]


class Process:
    """A worker.

    Args:
        python: Executable of the virtual environment that has the contestant's packages.
        environment: Variables besides the parent's own.
        patience: Seconds after which an answer is not waited for any longer; the process is then ended.
        label: For messages.
    """

    def __init__(
        self,
        python: str | Path,
        *,
        environment: Mapping[str, str] | None = None,
        patience: float = 1800,
        label: str = "worker",
    ) -> None:
        self.label = label
        self._patience = patience
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.speed.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **_OFFLINE, **(environment or {}), "PYTHONPATH": path},
            )
        except OSError:
            self._log.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = cast("BinaryIO", self._process.stdin)
        self._answers = cast("BinaryIO", self._process.stdout)

    def ask(self, do: str, /, **request: Any) -> Answer:
        """Send a request and wait for the answer.

        Raises:
            ContestantError: It failed, died, or took too long.
        """
        late = threading.Timer(self._patience, self._process.kill)
        late.start()
        try:
            send(self._requests, {"do": do, **request})
            said, numbers = receive(self._answers)
        except (EOFError, BrokenPipeError, OSError) as error:
            raise ContestantError(self._obituary(late)) from error
        finally:
            late.cancel()
        if "error" in said:
            raise ContestantError(str(said["error"]))
        shape: Sequence[int] = said.get("shape", (0, 0))
        return Answer(said, np.frombuffer(numbers, dtype=np.float32).reshape(shape))

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process; may be called twice."""
        with contextlib.suppress(BrokenPipeError):  # what was asked last may lie there unread
            self._requests.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._log.close()

    def _obituary(self, late: threading.Timer) -> str:
        code = self._process.wait()
        if not late.is_alive():
            return f"no answer within {self._patience:.0f} s; the process was ended"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with code {code}: {' | '.join(lines[-_LAST_WORDS:])}"


def has_modules(python: str | Path, names: Sequence[str]) -> set[str]:
    """Which of these modules another Python has; none if it cannot be started."""
    try:
        process = Process(python, patience=120, label="probe")
    except OSError:
        return set()
    try:
        return set(process.ask("modules", names=list(names)).said["found"])
    except ContestantError:
        return set()
    finally:
        process.close()
