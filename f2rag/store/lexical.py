"""Texts as sparse vectors of their words, for the lexical half of a hybrid search.

The vectors hold BM25's term weights; how rare a word is in the collection is the engine's part (``Modifier.IDF``). They
are made here, with the code of Qdrant's embedded engine, and not by the server: a server before 1.19 and one after it
take different settings for "no language in particular", and the local mode would download a model.

There is neither stemming nor a list of stop words: both belong to one language, and a text does not say which it is in.

Qdrant's multilingual tokenizer alone misses much of what people look up, so three kinds of terms are added to its words
(all measured on version 0.9.0 of the embedded engine):

* Numbers, which it throws away: article numbers, years, error codes; digits of every script alike.
* Pairs of neighbouring letters in Han, Katakana and Hangul. It guesses a text's language before it cuts, so that a
  Japanese word in Kanji alone is cut as Chinese and never matches; and Korean particles stick to their words. Pairs
  need no guess (the bigrams of Lucene's CJKAnalyzer).
* Arabic words without article and conjunctions: "والصحة" stays one word otherwise and "الصحة" does not find it (the
  prefixes of Larkey's light stemmer, 2002).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Any

from f2rag.errors import UnsupportedFeatureError
from f2rag.store.layout import Lexical
from f2rag.store.stages import SparseVector

_NUMBER = re.compile(r"[A-Za-z]*\d[A-Za-z\d]*")
"""Latin letters and digits in one word with at least one digit: 4711, A380, 1990s, ٢٠٢٤."""

_UNSPACED = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[\u30a1-\u30fa\u30fc]+|[\uac00-\ud7a3]+")
"""Runs of Han, of Katakana and of Hangul."""

_ARABIC = re.compile(r"[\u0620-\u064a]+")
_ARABIC_PREFIX = re.compile(r"(?:[وبكف]?ال|لل)(?=..)|و(?=...)")


class WordEncoder:
    """Makes sparse vectors of texts; the same settings must make those of documents and queries.

    Args:
        lexical: The settings, which a collection remembers.

    Raises:
        UnsupportedFeatureError: Qdrant's embedded engine is not installed.
    """

    def __init__(self, lexical: Lexical) -> None:
        self.lexical = lexical
        self._model = _model(lexical, lexical.tokenizer)
        self._further = _model(lexical, "whitespace") if lexical.tokenizer == "multilingual" else None

    def document(self, text: str) -> SparseVector:
        """The words of a document, weighted by how often they occur in it and by its length.

        Returns:
            Ascending word ids, each once; none for a text without words, which any engine stores as it is.
        """
        found = [self._model.embed_document(text)]
        if self._further is not None and (terms := _further_terms(text)):
            found.append(self._further.embed_document(" ".join(terms)))
        return _joined(found)

    def query(self, text: str) -> SparseVector:
        """The words of a query, each with weight 1."""
        found = [self._model.embed_query(text)]
        if self._further is not None and (terms := _further_terms(text)):
            found.append(self._further.embed_query(" ".join(terms)))
        return _joined(found)


def _model(lexical: Lexical, tokenizer: str) -> Any:
    try:
        import qdrant_edge as edge
    except ImportError as error:
        raise UnsupportedFeatureError(
            "The words of texts are cut by qdrant-edge-py, which is not installed here; a hybrid search needs it, with "
            "a server too. Install it where it has a wheel (pip install qdrant-edge-py: Linux, macOS, Windows on "
            "x86-64), or choose a layout without a lexical half."
        ) from error
    tokenizers = {
        "multilingual": edge.TokenizerType.Multilingual,
        "word": edge.TokenizerType.Word,
        "whitespace": edge.TokenizerType.Whitespace,
    }
    return edge.Bm25(
        edge.Bm25Config(
            k=lexical.k,
            b=lexical.b,
            avg_len=lexical.average_length,
            tokenizer=tokenizers[tokenizer],
            stemmer=edge.DisabledStemmer(),
            stopwords=edge.StopwordsSet(),
        )
    )


def _further_terms(text: str) -> list[str]:
    """What the multilingual tokenizer misses, see above."""
    composed = unicodedata.normalize("NFKC", text)
    terms = ["".join(str(unicodedata.decimal(letter, letter)) for letter in word) for word in _NUMBER.findall(composed)]
    for run in _UNSPACED.findall(composed):
        terms += [run] if len(run) == 1 else [first + second for first, second in itertools.pairwise(run)]
    terms += [_ARABIC_PREFIX.sub("", word, count=1) for word in _ARABIC.findall(composed)]
    return terms


def _joined(vectors: list[Any]) -> SparseVector:
    """Engines want ascending ids, each once; a term that was found in two ways counts once."""
    weights: dict[int, float] = {}
    for vector in vectors:
        for index, value in zip(vector.indices, vector.values, strict=True):
            weights[index] = max(value, weights.get(index, 0.0))
    indices = sorted(weights)
    return SparseVector(indices, [weights[index] for index in indices])
