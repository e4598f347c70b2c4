"""Whatever a ``QdrantClient`` reaches as a home: memory, the client's local folder, a server, a cluster.

The record of a collection lies in its metadata under one key. The client's local mode ignores payload indexes and
parameters of searches and says so in warnings, so it is asked for neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from f2rag.contract import CONTRACT_KEY
from f2rag.errors import CollectionNotFoundError, InputError, StoreError, StoreUnavailableError, UnsupportedFeatureError
from f2rag.store.agreement import read_record
from f2rag.store.client_requests import (
    by_name,
    changes_of,
    index_of,
    lost,
    points_of,
    request_of,
    require_layout,
    require_stage,
    search_of,
    vectors_of,
    words_of,
)
from f2rag.store.connection import Connection, connection_of
from f2rag.store.failures import translated
from f2rag.store.features import version_text
from f2rag.store.filters import EVERYTHING, Selection, to_client
from f2rag.store.groups import FIRST_LOOK, index_needed, widened
from f2rag.store.homes import MEMORY, Batch, CollectionInfo, HomeKind, PointId, Row, Status, Version
from f2rag.store.layout import FULL, FieldKind, Layout
from f2rag.store.stages import SparseVector, Stage
from f2rag.types import FloatMatrix

_STATES: dict[str, Any] = {"green": "ready", "yellow": "indexing", "grey": "waiting", "red": "failed"}
_UPLOAD_SECONDS = 60.0
"""For one batch over gRPC where the client was made without a timeout; the client's own 5 s are for searches."""

_POLL_SECONDS = 0.25
_NUDGE_SECONDS = 5.0
_QUIET_POLLS = 2
"""Times in a row that a server must say that it is ready: it says so too in the moment before it starts to index."""


def memory_home() -> ClientHome:
    """A new, empty home in memory."""
    return ClientHome(connection_of(QdrantClient(location=MEMORY), owned=True))


def local_home(folder: Path) -> ClientHome:
    """The client's local mode in a folder; the fallback where the embedded engine is not installed.

    Raises:
        StoreLockedError: The folder is open elsewhere.
        StorePermissionError: The folder may not be written.
    """
    with translated(f"Folder {folder}"):
        return ClientHome(connection_of(QdrantClient(path=str(folder)), owned=True))


