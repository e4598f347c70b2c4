"""A home held open: each collection opened once, described while it is open, and closed with the home."""

from __future__ import annotations

import logging
import shutil
import threading

import numpy as np
import pytest

from f2rag.errors import (
    CollectionNotFoundError,
    ContractMismatchError,
    InputError,
    StoreError,
    StoreLockedError,
)
from f2rag.store import (
    CollectionInfo,
    Collections,
    Layout,
    QdrantStore,
    Server,
    drop_collection,
    homes,
    list_collections,
    switch_alias,
)
from f2rag.testing import FakeEncoder
from f2rag.types import Document

LEVELS = Layout(levels=(8,))


@pytest.fixture
def collections(place):
    with Collections(place.location) as collections:
        yield collections


def fill(store, encoder, *texts):
    store.upsert([Document(id=text, text=text) for text in texts], encoder.embed_documents(list(texts)))


class TestOpening:
    def test_what_it_says_about_itself(self, collections, place):
        location = ":memory:" if place.kind == "memory" else str(place.location)
        if place.kind == "server":
            location = f"Qdrant at {place.location.url}"
        assert (collections.kind, collections.location) == (place.kind, location)
        assert repr(collections) == f"Collections({collections.location!r}, home={place.kind!r})"

    def test_a_collection_is_opened_once(self, collections, encoder):
        store = collections.open("faq", contract=encoder.contract(), layout=LEVELS)
        fill(store, encoder, "red house")
        again = collections.open("faq")
        assert again is store
        assert collections.open("faq", contract=encoder.contract(), layout=LEVELS) is store
        other = collections.open("other", contract=encoder.contract(dimensions=16))
        assert other is not store
        assert (store.count(), other.count()) == (1, 0)
        assert store.search(encoder.embed_query("house"))[0].text == "red house"

    def test_an_open_one_is_held_to_what_is_asked(self, collections, encoder):
        store = collections.open("faq", contract=encoder.contract())
        with pytest.raises(ContractMismatchError, match="dimensions: stored 32, given 16"):
            collections.open("faq", contract=encoder.contract(dimensions=16))
        with pytest.raises(ContractMismatchError, match="another layout"):
            collections.open("faq", contract=encoder.contract(), layout=LEVELS)
        assert collections.open("faq") is store
        assert store.count() == 0

    def test_what_is_absent_or_impossible(self, collections, encoder):
        with pytest.raises(CollectionNotFoundError, match=r"'nope'.*it holds none"):
            collections.open("nope")
        with pytest.raises(CollectionNotFoundError, match="'nope'"):
            collections.open("nope", contract=encoder.contract(), create=False)
        with pytest.raises(InputError, match="cannot name a collection"):
            collections.open("../x", contract=encoder.contract())
        assert collections.list() == []

    def test_a_closed_store_is_opened_anew(self, collections, encoder):
        with collections.open("faq", contract=encoder.contract()) as store:
            fill(store, encoder, "red house")
        assert [info.points for info in collections.list()] == [1]
        again = collections.open("faq")
        assert again is not store
        assert again.count() == 1

    def test_an_alias_means_the_same_store(self, collections, place, encoder):
        old = collections.open("old", contract=encoder.contract())
        old.switch_alias("current")
        assert collections.open("current") is old
        assert collections.aliases() == {"current": "old"}
        new = collections.open("new", contract=encoder.contract())
        new.switch_alias("current")
        assert collections.open("current") is new
        assert new.collection == "new"
        assert [info.name for info in collections.list()] == ["new", "old"]

    def test_a_foreign_collection_is_listed_and_adopted(self, collections, place, encoder):
        if place.kind == "client-local":
            collections.close()  # another client cannot fill the folder meanwhile
        place.make_foreign("theirs")
        with Collections(place.location) as opened:
            assert opened.list() == [CollectionInfo(name="theirs", contract=None, layout=None, points=1)]
            with pytest.raises(ContractMismatchError, match="has no f2rag contract"):
                opened.open("theirs", contract=encoder.contract())
            store = opened.open("theirs", contract=encoder.contract(), adopt=True)
            assert opened.open("theirs") is store
            assert opened.list() == [
                CollectionInfo(name="theirs", contract=encoder.contract(), layout=Layout(), points=1)
            ]

    def test_threads_share_it(self, collections, encoder):
        barrier = threading.Barrier(4)
        stores, errors = [], []

        def work():
            try:
                barrier.wait()
                for number in range(5):
                    store = collections.open(f"c{number}", contract=encoder.contract())
                    store.search(encoder.embed_query("x"))
                    stores.append(store)
                    assert all(info.points == 0 for info in collections.list())
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(stores) == 20
        assert len({id(store) for store in stores}) == 5


