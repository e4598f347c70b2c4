"""One address of a Qdrant server: its client, over gRPC where that answers and over REST elsewhere.

Calls made inside ``within(seconds)`` end by then. It tries once; what to do after a failure is for ``server.py``.
"""

from __future__ import annotations

import dataclasses
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # ships no types
import httpx
from pydantic import SecretStr
from qdrant_client import QdrantClient
from qdrant_client import grpc as messages

from f2rag.errors import InputError
from f2rag.store.features import version_of
from f2rag.store.homes import Version

REST_PORT = 6333
GRPC_PORT = 6334

_PROBE_SECONDS = 3.0
_GRPC_AGAIN_SECONDS = 60.0
_CHANNELS = 4
_RECONNECT = {
    # Without these a channel that lost its server waits up to two minutes before it looks again.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    # In spite of its name the time that making one connection may take.
    "grpc.min_reconnect_backoff_ms": 5000,
    # Channels to one address share what they know of it otherwise, also that it was gone a moment ago.
    "grpc.use_local_subchannel_pool": 1,
}

_until: ContextVar[float | None] = ContextVar("_until", default=None)

logger = logging.getLogger(__name__)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let calls of this thread to clients made here end in ``seconds``, whatever their own limit."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Where one server listens.

    Attributes:
        url: Scheme, host, port and path; nothing secret.
        grpc_port: ``None`` for REST alone.
    """

    url: str
    grpc_port: int | None

    @property
    def secure(self) -> bool:
        """Whether it is reached over TLS."""
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        """The host, an IPv6 one in brackets."""
        host = urlsplit(self.url).hostname or ""
        return f"[{host}]" if ":" in host else host


class Endpoint(Protocol):
    """One way to a server."""

    name: str

    @property
    def version(self) -> Version | None:
        """Version of the server; ``None`` while it is not known."""

    def client(self) -> QdrantClient:
        """A client that is connected; may raise what qdrant-client raises."""

    def lost(self, client: QdrantClient | None) -> None:
        """Forget a client whose server went away."""

    def close(self) -> None:
        """Close what was made here."""


class GivenEndpoint:
    """A client that somebody else made, with its own time limits."""

    def __init__(self, client: QdrantClient, *, owned: bool) -> None:
        self.name = _address_of(client)
        self.version: Version | None = None
        self._client = client
        self._owned = owned

    def client(self) -> QdrantClient:
        """The client."""
        return self._client

    def lost(self, client: QdrantClient | None) -> None:
        """Nothing to do: it is the only one."""

    def close(self) -> None:
        """Close the client if it is owned."""
        if self._owned:
            self._client.close()


class AddressEndpoint:
    """An address; its clients are made when they are needed, and the way to it is looked for again when it was lost."""

    def __init__(
        self, address: Address, *, api_key: SecretStr | None, timeout: int, ca_certificate: Path | None
    ) -> None:
        self.name = address.url
        self.version: Version | None = None
        self._address = address
        self._api_key = api_key
        self._timeout = timeout
        self._certificate = ca_certificate.read_bytes() if ca_certificate else None
        self._lock = threading.Lock()
        self._current: QdrantClient | None = None
        self._rest: QdrantClient | None = None
        self._grpc_again = 0.0
        self._told = False

    def client(self) -> QdrantClient:
        """The connected client; asks the server for its version when the way to it is new."""
        current = self._current
        if current is None or (current is self._rest and self._grpc_due()):
            current = self._connect()
        return current

    def lost(self, client: QdrantClient | None) -> None:
        """Look for the way again at the next call."""
        with self._lock:
            if self._current is client:
                self._current = None

    def close(self) -> None:
        """Close the clients."""
        with self._lock:
            clients = {id(client): client for client in (self._current, self._rest) if client is not None}
            self._current = self._rest = None
        for client in clients.values():
            client.close()

    def _grpc_due(self) -> bool:
        return self._address.grpc_port is not None and time.monotonic() >= self._grpc_again

    def _connect(self) -> QdrantClient:
        """Find out which way is open. Threads may do so at the same time: waiting for each other would add up."""
        if self._grpc_due():
            version = self._probe_grpc()
            if version is not None:
                with self._lock:
                    self.version = version
                    if self._current is None or self._current is self._rest:
                        self._current = self._make_grpc()
                    return self._current
        with self._lock:
            rest = self._rest = self._rest or self._make_rest()
        self.version = version_of(rest.info().version)
        if self._grpc_due():
            self._grpc_again = time.monotonic() + _GRPC_AGAIN_SECONDS
            if not self._told:
                self._told = True
                logger.warning(
                    "%s: gRPC on port %s does not answer, so REST is used; bulk loads take about three times as long",
                    self.name,
                    self._address.grpc_port,
                )
        with self._lock:
            self._current = rest
        return rest

    def _probe_grpc(self) -> Version | None:
        """Version of the server if Qdrant answers over gRPC; asked without the key: the port may be a stranger's."""
        target = f"{self._address.host}:{self._address.grpc_port}"
        options = list(_RECONNECT.items())
        if self._address.secure:
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(self._certificate), options)
        else:
            channel = grpc.insecure_channel(target, options)
        with channel:
            try:
                stub = messages.QdrantStub(channel)  # type: ignore[no-untyped-call]  # generated code
                reply = stub.HealthCheck(messages.HealthCheckRequest(), timeout=_left(_PROBE_SECONDS))
            except grpc.RpcError:
                return None
        return version_of(reply.version)

    def _make_rest(self) -> QdrantClient:
        trust: dict[str, Any] = {}
        if self._certificate is not None:
            trust["verify"] = ssl.create_default_context(cadata=self._certificate.decode("ascii"))
        client = self._make(**trust)
        client.http.client.add_middleware(_limit_rest)
        return client

    def _make_grpc(self) -> QdrantClient:
        trust = {} if self._certificate is None else {"root_certificates": self._certificate}
        client = self._make(
            grpc_port=self._address.grpc_port,
            prefer_grpc=True,
            pool_size=_CHANNELS,
            grpc_options={**_RECONNECT, **trust},
        )
        # The client hands out its channels in turn, whatever is asked for, so each kind of stub goes round once.
        stubs = [client.grpc_points for _ in range(_CHANNELS)] + [client.grpc_collections for _ in range(_CHANNELS)]
        for stub in stubs:
            for name, call in vars(stub).items():
                setattr(stub, name, _Limited(call))
        return client

    def _make(self, **options: Any) -> QdrantClient:
        # As a header the key does the same as api_key=, without a Python warning for http addresses: server.py logs
        # one where it matters.
        headers = {} if self._api_key is None else {"api-key": self._api_key.get_secret_value()}
        return QdrantClient(
            url=self.name,
            port=None,
            headers=headers,
            timeout=self._timeout,
            check_compatibility=False,  # any minor version is talked to; features.py knows what each can do
            **options,
        )


