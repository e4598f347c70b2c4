"""What a browser sends: a name that nobody vouches for, and bytes."""

from __future__ import annotations

import dataclasses
import functools
import io
import re
import unicodedata
from collections.abc import Iterator

from f2rag.errors import DocumentError
from f2rag.readers.files import format_of, read_input
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions
from f2rag.types import Document

_LONGEST_NAME = 200
"""Characters of a name that are kept, its suffix among them; file systems end at 255 bytes."""

_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that reverse what stands after them: ``invoice\u202efdp.exe`` is shown as if it were a PDF."""


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file.

    Attributes:
        name: As the browser gives it.
        content: Its bytes.
    """

    name: str
    content: bytes = dataclasses.field(repr=False)


def read_upload(
    name: str,
    content: bytes,
    *,
    options: ReadOptions | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Document]:
    """Read an uploaded file as ``read_file`` reads one on disk; nothing is written anywhere.

    Args:
        name: As the browser gives it; cleaned by ``safe_name`` it is the documents' source.
        content: Its bytes.
        options: How it is read; rows belong to their file in any case (``ReadOptions.rows_by_file``).
        on_skipped: Called for a blank file and for every blank row.

    Raises:
        As ``read_file`` does.
    """
    options = dataclasses.replace(options or ReadOptions(), rows_by_file=True)
    yield from read_input(upload_input(Upload(name, content)), options=options, on_skipped=on_skipped)


def upload_input(upload: Upload) -> Input:
    """An upload as an input, which is passed over where it cannot be read.

    Raises:
        DocumentError: A name that is blank, or a suffix that cannot be read.
    """
    name = safe_name(upload.name)
    content = functools.partial(io.BytesIO, upload.content)
    return Input(name=name, source=name, format=format_of(name), content=content, lenient=True)


def text_input(text: str, *, title: str) -> Input:
    """A pasted text as an input, known by its title.

    Raises:
        DocumentError: The title is blank, or the text is no Unicode text.
    """
    name = _clean(title)
    try:
        content = functools.partial(io.BytesIO, text.encode())
    except UnicodeEncodeError as error:
        message = f"{name} holds half of a surrogate pair at {error.start}, which is no Unicode text. Paste it again."
        raise DocumentError(message) from error
    return Input(name=name, source=name, format="text", content=content)


def safe_name(name: str) -> str:
    """A name without folders, control characters and tricks of direction; letters of every script stay.

    Composed (NFC), since one system sends ``é`` as one character and another as two: the same file keeps one name.

    Raises:
        DocumentError: Nothing is left of it.
    """
    return _clean(re.split(r"[/\\]", name)[-1])


def _clean(name: str) -> str:
    plain = "".join(letter for letter in name if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"))
    clean = unicodedata.normalize("NFC", _TURNING.sub("", plain)).strip()
    if not clean.strip("."):
        message = f"{name!r} cannot name a document. Give it a name of letters or digits."
        raise DocumentError(message)
    stem, dot, suffix = clean.rpartition(".")
    if len(clean) > _LONGEST_NAME and stem and len(suffix) < 10:
        return f"{stem[: _LONGEST_NAME - len(suffix) - 1]}{dot}{suffix}"
    return clean[:_LONGEST_NAME]
