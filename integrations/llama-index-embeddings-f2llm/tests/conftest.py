"""Fixtures of the LlamaIndex tests. No test reaches a network: sockets are blocked and the model hub is set offline."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read by huggingface_hub when it is imported, so it must stand before everything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from f2rag.testing import FakeEncoder, write_checkpoint

with warnings.catch_warnings():
    # What the framework's own modules warn about while they are imported is not ours to fix.
    warnings.simplefilter("ignore")
    import llama_index.core  # noqa: F401

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the 80M's shape, scaled down: 40 dimensions, 3 live layers."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-f2llm")


@pytest.fixture(scope="session")
def other_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "other-f2llm", seed=1)


@pytest.fixture(scope="session")
def embedding(tiny: Path) -> F2LLMEmbedding:
    """The tiny model, in float32 as its weights are."""
    return F2LLMEmbedding(str(tiny), dtype="float32")


@pytest.fixture
def fake() -> F2LLMEmbedding:
    """An embedding without a model."""
    return F2LLMEmbedding.from_encoder(FakeEncoder(dimensions=64))


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path, fake: F2LLMEmbedding) -> Iterator[F2LLMVectorStore]:
    """An empty store for the fake embedding, in both homes that need no server."""
    location = ":memory:" if request.param == "memory" else str(tmp_path / "qdrant")
    opened = F2LLMVectorStore.open(location, embed_model=fake)
    yield opened
    opened.close()


@pytest.fixture
def ticks() -> Callable[..., Any]:
    """Run a coroutine beside a timer; returns its result and how often the timer ticked meanwhile."""

    async def run(work: Any, *, every: float = 0.002) -> tuple[Any, int]:
        count = 0

        async def tick() -> None:
            nonlocal count
            while True:
                await asyncio.sleep(every)
                count += 1

        timer = asyncio.create_task(tick())
        try:
            return await work, count
        finally:
            timer.cancel()

    return run
