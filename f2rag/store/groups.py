"""Groups of hits where the engine has no call for them: the embedded one in Python; and what groups and facets share.

As a server does: look at the best hits; while groups are missing, look again without the groups that are known; then
fill up those that are short.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from f2rag.errors import F2RagError, InputError
from f2rag.store.homes import PLAIN_KEY, Row
from f2rag.store.stages import Fused, Nearest, Stage

Value: TypeAlias = str | int

FIRST_LOOK = 100
"""Hits that are looked at before anything is known of the groups."""

_WIDER = 4


class Find(Protocol):
    """A search for points that have the payload key, with that key alone as their payload."""

    def __call__(self, stage: Stage, *, only: Value | None = None, besides: Sequence[Value] = ()) -> list[Row]:
        """Best first; ``only`` points with this value, none with one of ``besides``."""


def best_groups(find: Find, stage: Stage, *, key: str, groups: int, size: int) -> list[tuple[str, list[Row]]]:
    """The best groups, ordered by their best point, each with up to ``size`` points.

    Points whose value is no text and no whole number belong to no group. The ranks of a fused search mean something
    within one answer only, so there one answer is widened, and a group shows what of it is in that answer.
    """
    looked = _widened_until_enough if isinstance(stage, Fused) else _excluding_known
    found = looked(find, stage, key=key, groups=groups, size=size)
    return [(str(value), rows[:size]) for value, rows in list(found.items())[:groups]]


@contextmanager
def index_needed(key: str, collection: str) -> Iterator[None]:
    """Say of a field that an engine cannot count, because it has no index, what to do about it.

    Raises:
        InputError: It has none.
    """
    try:
        yield
    except F2RagError as error:
        if "No appropriate index for faceting" not in str(error):
            raise
        raise InputError(
            f"The values of {key!r} in collection {collection!r} cannot be counted: the field has no index for that. "
            "Keyword, integer and bool fields can have one: declare it when the collection is made, "
            "Layout(fields={'author': 'keyword'}), or copy the documents into a collection with that layout."
        ) from error


def value_at(payload: Mapping[str, Any], key: str) -> Value | None:
    """The text or whole number at a path such as ``metadata.author.name``; ``None`` where there is none."""
    value: Any = payload
    for quoted, plain in re.findall(rf'"([^"]+)"|({PLAIN_KEY})', key):
        if not isinstance(value, Mapping):
            return None
        value = value.get(quoted or plain)
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def widened(stage: Stage, limit: int) -> Stage:
    """A stage with ``limit`` hits, and with as many from each stage before it."""
    if isinstance(stage, Fused):
        searches = tuple(_passing_on(search, limit) for search in stage.searches)
        return dataclasses.replace(stage, limit=limit, searches=searches)
    candidates = None if stage.candidates is None else max(stage.candidates, limit)
    before = None if stage.prefetch is None else _passing_on(stage.prefetch, limit)
    return dataclasses.replace(stage, limit=limit, candidates=candidates, prefetch=before)


def _excluding_known(find: Find, stage: Stage, *, key: str, groups: int, size: int) -> dict[Value, list[Row]]:
    found: dict[Value, list[Row]] = {}
    limit = max(FIRST_LOOK, groups * size)
    whole = False
    first = True
    while len(found) < groups and not whole:
        rows = find(widened(stage, limit), besides=tuple(found))
        whole = len(rows) < limit
        known = len(found)
        _sort_in(found, rows, key)
        if first and whole:
            return found  # nothing was left out, so no group is short of what there is
        first = False
        if len(found) == known:  # full of points without a usable value
            limit *= _WIDER
    for value in list(found)[:groups]:
        if len(found[value]) < size:
            found[value] = find(widened(stage, size), only=value)
    return found


def _widened_until_enough(find: Find, stage: Stage, *, key: str, groups: int, size: int) -> dict[Value, list[Row]]:
    limit = max(FIRST_LOOK, groups * size)
    while True:
        found: dict[Value, list[Row]] = {}
        rows = find(widened(stage, limit))
        _sort_in(found, rows, key)
        if len(found) >= groups or len(rows) < limit:
            return found
        limit *= _WIDER


def _sort_in(found: dict[Value, list[Row]], rows: Sequence[Row], key: str) -> None:
    for row in rows:
        value = value_at(row.payload, key)
        if value is not None:
            found.setdefault(value, []).append(row)


def _passing_on(stage: Nearest, limit: int) -> Nearest:
    before = None if stage.prefetch is None else _passing_on(stage.prefetch, limit)
    return dataclasses.replace(stage, limit=max(stage.limit, limit), prefetch=before)
