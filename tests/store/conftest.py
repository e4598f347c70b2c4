"""The homes of collections that one suite of behaviour runs in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from f2rag.contract import CONTRACT_KEY
from f2rag.store import QdrantStore, edge, homes
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]


@pytest.fixture
def encoder():
    return FakeEncoder(dimensions=DIMENSIONS)


def unit(axis, dimensions=DIMENSIONS):
    return np.eye(dimensions, dtype=np.float32)[axis]


FOREIGN_PAYLOAD = {"page_content": "from LangChain", "metadata": {"language": "en", "page": 3}}


@dataclasses.dataclass
class Place:
    """A home that outlives one store."""

    kind: str
    location: object
    make_client: Callable[[], QdrantClient] | None = None

    def open(self, contract=None, **options):
        return QdrantStore.open(self.location, contract=contract, **options)

    @contextlib.contextmanager
    def client(self):
        """A plain client of the same home, if it is one of qdrant-client's."""
        if self.kind == "memory":
            yield self.location
            return
        client = self.make_client()
        yield client
        client.close()

    def make_foreign(self, name, *, named=False):
        """Make a collection as something else than f2rag would, with one point."""
        vector = {"text": unit(0).tolist()} if named else unit(0).tolist()
        if self.kind == "edge":
            parameters = qdrant_edge.EdgeVectorParams(DIMENSIONS, qdrant_edge.Distance.Cosine)
            config = qdrant_edge.EdgeConfig(vectors={"text": parameters} if named else parameters)
            shard = qdrant_edge.EdgeShard.create(str(self.location / name), config)
            shard.update(qdrant_edge.UpdateOperation.upsert_points([qdrant_edge.Point(7, vector, FOREIGN_PAYLOAD)]))
            shard.close()
            return
        parameters = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
        with self.client() as client:
            client.create_collection(name, vectors_config={"text": parameters} if named else parameters)
            client.upsert(name, [models.PointStruct(id=7, vector=vector, payload=FOREIGN_PAYLOAD)], wait=True)

    def rewrite_contract(self, name, change):
        if self.kind == "edge":
            file = self.location / name / edge.CONTRACT_FILE
            file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
            return
        with self.client() as client:
            stored = client.get_collection(name).config.metadata[CONTRACT_KEY]
            client.update_collection(name, metadata={CONTRACT_KEY: {**stored, **change}})


@pytest.fixture(params=["memory", "edge", "client-local", "server"])
def place(request, tmp_path, monkeypatch):
    if request.param == "memory":
        client = QdrantClient(location=":memory:")
        yield Place("memory", client)
        client.close()
        return
    if request.param == "server":
        server = request.getfixturevalue("qdrant_server")
        with contextlib.closing(server.client()) as client:  # the server lives as long as the session
            for each in client.get_collections().collections:
                client.delete_collection(each.name)
        yield Place("server", Server(server.url, grpc_port=server.grpc_port), server.client)
        return
    if request.param == "client-local":
        monkeypatch.setattr(homes, "edge_installed", lambda: False)
    home = tmp_path / "home"
    home.mkdir()
    yield Place(request.param, home, lambda: QdrantClient(path=str(home)))


@pytest.fixture
def store(place, encoder):
    with place.open(encoder.contract()) as store:
        yield store


@pytest.fixture
def in_folder(tmp_path, encoder):
    """The embedded engine alone."""
    with QdrantStore.open(tmp_path / "home", contract=encoder.contract()) as store:
        yield store
