"""Ways to bring texts from a file into Qdrant: f2rag's and the usual ones of LangChain and LlamaIndex.

Each is used as its documentation says, and lives in a process of its own for as long as the benchmark runs: what one
sets (threads, dtypes, warnings) cannot change another, and one that waits computes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from benchmarks.material import read_texts
from benchmarks.measuring import SILENCE

PATIENCE_SECONDS = 60.0
"""How long points may take to be counted after the last call has returned."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the checkpoint lies and the server answers."""

    model: Path
    url: str
    grpc_port: int | None

    def server(self) -> Any:
        """The server as f2rag takes it."""
        from f2rag.store.server import Server

        return Server(self.url, grpc_port=self.grpc_port)

    def client(self, **options: Any) -> Any:
        """A plain client."""
        from qdrant_client import QdrantClient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return QdrantClient(url=self.url, timeout=600, check_compatibility=False, **options)


class Contestant(Protocol):
    """One way, with its model loaded."""

    def open(self, collection: str) -> None:
        """Make an empty collection and whatever store stands before it."""

    def ingest(self, file: Path) -> None:
        """Read the texts of a file, embed and store them. This is what is timed."""

    def nearest(self, text: str) -> str:
        """The stored text that is nearest to a text's own document vector."""

    def close(self) -> None:
        """Let go of the store, not of the model."""


class OurEngine:
    """``SearchEngine.index`` with nothing set."""

    def __init__(self, place: Place) -> None:
        from f2rag import F2LLMEncoder

        self._place = place
        self._encoder = F2LLMEncoder(place.model)
        self._encoder.warm_up()

    def open(self, collection: str) -> None:
        """``SearchEngine.open``."""
        from f2rag import SearchEngine

        self._engine = SearchEngine.open(self._encoder, self._place.server(), collection=collection)

    def ingest(self, file: Path) -> None:
        """``SearchEngine.index`` over a generator."""
        from f2rag import Document

        self._engine.index(Document(text=text) for text in read_texts(file))

    def nearest(self, text: str) -> str:
        """``QdrantStore.search``."""
        return self._engine.store.search(self._encoder.embed_documents([text])[0], limit=1)[0].text

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class OurLangChain:
    """``F2LLMVectorStore.add_documents`` of langchain-f2llm with nothing set."""

    def __init__(self, place: Place) -> None:
        from langchain_f2llm import F2LLMEmbeddings

        self._place = place
        self._embeddings = F2LLMEmbeddings(model=str(place.model))
        self._embeddings.warm_up()

    def open(self, collection: str) -> None:
        """The constructor makes the collection."""
        from langchain_f2llm import F2LLMVectorStore

        self._store = F2LLMVectorStore(self._embeddings, location=self._place.server(), collection_name=collection)

    def ingest(self, file: Path) -> None:
        """``add_documents``."""
        self._store.add_documents(_langchain_documents(file))

    def nearest(self, text: str) -> str:
        """``similarity_search_by_vector``."""
        vector = self._embeddings.embed_documents([text])[0]
        return self._store.similarity_search_by_vector(vector, k=1)[0].page_content

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class TheirLangChain:
    """langchain-qdrant with HuggingFaceEmbeddings.

    Args:
        place: Checkpoint and server.
        dtype: Of the weights; ``None`` leaves what the checkpoint stores.
        batch_size: Texts of one forward; ``None`` leaves 32.
        store_batch: Texts that go through embedding and into the store together; ``None`` leaves 64.
        prefer_grpc: What the client speaks.
    """

    def __init__(
        self,
        place: Place,
        *,
        dtype: str | None = None,
        batch_size: int | None = None,
        store_batch: int | None = None,
        prefer_grpc: bool = False,
    ) -> None:
        import torch
        from langchain_huggingface import HuggingFaceEmbeddings

        model = {} if dtype is None else {"model_kwargs": {"model_kwargs": {"dtype": getattr(torch, dtype)}}}
        encode = {} if batch_size is None else {"encode_kwargs": {"batch_size": batch_size}}
        options: dict[str, Any] = {**model, **encode}
        self._embeddings = HuggingFaceEmbeddings(model_name=str(place.model), **options)
        self._embeddings.embed_documents(["warm up"])
        self._store_batch = {} if store_batch is None else {"batch_size": store_batch}
        self._client = place.client(
            **({"prefer_grpc": True, "grpc_port": place.grpc_port} if prefer_grpc and place.grpc_port else {})
        )

    def open(self, collection: str) -> None:
        """Make the collection and the store, as in its documentation."""
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import models

        size = len(self._embeddings.embed_query("width"))
        self._client.create_collection(
            collection, vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE)
        )
        self._store = QdrantVectorStore(client=self._client, collection_name=collection, embedding=self._embeddings)

    def ingest(self, file: Path) -> None:
        """``add_documents``."""
        self._store.add_documents(_langchain_documents(file), **self._store_batch)

    def nearest(self, text: str) -> str:
        """``similarity_search_by_vector``."""
        vector = self._embeddings.embed_documents([text])[0]
        return self._store.similarity_search_by_vector(vector, k=1)[0].page_content

    def close(self) -> None:
        """The client serves the next collection, too."""


