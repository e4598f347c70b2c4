"""Documents to stored points and back, and the checks without which a wrong vector would go unseen.

The payload is ``{"page_content": text, "metadata": {...}, "f2rag": {"id": ..., "content_hash": ...}}``: the layout of
LangChain's Qdrant store, so that either can read what the other wrote. Beside these, ``f2rag.true`` and ``f2rag.false``
list the paths of the metadata's booleans, for the embedded engine, which cannot match them (``filters.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from f2rag.errors import ContractMismatchError, DocumentError, InputError
from f2rag.store.homes import PLAIN_KEY, Point, Row
from f2rag.types import Document, FloatMatrix, FloatVector, Hit

HASH_KEY = "f2rag.content_hash"
BATCH_POINTS = 512
BATCH_BYTES = 16 * 2**20
"""A server refuses requests above 32 MB; half of it leaves room for a wrong estimate."""

_BYTES_PER_COMPONENT = 20  # of a float32 written out as JSON
_TAKEN = ("language", "source")
_UNIT_LENGTH_TOLERANCE = 1e-3
_JSON_INTEGERS = range(-(2**63), 2**64)


def make_point(document: Document, vector: FloatVector) -> Point:
    """What is stored for ``document``.

    Raises:
        DocumentError: A text or metadata that JSON cannot hold.
    """
    content = _content(document)
    payload = {
        "page_content": content["text"],
        "metadata": content["metadata"],
        "f2rag": {"id": document.key, "content_hash": _digest(content), **_booleans(content["metadata"])},
    }
    size = _BYTES_PER_COMPONENT * len(vector) + len(json.dumps(payload, ensure_ascii=False).encode())
    return Point(document.point_id, vector, payload, size)


def content_hash(document: Document) -> str:
    """Hex digest of everything that is stored of a document besides its id.

    Raises:
        DocumentError: A text or metadata that JSON cannot hold.
    """
    return _digest(_content(document))


def document_of(row: Row) -> Document:
    """The document of a stored point; of a foreign one what can be read."""
    return Document(**_fields(row))


def hit_of(row: Row) -> Hit:
    """The hit of a found point."""
    return Hit(score=max(-1.0, min(1.0, row.score)), **_fields(row))


def batches(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Cut into batches of at most ``BATCH_POINTS`` points and, but for a single larger point, ``BATCH_BYTES``."""
    batch: list[Point] = []
    size = 0
    for point in points:
        if batch and (len(batch) == BATCH_POINTS or size + point.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += point.bytes
    if batch:
        yield batch


def checked_rows(vectors: FloatMatrix, *, count: int, dimensions: int, collection: str) -> FloatMatrix:
    """Return ``vectors`` as float32 of shape (count, dimensions).

    Raises:
        InputError: Not a matrix of ``count`` finite rows of unit length.
        ContractMismatchError: Rows of another width.
    """
    rows = _floats(vectors)
    if rows.ndim != 2 or len(rows) != count:
        raise InputError(f"{count} documents need vectors of shape ({count}, {dimensions}), not {rows.shape}.")
    _check_width(rows.shape[1], dimensions=dimensions, collection=collection)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= _UNIT_LENGTH_TOLERANCE))  # NaN fails every comparison
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"The vector of row {row} has length {lengths[row]:.6g} instead of 1 "
            f"({wrong.size} of {count} rows are wrong). Normalise after truncation; nothing was stored."
        )
    return rows


def checked_query(vector: FloatVector, *, dimensions: int, collection: str) -> FloatVector:
    """Return ``vector`` as float32 of shape (dimensions,).

    Raises:
        InputError: Not one finite vector other than zero.
        ContractMismatchError: A vector of another width.
    """
    query = _floats(vector)
    if query.ndim != 1:
        raise InputError(f"A query vector has shape ({dimensions},), not {query.shape}.")
    _check_width(len(query), dimensions=dimensions, collection=collection)
    if not np.isfinite(query).all() or not query.any():
        raise InputError("The query vector holds NaN or infinity, or nothing but zeros; it has no direction.")
    return query


def _floats(vectors: Any) -> FloatMatrix:
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"The vectors are no array: {error}") from error
    if array.dtype.kind != "f":
        raise InputError(f"Vectors are floating-point arrays, not {array.dtype}.")
    return np.ascontiguousarray(array, dtype=np.float32)


