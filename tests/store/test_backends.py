"""What every engine must do alike: layouts, stages, groups, counts, aliases; against numpy, not against each other."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from f2rag.errors import (
    CollectionNotFoundError,
    DocumentError,
    InputError,
    UnsupportedFeatureError,
)
from f2rag.store import edge, groups
from f2rag.store.client import ClientHome, memory_home
from f2rag.store.client_requests import lost, vectors_of
from f2rag.store.connection import connection_of
from f2rag.store.edge import EdgeHome
from f2rag.store.filters import EVERYTHING, Selection
from f2rag.store.homes import Batch, Row
from f2rag.store.layout import Layout, Lexical, level_name
from f2rag.store.stages import Fused, Nearest, SparseVector

COUNT = 240
WIDTH = 32
LANGUAGES = ("en", "fr", "de")
LAYOUTS = {
    "plain": Layout(),
    "int8": Layout(quantization="int8"),
    "binary": Layout(quantization="binary"),
    "levels": Layout(levels=(8, 16)),
    "levels-int8": Layout(levels=(8,), quantization="int8"),
    "all": Layout(
        levels=(8,),
        lexical=Lexical(),
        fields={
            "year": "integer",
            "flag": "bool",
            "kind": "keyword",
            "title": "text",
            "price": "float",
            "on": "datetime",
        },
    ),
}
NEW_LAYOUTS = {"turbo4": Layout(quantization="turbo4"), "levels-turbo2": Layout(levels=(8,), quantization="turbo2")}
RECORD = {"model": "any", "nested": {"list": [1, 2]}}


def unit_rows(count, width, seed):
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


VECTORS = unit_rows(COUNT, WIDTH, 1)
QUERY = unit_rows(1, WIDTH, 2)[0]
IDS = [str(uuid.UUID(int=number)) for number in range(COUNT)]
FEW = np.array([number % 40 == 7 for number in range(COUNT)])
"""The points in the one rare language."""


PARTS = ("one", "two", "三", "four", "five", "six")


def prefix(rows, level):
    cut = rows[..., :level]
    return cut / np.linalg.norm(cut, axis=-1, keepdims=True)


def payload(number):
    metadata = {
        "language": "th" if FEW[number] else LANGUAGES[number % 3],
        "source": f"s{number % 7}",
        "year": 2000 + number % 5,
        "flag": number % 4 == 0,
        "title": f"Part {PARTS[number % 6]} of it",
        "author": {"last name": f"n{number % 11}"},
    }
    if number % 2:
        metadata["kind"] = f"k{number % 3}"
    paths = {str(metadata["flag"]).lower(): ["metadata.flag"]}
    return {"page_content": f"text {number}", "metadata": metadata, "f2rag": {"id": str(number), **paths}}


def words(number):
    """Of each point a word of all with a weight of its own, and one that nobody else has."""
    return SparseVector([5, 1000 + number], [1.0 + number / COUNT, 1.0])


def batch_of(layout, numbers):
    rows = VECTORS[list(numbers)]
    return Batch(
        ids=[IDS[number] for number in numbers],
        vectors={"": rows, **{level_name(level): prefix(rows, level) for level in layout.levels}},
        sparse={"bm25": [words(number) for number in numbers]} if layout.lexical else {},
        payloads=[payload(number) for number in numbers],
        bytes=1000 * len(rows),
    )


def nearest(rows, query, count, among=None):
    """Numbers of the nearest rows by numpy, best first."""
    scores = rows @ query
    chosen = range(len(rows)) if among is None else among
    return sorted(chosen, key=lambda number: -scores[number])[:count]


def numbers(rows):
    return [uuid.UUID(row.id).int for row in rows]


def every(stage, backend, selection=EVERYTHING, score_threshold=None):
    return backend.search(stage, selection=selection, score_threshold=score_threshold)


def where(**fields):
    conditions = [
        models.FieldCondition(key=f"metadata.{key}", match=models.MatchValue(value=value))
        for key, value in fields.items()
    ]
    return Selection(filter=models.Filter(must=conditions))


@pytest.fixture(params=["memory", "edge", "server", "server-rest"])
def home(request, tmp_path):
    if request.param == "edge":
        yield EdgeHome(tmp_path / "home")
        return
    if request.param == "memory":
        home = memory_home()
    else:
        server = request.getfixturevalue("qdrant_server")
        home = ClientHome(connection_of(server.client(prefer_grpc=request.param == "server"), owned=True))
    yield home
    home.close()


@pytest.fixture
def name(home):
    """A name that no other test uses; collections whose names begin with it go away with the test."""
    name = f"backends-{uuid.uuid4().hex}"
    yield name
    for collection in home.collections():
        if collection.startswith(name):
            home.drop(collection)


@pytest.fixture
def made(home, name):
    """Make and fill a collection under a layout; all are closed after the test."""
    opened = []

    def make(layout=LAYOUTS["all"], *, points=range(COUNT)):
        home.create(name, RECORD, layout=layout, dimensions=WIDTH)
        backend = home.open(name)
        opened.append(backend)
        for start in range(0, len(points), 100):
            backend.upsert(batch_of(layout, points[start : start + 100]))
        return backend

    yield make
    for backend in opened:
        backend.close()


class TestLayouts:
    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
    def test_exact_is_what_numpy_finds(self, made, layout):
        backend = made(layout)
        found = every(Nearest(vector=QUERY, using="", limit=20, exact=True), backend)
        assert numbers(found) == nearest(VECTORS, QUERY, 20)
        tolerance = 1e-3 if layout.levels else 1e-5  # float16
        assert [row.score for row in found] == pytest.approx(
            [float(VECTORS[n] @ QUERY) for n in numbers(found)], abs=tolerance
        )
        assert found[0].payload == payload(numbers(found)[0])

    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
    def test_it_stores_what_it_says(self, made, layout):
        backend = made(layout)
        assert backend.vectors_found() == {
            "": (WIDTH, "Cosine"),
            **{level_name(level): (level, "Cosine") for level in layout.levels},
        }
        assert backend.read_contract() == RECORD
        assert [backend.count_without(vector) for vector in layout.vectors] == [0] * len(layout.vectors)
        found = backend.vectors([IDS[3], IDS[8], str(uuid.uuid4())])
        assert found.keys() == {IDS[3], IDS[8]}
        np.testing.assert_allclose(found[IDS[3]], VECTORS[3], atol=1e-3)

    @pytest.mark.parametrize("layout", [*LAYOUTS.values(), *NEW_LAYOUTS.values()], ids=[*LAYOUTS, *NEW_LAYOUTS])
    def test_compressed_vectors_with_rescoring_find_what_numpy_finds(self, home, made, layout):
        if layout in NEW_LAYOUTS.values() and home.kind == "server":
            with pytest.raises(UnsupportedFeatureError, match=r"1\.17\.0; TurboQuant needs 1\.18\.0"):
                made(layout)
            return
        using = layout.graph
        rows, query = (prefix(VECTORS, 8), prefix(QUERY, 8)) if using else (VECTORS, QUERY)
        backend = made(layout)
        stage = Nearest(vector=query, using=using, limit=10, ef=128, rescore=True, oversampling=COUNT / 10)
        assert numbers(every(stage, backend)) == nearest(rows, query, 10)
        plain = Nearest(vector=query, using=using, limit=10, uncompressed=True)
        assert numbers(every(plain, backend)) == nearest(rows, query, 10)

    def test_a_second_creation_leaves_the_first(self, home, made, name):
        backend = made(LAYOUTS["plain"])
        backend.close()
        home.create(name, {"other": 1}, layout=LAYOUTS["levels"], dimensions=WIDTH)
        again = home.open(name)
        assert (again.read_contract(), again.count(EVERYTHING)) == (RECORD, COUNT)
        again.close()

    def test_the_record_is_replaced_whole(self, made):
        backend = made(points=[])
        backend.write_contract({"another": True})
        assert backend.read_contract() == {"another": True}

    def test_indexes_can_be_asked_for_again(self, made):
        backend = made()
        backend.create_indexes(LAYOUTS["all"].indexes)
        assert backend.facet("metadata.language", selection=EVERYTHING, limit=10)["th"] == FEW.sum()


class TestStages:
    @pytest.mark.parametrize("levels", [((8, 30),), ((16, 12),), ((8, 60), (16, 20))], ids=str)
    def test_a_funnel_is_its_stages_one_after_the_other(self, made, levels):
        stage, among = None, None
        for level, candidates in levels:
            query = prefix(QUERY, level)
            using = level_name(level)
            stage = Nearest(vector=query, using=using, limit=candidates, exact=stage is None, prefetch=stage)
            among = nearest(prefix(VECTORS, level), query, candidates, among)
        funnel = Nearest(vector=QUERY, using="", limit=8, prefetch=stage)
        expected = nearest(VECTORS, QUERY, 8, among)
        assert expected != nearest(VECTORS, QUERY, 8)  # else the first stage would show nothing
        assert numbers(every(funnel, made(LAYOUTS["levels"]))) == expected

    def test_a_filter_reaches_the_first_stage(self, made):
        backend = made()
        first = Nearest(vector=prefix(QUERY, 8), using="mrl8", limit=6)
        stage = Nearest(vector=QUERY, using="", limit=6, prefetch=first)
        expected = nearest(VECTORS, QUERY, 6, np.flatnonzero(FEW).tolist())
        assert set(nearest(prefix(VECTORS, 8), prefix(QUERY, 8), 6)) & set(expected) != set(expected)
        assert numbers(every(stage, backend, Selection(languages=("th",)))) == expected

    def test_filters_and_thresholds(self, made):
        backend = made()
        stage = Nearest(vector=QUERY, using="", limit=COUNT)
        matching = [n for n in range(COUNT) if n % 5 == 3 and n % 3 == 1]
        chosen = Selection(filter=models.Filter(must=[where(year=2003).filter, where(kind="k1").filter]))
        expected = [n for n in nearest(VECTORS, QUERY, COUNT, matching) if n % 2]
        assert numbers(every(stage, backend, chosen)) == expected
        assert numbers(every(stage, backend, where(flag=True))) == nearest(VECTORS, QUERY, COUNT, range(0, COUNT, 4))
        threshold = 0.2
        close = int(np.sum(threshold <= VECTORS @ QUERY))
        assert numbers(every(stage, backend, score_threshold=threshold)) == nearest(VECTORS, QUERY, close)

    @pytest.mark.parametrize(
        ("constant", "weights"), [(60, None), (7, None), (60, (0.7, 0.3)), (10, (1.0, 4.0))], ids=str
    )
    def test_fusion_follows_the_formula(self, made, constant, weights):
        """Sums of 1 / (constant - 1 + rank / weight), ranks from 1: the same in every engine."""
        dense = nearest(VECTORS, QUERY, 30)
        lexical = list(range(COUNT - 1, COUNT - 41, -1))
        searches = (
            Nearest(vector=QUERY, using="", limit=30, exact=True),
            Nearest(vector=SparseVector([5], [1.0]), using="bm25", limit=40),
        )
        expected = {}
        for ranking, weight in zip((dense, lexical), weights or (1.0, 1.0), strict=True):
            for rank, number in enumerate(ranking, start=1):
                expected[number] = expected.get(number, 0.0) + 1 / (constant - 1 + rank / weight)
        assert len(expected) < 70  # some are in both
        stage = Fused(searches=searches, limit=100, constant=constant, weights=weights)
        found = every(stage, made())
        assert dict(zip(numbers(found), [row.score for row in found], strict=True)) == pytest.approx(expected, rel=1e-4)
        assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)

    def test_fusion_of_a_funnel_and_words_under_a_filter(self, made):
        first = Nearest(vector=prefix(QUERY, 8), using="mrl8", limit=6)
        searches = (
            Nearest(vector=QUERY, using="", limit=6, prefetch=first),
            Nearest(vector=SparseVector([5], [1.0]), using="bm25", limit=6),
        )
        found = every(Fused(searches=searches, limit=12, constant=60), made(), Selection(languages=("th",)))
        assert sorted(numbers(found)) == np.flatnonzero(FEW).tolist()

    def test_words_find_their_documents(self, made):
        backend = made()
        stage = Nearest(vector=SparseVector([1017, 1042], [1.0, 1.0]), using="bm25", limit=10)
        found = every(stage, backend)
        assert sorted(numbers(found)) == [17, 42]
        assert found[0].score > 3  # the weight of a word that 1 of 240 has
        assert every(Nearest(vector=SparseVector([], []), using="bm25", limit=10), backend) == []

    def test_diverse_hits_leave_out_near_duplicates(self, made):
        backend = made(LAYOUTS["levels"], points=[])
        axis = np.eye(WIDTH, dtype=np.float32)
        rows = np.stack([axis[0], axis[0] + 0.1 * axis[1], 0.8 * axis[0] + 0.6 * axis[2], axis[5]])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        levels = {level_name(level): prefix(rows + 1e-3, level) for level in (8, 16)}
        backend.upsert(Batch(IDS[:4], {"": rows, **levels}, {}, [{} for _ in rows], 100))
        query = axis[0] + 0.05 * axis[3]

        def found(diversity):
            stage = Nearest(vector=query, using="", limit=2, diversity=diversity, candidates=3)
            return numbers(every(stage, backend))

        assert found(0.0) == [0, 1]
        assert found(0.7) == [0, 2]
        before = Nearest(vector=prefix(query + 1e-3, 8), using="mrl8", limit=3)
        stage = Nearest(vector=query, using="", limit=2, diversity=0.7, candidates=3, prefetch=before)
        assert numbers(every(stage, backend)) == [0, 2]


class TestGroups:
    def expected(self, value_of, count, size):
        found = {}
        for number in nearest(VECTORS, QUERY, COUNT):
            if value_of(number) is not None:
                found.setdefault(value_of(number), []).append(number)
        return [(str(value), rows[:size]) for value, rows in list(found.items())[:count]]

    def found(self, backend, key, count, size, stage=None, **options):
        stage = stage or Nearest(vector=QUERY, using="", limit=10, exact=True)
        options = {"selection": EVERYTHING, "score_threshold": None, **options}
        rows = backend.search_groups(stage, key=key, groups=count, size=size, **options)
        for _, group in rows:
            assert [row.payload for row in group] == [payload(number) for number in numbers(group)]
        return [(value, numbers(group)) for value, group in rows]

    @pytest.mark.parametrize(("count", "size"), [(3, 2), (7, 3), (20, 1)])
    def test_the_best_of_each_source(self, made, count, size):
        assert self.found(made(), "metadata.source", count, size) == self.expected(lambda n: f"s{n % 7}", count, size)

    def test_numbers_and_missing_values(self, made):
        backend = made()
        assert self.found(backend, "metadata.year", 9, 2) == self.expected(lambda n: 2000 + n % 5, 9, 2)
        kinds = self.expected(lambda n: f"k{n % 3}" if n % 2 else None, 9, 2)
        assert self.found(backend, "metadata.kind", 9, 2) == kinds
        assert self.found(backend, "metadata.nothing", 9, 2) == []

    def test_a_look_that_shows_too_few_groups_is_followed_by_others(self, made, monkeypatch):
        monkeypatch.setattr(groups, "FIRST_LOOK", 1)
        backend = made()
        for count, size in [(1, 5), (2, 4), (7, 1), (7, 9), (30, 3)]:
            found = self.found(backend, "metadata.source", count, size)
            assert found == self.expected(lambda n: f"s{n % 7}", count, size)
        assert self.found(backend, 'metadata.author."last name"', 11, 1) == self.expected(lambda n: f"n{n % 11}", 11, 1)

    def test_filters_thresholds_and_prefetches(self, made):
        backend = made()
        few = self.found(backend, "metadata.source", 9, 9, selection=Selection(languages=("th",)))
        assert sorted(number for _, group in few for number in group) == np.flatnonzero(FEW).tolist()
        close = self.found(backend, "metadata.source", 9, COUNT, score_threshold=0.2)
        assert sum(len(group) for _, group in close) == (VECTORS @ QUERY >= 0.2).sum()
        first = Nearest(vector=prefix(QUERY, 8), using="mrl8", limit=2)
        funnel = Nearest(vector=QUERY, using="", limit=2, prefetch=first)
        assert len(self.found(backend, "metadata.source", 7, 1, funnel)) == 7

    def test_of_a_fused_search(self, made, monkeypatch):
        backend = made()
        halves = (
            Nearest(vector=QUERY, using="", limit=2),
            Nearest(vector=SparseVector([5], [1.0]), using="bm25", limit=2),
        )
        stage = Fused(searches=halves, limit=2, constant=60)
        for look in (groups.FIRST_LOOK, 1):
            monkeypatch.setattr(groups, "FIRST_LOOK", look)
            found = self.found(backend, "metadata.source", 7, 1, stage)
            assert sorted(value for value, _ in found) == [f"s{number}" for number in range(7)]
            assert all(len(group) == 1 for _, group in found)


class TestLooks:
    """How groups are looked for where the engine has no call for them."""

    def looks(self, values, stage, *, count, size):
        asked = []

        def find(stage, *, only=None, besides=()):
            asked.append((stage.limit, only, besides))
            rows = [Row(number, {"v": value}) for number, value in enumerate(values)]
            return [row for row in rows if row.payload["v"] == (only or row.payload["v"]) not in besides][: stage.limit]

        found = groups.best_groups(find, stage, key="v", groups=count, size=size)
        return [(value, [row.id for row in rows]) for value, rows in found], asked

    def test_a_group_that_fills_the_first_look_is_left_out_of_the_next(self):
        stage = Nearest(vector=QUERY, using="", limit=1)
        found, asked = self.looks(["a"] * 5000 + ["b"] * 3 + ["c"] * 500, stage, count=4, size=2)
        assert found == [("a", [0, 1]), ("b", [5000, 5001]), ("c", [5003, 5004])]
        assert asked == [(100, None, ()), (100, None, ("a",)), (100, None, ("a", "b", "c"))]

    def test_a_short_group_is_filled(self):
        stage = Nearest(vector=QUERY, using="", limit=1)
        found, asked = self.looks(["a", "b"] + ["a"] * 200 + ["b"] * 200, stage, count=2, size=2)
        assert found == [("a", [0, 2]), ("b", [1, 202])]
        assert asked == [(100, None, ()), (2, "b", ())]

    def test_values_that_are_no_group_end_in_a_wider_look(self):
        stage = Nearest(vector=QUERY, using="", limit=1)
        found, asked = self.looks([True, 1.5, None, ["x"], {"y": 1}] * 50 + [7], stage, count=1, size=1)
        assert found == [("7", [250])]
        assert [limit for limit, *_ in asked] == [100, 400]


class TestPoints:
    def test_facets(self, home, made):
        backend = made()
        languages = backend.facet("metadata.language", selection=EVERYTHING, limit=10)
        assert languages == {
            **{tag: sum(payload(n)["metadata"]["language"] == tag for n in range(COUNT)) for tag in LANGUAGES},
            "th": 6,
        }
        assert backend.facet("metadata.language", selection=where(year=2002), limit=1).keys() < languages.keys()
        assert backend.facet("metadata.year", selection=where(language="th"), limit=9) == {"2002": 6}
        assert backend.facet("metadata.flag", selection=where(year=2002), limit=9) == {"false": 36, "true": 12}
        if home.kind != "memory":
            with pytest.raises(InputError, match=r"'metadata\.source2'.*cannot be counted.*Layout\(fields="):
                backend.facet("metadata.source2", selection=EVERYTHING, limit=9)

    def test_text_is_found_by_words_and_phrases(self, home, made):
        backend = made()
        if home.kind == "memory":
            pytest.skip("the local mode compares substrings")
        for match in (models.MatchText(text="IT of 三"), models.MatchPhrase(phrase="part four of")):
            condition = models.FieldCondition(key="metadata.title", match=match)
            assert backend.count(Selection(filter=models.Filter(must=[condition]))) == COUNT / 6

    def test_what_is_missing_is_counted_found_and_filled(self, made):
        layout = LAYOUTS["all"]
        backend = made(layout, points=range(20))
        late = range(20, 30)
        plain = batch_of(layout, late)
        backend.upsert(Batch(plain.ids, {"": plain.vectors[""]}, {}, plain.payloads, 100))
        assert [backend.count_without(each) for each in ("", "mrl8", "bm25")] == [0, 10, 10]
        rows, following = backend.scroll(selection=EVERYTHING, offset=None, limit=6, without="mrl8")
        rest, end = backend.scroll(selection=EVERYTHING, offset=following, limit=6, without="mrl8")
        assert (numbers(rows), numbers(rest), end) == ([*range(20, 26)], [*range(26, 30)], None)
        odd, _ = backend.scroll(selection=where(kind="k0"), offset=None, limit=60, without="mrl8")
        assert numbers(odd) == [21, 27]
        absent = str(uuid.uuid4())
        backend.set_vectors([absent, *plain.ids], {"mrl8": prefix(VECTORS[19:30], 8)}, {})
        backend.set_vectors(plain.ids, {}, {"bm25": [words(number) for number in late]})
        assert [backend.count_without(each) for each in ("", "mrl8", "bm25")] == [0, 0, 0]
        assert backend.count(EVERYTHING) == 30
        for number in (20, 29):
            for using, query in (
                ("", VECTORS[number]),
                ("mrl8", prefix(VECTORS[number], 8)),
                ("bm25", SparseVector([1000 + number], [1.0])),
            ):
                (best,) = every(Nearest(vector=query, using=using, limit=1), backend)
                assert (numbers([best]), best.payload) == ([number], payload(number))
        backend.set_vectors([absent], {"mrl8": prefix(VECTORS[:1], 8)}, {})
        assert backend.count(EVERYTHING) == 30

    def test_a_text_without_words_is_not_missing_its_words(self, made):
        layout = LAYOUTS["all"]
        backend = made(layout, points=[])
        rows = VECTORS[:2]
        empty = [SparseVector([], []), words(1)]
        backend.upsert(
            Batch(IDS[:2], {"": rows, "mrl8": prefix(rows, 8)}, {"bm25": empty}, [payload(0), payload(1)], 100)
        )
        assert backend.count_without("bm25") == 0
        assert numbers(every(Nearest(vector=SparseVector([5], [1.0]), using="bm25", limit=9), backend)) == [1]

    def test_reading_and_deleting(self, made):
        backend = made()
        rows = backend.retrieve([IDS[5], IDS[1], str(uuid.uuid4())])
        assert {number: row.payload for number, row in zip(numbers(rows), rows, strict=True)} == {
            5: payload(5),
            1: payload(1),
        }
        (bare,) = backend.retrieve([IDS[5]], keys=["metadata.language"])
        assert bare.payload == {"metadata": {"language": payload(5)["metadata"]["language"]}}
        assert backend.retrieve([IDS[5]], keys=[])[0].payload == {}
        backend.delete([IDS[5], str(uuid.uuid4())])
        assert backend.retrieve([IDS[5]]) == []
        backend.delete_where(Selection(languages=("th",)))
        assert backend.count(Selection(languages=("th",))) == 0
        left = COUNT - 7
        assert backend.count(EVERYTHING) == backend.status().points == left
        backend.delete_where(EVERYTHING)
        assert backend.count(EVERYTHING) == 0

    def test_writing_again_changes_nothing_and_replaces_what_differs(self, made):
        layout = LAYOUTS["all"]
        backend = made(layout)
        backend.upsert(batch_of(layout, range(COUNT)))
        changed = batch_of(layout, [3])
        changed.payloads[0] = {"page_content": "new"}
        backend.upsert(changed)
        assert backend.count(EVERYTHING) == COUNT
        assert backend.retrieve([IDS[3]])[0].payload == {"page_content": "new"}

    def test_payloads_come_back_as_they_were(self, home, made, request):
        values = {"n": -(2**63), "m": 2**63 - 1, "f": 0.1, "whole": 2.0, "yes": True, "no": None}
        values |= {"l": [1, "x", [3.5, None]], "o": {"": "e", "a": {"b": 1}}, "s": "ñ \u0000 日本語 \U0001f600"}
        backend = made(LAYOUTS["plain"], points=[])
        backend.upsert(Batch(IDS[:1], {"": VECTORS[:1]}, {}, [{"metadata": values}], 100))
        (row,) = backend.retrieve(IDS[:1])
        assert row.payload == {"metadata": values}
        assert [type(value) for value in row.payload["metadata"].values()].count(bool) == 1
        large = Batch(IDS[:1], {"": VECTORS[:1]}, {}, [{"f2rag": {"id": "mine"}, "metadata": {"n": 2**63}}], 100)
        if request.node.callspec.params["home"] == "server":
            with pytest.raises(DocumentError, match=r"Document 'mine' cannot be sent over gRPC.*grpc_port=None"):
                backend.upsert(large)
        else:
            backend.upsert(large)
            assert backend.retrieve(IDS[:1])[0].payload["metadata"] == {"n": 2**63}

    def test_pages_follow_the_ids_and_a_filter(self, made):
        backend = made()
        seen, offset = [], None
        while True:
            rows, offset = backend.scroll(selection=Selection(languages=("fr", "th")), offset=offset, limit=7)
            seen += numbers(rows)
            if offset is None:
                break
        assert seen == [n for n in range(COUNT) if payload(n)["metadata"]["language"] in ("fr", "th")]


class TestAliases:
    def test_they_stand_for_a_collection_and_switch(self, home, name):
        for version, count in (("1", 3), ("2", 5)):
            home.create(name + version, {"version": version}, layout=LAYOUTS["plain"], dimensions=WIDTH)
            backend = home.open(name + version)
            backend.upsert(batch_of(LAYOUTS["plain"], range(count)))
            backend.close()
        for version, count in (("1", 3), ("1", 3), ("2", 5), ("1", 3)):
            home.switch_alias(name, name + version)
            assert home.aliases()[name] == name + version
            backend = home.open(name)
            assert (backend.count(EVERYTHING), backend.read_contract()) == (count, {"version": version})
            backend.close()
            assert (home.info(name).name, home.info(name).points) == (name, count)
        assert [each for each in home.collections() if each.startswith(name)] == [name + "1", name + "2"]
        home.switch_alias(name + "-also", name + "1")
        home.drop(name + "1")
        assert [alias for alias in home.aliases() if alias.startswith(name)] == []
        home.switch_alias(name, name + "2")
        home.drop(name + "2")

    def test_names_do_not_clash(self, home, made, name):
        made(LAYOUTS["plain"], points=[]).close()
        with pytest.raises(InputError, match="is a collection"):
            home.switch_alias(name, name)
        with pytest.raises(CollectionNotFoundError, match="no such collection"):
            home.switch_alias(name + "-alias", name + "-absent")
        home.switch_alias(name + "-alias", name)
        with pytest.raises(InputError, match="is an alias"):
            home.create(name + "-alias", RECORD, layout=LAYOUTS["plain"], dimensions=WIDTH)


class TestStatus:
    def test_it_names_the_engine(self, home, made):
        engines = {"memory": "qdrant-client local mode", "edge": "qdrant-edge-py 0.9.0", "server": "Qdrant 1.17.0"}
        backend = made()
        status = backend.status()
        assert (status.points, status.engine) == (COUNT, engines[home.kind])
        assert backend.version == {"memory": None, "edge": (1, 20, 0), "server": (1, 17, 0)}[home.kind]
        seen = []
        assert backend.optimize(wait=60, on_progress=seen.append) in (True, False)
        assert backend.status().state == "ready"
        assert all(each.engine == status.engine for each in seen)
        assert backend.optimize(wait=None, on_progress=None) is False

    def test_waiting_ends_with_the_index(self, qdrant_server):
        client = qdrant_server.client(prefer_grpc=True)
        home = ClientHome(connection_of(client, owned=True))
        name = f"backends-{uuid.uuid4().hex}"
        home.create(name, RECORD, layout=Layout(), dimensions=256)
        backend = home.open(name)
        rows = unit_rows(2000, 256, 3)
        ids = [str(uuid.UUID(int=number)) for number in range(2000)]
        backend.upsert(Batch(ids, {"": rows}, {}, [{} for _ in ids], 10**6))
        client.update_collection(name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=100))
        seen = []
        assert backend.optimize(wait=120, on_progress=seen.append) is True
        assert {"ready"} < {each.state for each in seen}
        assert client.get_collection(name).indexed_vectors_count == 2000
        home.drop(name)
        home.close()

    def test_the_folder_says_what_is_not_indexed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(edge, "OPTIMIZE_FROM", 200)
        home = EdgeHome(tmp_path / "home")
        layout = LAYOUTS["all"]
        home.create("c", RECORD, layout=layout, dimensions=WIDTH)
        backend = home.open("c")
        backend.upsert(batch_of(layout, range(COUNT)))
        assert backend.status().detail == ""  # so few that the engine would build none
        monkeypatch.setattr(edge, "INDEX_BYTES", 1000)
        assert backend.status().detail.startswith("240 documents are not in the index yet")
        assert backend.status().state == "ready"
        seen = []
        backend.optimize(wait=None, on_progress=seen.append)
        assert len(seen) == 2
        backend.close()


class TestOldServers:
    def test_weights_are_refused_where_they_would_be_dropped(self, old_qdrant_server):
        home = ClientHome(connection_of(old_qdrant_server.client(), owned=True))
        name = f"backends-{uuid.uuid4().hex}"
        home.create(name, RECORD, layout=LAYOUTS["all"], dimensions=WIDTH)
        backend = home.open(name)
        backend.upsert(batch_of(LAYOUTS["all"], range(20)))
        halves = (Nearest(vector=QUERY, using="", limit=5), Nearest(vector=words(1), using="bm25", limit=5))
        with pytest.raises(UnsupportedFeatureError, match=r"1\.16\.3; weights .* 1\.17\.0"):
            every(Fused(searches=halves, limit=5, constant=60, weights=(1.0, 2.0)), backend)
        assert len(every(Fused(searches=halves, limit=5, constant=60), backend)) == 5
        assert backend.status().engine == "Qdrant 1.16.3"
        home.drop(name)
        home.close()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"datatype": None}, "datatype of the vector '' is None"),
            ({"on_disk": None}, "on_disk of the vector '' is None"),
            ({"hnsw_config": None}, "the vector '' has a graph"),
            ({"hnsw_config": models.HnswConfigDiff(m=16)}, "the vector '' has a graph"),
            ({"size": 3}, "size of the vector '' is 3 instead of 32"),
        ],
        ids=str,
    )
    def test_what_a_server_dropped_is_seen(self, change, said):
        wanted = vectors_of(Layout(levels=(8,), quantization="int8"), dimensions=WIDTH)
        whole = models.CollectionParams(vectors=wanted, sparse_vectors=None)
        assert lost(wanted, whole, words=False) == []
        made = {**wanted, "": wanted[""].model_copy(update=change)}
        (difference,) = lost(wanted, models.CollectionParams(vectors=made), words=False)
        assert difference.startswith(said)

    def test_lost_compression_levels_and_words_are_seen(self):
        wanted = vectors_of(Layout(levels=(8,), quantization="int8"), dimensions=WIDTH)
        bare = {**wanted, "mrl8": wanted["mrl8"].model_copy(update={"quantization_config": None})}
        (difference,) = lost(wanted, models.CollectionParams(vectors=bare), words=False)
        assert difference == "the compression of the vector 'mrl8' is none instead of scalar in memory"
        without = models.CollectionParams(vectors={"": wanted[""]})
        assert "size of the vector 'mrl8' is None instead of 8" in lost(wanted, without, words=False)
        (difference,) = lost(wanted, models.CollectionParams(vectors=wanted, sparse_vectors={}), words=True)
        assert "no IDF" in difference

    def test_a_collection_made_otherwise_is_removed_again(self, monkeypatch):
        client = QdrantClient(":memory:")
        home = ClientHome(connection_of(client, owned=True))
        create = client.create_collection
        monkeypatch.setattr(
            client, "create_collection", lambda name, **given: create(name, **{**given, "sparse_vectors_config": None})
        )
        with pytest.raises(UnsupportedFeatureError, match=r"did not make collection 'c' as asked: .*'bm25' has no IDF"):
            home.create("c", RECORD, layout=LAYOUTS["all"], dimensions=WIDTH)
        assert home.collections() == []
        home.close()
