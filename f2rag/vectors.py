"""Pure array functions on embeddings: cut and normalise, quantise with stored ranges, count bytes.

The order is always the same: float32 first (bf16 norms are off by up to 0.4 %), then the slice, then the L2 norm, then
quantisation. That is how the model was trained: the loss re-normalises each Matryoshka prefix. Slicing after
normalising gives rows shorter than one, whose dot product is no cosine; slicing quantised values is wrong too, since
their ranges belong to the longer vectors. So ``truncate`` takes floating point only.

This file knows no model and no database; it needs nothing but numpy.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from f2rag.errors import DimensionsError, InputError
from f2rag.types import FloatMatrix, FloatVector

Int8Matrix: TypeAlias = npt.NDArray[np.int8]
"""Int8 array of shape (n, dimensions)."""

UInt8Matrix: TypeAlias = npt.NDArray[np.uint8]
"""Uint8 array of shape (n, dimensions), or (n, ceil(dimensions / 8)) where it holds packed bits."""

_BITS_PER_VALUE: Final[Mapping[str, int]] = {"float32": 32, "float16": 16, "int8": 8, "uint8": 8, "binary": 1}


class DimensionsWarning(UserWarning):
    """A vector size that works, but that the model was not trained for directly."""


def check_dimensions(dimensions: int, *, native: int, ladder: Sequence[int], model_name: str) -> int:
    """Return ``dimensions`` as it is, if a model of ``native`` dimensions can give it.

    Args:
        dimensions: The vector size that was asked for.
        native: The model's own size.
        ladder: Sizes that the training loss contained.
        model_name: What the messages call the model.

    Raises:
        DimensionsError: If it is no integer in 1..native. ``True`` is no integer here.

    Warns:
        DimensionsWarning: If it is not on the ladder; the next size up was trained and costs little more.
    """
    sizes = ", ".join(map(str, ladder))
    size = _size(dimensions, native=native, what=model_name, remedy=f"Give one of {sizes}.")
    if size not in ladder:
        larger = min(rung for rung in (*ladder, native) if rung > size)
        message = (
            f"dimensions={size} was not in the training of {model_name}; expected one of {sizes}. "
            f"It works, but {larger} is the next size that was trained."
        )
        warnings.warn(message, DimensionsWarning, stacklevel=2)
    return size


def normalize(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scale rows to unit length; shape (n, dimensions) or (dimensions,), returned as float32 of the same shape.

    Rows of zeros stay zeros. Rows that hold NaN or infinity are refused, since their direction is lost.

    Raises:
        InputError: If the array is of no floating type, not one- or two-dimensional, or not finite.
    """
    rows = _as_float32(vectors)
    # Squares are summed in float64, so that rows of 1e-30 or 1e30 neither vanish nor overflow.
    norms = np.sqrt(np.einsum("...i,...i->...", rows, rows, dtype=np.float64))[..., np.newaxis]
    unit = np.empty_like(rows)
    np.divide(rows, np.where(norms > 0, norms, 1), out=unit, casting="same_kind")
    return unit


def truncate(vectors: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.float32]:
    """Keep the first ``dimensions`` values of each row, then scale to unit length; float32, 1-D or 2-D as given.

    Raises:
        InputError: If the array is of no floating type (quantised vectors cannot be cut), not one- or two-dimensional,
            or not finite.
        DimensionsError: If ``dimensions`` is outside 1..width.
    """
    rows = _as_float32(vectors)
    remedy = "Give a size up to the width of the vectors."
    return normalize(rows[..., : _size(dimensions, native=rows.shape[-1], what="this array", remedy=remedy)])