def _check_width(width: int, *, dimensions: int, collection: str) -> None:
    if width != dimensions:
        raise ContractMismatchError(
            f"Collection {collection!r} holds {dimensions}-dimensional vectors; this one has {width}. "
            f"Embed with dimensions={dimensions}, or use another collection."
        )


def _content(document: Document) -> dict[str, Any]:
    """What counts as the document's content, as plain JSON values."""
    if not isinstance(document, Document):
        raise DocumentError(f"Expected a f2rag.Document, not {type(document).__name__}.")
    named = f"Document {document.id!r}" if document.id is not None else f"Document {str(document.text)[:40]!r}"
    metadata: dict[str, Any] = {}
    for key, value in document.metadata.items():
        if key in _TAKEN and (isinstance(value, str) or getattr(document, key) is not None):
            raise DocumentError(f"{named}: metadata {key!r} is taken; give it as Document({key}=...).")
        metadata[_text(key, f"{named}: metadata key")] = _plain(value, f"{named}: metadata {key!r}")
    for key in _TAKEN:
        value = getattr(document, key)
        if value is not None:
            metadata[key] = _text(value, f"{named}: {key}")
    _text(document.key, f"{named}: id")
    return {"text": _text(document.text, f"{named}: text"), "metadata": metadata}


def _plain(value: Any, named: str) -> Any:
    """``value`` as JSON holds it, or a ``DocumentError`` that names where it sits."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, named)
    if isinstance(value, int) and int(value) in _JSON_INTEGERS:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {_text(key, f"{named} key"): _plain(item, f"{named}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{named}[{index}]") for index, item in enumerate(value)]
    raise DocumentError(
        f"{named} is {value!r} of type {type(value).__name__}, which JSON cannot hold. Use text, finite numbers up to "
        "64 bits, true/false, None, lists and string-keyed mappings of these; write dates as .isoformat(), numpy "
        "values as .item()."
    )


def _booleans(metadata: Mapping[str, Any]) -> dict[str, list[str]]:
    """The paths at which ``true`` and ``false`` lie, as a filter's key writes them."""
    found: dict[str, set[str]] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, bool):
            found.setdefault(str(value).lower(), set()).add(path)
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if re.fullmatch(PLAIN_KEY, key) else f'{path}."{key}"')
        elif isinstance(value, list):
            for item in value:  # a key without [] matches the elements, one with [] goes on into objects
                walk(item, f"{path}[]" if isinstance(item, dict) else path)

    walk(metadata, "metadata")
    return {flag: sorted(paths) for flag, paths in found.items()}


def _text(value: Any, named: str) -> str:
    if not isinstance(value, str):
        raise DocumentError(f"{named} must be text, not {value!r} of type {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{named} holds half of a surrogate pair at {error.start}, which is no Unicode text. "
            "Decode the source with its right encoding, or with errors='replace'."
        ) from error
    return value


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _fields(row: Row) -> dict[str, Any]:
    """The common fields of ``Document`` and ``Hit``; foreign payloads may lack or misuse any of them."""
    own = row.payload.get("f2rag")
    metadata = row.payload.get("metadata")
    rest = dict(metadata) if isinstance(metadata, Mapping) else {}
    language, source = (_taken(rest, key) for key in _TAKEN)
    return {
        "id": str(own["id"]) if isinstance(own, Mapping) and "id" in own else str(row.id),
        "text": str(row.payload.get("page_content") or ""),
        "language": language,
        "source": source,
        "metadata": rest,
    }


def _taken(metadata: dict[str, Any], key: str) -> str | None:
    """Take a string out of the metadata; anything else that lies there stays."""
    return metadata.pop(key) if isinstance(metadata.get(key), str) else None


def hash_of(row: Row) -> str | None:
    """The stored content hash; ``None`` of a foreign point."""
    own = row.payload.get("f2rag")
    return own.get("content_hash") if isinstance(own, Mapping) else None


def last_of_each(documents: Sequence[Document]) -> list[int]:
    """Positions of the documents that remain when, of those with one id, the last wins; in order."""
    return sorted({document.key: position for position, document in enumerate(documents)}.values())
