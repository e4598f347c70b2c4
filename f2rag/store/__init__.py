"""Documents and their vectors in Qdrant, filled and read under one contract.

qdrant.py        QdrantStore, what the rest of f2rag talks to
reading.py       its reading half; asynchronous.py the async twins
catalog.py       the collections and aliases of a home; open_home.py holds one open, each collection once
reindexing.py    a collection into another one, while the first goes on serving
agreement.py     may these vectors go into that collection?
layout.py        what is stored of each document
modes.py         the ways to search; planning.py chooses one, and says what it does, in stages.py's words
offers.py        the modes that a collection offers, and what each of them reads
points.py        documents with their vectors as batches; payloads.py what is written beside the vectors
lexical.py       texts to words, for hybrid search
filters.py       one filter language in every home
homes.py         what a home of collections must do, and which one a location means
edge.py          a folder, on Qdrant's own engine in this process
client.py        whatever a ``qdrant_client.QdrantClient`` reaches; connection.py the way to it
server.py        a server or a cluster; features.py what which version can do
failures.py      the engines' errors as f2rag's
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from f2rag.store.catalog import drop_collection, list_aliases, list_collections, switch_alias
from f2rag.store.homes import CollectionInfo, Status
from f2rag.store.layout import Layout, Lexical
from f2rag.store.modes import Diverse, Exact, Funnel, Hnsw, Hybrid, Prefix, Quantized
from f2rag.store.open_home import Collections
from f2rag.store.qdrant import QdrantStore
from f2rag.store.reindexing import reindex

if TYPE_CHECKING:
    from f2rag.store.server import Server

__all__ = [
    "CollectionInfo",
    "Collections",
    "Diverse",
    "Exact",
    "Funnel",
    "Hnsw",
    "Hybrid",
    "Layout",
    "Lexical",
    "Prefix",
    "QdrantStore",
    "Quantized",
    "Server",
    "Status",
    "drop_collection",
    "list_aliases",
    "list_collections",
    "reindex",
    "switch_alias",
]


def __getattr__(name: str) -> Any:
    """``Server`` brings qdrant-client, whose import takes as long as hundreds of searches in a folder."""
    if name == "Server":
        from f2rag.store.server import Server

        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