class _LlamaIndex:
    """``VectorStoreIndex`` over a store and an embedding."""

    _embedding: Any
    _store: Any

    def ingest(self, file: Path) -> None:
        """``VectorStoreIndex`` makes embeddings for its nodes and adds them to the store."""
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode

        context = StorageContext.from_defaults(vector_store=self._store)
        nodes = [TextNode(text=text) for text in read_texts(file)]
        VectorStoreIndex(nodes, storage_context=context, embed_model=self._embedding)

    def nearest(self, text: str) -> str:
        """``query`` of the store."""
        from llama_index.core.vector_stores.types import VectorStoreQuery

        vector = self._embedding.get_text_embedding(text)
        found = self._store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1))
        return str(found.nodes[0].get_content())


class OurLlamaIndex(_LlamaIndex):
    """F2LLMEmbedding and F2LLMVectorStore of llama-index-embeddings-f2llm with nothing set."""

    def __init__(self, place: Place) -> None:
        from llama_index.embeddings.f2llm import F2LLMEmbedding

        self._place = place
        self._embedding = F2LLMEmbedding(str(place.model))
        self._embedding.get_text_embedding("warm up")

    def open(self, collection: str) -> None:
        """``F2LLMVectorStore.open``."""
        from llama_index.vector_stores.f2llm import F2LLMVectorStore

        self._store = F2LLMVectorStore.open(self._place.server(), embed_model=self._embedding, collection=collection)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class TheirLlamaIndex(_LlamaIndex):
    """HuggingFaceEmbedding and QdrantVectorStore with nothing set."""

    def __init__(self, place: Place) -> None:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        self._client = place.client()
        self._embedding = HuggingFaceEmbedding(model_name=str(place.model))
        self._embedding.get_text_embedding("warm up")

    def open(self, collection: str) -> None:
        """It makes the collection with the first nodes."""
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        self._store = QdrantVectorStore(collection_name=collection, client=self._client)

    def close(self) -> None:
        """The client serves the next collection, too."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant before it is made.

    Attributes:
        name: For the table.
        make: Loads its model; can be sent to another process.
        settings: Its arguments beside the place.
    """

    name: str
    make: Callable[..., Contestant]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is f2rag."""
        return self.name.startswith("f2rag")


OURS = "f2rag, SearchEngine.index"
PEER = "langchain-qdrant + HuggingFaceEmbeddings, defaults"
TUNED = "langchain-qdrant + HuggingFaceEmbeddings, best tuned"


def entries() -> list[Entry]:
    """All contestants but the tuned one, whose settings are found out first."""
    return [
        Entry(OURS, OurEngine),
        Entry("f2rag in LangChain, add_documents", OurLangChain),
        Entry("f2rag in LlamaIndex, VectorStoreIndex", OurLlamaIndex),
        Entry(PEER, TheirLangChain),
        Entry("LlamaIndex + HuggingFaceEmbedding + QdrantVectorStore, defaults", TheirLlamaIndex),
    ]


def tuned(**settings: Any) -> Entry:
    """langchain-qdrant at other settings, always over gRPC."""
    return Entry(TUNED, TheirLangChain, {**settings, "prefer_grpc": True})


def timed(contestant: Contestant, place: Place, collection: str, file: Path, count: int) -> float:
    """Seconds from the file to the moment from which the server counts all points as searchable.

    Raises:
        TimeoutError: The server never had as many points as there are texts.
    """
    client = place.client()
    try:
        contestant.open(collection)
        started = time.perf_counter()
        contestant.ingest(file)
        # A point counts, and is compared with every query, from the moment its write is applied.
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while (stored := client.count(collection, exact=True).count) != count:
            if time.perf_counter() > deadline:
                message = f"{stored} points are in {collection}; expected {count}."
                raise TimeoutError(message)
            time.sleep(0.005)
        return time.perf_counter() - started
    finally:
        client.close()


class Remote:
    """A contestant in a process of its own; calls go there and wait for the answer."""

    def __init__(self, entry: Entry, place: Place) -> None:
        self.name = entry.name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(entry, place, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def timed(self, collection: str, file: Path, count: int) -> float:
        """``timed``, in there."""
        return float(self._call("timed", collection, file, count))

    def nearest(self, text: str) -> str:
        """``Contestant.nearest``, in there."""
        return str(self._call("nearest", text))

    def close(self) -> None:
        """``Contestant.close``, in there."""
        self._call("close")

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            failed, answer = self._pipe.recv()
        except EOFError:
            self._process.join(timeout=10)
            message = f"The process of {self.name} ended with {self._process.exitcode}."
            raise RuntimeError(message) from None
        if failed:
            message = f"{self.name} failed:\n{answer}"
            raise RuntimeError(message)
        return answer


@contextlib.contextmanager
def remotes(listed: list[Entry], place: Place) -> Iterator[dict[str, Remote]]:
    """A process for each; they end with the block."""
    with contextlib.ExitStack() as running:
        made = {}
        for entry in listed:
            made[entry.name] = Remote(entry, place)
            running.callback(made[entry.name].end)
        yield made


def _serve(entry: Entry, place: Place, pipe: Connection) -> None:
    """Make the contestant, then answer calls until ``None`` comes."""
    os.environ |= SILENCE
    warnings.simplefilter("ignore")
    try:
        contestant = entry.make(place, **entry.settings)
        pipe.send((False, None))
        while (call := pipe.recv()) is not None:
            method, arguments = call
            answer = (
                timed(contestant, place, *arguments) if method == "timed" else getattr(contestant, method)(*arguments)
            )
            pipe.send((False, answer))
    except EOFError:  # the benchmark was ended
        return
    except BaseException:
        pipe.send((True, traceback.format_exc()))


def _langchain_documents(file: Path) -> list[Any]:
    from langchain_core.documents import Document

    return [Document(page_content=text) for text in read_texts(file)]
