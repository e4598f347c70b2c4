"""Plain text and Markdown, as they are, and the lines of UTF-8 that every other text format begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from f2rag.errors import DocumentError
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions
from f2rag.types import Document

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(given: Input, options: ReadOptions, _: OnSkipped) -> Iterator[Document]:
    """The whole file as one document, whose id is its source, so that a changed file replaces what it was."""
    text = "".join(lines_of(given))
    if text.strip():
        yield Document(text=text, id=given.source, language=options.language, source=given.source)


def lines_of(given: Input) -> Iterator[str]:
    """The lines of a UTF-8 input with their line ends, without a byte order mark.

    Raises:
        DocumentError: It is not there, may not be read, or is not UTF-8.
    """
    with given.open() as stream:
        yield from decode_lines(stream, name=given.name)


def read_lines(file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        DocumentError: The file is not there, may not be read, or is not UTF-8.
    """
    return lines_of(Input(name=str(file), source=str(file), format="text", content=lambda: file.open("rb")))


def decode_lines(stream: Iterable[bytes], *, name: str) -> Iterator[str]:
    """The lines of UTF-8 bytes with their line ends, without a byte order mark.

    Raises:
        DocumentError: A line is not UTF-8; the message gives ``name`` and its number.
    """
    for number, line in enumerate(stream, start=1):
        if number == 1:
            _check_encoding(name, line)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            message = (
                f"{name}:{number} is not UTF-8 text: byte 0x{error.object[error.start]:02x} cannot be read. "
                "Save it as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8"
            )
            raise DocumentError(message) from error


def _check_encoding(name: str, line: bytes) -> None:
    if line.startswith(_UTF16_MARKS):
        message = f"{name} is UTF-16 text. Save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8"
        raise DocumentError(message)
    if b"\0" in line:
        message = f"{name} is a binary file under the name of a text file (it holds zero bytes)."
        raise DocumentError(message)
