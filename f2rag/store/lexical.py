"""Texts as sparse vectors of their words, for the lexical half of a hybrid search.

The vectors hold BM25's term weights; how rare a word is in the collection is the engine's part (``Modifier.IDF``). They
are made here, with the code of Qdrant's embedded engine, and not by the server: a server before 1.19 and one after it
take different settings for "no language in particular", and the local mode would download a model.

There is neither stemming nor a list of stop words: both belong to one language, and a text does not say which it is in.

Qdrant's multilingual tokenizer throws numbers away, and article numbers, years and error codes are what people look up
by word. So they are read here, digits of every script alike, and added.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from f2rag.errors import UnsupportedFeatureError
from f2rag.store.layout import Lexical
from f2rag.store.stages import SparseVector

_NUMBER = re.compile(r"[A-Za-z]*\d[A-Za-z\d]*")
"""Latin letters and digits in one word with at least one digit: 4711, A380, 1990s, ٢٠٢٤."""


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
        self._numbers = _model(lexical, "word") if lexical.tokenizer == "multilingual" else None

    def document(self, text: str) -> SparseVector:
        """The words of a document, weighted by how often they occur in it and by its length.

        Returns:
            Ascending word ids, each once; none for a text without words, which any engine stores as it is.
        """
        found = [self._model.embed_document(text)]
        if self._numbers is not None and (numbers := _numbers(text)):
            found.append(self._numbers.embed_document(numbers))
        return _joined(found)

    def query(self, text: str) -> SparseVector:
        """The words of a query, each with weight 1."""
        found = [self._model.embed_query(text)]
        if self._numbers is not None and (numbers := _numbers(text)):
            found.append(self._numbers.embed_query(numbers))
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


def _numbers(text: str) -> str:
    """The numbers of a text with ASCII digits, separated by blanks."""
    found = " ".join(_NUMBER.findall(text))
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in found)


def _joined(vectors: list[Any]) -> SparseVector:
    """Engines want ascending ids, each once; a word that both tokenizers found counts once."""
    weights: dict[int, float] = {}
    for vector in vectors:
        for index, value in zip(vector.indices, vector.values, strict=True):
            weights[index] = max(value, weights.get(index, 0.0))
    indices = sorted(weights)
    return SparseVector(indices, [weights[index] for index in indices])
