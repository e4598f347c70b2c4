"""The way to a Qdrant client: one lock before the local mode, bounded retries before a server.

Whoever needs the client says what to do with it, ``connection.read(lambda client: client.query_points(...))``, and gets
the answer or an error of f2rag. It knows neither collections nor documents.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

from qdrant_client import QdrantClient

from f2rag.errors import InputError
from f2rag.store.failures import translated
from f2rag.store.homes import MEMORY, HomeKind, Version

T = TypeVar("T")

_locks: weakref.WeakKeyDictionary[QdrantClient, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


class Connection(Protocol):
    """A client, or several clients of one cluster, and what stands between them and a caller.

    Attributes:
        kind: ``"memory"``, ``"client-local"`` or ``"server"``.
        name: For messages; it never holds a key.
        local: Whether it is qdrant-client's mode in pure Python (memory or folder), which ignores much of what it is
            asked for.
    """

    kind: HomeKind
    name: str
    local: bool

    @property
    def version(self) -> Version | None:
        """Version of the server; ``None`` of the local mode.

        Raises:
            StoreUnavailableError: The server does not answer.
        """

    def read(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of the client; repeated, for as long as an answer is waited for.

        Raises:
            StoreError: Or the subclass that fits.
            InputError: Something that the engine cannot read.
        """

    def write(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of the client; repeated until it succeeds, so it must do no harm a second time.

        A write that failed on a cluster may have been done in part: the repetition is what completes it.

        Raises:
            StoreError: Or the subclass that fits.
            InputError: Something that the engine cannot read.
        """

    def close(self) -> None:
        """Let go of the clients that were made here; a second time does nothing."""


class LocalConnection:
    """The client's local mode, which is not thread-safe: all calls to one client go through one lock.

    Args:
        client: In memory or of a folder.
        owned: Whether ``close`` closes it.
    """

    local = True
    version: Version | None = None

    def __init__(self, client: QdrantClient, *, owned: bool) -> None:
        path = client.init_options.get("path")
        self.kind: HomeKind = "client-local" if path else "memory"
        self.name = str(path) if path else MEMORY
        self._client = client
        self._owned = owned
        self._lock = _lock_of(client)

    def read(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of the client, alone with it."""
        with translated(self.name), self._lock:
            return call(self._client)

    def write(self, call: Callable[[QdrantClient], T]) -> T:
        """As ``read``: what fails in this process would fail again."""
        return self.read(call)

    def close(self) -> None:
        """Close the client if it is owned."""
        if self._owned:
            self.read(lambda client: client.close())


def connection_of(client: QdrantClient, *, owned: bool) -> Connection:
    """The connection that goes through a given client.

    Args:
        client: In memory, of a folder, or of a server.
        owned: Whether closing the connection closes the client.

    Raises:
        InputError: It is no ``QdrantClient``.
    """
    if not isinstance(client, QdrantClient):
        raise InputError(
            f"A qdrant_client.QdrantClient is expected, not {type(client).__name__}. The async methods of the store "
            "need no other client."
        )
    options = client.init_options
    if options.get("path") or options.get("location") == MEMORY:
        return LocalConnection(client, owned=owned)
    from f2rag.store.server import ServerConnection

    return ServerConnection.of_client(client, owned=owned)


def _lock_of(client: QdrantClient) -> threading.RLock:
    """The one lock of a client, shared by every connection to it."""
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())
