"""Long texts into chunks that fit the model, counted in the model's own tokens.

A chunk ends at the highest boundary that fits: paragraph, line, sentence, word (by Unicode's rules, and by
dictionary in scripts without blanks), and never inside what a reader sees as one character. The rule to know:
every character of a text that is not white space is in at least one chunk, and a chunk is exactly
``text[start:end]``. This file knows no model and no file format, only a ``tokenizer.json``.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from f2rag.errors import InputError, TokenizerError
from f2rag.types import Document

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter
    from tokenizers import Tokenizer

DEFAULT_CHUNK_TOKENS = 512
"""Tokens of a chunk, EOS included: some paragraphs, and within the safe length of every checkpoint."""

DEFAULT_OVERLAP = 64
"""Tokens that a chunk repeats of the one before, so that a thought on the border is whole in one of them."""

MINIMUM_CHUNK_TOKENS = 16
"""A chunk must have room for a character of many tokens, such as an emoji of several people."""

_JOINERS = frozenset("\u200c\u200d")
_LINKERS = frozenset("\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d\u1039\u17d2")
"""Marks that join the consonants before and after them (Unicode: Indic_Conjunct_Break=Linker)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text.

    Attributes:
        text: The piece, equal to ``text[start:end]`` of the whole.
        start: Offset of its first character.
        end: Offset after its last character.
    """

    text: str
    start: int
    end: int


class Chunker:
    """Splits texts by the tokens of one tokenizer. Reads the tokenizer on first use.

    Args:
        tokenizer_file: Path of a ``tokenizer.json``, e.g. ``encoder.tokenizer_file()``.
        chunk_tokens: Most tokens of a chunk, the EOS included, so that a chunk of ``max_length`` tokens is
        not cut. overlap: Most tokens that a chunk repeats of the one before.

    Raises:
        InputError: ``chunk_tokens`` is below 16, or ``overlap`` is negative or not below ``chunk_tokens``.

    Example:
        >>> chunker = Chunker(encoder.tokenizer_file(), chunk_tokens=256, overlap=32)  # doctest: +SKIP
        >>> [chunk.text for chunk in chunker.split(book)]  # doctest: +SKIP
    """

    def __init__(
        self,
        tokenizer_file: Path,
        *,
        chunk_tokens: int = DEFAULT_CHUNK_TOKENS,
        overlap: int = DEFAULT_OVERLAP,
    ) -> None:
        if chunk_tokens < MINIMUM_CHUNK_TOKENS:
            message = f"chunk_tokens={chunk_tokens} was given; give {MINIMUM_CHUNK_TOKENS} or more."
            raise InputError(message)
        if not 0 <= overlap < chunk_tokens - 1:
            message = (
                f"overlap={overlap} was given with chunk_tokens={chunk_tokens}; "
                f"give 0 to {chunk_tokens - 2} tokens, commonly an eighth of the chunk."
            )
            raise InputError(message)
        self.tokenizer_file = Path(tokenizer_file)
        self.chunk_tokens = chunk_tokens
        self.overlap = overlap
        self._splitter: TextSplitter | None = None
        self._tokenizer: Tokenizer | None = None

    def split(self, text: str) -> list[Chunk]:
        """Split a text; white space around a chunk is left out, and a blank text has no chunk.

        Only a single visible character of more than ``chunk_tokens`` tokens makes a chunk longer than that.

        Raises:
            TokenizerError: The tokenizer cannot be read.
        """
        chunks: list[Chunk] = []
        for offset, piece in self._load().chunk_indices(text):
            chunk = self._trimmed(text, _whole(text, offset), _whole(text, offset + len(piece)))
            if chunk.text and chunk not in chunks[-1:]:
                chunks.append(chunk)
        return chunks

    def split_documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Split documents as they come; in order, in bounded memory.

        A document of one chunk keeps its id. The chunks of a longer one are named ``<id>#1``, ``<id>#2`` and
        so on, and their metadata says where they lie: ``chunk`` (counted from 1), ``start`` and ``end``
        (offsets of characters).

        Raises:
            TokenizerError: The tokenizer cannot be read.
        """
        for document in documents:
            chunks = self.split(document.text)
            if len(chunks) == 1:
                yield dataclasses.replace(document, text=chunks[0].text, id=document.key)
                continue
            for number, chunk in enumerate(chunks, start=1):
                position = {"chunk": number, "start": chunk.start, "end": chunk.end}
                yield dataclasses.replace(
                    document,
                    text=chunk.text,
                    id=f"{document.key}#{number}",
                    metadata={**document.metadata, **position},
                )

    def _load(self) -> TextSplitter:
        if self._splitter is None:
            from semantic_text_splitter import TextSplitter
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_file(str(self.tokenizer_file))
            except Exception as error:  # the library raises bare Exception
                message = (
                    f"{self.tokenizer_file} cannot be read as a tokenizer: {error}. "
                    "Give the tokenizer.json of a checkpoint."
                )
                raise TokenizerError(message) from error
            # A tokenizer that cuts would hide the length of what it is asked to measure.
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self._tokenizer = tokenizer
            # The splitter counts without the EOS; its own trimming leaves out chunks with an overlap.
            self._splitter = TextSplitter.from_huggingface_tokenizer(
                tokenizer, self.chunk_tokens - 1, overlap=self.overlap, trim=False
            )
        return self._splitter

    def _trimmed(self, text: str, start: int, end: int) -> Chunk:
        """Leave out white space at both ends; at the start only if that does not make the chunk too long."""
        piece = text[start:end].rstrip()
        bare = piece.lstrip()
        # "word" may have more tokens than " word".
        if bare != piece and self._tokens(bare) < self.chunk_tokens:
            start += len(piece) - len(bare)
            piece = bare
        return Chunk(piece, start, start + len(piece))

    def _tokens(self, text: str) -> int:
        assert self._tokenizer is not None
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _whole(text: str, offset: int) -> int:
    """Move an offset to the end of the visible character that it would break.

    The splitter breaks a grapheme only when that alone has more tokens than a chunk: long chains of marks and
    joiners.
    """
    while 0 < offset < len(text) and _joined(text[offset - 1], text[offset]):
        offset += 1
    return offset


def _joined(before: str, after: str) -> bool:
    return (
        unicodedata.category(after) in {"Mn", "Me", "Mc"}
        or after in _JOINERS
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # letters of flags such as Wales's
        or before == "\u200d"
        or (before in _LINKERS and after.isalpha())
        or (before == "\r" and after == "\n")
    )
