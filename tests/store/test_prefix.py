"""Searching a stored level alone, and what a collection says of its modes, in every home."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models

from f2rag.engine import SearchEngine
from f2rag.errors import InputError, StoreError
from f2rag.evaluation import Query, evaluate
from f2rag.store import Exact, Funnel, Hybrid, Layout, Lexical, Prefix
from f2rag.testing import FakeEncoder
from f2rag.types import Document
from f2rag.vectors import truncate

LEVELS = Layout(levels=(8, 16), lexical=Lexical(), fields={"year": "integer"})
COUNT = 200


def numbered():
    return [
        Document(
            id=str(number),
            text=f"text {number}",
            language=["en", "fr", "zh"][number % 3],
            source=f"file{number // 4}",
            metadata={"year": 2000 + number % 10},
        )
        for number in range(COUNT)
    ]


@pytest.fixture
def vectors():
    """Rows whose prefixes say much less than the whole of them."""
    return truncate(np.random.default_rng(7).standard_normal((COUNT, 32)).astype(np.float32), 32)


@pytest.fixture
def leveled(place, encoder, vectors):
    with place.open(encoder.contract(), layout=LEVELS) as store:
        store.upsert(numbered(), vectors)
        yield store


def ids(hits):
    return [hit.id for hit in hits]


def best(vectors, query, level, *, limit=10, among=range(COUNT)):
    """The nearest by the first ``level`` values, with their cosines."""
    scores = truncate(vectors, level) @ truncate(query, level)
    order = [row for row in np.argsort(-scores, kind="stable") if row in among][:limit]
    return [str(row) for row in order], scores[order]


class TestSearching:
    @pytest.mark.parametrize("exact", [False, True], ids=["walk", "exact"])
    def test_it_finds_what_numpy_finds_by_the_prefix_alone(self, leveled, vectors, exact):
        differing = 0
        for row in range(0, COUNT, 10):
            full = ids(leveled.search(vectors[row], mode="exact"))
            for level in LEVELS.levels:
                wanted, scores = best(vectors, vectors[row], level)
                hits = leveled.search(vectors[row], mode=Prefix(level, exact=exact))
                assert ids(hits) == wanted
                assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-4)
                differing += wanted != full
        assert differing > 30  # else this would not tell a prefix from the full width

    def test_by_name_it_is_the_longest_level(self, leveled, vectors):
        assert ids(leveled.search(vectors[0], mode="prefix")) == best(vectors, vectors[0], 16)[0]
        assert leveled.plan("prefix") == ("prefix", "as asked")
        assert leveled.plan(Prefix(8)) == ("prefix", "as asked")

    def test_filters_thresholds_and_groups_hold(self, leveled, vectors):
        query = vectors[3]
        chinese = leveled.search(query, mode=Prefix(8), language="zh", limit=5)
        assert ids(chinese) == best(vectors, query, 8, limit=5, among=range(2, COUNT, 3))[0]
        rare = models.Filter(must=[models.FieldCondition(key="metadata.year", match=models.MatchValue(value=2005))])
        found = leveled.search(query, mode=Prefix(8), filter=rare, limit=30)
        assert ids(found) == best(vectors, query, 8, limit=20, among=range(5, COUNT, 10))[0]
        wanted, scores = best(vectors, query, 8, limit=COUNT)
        near = leveled.search(query, mode=Prefix(8), score_threshold=0.3, limit=COUNT)
        assert ids(near) == [each for each, score in zip(wanted, scores, strict=True) if score >= 0.3]
        groups = leveled.search_groups(query, mode=Prefix(8), limit=3, size=1)
        assert [group.value for group in groups] == list(dict.fromkeys(f"file{int(each) // 4}" for each in wanted))[:3]

    def test_it_is_a_half_of_a_hybrid_search(self, leveled, vectors):
        mode = Hybrid(dense=Prefix(8), weights=(1.0, 0.0))
        hits = leveled.search(vectors[5], text="nothing of this is stored", mode=mode)
        assert ids(hits) == best(vectors, vectors[5], 8)[0]
        joined = leveled.search(vectors[5], text="77", mode=Hybrid(dense=Prefix(8), weights=(0.01, 0.99)))
        assert joined[0].id == "77"

    def test_a_level_that_is_not_stored(self, leveled, place, encoder, vectors):
        with pytest.raises(InputError, match=r"level 12 is not stored here; this collection has \[8, 16\]"):
            leveled.search(vectors[0], mode=Prefix(12))
        with pytest.raises(InputError, match="level 12 is not stored"):
            leveled.search(vectors[0], text="x", mode=Hybrid(dense=Prefix(12)))
        leveled.close()
        with place.open(encoder.contract(), collection="plain", layout=Layout()) as plain:
            with pytest.raises(InputError, match=r"'prefix' needs stored levels"):
                plain.search(vectors[0], mode="prefix")
            with pytest.raises(InputError, match=r"'prefix' needs stored levels"):
                plain.memory_per_million("prefix")

    def test_compressed_levels(self, place, encoder, vectors):
        with place.open(encoder.contract(), layout=Layout(levels=(16,), quantization="int8")) as store:
            store.upsert(numbered(), vectors)
            for query in vectors[::20]:
                for exact in (False, True):
                    hits = store.search(query, mode=Prefix(exact=exact))
                    assert ids(hits) == best(vectors, query, 16)[0]


class TestWhatACollectionSays:
    def test_its_modes_all_work(self, leveled, vectors):
        assert leveled.modes() == ["exact", "funnel", "prefix", "hybrid", "diverse"]
        for mode in leveled.modes():
            assert len(leveled.search(vectors[0], text="text 0", mode=mode)) == 10

    @pytest.mark.parametrize("layout", [Layout(), Layout(quantization="int8")], ids=["plain", "int8"])
    def test_modes_over_the_full_vectors(self, place, encoder, vectors, layout):
        with place.open(encoder.contract(), layout=layout) as store:
            store.upsert(numbered(), vectors)
            walks = ["hnsw", "quantized"] if layout.quantization else ["hnsw"]
            if place.kind in ("memory", "client-local"):
                walks = []
            assert store.modes() == ["exact", *walks, "diverse"]
            for mode in store.modes():
                assert ids(store.search(vectors[0], limit=1, mode=mode)) == ["0"]

    def test_the_bytes_of_a_million_vectors(self, leveled, place):
        full = 4 if place.kind in ("memory", "client-local") else 2
        assert leveled.memory_per_million("exact") == 32 * full * 10**6
        assert leveled.memory_per_million() == leveled.memory_per_million(Exact())  # auto: there are few documents
        assert leveled.memory_per_million("hybrid") == leveled.memory_per_million("auto")
        assert leveled.memory_per_million("funnel") == 8 * 4 * 10**6
        assert leveled.memory_per_million(Funnel(stages=((16, 50),))) == 16 * 4 * 10**6
        assert leveled.memory_per_million("prefix") == 16 * 4 * 10**6
        assert leveled.memory_per_million(Prefix(8)) == 8 * 4 * 10**6
        with pytest.raises(InputError, match="funnel"):
            leveled.memory_per_million("hnsw")

    def test_the_size_that_decides(self, leveled):
        for mode in ("auto", "exact", "funnel", "hybrid", "diverse"):
            assert leveled.compared_dimensions(mode) == 32
        assert leveled.compared_dimensions("prefix") == 16
        assert leveled.compared_dimensions(Prefix(8)) == 8
        assert leveled.compared_dimensions(Hybrid(dense=Prefix(8))) == 8

    def test_nothing_when_it_is_closed(self, leveled):
        assert not leveled.closed
        leveled.close()
        assert leveled.closed
        for use in (leveled.modes, leveled.memory_per_million):
            with pytest.raises(StoreError, match="is closed"):
                use()


class TestEngine:
    @pytest.fixture
    def engine(self, place):
        encoder = FakeEncoder(dimensions=32)
        with SearchEngine.open(encoder, place.location, layout=LEVELS) as engine:
            engine.index(numbered())
            yield engine

    def test_a_result_says_the_level(self, engine):
        assert engine.search("text 1", mode="prefix").dimensions == 16
        result = engine.search("text 1", mode=Prefix(8))
        assert (result.dimensions, result.mode, result.hits[0].id) == (8, "prefix", "1")
        assert engine.search("text 1", mode="funnel").dimensions == 32

    def test_an_evaluation_names_the_level_and_agrees_with_numpy(self, engine):
        pytest.importorskip("ir_measures")
        queries = [Query(id=f"q{number}", text=f"text {number}", language="en") for number in range(5)]
        judgements = {f"q{number}": {str(number): 1} for number in range(5)}
        found = evaluate(engine, queries, judgements, modes=["exact", "prefix", Prefix(8)], dimensions=[16, 8])
        assert [(run.mode, run.dimensions) for run in found.runs] == [
            *[("exact", 32), ("prefix", 16), ("prefix(level=8)", 8)],
            *[("numpy", 16), ("numpy", 8)],
        ]
        assert found.runs[1].overall == found.runs[3].overall
        assert found.runs[2].overall == found.runs[4].overall
