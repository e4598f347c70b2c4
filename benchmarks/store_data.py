"""The vectors, texts and exact answers that the store benchmark loads and searches.

Clustered vectors with a decaying spectrum, so that a prefix behaves as a Matryoshka prefix does: of 1024 dimensions the
first 128 alone find some 0.93 of the ten nearest, the first 64 some 0.8.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from f2rag.corpus import load_udhr, load_udhr_paragraphs
from f2rag.types import Document
from f2rag.vectors import truncate

if TYPE_CHECKING:
    from f2rag.types import FloatMatrix

LIMIT = 10
_BLOCK = 50_000


@dataclasses.dataclass(frozen=True)
class Data:
    """What is loaded and asked.

    Attributes:
        name: Of the data set.
        documents: Float32 array of shape (n, dimensions).
        queries: Float32 array of shape (q, dimensions).
        texts: One text for each document.
        nearest: Integer array of shape (q, LIMIT): rows of the documents that an exact search finds.
    """

    name: str
    documents: FloatMatrix
    queries: FloatMatrix
    texts: list[str]
    nearest: np.ndarray[tuple[int, int], np.dtype[np.int64]]

    def as_documents(self, start: int, end: int) -> list[Document]:
        """Some of the documents, with a language and a source."""
        return [
            Document(
                id=str(number),
                text=self.texts[number],
                language=("en", "fr", "zh", "ar")[number % 4],
                source=f"file-{number // 10}",
                metadata={"page": number % 10},
            )
            for number in range(start, end)
        ]

    def save(self, folder: Path) -> None:
        """Write everything where another process maps it into memory without a copy of its own."""
        for name in ("documents", "queries", "nearest"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / "texts.json").write_text(json.dumps([self.name, self.texts]), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Data:
        """What ``save`` wrote."""
        name, texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        documents, queries, nearest = (
            np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("documents", "queries", "nearest")
        )
        return cls(name, documents, queries, texts, nearest)

    def recall(self, found: list[list[str]]) -> float:
        """Share of the exact answers that were found."""
        hits = sum(len(set(ids) & {str(row) for row in rows}) for ids, rows in zip(found, self.nearest, strict=True))
        return hits / self.nearest.size


def clustered(count: int, dimensions: int, *, queries: int, seed: int) -> Data:
    """Synthetic vectors with texts of the Universal Declaration of Human Rights."""
    random = np.random.default_rng(seed)
    scale = (1 / np.sqrt(1 + np.arange(dimensions) / 8)).astype(np.float32)
    centres = random.standard_normal((max(2, count // 50), dimensions), dtype=np.float32) * scale

    def draw(number: int) -> FloatMatrix:
        own = random.standard_normal((number, dimensions), dtype=np.float32) * scale
        return truncate(centres[random.integers(len(centres), size=number)] + 0.7 * own, dimensions)

    blocks = [draw(min(_BLOCK, count - start)) for start in range(0, count, _BLOCK)]
    documents = np.concatenate(blocks)
    paragraphs = [each.text for each in load_udhr_paragraphs()]
    texts = [f"{paragraphs[number % len(paragraphs)]} ({number})" for number in range(count)]
    asked = draw(queries)
    return Data("clustered", documents, asked, texts, exact(documents, asked))


def multilingual(*, queries: int, seed: int) -> Data:
    """The bundled corpus through the stand-in: each query is an article's vector in another language."""
    from f2rag import F2LLMEncoder

    corpus = [*load_udhr(), *load_udhr_paragraphs()]
    texts = list(dict.fromkeys(each.text for each in corpus))
    with F2LLMEncoder("stand-in", on_overflow="truncate") as encoder:
        documents = encoder.embed_documents(texts)
        chosen = np.random.default_rng(seed).choice(len(texts), size=queries, replace=False)
        asked = encoder.embed_queries([texts[row] for row in chosen])
    return Data("multilingual", documents, asked, texts, exact(documents, asked))


def exact(documents: FloatMatrix, queries: FloatMatrix) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Rows of the nearest documents, in blocks, so that memory stays bounded."""
    best = np.full((len(queries), LIMIT), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), LIMIT), dtype=np.int64)
    for start in range(0, len(documents), _BLOCK):
        scores = np.concatenate([best, queries @ documents[start : start + _BLOCK].T], axis=1)
        ids = np.concatenate([rows, np.arange(start, start + scores.shape[1] - LIMIT)[None].repeat(len(queries), 0)], 1)
        order = np.argpartition(-scores, LIMIT - 1, axis=1)[:, :LIMIT]
        best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return rows


def folder_bytes(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
