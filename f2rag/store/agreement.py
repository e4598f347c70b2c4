"""May these vectors go into that collection? The contract that it remembers decides.

Same width does not mean same model: a collection that another model filled returns plausible nonsense, so it is
refused, with every field that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f2rag.contract import SCHEMA_VERSION, EmbeddingContract
from f2rag.errors import ContractMismatchError, InputError, StoreError

if TYPE_CHECKING:
    from f2rag.store.homes import Backend


def agree(backend: Backend, contract: EmbeddingContract | None, *, collection: str, adopt: bool) -> EmbeddingContract:
    """The contract under which an existing collection may be used.

    Args:
        backend: The collection.
        contract: What the caller's vectors are; ``None`` takes what the collection says.
        collection: Its name, for messages.
        adopt: Write ``contract`` to a collection that has none.

    Raises:
        ContractMismatchError: The two differ, or the collection has no contract and is not to be adopted.
        StoreError: A contract that cannot be read, or that a newer f2rag wrote.
    """
    place = f"Collection {collection!r} in {backend.place}"
    found = backend.read_contract()
    if found is None:
        if adopt:
            return _adopted(backend, contract, place)
        raise ContractMismatchError(
            f"{place} has no f2rag contract: something else filled it, and nothing says which model made its vectors. "
            "Use another collection name, or, if you know that they are this model's, open it with adopt=True."
        )
    stored = read(found, place)
    if backend.vector() != (stored.dimensions, "Cosine"):
        raise StoreError(
            f"{place}: its contract says {stored.dimensions} dimensions under cosine, its storage {backend.vector()}. "
            "The one or the other was changed by hand; index the documents again into a new collection."
        )
    if contract is not None:
        refuse_mismatch(stored, contract, place)
    return stored


def refuse_mismatch(stored: EmbeddingContract, given: EmbeddingContract, place: str) -> None:
    """Compare two contracts.

    Raises:
        ContractMismatchError: Their vectors are not comparable; names each differing field and the ways out.
    """
    differences = stored.differences(given)
    if not differences:
        return
    fields = "; ".join(f"{name}: stored {mine!r}, given {theirs!r}" for name, (mine, theirs) in differences.items())
    if set(differences) == {"dimensions"}:
        way_out = f"Open it with dimensions={stored.dimensions}"
    else:
        way_out = f"Open it with model {stored.model!r} at dimensions={stored.dimensions}"
    raise ContractMismatchError(
        f"{place} was filled with vectors that cannot be compared with these ({fields}). "
        f"{way_out}, use another collection name, or index the documents again into a new collection."
    )


def read(found: Mapping[str, Any], place: str) -> EmbeddingContract:
    """Read a stored contract.

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
    except TypeError as error:
        raise damaged(place, str(error)) from error
    if found.get("fingerprint") != contract.fingerprint:
        raise damaged(place, "its fingerprint does not fit its fields")
    return contract


def damaged(place: str, reason: str) -> StoreError:
    """The error for a contract that cannot be trusted."""
    return StoreError(
        f"{place}: its contract is damaged ({reason}), so nothing says what its vectors are. "
        "Restore it from a copy, or drop the collection and index the documents again."
    )


def _adopted(backend: Backend, contract: EmbeddingContract | None, place: str) -> EmbeddingContract:
    if contract is None:
        raise InputError(f"{place} can be adopted only under a contract; give contract=encoder.contract().")
    if backend.vector() != (contract.dimensions, "Cosine"):
        raise ContractMismatchError(
            f"{place} cannot be adopted: it holds {backend.vector() or 'no unnamed vector'}, and one unnamed vector of "
            f"({contract.dimensions}, 'Cosine') is expected. Index its documents into a new collection."
        )
    backend.create_indexes()
    backend.write_contract(contract.to_dict())
    return contract
