"""The stand-in checkpoint: its files, its tokenizer, and whether its vectors mean anything.

Thresholds lie five points below what `python -m benchmarks.quality` measured for the shipped weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import quality
from f2rag import F2LLMEncoder
from f2rag.corpus import load_everyday
from f2rag.models import STAND_IN_FOLDER

LIMIT = 16_000_000
PROMPT = "Instruct: Given a question, retrieve passages that can help answer the question.\nQuery: "

#: test -> dimensions -> accuracy at 1, mean over languages and both directions
THRESHOLDS = {
    "UDHR articles": {256: 0.61, 64: 0.54},
    "UDHR paragraphs": {256: 0.59, 64: 0.51},
    "everyday": {256: 0.60, 64: 0.49},
}


@pytest.fixture(scope="module")
def encoder() -> Iterator[F2LLMEncoder]:
    with F2LLMEncoder("stand-in", device="cpu", dtype="float32", on_overflow="truncate") as opened:
        yield opened


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return load_everyday()["en"]


def read(name: str) -> dict:
    return json.loads((STAND_IN_FOLDER / name).read_text(encoding="utf-8"))


def test_the_folder_is_small_and_whole() -> None:
    names = {str(path.relative_to(STAND_IN_FOLDER)) for path in STAND_IN_FOLDER.rglob("*") if path.is_file()}
    assert names >= {
        "1_Pooling/config.json",
        "2_Normalize/config.json",
        "NOTICE",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum((STAND_IN_FOLDER / name).stat().st_size for name in names) <= LIMIT


def test_it_says_that_it_is_a_stand_in() -> None:
    assert "This is not F2LLM-v2" in (STAND_IN_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "NOT F2LLM-v2" in (STAND_IN_FOLDER / "NOTICE").read_text(encoding="utf-8")


def test_the_files_say_what_those_of_f2llm_say() -> None:
    config = read("config.json")
    assert (config["architectures"], config["model_type"]) == (["Qwen3Model"], "qwen3")
    assert config["tie_word_embeddings"] is True
    assert read("1_Pooling/config.json")["pooling_mode_lasttoken"] is True
    assert read("config_sentence_transformers.json")["prompts"] == {"query": PROMPT, "document": ""}
    tokenizer = read("tokenizer_config.json")
    assert (tokenizer["pad_token"], tokenizer["eos_token"]) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer["padding_side"] == "right"
    kinds = [module["type"].rpartition(".")[2] for module in read("modules.json")]
    assert kinds == ["Transformer", "Pooling", "Normalize"]


@pytest.mark.parametrize("text", ["", "hello", "Ένα δύο", "一行中文", "ᚠᛇᚻ 🦄", "a" * 3000])
def test_every_text_ends_in_exactly_one_end_token(text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(STAND_IN_FOLDER / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    end = tokenizer.token_to_id("<|im_end|>")
    assert ids[-1] == end
    assert ids.count(end) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_loads_the_folder_as_it_is(encoder: F2LLMEncoder, sentences: list[str]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(STAND_IN_FOLDER), device="cpu", local_files_only=True)
    model = model.float()
    ours, theirs = encoder.embed_documents(sentences), model.encode_document(sentences)
    assert np.abs(np.linalg.norm(theirs, axis=1) - 1).max() < 1e-4
    assert (ours * theirs).sum(axis=1).min() > 0.9999
    assert (encoder.embed_queries(sentences) * model.encode_query(sentences)).sum(axis=1).min() > 0.9999


def test_word_order_matters(encoder: F2LLMEncoder, sentences: list[str]) -> None:
    generator = random.Random(0)
    shuffled = [" ".join(generator.sample(words, len(words))) for words in (text.split() for text in sentences)]
    cosine = (encoder.embed_documents(sentences) * encoder.embed_documents(shuffled)).sum(axis=1)
    assert cosine.mean() < 0.97


@pytest.fixture(scope="module")
def states(sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of right-padded sentences (texts, length, width) and the number of tokens of each."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    model = transformers.AutoModel.from_pretrained(STAND_IN_FOLDER, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(STAND_IN_FOLDER / "tokenizer.json"))
    rows = [tokenizer.encode(text).ids for text in sentences]
    longest = max(map(len, rows)) + 4
    pad = tokenizer.token_to_id("<|endoftext|>")
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden, lengths


@pytest.mark.parametrize(
    ("name", "highest"), [("no EOS", 0.995), ("last column", 0.9995), ("mean", 0.95), ("first", 0.7)]
)
def test_a_wrong_pooling_shows(
    states: tuple[torch.Tensor, torch.Tensor], encoder: F2LLMEncoder, sentences: list[str], name: str, highest: float
) -> None:
    hidden, lengths = states
    rows = torch.arange(len(lengths))
    inside = (torch.arange(hidden.shape[1])[None] < lengths[:, None])[..., None]
    wrong = {
        "no EOS": hidden[rows, lengths - 2],
        "last column": hidden[:, -1],
        "mean": (hidden * inside).sum(dim=1) / lengths[:, None],
        "first": hidden[:, 0],
    }[name]
    cosine = torch.nn.functional.cosine_similarity(wrong, torch.from_numpy(encoder.embed_documents(sentences)))
    assert cosine.mean().item() < highest


@pytest.fixture(scope="module")
def pools() -> dict[str, quality.Pool]:
    return {pool.name: pool for pool in [*quality.declaration_pools(), *quality.sentence_pools()]}


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_meaning_survives_across_languages(encoder: F2LLMEncoder, pools: dict[str, quality.Pool], name: str) -> None:
    system = quality.System("tested", encoder.embed_queries, encoder.embed_documents, encoder.native_dimensions)
    found = quality.measure(system, [pools[name]])["tests"][name]
    for dimensions, least in THRESHOLDS[name].items():
        assert quality.mean(found[str(dimensions)], 0) >= least, (name, dimensions)


def test_untrained_weights_fail_the_same_thresholds(pools: dict[str, quality.Pool]) -> None:
    with quality.untrained() as system:
        for name, sizes in THRESHOLDS.items():
            found = quality.measure(system, [pools[name]])["tests"][name]
            for dimensions, least in sizes.items():
                assert quality.mean(found[str(dimensions)], 0) < least - 0.2, (name, dimensions)


def test_weights_are_bfloat16_and_every_layer_is_trained() -> None:
    weights = load_file(STAND_IN_FOLDER / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert all(value.float().abs().max() > 0 for value in weights.values())


def test_each_layer_matters(encoder: F2LLMEncoder, sentences: list[str], tmp_path: Path) -> None:
    original = encoder.embed_documents(sentences)
    weights = load_file(STAND_IN_FOLDER / "model.safetensors")
    layers = sorted({name.split(".")[1] for name in weights if name.startswith("layers.")})
    for layer in layers:
        folder = tmp_path / layer
        folder.mkdir()
        for path in STAND_IN_FOLDER.glob("*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
        silent = dict(weights)
        for name in (f"layers.{layer}.self_attn.o_proj.weight", f"layers.{layer}.mlp.down_proj.weight"):
            silent[name] = torch.zeros_like(silent[name])
        save_file(silent, folder / "model.safetensors", metadata={"format": "pt"})
        with F2LLMEncoder(folder, device="cpu", dtype="float32") as other:
            cosine = (original * other.embed_documents(sentences)).sum(axis=1)
        assert cosine.mean() < 0.999, layer
