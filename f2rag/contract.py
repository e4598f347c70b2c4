"""What makes two document vectors comparable, and the fingerprint that a collection remembers.

Same width does not mean same model: two vectors may be compared only when the checkpoint, the dimension, the pooling,
the normalisation and what was done to documents before encoding are equal. The query instruction is deliberately not
part of it: it changes queries, never the stored documents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

CONTRACT_KEY = "f2rag"
"""The one key under which the contract lies in a collection's metadata."""

SCHEMA_VERSION = 2
"""Version of what is stored beside a collection; a reader refuses a newer one. 2 added the layout."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingContract:
    """The identity of the vectors of a collection.

    Attributes:
        model: Repository id, or ``local:<folder name>`` for a folder.
        revision: Commit of the repository, or the content fingerprint of a local folder.
        native_dimensions: The model's own width.
        dimensions: The stored width after Matryoshka truncation.
        pooling: Always ``"last-token"`` for F2LLM-v2.
        normalization: Always ``"l2"``, after truncation.
        document_instruction: The instruction put before documents; empty for retrieval.
        max_length: Tokens after which a document is cut; recorded, not compared, since it changes only long documents.
        dtype: The compute dtype; recorded, not compared, since bf16 and fp32 vectors are comparable (cosine > 0.999).
        weight_dtype: What the model's matrices were held in, empty for the compute dtype; recorded, not compared, since
            queries of one find documents of the other as well as their own do (``docs/quantization.md``).
    """

    model: str
    revision: str
    native_dimensions: int
    dimensions: int
    pooling: str = "last-token"
    normalization: str = "l2"
    document_instruction: str = ""
    max_length: int = 0
    dtype: str = ""
    weight_dtype: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def fingerprint(self) -> str:
        """Hex digest of all compared fields; equal fingerprints mean comparable vectors."""
        canonical = json.dumps(self._compared(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def differences(self, other: EmbeddingContract) -> dict[str, tuple[Any, Any]]:
        """Compared fields in which ``self`` and ``other`` differ, as ``{field: (mine, theirs)}``."""
        mine, theirs = self._compared(), other._compared()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    def to_dict(self) -> dict[str, Any]:
        """The form that is stored in a collection's metadata."""
        return {**dataclasses.asdict(self), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> EmbeddingContract:
        """Read what ``to_dict`` wrote; unknown keys of newer versions are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in names})

    def _compared(self) -> dict[str, Any]:
        recorded_only = {"max_length", "dtype", "weight_dtype", "schema_version"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in recorded_only}
