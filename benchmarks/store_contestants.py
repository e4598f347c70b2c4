"""Ways to keep and search vectors in Qdrant: f2rag's layouts, and the default paths of LangChain's and LlamaIndex's."""

from __future__ import annotations

import dataclasses
import itertools
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.store_data import LIMIT
from f2rag.contract import EmbeddingContract
from f2rag.store import Layout, QdrantStore

if TYPE_CHECKING:
    from benchmarks.store_data import Data
    from f2rag.store.homes import Location
    from f2rag.store.modes import Mode, ModeName
    from f2rag.types import FloatVector

WINDOW = 1_000
COLLECTION = "documents"


class Contestant(Protocol):
    """One open collection."""

    modes: tuple[ModeName, ...]

    def load(self, data: Data, start: int, end: int) -> None:
        """Store some of the documents with their vectors."""

    def finish(self) -> None:
        """Wait until everything is indexed."""

    def search(self, vector: FloatVector, mode: Mode | ModeName) -> list[str]:
        """The ids of the nearest documents."""

    def close(self) -> None:
        """Let go of it."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant before it is opened.

    Attributes:
        name: For the table.
        homes: Where it can run: ``"server"``, ``"folder"``.
        make: Opens it at a location, for vectors of a width.
    """

    name: str
    homes: tuple[str, ...]
    make: Callable[[Any, int], Contestant]


class Ours:
    """``QdrantStore`` with a layout."""

    def __init__(self, location: Location, dimensions: int, layout: Layout) -> None:
        contract = EmbeddingContract(
            model="benchmark", revision="0", native_dimensions=dimensions, dimensions=dimensions
        )
        self._store = QdrantStore.open(location, collection=COLLECTION, contract=contract, layout=layout)
        main: ModeName = "funnel" if layout.levels else "quantized" if layout.quantization else "hnsw"
        self.modes: tuple[ModeName, ...] = (main, "exact")

    def load(self, data: Data, start: int, end: int) -> None:
        """``QdrantStore.upsert``, as many at once as the others get."""
        self._store.upsert(data.as_documents(start, end), data.documents[start:end])

    def finish(self) -> None:
        """``QdrantStore.optimize``."""
        self._store.optimize(wait=3600)

    def search(self, vector: FloatVector, mode: Mode | ModeName) -> list[str]:
        """``QdrantStore.search``."""
        return [hit.id for hit in self._store.search(vector, limit=LIMIT, mode=mode)]

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class LangChains:
    """langchain-qdrant with nothing set but the collection and the client."""

    modes: tuple[ModeName, ...] = ("auto",)

    def __init__(self, location: Any, dimensions: int) -> None:
        from langchain_core.embeddings import Embeddings
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        class Given(Embeddings):
            """Vectors that are there already, for whatever texts come."""

            rows: Iterator[list[float]] = itertools.repeat([0.0] * dimensions)  # for its probe of the width

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [next(self.rows) for _ in texts]

            def embed_query(self, text: str) -> list[float]:  # noqa: ARG002
                return [0.0] * dimensions

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client = QdrantClient(url=location, timeout=600)
        self._client.create_collection(
            COLLECTION, vectors_config=models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
        )
        self._given = Given()
        self._store = QdrantVectorStore(client=self._client, collection_name=COLLECTION, embedding=self._given)

    def load(self, data: Data, start: int, end: int) -> None:
        """``add_texts`` with its own batch size."""
        self._given.rows = (row.tolist() for row in data.documents[start:end])
        documents = data.as_documents(start, end)
        self._store.add_texts(
            [each.text for each in documents],
            [{"language": each.language, "source": each.source, **each.metadata} for each in documents],
            ids=[_uuid(each.key) for each in documents],
        )

    def finish(self) -> None:
        """It has no such call; the server's own status is waited for."""
        _wait_for_green(self._client)

    def search(self, vector: FloatVector, mode: Mode | ModeName) -> list[str]:  # noqa: ARG002
        """``similarity_search_by_vector``."""
        found = self._store.similarity_search_by_vector(vector.tolist(), k=LIMIT)
        return [_number(each.metadata["_id"]) for each in found]

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class LlamaIndexs:
    """llama-index-vector-stores-qdrant with nothing set but the collection and the client."""

    modes: tuple[ModeName, ...] = ("auto",)

    def __init__(self, location: Any, dimensions: int) -> None:  # noqa: ARG002 - it takes the width from the nodes
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client = QdrantClient(url=location, timeout=600)
        self._store = QdrantVectorStore(collection_name=COLLECTION, client=self._client)

    def load(self, data: Data, start: int, end: int) -> None:
        """``add`` with its own batch size."""
        from llama_index.core.schema import TextNode

        for first in range(start, end, WINDOW):
            last = min(first + WINDOW, end)
            nodes = [
                TextNode(
                    id_=_uuid(each.key),
                    text=each.text,
                    metadata={"language": each.language, "source": each.source, **each.metadata},
                    embedding=row.tolist(),
                )
                for each, row in zip(data.as_documents(first, last), data.documents[first:last], strict=True)
            ]
            self._store.add(list(nodes))

    def finish(self) -> None:
        """It has no such call; the server's own status is waited for."""
        _wait_for_green(self._client)

    def search(self, vector: FloatVector, mode: Mode | ModeName) -> list[str]:  # noqa: ARG002
        """``query``."""
        from llama_index.core.vector_stores.types import VectorStoreQuery

        found = self._store.query(VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=LIMIT))
        return [_number(each) for each in found.ids or []]

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def entries(*, level: int) -> list[Entry]:
    """All contestants; ``level`` is the prefix that the funnel stores."""

    def ours(layout: Layout) -> Callable[[Any, int], Contestant]:
        return lambda location, dimensions: Ours(location, dimensions, layout)

    both, server, folder = ("server", "folder"), ("server",), ("folder",)
    return [
        Entry(f"f2rag, funnel {level} → full", both, ours(Layout(levels=(level,)))),
        Entry("f2rag, int8 rescored", both, ours(Layout(quantization="int8"))),
        Entry("f2rag, TurboQuant 4 bits rescored", folder, ours(Layout(quantization="turbo4"))),
        Entry("f2rag, full vectors", folder, ours(Layout())),
        Entry("langchain-qdrant, default", server, LangChains),
        Entry("llama-index's Qdrant store, default", server, LlamaIndexs),
    ]


def _uuid(key: str) -> str:
    """Both need UUIDs for ids; the number can be read back from it."""
    return str(uuid.UUID(int=int(key)))


def _number(identifier: str) -> str:
    return str(uuid.UUID(str(identifier)).int)


def _wait_for_green(client: Any) -> None:
    import time

    greens = 0
    while greens < 3:
        status = client.get_collection(COLLECTION).status.value
        greens = greens + 1 if status == "green" else 0
        time.sleep(0.5)
