"""LangChain's documents and filters as f2rag's, and back.

LangChain keeps language and source in the metadata, f2rag beside it; the payload in Qdrant is the same.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from f2rag.errors import DocumentError, InputError
from f2rag.types import DOCUMENT_NAMESPACE, Document, Hit
from langchain_core.documents import Document as LangChainDocument

if TYPE_CHECKING:
    from qdrant_client import models

    Filter: TypeAlias = models.Filter | Mapping[str, Any]

_OWN_FIELDS = ("language", "source")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_document(text: str, metadata: Mapping[str, Any] | None, id: str | None, *, position: int) -> Document:  # noqa: A002
    """One of f2rag's documents.

    Args:
        text: The page content.
        metadata: Any mapping of JSON-like values.
        id: Any string; ``None`` derives one from the text and the metadata, so that adding the same document again
            changes nothing, while equal texts from two places stay two documents.
        position: Of the document among those given, for messages.

    Raises:
        DocumentError: Something that is not text, or no mapping.
    """
    if not isinstance(text, str):
        raise DocumentError(f"Text {position} is {type(text).__name__} ({text!r:.40}); every text must be a string.")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise DocumentError(f"Metadata {position} is {type(metadata).__name__}; expected a dictionary or None.")
    if id is not None and not isinstance(id, str):
        raise DocumentError(f"Id {position} is {type(id).__name__} ({id!r:.60}); expected any string, e.g. str(id).")
    rest = dict(metadata or {})
    own = {key: rest.pop(key) for key in _OWN_FIELDS if isinstance(rest.get(key), str)}
    return Document(text=text, id=_derived_id(text, metadata) if id is None else id, metadata=rest, **own)


def to_documents(
    texts: Iterable[str],
    metadatas: Iterable[Mapping[str, Any] | None] | None,
    ids: Iterable[str | None] | None,
) -> list[Document]:
    """All of f2rag's documents, checked; generators are read.

    Raises:
        InputError: Other numbers of metadata or ids than of texts, or one string instead of texts.
        DocumentError: See ``to_document``.
    """
    if isinstance(texts, (str, bytes)):
        raise InputError("add_texts takes several strings; one was given. Use add_texts([text]).")
    listed = list(texts)
    given_columns: dict[str, list[Any]] = {}
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if isinstance(given, (str, bytes, Mapping)):
            raise InputError(f"{name} is one {type(given).__name__}; expected a list, one for each text.")
        given_columns[name] = [None] * len(listed) if given is None else list(given)
        if len(given_columns[name]) != len(listed):
            raise InputError(
                f"{len(given_columns[name])} {name} were given for {len(listed)} texts; expected one for each."
            )
    rows = zip(listed, given_columns["metadatas"], given_columns["ids"], strict=True)
    return [to_document(*row, position=position) for position, row in enumerate(rows)]


def columns(documents: Iterable[LangChainDocument]) -> dict[str, list[Any]]:
    """LangChain's documents as the arguments of ``add_texts``."""
    listed = list(documents)
    for position, document in enumerate(listed):
        if not isinstance(document, LangChainDocument):
            raise InputError(f"Document {position} is {type(document).__name__}; expected a LangChain Document.")
    return {
        "texts": [document.page_content for document in listed],
        "metadatas": [document.metadata for document in listed],
        "ids": [document.id for document in listed],
    }


def from_document(found: Document | Hit) -> LangChainDocument:
    """LangChain's document of a stored one, with the metadata as it was given."""
    metadata = dict(found.metadata)
    for key in _OWN_FIELDS:
        if (value := getattr(found, key)) is not None:
            metadata[key] = value
    return LangChainDocument(id=found.id, page_content=found.text, metadata=metadata)


def check_count(value: object, name: str) -> None:
    """Refuse what is no whole number from 1.

    Raises:
        InputError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}={value!r} was given; expected a whole number from 1.")


def to_filter(given: Filter | None) -> models.Filter | None:
    """Qdrant's filter.

    Args:
        given: Qdrant's own (keys are written ``metadata.<key>``), or a dictionary of metadata keys to the value, or the
            list of values, that they must have. A dot in a key goes into nested metadata.

    Raises:
        InputError: Something else, or a value that equality cannot be asked of.
    """
    if given is None:
        return None
    from qdrant_client import models

    if isinstance(given, models.Filter):
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"A filter is a dictionary such as {{'language': 'fr'}} or a qdrant_client.models.Filter, "
            f"not {type(given).__name__}."
        )
    return models.Filter(must=[_condition(key, value) for key, value in given.items()])


def _condition(key: str, value: Any) -> Any:
    from qdrant_client import models

    if not isinstance(key, str) or not key or key.startswith("metadata."):
        raise InputError(f"{key!r} is no metadata key; in a dictionary write it bare, e.g. {{'year': 2024}}.")
    path = "metadata." + ".".join(part if _PLAIN_KEY.fullmatch(part) else f'"{part}"' for part in key.split("."))
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=path))
    if isinstance(value, (str, int)):  # booleans are integers
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))
    if isinstance(value, float):
        return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))
    if isinstance(value, Sequence) and value:
        kinds = {type(item) for item in value}
        if kinds == {str} or kinds == {int}:
            return models.FieldCondition(key=path, match=models.MatchAny(any=list(value)))
        return models.Filter(should=[_condition(key, item) for item in value])
    raise InputError(
        f"The filter asks for {key}={value!r}; expected text, a number, true or false, None, or a list of these. "
        "For ranges and other comparisons give a qdrant_client.models.Filter."
    )


def _derived_id(text: str, metadata: Mapping[str, Any] | None) -> str:
    # What JSON cannot hold is refused by the store, with its name; here it only must not stop the way there.
    canonical = json.dumps([text, dict(metadata or {})], sort_keys=True, default=repr, skipkeys=True)
    return str(uuid.uuid5(DOCUMENT_NAMESPACE, canonical))
