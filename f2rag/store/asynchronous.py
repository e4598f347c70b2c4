"""The async twins of the store's methods: the same call in a thread, so that async and sync cannot differ.

The embedded engine has no async interface, and qdrant-client releases the interpreter while it waits for a server, so
threads lose nothing: 16 searches at a time over gRPC came to the same rate either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f2rag.types import Document, FloatMatrix, FloatVector, Hit, HitGroup


class AsynchronousStore:
    """What ``QdrantStore`` inherits; each method takes the arguments of the one without the ``a``."""

    if TYPE_CHECKING:
        upsert: Callable[..., int]
        search: Callable[..., list[Hit]]
        search_groups: Callable[..., list[HitGroup]]
        get: Callable[..., list[Document]]
        vectors: Callable[..., dict[str, FloatVector]]
        delete: Callable[..., int]
        delete_where: Callable[..., int]
        count: Callable[..., int]
        facet: Callable[..., dict[str, int]]
        optimize: Callable[..., bool]

    async def aupsert(self, documents: Sequence[Document], vectors: FloatMatrix) -> int:
        """``upsert`` without blocking the event loop."""
        return await asyncio.to_thread(self.upsert, documents, vectors)

    async def asearch(self, vector: FloatVector, **options: Any) -> list[Hit]:
        """``search`` without blocking the event loop."""
        return await asyncio.to_thread(self.search, vector, **options)

    async def asearch_groups(self, vector: FloatVector, **options: Any) -> list[HitGroup]:
        """``search_groups`` without blocking the event loop."""
        return await asyncio.to_thread(self.search_groups, vector, **options)

    async def aget(self, ids: Sequence[str]) -> list[Document]:
        """``get`` without blocking the event loop."""
        return await asyncio.to_thread(self.get, ids)

    async def avectors(self, ids: Sequence[str]) -> dict[str, FloatVector]:
        """``vectors`` without blocking the event loop."""
        return await asyncio.to_thread(self.vectors, ids)

    async def adelete(self, ids: Sequence[str]) -> int:
        """``delete`` without blocking the event loop."""
        return await asyncio.to_thread(self.delete, ids)

    async def adelete_where(self, **options: Any) -> int:
        """``delete_where`` without blocking the event loop."""
        return await asyncio.to_thread(self.delete_where, **options)

    async def acount(self, **options: Any) -> int:
        """``count`` without blocking the event loop."""
        return await asyncio.to_thread(self.count, **options)

    async def afacet(self, field: str, **options: Any) -> dict[str, int]:
        """``facet`` without blocking the event loop."""
        return await asyncio.to_thread(self.facet, field, **options)

    async def aoptimize(self, **options: Any) -> bool:
        """``optimize`` without blocking the event loop."""
        return await asyncio.to_thread(self.optimize, **options)
