"""What an engine can do from which version on, and real servers of both sides of the line."""

from __future__ import annotations

from typing import get_args

import pytest
from qdrant_client import models

from f2rag.errors import InputError, UnsupportedFeatureError
from f2rag.store import QdrantStore
from f2rag.store.features import SINCE, Feature, require, supports, version_of
from f2rag.store.layout import Layout, Lexical
from f2rag.store.modes import Hybrid
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

TEXTS = ["red house", "blue boat", "green tree", "red boat"]


def at(server):
    return Server(server.url, grpc_port=server.grpc_port)


@pytest.fixture
def encoder():
    return FakeEncoder(dimensions=32)


@pytest.mark.parametrize("feature", get_args(Feature))
def test_a_feature_is_there_from_its_version_on(feature):
    major, minor, patch = SINCE[feature]
    assert supports((major, minor, patch), feature)
    assert supports((major, minor + 1, 0), feature)
    assert supports((major + 1, 0, 0), feature)
    assert not supports((major, minor - 1, 9), feature)
    assert supports(None, feature), "the client's local mode takes everything"


def test_what_is_missing_is_named_with_both_versions_and_the_way_out():
    require((1, 18, 0), "turbo_quant", place="Qdrant at http://db:6333")
    require(None, "turbo_quant", place=":memory:")
    with pytest.raises(UnsupportedFeatureError) as caught:
        require((1, 17, 0), "turbo_quant", place="Qdrant at http://db:6333")
    for words in ("http://db:6333", "1.17.0", "1.18.0", "int8", "TurboQuant"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "version"), [("1.17.0", (1, 17, 0)), ("1.20.1-dev", (1, 20, 1)), ("v1.16.3", (1, 16, 3))]
)
def test_versions_are_read_as_servers_write_them(text, version):
    assert version_of(text) == version


@pytest.mark.parametrize("text", ["", "latest", "1.17"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(InputError, match="no version"):
        version_of(text)


def test_versions_are_read_from_servers(qdrant_server, old_qdrant_server):
    for server, version in ((qdrant_server, (1, 17, 0)), (old_qdrant_server, (1, 16, 3))):
        connection = at(server).connect()
        assert connection.version == version
        connection.close()


def test_an_old_server_does_what_is_plain(old_qdrant_server, encoder):
    layout = Layout(levels=(16,), quantization="int8", lexical=Lexical())
    with QdrantStore.open(
        at(old_qdrant_server), collection="plain", contract=encoder.contract(), layout=layout
    ) as store:
        documents = [Document(text=text, language="en") for text in TEXTS]
        assert store.upsert(documents, encoder.embed_documents(TEXTS)) == 4
        vector = encoder.embed_documents(["blue boat"])[0]
        for mode in ("exact", "funnel", "diverse"):
            assert store.search(vector, limit=1, mode=mode)[0].text == "blue boat"
        assert {hit.text for hit in store.search(vector, text="boat", limit=2, mode="hybrid")} == {
            "blue boat",
            "red boat",
        }


def test_weights_that_an_old_server_would_drop_are_refused(old_qdrant_server, qdrant_server, encoder):
    layout = Layout(lexical=Lexical())
    vector = encoder.embed_documents(["blue boat"])[0]
    mode = Hybrid(weights=(0.0, 1.0))
    for server in (qdrant_server, old_qdrant_server):
        with QdrantStore.open(at(server), collection="weighted", contract=encoder.contract(), layout=layout) as store:
            store.upsert([Document(text=text) for text in TEXTS], encoder.embed_documents(TEXTS))
            if server is old_qdrant_server:
                with pytest.raises(UnsupportedFeatureError, match=r"1\.16\.3.*weights.*1\.17\.0"):
                    store.search(vector, text="tree", mode=mode)
            else:
                assert store.search(vector, text="tree", mode=mode)[0].text == "green tree"


@pytest.mark.parametrize("quantization", ["turbo4", "turbo2", "turbo1"])
def test_compression_that_both_servers_lack_is_refused_before_anything_is_made(
    qdrant_server, old_qdrant_server, encoder, quantization
):
    for server, version in ((qdrant_server, "1.17.0"), (old_qdrant_server, "1.16.3")):
        with pytest.raises(UnsupportedFeatureError, match=f"{version}.*TurboQuant.*1.18.0"):
            QdrantStore.open(
                at(server), collection="turbo", contract=encoder.contract(), layout=Layout(quantization=quantization)
            )
        assert not server.client().collection_exists("turbo")


def test_why_there_is_a_table(old_qdrant_server, qdrant_server):
    """An old server takes an option that it does not know, and does something else."""
    texts = {}
    for server in (old_qdrant_server, qdrant_server):
        client = server.client()
        client.delete_collection("silent")
        client.create_collection("silent", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
        for text in ("first", "second"):
            point = models.PointStruct(id=1, vector=[1.0, 0.0], payload={"text": text})
            client.upsert("silent", [point], wait=True, update_mode=models.UpdateMode.INSERT_ONLY)
        texts[server] = client.retrieve("silent", [1])[0].payload["text"]
        client.close()
    assert texts == {old_qdrant_server: "second", qdrant_server: "first"}
