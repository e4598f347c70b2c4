"""Measuring retrieval: figures worked out by hand, exact search against a plain oracle, chunks, languages."""

from __future__ import annotations

import dataclasses
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from f2rag.corpus import load_udhr
from f2rag.engine import SearchEngine
from f2rag.errors import DimensionsError, InputError, MissingExtraError
from f2rag.evaluation import (
    EvaluationWarning,
    Query,
    evaluate,
    measures,
)
from f2rag.evaluation.measures import estimate, measured
from f2rag.evaluation.scan import Binary, Int8, Prefix, scan
from f2rag.store import Layout, Lexical
from f2rag.store.modes import Funnel, mode_name, mode_of
from f2rag.testing import FakeEncoder
from f2rag.types import Document, Hit
from f2rag.vectors import Int8Range, binary_quantize, hamming_distance, normalize, truncate


class ArrayStore:
    """What ``evaluate`` and ``advise`` ask of a store, over an array."""

    collection, location = "numbers", "an array"

    def __init__(self, documents, vectors, *, page=7):
        self.held = {document.key: document for document in documents}
        self.rows = vectors
        self.page = page
        self.searched = []

    @property
    def dimensions(self):
        return self.rows.shape[1]

    def count(self):
        return len(self.held)

    def get(self, ids):
        return [self.held[key] for key in ids if key in self.held]

    def documents(self):
        return iter(self.held.values())

    def iter_vectors(self, *, batch=1_000):
        keys = list(self.held)
        for start in range(0, len(keys), min(batch, self.page)):
            part = slice(start, start + min(batch, self.page))
            yield keys[part], self.rows[part]

    def plan(self, mode="auto"):
        return ("exact", "few documents") if mode == "auto" else (mode_name(mode_of(mode)), "as asked")

    def compared_dimensions(self, mode="auto"):
        return self.dimensions

    def search(self, vector, *, text=None, limit=10, mode="auto"):
        self.searched.append((text, limit, mode))
        scores = self.rows @ vector
        keys = list(self.held)
        return [
            Hit(id=keys[row], score=float(scores[row]), text=self.held[keys[row]].text)
            for row in np.argsort(-scores, kind="stable")[:limit]
        ]


def engine_of(documents, *, dimensions=64, **options):
    encoder = FakeEncoder(dimensions=dimensions)
    vectors = encoder.embed_documents([document.text for document in documents])
    return SimpleNamespace(encoder=encoder, store=ArrayStore(documents, vectors, **options))


# -- measures


