"""Small calls for the tests of connections: a collection of unit vectors, written, searched and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from servers import QdrantServer

from f2rag.store.connection import Connection
from f2rag.store.server import Server

DIMENSIONS = 8

ways = pytest.mark.parametrize("way", ["grpc", "rest"])


def at(server: QdrantServer, way: str = "grpc", **options) -> Server:
    return Server(server.url, grpc_port=server.grpc_port if way == "grpc" else None, **options)


@contextlib.contextmanager
def connected(described: Server | QdrantServer, *way: str, **options) -> Iterator[Connection]:
    connection = (described if isinstance(described, Server) else at(described, *way, **options)).connect()
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def impatient(connection: Connection, *, seconds: float = 1.0) -> Iterator[None]:
    """Let calls that are to fail do so soon; those that are to succeed get the time that a busy machine needs."""
    before = connection._timeout, connection._retry_seconds
    connection._timeout = connection._retry_seconds = seconds
    yield
    connection._timeout, connection._retry_seconds = before


def over_grpc(client: QdrantClient) -> bool:
    return client.init_options["prefer_grpc"]


def create(client: QdrantClient, name: str = "c") -> None:
    if not client.collection_exists(name):
        client.create_collection(
            name, vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
        )


def put(client: QdrantClient, ids: Iterable[int], name: str = "c", payload: dict | None = None) -> None:
    rows = np.eye(DIMENSIONS)
    points = [models.PointStruct(id=each, vector=rows[each % DIMENSIONS].tolist(), payload=payload) for each in ids]
    client.upsert(name, points, wait=True)


def search(client: QdrantClient, name: str = "c") -> list[int]:
    return [point.id for point in client.query_points(name, np.eye(DIMENSIONS)[1].tolist(), limit=1).points]


def count(client: QdrantClient, name: str = "c") -> int:
    return client.count(name, exact=True).count


class Counted:
    """A call that knows how often it was made."""

    def __init__(self, call) -> None:
        self.call = call
        self.times = 0

    def __call__(self, client: QdrantClient):
        self.times += 1
        return self.call(client)
