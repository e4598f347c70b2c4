"""Figures during training: held-out rows to choose by, and the tests that are only ever looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from training import udhr
from training.languages import MAIN
from training.model import StandIn
from training.rows import Row

Floats = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Floats]


def cut(vectors: Floats, dimensions: int) -> Floats:
    """Slices, then normalises."""
    part = vectors[:, :dimensions]
    result: Floats = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
    return result


def both_ways(left: Floats, right: Floats, dimensions: int) -> float:
    """Accuracy at 1, mean of left to right and right to left; row i of both sides belongs together."""
    scores = cut(left, dimensions) @ cut(right, dimensions).T
    truth = np.arange(len(scores))
    return float(((scores.argmax(1) == truth).mean() + (scores.argmax(0) == truth).mean()) / 2)


def held_out(
    rows: Sequence[Row], *, languages: Sequence[str] = MAIN, limit: int = 60
) -> dict[str, tuple[list[str], list[str]]]:
    """Returns per language up to `limit` aligned held-out strings of four or more English words."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for code in languages:
        chosen = [row for row in rows if code in row.texts and 4 <= len(row.english.split()) <= 40][:limit]
        found[code] = [row.english for row in chosen], [row.texts[code] for row in chosen]
    return found


def declaration(
    declarations: dict[str, udhr.Declaration], *, paragraphs: bool, numbers: Sequence[int]
) -> dict[str, list[str]]:
    """Returns per language the articles (or their paragraphs, where counts agree with English) as a list."""
    result: dict[str, list[str]] = {}
    for code, found in declarations.items():
        if not paragraphs:
            result[code] = [" ".join(found[number]) for number in numbers]
        elif all(len(found[number]) == len(declarations["en"][number]) for number in numbers):
            result[code] = [text for number in numbers for text in found[number]]
    return result


def parallel_accuracy(
    encode: Encode, texts: dict[str, list[str]], dimensions: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Accuracy of English against every other language present."""
    vectors = {code: encode(values) for code, values in texts.items()}
    return {
        size: {code: both_ways(vectors["en"], vectors[code], size) for code in MAIN if code in vectors}
        for size in dimensions
    }


def held_out_accuracy(
    encode: Encode, sides: dict[str, tuple[list[str], list[str]]], dimensions: Sequence[int]
) -> dict[int, float]:
    """Mean accuracy over languages on held-out strings."""
    vectors = {code: (encode(left), encode(right)) for code, (left, right) in sides.items() if left}
    return {size: float(np.mean([both_ways(*pair, size) for pair in vectors.values()])) for size in dimensions}


def encoder(model: StandIn, tokenizer: Tokenizer, *, bag_only: bool = False) -> Encode:
    """Returns a function from texts to vectors; `bag_only` uses stage 1's shortcut."""

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Floats:
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        if bag_only:
            starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])[:-1]))
            flat = torch.tensor([token for row in rows for token in row])
            result: Floats = model.bag(flat, torch.from_numpy(starts)).numpy()
            return result
        output = np.zeros((len(rows), model.shape.hidden_size), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            longest = max(len(rows[number]) for number in chosen)
            ids = torch.tensor([rows[number] + [0] * (longest - len(rows[number])) for number in chosen])
            last = torch.tensor([len(rows[number]) - 1 for number in chosen])
            output[chosen] = model(ids, last).numpy()
        return output

    return encode
