"""The map: against numpy's singular values, the same every time, and meaning with the stand-in."""

from __future__ import annotations

import numpy as np
import pytest

from f2rag import F2LLMEncoder
from f2rag.contract import EmbeddingContract
from f2rag.corpus import load_udhr
from f2rag.errors import DimensionsError, InputError
from f2rag.projection import project
from f2rag.store import QdrantStore
from f2rag.types import Document
from f2rag.vectors import normalize


def rows_of(count, dimensions, seed=0):
    """Unit vectors whose variance falls from axis to axis, off the centre."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))
    rows = rng.standard_normal((count, dimensions)) * 0.7 ** np.arange(dimensions) @ turned.T
    return normalize(rows.astype(np.float32) + 0.3)


def filled(location, rows, **options):
    contract = EmbeddingContract(
        model="m", revision="1", native_dimensions=rows.shape[1], dimensions=rows.shape[1], dtype="float32"
    )
    store = QdrantStore.open(location, contract=contract, **options)
    store.upsert([Document(id=str(n), text=f"text {n}") for n in range(len(rows))], rows)
    return store


def by_id(found):
    return {document.key: place for document, place in zip(found.documents, found.coordinates, strict=True)}


@pytest.fixture(params=["memory", "folder"])
def location(request, tmp_path):
    return ":memory:" if request.param == "memory" else tmp_path


@pytest.mark.parametrize(("count", "dimensions"), [(200, 16), (20, 64), (33, 33)], ids=["tall", "wide", "square"])
def test_it_equals_the_singular_values_of_numpy(location, count, dimensions):
    rows = rows_of(count, dimensions)
    with filled(location, rows) as store:
        found = project(store)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ right[:2].T
    coordinates = np.array([by_id(found)[str(n)] for n in range(count)])
    assert coordinates.dtype == np.float32
    for axis in range(2):
        sign = np.sign(coordinates[:, axis] @ expected[:, axis])
        assert coordinates[:, axis] == pytest.approx(sign * expected[:, axis], abs=1e-5)
    assert found.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()), abs=1e-6)
    assert found.total == len(found.documents) == count
    assert np.linalg.norm(found.axes, axis=1) == pytest.approx([1, 1], abs=1e-6)


def test_the_sign_is_fixed(tmp_path):
    rows = rows_of(100, 16)
    with filled(tmp_path / "a", rows) as store, filled(tmp_path / "b", rows[::-1]) as reversed_store:
        found, again = project(store), project(reversed_store)
    assert (np.abs(found.axes).max(axis=1) == found.axes.max(axis=1)).all()
    # The same vectors under other ids, read in another order.
    there = by_id(again)
    for key, place in by_id(found).items():
        assert there[str(99 - int(key))] == pytest.approx(place, abs=1e-5)


def test_the_same_map_every_time(location):
    with filled(location, rows_of(100, 16)) as store:
        first, second = project(store), project(store)
    assert [each.key for each in first.documents] == [each.key for each in second.documents]
    assert (first.coordinates == second.coordinates).all()


def test_a_placed_document_lies_where_it_is(location):
    rows = rows_of(50, 16)
    with filled(location, rows) as store:
        found = project(store)
    placed = found.place(rows)
    assert placed.shape == (50, 2)
    assert placed.dtype == np.float32
    for key, place in by_id(found).items():
        assert placed[int(key)] == pytest.approx(place, abs=1e-6)
    assert found.place(rows[7]).shape == (1, 2)
    assert found.place(rows[7])[0] == pytest.approx(placed[7], abs=1e-6)
    assert found.place(found.mean) == pytest.approx(np.zeros((1, 2)), abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 15), (17,), (1, 2, 16)])
def test_vectors_of_another_width_have_no_place(shape):
    with filled(":memory:", rows_of(5, 16)) as store:
        found = project(store)
    with pytest.raises(DimensionsError, match="dimensions=16"):
        found.place(np.zeros(shape, dtype=np.float32))


def test_a_sample_is_the_first_by_id(location):
    rows = rows_of(1_200, 8)
    seen = []
    with filled(location, rows) as store:
        found = project(store, sample=700, on_progress=seen.append)
    documents = [Document(id=str(n), text="") for n in range(1_200)]
    first = sorted(documents, key=lambda document: document.point_id)[:700]
    assert {document.key for document in found.documents} == {document.key for document in first}
    assert (found.total, found.coordinates.shape) == (1_200, (700, 2))
    assert seen == [500, 700]
    # The axes are those of the sample.
    chosen = rows[[int(document.key) for document in found.documents]]
    assert found.mean == pytest.approx(chosen.mean(axis=0), abs=1e-6)


def test_documents_that_are_deleted_meanwhile_are_left_out(monkeypatch):
    with filled(":memory:", rows_of(6, 8)) as store:
        get = store.get
        monkeypatch.setattr(store, "get", lambda ids: [each for each in get(ids) if each.key != "3"])
        found = project(store)
    assert sorted(by_id(found)) == ["0", "1", "2", "4", "5"]


@pytest.mark.parametrize("rows", [np.empty((0, 8), np.float32), rows_of(1, 8), np.repeat(rows_of(1, 8), 9, axis=0)])
def test_documents_that_do_not_differ_lie_in_the_middle(rows):
    with filled(":memory:", rows) as store:
        found = project(store)
    assert found.coordinates.shape == (len(rows), 2)
    assert not found.coordinates.any()
    assert found.explained == (0, 0)
    assert not found.place(rows_of(3, 8)).any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("copies", [1, 20])
def test_two_texts_differ_along_one_axis(copies, seed):
    rows = np.repeat(rows_of(2, 8, seed=seed), copies, axis=0)
    with filled(":memory:", rows) as store:
        found = project(store)
    # What rounding leaves of the second axis is not shown.
    assert found.explained == (pytest.approx(1), 0)
    assert found.coordinates[:, 0].sum() == pytest.approx(0, abs=1e-5)
    assert np.abs(found.coordinates[:, 0]).min() > 0.1
    assert not found.coordinates[:, 1].any()


@pytest.mark.parametrize("sample", [0, -1, 1.5, True])
def test_a_sample_below_one(sample):
    with filled(":memory:", rows_of(3, 8)) as store, pytest.raises(InputError, match="sample"):
        project(store, sample=sample)


def test_articles_lie_together_in_all_languages():
    documents = [each for each in load_udhr(["en", "fr", "ru", "zh"]) if each.metadata["article"] in (15, 24, 26)]
    with F2LLMEncoder("stand-in", device="cpu", dtype="float32") as encoder:
        with QdrantStore.open(":memory:", contract=encoder.contract()) as store:
            store.upsert(documents, encoder.embed_documents([each.text for each in documents]))
            found = project(store)
        question = found.place(encoder.embed_queries(["Kann mir die Staatsangehörigkeit entzogen werden?"]))[0]
    articles = np.array([each.metadata["article"] for each in found.documents])
    middles = {article: found.coordinates[articles == article].mean(axis=0) for article in (15, 24, 26)}
    nearest = [
        min(middles, key=lambda article: np.linalg.norm(place - middles[article])) for place in found.coordinates
    ]
    assert nearest == articles.tolist()
    assert min(middles, key=lambda article: np.linalg.norm(question - middles[article])) == 15
