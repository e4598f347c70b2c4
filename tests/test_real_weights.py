"""The published cosines of the model cards, for the day that real weights are at hand.

Run with ``F2RAG_TEST_REAL_WEIGHTS=1`` (models from the Hugging Face cache or the hub) or with the variable set to a
folder that holds ``F2LLM-v2-1.7B`` and so on.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from f2rag import F2LLMEncoder

pytestmark = pytest.mark.real_weights

WHERE = os.environ.get("F2RAG_TEST_REAL_WEIGHTS", "")

CARD_QUERY = "What is F2LLM used for?"
CARD_DOCUMENTS = [
    "We present F2LLM, a family of fully open embedding LLMs that achieve a strong balance between model size, "
    "training data, and embedding performance.",
    "F2LLM is a model for computing text embeddings that can be used for various NLP tasks such as information "
    "retrieval, semantic search, and text classification.",
    "F2LLM 是 CodeFuse 开源的系列嵌入模型。",
    "F2LLM — это модель вычисления встраивания текста, которую можно использовать для различных задач НЛП, таких как "
    "поиск информации, семантический поиск и классификация текста.",
]

# Sources: the model cards of codefuse-ai/F2LLM-v2-1.7B and -14B, and the card copied in seamon67/F2LLM-v2-4B-GGUF.
CARD_COSINES = {
    "1.7B": [0.6735, 0.8418, 0.7513, 0.8602],
    "4B": [0.6348, 0.8547, 0.7168, 0.8356],
    "14B": [0.5773, 0.8323, 0.7229, 0.8062],
}
CARD_TOLERANCE = 0.01  # the two paths on the 1.7B card differ by 0.006 in bf16

PREVIEW_QUERY = "Which planet is known as the Red Planet?"
PREVIEW_DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
# Source: sentence-transformers, tests/sentence_transformer/test_pretrained.py, float32.
PREVIEW_COSINES = [0.20653, 0.55272, 0.38990, 0.50644]


def encoder(size: str) -> F2LLMEncoder:
    if not WHERE:
        pytest.skip("set F2RAG_TEST_REAL_WEIGHTS=1, or to a folder that holds the models, to check the real weights")
    folder = Path(WHERE) / f"F2LLM-v2-{size}"
    return F2LLMEncoder(folder if folder.is_dir() else size)


@pytest.mark.parametrize("size", CARD_COSINES)
def test_cosines_of_the_model_card(size: str) -> None:
    with encoder(size) as model:
        cosines = model.similarity(model.embed_query(CARD_QUERY), model.embed_documents(CARD_DOCUMENTS))[0]
    assert np.abs(cosines - CARD_COSINES[size]).max() < CARD_TOLERANCE, cosines


def test_cosines_of_the_preview_in_the_reference_suite() -> None:
    with encoder("0.6B-Preview") as model:
        cosines = model.similarity(model.embed_query(PREVIEW_QUERY), model.embed_documents(PREVIEW_DOCUMENTS))[0]
    assert np.allclose(cosines, PREVIEW_COSINES, rtol=0.01), cosines
