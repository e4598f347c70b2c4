"""May these vectors go into that collection? The record that it keeps decides.

Same width does not mean same model: a collection that another model filled returns plausible nonsense, so it is
refused, with every field that differs. The record is the contract with the layout beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f2rag.contract import SCHEMA_VERSION, EmbeddingContract
from f2rag.errors import ContractMismatchError, InputError, StoreError
from f2rag.store.layout import FULL, Layout, level_name

if TYPE_CHECKING:
    from f2rag.store.homes import Backend


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept beside a collection.

    Attributes:
        contract: What its vectors are.
        layout: What is stored of each document.
        adopted: Whether something else than f2rag filled it before; its points may have other ids and payloads.
    """

    contract: EmbeddingContract
    layout: Layout = dataclasses.field(default_factory=Layout)
    adopted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The form that is stored."""
        from f2rag import __version__

        extra = {"layout": self.layout.to_dict(), "adopted": self.adopted, "package": __version__}
        return {**self.contract.to_dict(), **extra}


def agree(
    backend: Backend, contract: EmbeddingContract | None, *, layout: Layout | None, collection: str, adopt: bool
) -> Record:
    """The record under which an existing collection may be used.

    Args:
        backend: The collection.
        contract: What the caller's vectors are; ``None`` takes what the collection says.
        layout: What the caller expects to be stored; ``None`` takes what is.
        collection: Its name, for messages.
        adopt: Write ``contract`` to a collection that has none.

    Raises:
        ContractMismatchError: The two differ, or the collection has no contract and is not to be adopted.
        StoreError: A record that cannot be read, or that a newer f2rag wrote.
    """
    place = f"Collection {collection!r} in {backend.place}"
    found = backend.read_contract()
    if found is None:
        if adopt:
            return _adopted(backend, contract, layout, place)
        raise ContractMismatchError(
            f"{place} has no f2rag contract: something else filled it, and nothing says which model made its vectors. "
            "Use another collection name, or, if you know that they are this model's, open it with adopt=True."
        )
    stored = read_record(found, place)
    _refuse_other_vectors(backend, stored, place)
    if contract is not None:
        refuse_mismatch(stored.contract, contract, place)
    if layout is not None:
        _refuse_other_layout(stored.layout, layout, place)
    return stored


def refuse_mismatch(stored: EmbeddingContract, given: EmbeddingContract, place: str) -> None:
    """Compare two contracts.

    Raises:
        ContractMismatchError: Their vectors are not comparable; names each differing field and the ways out.
    """
    differences = stored.differences(given)
    if not differences:
        return
    if set(differences) == {"dimensions"}:
        way_out = f"Open it with dimensions={stored.dimensions}"
    else:
        way_out = f"Open it with model {stored.model!r} at dimensions={stored.dimensions}"
    raise ContractMismatchError(
        f"{place} was filled with vectors that cannot be compared with these ({_listed(differences)}). "
        f"{way_out}, use another collection name, or embed its documents again into a new collection, while this one "
        "goes on serving (f2rag reindex)."
    )


def read_record(found: Mapping[str, Any], place: str) -> Record:
    """Read a stored record.

    Raises:
        StoreError: It is damaged or was written by a newer f2rag.
    """
    version = found.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{place} was written by a newer f2rag (contract version {version}; this one reads {SCHEMA_VERSION}). "
            "Upgrade it with: pip install --upgrade f2rag"
        )
    try:
        contract = EmbeddingContract.from_dict(found)
        layout = Layout.from_dict(found.get("layout") or {})
    except (TypeError, AttributeError, InputError) as error:
        raise damaged(place, str(error)) from error
    if found.get("fingerprint") != contract.fingerprint:
        raise damaged(place, "its fingerprint does not fit its fields")
    return Record(contract=contract, layout=layout, adopted=found.get("adopted") is True)


def damaged(place: str, reason: str) -> StoreError:
    """The error for a contract that cannot be trusted."""
    return StoreError(
        f"{place}: its contract is damaged ({reason}), so nothing says what its vectors are. "
        "Restore it from a copy, or drop the collection and index the documents again."
    )


def _refuse_other_vectors(backend: Backend, stored: Record, place: str) -> None:
    """Make sure that the collection has the vectors that its record speaks of."""
    found = backend.vectors_found()
    levels = stored.layout.levels
    expected = {FULL: stored.contract.dimensions, **{level_name(level): level for level in levels}}
    for name, size in expected.items():
        if found.get(name) != (size, "Cosine"):
            what = f"a vector {name!r} of" if name else "vectors of"
            raise StoreError(
                f"{place}: its contract says {what} {size} dimensions under cosine, its storage "
                f"{found.get(name) or 'has none'}. The one or the other was changed by hand; "
                "index the documents again into a new collection."
            )


def _refuse_other_layout(stored: Layout, given: Layout, place: str) -> None:
    differences = stored.differences(given)
    if differences:
        raise ContractMismatchError(
            f"{place} has another layout ({_listed(differences)}). Open it without a layout to take the one it has, or "
            "copy its documents into a new collection with the layout you want, while this one goes on serving "
            "(f2rag reindex; no text is embedded again)."
        )


def _listed(differences: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name}: stored {mine!r}, given {theirs!r}" for name, (mine, theirs) in differences.items())


def _adopted(backend: Backend, contract: EmbeddingContract | None, layout: Layout | None, place: str) -> Record:
    if contract is None:
        raise InputError(f"{place} can be adopted only under a contract; give contract=encoder.contract().")
    vectors = backend.vectors_found()
    if vectors.get(FULL) != (contract.dimensions, "Cosine"):
        raise ContractMismatchError(
            f"{place} cannot be adopted: it holds {vectors.get(FULL) or 'no unnamed vector'}, and an unnamed vector of "
            f"({contract.dimensions}, 'Cosine') is expected. Index its documents into a new collection."
        )
    fields = layout.fields if layout is not None else {}
    record = Record(contract=contract, layout=Layout(fields=fields), adopted=True)
    if layout is not None:
        _refuse_other_layout(record.layout, layout, place)
    backend.create_indexes(record.layout.indexes)
    backend.write_contract(record.to_dict())
    return record
