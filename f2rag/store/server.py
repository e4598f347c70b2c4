"""Qdrant servers: where they are, and what to do when one does not answer.

qdrant-client knows one address and tries once. Here a call goes to the first of several addresses that answers, again
after a pause that grows, and ends in bounded time.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import math
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import tenacity
from pydantic import SecretStr
from qdrant_client import QdrantClient

from f2rag.errors import F2RagError, InputError
from f2rag.store.endpoints import Address, AddressEndpoint, Endpoint, GivenEndpoint, address_of, within
from f2rag.store.failures import closed, refused, translate
from f2rag.store.features import version_of
from f2rag.store.homes import HomeKind, Version
from f2rag.store.refusals import LOST, PASSING, Refusal, refusal_of

T = TypeVar("T")

TIMEOUT = 30.0
RETRY_SECONDS = 60.0

_AVOID_SECONDS = 10.0
"""For how long an address that did not answer is asked last."""

_FAILING_ROUNDS = 3
"""How often a read is repeated that every server answers with a failure of its own."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Server:
    """A Qdrant server, or the nodes of one cluster.

    Example:
        >>> Server("http://localhost:6333")
        Server(url='http://localhost:6333', api_key=None, grpc_port='auto', timeout=30.0, retry_seconds=60.0, \
ca_certificate=None)

    Attributes:
        url: Its address, or those of the nodes in the order in which they are asked. Without a port it is 6333.
        api_key: The key or token of the server. It shows in no text; a ``Server`` that has one refuses to be pickled.
        grpc_port: Where gRPC is, one for all addresses or one for each. ``"auto"`` is 6334 where REST is on 6333, and
            none elsewhere: no other port is guessed. ``None`` is REST alone. gRPC is used where it answers: bulk loads
            take a third of the time.
        timeout: Most seconds that a read takes, all attempts together; of several addresses each gets its share. Over
            REST a server that sends its answer in drops may take longer.
        retry_seconds: How long a write is repeated; an attempt takes ``timeout`` at most, and there is at least one.
        ca_certificate: PEM file of the authority to trust, for a certificate of your own.

    Raises:
        InputError: A value that no server can have.
    """

    url: str | Sequence[str]
    _: dataclasses.KW_ONLY
    api_key: SecretStr | str | None = None
    grpc_port: int | Sequence[int | None] | Literal["auto"] | None = "auto"
    timeout: float = TIMEOUT
    retry_seconds: float = RETRY_SECONDS
    ca_certificate: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            object.__setattr__(self, "url", tuple(self.url))
        if isinstance(self.grpc_port, Sequence) and not isinstance(self.grpc_port, str):
            object.__setattr__(self, "grpc_port", tuple(self.grpc_port))
        object.__setattr__(self, "api_key", _secret(self.api_key))
        if not 0 < self.timeout < math.inf or not 0 <= self.retry_seconds < math.inf:
            raise InputError(
                f"timeout={self.timeout}, retry_seconds={self.retry_seconds}; expected seconds above 0, and from 0."
            )
        if self.ca_certificate is not None:
            _check_certificate(Path(self.ca_certificate))
        addresses = [address.url for address in self.addresses]
        if len(set(addresses)) != len(addresses):
            raise InputError(f"An address is given twice: {', '.join(addresses)}.")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses, in order, with their ports."""
        urls = (self.url,) if isinstance(self.url, str) else tuple(self.url)
        if not urls:
            raise InputError("No address is given; write it as 'http://localhost:6333'.")
        ports = self.grpc_port
        each: list[Any] = list(ports) if isinstance(ports, tuple) else [None if ports == "auto" else ports] * len(urls)
        if len(each) != len(urls) or not all(_is_port(port) for port in each):
            raise InputError(
                f"grpc_port={self.grpc_port!r} was given for {len(urls)} addresses; expected 'auto', None, a port, or "
                "for each a port or None."
            )
        return tuple(address_of(url, port, guess_grpc=ports == "auto") for url, port in zip(urls, each, strict=True))

    def connect(self) -> ServerConnection:
        """The way to it; nothing is sent yet."""
        key = self.api_key if isinstance(self.api_key, SecretStr) else None
        addresses = self.addresses
        exposed = [address.url for address in addresses if key and not address.secure and not _is_loopback(address)]
        if exposed:
            logger.warning(
                "The key is sent unencrypted to %s; whoever sees the network can read it. Use https:// there.",
                ", ".join(exposed),
            )
        certificate = None if self.ca_certificate is None else Path(self.ca_certificate)
        return ServerConnection(
            [
                AddressEndpoint(address, api_key=key, timeout=math.ceil(self.timeout), ca_certificate=certificate)
                for address in addresses
            ],
            timeout=self.timeout,
            retry_seconds=self.retry_seconds,
        )

    def __copy__(self) -> Server:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Server:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.api_key is not None:
            raise InputError(
                "A Server with an api_key is not pickled: the key would lie in the clear wherever the bytes go. Make "
                "the Server where it is used, and hand the key over as other secrets, e.g. in the environment."
            )
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "url"}
        return _rebuilt, (self.url, values)


class ServerConnection:
    """The way to one server or to the nodes of one cluster; threads may share it.

    Args:
        endpoints: In the order in which they are asked.
        timeout: Most seconds of a read.
        retry_seconds: Most seconds in which a write is repeated.
    """

    kind: HomeKind = "server"
    local = False

    def __init__(
        self, endpoints: Sequence[Endpoint], *, timeout: float = TIMEOUT, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self.name = f"Qdrant at {', '.join(endpoint.name for endpoint in endpoints)}"
        self._endpoints = tuple(endpoints)
        self._timeout = timeout
        self._retry_seconds = retry_seconds
        self._avoided: dict[str, float] = {}
        self._version: Version | None = None
        self._closed = threading.Event()

    @classmethod
    def of_client(cls, client: QdrantClient, *, owned: bool) -> ServerConnection:
        """Through a client that somebody else made; an attempt takes as long as its own limits allow."""
        return cls([GivenEndpoint(client, owned=owned)])

    @property
    def version(self) -> Version | None:
        """Version of the server; of a cluster whose nodes differ, the lowest that was met.

        Raises:
            StoreUnavailableError: No address answers.
        """
        met = [endpoint.version for endpoint in self._endpoints if endpoint.version is not None]
        if met:
            return min(met)
        if self._version is None:
            self._version = version_of(self.read(lambda client: client.info()).version)
        return self._version

    def read(self, call: Callable[[QdrantClient], T]) -> T:
        """What ``call`` makes of a client; asks all addresses, again and again, for ``timeout`` seconds at most."""
        return self._until_it_works(call, seconds=self._timeout, rounds=_FAILING_ROUNDS)

    def write(self, call: Callable[[QdrantClient], T]) -> T:
        """As ``read``, repeated for ``retry_seconds``; ``call`` must do no harm a second time, or on another node."""
        return self._until_it_works(call, seconds=self._retry_seconds, rounds=None)

    def close(self) -> None:
        """Close what was made here and end the waiting of calls in other threads."""
        self._closed.set()
        for endpoint in self._endpoints:
            endpoint.close()

    def _until_it_works(self, call: Callable[[QdrantClient], T], *, seconds: float, rounds: int | None) -> T:
        end = time.monotonic() + max(seconds, self._timeout)
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            wait=_pause,
            stop=_stop(seconds, rounds),
            sleep=tenacity.sleep_using_event(self._closed),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            answer: T = attempts(self._round, call, end)
        except _PassingError as error:
            raise refused(error.refusal, self.name) from error.__cause__
        return answer

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Say once in a call why it takes longer."""
        if state.attempt_number == 1:
            logger.warning("%s: %s; trying again", self.name, _refusal_of_state(state).said)

    def _round(self, call: Callable[[QdrantClient], T], end: float) -> T:
        """Ask each address once, in order, until one answers."""
        order = self._order()
        for position, endpoint in enumerate(order):
            if self._closed.is_set():
                raise closed(self.name)
            left = max(end - time.monotonic(), 0.001)
            client: QdrantClient | None = None
            try:
                with within(min(self._timeout, left / (len(order) - position))):
                    client = endpoint.client()
                    return call(client)
            except F2RagError:
                raise
            except Exception as error:
                last = self._passing(error, endpoint, client)
        raise last

    def _passing(self, error: Exception, endpoint: Endpoint, client: QdrantClient | None) -> _PassingError:
        """What to raise if no other address answers.

        Raises:
            F2RagError: Another would give the same answer.
        """
        refusal = refusal_of(error)
        if self._closed.is_set():
            raise closed(self.name) from error
        place = f"Qdrant at {endpoint.name}"
        if refusal is None:
            raise translate(error, place) from error
        if refusal.kind not in PASSING:
            raise refused(refusal, place) from error
        if refusal.kind in LOST:
            endpoint.lost(client)
            self._avoid(endpoint, refusal)
        passing = _PassingError(refusal)
        passing.__cause__ = error
        return passing

    def _order(self) -> list[Endpoint]:
        """The addresses, those last that did not answer a moment ago."""
        now = time.monotonic()
        return sorted(self._endpoints, key=lambda endpoint: self._avoided.get(endpoint.name, 0.0) > now)

    def _avoid(self, endpoint: Endpoint, refusal: Refusal) -> None:
        now = time.monotonic()
        new = self._avoided.get(endpoint.name, 0.0) <= now
        self._avoided[endpoint.name] = now + _AVOID_SECONDS
        if new and len(self._endpoints) > 1:
            logger.warning("Qdrant at %s does not answer (%s); others are asked first", endpoint.name, refusal.said)


