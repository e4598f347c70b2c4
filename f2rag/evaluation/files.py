"""Queries, judgements and corpora from files, in the forms of BEIR and of TREC.

    queries.jsonl    {"_id": "q1", "text": "...", "language": "de"}
    corpus.jsonl     {"_id": "d1", "title": "...", "text": "...", "language": "de"}
    qrels.tsv        query-id <tab> corpus-id <tab> score, with or without that header
    qrels.txt        q1 0 d1 2, the four columns of TREC
    qrels.jsonl      {"query-id": "q1", "corpus-id": "d1", "score": 2}

What a person has to mend says file and line. This file knows no model and no database.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from f2rag.errors import DocumentError
from f2rag.readers import read_lines
from f2rag.types import Document

Judgements: TypeAlias = Mapping[str, Mapping[str, int]]
"""Grades by id of the query and id of the document; 0 or less is not relevant, and what is not named is neither."""

_QUERY_KEYS = ("query-id", "query_id", "qid")
_DOCUMENT_KEYS = ("corpus-id", "corpus_id", "doc_id", "docid")
_GRADE_KEYS = ("score", "relevance", "rel")
_JSON_SUFFIXES = {".jsonl", ".ndjson"}
_TREC_COLUMNS = 4
_COLUMNS = "expected query id, document id and grade (or the four columns of TREC)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query whose good answers are known.

    Attributes:
        id: Names it in the judgements.
        text: As a person would type it, without an instruction.
        language: BCP 47 tag, if known.
    """

    id: str
    text: str
    language: str | None = None


def read_queries(file: Path) -> list[Query]:
    """Read queries, one JSON object in a line: ``_id`` (or ``id``), ``text`` and perhaps ``language``.

    The language may also lie under ``metadata``. Further keys are passed over.

    Raises:
        DocumentError: The file cannot be read, holds no query, a line is no query, or an id comes twice.
    """
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, row in _objects(file):
        where = f"{file}:{number}"
        identity = _text(row, ("_id", "id"), where)
        if identity in lines:
            raise DocumentError(
                f"{where} holds query {identity!r} a second time, first in line {lines[identity]}. "
                "Give each its own id."
            )
        text = _text(row, ("text", "query"), where)
        if not text.strip():
            raise DocumentError(f"{where} has no words in its text. Give a query or leave the line out.")
        lines[identity] = number
        queries[identity] = Query(id=identity, text=text, language=_language(row))
    if not queries:
        raise DocumentError(f"{file} holds no query; expected one JSON object in a line, with _id and text.")
    return list(queries.values())


def read_corpus(file: Path) -> Iterator[Document]:
    """Read documents as they come: ``_id`` (or ``id``), ``text``, and perhaps ``title`` and ``language``.

    Title and text are joined by a space, as BEIR does it. The whole is one document; nothing is split, so that ids are
    those of the judgements.

    Raises:
        DocumentError: The file cannot be read, a line is no document, or an id comes twice.
    """
    lines: dict[str, int] = {}
    for number, row in _objects(file):
        where = f"{file}:{number}"
        identity = _text(row, ("_id", "id"), where)
        if identity in lines:
            raise DocumentError(
                f"{where} holds document {identity!r} a second time, first in line {lines[identity]}. "
                "Give each its own id."
            )
        lines[identity] = number
        title = row.get("title") or ""
        if not isinstance(title, str):
            raise DocumentError(f"{where} has {type(title).__name__} in 'title'; expected a string.")
        text = f"{title} {_text(row, ('text',), where)}".strip()
        if text:
            yield Document(
                id=identity,
                text=text,
                language=_language(row),
                source=file.name,
                metadata={"title": title} if title else {},
            )


def read_judgements(file: Path) -> dict[str, dict[str, int]]:
    """Read judgements: tab-separated as BEIR has them, TREC's four columns, or JSON objects, one in a line.

    Returns:
        Grades by id of the query and id of the document.

    Raises:
        DocumentError: The file cannot be read, holds no judgement, a line is none, or a pair is judged twice.
    """
    rows = _judged_objects(file) if file.suffix.lower() in _JSON_SUFFIXES else _judged_lines(file)
    judgements: dict[str, dict[str, int]] = {}
    lines: dict[tuple[str, str], int] = {}
    for number, query, document, grade in rows:
        first = lines.setdefault((query, document), number)
        if first != number:
            raise DocumentError(
                f"{file}:{number} judges document {document!r} for query {query!r} a second time, first in line "
                f"{first}. Keep one of the two."
            )
        judgements.setdefault(query, {})[document] = _grade(grade, f"{file}:{number}")
    if not judgements:
        raise DocumentError(f"{file} holds no judgement; {_COLUMNS} in each line.")
    return judgements


def _judged_lines(file: Path) -> Iterator[tuple[int, str, str, str]]:
    for number, line in enumerate(read_lines(file), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        # With tabs, ids may hold spaces.
        cells = [cell.strip() for cell in stripped.split("\t")] if "\t" in stripped else stripped.split()
        if number == 1 and cells[0].lower() in _QUERY_KEYS:
            continue
        if len(cells) == _TREC_COLUMNS:
            cells.pop(1)  # the iteration, which nothing uses
        if len(cells) != _TREC_COLUMNS - 1 or not all(cells):
            raise DocumentError(f"{file}:{number} has {len(cells)} columns; {_COLUMNS}, separated by tabs or spaces.")
        yield number, cells[0], cells[1], cells[2]


def _judged_objects(file: Path) -> Iterator[tuple[int, str, str, Any]]:
    for number, row in _objects(file):
        where = f"{file}:{number}"
        grade = next((row[key] for key in _GRADE_KEYS if key in row), None)
        yield number, _text(row, _QUERY_KEYS, where), _text(row, _DOCUMENT_KEYS, where), grade


def _grade(given: Any, where: str) -> int:
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(given, bool) or not number.is_integer():
        raise DocumentError(f"{where} has the grade {given!r}; expected a whole number, 0 for not relevant.")
    return int(number)


def _objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # half a surrogate pair is valid JSON, but no text
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{file}:{number} is not valid JSON: {error}. Expected one JSON object.") from error
        if not isinstance(row, dict):
            raise DocumentError(f"{file}:{number} holds a JSON {type(row).__name__}. Expected one JSON object.")
        yield number, row


def _text(row: Mapping[str, Any], keys: tuple[str, ...], where: str) -> str:
    """The value of the first key that is there: a string, or a whole number such as a database gives."""
    key = next((key for key in keys if key in row), None)
    if key is None:
        found = ", ".join(map(repr, row)) or "nothing"
        raise DocumentError(f"{where} has {found}; expected {' or '.join(map(repr, keys))}.")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DocumentError(f"{where} has {value!r:.40} in {key!r}; expected a string that is not empty.")
    return str(value)


def _language(row: Mapping[str, Any]) -> str | None:
    metadata = row.get("metadata")
    found = row.get("language") or (metadata.get("language") if isinstance(metadata, dict) else None)
    return str(found) if found else None
