"""A home that is held open, with each of its collections opened once.

The embedded engine lets a collection be open once, and an open one cannot be described from outside. Whoever shows
several collections, as the app does, therefore needs one place that has them all.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from f2rag.errors import CollectionNotFoundError, StoreError
from f2rag.store.catalog import check_droppable
from f2rag.store.homes import CollectionInfo, Home, HomeKind, check_collection_name, home_of
from f2rag.store.qdrant import QdrantStore

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from f2rag.store.homes import Location
    from f2rag.store.layout import Layout


class Collections:
    """The collections of one home, which stays open; threads may share it.

    A collection is opened once: who asks for it again, also by an alias, gets the same ``QdrantStore``. Closing that
    store closes it for everybody, and the next ``open`` opens it anew; so leave it to ``close`` or ``drop`` here.

    Args:
        location: As for ``QdrantStore.open``. ``":memory:"`` is one new home, which lives as long as this object.

    Raises:
        InputError: An impossible location.
        StoreError: The folder was filled by another engine, is open elsewhere or may not be written.

    Example:
        >>> from f2rag.testing import FakeEncoder
        >>> encoder = FakeEncoder(dimensions=32)
        >>> with Collections(":memory:") as collections:
        ...     store = collections.open("faq", contract=encoder.contract())
        ...     again = collections.open("faq")
        ...     (store is again, [(info.name, info.points) for info in collections.list()])
        (True, [('faq', 0)])
    """

    def __init__(self, location: Location) -> None:
        self._home = home_of(location)
        self._stores: dict[str, QdrantStore] = {}
        self._closed = False
        # One step at a time: describing a collection of the embedded engine opens it for a moment.
        self._lock = threading.RLock()

    @property
    def kind(self) -> HomeKind:
        """What keeps the collections: ``"edge"``, ``"memory"``, ``"client-local"`` or ``"server"``."""
        return self._home.kind

    @property
    def location(self) -> str:
        """Where they lie: a folder, ``":memory:"``, or the address of a server; never with a key."""
        return self._home.name

    def list(self) -> list[CollectionInfo]:
        """The collections, sorted by name; none where the folder does not exist.

        Those that are open here are counted too; ``points`` is ``None`` where another process has one open.

        Raises:
            StoreError: The home cannot be read.
        """
        with self._lock:
            home = self._open_home()
            found = []
            for name in home.collections():
                with contextlib.suppress(CollectionNotFoundError):  # somebody else dropped it a moment ago
                    found.append(self._info(home, name))
            return found

    def aliases(self) -> dict[str, str]:
        """The collection that each alias stands for.

        Raises:
            StoreError: The home cannot be read.
        """
        with self._lock:
            return self._open_home().aliases()

    def open(
        self,
        name: str,
        *,
        contract: EmbeddingContract | None = None,
        layout: Layout | None = None,
        create: bool = True,
        adopt: bool = False,
    ) -> QdrantStore:
        """The store of a collection; opened, or made where it is absent and a contract is given, by the first call.

        Every call looks at what is stored: a collection that was dropped and made anew by another process is opened
        again, and its former store is closed.

        Args:
            name: Of the collection, or an alias. The store goes by the collection's name.
            contract: As for ``QdrantStore.open``.
            layout: As for ``QdrantStore.open``.
            create: As for ``QdrantStore.open``.
            adopt: As for ``QdrantStore.open``.

        Raises:
            As ``QdrantStore.open`` does.
        """
        check_collection_name(name)
        with self._lock:
            home = self._open_home()
            present = home.collections()
            if name not in present:
                name = home.aliases().get(name, name)
            if (store := self._stores.get(name)) is not None:
                if not store.closed and name in present and store.is_current(contract, layout=layout):
                    return store
                del self._stores[name]
                store.close()
            store = QdrantStore.open_in(
                home, name, contract=contract, layout=layout, create=create, adopt=adopt, owns_home=False
            )
            self._stores[name] = store
            return store

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents; its store is closed if it is open here.

        Raises:
            InputError: An impossible name, or the name of an alias.
            CollectionNotFoundError: It is absent.
            StoreLockedError: It is open elsewhere.
            StorePermissionError: The folder may not be written.
        """
        with self._lock:
            home = self._open_home()
            check_droppable(home, name)
            if (store := self._stores.pop(name, None)) is not None:
                store.close()
            home.drop(name)

    def close(self) -> None:
        """Close the stores and let go of the home; a second time does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                while self._stores:
                    self._stores.popitem()[1].close()
            finally:
                self._home.close()

    def _open_home(self) -> Home:
        if self._closed:
            raise StoreError(f"The collections of {self.location} are closed. Make a new Collections object of them.")
        return self._home

    def _info(self, home: Home, name: str) -> CollectionInfo:
        store = self._stores.get(name)
        if self.kind != "edge" or store is None or store.closed:
            return home.info(name)
        # Its own lock would keep the home out.
        return CollectionInfo(name=name, contract=store.contract, layout=store.layout, points=store.count())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Collections({self.location!r}, home={self.kind!r})"
