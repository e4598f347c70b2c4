"""The engine: what it embeds, what it skips, what it reports; with real stores and a fake encoder."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from qdrant_client import models

from f2rag.engine import SearchEngine
from f2rag.errors import ContractMismatchError, DocumentError, InputError, StoreError
from f2rag.prompts import DEFAULT_INSTRUCTION
from f2rag.store import Layout, Lexical, Prefix, QdrantStore
from f2rag.testing import FakeEncoder
from f2rag.types import Document, IndexReport
from f2rag.vectors import truncate

DOCUMENTS = [Document(id=str(n), text=f"text number {n}", language=["en", "fr"][n % 2]) for n in range(10)]


@pytest.fixture
def encoder():
    return FakeEncoder(dimensions=32)


@pytest.fixture(params=["memory", "folder"])
def engine(request, tmp_path, encoder):
    with SearchEngine.open(encoder, ":memory:" if request.param == "memory" else tmp_path) as engine:
        yield engine


def counts(report):
    return report.added, report.updated, report.unchanged


class TestIndex:
    def test_stores_what_the_encoder_makes_of_documents(self, engine, encoder):
        report = engine.index(DOCUMENTS)
        assert isinstance(report, IndexReport)
        assert counts(report) == (10, 0, 0)
        assert report.total == 10
        assert report.seconds > 0
        as_document = encoder.embed_documents([DOCUMENTS[3].text])[0]
        (hit,) = engine.store.search(as_document, limit=1)
        assert (hit.id, hit.score) == ("3", pytest.approx(1))

    def test_what_is_stored_is_not_embedded_again(self, engine, encoder):
        engine.index(DOCUMENTS)
        encoder.document_calls.clear()
        assert counts(engine.index(DOCUMENTS)) == (0, 0, 10)
        assert encoder.document_calls == []

    def test_only_what_changed_is_embedded(self, engine, encoder):
        engine.index(DOCUMENTS)
        encoder.document_calls.clear()
        changed = [
            dataclasses.replace(DOCUMENTS[0], text="other"),
            dataclasses.replace(DOCUMENTS[1], metadata={"new": 1}),
            Document(id="new", text="new"),
        ]
        assert counts(engine.index([*changed, *DOCUMENTS[2:]])) == (1, 2, 8)
        assert encoder.document_calls == [3]
        assert engine.store.get(["0"])[0].text == "other"
        assert engine.store.get(["1"])[0].metadata == {"new": 1}
        assert engine.store.count() == 11

    @pytest.mark.parametrize("window", [1, 3, 10, 100])
    def test_windows(self, engine, encoder, window):
        handled = []
        report = engine.index(iter(DOCUMENTS), window=window, on_progress=handled.append)
        assert counts(report) == (10, 0, 0)
        assert handled == [*range(window, 10, window), 10]
        assert encoder.document_calls == [min(window, 10 - start) for start in range(0, 10, window)]

    @pytest.mark.parametrize("window", [1, 2, 100])
    def test_repeats_are_counted_as_if_they_came_one_by_one(self, engine, encoder, window):
        a1, a2, b = Document(id="a", text="1"), Document(id="a", text="2"), Document(id="b", text="b")
        assert counts(engine.index([a1, b, a1, a2, a2, b], window=window)) == (2, 1, 3)
        assert {document.id: document.text for document in engine.store.documents()} == {"a": "2", "b": "b"}
        if window == 100:
            assert encoder.document_calls == [2]  # of the versions of "a" only the last

    def test_the_last_version_is_stored_also_when_it_was_stored_before(self, engine):
        first, second = Document(id="a", text="1"), Document(id="a", text="2")
        engine.index([first])
        assert counts(engine.index([second, first])) == (0, 2, 0)
        assert engine.store.get(["a"])[0].text == "1"

    def test_nothing(self, engine, encoder):
        assert counts(engine.index([])) == (0, 0, 0)
        assert encoder.document_calls == []

    def test_a_stream_is_read_window_by_window(self, engine):
        read = []

        def stream():
            for document in DOCUMENTS:
                read.append(document.id)
                yield document

        seen = []
        engine.index(stream(), window=2, on_progress=lambda handled: seen.append((handled, len(read))))
        # One window is embedded while the one before is stored, and never a third.
        assert seen == [(2, 4), (4, 6), (6, 8), (8, 10), (10, 10)]

    def test_a_repetition_in_the_next_window_is_neither_new_nor_embedded_again(self, engine, encoder, monkeypatch):
        embedded = []
        embed = encoder.embed_documents

        def counting(texts, **options):
            embedded.extend(texts)
            return embed(texts, **options)

        monkeypatch.setattr(encoder, "embed_documents", counting)
        store, gate = engine.store.upsert, threading.Event()

        def slow(*arguments):
            gate.wait(10)
            return store(*arguments)

        monkeypatch.setattr(engine.store, "upsert", slow)
        states, asked = engine.store.states, []

        def opening(documents):
            asked.append(len(documents))
            found = states(documents)
            if len(asked) == 2:  # the second window was asked for while the first was on its way
                gate.set()
            return found

        monkeypatch.setattr(engine.store, "states", opening)
        report = engine.index([*DOCUMENTS[:2], *DOCUMENTS[:2], DOCUMENTS[2]], window=2)
        assert (report.added, report.unchanged) == (3, 2)
        assert embedded == [document.text for document in DOCUMENTS[:3]]

    def test_truncated_texts_are_counted_by_call(self, engine, encoder, monkeypatch):
        embed = encoder.embed_documents

        def truncating(texts, **options):
            encoder.truncated_count += len(texts)
            return embed(texts, **options)

        monkeypatch.setattr(encoder, "embed_documents", truncating)
        assert engine.index(DOCUMENTS[:4]).truncated == 4
        assert engine.index(DOCUMENTS).truncated == 6

    def test_a_failing_run_keeps_what_is_done_and_the_next_completes_it(self, engine, encoder, monkeypatch):
        embed = encoder.embed_documents

        def failing(texts, **options):
            if DOCUMENTS[7].text in texts:
                raise RuntimeError("the device is gone")
            return embed(texts, **options)

        monkeypatch.setattr(encoder, "embed_documents", failing)
        with pytest.raises(RuntimeError, match="the device is gone"):
            engine.index(DOCUMENTS, window=3)
        assert engine.store.count() == 6
        monkeypatch.undo()
        encoder.document_calls.clear()
        assert counts(engine.index(DOCUMENTS, window=3)) == (4, 0, 6)
        assert encoder.document_calls == [3, 1]

    def test_an_encoder_that_returns_nonsense_stores_nothing(self, engine, encoder, monkeypatch):
        monkeypatch.setattr(
            encoder, "embed_documents", lambda texts, **_: np.full((len(texts), 32), np.nan, np.float32)
        )
        with pytest.raises(InputError, match="row 0 has length nan"):
            engine.index(DOCUMENTS)
        assert engine.store.count() == 0

    def test_bad_input(self, engine, encoder):
        with pytest.raises(InputError, match="window"):
            engine.index(DOCUMENTS, window=0)
        with pytest.raises(DocumentError, match="metadata 'x'"):
            engine.index([*DOCUMENTS, Document(text="t", metadata={"x": object()})])
        assert engine.store.count() == 0
        assert encoder.document_calls == []

    async def test_async(self, engine):
        handled = []
        report = await engine.aindex(DOCUMENTS, window=5, on_progress=handled.append)
        assert counts(report) == (10, 0, 0)
        assert handled == [5, 10]


class TestSearch:
    def test_the_result_carries_its_evidence(self, engine, encoder):
        engine.index(DOCUMENTS)
        result = engine.search("number 3", limit=2)
        assert (result.query, result.instruction) == ("number 3", DEFAULT_INSTRUCTION)
        assert (result.model, result.dimensions) == ("fake", 32)
        assert len(result.hits) == 2
        assert result.hits[0].id == "3"
        assert result.hits[0].score == pytest.approx(
            float(encoder.embed_query("number 3") @ encoder.embed_documents([DOCUMENTS[3].text])[0]), abs=1e-6
        )
        assert result.timings.encode_ms > 0
        assert result.timings.search_ms > 0
        assert result.timings.total_ms == result.timings.encode_ms + result.timings.search_ms

    def test_language_and_filter(self, engine):
        engine.index(DOCUMENTS)
        assert {hit.language for hit in engine.search("text", language="fr").hits} == {"fr"}
        assert len(engine.search("text", language=["fr", "en"], limit=50).hits) == 10
        wanted = models.Filter(must=[models.HasIdCondition(has_id=["1", "2"])])
        assert {hit.id for hit in engine.search("text", filter=wanted).hits} == {"1", "2"}

    @pytest.mark.parametrize("instruction", ["Find the sentence", ""])
    def test_another_instruction(self, engine, encoder, instruction):
        engine.index(DOCUMENTS)
        result = engine.search("number 3", instruction=instruction, limit=1)
        assert result.instruction == instruction
        expected = encoder.embed_query("number 3", instruction=instruction)
        assert list(result.hits) == engine.store.search(expected, limit=1)
        assert result.hits[0].score != engine.search("number 3", limit=1).hits[0].score

    async def test_async(self, engine):
        engine.index(DOCUMENTS)
        first, second = await asyncio.gather(
            engine.asearch("number 3", limit=1), engine.asearch("number 4", language="en")
        )
        assert [hit.id for hit in first.hits] == ["3"]
        assert [hit.id for hit in second.hits] == [hit.id for hit in engine.search("number 4", language="en").hits]


class TestSimilar:
    def test_it_equals_numpy_and_leaves_itself_out(self, engine, encoder):
        engine.index(DOCUMENTS)
        result = engine.similar("3", limit=20)
        vectors = encoder.embed_documents([document.text for document in DOCUMENTS])
        cosines = {document.id: float(row @ vectors[3]) for document, row in zip(DOCUMENTS, vectors, strict=True)}
        cosines.pop("3")
        assert {hit.id: hit.score for hit in result.hits} == pytest.approx(cosines, abs=1e-6)
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        assert len(engine.similar("3", limit=4).hits) == 4

    def test_the_result_carries_its_evidence(self, engine, encoder):
        engine.index(DOCUMENTS)
        encoder.close()  # nothing is embedded
        result = engine.similar("3")
        assert (result.query, result.instruction) == (DOCUMENTS[3].text, "")
        assert (result.model, result.dimensions, result.mode) == ("fake", 32, "exact")
        assert result.timings.encode_ms == 0
        assert result.timings.search_ms > 0

    def test_equal_texts_are_found_before_all_others(self, engine):
        twins = [Document(id=f"twin {n}", text=DOCUMENTS[3].text) for n in range(3)]
        engine.index([*DOCUMENTS, *twins])
        hits = engine.similar("3", limit=2).hits
        assert {hit.id for hit in hits} < {each.id for each in twins}
        assert [hit.score for hit in hits] == pytest.approx([1, 1])

    def test_language_and_filter(self, engine, encoder):
        engine.index(DOCUMENTS)
        assert {hit.id for hit in engine.similar("3", language="fr").hits} == {"1", "5", "7", "9"}
        wanted = models.Filter(should=[models.HasIdCondition(has_id=["1"]), models.HasIdCondition(has_id=["2", "3"])])
        assert {hit.id for hit in engine.similar("3", filter=wanted).hits} == {"1", "2"}
        unwanted = models.Filter(must_not=[models.HasIdCondition(has_id=["1", "2"])])
        assert {hit.id for hit in engine.similar("3", filter=unwanted).hits} == set("0456789")

    def test_a_diverse_search_does_not_keep_away_from_itself(self, engine):
        others = [Document(id="near", text="text number 3 again"), Document(id="far", text="something else altogether")]
        engine.index([DOCUMENTS[3], *others])
        result = engine.similar("3", limit=2, mode="diverse")
        assert [hit.id for hit in result.hits] == ["near", "far"]
        assert result.mode == "diverse"

    def test_words_and_levels(self, tmp_path):
        encoder = FakeEncoder(dimensions=32)
        layout = Layout(levels=(8, 16), lexical=Lexical())
        with SearchEngine.open(encoder, tmp_path, layout=layout) as engine:
            engine.index(DOCUMENTS)
            vectors = truncate(encoder.embed_documents([document.text for document in DOCUMENTS]), 8)
            found = engine.similar("3", limit=20, mode=Prefix(8))
            assert (found.mode, found.dimensions) == ("prefix", 8)
            expected = {document.id: float(row @ vectors[3]) for document, row in zip(DOCUMENTS, vectors, strict=True)}
            expected.pop("3")
            assert {hit.id: hit.score for hit in found.hits} == pytest.approx(expected, abs=1e-3)
            hybrid = engine.similar("3", limit=20, mode="hybrid")
            assert (hybrid.mode, hybrid.dimensions) == ("hybrid", 32)
            assert {hit.id for hit in hybrid.hits} == expected.keys()
            # Each text contains the word "number", so that each has a rank, from 0, in both halves: by vectors the
            # known one, by words any. Scores are 1 / (60 + rank) in each half, added in float32.
            vectors = encoder.embed_documents([document.text for document in DOCUMENTS])
            nearest = sorted(expected, key=lambda document_id: -float(vectors[int(document_id)] @ vectors[3]))
            by_words = [hit.score - 1 / (60 + nearest.index(hit.id)) for hit in hybrid.hits]
            assert sorted(by_words) == pytest.approx([1 / (60 + rank) for rank in reversed(range(9))], abs=1e-6)
            assert engine.similar("3", mode="funnel").dimensions == 32

    @pytest.mark.parametrize("absent", ["10", "", "text number 3"])
    def test_an_id_that_is_not_stored(self, engine, absent):
        engine.index(DOCUMENTS)
        with pytest.raises(InputError, match=f"no document {absent!r}"):
            engine.similar(absent)

    def test_bad_input(self, engine):
        engine.index(DOCUMENTS)
        with pytest.raises(InputError, match="list of strings"):
            engine.similar(3)
        with pytest.raises(InputError, match="limit"):
            engine.similar("3", limit=0)
        with pytest.raises(InputError, match="A filter is a"):
            engine.similar("3", filter={"must": []})
        with pytest.raises(InputError, match="mode"):
            engine.similar("3", mode="nearest")

    async def test_async(self, engine):
        engine.index(DOCUMENTS)
        first, second = await asyncio.gather(engine.asimilar("3", limit=2), engine.asimilar("4", language="en"))
        assert [hit.id for hit in first.hits] == [hit.id for hit in engine.similar("3", limit=2).hits]
        assert [hit.id for hit in second.hits] == [hit.id for hit in engine.similar("4", language="en").hits]


class TestOpening:
    def test_dimensions_of_the_collection(self, tmp_path, encoder):
        with SearchEngine.open(encoder, tmp_path, dimensions=16) as engine:
            engine.index(DOCUMENTS)
            result = engine.search("number 3")
        assert result.dimensions == 16
        with pytest.raises(ContractMismatchError, match=r"stored 16, given 32.*dimensions=16"):
            SearchEngine.open(encoder, tmp_path)
        with SearchEngine.open(encoder, tmp_path, dimensions=16) as engine:
            assert counts(engine.index(DOCUMENTS)) == (0, 0, 10)

    def test_an_engine_on_a_store_uses_the_stores_dimensions(self, tmp_path):
        encoder = FakeEncoder(dimensions=64)
        with QdrantStore.open(tmp_path, contract=encoder.contract(dimensions=8)) as store:
            engine = SearchEngine(encoder, store)
            engine.index(DOCUMENTS)
            assert engine.search("number 3", limit=1).hits[0].id == "3"

    @pytest.mark.parametrize(
        "other",
        [
            FakeEncoder(dimensions=32, model_name="another"),
            FakeEncoder(dimensions=16, native_dimensions=128),
            FakeEncoder(dimensions=64, native_dimensions=64),
        ],
    )
    def test_another_models_store_is_refused(self, tmp_path, other):
        filler = FakeEncoder(dimensions=96, native_dimensions=96)
        with (
            QdrantStore.open(tmp_path, contract=filler.contract()) as store,
            pytest.raises(ContractMismatchError, match="cannot be compared"),
        ):
            SearchEngine(other, store)

    def test_another_model_of_the_same_width_is_refused(self, tmp_path, encoder):
        SearchEngine.open(encoder, tmp_path).close()
        with pytest.raises(ContractMismatchError, match="model: stored 'fake', given 'another'"):
            SearchEngine.open(FakeEncoder(dimensions=32, model_name="another"), tmp_path)

    def test_another_query_instruction_is_not(self, tmp_path, encoder):
        with SearchEngine.open(encoder, tmp_path) as engine:
            engine.index(DOCUMENTS)
        with SearchEngine.open(FakeEncoder(dimensions=32, instruction="Other"), tmp_path) as engine:
            assert counts(engine.index(DOCUMENTS)) == (0, 0, 10)

    def test_two_collections_in_one_folder(self, tmp_path, encoder):
        with (
            SearchEngine.open(encoder, tmp_path, collection="a") as a,
            SearchEngine.open(encoder, tmp_path, collection="b", dimensions=8) as b,
        ):
            a.index(DOCUMENTS)
            assert (a.store.count(), b.store.count()) == (10, 0)

    def test_closing_leaves_the_encoder(self, engine, encoder):
        engine.close()
        engine.close()
        with pytest.raises(StoreError, match="is closed"):
            engine.search("q")
        with pytest.raises(StoreError, match="is closed"):
            engine.index(DOCUMENTS)
        assert encoder.embed_query("still open").shape == (32,)

    def test_create_false(self, tmp_path, encoder):
        with pytest.raises(LookupError, match="no collection 'documents'"):
            SearchEngine.open(encoder, tmp_path / "absent", create=False)
