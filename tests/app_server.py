"""The search app as a process of its own: started with Streamlit's command on loopback, asked over HTTP, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from servers import free_ports, until

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "apps" / "search" / "streamlit_app.py"
DOCKERFILE = SCRIPT.with_name("Dockerfile")
# Streamlit's command, in a process that writes where each of its threads stands when it is asked to (``stacks``).
_PROGRAM = (
    "import faulthandler, signal; faulthandler.register(signal.SIGUSR1); "
    "from streamlit.web.cli import main; main(prog_name='streamlit')"
)
COMMAND = (sys.executable, "-c", _PROGRAM, "run", str(SCRIPT))


class AppServer:
    """One process of the app.

    It knows nothing of this process's settings: its environment is what is given here and a few variables that any
    program needs. It never asks the model hub.

    Args:
        folder: Its working directory, made if absent; the log lies there, and ``.f2rag`` unless told otherwise.
        environment: Further variables, such as ``F2RAG_*``.
        command: What is started.
        working_directory: Where it runs if that is another folder.
        port: Of loopback; a free one when not given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        working_directory: Path | None = None,
        port: int | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_ports(1)[0]
        self._command = list(command)
        self._working_directory = working_directory or folder
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
            "STREAMLIT_SERVER_HEADLESS": "true",
            **(environment or {}),
            "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said so far; nothing if somebody else started it."""
        file = self.folder / "app.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def stacks(self) -> str:
        """Where each of its threads stands; nothing if somebody else started it, or with a command of another kind."""
        if self._command[: len(COMMAND)] != list(COMMAND) or not self.running:
            return ""
        assert self._process is not None
        before = len(self.log)
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(1)  # the signal's handler writes without a word to anybody
        return self.log[before:]

    def start(self) -> AppServer:
        """Start it and wait until it answers; a port that somebody took meanwhile is replaced.

        Raises:
            RuntimeError: It ended, or does not answer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            self._launch()
            with contextlib.suppress(AssertionError):
                until(lambda: self.healthy() or not self.running)
            if self.healthy():
                return self
            self.stop()
            if "already in use" not in self.log and "not available" not in self.log:
                break
            self.port = free_ports(1)[0]
        raise RuntimeError(f"The app in {self.folder} did not get ready:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def healthy(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:
            return answer.status == 200
        return False

    def _launch(self) -> None:
        environment = {**self._environment, "STREAMLIT_SERVER_PORT": str(self.port)}
        with (self.folder / "app.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._working_directory, env=environment, stdout=log, stderr=log
            )


def visit(url: str, address: str, done: Callable[[list[Any]], object], *, seconds: float = 120) -> list[Any]:
    """Open a page as a browser does, and read what it draws.

    Args:
        url: Of the app.
        address: The query string, without its question mark.
        done: Told all elements that were drawn so far; the page is left when it says yes, or when it is finished.
        seconds: How long that may take.

    Raises:
        TimeoutError: It takes longer.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    socket = f"{url.replace('http', 'ws')}/_stcore/stream"
    drawn: list[Any] = []
    with connect(socket, subprotocols=["streamlit"], max_size=None, proxy=None) as connection:  # type: ignore[list-item]
        asked = BackMsg()
        asked.rerun_script.query_string = address
        connection.send(asked.SerializeToString())
        deadline = time.monotonic() + seconds
        while not done(drawn):
            message = ForwardMsg.FromString(connection.recv(timeout=deadline - time.monotonic()))
            if message.WhichOneof("type") == "delta":
                drawn.append(message.delta.new_element)
            elif message.WhichOneof("type") == "script_finished":
                break
    return drawn


def variables_of_the_image() -> dict[str, str]:
    """What the last stage of the app's Dockerfile sets."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.rpartition("\nFROM ")[2].splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.removeprefix("ENV ").split())
