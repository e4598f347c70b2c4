"""Two results of one question side by side: what both found, and what rose or fell.

It compares whatever two searches differ in: dimensions, modes, instructions, collections of the same documents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from f2rag.options import check_whole_number
from f2rag.types import Hit, SearchResult


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparedHit:
    """One document that either side found.

    Attributes:
        hit: As the left side found it, or the right one where the left did not; the scores of two sides may differ.
        left_rank: Its rank on the left, from 1; ``None`` where it is not among the first ones there.
        right_rank: Likewise.
    """

    hit: Hit
    left_rank: int | None
    right_rank: int | None

    @property
    def change(self) -> int | None:
        """Ranks that it rises from the left to the right, negative where it falls; ``None`` if one side lacks it."""
        if self.left_rank is None or self.right_rank is None:
            return None
        return self.left_rank - self.right_rank


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What ``compare`` found.

    Attributes:
        left: The first result.
        right: The second.
        limit: So many hits of each were compared.
        rows: Every document among them once: those of the left by rank, then those that only the right found.
        overlap: Share of the hits that both found, 0..1, whatever their order; of the longer side where they differ in
            length, and 1 where neither found anything.
    """

    left: SearchResult
    right: SearchResult
    limit: int
    rows: Sequence[ComparedHit]
    overlap: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; documents by id, without their texts."""
        return {
            "left": _side(self.left),
            "right": _side(self.right),
            "limit": self.limit,
            "overlap": self.overlap,
            "rows": [
                {"id": row.hit.id, "left_rank": row.left_rank, "right_rank": row.right_rank, "change": row.change}
                for row in self.rows
            ],
        }


def compare(left: SearchResult, right: SearchResult, *, limit: int = 10) -> Comparison:
    """Put two results side by side, document by document.

    Args:
        left: One result.
        right: The other one.
        limit: Only the first so many hits of each.

    Raises:
        InputError: ``limit`` is not positive.
    """
    check_whole_number(limit, name="limit", least=1)
    left_hits, right_hits = ({hit.id: hit for hit in side.hits[:limit]} for side in (left, right))
    left_ranks, right_ranks = (
        {key: rank for rank, key in enumerate(hits, start=1)} for hits in (left_hits, right_hits)
    )
    rows = [
        ComparedHit(hit=hit, left_rank=left_ranks.get(key), right_rank=right_ranks.get(key))
        for key, hit in {**right_hits, **left_hits}.items()
    ]
    rows.sort(key=lambda row: (row.left_rank is None, row.left_rank or row.right_rank))
    longer = max(len(left_hits), len(right_hits))
    shared = len(left_hits.keys() & right_hits.keys())
    return Comparison(left=left, right=right, limit=limit, rows=tuple(rows), overlap=shared / longer if longer else 1.0)


def _side(result: SearchResult) -> dict[str, Any]:
    return {
        "query": result.query,
        "instruction": result.instruction,
        "model": result.model,
        "dimensions": result.dimensions,
        "mode": result.mode,
        "timings": {"encode_ms": result.timings.encode_ms, "search_ms": result.timings.search_ms},
        "hits": [{"id": hit.id, "score": hit.score} for hit in result.hits],
    }
