"""Whatever a ``QdrantClient`` reaches as a home: memory, the client's local folder, later a server.

The contract lies in the collection's metadata under one key. The client's local mode is not thread-safe, so all calls
to one such client go through one lock; it ignores payload indexes and says so in a warning, so it is not asked for any.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from f2rag.contract import CONTRACT_KEY, EmbeddingContract
from f2rag.errors import StoreError
from f2rag.store.agreement import read
from f2rag.store.failures import translated
from f2rag.store.filters import EVERYTHING, Selection, to_client
from f2rag.store.homes import INDEXED_KEYS, MEMORY, CollectionInfo, HomeKind, Point, PointId, Row
from f2rag.types import FloatVector

_FACET_LIMIT = 10_000
_locks: weakref.WeakKeyDictionary[QdrantClient, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


def memory_home() -> ClientHome:
    """A new, empty home in memory."""
    return ClientHome(QdrantClient(location=MEMORY), owned=True)


def local_home(folder: Path) -> ClientHome:
    """The client's local mode in a folder; the fallback where the embedded engine is not installed.

    Raises:
        StoreLockedError: The folder is open elsewhere.
        StorePermissionError: The folder may not be written.
    """
    with translated(f"Folder {folder}"):
        return ClientHome(QdrantClient(path=str(folder)), owned=True)


class ClientHome:
    """The collections that a client reaches.

    Args:
        client: The client.
        owned: Whether ``close`` closes it; a client that was handed in stays open.
    """

    def __init__(self, client: QdrantClient, *, owned: bool = False) -> None:
        options = client.init_options
        self.client = client
        self.kind: HomeKind = "client"
        self.name = f"Qdrant at {options.get('url') or options.get('host') or 'a client'}"
        if options.get("location") == MEMORY:
            self.kind, self.name = "memory", MEMORY
        elif options.get("path"):
            self.kind, self.name = "client-local", str(options["path"])
        self.local = self.kind != "client"
        self.lock = _lock_of(client) if self.local else nullcontext()
        self._owned = owned

    def collections(self) -> list[str]:
        """Names of the client's collections, sorted."""
        with self.engine():
            return sorted(each.name for each in self.client.get_collections().collections)

    def create(self, collection: str, contract: EmbeddingContract) -> None:
        """Create a collection with its contract in one call, then its indexes."""
        try:
            with self.engine():
                self.client.create_collection(
                    collection,
                    vectors_config=models.VectorParams(size=contract.dimensions, distance=models.Distance.COSINE),
                    metadata={CONTRACT_KEY: contract.to_dict()},
                )
        except StoreError:
            if collection not in self.collections():
                raise
        ClientBackend(self, collection).create_indexes()

    def open(self, collection: str) -> ClientBackend:
        """Open a collection."""
        return ClientBackend(self, collection)

    def info(self, collection: str) -> CollectionInfo:
        """Describe a collection; a damaged contract is ``None``."""
        backend = ClientBackend(self, collection)
        try:
            found = backend.read_contract()
            contract = read(found, collection) if found is not None else None
        except StoreError:
            contract = None
        return CollectionInfo(name=collection, contract=contract, points=backend.count(EVERYTHING))

    def drop(self, collection: str) -> None:
        """Delete a collection."""
        with self.engine():
            self.client.delete_collection(collection)

    def close(self) -> None:
        """Close the client if it was made here."""
        if self._owned:
            with self.engine():
                self.client.close()

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Around every call to the client: its lock, and its errors as ours."""
        with translated(self.name), self.lock:
            yield


class ClientBackend:
    """One collection of a client."""

    def __init__(self, home: ClientHome, collection: str) -> None:
        self.place = home.name
        self._home = home
        self._client = home.client
        self._collection = collection

    def read_contract(self) -> Mapping[str, Any] | None:
        """The contract in the collection's metadata, or ``None`` where there is none."""
        with self._home.engine():
            metadata = self._client.get_collection(self._collection).config.metadata or {}
        found = metadata.get(CONTRACT_KEY)
        return found if isinstance(found, Mapping) else None

    def write_contract(self, stored: Mapping[str, Any]) -> None:
        """Merge the contract into the collection's metadata."""
        with self._home.engine():
            self._client.update_collection(self._collection, metadata={CONTRACT_KEY: dict(stored)})

    def vector(self) -> tuple[int, str] | None:
        """Size and distance of the unnamed vector."""
        with self._home.engine():
            vectors = self._client.get_collection(self._collection).config.params.vectors
        unnamed = vectors.get("") if isinstance(vectors, dict) else vectors
        return None if unnamed is None else (unnamed.size, unnamed.distance.value)

    def create_indexes(self) -> None:
        """Create the keyword indexes on a server."""
        if not self._home.local:
            with self._home.engine():
                for key in INDEXED_KEYS:
                    self._client.create_payload_index(self._collection, key, models.PayloadSchemaType.KEYWORD)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write one batch and wait until it can be found."""
        batch = models.Batch(
            ids=[point.id for point in points],
            vectors=[point.vector.tolist() for point in points],
            payloads=[point.payload for point in points],
        )
        with self._home.engine():
            self._client.upsert(self._collection, batch, wait=True)

    def flush(self) -> None:
        """Nothing to do: a server has its log, the local mode commits each point, memory forgets anyway."""

    def optimize(self) -> bool:
        """Nothing to do: a server builds its index by itself, the local mode has none."""
        return False

    def search(
        self,
        vector: FloatVector,
        *,
        limit: int,
        selection: Selection,
        score_threshold: float | None,
        exact: bool,
    ) -> list[Row]:
        """The nearest points, best first."""
        with self._home.engine():
            points = self._client.query_points(
                self._collection,
                query=vector.tolist(),
                limit=limit,
                query_filter=to_client(selection),
                score_threshold=score_threshold,
                # The local mode is always exact and warns about parameters.
                search_params=None if self._home.local else models.SearchParams(exact=exact),
                with_payload=True,
            ).points
        return [Row(_id(point.id), point.payload or {}, point.score) for point in points]

    def retrieve(self, ids: Sequence[PointId], *, keys: Sequence[str] | None = None) -> list[Row]:
        """Points by Qdrant id."""
        with self._home.engine():
            records = self._client.retrieve(
                self._collection, list(ids), with_payload=list(keys) if keys is not None else True
            )
        return [Row(_id(record.id), record.payload or {}) for record in records]

    def vectors(self, ids: Sequence[PointId]) -> dict[PointId, list[float]]:
        """Unnamed vectors by Qdrant id."""
        with self._home.engine():
            records = self._client.retrieve(self._collection, list(ids), with_payload=False, with_vectors=True)
        return {_id(record.id): _unnamed(record.vector) for record in records}

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete by Qdrant id and wait until it is done."""
        with self._home.engine():
            self._client.delete(self._collection, points_selector=list(ids), wait=True)

    def count(self, selection: Selection) -> int:
        """How many points match, exactly."""
        with self._home.engine():
            return self._client.count(self._collection, count_filter=to_client(selection), exact=True).count

    def facet(self, key: str) -> dict[str, int]:
        """Values of a keyword field with their counts."""
        with self._home.engine():
            response = self._client.facet(self._collection, key, limit=_FACET_LIMIT, exact=True)
        return {str(hit.value): hit.count for hit in response.hits}

    def scroll(self, *, offset: Any, limit: int) -> tuple[list[Row], Any]:
        """One page in the order of the ids."""
        with self._home.engine():
            records, following = self._client.scroll(self._collection, offset=offset, limit=limit, with_payload=True)
        return [Row(_id(record.id), record.payload or {}) for record in records], following

    def close(self) -> None:
        """Nothing to let go of: the home holds the client."""


def _id(identifier: Any) -> PointId:
    """A server over gRPC may give a ``UUID`` where the others give text."""
    return identifier if isinstance(identifier, int) else str(identifier)


def _unnamed(vector: Any) -> list[float]:
    """The unnamed vector, also where there are named ones beside it."""
    return list(vector[""] if isinstance(vector, dict) else vector)


def _lock_of(client: QdrantClient) -> threading.RLock:
    """The one lock of a client, shared by every store on it."""
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())