def test_measures_equal_what_is_worked_out_by_hand():
    judgements = {
        "a": {"d1": 1, "d2": 2, "d3": 0},
        "b": {"d4": 1, "d5": 1, "d6": 1, "d7": -1},
        "c": {"d8": 1},
    }
    rankings = {
        "a": ["d1", "d9", "d2"],
        "b": ["d7", "x1", "d4", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "d5"],
        "c": [],
    }
    found = measured(rankings, judgements, cutoffs=[2, 20])
    assert list(found) == ["nDCG@10", "recall@2", "recall@20", "MRR@10"]
    ideal_a = 2 / math.log2(2) + 1 / math.log2(3)
    ideal_b = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    expected = {
        "nDCG@10": [(1 / math.log2(2) + 2 / math.log2(4)) / ideal_a, (1 / math.log2(4)) / ideal_b, 0],
        "recall@2": [1 / 2, 0, 0],
        "recall@20": [1, 2 / 3, 0],
        "MRR@10": [1, 1 / 3, 0],
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


def test_the_order_of_the_ranking_is_kept_whatever_the_ids_are():
    # trec_eval breaks ties of scores by id, descending.
    judgements = {"q": {"m": 1}}
    for before in ("a", "z"):
        assert measured({"q": [before, "m"]}, judgements, cutoffs=[1])["MRR@10"] == pytest.approx([0.5])


def test_intervals_hold_the_mean_and_come_from_the_seed():
    generator = np.random.default_rng(0)
    for size in (2, 3, 10, 200):
        for values in (generator.random(size), generator.integers(0, 2, size).astype(float)):
            one = estimate(values, seed=1)
            assert one.mean == pytest.approx(values.mean())
            assert one.low <= one.mean <= one.high
            assert one == estimate(values, seed=1)
    values = generator.random(30)
    assert estimate(values, seed=1).low != estimate(values, seed=2).low


def test_more_queries_make_narrower_intervals():
    values = np.random.default_rng(0).random(800)
    few, many = estimate(values[:50], seed=0), estimate(values, seed=0)
    assert many.high - many.low < 0.5 * (few.high - few.low)
    # The textbook's interval: 1.96 standard errors to both sides.
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.1)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_values_have_an_interval_without_width(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = estimate(np.full(5, value), seed=0)
    assert (one.mean, one.low, one.high, one.count) == (value, value, value, 5)


def test_one_value_has_no_interval():
    assert dataclasses.astuple(estimate(np.array([0.5]), seed=0)) == (0.5, None, None, 1)


@pytest.mark.parametrize("values", [[1, 1, 1 - 1e-12], [0, 0, 1e-200]], ids=["rounding", "underflow"])
def test_intervals_stay_finite_for_nearly_equal_values(values):
    one = estimate(np.array(values), seed=0)
    assert np.isfinite([one.low, one.high]).all()
    assert one.low < one.high


def test_a_missing_library_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"ir_nothing is not installed.*f2rag\[evaluate\]"):
        measures.optional("ir_nothing.part")


# -- exact search in numpy


def unit_rows(count, dimensions, seed=0):
    return normalize(np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32))


def pages_of(rows, size):
    for start in range(0, len(rows), size):
        yield [str(row) for row in range(start, min(start + size, len(rows)))], rows[start : start + size]


@pytest.mark.parametrize("page", [1, 7, 64, 1000])
@pytest.mark.parametrize("dimensions", [3, 16, 32])
def test_a_scan_by_pages_finds_what_comparing_everything_finds(page, dimensions):
    rows, queries = unit_rows(100, 32), unit_rows(9, 32, seed=1)
    found = scan(pages_of(rows, page), queries, {"cut": (Prefix(queries, dimensions), 12)})
    scores = truncate(queries, dimensions) @ truncate(rows, dimensions).T
    expected = np.argsort(-scores, axis=1)[:, :12]
    assert found.found["cut"].positions.tolist() == expected.tolist()
    assert np.allclose(found.found["cut"].exact, np.take_along_axis(queries @ rows.T, expected, axis=1), atol=1e-6)
    assert found.ranking("cut", 4) == [str(row) for row in expected[4]]
    assert len(found.ids) == 100


def test_a_scan_of_fewer_vectors_than_wanted():
    rows = unit_rows(3, 8)
    found = scan(pages_of(rows, 2), rows, {"all": (Prefix(rows, 8), 5)}, excluded=["0", None, "2"])
    assert [len(found.ranking("all", row)) for row in range(3)] == [2, 3, 2]
    assert found.ranking("all", 1)[0] == "1"
    assert "0" not in found.ranking("all", 0)


def test_more_queries_than_are_compared_at_once(monkeypatch):
    rows, queries = unit_rows(50, 16), unit_rows(11, 16, seed=1)
    excluded = [str(row) for row in range(11)]

    def rankings():
        found = scan(pages_of(rows, 20), queries, {"all": (Prefix(queries, 16), 5)}, excluded=excluded)
        return found.found["all"].positions.tolist()

    whole = rankings()
    monkeypatch.setattr("f2rag.evaluation.scan._QUERIES_AT_ONCE", 4)
    assert rankings() == whole
    assert all(row not in ranking for row, ranking in enumerate(whole))


