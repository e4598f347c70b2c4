"""The collections of a home: which there are, what their aliases are, and how one goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f2rag.errors import CollectionNotFoundError, InputError
from f2rag.store.homes import CollectionInfo, Home, check_collection_name, home_of

if TYPE_CHECKING:
    from f2rag.store.homes import Location


def list_collections(location: Location) -> list[CollectionInfo]:
    """The collections of a home, sorted by name; none where the folder does not exist.

    Raises:
        InputError: An impossible location.
        StoreError: The home cannot be read.
    """
    home = home_of(location)
    try:
        return [home.info(name) for name in home.collections()]
    finally:
        home.close()


def list_aliases(location: Location) -> dict[str, str]:
    """The collection that each alias of a home stands for.

    Raises:
        InputError: An impossible location.
        StoreError: The home cannot be read.
    """
    home = home_of(location)
    try:
        return home.aliases()
    finally:
        home.close()


def switch_alias(location: Location, alias: str, collection: str) -> None:
    """Let ``alias`` stand for ``collection`` from now on, in one step; readers see the one or the other.

    Stores that are open keep the collection they have.

    Raises:
        InputError: An impossible name or location, or ``alias`` is the name of a collection.
        CollectionNotFoundError: The collection is absent.
        StoreError: The home cannot be read or written.
    """
    home = home_of(location)
    try:
        switch_alias_in(home, alias, collection)
    finally:
        home.close()


def switch_alias_in(home: Home, alias: str, collection: str) -> None:
    """``switch_alias`` in a home that is open."""
    check_collection_name(alias)
    present = home.collections()
    if collection not in present:
        raise not_found(home, collection)
    if alias in present:
        raise InputError(
            f"{alias!r} is the name of a collection in {home.name} and cannot be an alias as well. Choose another "
            "alias, or drop the collection first."
        )
    home.switch_alias(alias, collection)


def drop_collection(location: Location, name: str) -> None:
    """Delete a collection with all its documents.

    Raises:
        InputError: An impossible name or location, or the name of an alias.
        CollectionNotFoundError: It is absent.
        StoreLockedError: It is open.
        StorePermissionError: The folder may not be written.
    """
    check_collection_name(name)
    home = home_of(location)
    try:
        check_droppable(home, name)
        home.drop(name)
    finally:
        home.close()


def check_droppable(home: Home, name: str) -> None:
    """Make sure that ``name`` is a collection.

    Raises:
        InputError: It is an alias, or an impossible name.
        CollectionNotFoundError: It is absent.
    """
    check_collection_name(name)
    if name not in home.collections():
        if target := home.aliases().get(name):
            raise InputError(f"{name!r} is an alias of {target!r} in {home.name}; drop that by its name.")
        raise not_found(home, name)


def not_found(home: Home, collection: str) -> CollectionNotFoundError:
    """The error for a collection that is absent; it names those that are there."""
    present = home.collections()
    there = f"it holds {', '.join(map(repr, present))}" if present else "it holds none"
    return CollectionNotFoundError(
        f"There is no collection {collection!r} in {home.name}; {there}. "
        "Index documents into it first, or check the name and the location."
    )
