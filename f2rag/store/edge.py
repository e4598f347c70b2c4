"""A folder as a home: one shard of Qdrant's own engine per collection, in this process.

    <folder>/<collection>/             the shard: edge_config.json, segments/, wal/
    <folder>/<collection>/f2rag.json   the record of the collection
    <folder>/.aliases/<alias>          the collection that the alias stands for

A collection appears whole or not at all: it is made under a hidden name and renamed. Every upsert goes through the
write-ahead log, so a killed process loses nothing that was acknowledged. One process may have a collection open.

The engine maps its files into memory, and a full disk then ends the *process* (SIGBUS), with no exception to catch.
Hence the free space is looked at before each step; another process that fills the disk in between can still do it.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from f2rag.errors import CollectionNotFoundError, F2RagError, InputError, StorageFullError, StoreError, StoreLockedError
from f2rag.store.agreement import read_record
from f2rag.store.edge_files import (
    CONTRACT_FILE as CONTRACT_FILE,
)
from f2rag.store.edge_files import (
    forget_aliases,
    read_aliases,
    read_contract_file,
    require_space,
    umask,
    write_alias,
    write_contract_file,
)
from f2rag.store.edge_requests import config_of, identifier, indexes_of, request_of, vectors_of
from f2rag.store.failures import forbidden, translated
from f2rag.store.filters import EVERYTHING, Selection, to_edge
from f2rag.store.groups import Value, best_groups, index_needed
from f2rag.store.homes import Batch, CollectionInfo, HomeKind, PointId, Row, Status, Version
from f2rag.store.layout import FULL, FieldKind, Layout
from f2rag.store.stages import SparseVector, Stage
from f2rag.types import FloatMatrix

CONFIG_FILE = "edge_config.json"
HIDDEN = ".f2rag-"
"""Prefix of folders that are being made or deleted."""

ENGINE: Version = (1, 20, 0)
"""The generation of Qdrant that qdrant-edge-py 0.9.0 was built from (its bill of materials names api 1.20.1-dev)."""

OPEN_RESERVE = 48 * 2**20
"""Free bytes that opening needs: the engine touches a page file of 32 MiB (measured: 37 MiB on tmpfs)."""

WRITE_RESERVE = 96 * 2**20
"""Free bytes that remain after a write, so that what was filled can be opened again."""

OPTIMIZE_FROM = 10_000
"""Points without an index from which building one pays; below, an exact scan takes a few milliseconds."""

INDEX_BYTES = 10_000 * 1024
"""Of the widest vectors without an index: for fewer the engine builds none (measured: 9.73 MB none, 10.75 MB one)."""

_LEFTOVER_SECONDS = 3600

logger = logging.getLogger(__name__)


class EdgeHome:
    """The collections of one folder."""

    kind: HomeKind = "edge"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def collections(self) -> list[str]:
        """Names of the folder's collections, sorted; aliases are not among them."""
        if not self.folder.is_dir():
            return []
        with translated(f"Folder {self.folder}"):
            names = [path.name for path in self.folder.iterdir() if (path / CONFIG_FILE).is_file()]
        return sorted(name for name in names if not name.startswith("."))

    def aliases(self) -> dict[str, str]:
        """The collection that each alias stands for."""
        return read_aliases(self.folder)

    def switch_alias(self, alias: str, collection: str) -> None:
        """Let an alias stand for a collection from now on; a store that is open keeps the one it has.

        Raises:
            InputError: ``alias`` is the name of a collection.
            CollectionNotFoundError: There is no such collection.
        """
        present = self.collections()
        if alias in present:
            raise InputError(
                f"{alias!r} is a collection in {self.folder}, so it cannot be an alias as well. Choose another alias."
            )
        if collection not in present:
            raise CollectionNotFoundError(
                f"The alias {alias!r} cannot stand for {collection!r}: {self.folder} has no such collection."
            )
        write_alias(self.folder, alias, collection)

    def create(self, collection: str, record: Mapping[str, Any], *, layout: Layout, dimensions: int) -> None:
        """Make a shard with its indexes and record under a hidden name, then give it its own.

        Raises:
            InputError: There is an alias of this name.
        """
        if collection in self.aliases():
            raise InputError(f"{collection!r} is an alias in {self.folder}. Choose another name for the collection.")
        with translated(f"Folder {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            require_space(self.folder, WRITE_RESERVE)
            self._sweep()
            hidden = Path(tempfile.mkdtemp(prefix=f"{HIDDEN}creating-", dir=self.folder))
        try:
            with translated(f"Folder {self.folder}"):
                shard = edge.EdgeShard.create(str(hidden), config_of(layout, dimensions=dimensions))
            backend = EdgeBackend(shard, hidden)
            try:
                backend.create_indexes(layout.indexes)
                backend.write_contract(record)
            finally:
                backend.close()  # an open shard cannot be renamed: its write-ahead log keeps the old path
            with translated(f"Folder {self.folder}"):
                hidden.chmod(0o777 & ~umask())
                self._give_name(hidden, collection)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    def open(self, collection: str) -> EdgeBackend:
        """Load a shard; of an alias the one that it stands for now.

        Raises:
            StoreLockedError: It is open elsewhere.
            StorePermissionError: The folder may not be written.
            StorageFullError: Too little free space to open it safely.
            StoreError: It is damaged.
        """
        path = self._path(collection)
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
        path = self._path(collection)
        try:
            found = read_contract_file(path)
            record = read_record(found, str(path)) if found is not None else None
        except StoreError:
            record = None
        try:
            backend = self.open(collection)
        except StoreError:
            points = None
        else:
            try:
                points = backend.count(EVERYTHING)
            finally:
                backend.close()
        return CollectionInfo(
            name=collection,
            contract=None if record is None else record.contract,
            layout=None if record is None else record.layout,
            points=points,
        )

    def drop(self, collection: str) -> None:
        """Delete a collection and its aliases; refused while it is open elsewhere."""
        path = self.folder / collection
        try:
            self.open(collection).close()
        except StoreLockedError:
            raise
        except F2RagError:
            logger.debug("Dropping %s, which cannot be opened", path, exc_info=True)
        forget_aliases(self.folder, collection)
        with translated(f"Folder {self.folder}"):
            hidden = Path(tempfile.mkdtemp(prefix=f"{HIDDEN}dropping-", dir=self.folder))
            path.rename(hidden / collection)
            shutil.rmtree(hidden)

    def close(self) -> None:
        """Nothing to let go of: each collection holds its own lock."""

    def _path(self, collection: str) -> Path:
        """The folder of a collection, or of the one that an alias stands for."""
        path = self.folder / collection
        if (path / CONFIG_FILE).is_file():
            return path
        return self.folder / self.aliases().get(collection, collection)

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

    writers = 1

    version: Version | None = ENGINE

    def __init__(self, shard: edge.EdgeShard, path: Path) -> None:
        self.place = str(path.parent)
        self._path = path
        self._shard = shard
        self._closed = False

    def read_contract(self) -> Mapping[str, Any] | None:
        """The record's file, or ``None`` where there is none."""
        return read_contract_file(self._path)

    def write_contract(self, stored: Mapping[str, Any]) -> None:
        """Write the record's file by renaming a complete one, so that no reader ever sees half of it."""
        with self._engine():
            write_contract_file(self._path, stored)

    def vectors_found(self) -> dict[str, tuple[int, str]]:
        """Size and distance of each dense vector, from the shard's own configuration."""
        return {name: (found["size"], found["distance"]) for name, found in self._configured("vectors").items()}

    def create_indexes(self, fields: Mapping[str, FieldKind]) -> None:
        """Create those payload indexes that are missing."""
        with self._engine():
            present = self._shard.info().payload_schema
            wanted = [index for key, kind in fields.items() for index in indexes_of(key, kind).items()]
            for path, schema in wanted:
                if path not in present:
                    self._shard.update(edge.UpdateOperation.create_field_index(path, schema))

    def upsert(self, batch: Batch) -> None:
        """Write one batch to the log and the segments."""
        # Log, vectors and payload: what a point costs in text is more than twice what it costs here in bytes.
        require_space(self._path, WRITE_RESERVE + batch.bytes)
        with self._engine():
            vectors = vectors_of(batch.vectors, batch.sparse, len(batch.ids))
            rows = [edge.Point(*point) for point in zip(batch.ids, vectors, batch.payloads, strict=True)]
            self._shard.update(edge.UpdateOperation.upsert_points(rows))

    def set_vectors(
        self, ids: Sequence[PointId], vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]]
    ) -> None:
        """Give existing points further vectors; points that are gone stay gone."""
        size = sum(rows.nbytes for rows in vectors.values())
        size += sum(16 * len(vector.indices) for column in sparse.values() for vector in column)
        require_space(self._path, WRITE_RESERVE + 4 * size)
        with self._engine():
            present = {row.id for row in self.retrieve(ids, keys=[])}
            changed = [
                edge.PointVectors(point, each)
                for point, each in zip(ids, vectors_of(vectors, sparse, len(ids)), strict=True)
                if point in present
            ]
            if changed:
                self._shard.update(edge.UpdateOperation.update_vectors(changed))

    def flush(self) -> None:
        """Write everything to the segments' files."""
        with self._engine():
            self._shard.flush()

    def status(self) -> Status:
        """How it is doing: nothing ever runs in the background here."""
        waiting = self._unindexed()
        detail = ""
        if waiting >= OPTIMIZE_FROM:
            detail = f"{waiting} documents are not in the index yet and are compared one by one; optimize() adds them"
        return Status(
            points=self.count(EVERYTHING),
            state="ready",
            detail=detail,
            engine=f"qdrant-edge-py {importlib.metadata.version('qdrant-edge-py')}",
        )

    def optimize(self, *, wait: float | None, on_progress: Callable[[Status], object] | None) -> bool:  # noqa: ARG002
        """Build the index over what has none. It holds up every thread of the process while it runs.

        Args:
            wait: Not asked here: the call comes back when it is done.
            on_progress: Called before and after.
        """
        if self._unindexed() < OPTIMIZE_FROM:
            return False
        used = sum(path.stat().st_blocks * 512 for path in self._path.rglob("*") if path.is_file())
        try:
            require_space(self._path, WRITE_RESERVE + 2 * used)
        except StorageFullError as error:
            logger.warning("No index is built, searches stay exact and slower: %s", error)
            return False
        if on_progress is not None:
            on_progress(self.status())
        with self._engine():
            done = self._shard.optimize()
        if on_progress is not None:
            on_progress(self.status())
        return done

    def search(self, stage: Stage, *, selection: Selection, score_threshold: float | None) -> list[Row]:
        """What the last stage passes on, best first."""
        request = request_of(stage, filter=to_edge(selection), score_threshold=score_threshold)
        return self._query(request)

    def search_groups(
        self, stage: Stage, *, selection: Selection, score_threshold: float | None, key: str, groups: int, size: int
    ) -> list[tuple[str, list[Row]]]:
        """The best groups, each with its best points."""

        def find(stage: Stage, *, only: Value | None = None, besides: Sequence[Value] = ()) -> list[Row]:
            must = [] if only is None else [edge.FieldCondition(key, match=edge.MatchValue(only))]
            texts = [value for value in besides if isinstance(value, str)]
            numbers = [value for value in besides if isinstance(value, int)]
            known = [edge.FieldCondition(key, match=edge.MatchAny(values)) for values in (texts, numbers) if values]
            must_not = [edge.IsEmptyCondition(key), *known]
            narrowed = _narrowed(selection, must=must, must_not=must_not)
            return self._query(request_of(stage, filter=narrowed, score_threshold=score_threshold, with_payload=[key]))

        found = best_groups(find, stage, key=key, groups=groups, size=size)
        whole = {row.id: row.payload for row in self.retrieve([row.id for _, rows in found for row in rows])}
        return [
            (value, [Row(row.id, whole[row.id], row.score) for row in rows if row.id in whole]) for value, rows in found
        ]

    def retrieve(self, ids: Sequence[PointId], *, keys: Sequence[str] | None = None) -> list[Row]:
        """Points by Qdrant id."""
        payload: Any = True if keys is None else list(keys) or False
        with self._engine():
            records = self._shard.retrieve(list(ids), payload, with_vector=False)
        return [Row(identifier(record.id), record.payload or {}) for record in records]

    def vectors(self, ids: Sequence[PointId]) -> dict[PointId, list[float]]:
        """Unnamed vectors by Qdrant id."""
        with self._engine():
            records: Any = self._shard.retrieve(list(ids), with_payload=False, with_vector=[FULL])
        found = {identifier(record.id): _unnamed(record.vector) for record in records}
        return {point: vector for point, vector in found.items() if vector is not None}

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete by Qdrant id."""
        require_space(self._path, OPEN_RESERVE)
        with self._engine():
            self._shard.update(edge.UpdateOperation.delete_points(list(ids)))
            self._shard.flush()

    def delete_where(self, selection: Selection) -> None:
        """Delete what matches."""
        require_space(self._path, OPEN_RESERVE)
        with self._engine():
            matching = to_edge(selection) or edge.Filter()
            self._shard.update(edge.UpdateOperation.delete_points_by_filter(matching))
            self._shard.flush()

    def count(self, selection: Selection) -> int:
        """How many points match, exactly."""
        return self._count(to_edge(selection))

    def count_without(self, vector: str) -> int:
        """How many points lack the named vector."""
        return self._count(_narrowed(EVERYTHING, must_not=[edge.HasVectorCondition(vector)]))

    def facet(self, key: str, *, selection: Selection, limit: int) -> dict[str, int]:
        """Values of an indexed field with their counts.

        Raises:
            InputError: The field has no index.
        """
        with self._engine():
            indexed = self._shard.info().payload_schema
        if key not in indexed and "f2rag.true" in indexed and (flags := self._flags(key, selection)):
            return dict(itertools.islice(flags.items(), limit))
        request = edge.FacetRequest(key, limit=limit, exact=True, filter=to_edge(selection))
        with index_needed(key, self._path.name), self._engine():
            return {str(hit.value): hit.count for hit in self._shard.facet(request).hits}

    def _flags(self, key: str, selection: Selection) -> dict[str, int]:
        """How often a field is true and false, which is stored as lists of paths; empty where it is no such field."""
        counts: dict[str, int] = {}
        for flag in ("true", "false"):
            path = edge.FieldCondition(f"f2rag.{flag}", match=edge.MatchValue(key))
            counts[flag] = self._count(_narrowed(selection, must=[path]))
        found = {flag: count for flag, count in counts.items() if count}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def scroll(
        self, *, selection: Selection, offset: Any, limit: int, without: str | None = None
    ) -> tuple[list[Row], Any]:
        """One page in the order of the ids."""
        lacking = [] if without is None else [edge.HasVectorCondition(without)]
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=_narrowed(selection, must_not=lacking),
            with_payload=True,
            with_vector=False,
        )
        with self._engine():
            records, following = self._shard.scroll(request)
        return [Row(identifier(record.id), record.payload or {}) for record in records], following

    def close(self) -> None:
        """Release the lock."""
        if not self._closed:
            self._closed = True
            with self._engine():
                self._shard.close()

    def _query(self, request: edge.QueryRequest) -> list[Row]:
        with self._engine():
            return [Row(identifier(point.id), point.payload or {}, point.score) for point in self._shard.query(request)]

    def _count(self, matching: edge.Filter | None) -> int:
        with self._engine():
            return self._shard.count(edge.CountRequest(exact=True, filter=matching))

    def _unindexed(self) -> int:
        """How many points could be taken into a graph and are in none; 0 where the engine would build none for them.

        The engine counts indexed *vectors*, and those of words as indexed from the beginning.
        """
        dense, words = self._configured("vectors"), self._configured("sparse_vectors")
        with self._engine():
            info = self._shard.info()
        waiting = (len(dense) + len(words)) * info.points_count - info.indexed_vectors_count
        points = max(0, waiting // max(1, len(dense)))
        widest = max((_width(vector) for vector in dense.values()), default=0)
        return points if points * widest >= INDEX_BYTES else 0

    def _configured(self, part: str) -> dict[str, Any]:
        with self._engine():
            return dict(json.loads((self._path / CONFIG_FILE).read_text("utf-8")).get(part) or {})

    @contextmanager
    def _engine(self) -> Iterator[None]:
        with translated(f"Collection folder {self._path}"):
            yield


def _narrowed(selection: Selection, *, must: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> edge.Filter | None:
    """The selection and these conditions; ``None`` where that is everything."""
    selected = to_edge(selection)
    if not must and not must_not:
        return selected
    return edge.Filter(must=[*([selected] if selected is not None else []), *must], must_not=list(must_not))


def _width(vector: Mapping[str, Any]) -> int:
    """Bytes of one vector as it is stored."""
    return int(vector["size"]) * (2 if vector.get("datatype") == "float16" else 4)


def _unnamed(vector: Any) -> list[float] | None:
    """The unnamed vector, also where there are named ones beside it; ``None`` of a point that has none."""
    if isinstance(vector, dict):
        vector = vector.get(FULL)
    return None if vector is None else list(vector)
