"""A cache of vectors that cannot mix roles, instructions, models or dimensions.

LlamaIndex's base class keys its ``embeddings_cache`` by the raw text alone, so that after a document has been embedded,
the query of the same words gets the document's vector. Here the base class meets an empty cache, and the embedding asks
the real one itself, under keys that say everything a vector depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from f2rag.types import Role
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

CACHE_COLLECTION = "f2llm_embeddings"
"""Where the vectors lie in the user's key-value store; the base class's ``embeddings`` has raw texts for keys."""


class RoleKeyedCache(BaseKVStore):
    """The user's key-value store behind sound keys.

    As a ``BaseKVStore`` it is empty and keeps nothing, because the base class calls it with raw texts for keys. What
    is cached goes through ``read`` and ``write`` and lies in ``store``.

    Args:
        store: The user's key-value store.
    """

    def __init__(self, store: BaseKVStore) -> None:
        self.store = store

    def read(self, keys: Sequence[str]) -> list[list[float] | None]:
        """The cached vectors; ``None`` where there is none."""
        return [_vector(self.store.get(key, collection=CACHE_COLLECTION)) for key in keys]

    async def aread(self, keys: Sequence[str]) -> list[list[float] | None]:
        """``read`` without blocking the event loop."""
        return [_vector(await self.store.aget(key, collection=CACHE_COLLECTION)) for key in keys]

    def write(self, keys: Sequence[str], vectors: Sequence[list[float]]) -> None:
        """Keep vectors."""
        for key, vector in zip(keys, vectors, strict=True):
            self.store.put(key, {"embedding": vector}, collection=CACHE_COLLECTION)

    async def awrite(self, keys: Sequence[str], vectors: Sequence[list[float]]) -> None:
        """``write`` without blocking the event loop."""
        for key, vector in zip(keys, vectors, strict=True):
            await self.store.aput(key, {"embedding": vector}, collection=CACHE_COLLECTION)

    # -- what the base class sees: an empty store ----------------------------------------------------------------

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:  # noqa: ARG002
        """Nothing: a raw text says neither the role nor the model."""
        return None

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:  # noqa: ARG002
        """Nothing, see ``get``."""
        return None

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep nothing, see ``get``."""

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep nothing, see ``get``."""

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Everything in the user's store."""
        return self.store.get_all(collection=collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Everything in the user's store."""
        return await self.store.aget_all(collection=collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete from the user's store."""
        return self.store.delete(key, collection=collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete from the user's store."""
        return await self.store.adelete(key, collection=collection)


def cache_keys(
    texts: Sequence[str], *, role: Role, instruction: str, fingerprint: str, max_length: int, on_overflow: str
) -> list[str]:
    """One key per text, different wherever the vectors could be.

    Args:
        texts: What is embedded.
        role: As what.
        instruction: What is put before it.
        fingerprint: Of the contract: model, revision, dimensions, what documents get.
        max_length: Tokens after which texts are cut.
        on_overflow: The policy for longer ones: what is an error must not come out of a cache.
    """
    setting = json.dumps([role, instruction, fingerprint, max_length, on_overflow])
    # surrogatepass: text that is no Unicode gets its error from the encoder, not from here
    return [hashlib.sha256(f"{setting}\0{text}".encode(errors="surrogatepass")).hexdigest() for text in texts]


def _vector(value: dict[str, Any] | None) -> list[float] | None:
    return None if value is None else list(value["embedding"])
