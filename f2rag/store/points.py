"""Documents with their vectors as batches of points, and the checks without which a wrong vector would go unseen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from f2rag.errors import ContractMismatchError, InputError
from f2rag.store.homes import Batch
from f2rag.store.layout import FULL, LEXICAL, Layout, level_name
from f2rag.store.payloads import Content, checked_content, make_payload
from f2rag.store.stages import SparseVector
from f2rag.types import Document, FloatMatrix, FloatVector
from f2rag.vectors import truncate

BATCH_POINTS = 512
"""Enough to hide the way to a server, and few enough that the next batch is made while it works on this one."""
BATCH_BYTES = 16 * 2**20
"""A server refuses requests above 32 MB; half of it leaves room for a wrong estimate."""

_BYTES_PER_COMPONENT = 20  # of a float32 written out as JSON
_UNIT_LENGTH_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PendingBatch:
    """Checked documents that become a batch when it is their turn, so that few batches are in memory at once."""

    documents: Sequence[Document]
    contents: Sequence[Content]
    rows: FloatMatrix
    positions: Sequence[int]
    layout: Layout
    words_of: Callable[[str], SparseVector] | None
    bytes: int

    def make(self) -> Batch:
        """The batch: payloads, levels and words."""
        chosen = [self.documents[position] for position in self.positions]
        full = self.rows[self.positions]
        words_of = self.words_of
        return Batch(
            ids=[document.point_id for document in chosen],
            vectors={FULL: full, **levels_of(full, self.layout)},
            sparse={} if words_of is None else {LEXICAL: [words_of(document.text) for document in chosen]},
            payloads=[
                make_payload(document, self.contents[position])
                for document, position in zip(chosen, self.positions, strict=True)
            ],
            bytes=self.bytes,
        )


def pending_batches(
    documents: Sequence[Document],
    rows: FloatMatrix,
    *,
    layout: Layout,
    words_of: Callable[[str], SparseVector] | None,
) -> list[PendingBatch]:
    """Check documents and cut them into batches of ``BATCH_POINTS`` and, but for a larger point, ``BATCH_BYTES``.

    Args:
        documents: Of several with one id the last wins.
        rows: Checked vectors of shape (documents, dimensions).
        layout: What is stored of each.
        words_of: The words of a text, where the layout has them.

    Raises:
        DocumentError: A text or metadata that JSON cannot hold.
    """
    contents = [checked_content(document) for document in documents]
    chosen = last_of_each(documents)
    width = rows.shape[1] + sum(layout.levels)
    sizes = [_BYTES_PER_COMPONENT * width + _bytes_of(contents[position]) for position in chosen]
    return [
        PendingBatch(documents, contents, rows, chosen[start:end], layout, words_of, sum(sizes[start:end]))
        for start, end in _cuts(sizes)
    ]


def levels_of(rows: FloatMatrix, layout: Layout) -> dict[str, FloatMatrix]:
    """The stored prefixes of full vectors, by name; rows of unit length."""
    return {level_name(level): truncate(rows, level) for level in layout.levels}


def checked_rows(vectors: FloatMatrix, *, count: int, dimensions: int, collection: str) -> FloatMatrix:
    """Return ``vectors`` as float32 of shape (count, dimensions).

    Raises:
        InputError: Not a matrix of ``count`` finite rows of unit length.
        ContractMismatchError: Rows of another width.
    """
    rows = _floats(vectors)
    if rows.ndim != 2 or len(rows) != count:
        raise InputError(f"{count} documents need vectors of shape ({count}, {dimensions}), not {rows.shape}.")
    _check_width(rows.shape[1], dimensions=dimensions, collection=collection)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= _UNIT_LENGTH_TOLERANCE))  # NaN fails every comparison
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"The vector of row {row} has length {lengths[row]:.6g} instead of 1 "
            f"({wrong.size} of {count} rows are wrong). Normalise after truncation; nothing was stored."
        )
    return rows


def checked_query(vector: FloatVector, *, dimensions: int, collection: str) -> FloatVector:
    """Return ``vector`` as float32 of shape (dimensions,).

    Raises:
        InputError: Not one finite vector other than zero.
        ContractMismatchError: A vector of another width.
    """
    query = _floats(vector)
    if query.ndim != 1:
        raise InputError(f"A query vector has shape ({dimensions},), not {query.shape}.")
    _check_width(len(query), dimensions=dimensions, collection=collection)
    if not np.isfinite(query).all() or not query.any():
        raise InputError("The query vector holds NaN or infinity, or nothing but zeros; it has no direction.")
    return query


def last_of_each(documents: Sequence[Document]) -> list[int]:
    """Positions of the documents that remain when, of those with one id, the last wins; in order."""
    return sorted({document.key: position for position, document in enumerate(documents)}.values())


def _bytes_of(content: Content) -> int:
    """Roughly what a payload takes: text and metadata lie beside the node and in it."""
    return 4 * len(content["text"]) + 3 * len(str(content["metadata"])) + 2 * len(str(content.get("payload", ""))) + 500


def _cuts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each batch begins and ends."""
    start = size = 0
    for position, each in enumerate(sizes):
        if position > start and (position - start == BATCH_POINTS or size + each > BATCH_BYTES):
            yield start, position
            start, size = position, 0
        size += each
    if start < len(sizes):
        yield start, len(sizes)


def _floats(vectors: Any) -> FloatMatrix:
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"The vectors are no array: {error}") from error
    if array.dtype.kind != "f":
        raise InputError(f"Vectors are floating-point arrays, not {array.dtype}.")
    return np.ascontiguousarray(array, dtype=np.float32)


def _check_width(width: int, *, dimensions: int, collection: str) -> None:
    if width != dimensions:
        raise ContractMismatchError(
            f"Collection {collection!r} holds {dimensions}-dimensional vectors; this one has {width}. "
            f"Embed with dimensions={dimensions}, or use another collection."
        )
