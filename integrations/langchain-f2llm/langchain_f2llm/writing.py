"""Documents into a store: what is there and equal is skipped, the rest is embedded and stored batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from langchain_f2llm.documents import check_count

if TYPE_CHECKING:
    from f2rag.store import QdrantStore
    from f2rag.types import Document

    from langchain_f2llm.embeddings import F2LLMEmbeddings

WINDOW = 1024
"""Documents that are embedded and stored together when a call names no ``batch_size``."""


def write(embedding: F2LLMEmbeddings, store: QdrantStore, documents: list[Document], batch_size: int) -> list[str]:
    """Embed and store documents; returns their ids in order.

    Raises:
        InputError: The batch size, or a text that cannot be embedded.
        DocumentError: Metadata that JSON cannot hold; nothing was embedded then.
        StoreError: The collection failed.
    """
    for batch, texts in _missing(store, documents, batch_size):
        store.upsert(batch, embedding.embed_documents_array(texts, dimensions=store.dimensions))
    store.optimize()
    return [document.key for document in documents]


async def awrite(
    embedding: F2LLMEmbeddings, store: QdrantStore, documents: list[Document], batch_size: int
) -> list[str]:
    """``write`` without blocking the event loop; a cancelled one leaves whole batches."""
    for batch, texts in await asyncio.to_thread(_missing, store, documents, batch_size):
        vectors = await embedding.aembed_documents_array(texts, dimensions=store.dimensions)
        await asyncio.to_thread(store.upsert, batch, vectors)
    await asyncio.to_thread(store.optimize)
    return [document.key for document in documents]


def _missing(
    store: QdrantStore, documents: list[Document], batch_size: int
) -> Iterator[tuple[list[Document], list[str]]]:
    """Batches of the documents that are not stored as they are, with their texts; of one id the last wins."""
    check_count(batch_size, "batch_size")
    last = list({document.key: document for document in documents}.values())
    # Asking for the states checks every document, before anything is embedded.
    stored = store.unchanged(last)
    missing = [document for document, known in zip(last, stored, strict=True) if not known]
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    return ((batch, [document.text for document in batch]) for batch in batches)
