"""LlamaIndex nodes to f2rag documents and back, exactly.

Text and metadata lie where every reader of the collection looks for them, so that LangChain finds them too. The node
itself (relationships, templates, excluded keys, offsets, the order of its metadata) lies beside them under the keys
that LlamaIndex's own Qdrant store uses, so that either store reads what the other wrote.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from f2rag.errors import DocumentError
from f2rag.types import DOCUMENT_NAMESPACE, Document, Hit
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument

NODE, KIND = "_node_content", "_node_type"
"""The payload keys of the node as JSON and of the name of its class."""

SOURCE_DOCUMENT_KEY = "doc_id"
"""Where a filter finds the id of the document that a node was cut from."""

_TAKEN = ("language", "source")
_KINDS: Mapping[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, ImageNode, IndexNode, Node, LlamaDocument, ImageDocument)
}


def content_id(position: int, document: BaseNode) -> str:
    """An id for a node from what it is cut from, so that ingesting the same document again replaces its nodes.

    LlamaIndex's own are random. For any splitter: ``SentenceSplitter(id_func=content_id)``.

    Args:
        position: The node's place in the document.
        document: What it is cut from; its text and metadata count, not its id.
    """
    return str(uuid.uuid5(DOCUMENT_NAMESPACE, f"{document.hash}\0{position}"))


def document_of(node: BaseNode) -> Document:
    """What is stored of ``node``, but for its vector.

    Raises:
        DocumentError: Its metadata holds NaN or infinity.
    """
    for key, value in node.metadata.items():
        if not _finite(value):  # pydantic would write null without a word
            raise DocumentError(f"Node {node.node_id!r}: metadata {key!r} is or holds NaN or infinity, not in JSON.")
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    fields = node.model_dump(mode="json", exclude={"embedding"})
    metadata = dict(fields["metadata"])
    taken = {key: metadata.pop(key) for key in _TAKEN if isinstance(metadata.get(key), str)}
    for key in _TAKEN:  # of another type, which the store has no place for: kept in the node alone
        metadata.pop(key, None)
    payload = {NODE: json.dumps(fields, ensure_ascii=False), KIND: node.class_name()}
    if node.ref_doc_id is not None:
        payload |= dict.fromkeys((SOURCE_DOCUMENT_KEY, "document_id", "ref_doc_id"), node.ref_doc_id)
    return Document(text=text, id=node.node_id, metadata=metadata, payload=payload, **taken)


def node_of(found: Document | Hit) -> BaseNode:
    """The node of a stored document; of one that LangChain or f2rag wrote, a plain text node."""
    metadata = dict(found.metadata)
    metadata |= {key: value for key in _TAKEN if (value := getattr(found, key)) is not None}
    written = found.payload.get(NODE)
    if not isinstance(written, str):
        return TextNode(id_=found.id or "", text=found.text, metadata=metadata)
    fields: dict[str, Any] = json.loads(written)
    untouched = {key: value for key, value in fields["metadata"].items() if key not in _TAKEN or isinstance(value, str)}
    if untouched != metadata:  # something else changed the metadata since: what everybody sees is what counts
        fields["metadata"] = metadata
    kind = _KINDS.get(found.payload.get(KIND, ""), TextNode)
    if issubclass(kind, TextNode):
        fields["text"] = found.text
    return kind.from_dict(fields)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(inner) for inner in value.values())
    return not isinstance(value, (list, tuple)) or all(_finite(inner) for inner in value)
