"""Two results side by side."""

from __future__ import annotations

import json

import pytest

from f2rag.comparison import compare
from f2rag.errors import InputError
from f2rag.types import Hit, SearchResult, Timings


def result(ids, *, dimensions=64, score=0.5):
    hits = [Hit(id=key, score=score - place / 100, text=f"text {key}") for place, key in enumerate(ids)]
    timings = Timings(encode_ms=2.0, search_ms=1.0)
    return SearchResult(
        query="q", instruction="i", model="m", dimensions=dimensions, mode="exact", hits=hits, timings=timings
    )


def ranks(comparison):
    return [(row.hit.id, row.left_rank, row.right_rank, row.change) for row in comparison.rows]


def test_every_document_of_either_side_once():
    found = compare(result("abcd"), result("cafb"))
    assert ranks(found) == [
        ("a", 1, 2, -1),
        ("b", 2, 4, -2),
        ("c", 3, 1, 2),
        ("d", 4, None, None),
        ("f", None, 3, None),
    ]
    assert found.overlap == 3 / 4


def test_a_hit_is_the_lefts_where_the_left_has_it():
    found = compare(result("a", score=0.9), result("ab", score=0.3))
    assert [row.hit.score for row in found.rows] == [0.9, pytest.approx(0.29)]


def test_only_the_first_ones_count():
    found = compare(result("abc"), result("bca"), limit=2)
    assert ranks(found) == [("a", 1, None, None), ("b", 2, 1, 1), ("c", None, 2, None)]
    assert found.overlap == 1 / 2
    assert len(found.left.hits) == 3


@pytest.mark.parametrize(
    ("left", "right", "overlap"), [("", "", 1), ("abc", "bca", 1), ("ab", "cd", 0), ("abcd", "a", 1 / 4), ("", "a", 0)]
)
def test_the_overlap_is_of_the_longer_side(left, right, overlap):
    assert compare(result(left), result(right)).overlap == overlap


def test_as_json():
    left, right = result("ab", dimensions=256), result("b")
    stored = json.loads(json.dumps(compare(left, right).to_dict()))
    assert stored["rows"] == [
        {"id": "a", "left_rank": 1, "right_rank": None, "change": None},
        {"id": "b", "left_rank": 2, "right_rank": 1, "change": 1},
    ]
    assert (stored["overlap"], stored["limit"]) == (0.5, 10)
    assert stored["left"] == {
        "query": "q",
        "instruction": "i",
        "model": "m",
        "dimensions": 256,
        "mode": "exact",
        "timings": {"encode_ms": 2.0, "search_ms": 1.0},
        "hits": [{"id": "a", "score": 0.5}, {"id": "b", "score": 0.49}],
    }
    assert stored["right"]["dimensions"] == 64


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
def test_a_limit_below_one(limit):
    with pytest.raises(InputError, match="limit"):
        compare(result("a"), result("a"), limit=limit)
