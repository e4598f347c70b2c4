"""Array functions against plain numpy in float64, over many random arrays."""

from __future__ import annotations

import doctest
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import f2rag.vectors
from f2rag.errors import DimensionsError, InputError
from f2rag.vectors import (
    DimensionsWarning,
    Int8Range,
    UInt8Range,
    binary_dot,
    binary_quantize,
    check_dimensions,
    hamming_distance,
    memory_bytes,
    memory_per_million,
    normalize,
    truncate,
)

LADDER = (8, 16, 32, 64, 128, 256, 320)
RANGES = [Int8Range, UInt8Range]

finite = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=finite)
unit_like = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.floats(-1, 1, width=32),
)


def oracle(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """Slice, then divide by the norm, all in float64."""
    cut = vectors[..., :dimensions].astype(np.float64)
    norms = np.sqrt((cut**2).sum(axis=-1, keepdims=True))
    return np.divide(cut, norms, out=np.zeros_like(cut), where=norms > 0)


def random_rows(count: int, dimensions: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


@settings(deadline=None)
@given(vectors=matrices, data=st.data())
def test_truncate_equals_the_oracle(vectors: np.ndarray, data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, vectors.shape[1]))
    result = truncate(vectors, dimensions)
    assert result.dtype == np.float32
    assert result.shape == (len(vectors), dimensions)
    np.testing.assert_allclose(result, oracle(vectors, dimensions), atol=1e-6)
    for row, vector in zip(result, vectors, strict=True):
        np.testing.assert_array_equal(row, truncate(vector, dimensions))


@settings(deadline=None)
@given(vectors=matrices)
def test_rows_have_unit_length_or_are_zero(vectors: np.ndarray) -> None:
    norms = np.linalg.norm(normalize(vectors).astype(np.float64), axis=1)
    expected = (vectors != 0).any(axis=1).astype(float)
    np.testing.assert_allclose(norms, expected, atol=1e-6)


@settings(deadline=None)
@given(vectors=matrices)
def test_normalize_twice_changes_nothing(vectors: np.ndarray) -> None:
    once = normalize(vectors)
    np.testing.assert_allclose(normalize(once), once, atol=1e-7)


@settings(deadline=None)
@given(vectors=matrices, data=st.data())
def test_cutting_in_two_steps_equals_one(vectors: np.ndarray, data: st.DataObject) -> None:
    larger = data.draw(st.integers(1, vectors.shape[1]))
    smaller = data.draw(st.integers(1, larger))
    # A prefix that is tiny beside the rest loses what float32 cannot hold, so rows of one magnitude are compared.
    same_size = np.sign(vectors) * (1 + np.abs(vectors) / 2**100)
    two_steps = truncate(truncate(same_size, larger), smaller)
    np.testing.assert_allclose(two_steps, truncate(same_size, smaller), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [*LADDER[:-1], 100, 319, 320])
def test_every_size_of_a_real_width(dtype: type[np.floating[Any]], dimensions: int) -> None:
    vectors = random_rows(20, 320).astype(dtype)
    result = truncate(vectors, dimensions)
    np.testing.assert_allclose(result, oracle(vectors, dimensions), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)


def test_slicing_after_normalising_would_differ() -> None:
    vectors = random_rows(5, 320)
    late = normalize(vectors)[:, :32]
    assert np.linalg.norm(late, axis=1).max() < 0.6
    np.testing.assert_allclose(truncate(vectors, 32), normalize(late), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 5e37])
def test_extreme_scales_keep_their_direction(scale: float) -> None:
    vectors = np.array([[3, -4], [0, 2]], dtype=np.float32) * np.float32(scale)
    np.testing.assert_allclose(normalize(vectors), [[0.6, -0.8], [0, 1]], atol=1e-6)


