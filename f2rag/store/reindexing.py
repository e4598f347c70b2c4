"""A collection into another one, for another model, dimension or layout, while the first goes on serving.

    source ─► vectors comparable? ─ yes ─► copied
                                  └ no ──► texts embedded again
    counted ─► alias switched, if one was given: readers that open the alias see the old collection until this moment

A run that was interrupted is repeated; what is there already and equal is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from f2rag.errors import InputError, StoreError
from f2rag.store.catalog import switch_alias
from f2rag.store.qdrant import QdrantStore

if TYPE_CHECKING:
    from f2rag.store.homes import Location
    from f2rag.store.layout import Layout
    from f2rag.types import Encoder

_PAGE = 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReindexReport:
    """What ``reindex`` did.

    Attributes:
        documents: How many the new collection holds.
        embedded: Whether their texts were embedded again; else their vectors were copied.
        alias: What now stands for the new collection, if anything.
    """

    documents: int
    embedded: bool
    alias: str | None


def reindex(
    source: QdrantStore,
    encoder: Encoder,
    *,
    location: Location,
    into: str,
    dimensions: int | None = None,
    layout: Layout | None = None,
    alias: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> ReindexReport:
    """Fill a new collection with the documents of another, and let an alias stand for it when it is complete.

    Args:
        source: An open store; it is only read.
        encoder: Makes the new vectors, if the old ones are not comparable with them. It is not asked to embed anything
            where they are.
        location: Where the new collection lies; also another home.
        into: Its name. One that is there is filled up, if it has the same contract and layout.
        dimensions: Width of the new vectors; ``None`` takes the encoder's.
        layout: What the new collection stores; ``None`` takes what suits it.
        alias: What stands for the new collection afterwards, in its home.
        on_progress: Called with the number of documents handled so far.

    Raises:
        InputError: ``into`` is the source itself, or an impossible name.
        ContractMismatchError: ``into`` exists with another contract or layout.
        StoreError: A collection failed, or holds fewer documents than it should; then no alias is switched.
    """
    if (str(location), into) == (source.location, source.collection):
        raise InputError(f"{into!r} is the collection that is read. Give another name for the new one.")
    from f2rag.engine import SearchEngine

    with SearchEngine.open(encoder, location, collection=into, dimensions=dimensions, layout=layout) as engine:
        comparable = not source.contract.differences(engine.store.contract)
        if comparable:
            _copy(source, engine.store, on_progress)
        else:
            engine.index(source.documents(), on_progress=on_progress)
        engine.store.optimize()
        expected, count = source.count(), engine.store.count()
        if count < expected:
            raise StoreError(
                f"The new collection {into!r} holds {count} documents, the old one {expected}: something was added "
                "meanwhile. Repeat the call; it completes the rest and then switches the alias."
            )
    if alias is not None:
        switch_alias(location, alias, into)
    return ReindexReport(documents=count, embedded=not comparable, alias=alias)


def _copy(source: QdrantStore, target: QdrantStore, on_progress: Callable[[int], object] | None) -> None:
    done = 0
    for ids, rows in source.iter_vectors(batch=_PAGE):
        found = {document.key: document for document in source.get(ids)}
        present = [position for position, key in enumerate(ids) if key in found]
        documents = [found[ids[position]] for position in present]
        fresh = [place for place, state in enumerate(target.states(documents)) if state != "unchanged"]
        if fresh:
            target.upsert([documents[place] for place in fresh], rows[[present[place] for place in fresh]])
        done += len(ids)
        if on_progress is not None:
            on_progress(done)
