from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from f2rag.batching import Batch, deduplicate, plan_batches, windows

LENGTHS = st.lists(st.integers(min_value=1, max_value=500), max_size=200)


@given(LENGTHS, st.integers(min_value=1, max_value=3000))
def test_every_row_is_in_exactly_one_batch_and_batches_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, token_budget=budget)
    rows = np.concatenate([batch.rows for batch in batches]) if batches else np.array([])
    assert sorted(rows) == list(range(len(lengths)))
    for batch in batches:
        assert batch.tokens == max(lengths[row] for row in batch.rows)
        assert batch.padded_tokens <= budget or len(batch.rows) == 1


@given(LENGTHS)
def test_the_longest_text_comes_first(lengths: list[int]) -> None:
    widths = [batch.tokens for batch in plan_batches(lengths, token_budget=1000)]
    assert widths == sorted(widths, reverse=True)


def test_sorting_by_tokens_removes_most_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 1, 2000).astype(int).clip(1, 2000)
    computed = sum(batch.padded_tokens for batch in plan_batches(lengths.tolist(), token_budget=4096))
    unsorted = sum(int(part.max()) * len(part) for part in np.split(lengths, range(32, len(lengths), 32)))
    assert computed / lengths.sum() < 1.05
    assert unsorted / lengths.sum() > 3


def test_halves_of_a_batch_hold_all_rows_and_a_single_row_has_none() -> None:
    first, second = Batch(np.arange(5), 7).halves() or (None, None)
    assert first is not None
    assert second is not None
    assert np.concatenate([first.rows, second.rows]).tolist() == [0, 1, 2, 3, 4]
    assert Batch(np.arange(1), 7).halves() is None


@given(st.lists(st.text(max_size=3), max_size=50))
def test_deduplicate_restores_every_position(keys: list[str]) -> None:
    firsts, inverse = deduplicate(keys)
    assert [keys[firsts[i]] for i in inverse] == keys
    assert len({keys[first] for first in firsts}) == len(firsts)


def test_windows_read_no_further_ahead_than_one_window() -> None:
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield read

    parts = windows(endless(), size=3)
    assert next(parts) == [1, 2, 3]
    assert read == 3
    assert list(windows("abcde", size=2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(windows([], size=2)) == []
