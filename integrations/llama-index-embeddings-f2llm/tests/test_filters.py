"""Every operator means what LlamaIndex's own in-memory store means by it, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from f2rag.errors import InputError
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore

METADATA: dict[str, dict[str, Any]] = {
    "one": {"year": 2020, "price": 1.5, "title": "The Red House", "tags": ["a", "b"], "when": "2024-01-31"},
    "two": {"year": 2021, "price": 2.0, "title": "The red sea", "tags": ["b", "c"], "when": "2025-06-01T10:00:00"},
    "three": {"year": 2022, "price": 2.5, "title": "A Field", "tags": [], "when": "2026-11-21"},
    "four": {"author name": "Åsa", "a.b": 1, "title": ""},
    "five": {"year": -3, "price": 0.0, "title": "red", "tags": ["a", "b", "c"], "nested": {"deep": "x"}},
}
OPERATIONS = [
    ("year", "==", 2021), ("title", "==", "A Field"), ("price", "==", 2.5), ("price", "==", 2.0), ("year", "==", 1999),
    ("year", "!=", 2021), ("title", "!=", "A Field"), ("price", "!=", 2.5),
    ("year", ">", 2020), ("year", ">=", 2020), ("year", "<", 2021), ("year", "<=", 2021), ("price", ">", 1.75),
    ("price", "<=", 1.5), ("year", ">", 2020.5),
    ("year", "in", [2020, 2022]), ("title", "in", ["red", "A Field"]), ("price", "in", [1.5, 9.5]),
    ("year", "nin", [2020, 2022]), ("title", "nin", ["red"]), ("price", "nin", [1.5]),
    ("tags", "any", ["a", "zz"]), ("tags", "all", ["a", "b"]), ("tags", "all", ["b"]), ("tags", "contains", "c"),
    ("title", "text_match", "red"), ("title", "text_match", "ed H"), ("title", "text_match", "House"),
    ("author name", "==", "Åsa"),
]  # fmt: skip


@pytest.fixture
def filled(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> F2LLMVectorStore:
    store.add(fake([TextNode(text=key, id_=key, metadata=metadata) for key, metadata in METADATA.items()]))
    return store


def found(store: F2LLMVectorStore, *filters: Any, condition: str = "and") -> set[str]:
    given = [each if isinstance(each, MetadataFilters) else make(*each) for each in filters]
    asked = MetadataFilters(filters=given, condition=FilterCondition(condition))
    return {node.node_id for node in store.get_nodes(filters=asked)}


def make(key: str, operator: str, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def by_llama_index(*filters: Any, condition: str = "and") -> set[str]:
    asked = MetadataFilters(filters=[make(*each) for each in filters], condition=FilterCondition(condition))
    matches = build_metadata_filter_fn(lambda key: METADATA[key], asked)
    return {key for key in METADATA if matches(key)}


def test_operators_mean_what_llama_index_means(filled: F2LLMVectorStore) -> None:
    for operation in OPERATIONS:
        assert found(filled, operation) == by_llama_index(operation), operation


def test_conditions(filled: F2LLMVectorStore) -> None:
    pair = [("year", ">", 2020), ("title", "text_match", "red")]
    for condition in ("and", "or", "not"):
        assert found(filled, *pair, condition=condition) == by_llama_index(*pair, condition=condition), condition


def test_filters_nest(filled: F2LLMVectorStore) -> None:
    either = MetadataFilters(filters=[make("year", "==", 2020), make("year", "==", 2022)], condition=FilterCondition.OR)
    assert found(filled, either, ("tags", "contains", "a")) == {"one"}
    neither = MetadataFilters(filters=[either], condition=FilterCondition.NOT)
    assert found(filled, neither) == {"two", "four", "five"}


def test_missing_values(filled: F2LLMVectorStore) -> None:
    assert found(filled, ("tags", "is_empty", None)) == {"three", "four"}
    assert found(filled, ("year", "is_empty", None)) == {"four"}


def test_dates_compare_as_dates(filled: F2LLMVectorStore) -> None:
    assert found(filled, ("when", ">=", "2025-01-01")) == {"two", "three"}
    assert found(filled, ("when", "<", "2025-06-01T11:00:00")) == {"one", "two"}


def test_dots_lead_into_mappings(filled: F2LLMVectorStore) -> None:
    assert found(filled, ("nested.deep", "==", "x")) == {"five"}


def test_an_empty_set_of_filters_restricts_nothing(filled: F2LLMVectorStore) -> None:
    assert found(filled) == set(METADATA)


def test_the_source_document_is_found_under_its_names(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}
    store.add(
        fake(
            [
                TextNode(text="a", id_="a", relationships=source),
                TextNode(text="b", id_="b", metadata={"doc_id": "book"}),
            ]
        )
    )
    assert found(store, ("ref_doc_id", "==", "book")) == {"a"}
    assert found(store, ("doc_id", "==", "book")) == {"a", "b"}
    assert found(store, ("doc_id", "!=", "book")) == set()
    assert found(store, ("doc_id", "is_empty", None)) == set()


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (("title", "text_match_insensitive", "red"), "text_match_insensitive"),
        (("title", "text_match", 3), "takes text"),
        (("year", "in", 3), "takes a list"),
        (("tags", "all", "a"), "takes a list"),
        (("year", "==", None), "is_empty"),
        (("year", "==", [1]), "for several use 'in'"),
        (("title", ">", "m"), "ISO 8601"),
        (("year", ">", None), "a number"),
        (("", "==", 1), "no way to write"),
        (('a"b', "==", 1), "no way to write"),
    ],
)
def test_what_qdrant_cannot_do_is_refused_by_name(store: F2LLMVectorStore, operation: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        found(store, operation)