@pytest.mark.parametrize("page", [2, 6])
def test_equal_scores_stay_in_the_order_of_the_pages(page):
    rows = np.repeat(unit_rows(1, 8), 6, axis=0)
    rows[0] = -rows[1]  # so that the best are not simply the first
    found = scan(pages_of(rows, page), rows[1:2], {"all": (Prefix(rows[1:2], 8), 4)})
    assert found.ranking("all", 0) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("page", [60, 25])
def test_int8_compares_the_values_of_the_bytes_in_the_range_of_the_first_page(page):
    rows, queries = unit_rows(60, 16), unit_rows(5, 16, seed=1)
    found = scan(pages_of(rows, page), queries, {"int8": (Int8(queries), 60)}).found["int8"]
    ranges = Int8Range.fit(rows[:page])
    left, right = (ranges.dequantize(ranges.quantize(each)) for each in (queries, rows))
    assert np.allclose(found.scores, np.take_along_axis(left @ right.T, found.positions, axis=1), atol=1e-5)
    assert not np.allclose(found.scores, found.exact, atol=1e-5)


@pytest.mark.parametrize("dimensions", [16, 13])
def test_binary_orders_by_differing_bits_and_rescoring_by_cosine(dimensions):
    rows, queries = unit_rows(60, dimensions), unit_rows(5, dimensions, seed=1)
    found = scan(pages_of(rows, 25), queries, {"binary": (Binary(queries), 20)}).found["binary"]
    distances = hamming_distance(binary_quantize(queries), binary_quantize(rows))
    assert found.scores.tolist() == (dimensions - 2 * np.sort(distances, axis=1)[:, :20]).tolist()
    rescored = found.rescored(5)
    assert rescored.exact.tolist() == (-np.sort(-found.exact, axis=1)[:, :5]).tolist()
    assert np.allclose(rescored.exact, np.take_along_axis(queries @ rows.T, rescored.positions, axis=1), atol=1e-6)


def test_queries_of_another_width_are_refused():
    with pytest.raises(InputError, match="stored vectors have 8 dimensions and the queries 4"):
        scan(pages_of(unit_rows(3, 8), 2), unit_rows(1, 4), {"cut": (Prefix(unit_rows(1, 4), 4), 1)})


# -- evaluate

WORDS = ("red", "blue", "green", "old", "new", "small")
DOCUMENTS = [
    Document(id=f"{colour} {thing}", text=f"{colour} {thing}") for colour in WORDS for thing in ("house", "sea", "tree")
]
QUERIES = [
    Query(id="1", text="red house", language="en"),
    Query(id="2", text="blue sea", language="en"),
    Query(id="3", text="old tree", language="de"),
]
JUDGEMENTS = {
    "1": {"red house": 1, "red sea": 0},
    "2": {"blue sea": 1, "blue house": 1},
    "3": {"new sea": 1},
}


def means(run):
    return {name: round(one.mean, 4) for name, one in run.overall.items()}


def test_a_collection_is_measured_in_modes_and_at_sizes():
    engine = engine_of(DOCUMENTS)
    steps = []
    found = evaluate(
        engine,
        QUERIES,
        JUDGEMENTS,
        modes=["exact", "auto"],
        dimensions=[64, 8],
        cutoffs=[1, 18],
        on_progress=lambda *step: steps.append(step),
    )
    assert (found.queries, found.unjudged, found.missing, found.documents, found.dimensions) == (3, 0, 0, 18, 64)
    assert [(run.mode, run.ran, run.reason, run.dimensions) for run in found.runs] == [
        ("exact", "exact", "", 64),
        ("auto", "exact", "few documents", 64),
        ("numpy", "exact", "", 64),
        ("numpy", "exact", "", 8),
    ]
    exact, auto, full, short = found.runs
    assert list(exact.overall) == ["nDCG@10", "recall@1", "recall@18", "MRR@10"]
    assert means(exact) == means(auto) == means(full)
    assert exact.overall["recall@1"].mean == pytest.approx((1 + 0.5 + 0) / 3)
    assert exact.overall["recall@18"].mean == 1
    assert means(short) != means(full)
    assert list(exact.by_language) == ["en", "de"]
    assert exact.by_language["en"]["recall@1"].mean == pytest.approx(0.75)
    assert exact.by_language["de"]["recall@1"].count == 1
    assert exact.search_ms > 0
    assert full.search_ms is None
    assert steps[0] == ("embedding", 3, 3)
    assert ("auto", 3, 3) in steps
    assert steps[-1] == ("numpy", 18, 18)
    assert [text for text, _, _ in engine.store.searched] == [query.text for query in QUERIES] * 2


