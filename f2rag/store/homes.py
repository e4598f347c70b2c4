"""What a home of collections must do, and which home a location means.

There are two kinds: a folder on Qdrant's own engine in this process (``edge.py``), and whatever a ``QdrantClient``
reaches (``client.py``: memory, its local mode, a server). Nothing here knows documents; it moves points and payloads.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from f2rag.errors import InputError, StoreError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from f2rag.contract import EmbeddingContract
    from f2rag.store.filters import Selection
    from f2rag.store.layout import FieldKind, Layout
    from f2rag.store.server import Server
    from f2rag.store.stages import SparseVector, Stage
    from f2rag.types import FloatMatrix

    Location: TypeAlias = str | os.PathLike[str] | Server | QdrantClient

MEMORY = ":memory:"
LANGUAGE_KEY = "metadata.language"
PLAIN_KEY = r"[A-Za-z0-9_-]+"
"""A payload key that needs no quotes in a path."""

PointId: TypeAlias = str | int
"""What Qdrant calls a point: a UUID as text, or in collections that something else filled an integer."""

Version: TypeAlias = tuple[int, int, int]

HomeKind: TypeAlias = Literal["edge", "memory", "client-local", "server"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """One collection of a home.

    Attributes:
        name: Its name.
        contract: What its vectors are, or ``None`` where f2rag did not fill it (or its contract is damaged).
        layout: What is stored of each document; ``None`` where there is no contract.
        points: How many documents it holds, or ``None`` while it cannot be opened, e.g. because another process has it.
    """

    name: str
    contract: EmbeddingContract | None
    layout: Layout | None
    points: int | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is written at once.

    Attributes:
        ids: Qdrant ids, one for each point.
        vectors: By name, float32 arrays of shape (points, dimensions), rows of unit length.
        sparse: By name, one sparse vector for each point.
        payloads: One for each point.
        bytes: Roughly what it costs to send or write.
    """

    ids: list[str]
    vectors: Mapping[str, FloatMatrix]
    sparse: Mapping[str, Sequence[SparseVector]]
    payloads: list[dict[str, Any]]
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What is read of one document; ``score`` is 0 unless it was searched for."""

    id: PointId
    payload: Mapping[str, Any]
    score: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a collection is doing.

    Attributes:
        points: How many it holds.
        state: ``"ready"``; ``"indexing"``, searches work and are slower; ``"waiting"``, a server that was restarted
            while it indexed and goes on at the next write; ``"failed"``, the server says that it cannot go on.
        detail: What the engine says beyond that, if anything.
        engine: The engine and its version, e.g. ``"Qdrant 1.17.0"``.
    """

    points: int
    state: Literal["ready", "indexing", "waiting", "failed"]
    detail: str
    engine: str


