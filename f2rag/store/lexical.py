"""Texts as sparse vectors of their words, for the lexical half of a hybrid search.

The vectors hold BM25's term weights; how rare a word is in the collection is the engine's part (``Modifier.IDF``). They
are made here, with the code of Qdrant's embedded engine, and not by the server: a server before 1.19 and one after it
take different settings for "no language in particular", and the local mode would download a model.

There is neither stemming nor a list of stop words: both belong to one language, and a text does not say which it is in.
"""

from __future__ import annotations

from typing import Any

from f2rag.errors import UnsupportedFeatureError
from f2rag.store.layout import Lexical
from f2rag.store.stages import SparseVector


class WordEncoder:
    """Makes sparse vectors of texts; the same settings must make those of documents and queries.

    Args:
        lexical: The settings, which a collection remembers.

    Raises:
        UnsupportedFeatureError: Qdrant's embedded engine is not installed.
    """

    def __init__(self, lexical: Lexical) -> None:
        self.lexical = lexical
        self._model = _model(lexical)

    def document(self, text: str) -> SparseVector:
        """The words of a document, weighted by how often they occur in it and by its length.

        Returns:
            Ascending word ids, each once; none for a text without words, which any engine stores as it is.
        """
        return _sparse(self._model.embed_document(text))

    def query(self, text: str) -> SparseVector:
        """The words of a query, each with weight 1."""
        return _sparse(self._model.embed_query(text))


def _model(lexical: Lexical) -> Any:
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
            tokenizer=tokenizers[lexical.tokenizer],
            stemmer=edge.DisabledStemmer(),
            stopwords=edge.StopwordsSet(),
        )
    )


def _sparse(vector: Any) -> SparseVector:
    """Engines want ascending ids, each once."""
    pairs = sorted(zip(vector.indices, vector.values, strict=True))
    return SparseVector([index for index, _ in pairs], [value for _, value in pairs])