class _Limited:
    """A gRPC method that ends within the limit of the calling thread."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, request: Any, timeout: float | None = None, **options: Any) -> Any:
        return self._call(request, timeout=_left(timeout), **options)


def _limit_rest(request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
    """The same for REST, where the limit is of each wait for the network."""
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {name: _left(limits.get(name)) for name in ("connect", "read", "write", "pool")}
    return send(request)


def _left(timeout: float | None) -> float | None:
    """Seconds that a call may take: its own limit or what is left of the thread's."""
    until = _until.get()
    if until is None:
        return timeout
    left = max(until - time.monotonic(), 0.001)
    return left if timeout is None else min(timeout, left)


def _address_of(client: QdrantClient) -> str:
    """Where a client goes, without what may be secret in its address."""
    options = client.init_options
    address = options.get("url") or options.get("location")
    if address is None:
        port = options.get("port")
        return f"{options.get('host') or 'localhost'}{'' if port is None else f':{port}'}"
    return without_secrets(str(address))


def without_secrets(url: str) -> str:
    """An address for messages: its scheme, host, port and path; never a user, a password or a query."""
    head, separator, rest = url.partition("://")
    rest = rest if separator else head
    place = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = place.partition("/")
    shown = authority.rpartition("@")[2] + slash + path
    return f"{head}://{shown}" if separator else shown


def address_of(url: object, grpc_port: int | None, *, guess_grpc: bool) -> Address:
    """Check one address.

    Args:
        url: What a user wrote.
        grpc_port: The port of gRPC; ``None`` for none.
        guess_grpc: Whether to expect gRPC on 6334 where REST is on 6333.

    Raises:
        InputError: It is not the address of a server.
    """
    if not isinstance(url, str):
        raise InputError(f"An address is text such as 'http://localhost:{REST_PORT}', not {type(url).__name__}.")
    shown = without_secrets(url)[:200]
    try:
        parts = urlsplit(url.strip())
        port = parts.port or REST_PORT
    except ValueError as error:
        raise InputError(f"{shown!r} is no address: {error}. Write it as 'http://localhost:{REST_PORT}'.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{shown!r} is no address of a server. Write it as 'http://localhost:{REST_PORT}'.")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            f"The address of {shown!r} holds a user, a query or a fragment, which Qdrant does not read. "
            "Give the key as api_key=."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    if guess_grpc and grpc_port is None and port == REST_PORT and not path:
        grpc_port = GRPC_PORT
    return Address(url=f"{parts.scheme}://{host}:{port}{path}", grpc_port=grpc_port)