class Backend(Protocol):
    """One open collection."""

    place: str
    writers: int
    """How many batches are worth writing at once: two for a server, which works on one while the next is made."""

    @property
    def version(self) -> Version | None:
        """Of the engine; ``None`` of the client's local mode, which takes everything and ignores what it lacks."""

    def read_contract(self) -> Mapping[str, Any] | None:
        """The stored contract, or ``None`` where there is none."""

    def write_contract(self, stored: Mapping[str, Any]) -> None:
        """Store the contract, all of it or nothing."""

    def vectors_found(self) -> dict[str, tuple[int, str]]:
        """Size and distance of each dense vector of the collection, by name; the unnamed one is ``""``."""

    def create_indexes(self, fields: Mapping[str, FieldKind]) -> None:
        """Index payload keys (whole paths); harmless when they are."""

    def upsert(self, batch: Batch) -> None:
        """Store one batch durably against the end of this process."""

    def set_vectors(
        self, ids: Sequence[PointId], vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]]
    ) -> None:
        """Give existing points further vectors; what they have under other names stays."""

    def flush(self) -> None:
        """Make what was stored durable against the end of the machine."""

    def status(self) -> Status:
        """How it is doing."""

    def optimize(self, *, wait: float | None, on_progress: Callable[[Status], object] | None) -> bool:
        """Build the index if there is enough for one, or wait for the server to do it; says whether it did.

        Args:
            wait: Most seconds to wait for a server; ``None`` does not wait. The embedded engine builds at once.
            on_progress: Called with the status while waiting.

        Raises:
            StoreUnavailableError: Not ready within ``wait`` seconds.
        """

    def search(self, stage: Stage, *, selection: Selection, score_threshold: float | None) -> list[Row]:
        """What the last stage passes on, best first."""

    def search_groups(
        self, stage: Stage, *, selection: Selection, score_threshold: float | None, key: str, groups: int, size: int
    ) -> list[tuple[str, list[Row]]]:
        """The best groups of points with one value under a payload key, each with its best points."""

    def retrieve(self, ids: Sequence[PointId], *, keys: Sequence[str] | None = None) -> list[Row]:
        """Points by Qdrant id, in any order, absent ones left out; only ``keys`` of the payload if given."""

    def vectors(self, ids: Sequence[PointId]) -> dict[PointId, list[float]]:
        """The unnamed vectors of points by Qdrant id, absent ones left out."""

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points by Qdrant id."""

    def delete_where(self, selection: Selection) -> None:
        """Delete the points that match."""

    def count(self, selection: Selection) -> int:
        """How many points match."""

    def count_without(self, vector: str) -> int:
        """How many points lack the named vector."""

    def facet(self, key: str, *, selection: Selection, limit: int) -> dict[str, int]:
        """The most frequent values of a payload key and how many points have each."""

    def scroll(
        self, *, selection: Selection, offset: Any, limit: int, without: str | None = None
    ) -> tuple[list[Row], Any]:
        """One page of the points that match (and lack the vector ``without``), and where the next page begins.

        The order is that of the ids; ``None`` is the end.
        """

    def close(self) -> None:
        """Let go of it; a second time does nothing."""


class Home(Protocol):
    """A place with any number of collections."""

    kind: HomeKind
    name: str

    def collections(self) -> list[str]:
        """Names, sorted; aliases are not among them."""

    def aliases(self) -> dict[str, str]:
        """The collection that each alias stands for."""

    def switch_alias(self, alias: str, collection: str) -> None:
        """Let ``alias`` stand for ``collection`` from now on, in one step: readers see the one or the other.

        Raises:
            InputError: ``alias`` is the name of a collection.
        """

    def create(self, collection: str, record: Mapping[str, Any], *, layout: Layout, dimensions: int) -> None:
        """Make a collection with its indexes and its contract; leave one that somebody else made meanwhile.

        Raises:
            UnsupportedFeatureError: The engine lacks something that the layout asks for.
        """

    def open(self, collection: str) -> Backend:
        """Open a collection (or alias) that exists."""

    def info(self, collection: str) -> CollectionInfo:
        """Describe a collection that exists, without keeping it open."""

    def drop(self, collection: str) -> None:
        """Delete a collection that exists, with all its documents."""

    def close(self) -> None:
        """Let go of it; a second time does nothing."""


def home_of(location: Location) -> Home:
    """The home that ``location`` means; touches nothing on disk yet and asks no server.

    Args:
        location: ``":memory:"``, a folder, the address of a server, a ``Server``, or a ``QdrantClient``.

    Raises:
        InputError: ``location`` is none of these.
        StoreError: It is a file, or a folder that the other engine filled.
    """
    if isinstance(location, (str, os.PathLike)):
        return _written_home(os.fspath(location))
    from f2rag.store.client import ClientHome
    from f2rag.store.connection import connection_of
    from f2rag.store.server import Server

    if isinstance(location, Server):
        return ClientHome(location.connect())
    if not hasattr(location, "query_points"):
        raise InputError(
            f"A location is a folder, {MEMORY!r}, the address of a server, a Server or a QdrantClient, "
            f"not {type(location).__name__}."
        )
    return ClientHome(connection_of(location, owned=False))


def is_address(text: str) -> bool:
    """Whether a location is written as the address of a server rather than as a folder."""
    return re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE) is not None


def _written_home(text: str) -> Home:
    """The home of a location that is text."""
    if text == MEMORY:
        from f2rag.store.client import memory_home

        return memory_home()
    if not text.strip() or "\0" in text:
        raise InputError(
            f"The location {text!r} is empty or no path. Give a folder, {MEMORY!r} or the address of a server."
        )
    if is_address(text):
        from f2rag.store.client import ClientHome
        from f2rag.store.server import Server

        return ClientHome(Server(text).connect())
    return _folder_home(Path(text).expanduser())


def _folder_home(folder: Path) -> Home:
    """A folder, on the embedded engine where it is installed, else on the client's local mode."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file, and a folder is expected. Give a folder; it is made if absent.")
    local_mode = (folder / "meta.json").is_file() and (folder / "collection").is_dir()
    if edge_installed():
        if local_mode:
            raise StoreError(
                f"{folder} was written by qdrant-client's local mode, whose files the embedded engine cannot read. "
                "Choose another folder and index the documents again there."
            )
        from f2rag.store.edge import EdgeHome

        return EdgeHome(folder)
    if any(folder.glob("*/edge_config.json")):
        raise StoreError(
            f"{folder} was written by the embedded engine, and qdrant-edge-py is not installed here. "
            "Install it where it has a wheel (pip install qdrant-edge-py), or choose another folder."
        )
    logger.warning(
        "qdrant-edge-py is not installed, so %s is kept by qdrant-client's local mode: slow above some 20 000 "
        "documents, and it unpickles what it reads, so never open a folder from a source you do not trust.",
        folder,
    )
    from f2rag.store.client import local_home

    return local_home(folder)


def edge_installed() -> bool:
    """Whether Qdrant's embedded engine can be imported; it has no wheel for every platform."""
    try:
        import qdrant_edge  # noqa: F401
    except ImportError:
        return False
    return True


def check_collection_name(name: str) -> str:
    """Return ``name`` if it can name a collection, and a folder, everywhere.

    Raises:
        InputError: It cannot.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?", name):
        raise InputError(
            f"{name!r} cannot name a collection. Use 1 to 128 ASCII letters, digits, '_', '-' or '.', "
            "with no '.' or '-' at the start and no '.' at the end."
        )
    return name
