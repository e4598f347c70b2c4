"""Everything the student trains on, as token ids with the number of the target each text has to reach."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from training import targets
from training.languages import ALL, MAIN
from training.rows import Row
from training.tokenizer import END

LONGEST = 256  # tokens of a training text, EOS included
Integers = npt.NDArray[np.int64]

#: Shares of what is drawn, by kind of text. `interface`, `help`, `pages`, `udhr` and `names` (CLDR) are translations;
#: `word` and `sequence` come from the teacher's lexicon, `chat` is small talk.
SHARES = {
    "interface": 0.25, "names": 0.1, "help": 0.06, "pages": 0.01, "udhr": 0.04, "word": 0.24, "sequence": 0.22,
    "chat": 0.08,
}  # fmt: skip


@dataclass
class Texts:
    """Tokenised texts with their kind, language and target row (-1: none)."""

    ids: Integers
    offsets: Integers
    group: Integers
    pools: dict[tuple[str, str], Integers]  # (kind, language) -> text numbers

    def tokens(self, text: int) -> Integers:
        """Returns the token ids of one text; the last one is EOS."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]

    def lengths(self) -> Integers:
        """Returns the number of tokens of every text."""
        return np.diff(self.offsets)


def kind_of(row: Row) -> str:
    """Returns the sampling kind of a row."""
    if row.source.startswith("cldr"):
        return "names"
    return {"libreoffice-help": "help", "libreoffice-help-pages": "pages", "udhr": "udhr"}.get(row.source, "interface")


class Builder:
    """Collects texts, then tokenises them in one go."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end: int = tokenizer.token_to_id(END) or 0
        self._texts: list[str] = []
        self._groups: list[int] = []
        self._pools: dict[tuple[str, str], list[int]] = defaultdict(list)

    def add(self, text: str, group: int, kind: str, code: str) -> None:
        """Adds one text of target `group`."""
        self._pools[kind, code].append(len(self._texts))
        self._texts.append(text)
        self._groups.append(group)

    def build(self) -> Texts:
        """Tokenises; texts longer than `LONGEST` are cut and keep their EOS."""
        parts: list[Integers] = []
        for start in range(0, len(self._texts), 20_000):
            for encoding in self.tokenizer.encode_batch_fast(self._texts[start : start + 20_000]):
                row = np.array(encoding.ids[:LONGEST], dtype=np.int64)
                row[-1] = self.end
                parts.append(row)
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts])))
        pools = {key: np.array(members) for key, members in self._pools.items()}
        return Texts(np.concatenate(parts), offsets, np.array(self._groups), pools)


def spread(rows: Iterable[Row], *, pages: int | None, seed: int = 0) -> list[Row]:
    """Thins very frequent material: at most `pages` help pages (None: all), and half of each help row's languages."""
    generator = random.Random(seed)
    chosen = list(rows)
    page_rows = [row for row in chosen if kind_of(row) == "pages"]
    keep = {
        id(row) for row in generator.sample(page_rows, len(page_rows) if pages is None else min(pages, len(page_rows)))
    }
    result = []
    for row in chosen:
        kind = kind_of(row)
        if kind == "pages" and id(row) not in keep:
            continue
        texts = row.texts
        if kind == "help":
            texts = {code: text for code, text in texts.items() if generator.random() < 0.5}
        result.append(Row(row.source, row.english, texts))
    return result


def build(
    rows: Sequence[Row],
    words: dict[str, list[str]],
    loose: dict[str, dict[str, str]],
    known: dict[str, int],
    tokenizer: Tokenizer,
) -> Texts:
    """Builds the training texts.

    Args:
        rows: Translations; all sides share the target of the English side.
        words: The teacher's words by language.
        loose: Texts that are their own target, by kind: text -> language.
        known: Number of the target of every text the teacher has seen.
        tokenizer: The student's tokenizer.
    """
    builder = Builder(tokenizer)
    for row in rows:
        group, kind = known.get(row.english, -1), kind_of(row)
        if group < 0:
            continue
        for code, text in [("en", row.english), *row.texts.items()]:
            builder.add(text, group, kind, code)
    for code, entries in words.items():
        for word in entries:
            if word in known:
                builder.add(word, known[word], "word", code)
    for kind, entries_of_kind in loose.items():
        for text, code in entries_of_kind.items():
            if text in known:
                builder.add(text, known[text], kind, code)
    return builder.build()


def target_matrix(
    vectors: targets.Floats, kinds: Sequence[str], *, dimensions: int = 256, power: float = 0.4
) -> torch.Tensor:
    """Returns the unit target vectors (texts, dimensions) for the teacher's vectors.

    `kinds` says what each text is: `sentence`, or `word`, `sequence` or `chat` with a language code.
    """
    of_words = np.array([kind.startswith("word") for kind in kinds])
    settled = np.array(kinds, dtype=object)
    settled[of_words] = targets.settle(vectors[of_words], list(settled[of_words]), "word ?")
    centred = targets.centred(vectors, [str(kind) for kind in settled])
    sentences = settled == "sentence"
    axes = targets.principal_axes(centred[sentences], dimensions, power=power)
    return torch.from_numpy(targets.unit(centred @ axes))


def save(path: Path, texts: Texts, goal: torch.Tensor) -> None:
    """Writes the data for the training processes."""
    arrays: dict[str, Any] = {f"pool {kind} {code}": members for (kind, code), members in texts.pools.items()}
    arrays |= {"ids": texts.ids, "offsets": texts.offsets, "group": texts.group, "goal": goal.numpy()}
    np.savez(path, **arrays)


def load(path: Path) -> tuple[Texts, torch.Tensor]:
    """Reads what `save` wrote."""
    with np.load(path) as stored:
        pools = {tuple(name.split(" ")[1:]): stored[name] for name in stored.files if name.startswith("pool ")}
        named = {(kind, code): members for (kind, code), members in pools.items()}
        return Texts(stored["ids"], stored["offsets"], stored["group"], named), torch.from_numpy(stored["goal"])


class Sampler:
    """Draws text numbers: first a kind, then a language, then a text."""

    def __init__(self, texts: Texts, *, seed: int, weights: dict[str, float] | None = None) -> None:
        self.texts = texts
        self.generator = np.random.default_rng(seed)
        self.keys = sorted(texts.pools)
        probability = np.array([self._weight(key, weights or SHARES) for key in self.keys])
        self.probability = probability / probability.sum()

    def _weight(self, key: tuple[str, str], shares: dict[str, float]) -> float:
        kind, code = key

        def language_weight(other: str) -> float:
            size = len(self.texts.pools[kind, other])
            importance = 1.0 if other in MAIN else 2.0 if other == "en" else 3.0 if other == "?" else 0.35
            return float(importance * size**0.4)

        total = sum(language_weight(other) for name, other in self.keys if name == kind)
        return shares[kind] * language_weight(code) / total

    def draw(self, count: int) -> Integers:
        """Returns `count` text numbers."""
        counts = self.generator.multinomial(count, self.probability)
        parts = [
            self.texts.pools[key][self.generator.integers(len(self.texts.pools[key]), size=number)]
            for key, number in zip(self.keys, counts, strict=True)
            if number
        ]
        return np.concatenate(parts)


def pair_index(texts: Texts) -> tuple[Integers, Integers]:
    """Returns the text numbers sorted by target and where each target starts, to find translations of a text."""
    order = np.argsort(texts.group, kind="stable")
    starts = np.searchsorted(texts.group[order], np.arange(texts.group.max() + 2))
    return order, starts


def known_languages() -> tuple[str, ...]:
    """Returns every language code a pool may carry."""
    return (*ALL, "?")