class TestListing:
    def test_open_ones_are_counted_and_others_too(self, place, encoder):
        with Collections(place.location) as collections:
            fill(collections.open("b", contract=encoder.contract()), encoder, "one", "two")
            collections.open("a", contract=encoder.contract(dimensions=16), layout=LEVELS)
            expected = [
                CollectionInfo(name="a", contract=encoder.contract(dimensions=16), layout=LEVELS, points=0),
                CollectionInfo(name="b", contract=encoder.contract(), layout=Layout(), points=2),
            ]
            assert collections.list() == expected
            fill(collections.open("b"), encoder, "three")
            assert [info.points for info in collections.list()] == [0, 3]
        with Collections(place.location) as collections:
            assert [(info.name, info.points) for info in collections.list()] == [("a", 0), ("b", 3)]
        assert [info.points for info in list_collections(place.location)] == [0, 3]

    @pytest.mark.parametrize("place", ["server"], indirect=True)
    def test_one_that_is_dropped_while_the_list_is_made_is_left_out(self, place, collections, encoder, monkeypatch):
        for name in ("goes", "stays"):
            collections.open(name, contract=encoder.contract())
        listed = collections._home.collections

        def names():
            found = listed()
            monkeypatch.undo()
            drop_collection(place.location, "goes")
            return found

        monkeypatch.setattr(collections._home, "collections", names)
        assert [info.name for info in collections.list()] == ["stays"]


class TestDropping:
    def test_a_dropped_collection_is_closed_and_gone(self, collections, encoder):
        store = collections.open("faq", contract=encoder.contract())
        fill(store, encoder, "red house")
        collections.drop("faq")
        with pytest.raises(StoreError, match="is closed"):
            store.count()
        assert collections.list() == []
        with pytest.raises(CollectionNotFoundError):
            collections.open("faq")
        with pytest.raises(CollectionNotFoundError, match="'faq'"):
            collections.drop("faq")
        fresh = collections.open("faq", contract=encoder.contract(dimensions=16), layout=LEVELS)
        assert (fresh.count(), fresh.dimensions, fresh.layout) == (0, 16, LEVELS)

    def test_one_that_is_not_open_is_dropped_as_well(self, place, encoder):
        with Collections(place.location) as collections:
            collections.open("faq", contract=encoder.contract())
        with Collections(place.location) as collections:
            collections.drop("faq")
            assert collections.list() == []

    def test_an_alias_is_refused_and_its_store_stays(self, collections, encoder):
        store = collections.open("faq", contract=encoder.contract())
        store.switch_alias("current")
        with pytest.raises(InputError, match="'current' is an alias of 'faq'"):
            collections.drop("current")
        with pytest.raises(InputError, match="cannot name"):
            collections.drop("../faq")
        assert store.count() == 0


class TestClosing:
    def test_every_store_is_closed_with_it(self, place, encoder):
        collections = Collections(place.location)
        store = collections.open("faq", contract=encoder.contract())
        collections.close()
        collections.close()
        with pytest.raises(StoreError, match="is closed"):
            store.count()
        uses = (collections.list, collections.aliases, lambda: collections.open("x"), lambda: collections.drop("x"))
        for use in uses:
            with pytest.raises(StoreError, match=r"are closed\. Make a new Collections"):
                use()
        with place.open(collection="faq") as again:
            assert again.count() == 0


