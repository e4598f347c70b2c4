"""The wrapper's vectors against the core's and sentence-transformers', for each role, task and trained dimension."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from f2rag import F2LLMEncoder
from f2rag.models import mrl_ladder
from f2rag.prompts import TASKS, format_query

from langchain_f2llm import F2LLMEmbeddings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers import SentenceTransformer

TOLERANCE = 1e-6
TEXTS = [
    "What is F2LLM used for?",
    " starts with a blank",
    "什么是向量检索？",
    "two\nlines\tand a tab",
    "",
    "F2LLM — это модель вычисления встраивания текста. " * 4,
]


@pytest.fixture(scope="session")
def reference(tiny: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(tiny), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    model.max_seq_length = 1024
    return model


def wrapper(folder: Path, **options: Any) -> F2LLMEmbeddings:
    return F2LLMEmbeddings(model=folder, device="cpu", **{"dtype": "float32", "max_length": 1024, **options})


def cut(rows: np.ndarray, dimensions: int) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)[:, :dimensions]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dimensions", mrl_ladder(40))
def test_each_trained_dimension(tiny: Path, reference: SentenceTransformer, dimensions: int) -> None:
    mine = wrapper(tiny, dimensions=dimensions)
    core = F2LLMEncoder(tiny, device="cpu", dtype="float32", max_length=1024, dimensions=dimensions)
    queries, documents = np.array(mine.embed_queries(TEXTS)), np.array(mine.embed_documents(TEXTS))
    assert np.abs(queries - core.embed_queries(TEXTS)).max() <= TOLERANCE
    assert np.abs(documents - core.embed_documents(TEXTS)).max() <= TOLERANCE
    assert np.abs(queries - cut(reference.encode_query(TEXTS), dimensions)).max() <= TOLERANCE
    assert np.abs(documents - cut(reference.encode_document(TEXTS), dimensions)).max() <= TOLERANCE
    for text, row in zip(TEXTS, queries, strict=True):
        assert np.abs(np.array(mine.embed_query(text)) - row).max() <= TOLERANCE


@pytest.mark.parametrize("task", sorted(TASKS))
def test_each_task(tiny: Path, reference: SentenceTransformer, task: str) -> None:
    mine = wrapper(tiny, task=task)
    core = F2LLMEncoder(tiny, device="cpu", dtype="float32", max_length=1024, task=task)
    prompt = format_query("", TASKS[task].instruction)
    document_prompt = prompt if TASKS[task].applies_to == "both" else ""
    queries, documents = np.array(mine.embed_queries(TEXTS)), np.array(mine.embed_documents(TEXTS))
    assert np.abs(queries - core.embed_queries(TEXTS)).max() <= TOLERANCE
    assert np.abs(documents - core.embed_documents(TEXTS)).max() <= TOLERANCE
    assert np.abs(queries - reference.encode(TEXTS, prompt=prompt)).max() <= TOLERANCE
    assert np.abs(documents - reference.encode(TEXTS, prompt=document_prompt)).max() <= TOLERANCE


@pytest.mark.parametrize("role", ["query", "document"])
def test_bfloat16_is_near(tiny: Path, reference: SentenceTransformer, role: str) -> None:
    half = wrapper(tiny, dtype="bfloat16")
    mine = half.embed_queries_array(TEXTS) if role == "query" else half.embed_documents_array(TEXTS)
    theirs = reference.encode_query(TEXTS) if role == "query" else reference.encode_document(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-6)
    assert (mine * np.asarray(theirs)).sum(axis=1).min() >= 0.999


async def test_async_too(tiny: Path, reference: SentenceTransformer) -> None:
    mine = wrapper(tiny)
    assert np.abs(np.array(await mine.aembed_queries(TEXTS)) - reference.encode_query(TEXTS)).max() <= TOLERANCE
    assert np.abs(np.array(await mine.aembed_documents(TEXTS)) - reference.encode_document(TEXTS)).max() <= TOLERANCE
    assert np.abs(np.array(await mine.aembed_query(TEXTS[0])) - reference.encode_query(TEXTS[0])).max() <= TOLERANCE


def test_queries_and_documents_differ(tiny: Path) -> None:
    mine = wrapper(tiny)
    assert float(np.array(mine.embed_query("a")) @ np.array(mine.embed_documents(["a"])[0])) < 0.9
