"""Opening, listing, dropping and sharing collections, in every home."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from f2rag.errors import (
    CollectionNotFoundError,
    ContractMismatchError,
    InputError,
    StoreError,
    StoreLockedError,
)
from f2rag.store import CollectionInfo, Layout, QdrantStore, drop_collection, homes, list_collections
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]


def unit(axis, dimensions=DIMENSIONS):
    return np.eye(dimensions, dtype=np.float32)[axis]


def fill(store, encoder, documents):
    return store.upsert(documents, encoder.embed_documents([document.text for document in documents]))


SOME = [
    Document(id="a", text="a red house", language="en", source="en.txt", metadata={"year": 2001}),
    Document(id="b", text="une maison rouge", language="fr", source="fr.txt", metadata={"year": 2010}),
    Document(id="c", text="the blue sea", language="en", source="en.txt", metadata={"year": 2020}),
    Document(id="d", text="no language at all"),
]


def value(key, wanted):
    return field(key, match=models.MatchValue(value=wanted))


def must(*conditions):
    return models.Filter(must=list(conditions))


def field(key, **comparison):
    return models.FieldCondition(key=f"metadata.{key}", **comparison)


def described(place):
    if place.kind == "memory":
        return ":memory:"
    return f"Qdrant at {place.location.url}" if place.kind == "server" else str(place.location)


class TestOpening:
    def test_what_it_says_about_itself(self, place, encoder):
        with place.open(encoder.contract(), collection="faq") as store:
            assert store.contract == encoder.contract()
            assert (store.collection, store.dimensions, store.home) == ("faq", DIMENSIONS, place.kind)
            assert store.location == described(place)
            assert repr(store) == f"QdrantStore({store.location!r}, collection='faq', home={place.kind!r})"

    def test_data_outlives_the_store(self, place, encoder):
        with place.open(encoder.contract()) as store:
            fill(store, encoder, SOME)
        with place.open() as store:
            assert store.contract == encoder.contract()
            assert store.count() == 4
            assert store.search(encoder.embed_documents(["the blue sea"])[0])[0].id == "c"
            assert store.languages() == {"en": 2, "fr": 1}

    def test_the_contract_is_checked(self, place, encoder):
        place.open(encoder.contract()).close()
        with pytest.raises(ContractMismatchError, match=r"dimensions: stored 32, given 16.*dimensions=32"):
            place.open(encoder.contract(dimensions=16))
        other = FakeEncoder(dimensions=DIMENSIONS, model_name="another")
        with pytest.raises(ContractMismatchError, match="model: stored 'fake', given 'another'"):
            place.open(other.contract())
        with place.open(encoder.contract()) as store:
            store.check(encoder.contract())
            with pytest.raises(ContractMismatchError, match="another"):
                store.check(other.contract())
        with place.open(other.contract(), collection="two") as store:
            assert store.contract.model == "another"

    def test_a_damaged_contract(self, place, encoder):
        place.open(encoder.contract()).close()
        place.rewrite_contract("documents", {"model": "edited"})
        with pytest.raises(StoreError, match="contract is damaged"):
            place.open(encoder.contract())
        assert list_collections(place.location) == [
            CollectionInfo(name="documents", contract=None, layout=None, points=0)
        ]

    def test_a_newer_contract(self, place, encoder):
        place.open(encoder.contract()).close()
        place.rewrite_contract("documents", {"schema_version": 99})
        with pytest.raises(StoreError, match="pip install --upgrade f2rag"):
            place.open()

    def test_a_foreign_collection(self, place, encoder):
        place.make_foreign("theirs")
        with pytest.raises(ContractMismatchError, match="has no f2rag contract"):
            place.open(encoder.contract(), collection="theirs")
        assert list_collections(place.location) == [CollectionInfo(name="theirs", contract=None, layout=None, points=1)]
        with place.open(encoder.contract(), collection="theirs", adopt=True) as store:
            theirs = Document(id="7", text="from LangChain", language="en", metadata={"page": 3})
            assert list(store.documents()) == [theirs]
            assert store.get(["7"]) == [theirs]
            assert store.languages() == {"en": 1}
            assert store.search(unit(0), language="en")[0].text == "from LangChain"
            assert store.count(filter=must(models.HasIdCondition(has_id=["7"]))) == 1
            assert store.states([Document(id="7", text="from LangChain")]) == ["new"]
            assert store.delete(["7"]) == 1
        place.open(encoder.contract(), collection="theirs").close()

    def test_a_foreign_collection_of_named_vectors_cannot_be_adopted(self, place, encoder):
        place.make_foreign("theirs", named=True)
        with pytest.raises(ContractMismatchError, match="no unnamed vector"):
            place.open(encoder.contract(), collection="theirs", adopt=True)

    @pytest.mark.parametrize("options", [{"contract": None}, {"create": False}])
    def test_an_absent_collection_lists_what_is_there(self, place, encoder, options):
        options = {"contract": encoder.contract(), **options}
        with pytest.raises(CollectionNotFoundError, match=r"'nope'.*it holds none"):
            place.open(collection="nope", **options)
        place.open(encoder.contract(), collection="one").close()
        place.open(encoder.contract(), collection="two").close()
        with pytest.raises(LookupError, match="it holds 'one', 'two'"):
            place.open(collection="nope", **options)

    @pytest.mark.parametrize(
        "name", ["", "..", ".", "../x", "a/b", "a\\b", "/etc", "a\0", "-x", ".x", "x.", "a" * 129, "é", " ", 5, None]
    )
    def test_impossible_names(self, place, encoder, name):
        with pytest.raises(InputError, match="cannot name a collection"):
            place.open(encoder.contract(), collection=name)
        with pytest.raises(InputError, match="cannot name a collection"):
            drop_collection(place.location, name)

    @pytest.mark.parametrize("name", ["a", "A-b_c.9", "_x", "9", "a" * 128])
    def test_possible_names(self, place, encoder, name):
        place.open(encoder.contract(), collection=name).close()
        assert [info.name for info in list_collections(place.location)] == [name]

    def test_list_and_drop(self, place, encoder):
        assert list_collections(place.location) == []
        with place.open(encoder.contract(), collection="b") as store:
            fill(store, encoder, SOME)
        place.open(encoder.contract(dimensions=8), collection="a").close()
        assert list_collections(place.location) == [
            CollectionInfo(name="a", contract=encoder.contract(dimensions=8), layout=Layout(), points=0),
            CollectionInfo(name="b", contract=encoder.contract(), layout=Layout(), points=4),
        ]
        drop_collection(place.location, "b")
        assert [info.name for info in list_collections(place.location)] == ["a"]
        with pytest.raises(CollectionNotFoundError, match=r"no collection 'b'.*it holds 'a'"):
            drop_collection(place.location, "b")
        with place.open(encoder.contract(), collection="b") as store:
            assert store.count() == 0

    def test_after_close_everything_is_refused(self, place, encoder):
        store = place.open(encoder.contract())
        fill(store, encoder, SOME)
        pages = store.documents()
        next(pages)
        store.close()
        store.close()
        for use in [
            lambda: fill(store, encoder, SOME),
            lambda: store.states(SOME),
            lambda: store.search(unit(0)),
            lambda: store.get(["a"]),
            lambda: store.delete(["a"]),
            store.count,
            store.languages,
            store.optimize,
            lambda: list(store.documents()),
        ]:
            with pytest.raises(StoreError, match="is closed"):
                use()
        with place.open() as again:
            assert again.count() == 4

    @pytest.mark.parametrize("location", ["", "  ", "a\0b", "ftp://host", 5, None])
    def test_impossible_locations(self, encoder, location):
        with pytest.raises(InputError, match=r"location|address"):
            QdrantStore.open(location, contract=encoder.contract())

    def test_an_address_with_a_password_is_not_repeated(self):
        with pytest.raises(InputError) as caught:
            list_collections("http://user:secret@host")
        assert "secret" not in str(caught.value)


class TestThreads:
    def test_searching_while_one_thread_writes(self, store, encoder):
        fill(store, encoder, SOME)
        stop = threading.Event()
        errors = []
        searches = []

        def search():
            try:
                while not stop.is_set():
                    assert store.search(encoder.embed_query("red house"), language="en")
                    assert store.count() >= 4
                    searches.append(1)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(8):
            fill(store, encoder, [Document(text=f"text {number} {part}", language="en") for part in range(20)])
            store.delete([Document(text=f"text {number} 0").key])
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert searches
        assert store.count() == 4 + 8 * 19

    def test_closing_under_a_searching_thread(self, store, encoder):
        fill(store, encoder, SOME)
        errors = []
        started = threading.Event()

        def search():
            try:
                while True:
                    store.search(unit(0))
                    started.set()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=search)
        thread.start()
        started.wait()
        store.close()
        thread.join()
        (error,) = errors
        assert isinstance(error, StoreError | ContractMismatchError)

    def test_two_stores_on_one_client_share_its_lock(self, encoder):
        client = QdrantClient(location=":memory:")
        stores = [QdrantStore.open(client, collection=name, contract=encoder.contract()) for name in "ab"]
        assert stores[0]._home.connection._lock is stores[1]._home.connection._lock
        for store in stores:
            store.close()
        assert [info.name for info in list_collections(client)] == ["a", "b"]  # the owner's client is still open
        client.close()


class TestMemory:
    def test_each_opening_is_a_new_home(self, encoder):
        with QdrantStore.open(":memory:", contract=encoder.contract()) as store:
            fill(store, encoder, SOME)
            assert store.home == "memory"
        with QdrantStore.open(":memory:", contract=encoder.contract()) as store:
            assert store.count() == 0
        assert list_collections(":memory:") == []

    def test_a_clients_own_failure_names_the_place(self, encoder):
        client = QdrantClient(location=":memory:")
        store = QdrantStore.open(client, contract=encoder.contract())
        client.delete_collection("documents")
        with pytest.raises(StoreError, match=r":memory:: the storage engine failed.*not found"):
            store.count()
        client.close()


class TestFallback:
    def test_it_says_so(self, tmp_path, encoder, monkeypatch, caplog):
        monkeypatch.setattr(homes, "edge_installed", lambda: False)
        with (
            caplog.at_level(logging.WARNING, logger="f2rag"),
            QdrantStore.open(tmp_path, contract=encoder.contract()) as store,
        ):
            assert store.home == "client-local"
        assert "qdrant-edge-py is not installed" in caplog.text
        assert "unpickles" in caplog.text

    def test_it_is_taken_where_the_engine_cannot_be_imported(self, monkeypatch):
        assert homes.edge_installed()
        monkeypatch.setitem(sys.modules, "qdrant_edge", None)
        assert not homes.edge_installed()

    def test_neither_engine_opens_the_others_folder(self, tmp_path, encoder, monkeypatch):
        QdrantStore.open(tmp_path / "edge", contract=encoder.contract()).close()
        monkeypatch.setattr(homes, "edge_installed", lambda: False)
        QdrantStore.open(tmp_path / "local", contract=encoder.contract()).close()
        with pytest.raises(StoreError, match="written by the embedded engine"):
            QdrantStore.open(tmp_path / "edge", contract=encoder.contract())
        monkeypatch.setattr(homes, "edge_installed", lambda: True)
        with pytest.raises(StoreError, match="qdrant-client's local mode"):
            QdrantStore.open(tmp_path / "local", contract=encoder.contract())
        with pytest.raises(StoreError, match="qdrant-client's local mode"):
            list_collections(tmp_path / "local")

    # The client leaves its lock file open when the folder is locked.
    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_one_at_a_time(self, tmp_path, encoder, monkeypatch):
        monkeypatch.setattr(homes, "edge_installed", lambda: False)
        with (
            QdrantStore.open(tmp_path, contract=encoder.contract()),
            pytest.raises(StoreLockedError, match="open in another process"),
        ):
            QdrantStore.open(tmp_path, contract=encoder.contract())


def test_no_warning_escapes_from_the_local_mode(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with QdrantStore.open(":memory:", contract=encoder.contract()) as store:
            fill(store, encoder, SOME)
