"""Stored vectors by id, documents that replace adopted points, and metadata under the names of our own fields."""

from __future__ import annotations

import numpy as np
import pytest

from f2rag.errors import DocumentError, InputError
from f2rag.types import Document


class TestVectors:
    def test_they_come_back_by_id_in_the_order_asked_for(self, place, encoder):
        documents = [Document(text=f"text {n}", id=f"id {n}") for n in range(5)]
        rows = encoder.embed_documents([document.text for document in documents])
        with place.open(encoder.contract()) as store:
            store.upsert(documents, rows)
            found = store.vectors(["id 3", "absent", "id 1"])
            assert list(found) == ["id 3", "id 1"]
            np.testing.assert_allclose(found["id 3"], rows[3], atol=1e-6)
            np.testing.assert_allclose(found["id 1"], rows[1], atol=1e-6)
            assert found["id 1"].dtype == np.float32
            assert store.vectors([]) == {}
            with pytest.raises(InputError, match="list of strings"):
                store.vectors("id 1")


class TestAdopted:
    def test_a_document_replaces_the_adopted_point_of_its_id(self, place, encoder):
        place.make_foreign("theirs")
        with place.open(encoder.contract(), collection="theirs", adopt=True) as store:
            (foreign,) = store.get(["7"])
            changed = Document(id=foreign.id, text="from us")
            store.upsert([changed], encoder.embed_documents(["from us"]))
            assert store.count() == 1
            assert [found.text for found in store.get(["7"])] == ["from us"]
            store.upsert([changed], encoder.embed_documents(["from us"]))
            assert store.count() == 1

    def test_a_document_replaces_no_other_point(self, place, encoder):
        place.make_foreign("theirs")
        with place.open(encoder.contract(), collection="theirs", adopt=True) as store:
            store.upsert([Document(id="8", text="from us")], encoder.embed_documents(["from us"]))
            assert sorted(found.text for found in store.documents()) == ["from LangChain", "from us"]


class TestOwnNames:
    @pytest.mark.parametrize("value", [None, 7, ["en", "fr"], {"code": "en"}, False])
    def test_what_is_no_text_stays_in_the_metadata(self, place, encoder, value):
        document = Document(text="text", id="a", metadata={"language": value, "source": value})
        with place.open(encoder.contract()) as store:
            store.upsert([document], encoder.embed_documents(["text"]))
            assert store.get(["a"]) == [document]

    def test_text_goes_into_the_fields(self, place, encoder):
        with place.open(encoder.contract()) as store, pytest.raises(DocumentError, match="taken"):
            store.upsert([Document(text="text", metadata={"source": "a"})], encoder.embed_documents(["text"]))
