"""Qdrant servers: where they are, how to reach them, and what to do when one does not answer."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from pydantic import SecretStr
from qdrant_client import QdrantClient

from f2rag.store.failures import translated
from f2rag.store.features import version_of
from f2rag.store.homes import HomeKind, Version

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    api_key: SecretStr | str | None = None
    grpc_port: int | Sequence[int | None] | Literal["auto"] | None = "auto"
    timeout: float = 30.0
    retry_seconds: float = 60.0
    ca_certificate: str | None = None


@dataclasses.dataclass(frozen=True)
class Server(_Options):
    """A Qdrant server, or the nodes of a cluster in the order in which they are asked."""

    url: str | Sequence[str]

    def connect(self) -> ServerConnection:
        """A connection; nothing is sent yet."""
        key = self.api_key.get_secret_value() if isinstance(self.api_key, SecretStr) else self.api_key
        url = self.url if isinstance(self.url, str) else self.url[0]
        client = QdrantClient(
            url=url, headers={"api-key": key} if key else None, timeout=int(self.timeout), check_compatibility=False
        )
        return ServerConnection(client, name=f"Qdrant at {url}", owned=True)


class ServerConnection:
    """The way to one server or the nodes of one cluster."""

    kind: HomeKind = "server"
    local = False

    def __init__(self, client: QdrantClient, *, name: str, owned: bool) -> None:
        self.name = name
        self._client = client
        self._owned = owned
        self._version: Version | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_client(cls, client: QdrantClient, *, owned: bool) -> ServerConnection:
        """Through a client that somebody else made."""
        return cls(client, name="Qdrant at the given client", owned=owned)

    @property
    def version(self) -> Version | None:
        """Version of the server."""
        with self._lock:
            if self._version is None:
                self._version = version_of(self.read(lambda client: client.info()).version)
            return self._version

    def read(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of the client."""
        with translated(self.name):
            return call(self._client)

    def write(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of the client."""
        return self.read(call)

    def close(self) -> None:
        """Close the client if it was made here."""
        if self._owned:
            self._client.close()
