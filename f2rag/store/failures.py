"""The storage engines' and servers' errors as f2rag's own, in one place.

The embedded engine raises bare ``Exception`` with Rust's text in it, so the text is all there is to go by. What servers
say is read in ``refusals.py``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from f2rag.errors import (
    CollectionNotFoundError,
    F2RagError,
    InputError,
    StorageFullError,
    StoreAccessError,
    StoreError,
    StoreLockedError,
    StorePermissionError,
    StoreUnavailableError,
    UnsupportedFeatureError,
)

if TYPE_CHECKING:
    from f2rag.store.refusals import Refusal

_LOCKED = ("WouldBlock", "already accessed by another instance")
_FULL = ("os error 28", "os error 122", "disk is full", "No space left")
_FORBIDDEN = ("os error 13", "os error 30", "os error 1)", "readonly database", "unable to open database file")
_MISWRITTEN = ("Invalid path",)
_CLOSED = (
    "Shard is not initialized",
    "instance is closed",
    "closed database",
    "Client was closed",
    "client has been closed",
    "closed channel",
)
_REMOTE = ("qdrant_client", "grpc", "httpx")
_FILTER = ("json path", "filter", "condition", "Index required", "order_by")


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn whatever an engine raises inside the block into an error of f2rag that names ``place``.

    Raises:
        StoreError: Or the subclass that fits.
        InputError: A filter with a key that is no path.
    """
    try:
        yield
    except F2RagError:
        raise
    except Exception as error:
        raise translate(error, place) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what PyO3 raises when Rust code panics
            raise
        raise translate(error, place) from error


def translate(error: BaseException, place: str) -> F2RagError:
    """The error that says what ``error`` means for the user of ``place``."""
    if any(kind.__module__.partition(".")[0] in _REMOTE for kind in type(error).__mro__):
        from f2rag.store.refusals import refusal_of

        if refusal := refusal_of(error):
            return refused(refusal, place)
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if any(sign in text for sign in _LOCKED):
        return locked(place)
    if number in {errno.ENOSPC, errno.EDQUOT} or any(sign in text for sign in _FULL):
        return StorageFullError(
            f"{place}: no space is left on the device. What was acknowledged is stored. "
            "Free some space and run the same call again."
        )
    if number in {errno.EACCES, errno.EPERM, errno.EROFS} or any(sign in text for sign in _FORBIDDEN):
        return forbidden(place)
    if any(sign in text for sign in _CLOSED):
        return closed(place)
    if any(sign in text for sign in _MISWRITTEN):
        return InputError(f"{place} cannot read the filter: {_first_line(text)}. Write keys as 'metadata.<key>'.")
    return StoreError(f"{place}: the storage engine failed: {_first_line(text) or type(error).__name__}")


def refused(refusal: Refusal, place: str) -> F2RagError:
    """The error that says what a server's refusal means for the user of ``place``."""
    what = f"{place} {_REFUSALS[refusal.kind][1]}".replace("<said>", refusal.said)
    kind = _REFUSALS[refusal.kind][0]
    if refusal.kind == "invalid" and any(sign in refusal.said for sign in _FILTER):
        return InputError(f"{what} Write keys as 'metadata.<key>', and filters as qdrant_client.models describes them.")
    return kind(what)


_REFUSALS: dict[str, tuple[type[StoreError], str]] = {
    "unreachable": (
        StoreUnavailableError,
        "does not answer: <said>. Is it running, and are the address and the port right?",
    ),
    "late": (
        StoreUnavailableError,
        "did not answer in time: <said>. Is it overloaded, or is something between here and there slow? Try again, or "
        "allow more time (timeout, retry_seconds).",
    ),
    "overloaded": (
        StoreUnavailableError,
        "has too much to do: <said>. Try again later, or send less at once.",
    ),
    "failing": (StoreUnavailableError, "failed: <said>. Its log says more; the same call may be repeated."),
    "untrusted": (
        StoreUnavailableError,
        "cannot be reached over TLS: <said>. Does the address begin with the right one of http:// and https://? For a "
        "certificate of your own give ca_certificate.",
    ),
    "stranger": (
        StoreError,
        "is no Qdrant server: <said>. Is the address right, its port and its path among it? REST listens on 6333.",
    ),
    "unauthenticated": (
        StoreAccessError,
        "does not accept the key: <said>. Give the api_key that the server was started with, or a token signed with it "
        "that has not expired.",
    ),
    "forbidden": (
        StoreAccessError,
        "does not allow this: <said>. The key or token has expired, is for reading only or is for another collection; "
        "give one that allows it.",
    ),
    "missing": (CollectionNotFoundError, "has no such collection: <said>. Create it, or look at list_collections()."),
    "invalid": (StoreError, "cannot take the request: <said>."),
    "unknown": (
        UnsupportedFeatureError,
        "does not know the request: <said>. Its version may be too old for it, or the address is not Qdrant's own.",
    ),
    "full": (
        StorageFullError,
        "has no space left: <said>. What was acknowledged is stored. Free some space on the server and run the same "
        "call again.",
    ),
    "read_only": (
        StorePermissionError,
        "may not write where it stores: <said>. Give the server's user the right to write there.",
    ),
    "other": (StoreError, "refused: <said>."),
}


def locked(place: str) -> StoreLockedError:
    """Somebody else has it open."""
    return StoreLockedError(
        f"{place} is open in another process, or a second time in this one; the embedded engine allows one at a time. "
        "Close the other one (QdrantStore.close(), or end that process) or use another folder. "
        "To share a collection between processes, run a Qdrant server."
    )


def forbidden(place: str) -> StorePermissionError:
    """The folder may not be written."""
    return StorePermissionError(
        f"{place} may not be written by this user, and the engine writes even when it only searches. "
        "Give the user the right to write there, or choose another folder."
    )


def closed(place: str) -> StoreError:
    """Used after ``close()``."""
    return StoreError(f"{place} is closed. Open it again with QdrantStore.open().")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
