"""What a server, or the way to it, says when a call fails: REST, gRPC and connection errors brought to one form.

It decides nothing but the kind; ``failures.py`` makes an error of f2rag of it, ``server.py`` tries again or does not.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Literal, TypeAlias

import grpc  # type: ignore[import-untyped]  # ships no types
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

Kind: TypeAlias = Literal[
    "unreachable",  # nobody answers at the address
    "late",  # no answer in time
    "overloaded",  # the server asks for patience
    "failing",  # the server answers that it failed
    "untrusted",  # the TLS connection cannot be made
    "stranger",  # something answers that is no Qdrant
    "unauthenticated",  # no key, or one that the server does not know
    "forbidden",  # a key that does not allow it
    "missing",  # no such collection
    "invalid",  # a request that the server cannot take
    "unknown",  # a request that this version of the server does not know
    "full",  # no space left where the server stores
    "read_only",  # the server may not write where it stores
    "other",
]

PASSING: frozenset[Kind] = frozenset({"unreachable", "late", "overloaded", "failing"})
"""Kinds that another node, or the same a moment later, may not answer with."""

LOST: frozenset[Kind] = frozenset({"unreachable", "late"})
"""Kinds that speak of the way to the server and not of the call."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call failed.

    Attributes:
        kind: What it means.
        said: One line of the server or of the network; never a header or a key.
        retry_after: Seconds that the server asks to wait, if it does.
    """

    kind: Kind
    said: str
    retry_after: float | None = None


_BY_STATUS: dict[int, Kind] = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "missing",
    405: "unknown",
    408: "late",  # how the server reports its own timeout
    413: "invalid",
    422: "invalid",
    429: "overloaded",
    501: "unknown",
    503: "overloaded",
    504: "late",
    507: "full",
}

_BY_CODE: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "late",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.ABORTED: "failing",
    grpc.StatusCode.CANCELLED: "failing",
    grpc.StatusCode.INTERNAL: "failing",
    grpc.StatusCode.UNKNOWN: "failing",
    grpc.StatusCode.DATA_LOSS: "failing",
    grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
    grpc.StatusCode.PERMISSION_DENIED: "forbidden",
    grpc.StatusCode.NOT_FOUND: "missing",
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.OUT_OF_RANGE: "invalid",
    grpc.StatusCode.UNIMPLEMENTED: "unknown",
}

_FULL = re.compile(
    r"os error (28|122)\b|no space left|disk is full|not enough (disk )?space|out of disk", re.IGNORECASE
)
_READ_ONLY = re.compile(r"os error (13|30)\b|read-only file ?system|permission denied \(os", re.IGNORECASE)
_TLS = re.compile(r"\bssl\b|certificate|tls|handshake", re.IGNORECASE)
_TOO_LARGE = re.compile(r"(message|payload).{0,80}(larger|too large|exceeds)", re.IGNORECASE)


_STRANGE = Refusal(kind="stranger", said="its answers are not those of Qdrant")


def refusal_of(error: BaseException) -> Refusal | None:
    """What an exception of qdrant-client, gRPC or httpx says, or of what they cannot read; ``None`` for others."""
    if isinstance(error, UnexpectedResponse):
        said = _first_line(_error_of(error.content))
        kind = _BY_STATUS.get(error.status_code or 0) or _other_status(error.status_code)
        if kind == "missing" and "ollection" not in said:
            kind = "unknown" if said else "stranger"
        return _refined(Refusal(kind=kind, said=said or f"{error.status_code} {error.reason_phrase}"))
    if isinstance(error, ResourceExhaustedResponse):
        return Refusal(kind="overloaded", said=_first_line(error.message), retry_after=float(error.retry_after_s))
    if isinstance(error, ResponseHandlingException):
        return refusal_of(error.source)
    if isinstance(error, (json.JSONDecodeError, ValidationError)):
        return _STRANGE
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        said = _first_line(error.details() or "")
        return _refined(Refusal(kind=_BY_CODE.get(error.code(), "other"), said=said or str(error.code())))
    if isinstance(error, httpx.TimeoutException):
        return Refusal(kind="late", said=_words(error))
    if isinstance(error, httpx.TransportError):
        return _refined(Refusal(kind="unreachable", said=_words(error)))
    return None


def _other_status(status: int | None) -> Kind:
    if status is None or status >= 500:
        return "failing"
    return "stranger" if status < 400 else "other"


def _refined(refusal: Refusal) -> Refusal:
    """The same refusal, of the kind that its words give away."""
    kind = refusal.kind
    if kind == "failing" and _FULL.search(refusal.said):
        kind = "full"
    elif kind == "failing" and _READ_ONLY.search(refusal.said):
        kind = "read_only"
    elif kind == "unreachable" and _TLS.search(refusal.said):
        kind = "untrusted"
    elif kind == "overloaded" and _TOO_LARGE.search(refusal.said):
        kind = "invalid"
    return dataclasses.replace(refusal, kind=kind)


def _error_of(content: bytes) -> str:
    """The server's sentence in a REST answer; a page of something else is not passed on."""
    text = content.decode("utf-8", "replace").strip()
    try:
        status = json.loads(text)["status"]
        return str(status["error"])
    except (ValueError, KeyError, TypeError):
        return "" if text.startswith(("<", "{", "[")) else text


def _words(error: httpx.TransportError) -> str:
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300].rstrip("!. ")
