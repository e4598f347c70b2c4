"""Searching, grouping, counting and completing a collection through the store, in every home."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from qdrant_client import models

from f2rag.errors import ContractMismatchError, InputError
from f2rag.store import Diverse, Funnel, Hybrid, Layout, Lexical, Quantized
from f2rag.testing import FakeEncoder
from f2rag.types import Document
from f2rag.vectors import truncate

RICH = Layout(levels=(8, 16), lexical=Lexical(), fields={"year": "integer", "kind": "keyword", "ok": "bool"})

# One text about rights in each language; the query has one word that only its own text has.
TEXTS = {
    "zh": ("人人有权享受教育", "享受"),
    "ja": ("すべて人は教育を受ける権利を有する", "権利"),
    "th": ("ทุกคนมีสิทธิในการศึกษา", "การศึกษา"),
    "ar": ("لكل شخص الحق في التعليم والصحة", "الصحة"),
    "ko": ("모든 사람은 교육을 받을 권리를 가진다", "교육"),
    "hi": ("प्रत्येक व्यक्ति को शिक्षा का अधिकार है", "शिक्षा"),
    "vi": ("Mọi người đều có quyền được học hành", "quyền"),
    "en": ("Everyone has the right to rest since 1948", "1948"),
}


def clustered(count, dimensions, *, seed=7):
    """Vectors in clusters with a decaying spectrum, as Matryoshka embeddings have."""
    random = np.random.default_rng(seed)
    scale = 1 / np.sqrt(1 + np.arange(dimensions))
    centres = random.standard_normal((max(2, count // 20), dimensions)) * scale
    rows = (
        centres[random.integers(len(centres), size=count)] + 0.5 * random.standard_normal((count, dimensions)) * scale
    )
    return truncate(rows.astype(np.float32), dimensions)


def numbered(count):
    return [
        Document(
            id=str(number),
            text=f"text {number}",
            language=["en", "fr", "zh"][number % 3],
            source=f"file{number // 4}",
            metadata={"year": 2000 + number % 10, "kind": ["a", "b"][number % 2], "ok": number % 2 == 0},
        )
        for number in range(count)
    ]


@pytest.fixture
def vectors():
    return clustered(200, 32)


@pytest.fixture
def rich(place, encoder, vectors):
    with place.open(encoder.contract(), layout=RICH) as store:
        store.upsert(numbered(200), vectors)
        yield store


def ids(hits):
    return [hit.id for hit in hits]


def best(vectors, query, count):
    return [str(row) for row in np.argsort(-(vectors @ query), kind="stable")[:count]]


class TestModes:
    def test_auto_and_exact_find_what_numpy_finds(self, rich, vectors):
        for row in (0, 50, 199):
            wanted = best(vectors, vectors[row], 10)
            for mode in ("auto", "exact"):
                assert set(ids(rich.search(vectors[row], mode=mode))) == set(wanted)
        assert rich.plan() == ("exact", rich.plan()[1])
        assert rich.plan("funnel") == ("funnel", "as asked")

    def test_a_funnel_is_its_two_stages(self, rich, vectors):
        query = vectors[3]
        short = truncate(vectors, 8) @ truncate(query, 8)
        candidates = np.argsort(-short)[:30]
        wanted = [str(row) for row in candidates[np.argsort(-(vectors[candidates] @ query))[:10]]]
        found = rich.search(query, mode=Funnel(stages=((8, 30),)))
        assert set(ids(found)) == set(wanted)
        assert [hit.score for hit in found] == pytest.approx(
            [float(vectors[int(hit.id)] @ query) for hit in found], abs=1e-3
        )

    def test_a_funnel_of_every_level_has_the_recall_of_an_exact_search(self, rich, vectors):
        found = sum(
            len(set(ids(rich.search(query, mode="funnel"))) & set(best(vectors, query, 10))) for query in vectors[::10]
        )
        assert found / (10 * len(vectors[::10])) >= 0.98

    def test_filters_hold_in_every_stage(self, rich, vectors):
        wanted = [row for row in best(vectors, vectors[0], 200) if int(row) % 3 == 2][:5]
        rare = models.Filter(must=[models.FieldCondition(key="metadata.year", match=models.MatchValue(value=2005))])
        for mode in ("exact", Funnel(stages=((8, 10), (16, 5)))):
            hits = rich.search(vectors[0], language="zh", limit=5, mode=mode)
            assert {hit.language for hit in hits} == {"zh"}
            assert len(hits) == 5
            assert {hit.metadata["year"] for hit in rich.search(vectors[0], filter=rare, limit=20, mode=mode)} == {2005}
        assert ids(rich.search(vectors[0], language="zh", limit=5, mode="exact")) == wanted

    def test_a_threshold_holds_after_the_last_stage(self, rich, vectors):
        scores = [hit.score for hit in rich.search(vectors[0], mode="funnel", score_threshold=0.8, limit=100)]
        assert scores
        assert min(scores) >= 0.8

    def test_modes_that_the_layout_lacks_are_refused_before_anything_is_asked(self, rich, vectors):
        for mode in ("hnsw", "quantized"):
            with pytest.raises(InputError, match="funnel"):
                rich.search(vectors[0], mode=mode)
        with pytest.raises(InputError, match="mode='quick' is unknown"):
            rich.search(vectors[0], mode="quick")

    def test_diverse_leaves_out_what_is_nearly_the_same(self, place, encoder):
        rows = truncate(np.array([[1, 0, 0.2], [1, 0.001, 0.2], [1, 0, -0.4]], dtype=np.float32), 3)
        padded = np.zeros((3, 32), dtype=np.float32)
        padded[:, :3] = rows
        with place.open(encoder.contract()) as store:
            store.upsert([Document(id=name, text=name) for name in ("a", "twin", "other")], padded)
            query = np.eye(32, dtype=np.float32)[0]
            assert set(ids(store.search(query, limit=2, mode="exact"))) == {"a", "twin"}
            assert "other" in ids(store.search(query, limit=2, mode=Diverse(diversity=0.9)))

    def test_compressed_vectors_are_rescored(self, place, encoder, vectors):
        with place.open(encoder.contract(), layout=Layout(quantization="int8")) as store:
            store.upsert(numbered(200), vectors)
            for query in vectors[::20]:
                assert set(ids(store.search(query, mode=Quantized()))) == set(best(vectors, query, 10))


class TestHybrid:
    @pytest.fixture
    def multilingual(self, place):
        encoder = FakeEncoder(dimensions=32)
        with place.open(encoder.contract(), layout=Layout(lexical=Lexical())) as store:
            documents = [Document(id=name, text=text, language=name) for name, (text, _) in TEXTS.items()]
            # The vectors say nothing, so that only the words can decide.
            store.upsert(documents, np.repeat(np.eye(32, dtype=np.float32)[:1], len(documents), axis=0))
            yield store

    @pytest.mark.parametrize("language", TEXTS)
    def test_a_word_is_found_in_every_script(self, multilingual, language):
        query = np.eye(32, dtype=np.float32)[0]
        first = multilingual.search(query, text=TEXTS[language][1], mode="hybrid")[0]
        assert first.id == language
        assert 0 < first.score < 0.05  # a sum of reciprocal ranks

    def test_it_needs_a_text_and_takes_no_threshold(self, multilingual):
        query = np.eye(32, dtype=np.float32)[0]
        with pytest.raises(InputError, match="text="):
            multilingual.search(query, mode="hybrid")
        with pytest.raises(InputError, match="score_threshold"):
            multilingual.search(query, text="x", mode=Hybrid(), score_threshold=0.1)
        assert len(multilingual.search(query, text="...", mode="hybrid")) == len(TEXTS)

    def test_weights_decide(self, multilingual):
        query = np.eye(32, dtype=np.float32)[0]
        found = multilingual.search(query, text="1948", mode=Hybrid(weights=(0.0, 1.0)))
        assert found[0].id == "en"


class TestGroupsAndFacets:
    def test_groups_hold_the_best_of_each_source(self, rich, vectors):
        query = vectors[17]
        groups = rich.search_groups(query, limit=5, size=2, mode="exact")
        order = best(vectors, query, 200)
        sources = list(dict.fromkeys(f"file{int(row) // 4}" for row in order))[:5]
        assert [group.value for group in groups] == sources
        for group in groups:
            assert ids(group.hits) == [row for row in order if f"file{int(row) // 4}" == group.value][:2]

    def test_groups_of_whole_numbers_with_a_filter(self, rich, vectors):
        groups = rich.search_groups(vectors[0], by="year", limit=3, size=1, language="en", mode="funnel")
        assert len(groups) == 3
        assert all(group.hits[0].metadata["year"] == int(group.value) for group in groups)
        assert {group.hits[0].language for group in groups} == {"en"}

    @pytest.mark.parametrize("options", [{"by": ""}, {"by": "metadata.year"}, {"size": 0}, {"limit": 0}], ids=str)
    def test_impossible_groups(self, rich, vectors, options):
        with pytest.raises(InputError):
            rich.search_groups(vectors[0], **options)

    def test_facets_count_under_a_filter(self, rich):
        assert rich.languages() == {"en": 67, "fr": 67, "zh": 66}
        assert rich.facet("kind", language="en") == {"a": 34, "b": 33}
        assert rich.facet("language", limit=1) == {"en": 67}
        with pytest.raises(InputError, match=r"'colour' has no index.*Layout\(fields"):
            rich.facet("colour")

    def test_documents_and_deletion_by_filter(self, rich):
        fives = models.Filter(must=[models.FieldCondition(key="metadata.year", range=models.Range(gte=2005))])
        assert len(list(rich.documents(filter=fives, language="en"))) == rich.count(filter=fives, language="en") == 34
        assert rich.delete_where(filter=fives) == 100
        assert (rich.count(), rich.delete_where(filter=fives)) == (100, 0)
        with pytest.raises(InputError, match="needs a language or a filter"):
            rich.delete_where()

    def test_vectors_page_by_page(self, rich, vectors):
        pages = list(rich.iter_vectors(batch=70))
        assert [rows.shape[1] for _, rows in pages] == [32] * len(pages)
        found = {key: row for keys, rows in pages for key, row in zip(keys, rows, strict=True)}
        assert len(found) == 200
        assert np.allclose([found[str(number)] for number in range(200)], vectors, atol=1e-3)


class TestCompleteness:
    def test_what_lacks_a_level_or_words_is_found_and_completed(self, rich, vectors):
        assert rich.missing() == {}
        # As a tool writes that knows nothing of levels: the full vector alone.
        batch = rich._backend
        from f2rag.store.homes import Batch
        from f2rag.store.payloads import checked_content, make_payload

        stranger = Document(id="stranger", text="word 4711")
        batch.upsert(
            Batch(
                ids=[stranger.point_id],
                vectors={"": vectors[:1]},
                sparse={},
                payloads=[make_payload(stranger, checked_content(stranger))],
                bytes=1,
            )
        )
        assert rich.missing() == {"mrl8": 1, "mrl16": 1, "bm25": 1}
        assert "stranger" not in ids(rich.search(vectors[0], mode="funnel"))
        steps = []
        assert rich.backfill(on_progress=steps.append) == 3
        assert (steps[-1], rich.missing(), rich.backfill()) == (3, {}, 0)
        assert "stranger" in ids(rich.search(vectors[0], mode="funnel"))
        assert rich.search(vectors[9], text="4711", mode=Hybrid(weights=(0.0, 1.0)))[0].id == "stranger"
        assert rich.get(["stranger"]) == [stranger]

    def test_another_layout_is_refused_and_none_takes_the_stored_one(self, place, encoder, rich):
        rich.close()
        with pytest.raises(ContractMismatchError, match="another layout"):
            place.open(encoder.contract(), layout=Layout())
        with place.open() as again:
            assert again.layout == RICH


def test_async_is_sync(rich, vectors):
    async def ask():
        searches = [rich.asearch(query, mode="funnel") for query in vectors[:8]]
        groups = rich.asearch_groups(vectors[0], limit=3)
        found, grouped = await asyncio.gather(asyncio.gather(*searches), groups)
        return found, grouped, await rich.acount(language="en"), await rich.afacet("kind"), await rich.aget(["3"])

    found, grouped, count, kinds, documents = asyncio.run(ask())
    assert [ids(hits) for hits in found] == [ids(rich.search(query, mode="funnel")) for query in vectors[:8]]
    assert grouped == rich.search_groups(vectors[0], limit=3)
    assert (count, kinds, documents) == (rich.count(language="en"), rich.facet("kind"), rich.get(["3"]))

    async def change():
        written = await rich.aupsert([Document(id="new", text="new")], vectors[:1])
        kept = await rich.avectors(["new"])
        return written, list(kept), await rich.adelete(["new"]), await rich.adelete_where(language="zh")

    assert asyncio.run(change()) == (1, ["new"], 1, 66)
    assert asyncio.run(rich.aoptimize()) is False
    assert rich.status().points == 134


def test_status_names_the_engine(rich):
    status = rich.status()
    assert (status.points, status.state) == (200, "ready")
    assert "dran" in status.engine
