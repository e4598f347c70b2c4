"""What is written of a document besides its vectors, so that LangChain's and LlamaIndex's Qdrant stores read it too.

    page_content    the text, where LangChain looks for it
    metadata        the metadata with language and source, where LangChain looks for it; filters are written
                    ``metadata.<key>``
    <key>           the same values once more, if they are plain ones, where LlamaIndex's filters look for them
    _node_content, _node_type, doc_id
                    the document as a LlamaIndex node, whose text it reads from nowhere else, and what it deletes by
    f2rag           {"id": the owner's id, "content_hash": of text and metadata, "true" and "false": the paths of
                    booleans, which the embedded engine cannot match otherwise (``filters.py``), "own": the names of
                    the keys that came with the document}

What those two wrote is read as well: a point with neither ``page_content`` nor ``f2rag`` is a LlamaIndex node.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from f2rag.errors import DocumentError
from f2rag.store.homes import PLAIN_KEY, Row
from f2rag.types import Document, Hit

HASH_KEY = "f2rag.content_hash"
NODE_KEY = "_node_content"

Content: TypeAlias = dict[str, Any]
"""``text`` and ``metadata`` of a document, and its ``payload`` if it has one, as plain JSON values."""

_TAKEN = ("language", "source")
_OURS = ("page_content", "metadata", "f2rag")
_NODE_KEYS = (NODE_KEY, "_node_type", "doc_id", "document_id", "ref_doc_id")
_INTEGERS = range(-(2**63), 2**63)
"""What a server's payload and its filters hold."""

# json.dumps would make one of these for every document.
_AS_TEXT = json.JSONEncoder(ensure_ascii=False)
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def make_payload(document: Document, content: Content) -> dict[str, Any]:
    """What is stored of ``document``, whose content was checked, besides its vectors."""
    metadata, given = content["metadata"], content.get("payload", {})
    plain = {key: value for key, value in metadata.items() if not isinstance(value, (dict, list))}
    own = {"id": document.key, "content_hash": _digest(content), **_booleans(metadata)}
    if given:
        own["own"] = sorted(given)
    return {
        **{key: value for key, value in plain.items() if key not in _NODE_KEYS},
        **(given if NODE_KEY in given else {**_node(document, metadata), **given}),
        "page_content": content["text"],
        "metadata": metadata,
        "f2rag": own,
    }


def content_hash(document: Document) -> str:
    """Hex digest of everything that is stored of a document besides its id.

    Raises:
        DocumentError: A text or metadata that JSON cannot hold.
    """
    return _digest(checked_content(document))


def document_of(row: Row) -> Document:
    """The document of a stored point; of a foreign one what can be read."""
    own = row.payload.get("f2rag")
    names = own.get("own") or () if isinstance(own, Mapping) else _NODE_KEYS
    given = {name: row.payload[name] for name in names if name in row.payload}
    return Document(payload=given, **_fields(row))


def hit_of(row: Row) -> Hit:
    """The hit of a found point."""
    document = document_of(row)
    return Hit(
        id=document.key,
        score=max(-1.0, min(1.0, row.score)),
        text=document.text,
        language=document.language,
        source=document.source,
        metadata=document.metadata,
        payload=document.payload,
    )


def hash_of(row: Row) -> str | None:
    """The stored content hash; ``None`` of a foreign point."""
    own = row.payload.get("f2rag")
    return own.get("content_hash") if isinstance(own, Mapping) else None


def _node(document: Document, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The document as LlamaIndex's Qdrant store writes a node; its reader takes the text from nowhere else."""
    node = {"id_": document.key, "text": document.text, "metadata": metadata, "class_name": "TextNode"}
    return {
        NODE_KEY: _AS_TEXT.encode(node),
        "_node_type": "TextNode",
        "doc_id": document.source or document.key,
    }


def checked_content(document: Document) -> Content:
    """What counts as the document's content, as plain JSON values.

    Raises:
        DocumentError: A text, metadata or payload that JSON cannot hold.
    """
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
    content: Content = {"text": _text(document.text, f"{named}: text"), "metadata": metadata}
    if document.payload:
        for key in document.payload:
            if key in _OURS:
                raise DocumentError(f"{named}: payload {key!r} is written by the store; use another key.")
        content["payload"] = {
            _text(key, f"{named}: payload key"): _plain(value, f"{named}: payload {key!r}")
            for key, value in document.payload.items()
        }
    return content


def _plain(value: Any, named: str) -> Any:
    """``value`` as JSON holds it, or a ``DocumentError`` that names where it sits."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, named)
    if isinstance(value, int) and int(value) in _INTEGERS:
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
                if isinstance(item, (bool, dict, list)):
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
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()[:32]


def _fields(row: Row) -> dict[str, Any]:
    """The common fields of ``Document`` and ``Hit``; foreign payloads may lack or misuse any of them."""
    own = row.payload.get("f2rag")
    metadata = row.payload.get("metadata")
    text = row.payload.get("page_content")
    if own is None and text is None:
        text, metadata = _of_node(row.payload)
    rest = dict(metadata) if isinstance(metadata, Mapping) else {}
    language, source = (_taken(rest, key) for key in _TAKEN)
    return {
        "id": str(own["id"]) if isinstance(own, Mapping) and "id" in own else str(row.id),
        "text": str(text or ""),
        "language": language,
        "source": source,
        "metadata": rest,
    }


def _of_node(payload: Mapping[str, Any]) -> tuple[str, Any]:
    """Text and metadata of a point that LlamaIndex's Qdrant store wrote."""
    try:
        node = json.loads(payload[NODE_KEY])
        return str(node.get("text") or payload.get("text") or ""), node.get("metadata")
    except (KeyError, TypeError, ValueError, AttributeError):
        return "", None


def _taken(metadata: dict[str, Any], key: str) -> str | None:
    """Take a string out of the metadata; anything else that lies there stays."""
    return metadata.pop(key) if isinstance(metadata.get(key), str) else None