class TestOtherProcesses:
    """What another process, or another way to the same home, does meanwhile."""

    def test_the_embedded_engine_is_held(self, tmp_path, encoder):
        with Collections(tmp_path / "home") as collections:
            assert collections.list() == []
            assert not (tmp_path / "home").exists()
            collections.open("mine", contract=encoder.contract())
            with pytest.raises(StoreLockedError):
                QdrantStore.open(tmp_path / "home", collection="mine")
            with pytest.raises(StoreLockedError):
                drop_collection(tmp_path / "home", "mine")
            with QdrantStore.open(tmp_path / "home", collection="theirs", contract=encoder.contract()):
                assert [(info.name, info.points) for info in collections.list()] == [("mine", 0), ("theirs", None)]
                with pytest.raises(StoreLockedError):
                    collections.open("theirs")
                with pytest.raises(StoreLockedError):
                    collections.drop("theirs")
            assert collections.open("theirs").count() == 0

    def test_a_folder_that_is_deleted_under_it(self, tmp_path, encoder):
        with Collections(tmp_path / "home") as collections:
            fill(collections.open("faq", contract=encoder.contract()), encoder, "red house")
            shutil.rmtree(tmp_path / "home" / "faq")
            assert collections.list() == []
            with pytest.raises(CollectionNotFoundError):
                collections.open("faq")
            assert collections.open("faq", contract=encoder.contract()).count() == 0

    @pytest.mark.parametrize("place", ["memory", "server"], indirect=True)
    def test_a_collection_that_was_made_anew_is_opened_anew(self, place, collections, encoder):
        store = collections.open("faq", contract=encoder.contract())
        fill(store, encoder, "red house")
        drop_collection(place.location, "faq")
        assert collections.list() == []
        with pytest.raises(CollectionNotFoundError):
            collections.open("faq")
        place.open(encoder.contract(dimensions=16), collection="faq", layout=LEVELS).close()
        again = collections.open("faq")
        assert (again.dimensions, again.layout, again.count()) == (16, LEVELS, 0)
        other = FakeEncoder(dimensions=16, model_name="another")
        drop_collection(place.location, "faq")
        place.open(other.contract(), collection="faq").close()
        with pytest.raises(ContractMismatchError, match="model: stored 'another', given 'fake'"):
            collections.open("faq", contract=encoder.contract(dimensions=16))
        assert collections.open("faq").contract == other.contract()
        with pytest.raises(StoreError, match="is closed"):
            again.count()
        assert [info.contract for info in collections.list()] == [other.contract()]

    @pytest.mark.parametrize("place", ["server"], indirect=True)
    def test_an_alias_that_was_switched_elsewhere(self, place, collections, encoder):
        old = collections.open("old", contract=encoder.contract())
        new = collections.open("new", contract=encoder.contract())
        switch_alias(place.location, "current", "old")
        assert collections.open("current") is old
        switch_alias(place.location, "current", "new")
        assert collections.open("current") is new


def test_memory_is_one_home_as_long_as_it_is_open(encoder):
    with Collections(":memory:") as collections:
        fill(collections.open("faq", contract=encoder.contract()), encoder, "red house")
        assert [info.points for info in collections.list()] == [1]
    with Collections(":memory:") as collections:
        assert collections.list() == []


def test_the_local_folder_is_locked_as_a_whole(tmp_path, encoder, monkeypatch, caplog):
    monkeypatch.setattr(homes, "edge_installed", lambda: False)
    with caplog.at_level(logging.WARNING), Collections(tmp_path / "home") as collections:
        assert collections.kind == "client-local"
        collections.open("faq", contract=encoder.contract())
        assert collections.open("faq").count() == 0


@pytest.mark.parametrize("location", ["", "ftp://host", 5], ids=str)
def test_impossible_locations(location):
    with pytest.raises(InputError):
        Collections(location)


def test_the_location_of_a_server_has_no_key(encoder):
    with Collections(Server("http://127.0.0.1:1", api_key="s3cret", timeout=0.2)) as collections:
        assert collections.location == "Qdrant at http://127.0.0.1:1"
        assert "s3cret" not in repr(collections)
        with pytest.raises(StoreError) as caught:
            collections.list()
        assert "s3cret" not in str(caught.value)


def test_vectors_of_two_collections_do_not_mix(collections, encoder):
    for name, axis in (("a", 0), ("b", 1)):
        store = collections.open(name, contract=encoder.contract())
        store.upsert([Document(id=name, text=name)], np.eye(32, dtype=np.float32)[axis][None])
    assert [hit.id for hit in collections.open("a").search(np.eye(32, dtype=np.float32)[1])] == ["a"]
