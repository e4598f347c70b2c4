"""The storage engines' errors as f2rag's own, in one place.

The embedded engine raises bare ``Exception`` with Rust's text in it, so the text is all there is to go by.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from f2rag.errors import F2RagError, InputError, StorageFullError, StoreError, StoreLockedError, StorePermissionError

_LOCKED = ("WouldBlock", "already accessed by another instance")
_FULL = ("os error 28", "os error 122", "disk is full", "No space left")
_FORBIDDEN = ("os error 13", "os error 30", "os error 1)", "readonly database", "unable to open database file")
_MISWRITTEN = ("Invalid path",)
_CLOSED = ("Shard is not initialized", "instance is closed", "closed database")


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
