"""Filters: written once, they find the same in every home."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import models

from f2rag.errors import (
    InputError,
)
from f2rag.store import QdrantStore, homes
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]


def unit(axis, dimensions=DIMENSIONS):
    return np.eye(dimensions, dtype=np.float32)[axis]


def fill(store, encoder, documents):
    return store.upsert(documents, encoder.embed_documents([document.text for document in documents]))


def field(key, **comparison):
    return models.FieldCondition(key=f"metadata.{key}", **comparison)


def value(key, wanted):
    return field(key, match=models.MatchValue(value=wanted))


def must(*conditions):
    return models.Filter(must=list(conditions))


def geo(lon, lat):
    return models.GeoPoint(lon=lon, lat=lat)


FILTERED = [
    Document(
        id="a",
        text="The quick brown fox",
        language="en",
        metadata={
            "year": 2001,
            "tags": ["x", "y"],
            "when": "2024-01-15T10:00:00Z",
            "day": "2024-01-15",
            "ok": True,
            "none": None,
            "empty": [],
            "place": {"lon": 13.4, "lat": 52.5, "open": False},
            "parts": [{"k": "p", "n": 1, "new": True}, {"k": "q", "n": 5}],
            "name": "alpha beta",
            "two words": True,
            "flags": [True, False],
        },
    ),
    Document(
        id="b",
        text="jumps over the dog",
        language="fr",
        metadata={
            "year": 2010,
            "tags": ["y"],
            "when": "2024-06-15T10:00:00+02:00",
            "day": "2024-06-15",
            "ok": False,
            "place": {"lon": 2.35, "lat": 48.85, "open": True},
            "parts": [{"k": "p", "n": 7, "new": False}],
            "name": "Beta gamma",
        },
    ),
    Document(
        id="c",
        text="third lazy text",
        metadata={"year": 2020, "tags": ["z", "x", "w"], "name": "gamma delta", "parts": []},
    ),
]
POLYGON = models.GeoPolygon(
    exterior=models.GeoLineString(points=[geo(10, 50), geo(15, 50), geo(15, 55), geo(10, 55), geo(10, 50)]),
    interiors=[models.GeoLineString(points=[geo(11, 51), geo(12, 51), geo(12, 52), geo(11, 51)])],
)
BOX = models.GeoBoundingBox(top_left=geo(10, 55), bottom_right=geo(15, 50))
NESTED = models.Filter(must=[models.FieldCondition(key="k", match=models.MatchValue(value="p"))])
NESTED_BOTH = models.Filter(
    must=[
        models.FieldCondition(key="k", match=models.MatchValue(value="p")),
        models.FieldCondition(key="n", range=models.Range(gt=3)),
    ]
)
UTC = datetime.UTC


def nested(inner):
    return models.NestedCondition(nested=models.Nested(key="metadata.parts", filter=inner))


@pytest.fixture(scope="module", params=["memory", "edge", "client-local"])
def filled(request, tmp_path_factory):
    """One store for all filters, which only read."""
    encoder = FakeEncoder(dimensions=DIMENSIONS)
    location = ":memory:" if request.param == "memory" else tmp_path_factory.mktemp("filters")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "client-local":
            patch.setattr(homes, "edge_installed", lambda: False)
        store = QdrantStore.open(location, contract=encoder.contract())
    with store:
        assert store.home == request.param
        fill(store, encoder, FILTERED)
        yield store


class TestFilters:
    """A filter is written once and finds the same in every home."""

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            pytest.param(wanted, expected, id=name)
            for name, wanted, expected in [
                ("value text", must(value("tags", "x")), "ac"),
                ("value number", must(value("year", 2001)), "a"),
                ("value true", must(value("ok", True)), "a"),
                ("value false", must(value("ok", False)), "b"),
                ("value not true", models.Filter(must_not=[value("ok", True)]), "bc"),
                ("value true in object", must(value("place.open", True)), "b"),
                ("value true in list", must(value("flags", False)), "a"),
                ("value true in objects", must(value("parts[].new", True)), "a"),
                ("value true quoted key", must(value('"two words"', True)), "a"),
                ("any", must(field("tags", match=models.MatchAny(any=["z", "y"]))), "abc"),
                ("any number", must(field("year", match=models.MatchAny(any=[2010, 2020]))), "bc"),
                ("any of nothing", must(field("tags", match=models.MatchAny(any=[]))), ""),
                ("except", must(field("tags", match=models.MatchExcept(**{"except": ["y"]}))), "ac"),
                ("text", must(field("name", match=models.MatchText(text="beta alpha"))), "a"),
                ("text any", must(field("name", match=models.MatchTextAny(text_any="alpha delta"))), "ac"),
                ("phrase", must(field("name", match=models.MatchPhrase(phrase="alpha beta"))), "a"),
                ("prefix", must(field("name", match=models.MatchPrefix(prefix="gam"))), "c"),
                ("substring", must(field("name", match=models.MatchSubstring(substring="eta g"))), "b"),
                (
                    "text of the document",
                    must(models.FieldCondition(key="page_content", match=models.MatchText(text="fox"))),
                    "a",
                ),
                ("range", must(field("year", range=models.Range(gte=2010))), "bc"),
                ("range open", must(field("year", range=models.Range(gt=2001, lt=2020))), "b"),
                ("range in objects", must(field("parts[].n", range=models.Range(lte=5))), "a"),
                (
                    "naive date is UTC",
                    must(field("when", range=models.DatetimeRange(gt=datetime.datetime(2024, 3, 1)))),
                    "b",
                ),
                (
                    "zones",
                    must(field("when", range=models.DatetimeRange(gte=datetime.datetime(2024, 6, 15, 8, tzinfo=UTC)))),
                    "b",
                ),
                (
                    "zones, just before",
                    must(field("when", range=models.DatetimeRange(lt=datetime.datetime(2024, 6, 15, 8, tzinfo=UTC)))),
                    "a",
                ),
                ("day", must(field("day", range=models.DatetimeRange(lte=datetime.date(2024, 3, 1)))), "a"),
                ("box", must(field("place", geo_bounding_box=BOX)), "a"),
                ("radius", must(field("place", geo_radius=models.GeoRadius(center=geo(2, 48), radius=200_000))), "b"),
                ("polygon", must(field("place", geo_polygon=POLYGON)), "a"),
                ("count of values", must(field("tags", values_count=models.ValuesCount(gte=2))), "ac"),
                ("field empty", must(field("place", is_empty=True)), "c"),
                ("field not empty", must(field("place", is_empty=False)), "ab"),
                ("field null", must(field("none", is_null=True)), "a"),
                ("is empty", must(models.IsEmptyCondition(is_empty=models.PayloadField(key="metadata.ok"))), "c"),
                ("is null", must(models.IsNullCondition(is_null=models.PayloadField(key="metadata.none"))), "a"),
                ("ids", must(models.HasIdCondition(has_id=["a", "c", "nope"])), "ac"),
                ("has vector", must(models.HasVectorCondition(has_vector="")), "abc"),
                ("nested, one element", must(nested(NESTED_BOTH)), "b"),
                ("nested, not", models.Filter(must_not=[nested(NESTED)]), "c"),
                ("one condition, no list", models.Filter(must=field("year", range=models.Range(gte=2010))), "bc"),
                ("should", models.Filter(should=[value("year", 2001), models.HasIdCondition(has_id=["c"])]), "ac"),
                ("must not", models.Filter(must_not=[models.HasIdCondition(has_id=["c"])]), "ab"),
                (
                    "at least two",
                    models.Filter(
                        min_should=models.MinShould(
                            min_count=2,
                            conditions=[
                                value("tags", "x"),
                                field("year", range=models.Range(lt=2015)),
                                models.HasIdCondition(has_id=["c"]),
                            ],
                        )
                    ),
                    "ac",
                ),
                (
                    "deep",
                    must(
                        models.Filter(
                            should=[
                                models.HasIdCondition(has_id=["a"]),
                                models.Filter(must_not=[field("ok", is_empty=True)]),
                            ]
                        )
                    ),
                    "ab",
                ),
                ("nothing asked", models.Filter(), "abc"),
                ("empty lists", models.Filter(must=[], must_not=[]), "abc"),
            ]
        ],
    )
    def test_finds(self, filled, wanted, expected):
        before = wanted.model_dump_json()
        assert "".join(sorted(hit.id for hit in filled.search(unit(0), filter=wanted))) == expected
        assert filled.count(filter=wanted) == len(expected)
        in_english = filled.search(unit(0), filter=wanted, language="en")
        assert [hit.id for hit in in_english] == [key for key in expected if key == "a"]
        assert wanted.model_dump_json() == before

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (must(models.SliceCondition(slice=models.Slice(total=2, index=0))), "cannot hold a SliceCondition"),
            (must(nested(must(models.SliceCondition(slice=models.Slice(total=2, index=0))))), "SliceCondition"),
            (must(field("year")), "'metadata.year' compares nothing"),
            (
                must(field("year", match=models.MatchValue(value=1), range=models.Range(gt=0))),
                "compares match and range",
            ),
            (must(value("", 1)), "cannot read the filter|refuses"),
            (must(value(".x[", 1)), "cannot read the filter|refuses"),
        ],
    )
    def test_refuses_by_name(self, filled, wanted, message):
        with pytest.raises(InputError, match=message):
            filled.search(unit(0), filter=wanted)
        with pytest.raises(InputError, match=message):
            filled.count(filter=wanted)


class TestEdgeFilters:
    """What only the translation to the embedded engine has to refuse."""

    @pytest.mark.parametrize(
        "wanted",
        [
            must(nested(must(models.FieldCondition(key="new", match=models.MatchValue(value=True))))),
            must(value("flags[0]", True)),
            must(models.FieldCondition(key="ok", match=models.MatchValue(value=True))),
        ],
    )
    def test_a_boolean_that_it_cannot_reach(self, in_folder, wanted):
        with pytest.raises(InputError, match="true or false"):
            in_folder.search(unit(0), filter=wanted)

    def test_a_match_that_it_does_not_know(self, in_folder):
        class MatchSoundex(models.MatchText):
            pass

        condition = models.FieldCondition.model_construct(key="metadata.x", match=MatchSoundex(text="x"))
        with pytest.raises(InputError, match="has no MatchSoundex; it knows MatchValue"):
            in_folder.search(unit(0), filter=models.Filter.model_construct(must=[condition]))

    def test_a_comparison_that_it_does_not_know(self, in_folder):
        class Field(models.FieldCondition):
            smells_like: str

        Field.__name__ = "FieldCondition"
        with pytest.raises(InputError, match="cannot compare a field by smells_like"):
            in_folder.search(
                unit(0), filter=models.Filter.model_construct(must=[Field(key="metadata.x", smells_like="y")])
            )

    def test_the_engine_still_needs_the_detour_for_booleans(self, tmp_path):
        """Fails when an upgrade matches booleans: then ``f2rag.true`` and ``f2rag.false`` can go."""
        parameters = qdrant_edge.EdgeVectorParams(1, qdrant_edge.Distance.Cosine)
        shard = qdrant_edge.EdgeShard.create(str(tmp_path), qdrant_edge.EdgeConfig(vectors=parameters))
        shard.update(qdrant_edge.UpdateOperation.upsert_points([qdrant_edge.Point(1, [1.0], {"ok": True})]))
        match = qdrant_edge.FieldCondition("ok", match=qdrant_edge.MatchValue(True))
        assert shard.count(qdrant_edge.CountRequest(filter=qdrant_edge.Filter(must=[match]))) == 0
        shard.close()
