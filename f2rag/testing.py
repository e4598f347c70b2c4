"""What tests are made with, f2rag's own and its users': a fake encoder and random checkpoints.

``FakeEncoder`` needs neither torch nor weights and returns in microseconds. ``write_checkpoint`` writes a folder in
F2LLM-v2's exact layout with random weights, which goes through the real loading code. Neither knows anything about
meaning: for that there is the bundled "stand-in" model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from f2rag.contract import EmbeddingContract
from f2rag.errors import DimensionsError, EncoderClosedError
from f2rag.prompts import DEFAULT_INSTRUCTION

if TYPE_CHECKING:
    from f2rag.models import ModelSpec
    from f2rag.types import FloatMatrix, FloatVector

__all__ = ["FakeEncoder", "write_checkpoint"]

END_OF_TEXT = "<|im_end|>"
PADDING = "<|endoftext|>"


class FakeEncoder:
    """An encoder of unit vectors that are made from hashes of words.

    Texts that share words are close; a query differs from the same text as a document, and queries with different
    instructions differ from one another, as with the real model. A vector cut to fewer dimensions and normalised again
    equals the vector that is asked for at those dimensions.

    Args:
        dimensions: Output size when none is given per call.
        native_dimensions: The largest size; at least ``dimensions``.
        instruction: What queries get when none is given per call.
        model_name: The name that goes into the contract.

    Example:
        >>> encoder = FakeEncoder(dimensions=32)
        >>> encoder.embed_documents(["red house", "blue sea"]).shape
        (2, 32)
    """

    __test__ = False

    def __init__(
        self,
        *,
        dimensions: int = 64,
        native_dimensions: int | None = None,
        instruction: str = DEFAULT_INSTRUCTION,
        model_name: str = "fake",
    ) -> None:
        self.model_name = model_name
        self.native_dimensions = max(dimensions, native_dimensions or 64)
        self.dimensions = dimensions
        self.instruction = instruction
        self.truncated_count = 0
        self.document_calls: list[int] = []
        self._closed = False
        self._lock = threading.Lock()

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        """The contract of the fake vectors."""
        return EmbeddingContract(
            model=self.model_name,
            revision="fake-1",
            native_dimensions=self.native_dimensions,
            dimensions=self._check(dimensions),
        )

    def embed_query(
        self, text: str, *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatVector:
        """Embed one query; returns float32 of shape (dimensions,)."""
        row: FloatVector = self.embed_queries([text], dimensions=dimensions, instruction=instruction)[0]
        return row

    def embed_queries(
        self, texts: Sequence[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """Embed queries; returns float32 of shape (n, dimensions)."""
        prompt = self.instruction if instruction is None else instruction
        return self._embed(texts, prompt=f"query\0{prompt}", dimensions=dimensions)

    def embed_documents(self, texts: Sequence[str], *, dimensions: int | None = None) -> FloatMatrix:
        """Embed documents; returns float32 of shape (n, dimensions)."""
        with self._lock:
            self.document_calls.append(len(texts))
        return self._embed(texts, prompt="document", dimensions=dimensions)

    def iter_documents(
        self, texts: Iterable[str], *, dimensions: int | None = None, window: int = 2048
    ) -> Iterator[FloatMatrix]:
        """Embed a stream; yields arrays of up to ``window`` rows, in order."""
        waiting: list[str] = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == window:
                yield self.embed_documents(waiting, dimensions=dimensions)
                waiting = []
        if waiting:
            yield self.embed_documents(waiting, dimensions=dimensions)

    def close(self) -> None:
        """Refuse further work, as the real encoder does."""
        self._closed = True

    def __enter__(self) -> FakeEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, dimensions: int | None) -> int:
        wanted = self.dimensions if dimensions is None else dimensions
        if not 1 <= wanted <= self.native_dimensions:
            message = f"dimensions={wanted} was given; {self.model_name} has 1..{self.native_dimensions}."
            raise DimensionsError(message)
        return wanted

    def _embed(self, texts: Sequence[str], *, prompt: str, dimensions: int | None) -> FloatMatrix:
        if self._closed:
            message = "This encoder is closed. Make a new one."
            raise EncoderClosedError(message)
        wanted = self._check(dimensions)
        rows = np.zeros((len(texts), self.native_dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row += self._direction(f"word\0{word}")
            row += 0.3 * np.linalg.norm(row) / np.sqrt(self.native_dimensions) * self._direction(prompt)
        rows = rows[:, :wanted]
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), dtype=np.float32)

    def _direction(self, key: str) -> FloatVector:
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.native_dimensions).astype(np.float32)
