"""The sentence of a hit that answers the query best: found by meaning, since across languages no word is shared.

texts ─► sentences ─► encoder.embed_documents, all at once ─► the one nearest to the query, of each text
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from f2rag.options import check_texts
from f2rag.sentences import sentences

if TYPE_CHECKING:
    from f2rag.types import Encoder

_BEGINNING: Final = 500
"""Characters of a sentence that are embedded: what is longer is a table or a listing, and would hold up the others."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """The best sentence of a text.

    Attributes:
        start: Where it begins in the text.
        end: Where it ends; ``text[start:end]`` is the sentence.
        score: Cosine similarity of the query and the sentence, -1..1.
    """

    start: int
    end: int
    score: float


def best_sentences(
    encoder: Encoder,
    query: str,
    texts: Sequence[str],
    *,
    dimensions: int | None = None,
    instruction: str | None = None,
) -> list[Highlight | None]:
    """The sentence of each text that is nearest to a query, in any language.

    All sentences go through the encoder together, equal ones once. Of long texts the first 200 sentences are compared.

    >>> from f2rag.testing import FakeEncoder
    >>> text = "Red houses stand there. The blue sea is near. It rains today."
    >>> (best,) = best_sentences(FakeEncoder(), "the blue sea", [text])
    >>> text[best.start : best.end]
    'The blue sea is near.'

    Args:
        encoder: What the texts were found with.
        query: As it was searched for, bare.
        texts: The texts of the hits.
        dimensions: Vector size of the comparison; ``None`` takes the encoder's.
        instruction: Of the query, as for the search; ``None`` takes the encoder's own.

    Returns:
        One for each text, in order; ``None`` where a text has one sentence or none, so that there is nothing to choose.

    Raises:
        TextTypeError: ``texts`` is one string, or holds something else than strings.
        InputError: A query, text, size or instruction that cannot be embedded.
    """
    check_texts(texts, method="best_sentences")
    found = [spans if len(spans) > 1 else [] for spans in map(sentences, texts)]
    pieces = [
        text[start : min(end, start + _BEGINNING)]
        for text, spans in zip(texts, found, strict=True)
        for start, end in spans
    ]
    if not pieces:
        return [None] * len(texts)
    rows = {piece: row for row, piece in enumerate(dict.fromkeys(pieces))}
    wanted = encoder.embed_query(query, dimensions=dimensions, instruction=instruction)
    cosines = encoder.embed_documents(list(rows), dimensions=dimensions) @ wanted
    scores = iter([float(cosines[rows[piece]]) for piece in pieces])
    highlights: list[Highlight | None] = []
    for spans in found:
        scored = [Highlight(start=start, end=end, score=next(scores)) for start, end in spans]
        highlights.append(max(scored, key=lambda each: each.score, default=None))
    return highlights