def memory_bytes(count: int, dimensions: int, dtype: str = "float32") -> int:
    """Bytes of ``count`` vectors: float32, float16, int8, uint8, or binary (one bit per value, whole bytes per row).

    Payload, graph and file overhead are not in it.

    Raises:
        InputError: If ``dtype`` is none of these or a number is negative.
    """
    if dtype not in _BITS_PER_VALUE:
        raise InputError(
            f"dtype={dtype!r} is unknown here; expected a storage type of vectors. "
            f"Give one of {', '.join(_BITS_PER_VALUE)}."
        )
    if count < 0 or dimensions < 0:
        raise InputError(
            f"count={count}, dimensions={dimensions}; expected numbers from 0 up. "
            "Give how many vectors there are and how wide they are."
        )
    return count * ((dimensions * _BITS_PER_VALUE[dtype] + 7) // 8)


def memory_per_million(dimensions: int, dtype: str = "float32") -> int:
    """Bytes of a million vectors, see ``memory_bytes``."""
    return memory_bytes(1_000_000, dimensions, dtype)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Range:
    """The range of each dimension in the stored documents, by which queries and documents share one scale.

    A range is fitted once, on documents, and is stored beside them: a query that was quantised with a range of its own
    could not be compared with them. Values outside the range are clipped to it.

    Attributes:
        minimum: Float32 array (dimensions,), the smallest value of each dimension.
        maximum: Float32 array (dimensions,), the largest.
    """

    minimum: FloatVector
    maximum: FloatVector

    dtype: ClassVar[str]

    def __post_init__(self) -> None:
        minimum, maximum = (np.array(bound, dtype=np.float32) for bound in (self.minimum, self.maximum))
        if minimum.ndim != 1 or minimum.shape != maximum.shape or not minimum.size:
            raise InputError(
                f"The range has bounds of shape {minimum.shape} and {maximum.shape}; expected two equal "
                "ones (dimensions,). Use fit() on the documents' vectors."
            )
        if not (np.isfinite(minimum).all() and np.isfinite(maximum).all() and (minimum <= maximum).all()):
            raise InputError(
                "The range has a minimum above its maximum, or a bound that is not finite; expected "
                "minimum <= maximum. Use fit() on the documents' vectors."
            )
        for name, bound in (("minimum", minimum), ("maximum", maximum)):
            bound.setflags(write=False)
            object.__setattr__(self, name, bound)

    @classmethod
    def fit(cls, vectors: npt.ArrayLike) -> Self:
        """Take the range of each dimension over document vectors of shape (n, dimensions), n at least 1.

        Raises:
            InputError: If there is no row, or the array is not two-dimensional, floating and finite.
        """
        rows = _as_float32(vectors)
        if rows.ndim != 2 or not rows.size:
            raise InputError(
                f"The array to fit has shape {rows.shape}; expected (n, dimensions) with n of 1 or more. "
                "Give the documents' vectors, all of them or a fair sample."
            )
        return cls(minimum=rows.min(axis=0), maximum=rows.max(axis=0))

    @property
    def dimensions(self) -> int:
        """The width of the vectors that this range is for."""
        return int(self.minimum.size)

    @property
    def step(self) -> FloatVector:
        """The width of one of the 255 intervals of each dimension; 0 where all documents had the same value."""
        exact = (self.maximum.astype(np.float64) - self.minimum) / 255
        return exact.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """A JSON form that loses nothing."""
        return {"dtype": self.dtype, "minimum": self.minimum.tolist(), "maximum": self.maximum.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            InputError: If it is of another quantisation, or incomplete.
        """
        if stored.get("dtype") != cls.dtype or not {"minimum", "maximum"} <= stored.keys():
            raise InputError(
                f"The stored range has dtype={stored.get('dtype')!r} and the keys {sorted(stored)}; expected "
                f"dtype={cls.dtype!r}, minimum and maximum. Read it with the class that wrote it."
            )
        return cls(minimum=stored["minimum"], maximum=stored["maximum"])

    def _levels(self, vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions 0..255 in the range, rounded to the nearest."""
        rows = self._checked(_as_float32(vectors))
        minimum, maximum = self.minimum.astype(np.float64), self.maximum.astype(np.float64)
        width = np.where(maximum > minimum, maximum - minimum, 1)
        levels: npt.NDArray[np.float64] = np.rint((np.clip(rows, minimum, maximum) - minimum) / width * 255)
        return levels

    def _values(self, levels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        minimum, maximum = self.minimum.astype(np.float64), self.maximum.astype(np.float64)
        values = minimum + levels.astype(np.float64) * ((maximum - minimum) / 255)
        return np.asarray(values, dtype=np.float32)

    def _checked(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if rows.shape[-1] != self.dimensions:
            raise DimensionsError(
                f"The vectors have {rows.shape[-1]} dimensions and the range {self.dimensions}; expected equal ones. "
                "Truncate before quantising, and fit a range for each dimension."
            )
        return rows


class Int8Range(_Range):
    """Scalar quantisation to int8 (-128..127) with the documents' range of each dimension.

    >>> documents = normalize([[1.0, 2.0], [2.0, -1.0]])
    >>> Int8Range.fit(documents).quantize(documents).tolist()
    [[-128, 127], [127, -128]]
    """

    __slots__ = ()
    dtype: ClassVar[str] = "int8"

    def quantize(self, vectors: npt.ArrayLike) -> Int8Matrix:
        """Map floating vectors to -128..127, clipping what lies outside the range.

        Raises:
            InputError: If the array is not floating, one- or two-dimensional and finite.
            DimensionsError: If its width is not the range's.
        """
        return (self._levels(vectors) - 128).astype(np.int8)

    def dequantize(self, codes: Int8Matrix) -> FloatMatrix:
        """Map codes back to float32; off by at most half a ``step`` for values inside the range.

        Raises:
            InputError: If the codes are not int8.
            DimensionsError: If their width is not the range's.
        """
        levels = self._checked(_codes(codes, np.int8)).astype(np.int16) + 128
        return self._values(levels)


class UInt8Range(_Range):
    """Scalar quantisation to uint8 (0..255) with the documents' range of each dimension."""

    __slots__ = ()
    dtype: ClassVar[str] = "uint8"

    def quantize(self, vectors: npt.ArrayLike) -> UInt8Matrix:
        """Map floating vectors to 0..255, clipping what lies outside the range.

        Raises:
            InputError: If the array is not floating, one- or two-dimensional and finite.
            DimensionsError: If its width is not the range's.
        """
        return self._levels(vectors).astype(np.uint8)

    def dequantize(self, codes: UInt8Matrix) -> FloatMatrix:
        """Map codes back to float32; off by at most half a ``step`` for values inside the range.

        Raises:
            InputError: If the codes are not uint8.
            DimensionsError: If their width is not the range's.
        """
        return self._values(self._checked(_codes(codes, np.uint8)))


def binary_quantize(vectors: npt.ArrayLike) -> UInt8Matrix:
    """Keep the sign of each value as one bit (1 for above zero), eight to a byte, the first in the highest bit.

    Returns uint8 of shape (n, ceil(dimensions / 8)), or without n for one vector. Zeros fill the last byte up.

    Raises:
        InputError: If the array is not floating, one- or two-dimensional and finite.
    """
    return np.packbits(_as_float32(vectors) > 0, axis=-1)


def hamming_distance(queries: UInt8Matrix, documents: UInt8Matrix) -> npt.NDArray[np.int32]:
    """Count the bits in which packed queries and documents differ; shape (queries, documents).

    Raises:
        InputError: If either is not uint8.
        DimensionsError: If their widths differ.
    """
    left, right = (np.atleast_2d(_codes(bits, np.uint8)) for bits in (queries, documents))
    if left.shape[1] != right.shape[1]:
        raise DimensionsError(
            f"The queries have {left.shape[1]} bytes per vector and the documents {right.shape[1]}; expected "
            "equal ones. Truncate both to the same size before binary_quantize."
        )
    distances = np.empty((len(left), len(right)), dtype=np.int32)
    for row, query in enumerate(left):  # one query at a time, so that memory stays at one copy of the documents
        distances[row] = _BIT_COUNTS[query ^ right].sum(axis=1, dtype=np.int32)
    return distances


def binary_dot(queries: UInt8Matrix, documents: UInt8Matrix, *, dimensions: int) -> npt.NDArray[np.int32]:
    """Dot product of the sign vectors (values -1 and 1) behind packed bits: ``dimensions - 2 * hamming``.

    Raises:
        InputError: If either is not uint8.
        DimensionsError: If their widths differ or do not hold ``dimensions`` bits.
    """
    distances = hamming_distance(queries, documents)
    if (dimensions + 7) // 8 != queries.shape[-1]:
        raise DimensionsError(
            f"dimensions={dimensions} does not fit {queries.shape[-1]} bytes per vector; expected "
            f"{queries.shape[-1] * 8 - 7} to {queries.shape[-1] * 8}. Give the size that was quantised."
        )
    return np.int32(dimensions) - 2 * distances


_BIT_COUNTS: Final = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def _as_float32(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Floating, finite, of one or two dimensions, as float32."""
    array = np.asarray(vectors)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"The vectors are of dtype {array.dtype}; expected floating point. Give the vectors as they came from "
            "the encoder: quantised ones can be neither cut nor normalised."
        )
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise InputError(
            f"The vectors have shape {array.shape}; expected (n, dimensions) or (dimensions,). Give one array of rows."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
        rows = array.astype(np.float32)
    if not np.isfinite(rows).all():
        raise InputError(
            "The vectors hold NaN or infinity; expected finite numbers. "
            "Embed those texts again, in bfloat16 or float32."
        )
    return rows


def _codes(codes: npt.NDArray[Any], dtype: type[np.integer[Any]]) -> npt.NDArray[Any]:
    array = np.asarray(codes)
    if array.dtype != dtype or array.ndim not in (1, 2):
        raise InputError(
            f"The codes are of dtype {array.dtype} and shape {array.shape}; expected {np.dtype(dtype)} of one or two "
            "dimensions. Give what the quantisation returned."
        )
    return array


def _size(dimensions: object, *, native: int, what: str, remedy: str) -> int:
    if isinstance(dimensions, bool | np.bool_) or not isinstance(dimensions, int | np.integer):
        kind = type(dimensions).__name__
        raise DimensionsError(
            f"dimensions={dimensions!r} is a {kind}; expected an integer from 1 to {native} for {what}. {remedy}"
        )
    if not 1 <= dimensions <= native:
        raise DimensionsError(f"dimensions={dimensions} is out of range; expected 1 to {native} for {what}. {remedy}")
    return int(dimensions)
