"""The nouns that pass between f2rag's parts: documents, hits, results, timings, and the encoder's interface.

This file knows no model, no tokenizer and no database.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
"""Float32 array of shape (n, dimensions)."""

FloatVector: TypeAlias = npt.NDArray[np.float32]
"""Float32 array of shape (dimensions,)."""

Role: TypeAlias = Literal["query", "document"]
"""The two sides of retrieval; F2LLM-v2 gives the query an instruction and the document none."""

Overflow: TypeAlias = Literal["truncate", "warn", "error"]
"""What happens to a text of more than ``max_length`` tokens."""

DOCUMENT_NAMESPACE = uuid.UUID("6f32d0de-9a4c-5f5b-8f6a-1d2f6c7a0b11")
"""Namespace of the UUID5 ids that stand for documents in Qdrant; changing it orphans every stored point."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to be found, with where it comes from.

    Attributes:
        text: The text, exactly as it is embedded.
        id: Any string that names this document for its owner. ``None`` derives one from the source, the position
            and the text, so that adding the same document twice changes nothing.
        language: BCP 47 tag, e.g. ``"fr"``, if known.
        source: Where the text comes from, e.g. a file path or a URL.
        metadata: Further JSON-like values to filter on and to show. Text under ``language`` and ``source`` is taken: it
            goes into those fields.
        payload: Further keys beside ``metadata`` in the stored payload, for tools that look for their own there.
    """

    text: str
    id: str | None = None
    language: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """The caller's id, or one derived from the source, the position and the text."""
        if self.id is not None:
            return self.id
        position = self.metadata.get("position", "")
        return str(uuid.uuid5(DOCUMENT_NAMESPACE, f"{self.source or ''}\0{position}\0{self.text}"))

    @property
    def point_id(self) -> str:
        """The UUID5 under which Qdrant keeps this document (Qdrant takes only UUIDs and integers)."""
        return point_id(self.key)


def point_id(key: str) -> str:
    """Map any string id to the UUID that Qdrant stores it under."""
    return str(uuid.uuid5(DOCUMENT_NAMESPACE, key))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One found document.

    Attributes:
        id: The caller's id of the document (see ``Document.key``).
        score: Cosine similarity of the query and the document, -1..1, higher is closer; of a hybrid search the sum of
            its reciprocal ranks, which is comparable within one result only.
        text: The document's text.
        language: Its language, if it was given.
        source: Its source, if it was given.
        metadata: Its other metadata, as it was given.
        payload: What it brought along beside its metadata.
    """

    id: str
    score: float
    text: str
    language: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HitGroup:
    """The best hits of one source, or whatever the hits were grouped by.

    Attributes:
        value: What they have in common.
        hits: Best first; the group ranks by its first.
    """

    value: str
    hits: Sequence[Hit]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one search went, in milliseconds."""

    encode_ms: float
    search_ms: float

    @property
    def total_ms(self) -> float:
        """Encoding and search together."""
        return self.encode_ms + self.search_ms


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The hits of one query with their evidence.

    Attributes:
        query: The query text as given.
        instruction: The instruction that was put before it; empty means that the query went in bare.
        model: The model that encoded it.
        dimensions: The vector size that was searched; in the mode ``"prefix"`` that of the level.
        mode: How it was searched, e.g. ``"exact"`` or ``"funnel"``; see ``f2rag.store.modes``.
        hits: Best first.
        timings: Milliseconds by step.
    """

    query: str
    instruction: str
    model: str
    dimensions: int
    mode: str
    hits: Sequence[Hit]
    timings: Timings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What one ``SearchEngine.index`` call did.

    Attributes:
        added: Documents that were new and are now stored.
        updated: Documents whose text or metadata had changed and were stored again.
        unchanged: Documents that were already there, equal, and were not embedded again.
        truncated: Documents of more tokens than ``max_length``, of which only the beginning was embedded.
        seconds: Wall-clock time of the call.
    """

    added: int
    updated: int
    unchanged: int
    truncated: int
    seconds: float

    @property
    def total(self) -> int:
        """All documents that were handed in."""
        return self.added + self.updated + self.unchanged


class Encoder(Protocol):
    """What the store, the engine and the integrations need of an embedder.

    ``F2LLMEncoder`` and ``f2rag.testing.FakeEncoder`` have this shape. All arrays are float32 with rows of unit length.
    """

    @property
    def model_name(self) -> str:
        """The model's name as it is shown to people."""

    @property
    def dimensions(self) -> int:
        """The size of the vectors that come out when no ``dimensions`` is given; known before any weight is read."""

    @property
    def native_dimensions(self) -> int:
        """The model's own, largest size."""

    @property
    def instruction(self) -> str:
        """The instruction that queries get when none is given; empty means none."""

    @property
    def truncated_count(self) -> int:
        """How many texts were cut to ``max_length`` since construction."""

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        """What makes two document vectors of this encoder comparable."""

    def embed_query(self, text: str, *, dimensions: int | None = None, instruction: str | None = None) -> FloatVector:
        """Embed one query; returns shape (dimensions,)."""

    def embed_queries(
        self, texts: Sequence[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """Embed queries; returns shape (n, dimensions)."""

    def embed_documents(self, texts: Sequence[str], *, dimensions: int | None = None) -> FloatMatrix:
        """Embed documents; returns shape (n, dimensions)."""

    def iter_documents(
        self, texts: Iterable[str], *, dimensions: int | None = None, window: int = 2048
    ) -> Iterable[FloatMatrix]:
        """Embed an endless stream of documents in bounded memory; yields arrays of up to ``window`` rows, in order."""

    def close(self) -> None:
        """Release the model."""
