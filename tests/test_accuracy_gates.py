"""How far speed may move a vector: packing and compiling by rounding alone, bfloat16 by little enough to find the same.

The reference is stock transformers in float32, one text at a time, on the articles that the package brings along.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen3Model

from f2rag import F2LLMEncoder
from f2rag.compilation import what_lacks
from f2rag.corpus import load_udhr
from f2rag.types import FloatMatrix

LEAST_COSINE, MEAN_COSINE, OVERLAP = 0.999, 0.9999, 0.99
"""What bfloat16 must hold: bounds that this project set for itself, not taken from a publication."""

NEAREST = 10


@pytest.fixture(scope="module")
def articles() -> list[str]:
    """Every third article, in all languages."""
    return [document.text for document in load_udhr()][::3]


@pytest.fixture(scope="module")
def encoder() -> Iterator[F2LLMEncoder]:
    with F2LLMEncoder("stand-in", device="cpu", dtype="float32", max_length=4096) as made:
        yield made


@pytest.fixture(scope="module")
def exact(encoder: F2LLMEncoder, articles: list[str]) -> FloatMatrix:
    model = Qwen3Model.from_pretrained(encoder.checkpoint.folder, dtype=torch.float32).train(mode=False)
    tokenizer = Tokenizer.from_file(str(encoder.tokenizer_file()))
    rows = []
    with torch.inference_mode():
        for text in articles:
            ids = torch.tensor([tokenizer.encode(text).ids])
            rows.append(model(input_ids=ids).last_hidden_state[0, -1].numpy())
    vectors = np.stack(rows)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def nearest(vectors: FloatMatrix) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]


def overlap(one: FloatMatrix, other: FloatMatrix) -> float:
    """Share of each text's nearest that both agree on."""
    pairs = zip(nearest(one), nearest(other), strict=True)
    return float(np.mean([len({*left} & {*right}) / NEAREST for left, right in pairs]))


def test_float32_in_batches_is_the_reference(encoder: F2LLMEncoder, articles: list[str], exact: FloatMatrix) -> None:
    found = encoder.embed_documents(articles)
    assert np.abs(found - exact).max() < 1e-5
    assert overlap(found, exact) > 0.999
    backwards = encoder.embed_documents(articles[::-1])[::-1]
    assert np.abs(found - backwards).max() < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler about torch itself
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_finds_the_same(compiled: bool, articles: list[str], exact: FloatMatrix) -> None:
    if compiled and what_lacks("cpu") is not None:
        pytest.skip(f"cannot compile: {what_lacks('cpu')}")
    with F2LLMEncoder("stand-in", device="cpu", dtype="bfloat16", max_length=4096) as low:
        if compiled:
            assert low.compile() == "compiled"
        found = low.embed_documents(articles)
    cosines = (found * exact).sum(axis=1)
    assert LEAST_COSINE <= float(cosines.min()) < 0.9999999  # or it was not bfloat16
    assert float(cosines.mean()) >= MEAN_COSINE
    assert overlap(found, exact) >= OVERLAP
