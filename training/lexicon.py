"""General vocabulary for distillation: the teacher's whole words by language, and short random word sequences.

Interface strings cover few of the words that a legal text or an everyday sentence uses. Distillation needs no parallel
text, so the teacher's own vocabulary fills the gap: each whole word is embedded by the teacher, alone and in random
short sequences of one language, and the student learns those vectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from training.languages import ALL
from training.rows import Row

#: Scripts that settle the language (of those we train) on their own.
SCRIPTS = {
    "GREEK": "el", "HEBREW": "he", "GEORGIAN": "ka", "TAMIL": "ta", "BENGALI": "bn", "THAI": "th", "HANGUL": "ko",
    "HIRAGANA": "ja", "KATAKANA": "ja", "DEVANAGARI": "hi",
}  # fmt: skip
SHARED_SCRIPTS = ("LATIN", "CYRILLIC", "ARABIC", "CJK")
_WORD = re.compile(r"[^\W\d_]+")


def script(word: str) -> str:
    """Returns the first word of the Unicode name of the word's most frequent letter, e.g. `LATIN`."""
    names = Counter(unicodedata.name(character, "?").split()[0] for character in word)
    return names.most_common(1)[0][0]


def corpus_words(rows: Iterable[Row]) -> dict[str, Counter[str]]:
    """Counts, for each lower-case word of the training text, the languages it appears in."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for code, text in [("en", row.english), *row.texts.items()]:
            for word in set(_WORD.findall(text.lower())):
                found[word][code] += 1
    return found


def words_by_language(words: Sequence[str], rows: Iterable[Row]) -> dict[str, list[str]]:
    """Sorts the teacher's words (most frequent first) under the language they belong to; `?` when it is unknown."""
    seen = corpus_words(rows)
    sizes: Counter[str] = Counter()
    for counts in seen.values():
        sizes.update(counts)
    result: dict[str, list[str]] = defaultdict(list)
    for word in words:
        kind, found = script(word), seen.get(word.lower())
        if kind in SCRIPTS:
            result[SCRIPTS[kind]].append(word)
        elif found:
            result[_typical(found, sizes)].append(word)
        elif kind in SHARED_SCRIPTS:
            result["?"].append(word)
    return result


def _typical(counts: Counter[str], sizes: Counter[str]) -> str:
    """Returns the language in which a word takes the largest share of all words."""
    return max(counts, key=lambda code: counts[code] / sizes[code])


def sequences(words: dict[str, list[str]], count: int, *, seed: int) -> dict[str, str]:
    """Draws `count` sequences of 2-7 distinct words of one language, frequent words more often: text -> language."""
    generator = np.random.default_rng(seed)
    codes = [code for code in ALL if len(words.get(code, ())) >= 200]
    drawn: dict[str, str] = {}
    for code in generator.choice(codes, size=count):
        pool = words[str(code)]
        positions = (len(pool) * generator.random(generator.integers(2, 8)) ** 1.5).astype(int)
        separator = "" if code in ("zh", "ja", "th") else " "
        text = separator.join(pool[position] for position in dict.fromkeys(positions.tolist()))
        drawn.setdefault(text, str(code))
    return drawn
