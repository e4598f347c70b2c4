"""Documents and their vectors in Qdrant, filled and read under one contract.

qdrant.py      QdrantStore, what the rest of f2rag talks to
agreement.py   may these vectors go into that collection?
points.py      documents to stored points and back; the checks of vectors and metadata
filters.py     one filter language in every home
homes.py       what a home of collections must do, and which one a location means
edge.py        a folder, on Qdrant's own engine in this process
client.py      whatever a ``qdrant_client.QdrantClient`` reaches
failures.py    the engines' errors as f2rag's
"""

from __future__ import annotations

from f2rag.store.homes import CollectionInfo
from f2rag.store.qdrant import QdrantStore, drop_collection, list_collections

__all__ = ["CollectionInfo", "QdrantStore", "drop_collection", "list_collections"]
