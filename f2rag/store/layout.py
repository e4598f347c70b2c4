"""What a collection stores of each document besides its payload: vectors, prefixes of them, words, indexes.

The full vector is always there, without a name, under cosine: any tool that knows nothing of f2rag finds it. A layout
is decided when a collection is made and is remembered beside its contract.

    ""          the full vector; with levels it is float16 on disk and has no graph, since only the last stage reads it
    "mrl128"    its first 128 components, at unit length, with a graph; one for each level
    "bm25"      the words of the text, as a sparse vector (``lexical.py``)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from f2rag.errors import InputError

FULL = ""
"""Name of the full vector."""

LEXICAL = "bm25"
"""Name of the sparse vector of words."""

Quantization: TypeAlias = Literal["int8", "turbo4", "turbo2", "turbo1", "binary"]
"""How the vectors that have a graph are compressed in memory; the originals stay for rescoring.

``int8`` is a quarter of float32; ``turbo4``, ``turbo2`` and ``turbo1`` (TurboQuant, from Qdrant 1.18 and in the
embedded engine) are an eighth, a sixteenth and a thirty-second; ``binary`` is a thirty-second and the coarsest of all.
"""

FieldKind: TypeAlias = Literal["keyword", "integer", "float", "bool", "datetime", "text"]
"""What a metadata field holds, so that filters on it are answered by an index; ``text`` finds words, but no numbers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    """How texts are cut into words for the lexical half of a hybrid search; every field is compared on opening.

    Attributes:
        tokenizer: ``"multilingual"`` cuts Chinese, Japanese and Thai, which have no spaces, and splits Arabic prefixes.
            The others of Qdrant (``"word"``, ``"whitespace"``) find nothing there.
        k: How soon further occurrences of a word in one text stop to count (BM25's k1).
        b: How much long texts are held back, 0 to 1 (BM25's b).
        average_length: Words of a typical text.
    """

    tokenizer: Literal["multilingual", "word", "whitespace"] = "multilingual"
    k: float = 1.2
    b: float = 0.75
    average_length: float = 256.0

    def __post_init__(self) -> None:
        if self.tokenizer not in ("multilingual", "word", "whitespace"):
            raise InputError(f"tokenizer={self.tokenizer!r} is unknown; give multilingual, word or whitespace.")
        if self.k < 0 or not 0 <= self.b <= 1 or self.average_length <= 0:
            raise InputError(
                f"k={self.k}, b={self.b}, average_length={self.average_length}; expected k from 0, b from 0 to 1 and a "
                "positive length."
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is stored of each document.

    Attributes:
        levels: Matryoshka prefixes that are stored as vectors of their own, for the funnel; ascending.
        quantization: Compression of the vectors that have a graph: of the levels, or without levels of the full ones.
        lexical: How words are indexed for hybrid search; ``None`` for dense search alone.
        fields: Metadata fields that filters ask for, with what they hold. ``language`` and ``source`` always are.

    Raises:
        InputError: Values that no collection can have.
    """

    levels: tuple[int, ...] = ()
    quantization: Quantization | None = None
    lexical: Lexical | None = None
    fields: Mapping[str, FieldKind] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        levels = tuple(self.levels)
        if any(isinstance(level, bool) or not isinstance(level, int) or level < 1 for level in levels):
            raise InputError(f"levels={self.levels!r}; expected whole numbers from 1, for example (128,).")
        if len(set(levels)) != len(levels):
            raise InputError(f"levels={self.levels!r} names one twice.")
        object.__setattr__(self, "levels", tuple(sorted(levels)))
        if self.quantization is not None and self.quantization not in get_args(Quantization):
            known = ", ".join(get_args(Quantization))
            raise InputError(f"quantization={self.quantization!r} is unknown; give one of {known}, or None.")
        for name, kind in self.fields.items():
            if not isinstance(name, str) or not name or name.startswith("metadata."):
                raise InputError(f"{name!r} is no metadata field; write it bare, e.g. 'year' or 'author.name'.")
            if kind not in get_args(FieldKind):
                raise InputError(f"Field {name!r} is of kind {kind!r}; give one of {', '.join(get_args(FieldKind))}.")
        object.__setattr__(self, "fields", dict(sorted(self.fields.items())))

    def check(self, dimensions: int) -> Layout:
        """Return this layout if vectors of ``dimensions`` can have it.

        Raises:
            InputError: A level that is no true prefix.
        """
        if self.levels and self.levels[-1] >= dimensions:
            raise InputError(
                f"Level {self.levels[-1]} is no prefix of {dimensions}-dimensional vectors; "
                "give levels below that, or none."
            )
        return self

    @property
    def graph(self) -> str:
        """Name of the dense vector that an approximate search walks first: the smallest level, else the full one."""
        return level_name(self.levels[0]) if self.levels else FULL

    @property
    def indexes(self) -> dict[str, FieldKind]:
        """Payload paths with an index, and what they hold; made before the first upload, since later costs a re-index.

        ``doc_id`` is what LlamaIndex deletes by.
        """
        own: dict[str, FieldKind] = {"metadata.language": "keyword", "metadata.source": "keyword", "doc_id": "keyword"}
        return {**own, **{f"metadata.{name}": kind for name, kind in self.fields.items()}}

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of all vectors that a complete point has."""
        return (FULL, *map(level_name, self.levels), *((LEXICAL,) if self.lexical is not None else ()))

    def differences(self, other: Layout) -> dict[str, tuple[Any, Any]]:
        """Fields in which two layouts differ, as ``{field: (mine, theirs)}``."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    def to_dict(self) -> dict[str, Any]:
        """The form that is stored beside the contract."""
        return {
            "levels": list(self.levels),
            "quantization": self.quantization,
            "lexical": None if self.lexical is None else dataclasses.asdict(self.lexical),
            "fields": dict(self.fields),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Layout:
        """Read what ``to_dict`` wrote.

        Raises:
            InputError: A value that no layout has.
            TypeError: A form that no layout has.
        """
        lexical = stored.get("lexical")
        return cls(
            levels=tuple(stored.get("levels") or ()),
            quantization=stored.get("quantization"),
            lexical=None if lexical is None else Lexical(**lexical),
            fields=dict(stored.get("fields") or {}),
        )


def level_name(dimensions: int) -> str:
    """Name of the vector that holds a prefix."""
    return f"mrl{dimensions}"
