"""One filter language in every home: ``qdrant_client.models.Filter``.

Metadata keys are written ``metadata.<key>``. ``has_id`` takes the documents' own ids. The client's backends take the
filter as it is; for the embedded engine it is translated, condition by condition. What one of them lacks, or reads
differently, is refused by name in all: a condition that is silently misread returns wrong documents.

The embedded engine (0.9.0) takes the boolean in ``MatchValue(value=True)`` for the integer 1 and finds nothing. So
documents are stored with the paths of their booleans, and those are matched instead. Points of an adopted collection
lack the paths until they are stored again.

``qdrant_client`` is imported only when a filter is given: importing it takes as long as hundreds of searches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from f2rag.errors import InputError
from f2rag.store.homes import LANGUAGE_KEY, PLAIN_KEY, PointId
from f2rag.types import point_id

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models

_GROUPS = ("must", "should", "must_not")
_CONDITIONS = (
    "Filter",
    "FieldCondition",
    "IsEmptyCondition",
    "IsNullCondition",
    "HasIdCondition",
    "HasVectorCondition",
    "NestedCondition",
)
_BOOLEAN_KEY = rf'metadata(?:\.(?:{PLAIN_KEY}|"[^"]+")(?:\[\])?)+'


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Which documents a call is about.

    Attributes:
        languages: Any of these; empty means every one.
        filter: And this; ``has_id`` already holds Qdrant's ids.
    """

    languages: tuple[str, ...] = ()
    filter: models.Filter | None = None


EVERYTHING = Selection()


def select(language: str | Sequence[str] | None, filter: models.Filter | None) -> Selection:  # noqa: A002 - Qdrant's word
    """Check what a caller wrote.

    Raises:
        InputError: A language that is no text, an empty list of languages, or a filter of another type.
    """
    languages = (language,) if isinstance(language, str) else tuple(language or ())
    if language is not None and not languages:
        raise InputError("The list of languages is empty, so nothing could match. Give None to search every language.")
    for item in languages:
        if not isinstance(item, str) or not item:
            raise InputError(f"A language is a tag such as 'fr', not {item!r}.")
    if filter is None:
        return Selection(languages)
    from qdrant_client import models

    if not isinstance(filter, models.Filter):
        raise InputError(
            f"A filter is a qdrant_client.models.Filter, not {type(filter).__name__}. "
            "Example: Filter(must=[FieldCondition(key='metadata.year', range=Range(gte=2020))])."
        )
    return Selection(languages, _checked(filter))


def stored_ids(key: str) -> list[PointId]:
    """The Qdrant ids under which the document ``key`` may lie.

    Its own, and the key itself where that is an id for Qdrant: in an adopted collection points keep the ids they had.
    """
    candidates: list[PointId] = [point_id(key)]
    if key.isascii() and key.isdigit() and int(key) < 2**64:
        candidates.append(int(key))
    else:
        with contextlib.suppress(ValueError):
            candidates.append(str(uuid.UUID(key)))
    return candidates


def to_client(selection: Selection) -> models.Filter | None:
    """The selection as the client's filter."""
    if not selection.languages:
        return selection.filter
    from qdrant_client import models

    language = models.FieldCondition(key=LANGUAGE_KEY, match=models.MatchAny(any=list(selection.languages)))
    return models.Filter(must=[language, *([selection.filter] if selection.filter else [])])


def to_edge(selection: Selection) -> edge.Filter | None:
    """The selection as the embedded engine's filter.

    Raises:
        InputError: A condition that the embedded engine does not have.
    """
    import qdrant_edge as edge

    conditions: list[Any] = []
    if selection.languages:
        match = edge.MatchAny(list(selection.languages))
        conditions.append(edge.FieldCondition(LANGUAGE_KEY, match=match))
    if selection.filter is not None:
        conditions.append(_edge_filter(selection.filter))
    return edge.Filter(must=conditions) if conditions else None


def _checked(filter: models.Filter) -> models.Filter:  # noqa: A002 - Qdrant's word
    """A copy that every home reads alike, with Qdrant's ids for the documents' own.

    Raises:
        InputError: A condition that some home lacks or reads differently.
    """
    changes: dict[str, Any] = {
        group: [_checked_condition(condition) for condition in _as_list(getattr(filter, group))]
        for group in _GROUPS
        if getattr(filter, group) is not None
    }
    if filter.min_should is not None:
        conditions = [_checked_condition(condition) for condition in filter.min_should.conditions]
        changes["min_should"] = filter.min_should.model_copy(update={"conditions": conditions})
    return filter.model_copy(update=changes)


def _checked_condition(condition: Any) -> Any:
    kind = type(condition).__name__
    if kind not in _CONDITIONS:
        raise InputError(f"A filter cannot hold a {kind} here; it can hold {', '.join(_CONDITIONS)}.")
    if kind == "Filter":
        return _checked(condition)
    if kind == "HasIdCondition":
        ids = [each for key in condition.has_id for each in stored_ids(str(key))]
        return condition.model_copy(update={"has_id": ids})
    if kind == "NestedCondition":
        nested = condition.nested.model_copy(update={"filter": _checked(condition.nested.filter)})
        return condition.model_copy(update={"nested": nested})
    if kind == "FieldCondition":
        given = sorted(name for name, value in condition if name != "key" and value is not None)
        if len(given) != 1:
            raise InputError(
                f"The condition on {condition.key!r} compares {' and '.join(given) or 'nothing'}. Give each condition "
                "one comparison; of several, one engine joins with 'or' what another reads only the first of."
            )
    return condition


