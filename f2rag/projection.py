"""A map of a collection: its vectors on the two axes along which they differ most (PCA), in numpy.

The map is the collection's own: positions in two maps cannot be compared. Two axes show a small part of what the
vectors say (``explained``): what is near in the collection is near on the map, and not always the other way round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from f2rag.errors import DimensionsError
from f2rag.options import check_whole_number

if TYPE_CHECKING:
    from f2rag.store import QdrantStore
    from f2rag.types import Document, FloatMatrix, FloatVector

_PAGE: Final = 500
_NOTHING: Final = 1e-9
"""Variance of unit vectors below which an axis shows rounding errors only."""

_Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """Documents on a map, and the way to place further vectors on it.

    Attributes:
        documents: Those on the map.
        coordinates: Float32 array of shape (documents, 2), centred on 0.
        explained: Shares of the vectors' variance that the first and the second axis show, 0..1.
        total: Documents in the collection.
        mean: Float32 array of shape (dimensions,), what is in the middle of the map.
        axes: Float32 array of shape (2, dimensions), of unit length; of zeros where the documents do not differ.
    """

    documents: Sequence[Document]
    coordinates: FloatMatrix
    explained: tuple[float, float]
    total: int
    mean: FloatVector
    axes: FloatMatrix

    def place(self, vectors: FloatMatrix) -> FloatMatrix:
        """Where vectors of the same model lie on the map, e.g. that of a query.

        Args:
            vectors: Float array of shape (m, dimensions), or (dimensions,) for one.

        Returns:
            Float32 array of shape (m, 2).

        Raises:
            DimensionsError: Vectors of another width than the collection's.
        """
        rows = np.atleast_2d(np.asarray(vectors))
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise DimensionsError(
                f"The vectors have shape {rows.shape}, and the map was made of {len(self.mean)} dimensions. "
                f"Embed them with dimensions={len(self.mean)}."
            )
        return _on_axes(rows, self.mean, self.axes)


def project(
    store: QdrantStore, *, sample: int = 5_000, on_progress: Callable[[int], object] | None = None
) -> Projection:
    """Put a collection on a map; nothing is embedded.

    The same documents give the same map. Beyond reading the vectors it takes under a second at 1,024 dimensions, and
    half a minute at 5,120.

    Args:
        store: The collection.
        sample: At most so many documents, the first by Qdrant's id: f2rag's ids are hashes, so that these are a fair
            sample.
        on_progress: Called with the number of documents that are read so far.

    Raises:
        InputError: ``sample`` is not positive.
        StoreError: The collection failed.
    """
    check_whole_number(sample, name="sample", least=1)
    documents, vectors = _read(store, sample, on_progress)
    mean, axes, explained = _principal_axes(vectors)
    return Projection(
        documents=tuple(documents),
        coordinates=_on_axes(vectors, mean, axes),
        explained=explained,
        total=max(store.count(), len(documents)),
        mean=mean,
        axes=axes,
    )


def _read(
    store: QdrantStore, sample: int, on_progress: Callable[[int], object] | None
) -> tuple[list[Document], FloatMatrix]:
    documents: list[Document] = []
    parts = [np.empty((0, store.dimensions), dtype=np.float32)]
    for ids, rows in store.iter_vectors(batch=min(_PAGE, sample)):
        # What was deleted meanwhile is not there any more.
        found = {document.key: document for document in store.get(ids)}
        present = [row for row, key in enumerate(ids) if key in found][: sample - len(documents)]
        documents += [found[ids[row]] for row in present]
        parts.append(rows[present])
        if on_progress is not None:
            on_progress(len(documents))
        if len(documents) == sample:
            break
    return documents, np.concatenate(parts)


def _principal_axes(vectors: FloatMatrix) -> tuple[FloatVector, FloatMatrix, tuple[float, float]]:
    """The mean (dimensions,), the axes (2, dimensions), and the share of the variance along each."""
    count, width = vectors.shape
    mean = vectors.mean(axis=0, dtype=np.float64) if count else np.zeros(width)
    centred = vectors - mean
    # The eigenvectors of the smaller product lead to those of the larger one.
    tall = count >= width
    values, found = np.linalg.eigh((centred.T @ centred if tall else centred @ centred.T) / max(count, 1))
    axes, explained = np.zeros((2, width)), [0.0, 0.0]
    for place, column in enumerate(np.argsort(values)[::-1][:2]):
        if values[column] > _NOTHING:
            axis = found[:, column] if tall else centred.T @ found[:, column]
            axes[place] = _with_sign(axis / np.linalg.norm(axis))
            explained[place] = float(values[column] / values.sum())
    return mean.astype(np.float32), axes.astype(np.float32), (explained[0], explained[1])


def _with_sign(axis: _Doubles) -> _Doubles:
    """An axis has no direction of its own; its largest value is taken for positive, so that maps do not flip."""
    return axis if axis[np.argmax(np.abs(axis))] > 0 else -axis


def _on_axes(rows: FloatMatrix, mean: FloatVector, axes: FloatMatrix) -> FloatMatrix:
    return np.asarray((rows.astype(np.float32) - mean) @ axes.T, dtype=np.float32)
