"""Aliases, and a collection into another one while the first goes on serving; in every home."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from f2rag.errors import CollectionNotFoundError, ContractMismatchError, InputError, StoreError
from f2rag.store import Layout, QdrantStore, drop_collection, list_aliases, list_collections, reindex, switch_alias
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DOCUMENTS = [
    Document(id=str(number), text=f"text number {number}", language="en", source="s", metadata={"n": number})
    for number in range(50)
]


@pytest.fixture
def one(place, encoder):
    """A collection "one" that the alias "live" stands for."""
    with place.open(encoder.contract(), collection="one") as store:
        store.upsert(DOCUMENTS, encoder.embed_documents([document.text for document in DOCUMENTS]))
    switch_alias(place.location, "live", "one")
    return place


class TestAliases:
    def test_an_alias_opens_its_collection(self, one, encoder):
        assert list_aliases(one.location) == {"live": "one"}
        with one.open(encoder.contract(), collection="live") as store:
            assert store.count() == 50
        assert [info.name for info in list_collections(one.location)] == ["one"]

    def test_switching(self, one, encoder):
        one.open(encoder.contract(), collection="two").close()
        switch_alias(one.location, "live", "two")
        with one.open(collection="live") as store:
            assert store.count() == 0
        assert list_aliases(one.location) == {"live": "two"}

    def test_impossible_aliases(self, one, encoder):
        with pytest.raises(CollectionNotFoundError, match="'nope'"):
            switch_alias(one.location, "live", "nope")
        with pytest.raises(InputError, match="'one' is the name of a collection"):
            switch_alias(one.location, "one", "one")
        with pytest.raises(InputError, match="cannot name"):
            switch_alias(one.location, "../x", "one")
        with pytest.raises(InputError, match="alias of 'one'"):
            drop_collection(one.location, "live")

    def test_an_alias_of_a_collection_that_is_gone(self, one, encoder):
        drop_collection(one.location, "one")
        with pytest.raises(CollectionNotFoundError):
            one.open(collection="live")


class TestReindex:
    def test_equal_vectors_are_copied_into_another_layout(self, one, encoder):
        before = sum(encoder.document_calls)
        steps = []
        with one.open(collection="one") as source:
            report = reindex(
                source,
                encoder,
                into="two",
                layout=Layout(levels=(8,)),
                alias="live",
                on_progress=steps.append,
            )
        assert (report.documents, report.embedded, report.alias) == (50, False, "live")
        assert (sum(encoder.document_calls), steps[-1]) == (before, 50)
        with one.open(collection="live") as store:
            assert store.layout.levels == (8,)
            assert store.missing() == {}
            assert sorted(store.documents(), key=lambda document: int(document.key)) == DOCUMENTS
            query = encoder.embed_documents([DOCUMENTS[7].text])[0]
            assert store.search(query, mode="funnel")[0].id == "7"

    def test_a_narrower_collection_is_cut_from_the_vectors(self, one, encoder):
        before = sum(encoder.document_calls)
        with one.open(collection="one") as source:
            report = reindex(source, encoder, into="two", dimensions=8)
        assert (report.documents, report.embedded, sum(encoder.document_calls)) == (50, False, before)
        with one.open(encoder.contract(dimensions=8), collection="two") as store:
            wanted = encoder.embed_documents([each.text for each in DOCUMENTS], dimensions=8)
            found = store.vectors([each.key for each in DOCUMENTS])
            assert np.allclose(list(found.values()), wanted, atol=1e-5)

    def test_a_wider_collection_is_embedded_again(self, one, encoder):
        with (
            one.open(collection="one") as source,
            source.beside("n", contract=encoder.contract(dimensions=8)) as narrow,
        ):
            narrow.upsert(DOCUMENTS[:5], encoder.embed_documents([each.text for each in DOCUMENTS[:5]], dimensions=8))
            assert reindex(narrow, encoder, into="wide").embedded

    def test_another_model_embeds_the_texts_again(self, one):
        other = FakeEncoder(dimensions=16, model_name="another")
        with one.open(collection="one") as source:
            report = reindex(source, other, into="two")
        assert (report.documents, report.embedded, report.alias) == (50, True, None)
        assert sum(other.document_calls) == 50
        with one.open(other.contract(), collection="two") as store:
            assert store.dimensions == 16
            assert sorted(store.documents(), key=lambda document: int(document.key)) == DOCUMENTS
        assert list_aliases(one.location) == {"live": "one"}

    def test_an_interrupted_run_is_completed_by_the_next(self, one, encoder, monkeypatch):
        def stop(done):
            raise KeyboardInterrupt

        with one.open(collection="one") as source:
            with pytest.raises(KeyboardInterrupt):
                reindex(source, encoder, into="two", alias="live", on_progress=stop)
            report = reindex(source, encoder, into="two", alias="live")
        assert report.documents == 50
        assert list_aliases(one.location) == {"live": "two"}

    def test_what_is_added_meanwhile_keeps_the_alias_where_it_is(self, one, encoder, monkeypatch):
        late = Document(id="late", text="late")
        with one.open(collection="one") as source:
            added = []

            def add(done):
                if not added:
                    added.append(source.upsert([late], encoder.embed_documents(["late"])))

            # Ids are in the order of UUIDs: whether the copy still meets the late one is chance, so it is made certain.
            monkeypatch.setattr(source, "iter_vectors", _but_for(source, "late"))
            with pytest.raises(StoreError, match="added meanwhile"):
                reindex(source, encoder, into="two", alias="live", on_progress=add)
        assert list_aliases(one.location) == {"live": "one"}

    def test_into_itself_or_something_else(self, one, encoder):
        with one.open(collection="one") as source:
            for name in ("one", "live"):
                with pytest.raises(InputError, match="the collection that is read"):
                    reindex(source, encoder, into=name)
            source.beside("narrow", contract=encoder.contract(dimensions=8)).close()
            with pytest.raises(ContractMismatchError, match="dimensions"):
                reindex(source, encoder, into="narrow")

    def test_into_another_home(self, one, encoder, tmp_path):
        with one.open(collection="one") as source:
            reindex(source, encoder, location=tmp_path / "other", into="copy")
        with QdrantStore.open(tmp_path / "other", collection="copy") as store:
            assert store.home == ("client-local" if one.kind == "client-local" else "edge")
            assert store.count() == 50


def _but_for(source, key):
    pages = source.iter_vectors

    def without(*, batch):
        for keys, rows in pages(batch=batch):
            kept = [position for position, each in enumerate(keys) if each != key]
            yield [keys[position] for position in kept], rows[kept]

    return without


def test_readers_of_an_alias_are_not_disturbed(qdrant_server, encoder):
    """Searches go on through the swap, each in the old collection or in the new one."""
    client = qdrant_server.client()
    contract = encoder.contract()
    for name, count in (("swap-one", 10), ("swap-two", 20)):
        with QdrantStore.open(client, collection=name, contract=contract) as store:
            store.upsert(DOCUMENTS[:count], encoder.embed_documents([each.text for each in DOCUMENTS[:count]]))
    switch_alias(client, "swap-live", "swap-one")
    seen, ended = set(), threading.Event()
    failures = []

    def read():
        try:
            with QdrantStore.open(client, collection="swap-live") as store:
                while not ended.is_set():
                    seen.add((len(store.search(np.eye(32, dtype=np.float32)[0], limit=50)), store.count()))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for name in ("swap-two", "swap-one"):
            switch_alias(client, "swap-live", name)
    ended.set()
    for thread in threads:
        thread.join()
    client.close()
    assert not failures
    assert {number for pair in seen for number in pair} <= {10, 20}
