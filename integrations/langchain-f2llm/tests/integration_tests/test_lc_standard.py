"""LangChain's own suites, whole: nothing overridden, nothing expected to fail, nothing skipped."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag.contract import EmbeddingContract
from f2rag.store import Layout, Lexical, Server, drop_collection
from f2rag.testing import write_checkpoint
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qdrant_client import QdrantClient

from langchain_f2llm import F2LLMEmbeddings, F2LLMRetriever, F2LLMVectorStore


class SuiteEncoder:
    """The vectors of the suite's own embeddings, under a contract."""

    model_name = "langchain-tests"
    instruction = ""
    truncated_count = 0

    def __init__(self, embeddings: Embeddings, dimensions: int) -> None:
        self._embeddings = embeddings
        self.dimensions = self.native_dimensions = dimensions

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        return EmbeddingContract(
            model=self.model_name,
            revision="1",
            native_dimensions=self.native_dimensions,
            dimensions=dimensions or self.dimensions,
        )

    def embed_query(self, text: str, **options: Any) -> np.ndarray:
        return self.embed_documents([text])[0]

    def embed_queries(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        rows = np.asarray(self._embeddings.embed_documents(list(texts)), dtype=np.float32).reshape(-1, self.dimensions)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def iter_documents(self, texts: Iterable[str], **options: Any) -> Iterator[np.ndarray]:
        yield self.embed_documents(list(texts))

    def close(self) -> None: ...


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("standard") / "model")


class EmbeddingsSetup:
    """Real embeddings with random weights; the environment names the cache, as everywhere in the Hugging Face world."""

    @pytest.fixture(autouse=True)
    def _folder(self, checkpoint_folder: Path) -> None:
        self.folder = checkpoint_folder

    @property
    def embeddings_class(self) -> type[F2LLMEmbeddings]:
        return F2LLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.folder, "device": "cpu", "dtype": "float32"}


class TestEmbeddingsUnit(EmbeddingsSetup, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(EmbeddingsSetup, EmbeddingsIntegrationTests):
    pass


class StoreSetup(VectorStoreIntegrationTests):
    def suite_embeddings(self) -> F2LLMEmbeddings:
        return F2LLMEmbeddings.from_encoder(SuiteEncoder(self.get_embeddings(), 6))


class TestVectorStoreInMemory(StoreSetup):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        with F2LLMVectorStore(self.suite_embeddings(), location=":memory:") as store:
            yield store


class TestVectorStoreInFolder(StoreSetup):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with F2LLMVectorStore(self.suite_embeddings(), location=tmp_path / "index") as store:
            assert store.store.home == "edge"
            yield store


class TestVectorStoreInClientFolder(StoreSetup):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        client = QdrantClient(path=str(tmp_path / "local"))
        with F2LLMVectorStore(self.suite_embeddings(), location=client) as store:
            yield store
        client.close()


class TestVectorStoreOfModel(StoreSetup):
    """Once more with a real checkpoint; random weights rank by meaning only where query and document are alike."""

    @pytest.fixture
    def vectorstore(self, tiny: Path) -> Iterator[VectorStore]:
        embeddings = F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32", instruction="")
        with F2LLMVectorStore(embeddings) as store:
            yield store


class TestVectorStoreOnServer(StoreSetup):
    """On a real one, with levels and words, which every batch then carries."""

    @pytest.fixture
    def vectorstore(self, qdrant_server: Any) -> Iterator[VectorStore]:
        location = Server(qdrant_server.url, grpc_port=qdrant_server.grpc_port)
        name = f"langchain-{uuid.uuid4().hex}"
        embeddings = self.suite_embeddings()
        with F2LLMVectorStore(
            embeddings, location=location, collection_name=name, layout=Layout(levels=(3,), lexical=Lexical())
        ) as store:
            assert store.store.home == "server"
            yield store
        drop_collection(location, name)


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, embeddings: F2LLMEmbeddings) -> Iterator[None]:
        with F2LLMVectorStore.from_texts([f"document number {n}" for n in range(8)], embeddings) as self.store:
            yield

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return F2LLMRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"vectorstore": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "number 3"
