"""Fixtures of the LangChain package's tests. No test reaches a network: sockets are blocked."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read by huggingface_hub when it is imported, so it must stand before everything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LANGSMITH_TRACING"] = "false"

import pytest
from f2rag.testing import FakeEncoder, write_checkpoint

from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore

# The repository's tests know how to start a real server.
SHARED = Path(__file__).parents[3] / "tests"
if (SHARED / "servers.py").is_file():
    sys.path.insert(0, str(SHARED))
    from servers import qdrant_server, server_binary, server_folder  # noqa: F401  # fixtures

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Write a random checkpoint, once per session for each set of arguments; tests must not change its files."""

    @functools.cache
    def make(**arguments: Any) -> Path:
        return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", **arguments)

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint: MakeCheckpoint) -> Path:
    """A random checkpoint of the 80M's shape, scaled down: 40 dimensions, 3 live layers."""
    return make_checkpoint(model="80M")


@pytest.fixture(scope="session")
def tiny_embeddings(tiny: Path) -> Iterator[F2LLMEmbeddings]:
    """Real embeddings with random weights."""
    with F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32") as embeddings:
        yield embeddings


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    """An encoder without a model, in which texts that share words are close."""
    return FakeEncoder()


@pytest.fixture
def embeddings(fake_encoder: FakeEncoder) -> F2LLMEmbeddings:
    """Embeddings without a model."""
    return F2LLMEmbeddings.from_encoder(fake_encoder)


@pytest.fixture
def store(embeddings: F2LLMEmbeddings) -> Iterator[F2LLMVectorStore]:
    """An empty store in memory."""
    with F2LLMVectorStore(embeddings) as made:
        yield made
