"""All points of a collection, page by page, and the vectors that some of them lack.

A tool that knows nothing of levels writes points without them, and a funnel never finds those. The levels are cut from
the stored full vectors and the words read from the stored texts, so nothing is embedded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from f2rag.store.filters import EVERYTHING, Selection
from f2rag.store.homes import Backend, PointId, Row
from f2rag.store.layout import LEXICAL, Layout, level_name
from f2rag.store.payloads import document_of
from f2rag.store.points import levels_of

if TYPE_CHECKING:
    from f2rag.store.lexical import WordEncoder
    from f2rag.types import FloatVector

PAGE = 256


def pages(
    backend: Backend, selection: Selection = EVERYTHING, *, size: int = PAGE, without: str | None = None
) -> Iterator[list[Row]]:
    """The points that match (and lack the vector ``without``), page by page."""
    offset = None
    while True:
        rows, offset = backend.scroll(selection=selection, offset=offset, limit=size, without=without)
        yield rows
        if offset is None:
            return


def vectors_of(backend: Backend, points: Sequence[PointId]) -> dict[PointId, FloatVector]:
    """The full vectors of points, in requests of bounded size; absent ones are left out."""
    found: dict[PointId, FloatVector] = {}
    for start in range(0, len(points), PAGE):
        part = backend.vectors(points[start : start + PAGE])
        found.update({point: np.asarray(vector, dtype=np.float32) for point, vector in part.items()})
    return found


def missing(backend: Backend, layout: Layout, words: WordEncoder | None) -> dict[str, int]:
    """How many points lack each vector of the layout, by its name; only where some do."""
    counts = {level_name(level): backend.count_without(level_name(level)) for level in layout.levels}
    if words is not None:
        counts[LEXICAL] = sum(1 for _ in _wordless(backend, words))
    return {name: count for name, count in counts.items() if count}


def backfill(
    backend: Backend, layout: Layout, words: WordEncoder | None, on_progress: Callable[[int], object] | None
) -> int:
    """Give every point the vectors that it lacks; returns how many were made."""
    made = 0
    for level in layout.levels:
        only = Layout(levels=(level,))
        for rows in pages(backend, without=level_name(level)):
            found = vectors_of(backend, [row.id for row in rows])
            if found:
                backend.set_vectors(list(found), levels_of(np.stack(list(found.values())), only), {})
            made += len(found)
            if on_progress is not None:
                on_progress(made)
    if words is not None:
        for row in _wordless(backend, words):
            backend.set_vectors([row.id], {}, {LEXICAL: [words.document(document_of(row).text)]})
            made += 1
            if on_progress is not None:
                on_progress(made)
    if made:
        backend.flush()
    return made


def _wordless(backend: Backend, words: WordEncoder) -> Iterator[Row]:
    """Points whose text has words and which have no vector of them."""
    for rows in pages(backend, without=LEXICAL):
        yield from (row for row in rows if words.document(document_of(row).text).indices)
