"""A folder as a home: one shard of Qdrant's own engine per collection, in this process.

    <folder>/<collection>/             the shard: edge_config.json, segments/, wal/
    <folder>/<collection>/f2rag.json   the contract

A collection appears whole or not at all: it is made under a hidden name and renamed. Every upsert goes through the
write-ahead log, so a killed process loses nothing that was acknowledged. One process may have a collection open.

The engine maps its files into memory, and a full disk then ends the *process* (SIGBUS), with no exception to catch.
Hence the free space is looked at before each step; another process that fills the disk in between can still do it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from f2rag.contract import EmbeddingContract
from f2rag.errors import F2RagError, StorageFullError, StoreError, StoreLockedError
from f2rag.store.agreement import damaged, read
from f2rag.store.failures import forbidden, translated
from f2rag.store.filters import EVERYTHING, Selection, to_edge
from f2rag.store.homes import INDEXED_KEYS, CollectionInfo, HomeKind, Point, PointId, Row
from f2rag.types import FloatVector

CONTRACT_FILE = "f2rag.json"
CONFIG_FILE = "edge_config.json"
HIDDEN = ".f2rag-"
"""Prefix of folders that are being made or deleted."""

OPEN_RESERVE = 48 * 2**20
"""Free bytes that opening needs: the engine touches a page file of 32 MiB (measured: 37 MiB on tmpfs)."""

WRITE_RESERVE = 96 * 2**20
"""Free bytes that remain after a write, so that what was filled can be opened again."""

OPTIMIZE_FROM = 10_000
"""Points without an index from which building one pays; below, an exact scan takes a few milliseconds."""

_FACET_LIMIT = 10_000
_LEFTOVER_SECONDS = 3600

logger = logging.getLogger(__name__)


class EdgeHome:
    """The collections of one folder."""

    kind: HomeKind = "edge"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def collections(self) -> list[str]:
        """Names of the folder's collections, sorted."""
        if not self.folder.is_dir():
            return []
        with translated(f"Folder {self.folder}"):
            names = [path.name for path in self.folder.iterdir() if (path / CONFIG_FILE).is_file()]
        return sorted(name for name in names if not name.startswith("."))

    def create(self, collection: str, contract: EmbeddingContract) -> None:
        """Make a shard with its indexes and contract under a hidden name, then give it its own."""
        with translated(f"Folder {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            require_space(self.folder, WRITE_RESERVE)
            self._sweep()
            hidden = Path(tempfile.mkdtemp(prefix=f"{HIDDEN}creating-", dir=self.folder))
        try:
            with translated(f"Folder {self.folder}"):
                vectors = edge.EdgeVectorParams(contract.dimensions, edge.Distance.Cosine)
                shard = edge.EdgeShard.create(str(hidden), edge.EdgeConfig(vectors=vectors, wal_enabled=True))
            backend = EdgeBackend(shard, hidden)
            try:
                backend.create_indexes()
                backend.write_contract(contract.to_dict())
            finally:
                backend.close()  # an open shard cannot be renamed: its write-ahead log keeps the old path
            with translated(f"Folder {self.folder}"):
                hidden.chmod(0o777 & ~_umask())
                self._give_name(hidden, collection)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    def open(self, collection: str) -> EdgeBackend:
        """Load a shard.

        Raises:
            StoreLockedError: It is open elsewhere.
            StorePermissionError: The folder may not be written.
            StorageFullError: Too little free space to open it safely.
            StoreError: It is damaged.
        """
        path = self.folder / collection
        place = f"Collection folder {path}"
        if not os.access(path, os.W_OK | os.X_OK):
            raise forbidden(place)
        require_space(path, OPEN_RESERVE)
        # The engine would open a shard without its segments as an empty one.
        if not any((path / "segments").glob("*")):
            raise StoreError(f"{place} is damaged: its segments are gone. Restore it from a copy, or drop it.")
        with translated(place):
            return EdgeBackend(edge.EdgeShard.load(str(path)), path)

    def info(self, collection: str) -> CollectionInfo:
        """Describe a collection; what cannot be read, because it is open elsewhere or damaged, is ``None``.

        A home with one damaged collection can still be listed.
        """
        path = self.folder / collection
        try:
            found = _read_contract(path)
            contract = read(found, str(path)) if found is not None else None
        except StoreError:
            contract = None
        try:
            backend = self.open(collection)
        except StoreError:
            return CollectionInfo(name=collection, contract=contract, points=None)
        try:
            return CollectionInfo(name=collection, contract=contract, points=backend.count(EVERYTHING))
        finally:
            backend.close()

    def drop(self, collection: str) -> None:
        """Delete a collection; refused while it is open elsewhere."""
        path = self.folder / collection
        try:
            self.open(collection).close()
        except StoreLockedError:
            raise
        except F2RagError:
            logger.debug("Dropping %s, which cannot be opened", path, exc_info=True)
        with translated(f"Folder {self.folder}"):
            hidden = Path(tempfile.mkdtemp(prefix=f"{HIDDEN}dropping-", dir=self.folder))
            path.rename(hidden / collection)
            shutil.rmtree(hidden)

    def close(self) -> None:
        """Nothing to let go of: each collection holds its own lock."""

    def _give_name(self, hidden: Path, collection: str) -> None:
        """Rename a complete collection to its own name, unless another process was faster."""
        try:
            hidden.rename(self.folder / collection)
        except OSError:
            if not (self.folder / collection / CONFIG_FILE).is_file():
                raise
            shutil.rmtree(hidden)

    def _sweep(self) -> None:
        """Delete what a process that was killed while making or deleting a collection left."""
        for path in self.folder.glob(f"{HIDDEN}*"):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


class EdgeBackend:
    """One shard."""

    def __init__(self, shard: edge.EdgeShard, path: Path) -> None:
        self.place = str(path.parent)
        self._path = path
        self._shard = shard
        self._closed = False

    def read_contract(self) -> Mapping[str, Any] | None:
        """The contract file, or ``None`` where there is none."""
        return _read_contract(self._path)

    def write_contract(self, stored: Mapping[str, Any]) -> None:
        """Write the contract file by renaming a complete one, so that no reader ever sees half of it."""
        with self._engine():
            _write_whole(self._path / CONTRACT_FILE, json.dumps(stored, ensure_ascii=False, indent=2) + "\n")

    def vector(self) -> tuple[int, str] | None:
        """Size and distance of the unnamed vector, from the shard's own configuration."""
        with self._engine():
            unnamed = json.loads((self._path / CONFIG_FILE).read_text("utf-8"))["vectors"].get("")
        return None if unnamed is None else (unnamed["size"], unnamed["distance"])

    def create_indexes(self) -> None:
        """Create the keyword indexes."""
        with self._engine():
            for key in INDEXED_KEYS:
                self._shard.update(edge.UpdateOperation.create_field_index(key, edge.PayloadSchemaType.Keyword))

    def upsert(self, points: Sequence[Point]) -> None:
        """Write one batch to the log and the segments."""
        # Log, vectors and payload: what a point costs in text is more than twice what it costs here in bytes.
        require_space(self._path, WRITE_RESERVE + sum(point.bytes for point in points))
        with self._engine():
            # As lists: the engine reads numpy rows element by element, which is slower.
            rows = [edge.Point(point.id, point.vector.tolist(), point.payload) for point in points]
            self._shard.update(edge.UpdateOperation.upsert_points(rows))

    def flush(self) -> None:
        """Write everything to the segments' files."""
        with self._engine():
            self._shard.flush()

    def optimize(self) -> bool:
        """Build the index over what has none. It holds up every thread of the process while it runs."""
        with self._engine():
            info = self._shard.info()
            if info.points_count - info.indexed_vectors_count < OPTIMIZE_FROM:
                return False
        used = sum(path.stat().st_blocks * 512 for path in self._path.rglob("*") if path.is_file())
        try:
            require_space(self._path, WRITE_RESERVE + 2 * used)
        except StorageFullError as error:
            logger.warning("No index is built, searches stay exact and slower: %s", error)
            return False
        with self._engine():
            return self._shard.optimize()

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
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist()),
            filter=to_edge(selection),
            score_threshold=score_threshold,
            params=edge.SearchParams(exact=exact),
            with_payload=True,
        )
        with self._engine():
            return [Row(_id(point.id), point.payload or {}, point.score) for point in self._shard.query(request)]

    def retrieve(self, ids: Sequence[PointId], *, keys: Sequence[str] | None = None) -> list[Row]:
        """Points by Qdrant id."""
        with self._engine():
            records = self._shard.retrieve(list(ids), list(keys) if keys is not None else True, with_vector=False)
        return [Row(_id(record.id), record.payload or {}) for record in records]

    def vectors(self, ids: Sequence[PointId]) -> dict[PointId, list[float]]:
        """Unnamed vectors by Qdrant id."""
        with self._engine():
            records: Any = self._shard.retrieve(list(ids), with_payload=False, with_vector=True)
        return {_id(record.id): list(record.vector) for record in records}

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete by Qdrant id."""
        require_space(self._path, OPEN_RESERVE)
        with self._engine():
            self._shard.update(edge.UpdateOperation.delete_points(list(ids)))
            self._shard.flush()

    def count(self, selection: Selection) -> int:
        """How many points match, exactly."""
        with self._engine():
            return self._shard.count(edge.CountRequest(exact=True, filter=to_edge(selection)))

    def facet(self, key: str) -> dict[str, int]:
        """Values of a keyword field with their counts."""
        with self._engine():
            response = self._shard.facet(edge.FacetRequest(key, limit=_FACET_LIMIT, exact=True))
            return {str(hit.value): hit.count for hit in response.hits}

    def scroll(self, *, offset: Any, limit: int) -> tuple[list[Row], Any]:
        """One page in the order of the ids."""
        request = edge.ScrollRequest(offset=offset, limit=limit, with_payload=True, with_vector=False)
        with self._engine():
            records, following = self._shard.scroll(request)
        return [Row(_id(record.id), record.payload or {}) for record in records], following

    def close(self) -> None:
        """Release the lock."""
        if not self._closed:
            self._closed = True
            with self._engine():
                self._shard.close()

    @contextmanager
    def _engine(self) -> Iterator[None]:
        with translated(f"Collection folder {self._path}"):
            yield


def require_space(folder: Path, needed: int) -> None:
    """Make sure of ``needed`` free bytes where ``folder`` lies.

    Raises:
        StorageFullError: There are fewer.
    """
    with translated(f"Folder {folder}"):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageFullError(
            f"The device of {folder} has {free / 2**20:.0f} MiB free, and this step needs {needed / 2**20:.0f} MiB "
            "to be safe. What was stored stays. Free some space or choose a folder on another device, then repeat it."
        )


def _read_contract(path: Path) -> Mapping[str, Any] | None:
    file = path / CONTRACT_FILE
    with translated(f"Collection folder {path}"):
        try:
            stored = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:  # neither UTF-8 nor JSON
            raise damaged(str(path), f"{CONTRACT_FILE} is no JSON: {error}") from error
    if not isinstance(stored, dict):
        raise damaged(str(path), f"{CONTRACT_FILE} holds no JSON object")
    return stored


def _write_whole(file: Path, text: str) -> None:
    """Write ``file`` so that it is there, complete, or not at all, also after a power loss."""
    temporary = file.with_name(file.name + ".new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _id(identifier: Any) -> PointId:
    """The engine gives a ``UUID`` or an integer."""
    return identifier if isinstance(identifier, int) else str(identifier)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
