"""f2rag: F2LLM-v2 multilingual embeddings, right, fast and easy inside RAG applications.

Importing this package is cheap: torch and transformers are imported when the first text is embedded.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f2rag.comparison import Comparison, compare
    from f2rag.contract import EmbeddingContract
    from f2rag.encoder import F2LLMEncoder
    from f2rag.engine import SearchEngine
    from f2rag.errors import F2RagError
    from f2rag.highlighting import Highlight, best_sentences
    from f2rag.models import ModelSpec
    from f2rag.projection import Projection, project
    from f2rag.store import QdrantStore
    from f2rag.types import Document, Hit, IndexReport, SearchResult, Timings

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "f2rag.comparison",
    "Document": "f2rag.types",
    "EmbeddingContract": "f2rag.contract",
    "F2LLMEncoder": "f2rag.encoder",
    "F2RagError": "f2rag.errors",
    "Highlight": "f2rag.highlighting",
    "Hit": "f2rag.types",
    "IndexReport": "f2rag.types",
    "ModelSpec": "f2rag.models",
    "Projection": "f2rag.projection",
    "QdrantStore": "f2rag.store",
    "SearchEngine": "f2rag.engine",
    "SearchResult": "f2rag.types",
    "Timings": "f2rag.types",
    "best_sentences": "f2rag.highlighting",
    "compare": "f2rag.comparison",
    "project": "f2rag.projection",
}

__all__ = [
    "Comparison",
    "Document",
    "EmbeddingContract",
    "F2LLMEncoder",
    "F2RagError",
    "Highlight",
    "Hit",
    "IndexReport",
    "ModelSpec",
    "Projection",
    "QdrantStore",
    "SearchEngine",
    "SearchResult",
    "Timings",
    "__version__",
    "best_sentences",
    "compare",
    "project",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import public names on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
