"""Rows: JSON Lines, CSV and tab-separated values. One row is one document, and one row is held at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from f2rag.errors import DocumentError
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions, Skipped
from f2rag.readers.text import lines_of
from f2rag.types import Document

_LARGEST_CELL = 2**31 - 1


def read_jsonl(given: Input, options: ReadOptions, report: OnSkipped) -> Iterator[Document]:
    """One JSON object per line.

    Raises:
        DocumentError: A line that is no JSON object or lacks the text; the message gives its number.
    """
    for number, line in enumerate(lines_of(given), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_number)
            # Half a surrogate pair is valid JSON, but no text: it can be neither tokenised nor stored.
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            message = f"{given.name}:{number} is not valid JSON: {error}. Expected one JSON object per line."
            raise DocumentError(message) from error
        if not isinstance(row, dict):
            message = f"{given.name}:{number} holds a JSON {type(row).__name__}. Expected one JSON object per line."
            raise DocumentError(message)
        if document := _document(row, number, given, options, report):
            yield document


def read_csv(given: Input, options: ReadOptions, report: OnSkipped) -> Iterator[Document]:
    """Rows under a header.

    Raises:
        DocumentError: A header without the text's column, or a row of another length; the message gives its line.
    """
    delimiter = options.delimiter or ("\t" if given.format == "tsv" else ",")
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(lines_of(given), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_header(header, given.name, options)
        end = reader.line_num
        for cells in reader:
            number, end = end + 1, reader.line_num  # a quoted cell may span lines; a row is where it begins
            if not cells:
                continue
            if len(cells) != len(header):
                message = f"{given.name}:{number} has {len(cells)} cells; the header has {len(header)}."
                raise DocumentError(message)
            row = dict(zip(header, cells, strict=True))
            filled = {name: cell for name, cell in row.items() if cell or name == options.text_column}
            if document := _document(filled, number, given, options, report):
                yield document
    except csv.Error as error:
        message = f"{given.name}:{reader.line_num} is not valid CSV: {error}."
        raise DocumentError(message) from error


def _check_header(header: list[str], name: str, options: ReadOptions) -> None:
    names = ", ".join(map(repr, header))
    if header and options.text_column not in header:
        message = (
            f"{name} has no column {options.text_column!r}; its header names {names}. "
            "Name the column that holds the text."
        )
        raise DocumentError(message)
    if len(set(header)) < len(header):
        message = f"{name} names a column twice in its header: {names}. Give every column a name of its own."
        raise DocumentError(message)


def _document(
    row: dict[str, Any], number: int, given: Input, options: ReadOptions, report: OnSkipped
) -> Document | None:
    """A document of one row: what has a meaning of its own is taken out, everything else is metadata."""
    where, fields = f"{given.name}:{number}", dict(row)
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
        report(Skipped(f"{given.source}:{number}", f"no text in {options.text_column!r}"))
        return None
    if isinstance(fields.get("metadata"), dict):
        fields = {**fields.pop("metadata"), **fields}
    identity = _name(fields.pop(options.id_column, None), options.id_column, where)
    language = _name(fields.pop(options.language_column, None), options.language_column, where)
    source = _name(fields.pop("source", None), "source", where)
    if options.rows_by_file:
        fields = {"origin": source, **fields} if source else fields
        identity = f"{given.source}#{identity}" if identity else None
        source = None
    return Document(
        text=text,
        id=identity,
        language=language or options.language,
        source=source or given.source,
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


def _no_number(name: str) -> float:
    message = f"{name} is not a JSON number"
    raise ValueError(message)
