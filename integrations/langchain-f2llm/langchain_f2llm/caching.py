"""LangChain's CacheBackedEmbeddings with a key for each role, so that a query never gets a document's vector.

Its own on-ramp, ``from_bytes_store``, has one key encoder for both roles; with both in one store, a query finds the
vector of an equal document. It keeps the roles in two stores, so two views of one store are all that it takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from f2rag.types import Role
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.stores import BaseStore, ByteStore

    from langchain_f2llm.embeddings import F2LLMEmbeddings


def cache_backed(
    embeddings: F2LLMEmbeddings, store: ByteStore, *, queries: bool, batch_size: int | None
) -> CacheBackedEmbeddings:
    """See ``F2LLMEmbeddings.cached``."""
    try:
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_classic.storage import EncoderBackedStore
    except ImportError as error:
        message = "langchain-classic is not installed. Install it with: pip install 'langchain-f2llm[cache]'"
        raise ImportError(message) from error

    def view(role: Role) -> BaseStore[str, list[float]]:
        return EncoderBackedStore[str, list[float]](
            store, _key_encoder(embeddings.cache_namespace(role)), _to_bytes, json.loads
        )

    return CacheBackedEmbeddings(
        embeddings, view("document"), batch_size=batch_size, query_embedding_store=view("query") if queries else None
    )


def _key_encoder(namespace: str) -> Callable[[str], str]:
    # A text with half of a surrogate pair gets a key too: it is the encoder that refuses it.
    return lambda text: f"{namespace}{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def _to_bytes(vector: list[float]) -> bytes:
    return json.dumps(vector).encode()