def test_the_figures_are_those_of_the_rankings():
    engine = engine_of(DOCUMENTS)
    found = evaluate(engine, QUERIES, JUDGEMENTS, modes=["exact"])
    vectors = engine.encoder.embed_queries([query.text for query in QUERIES])
    ranks = []
    for query, vector in zip(QUERIES, vectors, strict=True):
        ids = [hit.id for hit in engine.store.search(vector, limit=18)]
        ranks.append(min(ids.index(key) for key, grade in JUDGEMENTS[query.id].items() if grade) + 1)
    assert found.runs[0].overall["MRR@10"].mean == pytest.approx(
        np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
    )


def test_the_instruction_is_used_and_told(monkeypatch):
    engine = engine_of(DOCUMENTS)
    used = []
    embed = engine.encoder.embed_queries
    monkeypatch.setattr(
        engine.encoder,
        "embed_queries",
        lambda texts, *, dimensions, instruction: used.append(instruction) or embed(texts, dimensions=dimensions),
    )
    assert evaluate(engine, QUERIES, JUDGEMENTS, instruction="Other").instruction == "Other"
    assert evaluate(engine, QUERIES, JUDGEMENTS).instruction == engine.encoder.instruction
    assert used == ["Other", None]


def test_queries_are_embedded_once_and_in_batches(monkeypatch):
    engine = engine_of(DOCUMENTS)
    calls = []
    embed = engine.encoder.embed_queries
    monkeypatch.setattr(
        engine.encoder, "embed_queries", lambda texts, **more: calls.append(len(texts)) or embed(texts, **more)
    )
    monkeypatch.setattr("f2rag.evaluation.retrieval._QUERIES_AT_ONCE", 2)
    evaluate(engine, QUERIES, JUDGEMENTS, modes=["auto", "exact"], dimensions=[16, 8])
    assert calls == [2, 1]


def test_queries_without_relevant_documents_are_left_out():
    more = [*QUERIES, Query(id="4", text="new"), Query(id="5", text="old")]
    found = evaluate(engine_of(DOCUMENTS), more, {**JUDGEMENTS, "5": {"red sea": 0}})
    assert (found.queries, found.unjudged) == (3, 2)
    assert means(found.runs[0]) == means(evaluate(engine_of(DOCUMENTS), QUERIES, JUDGEMENTS).runs[0])


def test_missing_documents_are_counted_and_told():
    judgements = {**JUDGEMENTS, "3": {"gone": 1, "lost": 2}}
    with pytest.warns(EvaluationWarning, match=r"2 of 5 relevant documents are not in.*'gone', 'lost'.*1 of 3 queries"):
        found = evaluate(engine_of(DOCUMENTS), QUERIES, judgements)
    assert found.missing == 2
    assert found.runs[0].by_language["de"]["recall@10"].mean == 0


