"""Aligned rows: one English string and its translations, cleaned, with their source."""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST = 1_500  # characters; the longest strings we train on
_TAG = re.compile(r"<[^<>]{0,300}>")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_PLACEHOLDER = re.compile(
    r"%\([^)]*\)[sd]|%[-\d$.]*[sdiufx@]|\$\{[^}]*\}|\{\{[^}]*\}\}|\{[^{}]*\}|\$\d+|\[%key:[^%]*%\]|https?://\S+"
    r"|\$[a-zA-Z_]+|__\w+__|\\[nt]"
)
_QUOTE_MARKS = re.compile(r"'''|''|\[\[|\]\]|\*\*|`|~")
_EMPTY_BRACKETS = re.compile(r"\([\s:.,]*\)")
_SPACE = re.compile(r"\s+")
_HIDDEN = dict.fromkeys(map(ord, "\u00ad\u200e\u200f\u200b\ufeff"))


@dataclass(frozen=True)
class Row:
    """One English string with its translations by language code."""

    source: str
    english: str
    texts: dict[str, str]


def clean(text: str) -> str:
    """Removes markup, placeholders, accelerators and addresses; returns '' for what cannot be a plain string."""
    if len(text) > 2 * LONGEST or any(mark in text for mark in ("plural,", "select,", "{{PLURAL")):
        return ""
    text = html.unescape(_LINK.sub(r"\1", text)).translate(_HIDDEN)
    text = _PLACEHOLDER.sub(" ", _TAG.sub(" ", text))
    text = re.sub(r"&(?=\w)", "", text)
    text = _EMPTY_BRACKETS.sub("", _QUOTE_MARKS.sub("", text))
    return _SPACE.sub(" ", text).strip(' :;,-"\u201c\u201d')[:LONGEST]


def is_prose(text: str) -> bool:
    """True when at least 60 % of the characters are letters or combining marks (Indic vowels are marks)."""
    solid = text.replace(" ", "")
    if len(solid) < (2 if solid and ord(solid[0]) > 0x2E80 else 3):
        return False
    return sum(unicodedata.category(character)[0] in "LM" for character in solid) >= 0.6 * len(solid)


class RowBuilder:
    """Collects translations under their cleaned English string; the first translation of a language stays."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._texts: dict[str, dict[str, str]] = {}

    def add(self, english: str, language: str, text: str) -> None:
        """Adds one translation; silently skips what does not survive cleaning or equals the English."""
        key, value = clean(english), clean(text)
        if key == value or not is_prose(key) or not is_prose(value):
            return
        self._texts.setdefault(key, {}).setdefault(language, value)

    def rows(self) -> list[Row]:
        """Returns the collected rows in the order of their first appearance."""
        return [Row(self.source, english, texts) for english, texts in self._texts.items()]


def normal(text: str) -> str:
    """Returns the form in which two strings count as the same: lower case, words only."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower()))


def bucket(english: str, buckets: int = 100) -> int:
    """Returns the hold-out bucket of an English string; buckets 0 and 1 are never trained on."""
    return int.from_bytes(hashlib.blake2b(normal(english).encode(), digest_size=4).digest(), "big") % buckets


def five_grams(text: str) -> set[tuple[str, ...]]:
    """Returns the word 5-grams of a text (character 12-grams where words are not separated by spaces)."""
    words: list[str] = normal(text).split()
    if len(words) < 5 and len("".join(words)) >= 16:
        letters = "".join(words)
        return {(letters[i : i + 12],) for i in range(len(letters) - 11)}
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


class TestGuard:
    """Keeps test text out of training: exact matches, and strings that share half their 5-grams with it."""

    def __init__(self, tests: Iterable[str]) -> None:
        texts = list(tests)
        self.exact = {normal(text) for text in texts}
        self.grams = {gram for text in texts for gram in five_grams(text)}

    def allows(self, text: str) -> bool:
        """True when `text` may be trained on."""
        if normal(text) in self.exact:
            return False
        grams = five_grams(text)
        return not grams or len(grams & self.grams) < 0.5 * len(grams)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON lines."""
    with path.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps([row.source, row.english, row.texts], ensure_ascii=False) + "\n")


def read_rows(path: Path) -> Iterator[Row]:
    """Reads what `write_rows` wrote."""
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            source, english, texts = json.loads(line)
            yield Row(source, english, texts)