class _PassingError(Exception):
    """A failure that may be over in a moment."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.said)
        self.refusal = refusal


_jittered = tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next round: growing and random, and not less than a server asked for."""
    asked = _refusal_of_state(state).retry_after or 0.0
    return max(_jittered(state), asked)


def _stop(seconds: float, rounds: int | None) -> Callable[[tenacity.RetryCallState], bool]:
    """When to give up: no time left, or every server fails at it again and again: then it is the request."""
    late = tenacity.stop_before_delay(seconds)

    def stop(state: tenacity.RetryCallState) -> bool:
        hopeless = rounds is not None and state.attempt_number >= rounds and _refusal_of_state(state).kind == "failing"
        return hopeless or late(state)

    return stop


def _refusal_of_state(state: tenacity.RetryCallState) -> Refusal:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, _PassingError)
    return error.refusal


def _rebuilt(url: str | Sequence[str], values: dict[str, Any]) -> Server:
    return Server(url, **values)


def _secret(key: SecretStr | str | None) -> SecretStr | None:
    """The key, hidden.

    Raises:
        InputError: It cannot be sent; the message does not show it.
    """
    if key is None:
        return None
    if not isinstance(key, (str, SecretStr)):
        raise InputError(f"api_key is text, not {type(key).__name__}.")
    text = key if isinstance(key, str) else key.get_secret_value()
    if not text:
        return None
    if not text.isascii() or not text.isprintable() or text != text.strip():
        # The HTTP library would repeat it in its error.
        raise InputError(
            "The api_key holds characters that cannot be sent: a line break, a space at an end, or non-ASCII."
        )
    return SecretStr(text)


def _check_certificate(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:  # SSLError among them
        raise InputError(f"ca_certificate={str(file)!r} is no readable PEM file of certificates: {error}.") from None


def _is_port(port: object) -> bool:
    return port is None or (isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536)


def _is_loopback(address: Address) -> bool:
    host = urlsplit(address.url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