def test_nothing_known_is_refused():
    with pytest.raises(
        InputError, match=r"None of the 1 relevant documents is in collection 'numbers'.*'gone'.*'red hou"
    ):
        evaluate(engine_of(DOCUMENTS), QUERIES, {"1": {"gone": 1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judgements": {"1": {"red house": 1}, "9": {"red house": 1}}}, r"1 of 2 judged queries are not among.*'9'"),
        ({"judgements": {"1": {"red house": 0}}}, "None of 3 queries has a relevant document"),
        ({"queries": [*QUERIES, QUERIES[0]]}, "Queries share an id: '1'"),
        ({"modes": []}, "Neither a mode nor a size"),
        ({"modes": ["fast"]}, "mode='fast' is unknown"),
        ({"cutoffs": [0]}, "a cutoff=0 was given; expected a whole number of at least 1"),
    ],
)
def test_what_cannot_be_measured(changes, message):
    given = {"queries": QUERIES, "judgements": JUDGEMENTS, **changes}
    with pytest.raises(InputError, match=message):
        evaluate(engine_of(DOCUMENTS), **given)


@pytest.mark.parametrize("size", [0, 65])
def test_a_size_that_the_collection_does_not_have(size):
    with pytest.raises(DimensionsError, match=rf"dimensions={size} is out of range; expected 1 to 64"):
        evaluate(engine_of(DOCUMENTS), QUERIES, JUDGEMENTS, dimensions=[size])


def test_chunks_count_as_their_document():
    split = [
        Document(id=f"{document.id}#{number}", text=f"{document.text} {filler}")
        for document in DOCUMENTS
        for number, filler in enumerate(("", "the", "and the", "of the", "by the", "in the"), start=1)
    ]
    found = evaluate(engine_of(split), QUERIES, JUDGEMENTS, modes=["exact"], dimensions=[64], cutoffs=[1, 10])
    for run in found.runs:
        assert run.overall["recall@1"].mean == pytest.approx((1 + 0.5 + 0) / 3)
        assert found.missing == 0


def test_enough_chunks_are_fetched_for_the_depth():
    split = [Document(id=f"red house#{number}", text="red house") for number in range(1, 60)]
    engine = engine_of([*split, Document(id="red sea", text="red sea")])
    found = evaluate(engine, QUERIES[:1], {"1": {"red house": 1, "red sea": 1}}, modes=["exact"], cutoffs=[2])
    assert found.runs[0].overall["recall@2"].mean == 1
    assert [limit for _, limit, _ in engine.store.searched] == [40, 80]


def test_ids_that_look_like_chunks_are_left_as_they_are():
    pages = [Document(id=f"page#{number}", text=f"{WORDS[number]} house") for number in range(3)]
    found = evaluate(engine_of(pages), QUERIES[:1], {"1": {"page#0": 1}}, modes=["exact"], cutoffs=[1])
    assert found.runs[0].overall["recall@1"].mean == 1


def test_the_document_with_the_querys_id_can_be_left_out():
    twins = [Document(id="1", text="red house"), Document(id="a", text="red house sea"), Document(id="b", text="new")]
    given = {"modes": ["exact"], "dimensions": [64], "cutoffs": [1]}
    with_it = evaluate(engine_of(twins), QUERIES[:1], {"1": {"a": 1}}, **given)
    without = evaluate(engine_of(twins), QUERIES[:1], {"1": {"a": 1}}, exclude_same_id=True, **given)
    assert [run.overall["recall@1"].mean for run in with_it.runs] == [0, 0]
    assert [run.overall["recall@1"].mean for run in without.runs] == [1, 1]


def test_leaving_it_out_costs_no_rank():
    colours = [f"{colour} {thing}" for colour in WORDS[1:] for thing in ("house", "sea")]
    near = [Document(id=f"n{row}", text=f"red house {text}") for row, text in enumerate(colours[:9])]
    documents = [Document(id="1", text="red house"), *near, Document(id="far", text="red")]
    found = evaluate(
        engine_of(documents), QUERIES[:1], {"1": {"far": 1}}, modes=["exact"], dimensions=[64], exclude_same_id=True
    )
    assert [run.overall["recall@10"].mean for run in found.runs] == [1, 1]
    engine = engine_of(documents)
    evaluate(engine, QUERIES[:1], {"1": {"far": 1}}, modes=["exact"], cutoffs=[10], exclude_same_id=True)
    assert [limit for _, limit, _ in engine.store.searched] == [11]


def test_modes_are_named_with_what_was_changed():
    found = evaluate(engine_of(DOCUMENTS), QUERIES, JUDGEMENTS, modes=[Funnel(stages=((8, 100),)), Funnel()])
    assert [run.mode for run in found.runs] == ["funnel(stages=((8, 100),))", "funnel"]


def test_the_json_form_holds_every_figure():
    found = evaluate(engine_of(DOCUMENTS), QUERIES, JUDGEMENTS, dimensions=[8], seed=3)
    stored = found.to_dict()
    assert stored["confidence"] == 0.95
    assert stored["seed"] == 3
    assert stored["runs"][1]["dimensions"] == 8
    assert stored["runs"][0]["by_language"]["de"]["MRR@10"]["low"] is None
    one = found.runs[0].overall["nDCG@10"]
    assert stored["runs"][0]["overall"]["nDCG@10"] == {"mean": one.mean, "low": one.low, "high": one.high, "queries": 3}


# -- a real collection


@pytest.fixture(scope="module")
def declaration():
    """Articles in English, and as queries their titles and first words."""
    articles = load_udhr(["en"])
    queries = [Query(id=each.id, text=" ".join(each.text.split()[:8]), language="en") for each in articles]
    return articles, queries, {each.id: {each.id: 1} for each in articles}


@pytest.mark.parametrize("home", ["memory", "folder"])
def test_every_mode_of_a_real_collection_is_measured(declaration, home, tmp_path):
    if home == "folder":
        pytest.importorskip("qdrant_edge")
    articles, queries, judgements = declaration
    layout = Layout(levels=(16,), lexical=Lexical())
    modes = ["exact", "funnel", "hybrid", "diverse", "auto", Funnel(stages=((16, 30),))]
    with SearchEngine.open(FakeEncoder(), tmp_path if home == "folder" else ":memory:", layout=layout) as engine:
        engine.index(articles)
        found = evaluate(engine, queries, judgements, modes=modes, dimensions=[64, 16])
        with pytest.raises(InputError, match="quantized"):
            evaluate(engine, queries, judgements, modes=["quantized"])
    by_mode = {(run.mode, run.dimensions): means(run) for run in found.runs}
    assert list(by_mode) == [
        *((mode, 64) for mode in ("exact", "funnel", "hybrid", "diverse", "auto", "funnel(stages=((16, 30),))")),
        ("numpy", 64),
        ("numpy", 16),
    ]
    # All thirty articles pass the funnel, so that its last stage sees what the exact search sees.
    for mode in ("funnel", "auto", "funnel(stages=((16, 30),))"):
        assert by_mode[mode, 64] == by_mode["exact", 64]
    assert by_mode["numpy", 64] == by_mode["exact", 64]
    assert by_mode["numpy", 16]["MRR@10"] < by_mode["exact", 64]["MRR@10"]
    # Queries are made of the articles' own words, which the lexical half finds.
    assert by_mode["hybrid", 64]["MRR@10"] > by_mode["exact", 64]["MRR@10"]


def test_a_search_at_a_size_equals_a_collection_of_that_size(declaration):
    articles, queries, judgements = declaration
    encoder = FakeEncoder()
    with SearchEngine.open(encoder, ":memory:") as wide, SearchEngine.open(encoder, ":memory:", dimensions=16) as short:
        wide.index(articles)
        short.index(articles)
        (cut,) = evaluate(wide, queries, judgements, modes=[], dimensions=[16]).runs
        (stored,) = evaluate(short, queries, judgements, modes=["exact"]).runs
    assert means(cut) == means(stored)
