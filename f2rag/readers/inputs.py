"""What passes between the readers: an input, how it is read, and what was passed over."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, TypeAlias

from f2rag.errors import DocumentError, F2RagError

Format: TypeAlias = Literal["csv", "docx", "html", "jsonl", "pdf", "text", "tsv"]
"""What a file can be read as."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How files are read.

    Attributes:
        text_column: Column or key of the text in rows.
        id_column: Column or key of the id; a row without one gets an id from its source and its text.
        language_column: Column or key of the BCP 47 tag.
        language: The language of whatever does not name its own.
        delimiter: Of CSV files; ``None`` means a comma, and a tab in ``.tsv`` files.
        rows_by_file: Rows belong to their file: it is their source, its name stands before their id, and a source that
            they state becomes ``origin`` in their metadata. So no file can replace the rows of another, and all of a
            file can be found by its source. Uploads are read like this.
    """

    text_column: str = "text"
    id_column: str = "id"
    language_column: str = "language"
    language: str | None = None
    delimiter: str | None = None
    rows_by_file: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was passed over.

    Attributes:
        where: The file, or the file and its line.
        reason: Why, in a few words.
    """

    where: str
    reason: str


OnSkipped: TypeAlias = Callable[[Skipped], object]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file to be read, wherever its bytes are.

    Attributes:
        name: What messages call it: the path as it was given, or the name of an upload.
        source: What its documents name as their source.
        format: What it is read as.
        content: Opens its bytes.
        lenient: Whether it is passed over with its reason where it cannot be read, as in a folder of many.
    """

    name: str
    source: str
    format: Format
    content: Callable[[], BinaryIO]
    lenient: bool = False

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes.

        Raises:
            DocumentError: It is not there or may not be read.
        """
        try:
            with self.content() as stream:
                yield stream
        except FileNotFoundError as error:
            message = f"{self.name} does not exist. Give the path of a file or a folder."
            raise DocumentError(message) from error
        except OSError as error:
            if isinstance(error, F2RagError):
                raise
            message = f"{self.name} cannot be read: {error.strerror or error}."
            raise DocumentError(message) from error

    def read(self, *, most: int) -> bytes:
        """All of its bytes.

        Args:
            most: More bytes than these are refused, since the file has to be taken into memory whole.

        Raises:
            DocumentError: It is not there, may not be read, or is too large.
        """
        with self.open() as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            message = f"{self.name} is larger than {most // 2**20} MiB. Split it into smaller files."
            raise DocumentError(message)
        return content

    def skipped(self, error: Exception) -> Skipped:
        """What to say where it is passed over because of ``error``."""
        return Skipped(self.name, reason_of(error, self.name))


def reason_of(error: Exception, name: str) -> str:
    """The message of an error without the name of the file that it begins with."""
    message = str(error)
    return (
        f"line {message.removeprefix(f'{name}:')}"
        if message.startswith(f"{name}:")
        else message.removeprefix(f"{name} ")
    )


def ignore(_: Skipped) -> None:
    """Say nothing about what was passed over."""
