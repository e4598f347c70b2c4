"""Our vectors against the reference: sentence-transformers, and the model card's plain transformers recipe.

Random checkpoints with live layers: there a wrong column, a missing EOS or a mean pool moves the numbers by far more
than the tolerance (see ``test_a_wrong_*``), which retrieval quality alone would hide.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers import SentenceTransformer

from f2rag import F2LLMEncoder, forward
from f2rag.models import MODELS, STAND_IN_FOLDER, mrl_ladder
from f2rag.packing import pad
from f2rag.prompts import TASKS, format_query
from f2rag.testing import write_checkpoint

TOLERANCE = 1e-6

QUERIES = [
    "What is F2LLM used for?",
    " starts with a blank",
    "什么是向量检索？",
    "ما هو البحث الدلالي؟",
    "🤖🧠 emoji",
    "two\nlines",
    "",
]
DOCUMENTS = [
    "We present F2LLM, a family of fully open embedding LLMs.",
    "F2LLM 是 CodeFuse 开源的系列嵌入模型。",
    "F2LLM — это модель вычисления встраивания текста, которую можно использовать для различных задач НЛП. " * 4,
    "x",
    "",
    "The same text twice.",
    "The same text twice.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
]

SHAPES = sorted({spec.name.removeprefix("F2LLM-v2-") for spec in MODELS if spec.kind != "stand-in"})


@functools.cache
def reference(folder: Path, max_length: int = 1024) -> SentenceTransformer:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    model.max_seq_length = max_length
    return model


def reference_queries(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    return np.asarray(reference(folder).encode_query(texts, normalize_embeddings=True, **options))


def reference_documents(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    return np.asarray(reference(folder).encode_document(texts, normalize_embeddings=True, **options))


def encoder(folder: Path, **options: Any) -> F2LLMEncoder:
    return F2LLMEncoder(folder, dtype="float32", device="cpu", **{"max_length": 1024, **options})


def difference(mine: np.ndarray, theirs: np.ndarray) -> float:
    assert mine.shape == theirs.shape
    assert mine.dtype == np.float32
    return float(np.abs(mine - theirs).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_query_and_document_equal_sentence_transformers_in_every_shape(make_checkpoint: Any, shape: str) -> None:
    folder = make_checkpoint(model=shape)
    with encoder(folder) as mine:
        assert difference(mine.embed_queries(QUERIES), reference_queries(folder, QUERIES)) <= TOLERANCE
        assert difference(mine.embed_documents(DOCUMENTS), reference_documents(folder, DOCUMENTS)) <= TOLERANCE


@pytest.mark.parametrize("folder_of", ["tiny", "stand_in"])
def test_every_ladder_dimension_equals_truncate_dim(tiny: Path, folder_of: str) -> None:
    folder = tiny if folder_of == "tiny" else stand_in()
    with encoder(folder) as mine:
        for dimensions in mrl_ladder(mine.native_dimensions):
            theirs = reference_documents(folder, DOCUMENTS, truncate_dim=dimensions)
            assert difference(mine.embed_documents(DOCUMENTS, dimensions=dimensions), theirs) <= TOLERANCE
            theirs = reference_queries(folder, QUERIES, truncate_dim=dimensions)
            assert difference(mine.embed_queries(QUERIES, dimensions=dimensions), theirs) <= TOLERANCE


def stand_in() -> Path:
    if not (STAND_IN_FOLDER / "model.safetensors").is_file():
        pytest.skip("the stand-in checkpoint is not in this checkout")
    return STAND_IN_FOLDER


def test_the_stand_in_equals_sentence_transformers() -> None:
    folder = stand_in()
    with encoder(folder) as mine:
        assert difference(mine.embed_queries(QUERIES), reference_queries(folder, QUERIES)) <= TOLERANCE
        assert difference(mine.embed_documents(DOCUMENTS), reference_documents(folder, DOCUMENTS)) <= TOLERANCE


@pytest.mark.parametrize("task", sorted(TASKS))
def test_each_named_task_equals_the_prompt_given_by_hand(tiny: Path, task: str) -> None:
    chosen = TASKS[task]
    prompt = format_query("", chosen.instruction)
    with encoder(tiny, task=task) as mine:
        theirs = reference_queries(tiny, QUERIES, prompt=prompt)
        assert difference(mine.embed_queries(QUERIES), theirs) <= TOLERANCE
        both = chosen.applies_to == "both"
        theirs = reference_documents(tiny, DOCUMENTS, **({"prompt": prompt} if both else {}))
        assert difference(mine.embed_documents(DOCUMENTS), theirs) <= TOLERANCE


def card_recipe(folder: Path, texts: list[str], *, padding_side: str = "right") -> np.ndarray:
    """The model card's transformers flow, with the EOS found by the mask so that it serves both padding sides."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    positions = torch.arange(hidden.shape[1])
    last = (batch["attention_mask"] * positions).argmax(dim=1)
    rows = hidden[torch.arange(len(texts)), last]
    return torch.nn.functional.normalize(rows, dim=1).numpy()


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_the_model_cards_recipe_gives_the_same(tiny: Path, padding_side: str) -> None:
    with encoder(tiny) as mine:
        theirs = card_recipe(tiny, DOCUMENTS, padding_side=padding_side)
        assert difference(mine.embed_documents(DOCUMENTS), theirs) <= TOLERANCE
        prompted = [format_query(query, mine.instruction) for query in QUERIES]
        theirs = card_recipe(tiny, prompted, padding_side=padding_side)
        assert difference(mine.embed_queries(QUERIES), theirs) <= TOLERANCE


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_overlong_texts_are_cut_as_the_reference_cuts_them(tiny: Path, padding_side: str) -> None:
    model = reference(tiny, 16)
    model.tokenizer.padding_side = padding_side
    with encoder(tiny, max_length=16, on_overflow="truncate") as mine:
        theirs = np.asarray(model.encode_document(DOCUMENTS, normalize_embeddings=True))
        assert difference(mine.embed_documents(DOCUMENTS), theirs) <= TOLERANCE