class ClientHome:
    """The collections that a connection reaches.

    Args:
        connection: The way to them; closed with the home.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.kind: HomeKind = connection.kind
        self.name = connection.name

    def collections(self) -> list[str]:
        """Names of the collections, sorted; aliases are not among them."""
        return self.connection.read(_collections)

    def aliases(self) -> dict[str, str]:
        """The collection that each alias stands for."""
        return dict(sorted(self.connection.read(_aliases).items()))

    def switch_alias(self, alias: str, collection: str) -> None:
        """Let an alias stand for a collection from now on; a store that is open keeps the one it has.

        Raises:
            InputError: ``alias`` is the name of a collection.
            CollectionNotFoundError: There is no such collection.
        """
        present = self.collections()
        if alias in present:
            raise InputError(
                f"{alias!r} is a collection in {self.name}, so it cannot be an alias as well. Choose another alias."
            )
        if collection not in present:
            raise CollectionNotFoundError(
                f"The alias {alias!r} cannot stand for {collection!r}: {self.name} has no such collection."
            )

        def switch(client: QdrantClient) -> object:
            make = models.CreateAlias(collection_name=collection, alias_name=alias)
            operations: list[Any] = [models.CreateAliasOperation(create_alias=make)]
            if alias in _aliases(client):
                forget = models.DeleteAlias(alias_name=alias)
                operations.insert(0, models.DeleteAliasOperation(delete_alias=forget))
            return client.update_collection_aliases(change_aliases_operations=operations)

        self.connection.write(switch)

    def create(self, collection: str, record: Mapping[str, Any], *, layout: Layout, dimensions: int) -> None:
        """Create a collection with its record in one call, look at what the server made of it, then index.

        Raises:
            UnsupportedFeatureError: The server is too old for the layout, or made something else of it.
            InputError: There is an alias of this name.
        """
        require_layout(layout, self.connection.version, place=self.name)
        if collection in self.aliases():
            raise InputError(f"{collection!r} is an alias in {self.name}. Choose another name for the collection.")
        wanted, words = vectors_of(layout, dimensions=dimensions), words_of(layout)
        made = False

        def make(client: QdrantClient) -> None:
            nonlocal made
            if client.collection_exists(collection):  # an earlier try made it, or somebody else did
                return
            made = True
            client.create_collection(
                collection,
                vectors_config=wanted,
                sparse_vectors_config=words,
                metadata={CONTRACT_KEY: dict(record)},
            )

        try:
            self.connection.write(make)
        except StoreError:
            if collection not in self.collections():
                raise
            made = False  # somebody else was faster
        if not made:
            return
        backend = ClientBackend(self, collection)
        differences = lost(wanted, backend.configuration(), words=words is not None)
        if differences:
            self.drop(collection)
            raise UnsupportedFeatureError(
                f"{self.name} did not make collection {collection!r} as asked: {'; '.join(differences)}. "
                "It was removed again. Upgrade the server, or choose a layout without that."
            )
        backend.create_indexes(layout.indexes)

    def open(self, collection: str) -> ClientBackend:
        """Open a collection; of an alias the one that it stands for now."""
        if collection not in self.collections():
            collection = self.aliases().get(collection, collection)
        return ClientBackend(self, collection)

    def info(self, collection: str) -> CollectionInfo:
        """Describe a collection; a damaged record is ``None``."""
        backend = self.open(collection)
        try:
            found = backend.read_contract()
            record = read_record(found, collection) if found is not None else None
        except StoreError:
            record = None
        return CollectionInfo(
            name=collection,
            contract=None if record is None else record.contract,
            layout=None if record is None else record.layout,
            points=backend.count(EVERYTHING),
        )

    def drop(self, collection: str) -> None:
        """Delete a collection; its aliases go with it."""
        self.connection.write(lambda client: client.delete_collection(collection))

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()


class ClientBackend:
    """One collection of a client."""

    def __init__(self, home: ClientHome, collection: str) -> None:
        self.place = home.name
        self.writers = 1 if home.connection.local else 2
        self._connection = home.connection
        self._collection = collection

    @property
    def version(self) -> Version | None:
        """Of the server; ``None`` of the local mode."""
        return self._connection.version

    def configuration(self) -> models.CollectionParams:
        """What the collection was made as."""
        return self._info().config.params

    def read_contract(self) -> Mapping[str, Any] | None:
        """The record in the collection's metadata, or ``None`` where there is none."""
        found = (self._info().config.metadata or {}).get(CONTRACT_KEY)
        return found if isinstance(found, Mapping) else None

    def write_contract(self, stored: Mapping[str, Any]) -> None:
        """Merge the record into the collection's metadata.

        Raises:
            UnsupportedFeatureError: The server is too old to keep it.
        """
        require_layout(Layout(), self.version, place=self.place)
        self._connection.write(
            lambda client: client.update_collection(self._collection, metadata={CONTRACT_KEY: dict(stored)})
        )

    def vectors_found(self) -> dict[str, tuple[int, str]]:
        """Size and distance of each dense vector."""
        vectors = by_name(self.configuration().vectors)
        return {name: (vector.size, vector.distance.value) for name, vector in vectors.items()}

    def create_indexes(self, fields: Mapping[str, FieldKind]) -> None:
        """Create those payload indexes that are missing, on a server."""
        if self._connection.local:
            return
        present = self._info().payload_schema
        for key, kind in fields.items():
            if key in present:
                continue
            self._connection.write(
                lambda client, key=key, kind=kind: client.create_payload_index(  # type: ignore[misc]
                    self._collection, key, index_of(kind), wait=True
                )
            )

    def upsert(self, batch: Batch) -> None:
        """Write one batch and wait until it can be found."""

        def write(client: QdrantClient) -> None:
            if client.init_options.get("prefer_grpc") and not self._connection.local:
                # Not client.upsert: it takes lists of floats only, which costs most of the time.
                client.grpc_points.Upsert(
                    request_of(self._collection, batch),
                    timeout=client.init_options.get("timeout") or _UPLOAD_SECONDS,
                )
            else:
                client.upsert(self._collection, points_of(batch), wait=True)

        self._connection.write(write)

    def set_vectors(
        self, ids: Sequence[PointId], vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]]
    ) -> None:
        """Give existing points further vectors; points that are gone stay gone."""

        def write(client: QdrantClient) -> None:
            records = client.retrieve(self._collection, list(ids), with_payload=False)
            present = {_id(record.id) for record in records}
            changed = [change for change in changes_of(ids, vectors, sparse) if _id(change.id) in present]
            if changed:
                client.update_vectors(self._collection, changed, wait=True)

        self._connection.write(write)

    def flush(self) -> None:
        """Nothing to do: a server has its log, the local mode commits each point, memory forgets anyway."""

    def status(self) -> Status:
        """How it is doing."""
        if self._connection.local:
            return Status(points=self.count(EVERYTHING), state="ready", detail="", engine="qdrant-client local mode")
        info = self._info()
        said = getattr(info.optimizer_status, "error", "")
        queued = 0 if info.update_queue is None else info.update_queue.length
        if queued and not said:
            said = f"{queued} updates are being applied"
        version = self.version
        return Status(
            points=self.count(EVERYTHING),
            state=_STATES[info.status.value],
            detail=said,
            engine=f"Qdrant {version_text(version) if version is not None else '(unknown version)'}",
        )

    def optimize(self, *, wait: float | None, on_progress: Callable[[Status], object] | None) -> bool:
        """Wait until a server has built its index; nudge it where a restart interrupted it."""
        if self._connection.local:
            return False
        if wait is None:
            if self.status().state == "waiting":
                self._nudge()
            return False
        deadline = time.monotonic() + wait
        nudged = float("-inf")
        quiet, worked = 0, False
        while True:
            status = self.status()
            if on_progress is not None:
                on_progress(status)
            if status.state == "failed":
                raise StoreError(f"{self.place}: collection {self._collection!r} cannot be indexed: {status.detail}")
            busy = status.state != "ready" or bool(status.detail)
            quiet, worked = (0, True) if busy else (quiet + 1, worked)
            if quiet == _QUIET_POLLS:
                return worked
            if time.monotonic() >= deadline:
                raise StoreUnavailableError(
                    f"{self.place}: collection {self._collection!r} is not fully indexed after {wait:g} s "
                    f"({status.state}). The server goes on by itself; searches work meanwhile, only slower. "
                    "Wait longer, or ask again later."
                )
            if status.state == "waiting" and time.monotonic() - nudged >= _NUDGE_SECONDS:
                self._nudge()
                nudged = time.monotonic()
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def search(self, stage: Stage, *, selection: Selection, score_threshold: float | None) -> list[Row]:
        """What the last stage passes on, best first."""
        require_stage(stage, self.version, place=self.place)
        arguments = search_of(stage, local=self._connection.local)
        found = self._connection.read(
            lambda client: client.query_points(
                self._collection,
                limit=stage.limit,
                query_filter=to_client(selection),
                score_threshold=score_threshold,
                with_payload=True,
                **arguments,
            )
        )
        return [_row(point, point.score) for point in found.points]

    def search_groups(
        self, stage: Stage, *, selection: Selection, score_threshold: float | None, key: str, groups: int, size: int
    ) -> list[tuple[str, list[Row]]]:
        """The best groups, each with its best points."""
        require_stage(stage, self.version, place=self.place)
        arguments = search_of(widened(stage, max(FIRST_LOOK, groups * size)), local=self._connection.local)
        found = self._connection.read(
            lambda client: client.query_points_groups(
                self._collection,
                group_by=key,
                limit=groups,
                group_size=size,
                query_filter=to_client(selection),
                score_threshold=score_threshold,
                with_payload=True,
                **arguments,
            )
        )
        return [(str(group.id), [_row(point, point.score) for point in group.hits]) for group in found.groups]

    def retrieve(self, ids: Sequence[PointId], *, keys: Sequence[str] | None = None) -> list[Row]:
        """Points by Qdrant id."""
        payload: Any = True if keys is None else list(keys) or False
        records = self._connection.read(
            lambda client: client.retrieve(self._collection, list(ids), with_payload=payload)
        )
        return [_row(record) for record in records]

    def vectors(self, ids: Sequence[PointId]) -> dict[PointId, list[float]]:
        """Unnamed vectors by Qdrant id."""
        records = self._connection.read(
            lambda client: client.retrieve(self._collection, list(ids), with_payload=False, with_vectors=[FULL])
        )
        found = {_id(record.id): _unnamed(record.vector) for record in records}
        return {point: vector for point, vector in found.items() if vector is not None}

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete by Qdrant id and wait until it is done."""
        self._connection.write(lambda client: client.delete(self._collection, points_selector=list(ids), wait=True))

    def delete_where(self, selection: Selection) -> None:
        """Delete what matches and wait until it is done."""
        matching = models.FilterSelector(filter=to_client(selection) or models.Filter())
        self._connection.write(lambda client: client.delete(self._collection, points_selector=matching, wait=True))

    def count(self, selection: Selection) -> int:
        """How many points match, exactly."""
        return self._count(to_client(selection))

    def count_without(self, vector: str) -> int:
        """How many points lack the named vector."""
        return self._count(_lacking(EVERYTHING, vector))

    def facet(self, key: str, *, selection: Selection, limit: int) -> dict[str, int]:
        """Values of an indexed field with their counts.

        Raises:
            InputError: The field has no index; the local mode, which has none at all, counts any.
        """
        with index_needed(key, self._collection):
            response = self._connection.read(
                lambda client: client.facet(
                    self._collection, key, facet_filter=to_client(selection), limit=limit, exact=True
                )
            )
        return {_text(hit.value): hit.count for hit in response.hits}

    def scroll(
        self, *, selection: Selection, offset: Any, limit: int, without: str | None = None
    ) -> tuple[list[Row], Any]:
        """One page in the order of the ids."""
        matching = to_client(selection) if without is None else _lacking(selection, without)
        records, following = self._connection.read(
            lambda client: client.scroll(
                self._collection, scroll_filter=matching, offset=offset, limit=limit, with_payload=True
            )
        )
        return [_row(record) for record in records], following

    def close(self) -> None:
        """Nothing to let go of: the home holds the connection."""

    def _info(self) -> models.CollectionInfo:
        return self._connection.read(lambda client: client.get_collection(self._collection))

    def _count(self, matching: models.Filter | None) -> int:
        return self._connection.read(
            lambda client: client.count(self._collection, count_filter=matching, exact=True).count
        )

    def _nudge(self) -> None:
        """An update that changes nothing: it sets going what a restarted server has put off until the next write."""
        self._connection.write(
            lambda client: client.update_collection(self._collection, optimizers_config=models.OptimizersConfigDiff())
        )


def _collections(client: QdrantClient) -> list[str]:
    return sorted(each.name for each in client.get_collections().collections)


def _aliases(client: QdrantClient) -> dict[str, str]:
    return {each.alias_name: each.collection_name for each in client.get_aliases().aliases}


def _lacking(selection: Selection, vector: str) -> models.Filter:
    """The selection without the points that have a vector."""
    selected = to_client(selection)
    return models.Filter(
        must=None if selected is None else [selected],
        must_not=[models.HasVectorCondition(has_vector=vector)],
    )


def _row(found: Any, score: float = 0.0) -> Row:
    return Row(_id(found.id), found.payload or {}, score)


def _id(identifier: Any) -> PointId:
    """A server over gRPC may give a ``UUID`` where the others give text."""
    return identifier if isinstance(identifier, int) else str(identifier)


def _text(value: Any) -> str:
    """A value as JSON writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unnamed(vector: Any) -> list[float] | None:
    """The unnamed vector, also where there are named ones beside it; ``None`` of a point that has none."""
    if isinstance(vector, dict):
        vector = vector.get(FULL)
    return None if vector is None else list(vector)
