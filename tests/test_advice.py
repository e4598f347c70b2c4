"""Advice on sizes: agreement worked out by hand, data with much and with nothing in its prefixes, the plot."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest

from f2rag.advice import Choice, _agreement, advise, readable_bytes, recommend
from f2rag.contract import EmbeddingContract
from f2rag.engine import SearchEngine
from f2rag.errors import InputError
from f2rag.evaluation import Estimate, Query
from f2rag.plots import plot_advice
from f2rag.store import Layout, Lexical, QdrantStore
from f2rag.testing import FakeEncoder
from f2rag.types import Document, Hit
from f2rag.vectors import normalize, truncate

WIDTH = 64


class TableEncoder:
    """Gives texts that are numbers the rows of a table, as queries with a little noise."""

    model_name, instruction, truncated_count = "table", "", 0

    def __init__(self, rows):
        self.rows = rows
        self.dimensions = self.native_dimensions = rows.shape[1]

    def contract(self, *, dimensions=None):
        width = self.native_dimensions
        return EmbeddingContract(model="table", revision="1", native_dimensions=width, dimensions=dimensions or width)

    def embed_documents(self, texts, *, dimensions=None):
        return truncate(self.rows[[int(text) for text in texts]], dimensions or self.dimensions)

    def embed_queries(self, texts, *, dimensions=None, instruction=None):
        rows = self.rows[[int(text) for text in texts]]
        noisy = rows + 0.3 * rows.std(axis=0) * np.random.default_rng(9).standard_normal(rows.shape)
        return truncate(noisy.astype(np.float32), dimensions or self.dimensions)


def engine_over(rows, location=":memory:", *, layout=None):
    encoder = TableEncoder(normalize(rows.astype(np.float32)))
    engine = SearchEngine.open(encoder, location, layout=layout)
    engine.index([Document(id=f"d{row}", text=str(row)) for row in range(len(rows))])
    return engine


def decaying(count=1_500, power=1.5):
    """Rows whose first values carry most of them, as Matryoshka vectors do."""
    scale = np.arange(1, WIDTH + 1) ** -power
    return np.random.default_rng(0).standard_normal((count, WIDTH)) * scale


def tail_only(count=1_500):
    """Rows that are told apart by their last half alone: the first is the same noise for none of them."""
    rows = np.random.default_rng(0).standard_normal((count, WIDTH))
    rows[:, : WIDTH // 2] = 1e-3
    return rows


# -- agreement


@pytest.mark.parametrize(
    ("found", "recall", "overlap"),
    [
        ([1, 2, 3, 4], 1, 1),
        ([4, 3, 2, 1], 1, (0 + 0 + 2 / 3 + 1) / 4),
        ([1, 2, 9, 8], 1 / 2, (1 + 1 + 2 / 3 + 2 / 4) / 4),
        ([9, 1, 2, 3], 3 / 4, (0 + 1 / 2 + 2 / 3 + 3 / 4) / 4),
        ([9, 8, 7, 6], 0, 0),
        ([1, -1, -1, -1], 1 / 4, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4),
    ],
)
def test_agreement_equals_what_is_worked_out_by_hand(found, recall, overlap):
    cosines = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, -1: -np.inf}
    true = [1, 2, 3, 4]
    result = _agreement(found, [cosines.get(each, 0.1) for each in found], true, [cosines[each] for each in true])
    assert result == pytest.approx((recall, overlap))


def test_documents_that_are_as_close_count_for_recall():
    assert _agreement([1, 7], [0.9, 0.8], [1, 2], [0.9, 0.8])[0] == 1
    assert _agreement([1, 7], [0.9, 0.79], [1, 2], [0.9, 0.8])[0] == 0.5


def test_nothing_to_find_is_found():
    assert _agreement([], [], [-1], [-np.inf]) == (1, 1)


# -- recommendation


def choice(low, memory, disk=0, candidates=0, kind="prefix"):
    estimate = Estimate(0.99, low, 1.0, 100)
    return Choice(
        kind=kind, dimensions=8, memory=memory, disk=disk, candidates=candidates, recall=estimate, overlap=estimate
    )


def test_the_least_memory_that_keeps_the_target_is_recommended():
    small, good, cheaper, large = choice(0.97, 1), choice(0.98, 5, 9), choice(0.98, 5, 7), choice(1.0, 50)
    given = [large, small, good, cheaper]
    assert recommend(given, documents=10_000, target=0.98) is cheaper
    assert recommend(given, documents=10_000, target=0.99) is large
    assert recommend(given, documents=10_000, target=0.5) is small
    assert recommend([small], documents=10_000, target=0.98) is None
    assert recommend([choice(None, 1)], documents=10_000, target=0.98) is None


def test_a_first_pass_over_hardly_more_than_its_candidates_is_not_recommended():
    two_passes, one_pass = choice(1.0, 1, 2, candidates=100, kind="funnel"), choice(1.0, 50)
    assert recommend([two_passes, one_pass], documents=999, target=0.98) is one_pass
    assert recommend([two_passes, one_pass], documents=1_000, target=0.98) is two_passes


def test_prefixes_that_carry_nothing_are_not_recommended():
    with engine_over(tail_only()) as engine:
        found = advise(engine, query_count=60)
    assert found.recommended.dimensions == WIDTH
    by_name = {each.name: each.recall.mean for each in found.choices}
    assert by_name["64"] == 1
    assert by_name["8"] < 0.1
    assert by_name["32 → full"] < 0.5
    assert by_name["int8 → full"] > 0.98
    assert "all 64 dimensions" in found.sentence


def test_short_prefixes_that_carry_nearly_all_are_recommended():
    with engine_over(decaying()) as engine:
        found = advise(engine, query_count=60)
    best = found.recommended
    assert (best.kind, best.dimensions < WIDTH, best.memory < 64 * 1_000_000) == ("funnel", True, True)
    assert best.recall.low >= 0.98
    prefixes = [each.recall.mean for each in found.choices if each.kind == "prefix"]
    assert prefixes == sorted(prefixes)
    assert all(
        two.recall.mean >= one.recall.mean
        for one, two in zip(
            (each for each in found.choices if each.kind == "prefix"),
            (each for each in found.choices if each.kind == "funnel"),
            strict=False,
        )
    )


def test_a_lower_target_takes_less_memory():
    with engine_over(decaying(power=0.5)) as engine:
        strict, lax = (advise(engine, query_count=60, target=target).recommended for target in (0.99, 0.6))
    assert lax.memory < strict.memory


# -- what is told


@pytest.fixture(scope="module")
def found():
    with engine_over(decaying()) as engine:
        yield advise(engine, query_count=60, limit=5, seed=3)


def test_bytes_are_those_of_a_million_vectors(found):
    sizes = {each.name: (each.memory, each.disk) for each in found.choices}
    assert sizes == {
        "8": (32_000_000, 0),
        "16": (64_000_000, 0),
        "32": (128_000_000, 0),
        "64": (256_000_000, 0),
        "8 → full": (32_000_000, 128_000_000),
        "16 → full": (64_000_000, 128_000_000),
        "32 → full": (128_000_000, 128_000_000),
        "int8 → full": (64_000_000, 256_000_000),
        "binary → full": (8_000_000, 256_000_000),
    }


def test_the_facts_are_told(found):
    assert (found.documents, found.compared, found.queries, found.given) == (1_500, 1_500, 60, False)
    assert (found.limit, found.dimensions, found.seed, found.model) == (5, 64, 3, "table")
    assert found.notes == []
    assert found.sentence.startswith("Search ")
    assert "(a funnel)" in found.sentence
    (exact,) = found.measured  # the client's local mode has no other
    assert (exact.mode, exact.recall.mean, exact.searches) == ("exact", 1, 60)
    assert exact.search_ms > 0


def test_the_json_form_is_json(found):
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["recommended"] in stored["choices"]
    assert stored["measured"][0]["mode"] == "exact"
    assert stored["confidence"] == 0.95
    assert {"mean", "low", "high", "queries"} == set(stored["choices"][0]["overlap"])


def test_the_seed_makes_it_the_same_again():
    rows = decaying(300)

    def once(seed):
        with engine_over(rows) as engine:
            return advise(engine, query_count=20, seed=seed).choices

    assert once(1) == once(1)
    # Other documents are chosen, too, and not only other resamples.
    assert [each.recall.mean for each in once(1)] != [each.recall.mean for each in once(2)]


def test_queries_of_documents_do_not_find_them():
    with engine_over(np.random.default_rng(0).standard_normal((80, WIDTH))) as engine:
        steps = []
        found = advise(engine, limit=1, query_count=30, on_progress=lambda *step: steps.append(step))
    assert found.queries == 30
    # Its own document would be a query's nearest at any size.
    assert found.choices[0].dimensions == 8
    assert found.choices[0].recall.mean < 0.5
    assert [step for step in steps if step[1] == step[2]] == [
        ("embedding", 30, 30),
        ("comparing", 80, 80),
        ("exact", 30, 30),
    ]


def test_queries_of_documents_do_not_find_them_in_the_collection_either(monkeypatch):
    monkeypatch.setattr("f2rag.advice._measurable", lambda store: ["exact", "hnsw"])
    with engine_over(decaying(20)) as engine:
        asked = []

        def search(vector, *, text, limit, mode):
            own, other = (Hit(id=key, score=0.5, text="") for key in (f"d{text}", "other"))
            asked.append((limit, mode))
            return [own, other] if mode == "exact" else [other, own]

        monkeypatch.setattr(engine.store, "search", search)
        found = advise(engine, limit=1, query_count=5)
    assert asked == [(2, "exact")] * 5 + [(2, "hnsw")] * 5
    assert [each.recall.mean for each in found.measured] == [1, 1]
    assert [each.overlap.mean for each in found.measured] == [1, 1]


def test_given_queries_are_used_as_they_are():
    with engine_over(decaying(200)) as engine:
        found = advise(engine, [Query(id="a", text="7"), Query(id="b", text="9")])
        assert (found.queries, found.given) == (2, True)
        assert "2 queries are few" in found.notes[-1]
        one = advise(engine, [Query(id="a", text="7")])
    assert one.recommended is None
    assert one.sentence == "One query is too few to recommend anything by; give more."


def test_a_large_collection_is_sampled():
    with engine_over(decaying(400)) as engine:
        found = advise(engine, sample=150, query_count=10)
        assert advise(engine, sample=150, query_count=10).choices == found.choices
    assert (found.documents, found.compared) == (400, 150)
    assert "150 of 400 documents were compared" in found.notes[0]
    assert "With only 150 documents" in found.notes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "limit=0 was given"),
        ({"sample": 0}, "sample=0 was given"),
        ({"query_count": 0}, "query_count=0 was given"),
        ({"target": 0}, "target=0 was given; expected a recall above 0"),
        ({"target": 1.1}, r"target=1\.1 was given"),
        ({"queries": []}, "No query was given"),
    ],
)
def test_what_cannot_be_advised_on(changes, message):
    with engine_over(decaying(3)) as engine, pytest.raises(InputError, match=message):
        advise(engine, **changes)


@pytest.mark.parametrize("count", [0, 1])
def test_a_collection_without_enough_documents(count):
    encoder = FakeEncoder()
    with SearchEngine.open(encoder, ":memory:") as engine:
        engine.index([Document(text="one alone")][:count])
        with pytest.raises(InputError, match=rf"holds {count} documents to make queries of; expected at least 2"):
            advise(engine)


@pytest.mark.parametrize(
    ("layout", "modes"),
    [
        (Layout(), ["exact", "hnsw"]),
        (Layout(quantization="int8"), ["exact", "hnsw", "quantized"]),
        (Layout(levels=(16,)), ["exact", "funnel"]),
        (Layout(levels=(16,), lexical=Lexical()), ["exact", "funnel"]),
    ],
    ids=["plain", "int8", "level", "words"],
)
def test_the_modes_of_the_embedded_engine_are_measured(tmp_path, layout, modes):
    pytest.importorskip("qdrant_edge")
    with engine_over(decaying(300), tmp_path, layout=layout) as engine:
        found = advise(engine, query_count=20)
    assert [each.mode for each in found.measured] == modes
    assert all(each.recall.mean > 0.9 for each in found.measured)


def test_a_collection_of_shorter_vectors_has_a_shorter_ladder():
    encoder = FakeEncoder(native_dimensions=64)
    with QdrantStore.open(":memory:", contract=encoder.contract(dimensions=24)) as store:
        engine = SearchEngine(encoder, store)
        engine.index([Document(text=f"number {number} of all.") for number in range(30)])
        found = advise(engine, query_count=5)
    assert [each.dimensions for each in found.choices if each.kind == "prefix"] == [8, 16, 24]


@pytest.mark.parametrize(
    ("count", "text"), [(32_000_000, "32 MB"), (512_000_000, "512 MB"), (20_480_000_000, "20.48 GB")]
)
def test_bytes_for_people(count, text):
    assert readable_bytes(count) == text


# -- the plot


def png_size(file):
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


def test_the_plot_is_a_picture(found, tmp_path):
    plot_advice(found, tmp_path / "advice.png")
    assert png_size(tmp_path / "advice.png") == (1200, 720)
    plot_advice(dataclasses.replace(found, recommended=None), tmp_path / "advice.svg")
    text = (tmp_path / "advice.svg").read_text(encoding="utf-8")
    assert text.count("recommended") == 0
    plot_advice(found, tmp_path / "with.svg")
    assert "recommended" in (tmp_path / "with.svg").read_text(encoding="utf-8")


def test_a_plot_without_intervals_is_drawn(tmp_path):
    with engine_over(decaying(20)) as engine:
        plot_advice(advise(engine, [Query(id="a", text="7")]), tmp_path / "one.png")
    assert png_size(tmp_path / "one.png") == (1200, 720)


@pytest.mark.parametrize("name", ["no/folder.png", "advice.words"])
def test_a_plot_that_cannot_be_written(found, tmp_path, name):
    with pytest.raises(InputError, match="cannot be written"):
        plot_advice(found, tmp_path / name)
