"""Three nodes on loopback, every shard on two of them: what is lost when one is killed is nothing."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from servers import until

from f2rag.errors import StoreUnavailableError
from f2rag.store import QdrantStore
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

DIMENSIONS = 32
NAME = "replicated"


@pytest.fixture
def encoder():
    return FakeEncoder(dimensions=DIMENSIONS)


def some(encoder, numbers):
    texts = [f"text number {number}" for number in numbers]
    documents = [Document(text=text, id=text, language="en") for text in texts]
    return documents, encoder.embed_documents(texts)


def cluster_info(node):
    with contextlib.closing(node.client(timeout=5)) as client:
        return client.collection_cluster_info(NAME)


def copies(nodes):
    """Points that lie on the nodes, every copy counted."""
    return sum(shard.points_count for node in nodes for shard in cluster_info(node).local_shards)


def all_active(nodes):
    try:
        infos = [cluster_info(node) for node in nodes]
    except Exception:  # a node that has just come back answers with all sorts of errors
        return False
    shards = itertools.chain.from_iterable((*info.local_shards, *info.remote_shards) for info in infos)
    return {shard.state.value for shard in shards} == {"Active"}


def test_a_killed_node_takes_nothing_with_it(qdrant_cluster, encoder):
    nodes = qdrant_cluster
    described = Server(
        [node.url for node in nodes], grpc_port=[node.grpc_port for node in nodes], timeout=20, retry_seconds=60
    )
    with QdrantStore.open(described, collection=NAME, contract=encoder.contract()) as store:
        store.upsert(*some(encoder, range(300)))
        until(lambda: copies(nodes) == 2 * 300)

        nodes[0].kill()  # the one that has answered so far
        documents, vectors = some(encoder, range(0, 300, 7))
        for document, vector in zip(documents, vectors, strict=True):
            assert store.search(vector, limit=1, mode="exact")[0].id == document.id
        for start in range(300, 500, 50):
            store.upsert(*some(encoder, range(start, start + 50)))
        assert store.status().points == 500

        nodes[0].start()
        until(lambda: all_active(nodes))
        documents, vectors = some(encoder, range(500))
        store.upsert(documents, vectors)
        until(lambda: copies(nodes) == 2 * 500)
        kept = store.vectors([document.id for document in documents])
        np.testing.assert_allclose(np.array(list(kept.values())), vectors, atol=1e-6)
        for node in nodes:
            with contextlib.closing(node.client()) as client:
                assert client.count(NAME, exact=True).count == 500

        for node in nodes[:2]:
            node.kill()
        with pytest.raises(StoreUnavailableError):
            store.search(vectors[0], mode="exact")
        for node in nodes[:2]:
            node.start()
        until(lambda: all_active(nodes))
        assert store.search(vectors[0], limit=1, mode="exact")[0].id == documents[0].id