def test_zero_rows_stay_zero() -> None:
    result = normalize(np.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(result, [[0, 0], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_array_equal(truncate([0.0, 5.0], 1), [0.0])


def test_no_rows_are_fine() -> None:
    assert normalize(np.empty((0, 8), dtype=np.float32)).shape == (0, 8)
    assert truncate(np.empty((0, 8), dtype=np.float32), 4).shape == (0, 4)


def test_the_given_array_is_not_changed() -> None:
    vectors = random_rows(3, 8)
    before = vectors.copy()
    normalize(vectors)
    truncate(vectors, 4)
    np.testing.assert_array_equal(vectors, before)


@pytest.mark.parametrize(
    ("vectors", "given_and_expected"),
    [
        (np.ones((2, 4), dtype=np.int8), r"dtype int8; expected floating point\. Give the vectors as they came"),
        (np.ones((2, 4), dtype=np.uint8), r"dtype uint8; expected floating point"),
        ([[1, 2]], r"dtype int64; expected floating point"),
        (np.float32(1), r"shape \(\); expected \(n, dimensions\)"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\); expected \(n, dimensions\) or \(dimensions,\)\. Give one array"),
        (np.ones((2, 0)), r"shape \(2, 0\); expected"),
        ([[1.0, np.nan]], r"NaN or infinity; expected finite numbers\. Embed those texts again"),
        ([[1.0, np.inf]], r"NaN or infinity"),
        ([[1.0, 1e300]], r"NaN or infinity"),
    ],
)
@pytest.mark.parametrize(
    "function", [normalize, lambda vectors: truncate(vectors, 1), binary_quantize, Int8Range.fit, UInt8Range.fit]
)
def test_what_is_no_array_of_embeddings_is_refused(function: Any, vectors: Any, given_and_expected: str) -> None:
    with pytest.raises(InputError, match=given_and_expected):
        function(vectors)


@pytest.mark.parametrize("dimensions", [0, -1, 9])
def test_truncate_outside_of_the_width_is_refused(dimensions: int) -> None:
    with pytest.raises(DimensionsError, match=rf"dimensions={dimensions} .*expected 1 to 8 .*Give a size up to"):
        truncate(random_rows(2, 8), dimensions)


def test_truncate_knows_no_ladder() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert truncate(random_rows(2, 8), 3).shape == (2, 3)


def check(dimensions: Any) -> int:
    return check_dimensions(dimensions, native=320, ladder=LADDER, model_name="F2LLM-v2-80M")


@pytest.mark.parametrize("dimensions", [*LADDER, np.int64(64), np.uint8(8)])
def test_sizes_on_the_ladder_pass_in_silence(dimensions: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        size = check(dimensions)
    assert size == dimensions
    assert type(size) is int


@pytest.mark.parametrize(("dimensions", "larger"), [(1, 8), (100, 128), (257, 320), (319, 320)])
def test_sizes_off_the_ladder_warn(dimensions: int, larger: int) -> None:
    with pytest.warns(
        DimensionsWarning, match=rf"dimensions={dimensions} .*F2LLM-v2-80M; expected one of 8, .*but {larger} is"
    ):
        assert check(dimensions) == dimensions


def test_the_warning_names_a_larger_size_though_the_ladder_ends_early() -> None:
    with pytest.warns(DimensionsWarning, match="but 320 is the next size"):
        assert check_dimensions(300, native=320, ladder=(8, 16), model_name="m") == 300


@pytest.mark.parametrize("dimensions", [0, -8, 321, 10**30])
def test_sizes_outside_are_refused(dimensions: int) -> None:
    with pytest.raises(
        DimensionsError, match=rf"dimensions={dimensions} .*expected 1 to 320 for F2LLM-v2-80M\. Give one of 8, "
    ):
        check(dimensions)


@pytest.mark.parametrize("dimensions", [True, False, np.True_, 8.0, "8", None, [8]])
def test_sizes_that_are_no_integers_are_refused(dimensions: Any) -> None:
    with pytest.raises(
        DimensionsError, match=r"is a .*; expected an integer from 1 to 320 .*Give one of 8, "
    ) as caught:
        check(dimensions)
    assert repr(dimensions) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", RANGES)
@settings(deadline=None)
@given(vectors=unit_like)
def test_the_round_trip_is_off_by_half_a_step_at_most(kind: Any, vectors: np.ndarray) -> None:
    fitted = kind.fit(vectors)
    codes = fitted.quantize(vectors)
    assert codes.dtype == np.dtype(kind.dtype)
    assert codes.shape == vectors.shape
    back = fitted.dequantize(codes)
    assert back.dtype == np.float32
    errors = np.abs(back.astype(np.float64) - vectors)
    # What float32 itself rounds away at these magnitudes comes on top of the half step.
    assert (errors <= fitted.step.astype(np.float64) / 2 * (1 + 1e-6) + 1.2e-7).all()
    np.testing.assert_array_equal(fitted.quantize(back), codes)


@pytest.mark.parametrize("kind", RANGES)
def test_the_ends_of_the_range_are_exact(kind: Any) -> None:
    documents = random_rows(50, 16)
    fitted = kind.fit(documents)
    info = np.iinfo(kind.dtype)
    np.testing.assert_array_equal(fitted.quantize(fitted.minimum), np.full(16, info.min))
    np.testing.assert_array_equal(fitted.quantize(fitted.maximum), np.full(16, info.max))
    np.testing.assert_array_equal(fitted.dequantize(fitted.quantize(fitted.minimum)), fitted.minimum)
    np.testing.assert_allclose(fitted.dequantize(fitted.quantize(fitted.maximum)), fitted.maximum, rtol=1e-6)


@pytest.mark.parametrize("kind", RANGES)
def test_values_outside_of_the_range_are_clipped(kind: Any) -> None:
    fitted = kind.fit([[0.0, -1.0], [1.0, 1.0]])
    info = np.iinfo(kind.dtype)
    assert fitted.quantize([[9.0, -9.0]]).tolist() == [[info.max, info.min]]


@pytest.mark.parametrize("kind", RANGES)
def test_a_constant_dimension_comes_back_exactly(kind: Any) -> None:
    documents = np.array([[0.3, 0.1], [0.3, 0.9]], dtype=np.float32)
    fitted = kind.fit(documents)
    assert fitted.step[0] == 0
    np.testing.assert_array_equal(fitted.dequantize(fitted.quantize([[5.0, 0.1]]))[:, 0], documents[:1, 0])


def test_both_kinds_are_one_scale_shifted() -> None:
    documents = random_rows(20, 8)
    signed, unsigned = Int8Range.fit(documents), UInt8Range.fit(documents)
    np.testing.assert_array_equal(
        signed.quantize(documents).astype(int) + 128, unsigned.quantize(documents).astype(int)
    )


def test_queries_and_documents_share_one_scale() -> None:
    documents = normalize(random_rows(2_000, 64))
    query = normalize(documents[3] + documents[7] / 2)
    fitted = Int8Range.fit(documents)
    approximate = fitted.dequantize(fitted.quantize(documents)) @ fitted.dequantize(fitted.quantize(query))
    exact = documents @ query
    assert np.abs(approximate - exact).max() < 0.01
    assert approximate.argmax() == exact.argmax() == 3


@pytest.mark.parametrize("kind", RANGES)
@settings(deadline=None)
@given(vectors=unit_like)
def test_a_stored_range_loses_nothing(kind: Any, vectors: np.ndarray) -> None:
    fitted = kind.fit(vectors)
    read = kind.from_dict(json.loads(json.dumps(fitted.to_dict())))
    np.testing.assert_array_equal(read.minimum, fitted.minimum)
    np.testing.assert_array_equal(read.maximum, fitted.maximum)
    assert read.minimum.dtype == np.float32
    assert read.dimensions == vectors.shape[1]
    np.testing.assert_array_equal(read.quantize(vectors), fitted.quantize(vectors))


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"dtype": "uint8", "minimum": [0.0], "maximum": [1.0]},
        {"dtype": "int8", "minimum": [0.0]},
    ],
)
def test_a_range_of_another_kind_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"stored range has .*; expected dtype='int8', minimum and maximum\. Read it"):
        Int8Range.from_dict(stored)


