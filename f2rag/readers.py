"""Files into documents: JSON Lines, CSV, plain text and Markdown, alone or in folders.

Readers are generators and hold one row, or one text file, at a time. The text of a file becomes one document,
which ``f2rag.chunking`` splits; a row becomes one document. Everything that a person has to mend says file
and line. This file knows no model and no database.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from f2rag.errors import DocumentError
from f2rag.types import Document

SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".markdown": "text",
    ".md": "text",
    ".ndjson": "jsonl",
    ".text": "text",
    ".tsv": "csv",
    ".txt": "text",
}
"""Suffixes that can be read, and as what."""

_LARGEST_CELL = 2**31 - 1
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How rows are read.

    Attributes:
        text_column: Column or key of the text.
        id_column: Column or key of the id; a row without one gets an id from its source and its text.
        language_column: Column or key of the BCP 47 tag.
        language: The language of whatever does not name its own.
        delimiter: Of CSV files; ``None`` means a comma, and a tab in ``.tsv`` files.
    """

    text_column: str = "text"
    id_column: str = "id"
    language_column: str = "language"
    language: str | None = None
    delimiter: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was passed over.

    Attributes:
        where: The file, or the file and its line.
        reason: Why, in a few words.
    """

    where: str
    reason: str


OnSkipped = Callable[[Skipped], None]


def read_documents(
    paths: Iterable[Path],
    *,
    root: Path | None = None,
    options: ReadOptions | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Document]:
    """Read files and folders in the order given; folders by name, with subfolders, without hidden ones.

    The ``source`` of a document is its file's path relative to ``root`` where it lies there, else the whole
    path; always with forward slashes. A text file's id is its source, so that a changed file replaces what it
    was. Rows have ``row`` in their metadata, the line they start on.

    Args:
        paths: Files and folders.
        root: What sources are relative to; the working directory when not given.
        options: How rows are read.
        on_skipped: Called for every file of another kind inside a folder, and for every blank file or row.

    Raises:
        DocumentError: A path that is not there or may not be read, a file that is named and is of another
        kind, text
            that is not UTF-8, or a row that is no document.
    """
    options = options or ReadOptions()
    report = on_skipped or _ignore
    base = _absolute(root or Path())
    for path in paths:
        for file in _files(Path(path), report):
            yield from read_file(file, source=_source(file, base), options=options, on_skipped=report)


def read_file(
    file: Path,
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Document]:
    """Read one file.

    Args:
        file: A file with one of ``SUFFIXES``.
        source: What its documents name as their source; the path as given when not given.
        options: How rows are read.
        on_skipped: Called for a blank file and for every blank row.

    Raises:
        DocumentError: A suffix that cannot be read, text that is not UTF-8, or a row that is no document.
    """
    kind = SUFFIXES.get(file.suffix.lower())
    if kind is None:
        message = f"{file} cannot be read: expected a file named {', '.join(sorted(SUFFIXES))}."
        raise DocumentError(message)
    read = {"csv": _read_csv, "jsonl": _read_jsonl, "text": _read_text}[kind]
    source, report, found = source or file.as_posix(), on_skipped or _ignore, False
    for document in read(file, source, options or ReadOptions(), report):
        found = True
        yield document
    if not found:
        report(Skipped(source, "no text in it"))


def _read_text(file: Path, source: str, options: ReadOptions, _: OnSkipped) -> Iterator[Document]:
    text = "".join(read_lines(file))
    if text.strip():
        yield Document(text=text, id=source, language=options.language, source=source)


def _read_jsonl(file: Path, source: str, options: ReadOptions, report: OnSkipped) -> Iterator[Document]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_number)
            # Half a surrogate pair is valid JSON, but no text: it can be neither tokenised nor stored.
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            message = f"{file}:{number} is not valid JSON: {error}. Expected one JSON object per line."
            raise DocumentError(message) from error
        if not isinstance(row, dict):
            message = f"{file}:{number} holds a JSON {type(row).__name__}. Expected one JSON object per line."
            raise DocumentError(message)
        if document := _row(row, f"{file}:{number}", number, source, options, report):
            yield document


def _read_csv(file: Path, source: str, options: ReadOptions, report: OnSkipped) -> Iterator[Document]:
    delimiter = options.delimiter or ("\t" if file.suffix.lower() == ".tsv" else ",")
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(read_lines(file), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_header(header, file, options)
        end = reader.line_num
        for cells in reader:
            number, end = end + 1, reader.line_num  # a quoted cell may span lines; a row is where it begins
            if not cells:
                continue
            if len(cells) != len(header):
                message = f"{file}:{number} has {len(cells)} cells; the header has {len(header)}."
                raise DocumentError(message)
            row = dict(zip(header, cells, strict=True))
            filled = {name: cell for name, cell in row.items() if cell or name == options.text_column}
            if document := _row(filled, f"{file}:{number}", number, source, options, report):
                yield document
    except csv.Error as error:
        message = f"{file}:{reader.line_num} is not valid CSV: {error}."
        raise DocumentError(message) from error


def _check_header(header: list[str], file: Path, options: ReadOptions) -> None:
    names = ", ".join(map(repr, header))
    if header and options.text_column not in header:
        message = (
            f"{file} has no column {options.text_column!r}; its header names {names}. "
            "Name the column that holds the text."
        )
        raise DocumentError(message)
    if len(set(header)) < len(header):
        message = f"{file} names a column twice in its header: {names}. Give every column a name of its own."
        raise DocumentError(message)


def _row(
    row: dict[str, Any], where: str, number: int, source: str, options: ReadOptions, report: OnSkipped
) -> Document | None:
    """A document of one row: what has a meaning of its own is taken out, everything else is metadata."""
    fields = dict(row)
    if options.text_column not in fields:
        message = (
            f"{where} has no {options.text_column!r}; it has {', '.join(map(repr, fields)) or 'nothing'}. "
            "Name the field that holds the text."
        )
        raise DocumentError(message)
    text = fields.pop(options.text_column)
    if not isinstance(text, str):
        message = f"{where} has {type(text).__name__} in {options.text_column!r}. Expected a string."
        raise DocumentError(message)
    if not text.strip():
        report(Skipped(f"{source}:{number}", f"no text in {options.text_column!r}"))
        return None
    if isinstance(fields.get("metadata"), dict):
        fields = {**fields.pop("metadata"), **fields}
    identity = _name(fields.pop(options.id_column, None), options.id_column, where)
    language = _name(fields.pop(options.language_column, None), options.language_column, where)
    stated = _name(fields.pop("source", None), "source", where)
    return Document(
        text=text,
        id=identity,
        language=language or options.language,
        source=stated or source,
        metadata={**fields, "row": number},
    )


def _name(value: Any, column: str, where: str) -> str | None:
    """An id, a language or a source: a string, or a whole number such as a database gives."""
    if value is None or value == "":
        return None
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    message = f"{where} has {type(value).__name__} in {column!r}. Expected a string or a whole number."
    raise DocumentError(message)


def read_lines(file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        DocumentError: The file is not there, may not be read, or is not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            yield from decode_lines(stream, name=str(file))
    except FileNotFoundError as error:
        message = f"{file} does not exist. Give the path of a file or a folder."
        raise DocumentError(message) from error
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror or error}."
        raise DocumentError(message) from error


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


def check_paths(paths: Iterable[Path]) -> None:
    """Make sure that files and folders are there, before anything costly begins.

    Raises:
        DocumentError: One is not.
    """
    for path in paths:
        if not path.exists():
            message = f"{path} does not exist. Give the path of a file or a folder."
            raise DocumentError(message)


def _files(path: Path, report: OnSkipped) -> Iterator[Path]:
    check_paths([path])
    if not path.is_dir():
        yield path
        return
    for folder, subfolders, names in os.walk(path, onerror=_cannot_list):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith("."):
                continue
            if file.suffix.lower() in SUFFIXES:
                yield file
            else:
                report(Skipped(file.as_posix(), f"{file.suffix or 'no suffix'} is not read"))


def _cannot_list(error: OSError) -> None:
    message = f"{error.filename} cannot be read: {error.strerror}."
    raise DocumentError(message) from error


def _source(file: Path, base: Path) -> str:
    whole = _absolute(file)
    return (whole.relative_to(base) if whole.is_relative_to(base) else whole).as_posix()


def _absolute(path: Path) -> Path:
    """Without ``..`` and with links left as they are: a linked file is known by the name it has here."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve follows links


def _no_number(name: str) -> float:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def _ignore(_: Skipped) -> None:
    return None
