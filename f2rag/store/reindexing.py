"""A collection into another one, for another model, dimension or layout, while the first goes on serving.

    source ─► same model? ─ yes, same width ─► vectors copied
                          ├ yes, narrower ───► vectors cut and normalised, as Matryoshka vectors may be
                          └ no, or wider ────► texts embedded again
    counted ─► alias switched, if one was given: readers that open the alias see the old collection until this moment

A run that was interrupted is repeated; what is there already and equal is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from f2rag.errors import StoreError
from f2rag.store.qdrant import QdrantStore
from f2rag.vectors import truncate

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from f2rag.store.homes import Location
    from f2rag.store.layout import Layout
    from f2rag.types import Encoder

_PAGE = 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReindexReport:
    """What ``reindex`` did.

    Attributes:
        documents: How many the new collection holds.
        embedded: Whether their texts were embedded again; else their vectors were copied or cut.
        alias: What now stands for the new collection, if anything.
    """

    documents: int
    embedded: bool
    alias: str | None


def reindex(
    source: QdrantStore,
    encoder: Encoder,
    *,
    into: str,
    location: Location | None = None,
    dimensions: int | None = None,
    layout: Layout | None = None,
    alias: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> ReindexReport:
    """Fill a new collection with the documents of another, and let an alias stand for it when it is complete.

    Args:
        source: An open store; it is only read.
        encoder: Makes the new vectors, if they cannot be cut from the old ones. It is not asked to embed anything
            where they can.
        into: The new collection's name. One that is there is filled up, if it has the same contract and layout.
        location: Another home for the new collection; ``None`` is the one of ``source``.
        dimensions: Width of the new vectors; ``None`` takes the encoder's.
        layout: What the new collection stores; ``None`` takes what suits it.
        alias: What stands for the new collection afterwards, in its home.
        on_progress: Called with the number of documents handled so far.

    Raises:
        InputError: ``into`` is the source itself, or an impossible name.
        ContractMismatchError: ``into`` exists with another contract or layout.
        StoreError: A collection failed, or holds fewer documents than it should; then no alias is switched.
    """
    contract = encoder.contract(dimensions=dimensions)
    if location is None:
        source.refuse_itself(into)
        target = source.beside(into, contract=contract, layout=layout)
    else:
        target = QdrantStore.open(location, collection=into, contract=contract, layout=layout)
    with target:
        embedded = not _cuttable(source.contract, target.contract)
        if embedded:
            _embed(source, target, encoder, on_progress)
        else:
            _copy(source, target, on_progress)
        target.optimize()
        expected, count = source.count(), target.count()
        if count < expected:
            raise StoreError(
                f"The new collection {into!r} holds {count} documents, the old one {expected}: something was added "
                "meanwhile. Repeat the call; it completes the rest and then switches the alias."
            )
        if alias is not None:
            target.switch_alias(alias)
    return ReindexReport(documents=count, embedded=embedded, alias=alias)


def _cuttable(old: EmbeddingContract, new: EmbeddingContract) -> bool:
    """Whether the new vectors are the old ones, or prefixes of them."""
    differences = set(old.differences(new))
    return not differences or (differences == {"dimensions"} and new.dimensions < old.dimensions)


def _embed(
    source: QdrantStore, target: QdrantStore, encoder: Encoder, on_progress: Callable[[int], object] | None
) -> None:
    from f2rag.engine import SearchEngine  # which stands on this package

    SearchEngine(encoder, target).index(source.documents(), on_progress=on_progress)


def _copy(source: QdrantStore, target: QdrantStore, on_progress: Callable[[int], object] | None) -> None:
    done = 0
    for ids, rows in source.iter_vectors(batch=_PAGE):
        found = {document.key: document for document in source.get(ids)}
        present = [position for position, key in enumerate(ids) if key in found]
        documents = [found[ids[position]] for position in present]
        fresh = [place for place, state in enumerate(target.states(documents)) if state != "unchanged"]
        if fresh:
            chosen = rows[[present[place] for place in fresh]]
            target.upsert([documents[place] for place in fresh], truncate(chosen, target.dimensions))
        done += len(ids)
        if on_progress is not None:
            on_progress(done)