@pytest.mark.parametrize(
    ("minimum", "maximum", "problem"),
    [
        ([1.0], [0.0], "a minimum above its maximum"),
        ([0.0], [np.inf], "a bound that is not finite"),
        ([np.nan], [1.0], "a bound that is not finite"),
        ([0.0], [1.0, 2.0], r"shape \(1,\) and \(2,\)"),
        ([[0.0]], [[1.0]], r"shape \(1, 1\)"),
        ([], [], r"shape \(0,\)"),
    ],
)
def test_an_impossible_range_is_refused(minimum: Any, maximum: Any, problem: str) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*; expected .*Use fit\(\)"):
        UInt8Range(minimum=minimum, maximum=maximum)


def test_a_range_cannot_be_changed() -> None:
    bound = np.zeros(2, dtype=np.float32)
    fitted = Int8Range(minimum=bound, maximum=bound + 1)
    bound[0] = 5
    assert fitted.minimum[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        fitted.minimum[0] = 5


@pytest.mark.parametrize("vectors", [np.empty((0, 4)), np.ones(4)])
def test_a_range_needs_documents(vectors: np.ndarray) -> None:
    with pytest.raises(
        InputError, match=r"shape .*; expected \(n, dimensions\) with n of 1 or more\. Give the documents'"
    ):
        Int8Range.fit(vectors)


@pytest.mark.parametrize("kind", RANGES)
def test_another_width_than_the_range_is_refused(kind: Any) -> None:
    fitted = kind.fit(random_rows(4, 8))
    for wrong in (lambda: fitted.quantize(random_rows(4, 6)), lambda: fitted.dequantize(np.zeros((4, 6), kind.dtype))):
        with pytest.raises(DimensionsError, match=r"have 6 dimensions and the range 8; expected equal ones\. Truncate"):
            wrong()


@pytest.mark.parametrize(("kind", "other"), [(Int8Range, np.uint8), (UInt8Range, np.int8)])
def test_codes_of_another_dtype_are_refused(kind: Any, other: Any) -> None:
    fitted = kind.fit(random_rows(4, 8))
    with pytest.raises(InputError, match=rf"dtype {np.dtype(other)} .*; expected {kind.dtype} .*Give what"):
        fitted.dequantize(np.zeros((2, 8), dtype=other))
    with pytest.raises(InputError, match="of one or two dimensions"):
        fitted.dequantize(np.zeros((2, 2, 8), dtype=kind.dtype))


def test_quantised_vectors_cannot_be_cut() -> None:
    codes = Int8Range.fit(random_rows(4, 8)).quantize(random_rows(4, 8))
    with pytest.raises(InputError, match="can be neither cut nor normalised"):
        truncate(codes, 4)


def test_bits_are_signs_with_the_first_value_in_the_highest_bit() -> None:
    assert binary_quantize([0.5, -0.5, 0.0, 1e-9, -1.0, -1.0, -1.0, 2.0, 1.0]).tolist() == [0b10010001, 0b10000000]
    assert binary_quantize(random_rows(3, 17)).shape == (3, 3)


@settings(deadline=None)
@given(left=unit_like, data=st.data())
def test_hamming_and_dot_equal_the_signs(left: np.ndarray, data: st.DataObject) -> None:
    width = left.shape[1]
    right = data.draw(
        arrays.arrays(np.float32, (data.draw(st.integers(1, 6)), width), elements=st.floats(-1, 1, width=32))
    )
    packed = binary_quantize(left), binary_quantize(right)
    signs = [np.where(side > 0, 1, -1) for side in (left, right)]
    distances = hamming_distance(*packed)
    assert distances.dtype == np.int32
    np.testing.assert_array_equal(distances, (signs[0][:, None] != signs[1][None]).sum(axis=2))
    np.testing.assert_array_equal(binary_dot(*packed, dimensions=width), signs[0] @ signs[1].T)


def test_one_packed_vector_counts_as_a_row() -> None:
    one = binary_quantize(np.ones(10))
    assert hamming_distance(one, one).tolist() == [[0]]
    assert binary_dot(one, one, dimensions=10).tolist() == [[10]]


def test_packed_bits_of_different_widths_are_refused() -> None:
    short, long = binary_quantize(np.ones(8)), binary_quantize(np.ones(9))
    with pytest.raises(
        DimensionsError, match=r"1 bytes per vector and the documents 2; expected equal ones\. Truncate"
    ):
        hamming_distance(short, long)
    with pytest.raises(
        DimensionsError, match=r"dimensions=8 does not fit 2 bytes .*; expected 9 to 16\. Give the size"
    ):
        binary_dot(long, long, dimensions=8)
    with pytest.raises(InputError, match="expected uint8"):
        hamming_distance(np.ones((1, 8)), short)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", 1280), ("float16", 640), ("int8", 320), ("uint8", 320), ("binary", 40)],
)
def test_memory_of_a_vector(dtype: str, expected: int) -> None:
    assert memory_bytes(1, 320, dtype) == expected
    assert memory_bytes(7, 320, dtype) == 7 * expected
    assert memory_per_million(320, dtype) == 1_000_000 * expected


@settings(deadline=None)
@given(count=st.integers(0, 50), dimensions=st.integers(1, 40))
def test_memory_equals_numpy(count: int, dimensions: int) -> None:
    rows = np.ones((count, dimensions), dtype=np.float32)
    assert memory_bytes(count, dimensions) == rows.nbytes
    assert memory_bytes(count, dimensions, "binary") == binary_quantize(rows).nbytes


def test_memory_of_what_cannot_be_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"dtype='bfloat16' .*; expected a storage type .*Give one of float32, float16"
    ):
        memory_bytes(1, 8, "bfloat16")
    with pytest.raises(InputError, match=r"count=-1, dimensions=8; expected numbers from 0 up\. Give how many"):
        memory_bytes(-1, 8)


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(f2rag.vectors)
    assert results.attempted == 2
    assert results.failed == 0
