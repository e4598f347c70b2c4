"""Which stored point is which document: by the owner's id, also in a collection that something else filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from f2rag.errors import InputError
from f2rag.store.filters import stored_ids
from f2rag.store.homes import Backend, Batch, PointId, Row
from f2rag.store.payloads import HASH_KEY, content_hash, document_of, hash_of
from f2rag.types import Document

State: TypeAlias = Literal["new", "changed", "unchanged"]
"""How a document stands to what is stored under its id."""

IDS_PER_CALL = 1_000


def states(backend: Backend, documents: Sequence[Document]) -> list[State]:
    """How each document stands to what would be stored under its id when those before it were stored."""
    hashes = [content_hash(document) for document in documents]
    ids = list(dict.fromkeys(document.point_id for document in documents))
    known: dict[PointId, str | None] = {}
    for start in range(0, len(ids), IDS_PER_CALL):
        rows = backend.retrieve(ids[start : start + IDS_PER_CALL], keys=[HASH_KEY])
        known.update({row.id: hash_of(row) for row in rows})
    found: list[State] = []
    for document, digest in zip(documents, hashes, strict=True):
        identifier = document.point_id
        if identifier not in known:
            found.append("new")
        else:
            found.append("unchanged" if known[identifier] == digest else "changed")
        known[identifier] = digest
    return found


def stored_rows(backend: Backend, ids: Sequence[str], *, keys: Sequence[str] | None) -> dict[str, Row]:
    """The stored points among ``ids``, by the documents' own ids and in their order.

    Raises:
        InputError: ``ids`` is one string instead of several, or holds something else than strings.
    """
    if isinstance(ids, str) or not all(isinstance(key, str) for key in ids):
        raise InputError("ids is a list of strings, the documents' own ids.")
    wanted = list(dict.fromkeys(ids))
    found: dict[str, Row] = {}
    for start in range(0, len(wanted), IDS_PER_CALL):
        chunk = [each for key in wanted[start : start + IDS_PER_CALL] for each in stored_ids(key)]
        found.update({document_of(row).key: row for row in backend.retrieve(chunk, keys=keys)})
    # An id that is another document's Qdrant id found that one.
    return {key: found[key] for key in wanted if key in found}


def delete_replaced(backend: Backend, batch: Batch) -> None:
    """Delete the points that a batch replaces under other ids.

    In an adopted collection a document may lie under its own id as Qdrant's; there the new point is a second one.
    """
    keys = [str(payload["f2rag"]["id"]) for payload in batch.payloads]
    own = set(batch.ids)
    foreign = [each for key in keys for each in stored_ids(key) if each not in own]
    if foreign:
        rows = backend.retrieve(foreign, keys=["f2rag.id"])
        if replaced := [row.id for row in rows if "f2rag" not in row.payload]:
            backend.delete(replaced)
