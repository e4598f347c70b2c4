"""LlamaIndex's metadata filters as Qdrant's.

Every operator means what LlamaIndex's own in-memory store means by it; what Qdrant cannot do, or does otherwise, is
refused by name. A negation also finds the nodes that lack the key.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any

from f2rag.errors import InputError
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from qdrant_client import models

from llama_index.vector_stores.f2llm.nodes import SOURCE_DOCUMENT_KEY

SOURCE_DOCUMENT_NAMES = ("ref_doc_id", "doc_id", "document_id")
"""Names under which LlamaIndex's stores know the document that a node was cut from."""

_PLAIN_PART = r"[A-Za-z0-9_-]+(?:\[\d*\])?"
_NEGATED = {FilterOperator.NE: FilterOperator.EQ, FilterOperator.NIN: FilterOperator.IN}
_BOUNDS = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}


def to_qdrant(
    filters: MetadataFilters | None = None,
    *,
    doc_ids: Sequence[str] | None = None,
    node_ids: Sequence[str] | None = None,
    further: models.Filter | None = None,
) -> models.Filter | None:
    """Everything that a query restricts, as one filter; ``None`` where it restricts nothing.

    Args:
        filters: LlamaIndex's filters, nested as they like.
        doc_ids: Only nodes cut from these documents.
        node_ids: Only these nodes.
        further: A filter in Qdrant's own words, besides.

    Raises:
        InputError: An operator that Qdrant does not have, or a value that does not fit its operator.
    """
    conditions: list[Any] = []
    if filters is not None and filters.filters:
        conditions.append(_group(filters))
    if doc_ids is not None:
        conditions.append(_match_any(SOURCE_DOCUMENT_KEY, list(doc_ids)))
    if node_ids is not None:
        conditions.append(models.HasIdCondition(has_id=list(node_ids)))
    if further is not None:
        conditions.append(further)
    return models.Filter(must=conditions) if conditions else None


def _group(filters: MetadataFilters) -> models.Filter:
    conditions: list[Any] = [
        _group(each) if isinstance(each, MetadataFilters) else _condition(each) for each in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return models.Filter(should=conditions)
    if filters.condition == FilterCondition.NOT:
        return models.Filter(must_not=conditions)
    return models.Filter(must=conditions)


def _condition(asked: MetadataFilter) -> models.Filter:
    if asked.operator in _NEGATED:
        return models.Filter(must_not=[_positive(asked, _NEGATED[asked.operator])])
    return _positive(asked, asked.operator)


def _positive(asked: MetadataFilter, operator: FilterOperator) -> models.Filter:
    """The condition on the metadata; a source document's id is looked for where it is kept as well."""
    make = _MAKERS.get(operator)
    if make is None:
        raise InputError(
            f"The filter on {asked.key!r} uses {operator.value!r}, which Qdrant does not have. It has "
            f"{', '.join(repr(each.value) for each in (*_MAKERS, *_NEGATED))}; or pass a filter in Qdrant's own words "
            "as vector_store_kwargs={'qdrant_filters': ...}."
        )
    keys = [_path(asked.key)]
    if asked.key in SOURCE_DOCUMENT_NAMES:
        keys.append(SOURCE_DOCUMENT_KEY)
    found = [make(key, asked.value, asked) for key in keys]
    # "Has no value" must hold in every place, all others in any.
    return models.Filter(must=found) if operator == FilterOperator.IS_EMPTY else models.Filter(should=found)


def _path(key: str) -> str:
    """A metadata key as Qdrant writes it: dots lead into mappings, anything unusual is quoted."""
    if re.fullmatch(rf"{_PLAIN_PART}(?:\.{_PLAIN_PART})*", key):
        return f"metadata.{key}"
    if not key or '"' in key:
        raise InputError(f"A filter cannot ask for the metadata key {key!r}; Qdrant's paths have no way to write it.")
    return f'metadata."{key}"'


def _equal(key: str, value: Any, asked: MetadataFilter) -> Any:
    if isinstance(value, float):  # Qdrant matches text and whole numbers; others by a range of one point
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if not isinstance(value, (str, int)):
        raise _misfit(asked, "one text or number; for several use 'in', for a missing value 'is_empty'")
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _in(key: str, value: Any, asked: MetadataFilter) -> Any:
    if not isinstance(value, list):
        raise _misfit(asked, "a list")
    return _match_any(key, value)


def _all(key: str, value: Any, asked: MetadataFilter) -> Any:
    if not isinstance(value, list):
        raise _misfit(asked, "a list")
    return models.Filter(must=[_equal(key, each, asked) for each in value])


def _match_any(key: str, values: list[Any]) -> Any:
    if any(isinstance(each, float) for each in values):
        points = [models.FieldCondition(key=key, range=models.Range(gte=each, lte=each)) for each in values]
        return models.Filter(should=list(points))
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def _bounded(key: str, value: Any, asked: MetadataFilter) -> Any:
    bound = _BOUNDS[asked.operator]
    if isinstance(value, (int, float)):
        return models.FieldCondition(key=key, range=models.Range.model_validate({bound: value}))
    try:
        moment = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _misfit(asked, "a number, or a date in ISO 8601 such as '2026-11-21'") from error
    return models.FieldCondition(key=key, range=models.DatetimeRange.model_validate({bound: moment}))


def _substring(key: str, value: Any, asked: MetadataFilter) -> Any:
    if not isinstance(value, str):
        raise _misfit(asked, "text")
    return models.FieldCondition(key=key, match=models.MatchSubstring(substring=value))


def _empty(key: str, _value: Any, _asked: MetadataFilter) -> Any:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))


def _misfit(asked: MetadataFilter, expected: str) -> InputError:
    return InputError(
        f"The filter on {asked.key!r} compares by {asked.operator.value!r} with {asked.value!r}; it takes {expected}."
    )


_MAKERS: dict[FilterOperator, Callable[[str, Any, MetadataFilter], Any]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.GT: _bounded,
    FilterOperator.GTE: _bounded,
    FilterOperator.LT: _bounded,
    FilterOperator.LTE: _bounded,
    FilterOperator.IN: _in,
    FilterOperator.ANY: _in,  # of a list in the metadata; Qdrant matches its elements
    FilterOperator.ALL: _all,
    FilterOperator.CONTAINS: _equal,
    FilterOperator.TEXT_MATCH: _substring,
    FilterOperator.IS_EMPTY: _empty,
}
if not hasattr(models, "MatchSubstring"):  # qdrant-client before 1.20; its text match compares words instead
    del _MAKERS[FilterOperator.TEXT_MATCH]