def test_batch_equals_single_in_any_order_and_under_any_budget(tiny: Path) -> None:
    texts = [f"{'word ' * (i * 7 % 23)}{i}" for i in range(60)]
    order = np.random.default_rng(1).permutation(len(texts))
    with encoder(tiny) as mine:
        together = mine.embed_documents(texts)
        alone = np.vstack([mine.embed_documents([text]) for text in texts])
        permuted = mine.embed_documents([texts[i] for i in order])
    assert difference(together, alone) <= TOLERANCE
    assert difference(permuted, together[order]) <= TOLERANCE
    for token_budget in (1, 50, 100_000):
        with encoder(tiny, token_budget=token_budget) as mine:
            assert difference(mine.embed_documents(texts), together) <= TOLERANCE


def test_a_bare_export_gets_last_token_pooling(make_checkpoint: Any) -> None:
    bare, full = make_checkpoint(model="160M", bare=True), make_checkpoint(model="160M")
    with encoder(bare) as mine:
        assert difference(mine.embed_documents(DOCUMENTS), reference_documents(full, DOCUMENTS)) <= TOLERANCE
        assert difference(mine.embed_queries(QUERIES), reference_queries(full, QUERIES)) <= TOLERANCE


def test_layer_types_of_the_unpruned_model_are_repaired(make_checkpoint: Any, tmp_path: Path) -> None:
    broken = write_checkpoint(tmp_path, model="80M", config_changes={"layer_types": ["full_attention"] * 28})
    with encoder(broken) as mine:
        theirs = reference_documents(make_checkpoint(model="80M"), DOCUMENTS)
        assert difference(mine.embed_documents(DOCUMENTS), theirs) <= TOLERANCE
        assert "28 entries" in " ".join(mine.checkpoint.repairs)


def test_a_rotary_base_in_the_newer_config_format_is_read(make_checkpoint: Any, tmp_path: Path) -> None:
    parameters = {"rope_type": "default", "rope_theta": 1_000_000.0}
    changes = {"rope_theta": None, "rope_parameters": parameters}
    newer = write_checkpoint(tmp_path, model="80M", config_changes=changes)
    with encoder(newer) as mine:
        theirs = reference_documents(make_checkpoint(model="80M"), DOCUMENTS)
        assert difference(mine.embed_documents(DOCUMENTS), theirs) <= TOLERANCE


def hidden_states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = model(
        input_ids=ids, attention_mask={"full_attention": None}, use_cache=False
    ).last_hidden_state
    return states


def last_column(model: Any, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    return hidden_states(model, ids)[:, -1]


def without_eos(model: Any, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    return hidden_states(model, ids)[torch.arange(len(ids)), (last - 1).clamp(min=0)]


def mean_pool(model: Any, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    inside = (torch.arange(ids.shape[1])[None, :] <= last[:, None])[..., None]
    return (hidden_states(model, ids) * inside).sum(1) / inside.sum(1)


@pytest.mark.parametrize("bug", [last_column, without_eos, mean_pool])
def test_a_wrong_pooling_is_caught(
    make_checkpoint: Any, monkeypatch: pytest.MonkeyPatch, bug: Callable[..., torch.Tensor]
) -> None:
    folder = make_checkpoint(model="330M")
    theirs = reference_documents(folder, DOCUMENTS)

    def wrong_states(self: Any, ids: Any) -> torch.Tensor:
        packing = pad(ids, pad_id=0)
        table = torch.from_numpy(packing.ids.reshape(packing.rows, packing.width))
        return bug(self._model, table, torch.from_numpy(packing.lengths) - 1).float()

    monkeypatch.setattr(forward.FastForward, "states", wrong_states)
    with encoder(folder) as mine:
        assert difference(mine.embed_documents(DOCUMENTS), theirs) > 1000 * TOLERANCE


def test_a_wrong_forward_fails_its_self_test_and_the_stock_one_takes_over(
    make_checkpoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(model="330M", seed=1)
    monkeypatch.setattr(forward.PaddedAttention, "of_last", lambda self, queries, keys, values: queries.flatten(1))
    with encoder(folder) as mine:
        assert difference(mine.embed_documents(DOCUMENTS), reference_documents(folder, DOCUMENTS)) <= TOLERANCE
        assert not mine.self_test_result()[1]
    assert "using a slower one" in caplog.text