def _edge_filter(filter: models.Filter, *, nested: bool = False) -> edge.Filter:  # noqa: A002 - Qdrant's word
    import qdrant_edge as edge

    def each(conditions: Any) -> list[Any]:
        return [_edge_condition(condition, nested=nested) for condition in _as_list(conditions)]

    groups: dict[str, Any] = {
        group: each(getattr(filter, group)) for group in _GROUPS if getattr(filter, group) is not None
    }
    if filter.min_should is not None:
        groups["min_should"] = edge.MinShould(each(filter.min_should.conditions), filter.min_should.min_count)
    return edge.Filter(**groups)


def _edge_condition(condition: Any, *, nested: bool) -> Any:
    """Translate one condition, by the name of its type; ``_checked`` has seen it."""
    import qdrant_edge as edge

    translations: dict[str, Callable[[Any], Any]] = {
        "Filter": lambda it: _edge_filter(it, nested=nested),
        "FieldCondition": lambda it: _edge_field(it, nested=nested),
        "IsEmptyCondition": lambda it: edge.IsEmptyCondition(it.is_empty.key),
        "IsNullCondition": lambda it: edge.IsNullCondition(it.is_null.key),
        "HasIdCondition": lambda it: edge.HasIdCondition(set(it.has_id)),
        "HasVectorCondition": lambda it: edge.HasVectorCondition(it.has_vector),
        "NestedCondition": lambda it: edge.NestedCondition(it.nested.key, _edge_filter(it.nested.filter, nested=True)),
    }
    try:
        return translations[type(condition).__name__](condition)
    except InputError:
        raise
    except Exception as error:  # a key that is no path, a date that is no date: the engine raises bare ones
        raise InputError(f"The embedded engine refuses {condition!r}: {error}") from error


def _edge_field(condition: models.FieldCondition, *, nested: bool) -> edge.FieldCondition:
    """Translate a condition on one field."""
    import qdrant_edge as edge

    if isinstance(getattr(condition.match, "value", None), bool):
        return _edge_boolean(condition, nested=nested)
    comparisons: dict[str, Callable[[Any], Any]] = {
        "match": _edge_match,
        "range": _edge_range,
        "geo_bounding_box": lambda it: edge.GeoBoundingBox(_geo(it.top_left), _geo(it.bottom_right)),
        "geo_radius": lambda it: edge.GeoRadius(_geo(it.center), it.radius),
        "geo_polygon": lambda it: edge.GeoPolygon(_line(it.exterior), [_line(each) for each in it.interiors or []]),
        "values_count": lambda it: edge.ValuesCount(lt=it.lt, gt=it.gt, lte=it.lte, gte=it.gte),
        "is_empty": bool,
        "is_null": bool,
    }
    ((name, value),) = ((name, value) for name, value in condition if name != "key" and value is not None)
    if name not in comparisons:
        raise InputError(f"The embedded engine cannot compare a field by {name}.")
    return edge.FieldCondition(condition.key, **{name: comparisons[name](value)})


def _edge_boolean(condition: Any, *, nested: bool) -> edge.FieldCondition:
    """Match the path of a boolean instead of the boolean."""
    import qdrant_edge as edge

    if nested or not re.fullmatch(_BOOLEAN_KEY, condition.key):
        raise InputError(
            f"The embedded engine cannot compare {condition.key!r} with true or false, inside a nested condition or at "
            "an index. Write the key as 'metadata.<key>' outside of it, or store 0 and 1 instead."
        )
    flag = str(condition.match.value).lower()
    return edge.FieldCondition(f"f2rag.{flag}", match=edge.MatchValue(condition.key))


def _edge_match(match: Any) -> Any:
    import qdrant_edge as edge

    matches: dict[str, tuple[Callable[[Any], Any], str]] = {
        "MatchValue": (edge.MatchValue, "value"),
        "MatchText": (edge.MatchText, "text"),
        "MatchTextAny": (edge.MatchTextAny, "text_any"),
        "MatchPhrase": (edge.MatchPhrase, "phrase"),
        "MatchPrefix": (edge.MatchPrefix, "prefix"),
        "MatchSubstring": (edge.MatchSubstring, "substring"),
        "MatchAny": (edge.MatchAny, "any"),
        "MatchExcept": (edge.MatchExcept, "except_"),
    }
    name = type(match).__name__
    if name not in matches:
        raise InputError(f"The embedded engine has no {name}; it knows {', '.join(matches)}.")
    make, field = matches[name]
    return make(getattr(match, field))


def _edge_range(bounds: models.Range | models.DatetimeRange) -> Any:
    import qdrant_edge as edge
    from qdrant_client import models

    values = {side: getattr(bounds, side) for side in ("gte", "gt", "lte", "lt")}
    if isinstance(bounds, models.Range):
        return edge.RangeFloat(**values)
    return edge.RangeDateTime(**{side: _isoformat(value) for side, value in values.items()})


def _isoformat(value: datetime.date | None) -> str | None:
    return None if value is None else value.isoformat()


def _geo(point: models.GeoPoint) -> edge.GeoPoint:
    import qdrant_edge as edge

    return edge.GeoPoint(lon=point.lon, lat=point.lat)


def _line(line: models.GeoLineString) -> list[edge.GeoPoint]:
    return [_geo(point) for point in line.points]


def _as_list(conditions: Any) -> list[Any]:
    """Qdrant takes one condition where a list is meant."""
    return list(conditions) if isinstance(conditions, list) else [conditions]
