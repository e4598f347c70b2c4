"""Storing, reading and searching documents, in every home."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest

from f2rag.errors import (
    ContractMismatchError,
    DocumentError,
    InputError,
)
from f2rag.store import Layout, points
from f2rag.types import Document, point_id
from f2rag.vectors import truncate

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]


def unit(axis, dimensions=DIMENSIONS):
    return np.eye(dimensions, dtype=np.float32)[axis]


def fill(store, encoder, documents):
    return store.upsert(documents, encoder.embed_documents([document.text for document in documents]))


SOME = [
    Document(id="a", text="a red house", language="en", source="en.txt", metadata={"year": 2001}),
    Document(id="b", text="une maison rouge", language="fr", source="fr.txt", metadata={"year": 2010}),
    Document(id="c", text="the blue sea", language="en", source="en.txt", metadata={"year": 2020}),
    Document(id="d", text="no language at all"),
]


class TestDocuments:
    def test_what_is_stored_comes_back(self, store, encoder):
        metadata = {
            "text": "ñ 日本語 \u0000 \U0001f600",
            "integer": 2**63 - 1,
            "negative": -(2**63),
            "number": 0.1,
            "yes": True,
            "nothing": None,
            "list": [1, "two", [3.5, None]],
            "object": {"a": {"b": "c"}, "": "empty key"},
        }
        document = Document(id="ключ", text=" text\n\twith blanks ", language="zh-Hant", source="s", metadata=metadata)
        assert fill(store, encoder, [document]) == 1
        assert store.get(["ключ"]) == [document]
        assert list(store.documents()) == [document]
        assert type(store.get(["ключ"])[0].metadata["yes"]) is bool

    def test_a_document_without_id_gets_the_one_of_its_content(self, store, encoder):
        document = Document(text="no id")
        fill(store, encoder, [document, Document(text="no id")])
        assert [stored.id for stored in store.documents()] == [document.key]

    def test_tuples_come_back_as_lists(self, store, encoder):
        fill(store, encoder, [Document(id="a", text="t", metadata={"pair": (1, 2)})])
        assert store.get(["a"])[0].metadata == {"pair": [1, 2]}
        assert store.unchanged([Document(id="a", text="t", metadata={"pair": [1, 2]})]) == [True]

    def test_the_payload_is_the_one_that_langchain_and_llama_index_read(self, place, encoder):
        with place.open(encoder.contract()) as store:
            fill(store, encoder, SOME[:1])
            payload = dict(store._backend.retrieve([SOME[0].point_id])[0].payload)
        assert payload.pop("f2rag")["id"] == "a"
        metadata = {"year": 2001, "language": "en", "source": "en.txt"}
        node = {"id_": "a", "text": "a red house", "metadata": metadata, "class_name": "TextNode"}
        assert json.loads(payload.pop("_node_content")) == node
        assert payload == {
            "page_content": "a red house",
            "metadata": metadata,
            **metadata,
            "_node_type": "TextNode",
            "doc_id": "en.txt",
        }

    def test_get_keeps_the_asked_order_and_leaves_out_what_is_absent(self, store, encoder):
        fill(store, encoder, SOME)
        assert [document.id for document in store.get(["c", "nope", "a", "c"])] == ["c", "a"]
        assert store.get([]) == []

    def test_get_and_delete_of_more_ids_than_one_call_takes(self, store, encoder, monkeypatch):
        monkeypatch.setattr("f2rag.store.identity.IDS_PER_CALL", 3)
        documents = [Document(id=str(number), text=f"text {number}") for number in range(10)]
        assert store.states(documents) == ["new"] * 10
        fill(store, encoder, documents)
        assert store.states(documents) == ["unchanged"] * 10
        assert store.get([str(number) for number in range(10)]) == documents
        assert store.delete([str(number) for number in range(8)]) == 8
        assert store.count() == 2

    def test_delete_says_how_many_there_were(self, store, encoder):
        fill(store, encoder, SOME)
        assert store.delete(["a", "a", "nope"]) == 1
        assert store.delete(["a"]) == 0
        assert store.count() == 3
        assert store.get(["a"]) == []

    def test_a_value_goes_with_its_last_document(self, store, encoder):
        fill(store, encoder, SOME)
        store.delete(["b"])
        assert store.languages() == {"en": 2}
        assert store.facet("source") == {"en.txt": 2}

    def test_a_point_id_is_no_document_id(self, store, encoder):
        fill(store, encoder, SOME)
        assert store.get([SOME[0].point_id]) == []
        assert store.delete([SOME[0].point_id]) == 0

    @pytest.mark.parametrize("ids", ["a", [1], [None]])
    def test_ids_are_a_list_of_strings(self, store, ids):
        with pytest.raises(InputError, match="list of strings"):
            store.get(ids)
        with pytest.raises(InputError, match="list of strings"):
            store.delete(ids)

    def test_pages_do_not_lose_or_repeat(self, store, encoder, monkeypatch):
        monkeypatch.setattr("f2rag.store.completeness.pages.__kwdefaults__", {"size": 7, "without": None})
        documents = [Document(id=str(number), text=f"text {number}") for number in range(50)]
        fill(store, encoder, documents)
        assert sorted(int(document.id) for document in store.documents()) == list(range(50))

    def test_count_and_languages(self, store, encoder):
        assert (store.count(), store.languages(), list(store.documents())) == (0, {}, [])
        fill(store, encoder, SOME)
        assert store.count() == 4
        assert store.count(language="en") == 2
        assert store.count(language=["en", "fr"]) == 3
        assert list(store.languages().items()) == [("en", 2), ("fr", 1)]


class TestUpsert:
    def test_repeating_changes_nothing(self, store, encoder):
        fill(store, encoder, SOME)
        before = sorted(store.documents(), key=lambda document: document.key)
        fill(store, encoder, SOME)
        assert sorted(store.documents(), key=lambda document: document.key) == before

    def test_the_last_of_one_id_wins(self, store, encoder):
        documents = [Document(id="a", text="first"), Document(id="b", text="other"), Document(id="a", text="last")]
        assert fill(store, encoder, documents) == 2
        assert store.get(["a"])[0].text == "last"
        (best,) = store.search(encoder.embed_documents(["last"])[0], limit=1)
        assert (best.id, best.score) == ("a", pytest.approx(1))

    def test_an_update_replaces_the_vector_and_the_whole_metadata(self, store, encoder):
        fill(store, encoder, [Document(id="a", text="old", metadata={"x": 1})])
        fill(store, encoder, [Document(id="a", text="new", metadata={"y": 2})])
        assert store.get(["a"])[0].metadata == {"y": 2}
        assert store.search(encoder.embed_documents(["new"])[0])[0].score == pytest.approx(1)

    def test_nothing_is_fine(self, store):
        assert store.upsert([], np.empty((0, DIMENSIONS), np.float32)) == 0

    def test_many_batches(self, store, encoder, monkeypatch):
        monkeypatch.setattr(points, "BATCH_POINTS", 4)
        fill(store, encoder, [Document(id=str(number), text=f"text {number}") for number in range(11)])
        assert store.count() == 11

    @pytest.mark.parametrize("kind", [np.float16, np.float64])
    def test_other_floats_are_converted(self, store, kind):
        store.upsert([Document(id="a", text="t")], unit(3)[None].astype(kind))
        assert store.search(unit(3).astype(kind))[0].score == pytest.approx(1)

    @pytest.mark.parametrize(
        ("vectors", "error", "message"),
        [
            (unit(0)[None], InputError, r"2 documents need vectors of shape \(2, 32\), not \(1, 32\)"),
            (unit(0), InputError, "2 documents need vectors of shape"),
            (np.zeros((2, 2, DIMENSIONS), np.float32), InputError, "need vectors of shape"),
            (np.eye(2, 31, dtype=np.float32), ContractMismatchError, "holds 32-dimensional vectors; this one has 31"),
            (np.eye(2, DIMENSIONS, dtype=np.int64), InputError, "not int64"),
            (np.array([["a"] * DIMENSIONS] * 2), InputError, "floating-point arrays"),
            ([[1.0], [1.0, 2.0]], InputError, "no array"),
            (np.array([unit(0), unit(1) * np.nan]), InputError, "row 1 has length nan"),
            (np.array([unit(0), np.full(DIMENSIONS, np.inf)]), InputError, "row 1 has length inf"),
            (np.array([unit(0), unit(1) * 0]), InputError, "row 1 has length 0 instead of 1"),
            (np.array([unit(0) * 0.9, unit(1)]), InputError, "row 0 has length 0.9"),
        ],
    )
    def test_wrong_vectors_are_refused_by_row_and_nothing_is_stored(self, store, vectors, error, message):
        with pytest.raises(error, match=message):
            store.upsert(SOME[:2], vectors)
        assert store.count() == 0

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            (
                Document(id="x", text="t", metadata={"when": datetime.date(2024, 1, 1)}),
                r"'x': metadata 'when'.*isoformat",
            ),
            (Document(id="x", text="t", metadata={"a": {"b": [1, b"raw"]}}), r"metadata 'a'\.b\[1\] is b'raw'"),
            (Document(id="x", text="t", metadata={"n": float("nan")}), "metadata 'n' is nan"),
            (Document(id="x", text="t", metadata={"n": np.float32(1)}), r"\.item\(\)"),
            (Document(id="x", text="t", metadata={"n": 2**63}), "metadata 'n'"),
            (Document(id="x", text="t", metadata={"n": {1, 2}}), "metadata 'n'"),
            (Document(id="x", text="t", metadata={1: 2}), "metadata key must be text, not 1"),
            (Document(id="x", text="t", metadata={"a": {1: 2}}), "metadata 'a' key must be text"),
            (Document(id="x", text="t", metadata={"language": "en"}), r"Document\(language=...\)"),
            (Document(id="x", text="t", metadata={"source": "s"}), r"Document\(source=...\)"),
            (Document(id="x", text="half \ud83d"), "text holds half of a surrogate pair at 5"),
            (Document(id="x", text="t", metadata={"k": "\ud83d"}), "metadata 'k' holds half"),
            (Document(text=5), "text must be text, not 5"),
            (Document(text="t", language=5), "language must be text"),
            (Document(id=5, text="t"), "id must be text"),
            ("no document", "Expected a f2rag.Document, not str"),
        ],
    )
    def test_what_json_cannot_hold_is_refused_by_name_and_nothing_is_stored(self, store, document, message):
        with pytest.raises(DocumentError, match=message):
            store.states([SOME[0], document])
        if isinstance(document, Document):
            with pytest.raises(DocumentError, match=message):
                store.upsert([SOME[0], document], np.array([unit(0), unit(1)]))
        assert store.count() == 0


class TestStates:
    def test_new_changed_unchanged(self, store, encoder):
        assert store.states(SOME) == ["new"] * 4
        fill(store, encoder, SOME)
        assert store.states(SOME) == ["unchanged"] * 4
        assert store.unchanged([SOME[0], dataclasses.replace(SOME[1], text="other")]) == [True, False]

    @pytest.mark.parametrize(
        "change",
        [{"text": "other"}, {"language": "de"}, {"language": None}, {"source": "x"}, {"metadata": {"year": 2002}}],
    )
    def test_each_part_of_the_content_counts(self, store, encoder, change):
        fill(store, encoder, SOME[:1])
        assert store.states([dataclasses.replace(SOME[0], **change)]) == ["changed"]

    def test_the_order_of_metadata_does_not(self, store, encoder):
        fill(store, encoder, [Document(id="a", text="t", metadata={"x": 1, "y": 2})])
        assert store.states([Document(id="a", text="t", metadata={"y": 2, "x": 1})]) == ["unchanged"]

    def test_repeats_within_a_call_count_as_if_stored_one_by_one(self, store, encoder):
        first, second = Document(id="a", text="1"), Document(id="a", text="2")
        assert store.states([first, first, second, first]) == ["new", "unchanged", "changed", "changed"]
        fill(store, encoder, [first])
        assert store.states([first, second, second, first]) == ["unchanged", "changed", "unchanged", "changed"]


class TestSearch:
    def test_scores_are_the_cosines_best_first(self, store, encoder):
        fill(store, encoder, SOME)
        query = encoder.embed_query("red house")
        hits = store.search(query)
        expected = {doc.id: float(encoder.embed_documents([doc.text])[0] @ query) for doc in SOME}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-6)
        assert [hit.score for hit in hits] == sorted(expected.values(), reverse=True) or [
            hit.id for hit in hits
        ] == sorted(expected, key=expected.get, reverse=True)
        assert (hits[0].text, hits[0].language, hits[0].source) == ("a red house", "en", "en.txt")
        assert hits[0].metadata == {"year": 2001}

    def test_the_length_of_a_query_does_not_matter(self, store, encoder):
        fill(store, encoder, SOME)
        query = encoder.embed_query("red house")
        assert [hit.score for hit in store.search(query * 7)] == pytest.approx(
            [hit.score for hit in store.search(query)], abs=1e-6
        )

    def test_limit_language_threshold_exact(self, store, encoder):
        fill(store, encoder, SOME)
        query = encoder.embed_query("red house")
        everything = store.search(query, mode="exact")
        assert len(everything) == 4
        assert store.search(query, limit=2) == everything[:2]
        assert {hit.id for hit in store.search(query, language="en")} == {"a", "c"}
        assert {hit.id for hit in store.search(query, language=["fr", "en"])} == {"a", "b", "c"}
        assert store.search(query, language="de") == []
        best = everything[0].score
        assert [hit.id for hit in store.search(query, score_threshold=best - 1e-4)] == [everything[0].id]

    def test_an_empty_collection_gives_no_hits(self, store):
        assert store.search(unit(0)) == []

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10", None])
    def test_limit_is_a_positive_whole_number(self, store, limit):
        with pytest.raises(InputError, match="limit"):
            store.search(unit(0), limit=limit)

    @pytest.mark.parametrize(
        ("vector", "error", "message"),
        [
            (unit(0)[None], InputError, r"shape \(32,\), not \(1, 32\)"),
            (unit(0, 33), ContractMismatchError, "holds 32-dimensional vectors; this one has 33"),
            (unit(0) * np.nan, InputError, "NaN"),
            (unit(0) * 0, InputError, "no direction"),
            (unit(0).astype(int), InputError, "floating-point"),
        ],
    )
    def test_wrong_query_vectors(self, store, vector, error, message):
        with pytest.raises(error, match=message):
            store.search(vector)

    @pytest.mark.parametrize("language", [[], "", [""], [5]])
    def test_wrong_languages(self, store, language):
        if language == "":
            language = [""]
        with pytest.raises(InputError, match=r"[Ll]anguage"):
            store.search(unit(0), language=language)

    def test_a_filter_is_a_filter(self, store):
        with pytest.raises(InputError, match=r"models.Filter, not dict.*Example"):
            store.search(unit(0), filter={"must": []})


class TestBatches:
    @pytest.fixture
    def documents(self):
        return [Document(text=f"text {number}", id=str(number)) for number in range(points.BATCH_POINTS + 1)]

    def batches(self, documents, *, dimensions=4, layout=Layout()):  # noqa: B008 - it is frozen
        rows = np.eye(dimensions, dtype=np.float32)[np.arange(len(documents)) % dimensions]
        return [pending.make() for pending in points.pending_batches(documents, rows, layout=layout, words_of=None)]

    def test_by_count(self, documents):
        assert [len(batch.ids) for batch in self.batches(documents)] == [points.BATCH_POINTS, 1]

    def test_by_bytes(self, documents, monkeypatch):
        (one,) = self.batches(documents[:1])
        monkeypatch.setattr(points, "BATCH_BYTES", 3 * one.bytes + 10)
        assert [len(batch.ids) for batch in self.batches(documents[:7])] == [3, 3, 1]

    def test_one_larger_than_a_batch_goes_alone(self, documents, monkeypatch):
        large = Document(text="x" * 5000, id="large")
        monkeypatch.setattr(points, "BATCH_BYTES", 3000)
        assert [len(batch.ids) for batch in self.batches([documents[0], large, documents[1]])] == [1, 1, 1]

    def test_each_batch_holds_the_rows_of_its_documents(self, documents, monkeypatch):
        monkeypatch.setattr(points, "BATCH_POINTS", 2)
        given = [*documents[:4], documents[0]]  # the last of one id wins
        rows = np.eye(8, dtype=np.float32)[:5]
        pending = points.pending_batches(given, rows, layout=Layout(levels=(4,)), words_of=None)
        batches = [each.make() for each in pending]
        assert [batch.ids for batch in batches] == [
            [given[1].point_id, given[2].point_id],
            [given[3].point_id, given[4].point_id],
        ]
        assert [np.argmax(batch.vectors[""], axis=1).tolist() for batch in batches] == [[1, 2], [3, 4]]
        assert batches[1].vectors["mrl4"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]

    def test_the_estimate_covers_json(self):
        rows = truncate(np.random.default_rng(0).standard_normal((1, 5120)), 5120)
        document = Document(text="日本語 \n" * 1000, metadata={"a": [1.5] * 100})
        (pending,) = points.pending_batches([document], rows, layout=Layout(levels=(128,)), words_of=None)
        batch = pending.make()
        vectors = {name: matrix.tolist() for name, matrix in batch.vectors.items()}
        sent = json.dumps({"vector": vectors, "payload": batch.payloads}, ensure_ascii=False).encode()
        assert len(sent) * 0.5 < batch.bytes < len(sent) * 2


def test_ids_that_a_document_may_have():
    from f2rag.store.filters import stored_ids

    assert stored_ids("a") == [point_id("a")]
    assert stored_ids("7") == [point_id("7"), 7]
    assert stored_ids(str(2**64)) == [point_id(str(2**64))]
    assert stored_ids("٧") == [point_id("٧")]
    key = "6AF613B6569C5C229C372ED93F31D3AF"
    assert stored_ids(key) == [point_id(key), "6af613b6-569c-5c22-9c37-2ed93f31d3af"]
