from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from f2rag.batching import MemoryLimit, deduplicate, plan_batches, windows

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


@given(LENGTHS, st.integers(min_value=1, max_value=3000), st.integers(min_value=0, max_value=1000))
def test_no_batch_pads_for_more_than_it_may(lengths: list[int], budget: int, padding: int) -> None:
    batches = plan_batches(lengths, token_budget=budget, padding=padding)
    rows = np.concatenate([batch.rows for batch in batches]) if batches else np.array([])
    assert sorted(rows) == list(range(len(lengths)))
    for batch in batches:
        assert batch.tokens == max(lengths[row] for row in batch.rows)
        assert batch.padded_tokens - sum(lengths[row] for row in batch.rows) <= padding
    enough = 500 * len(lengths)
    assert len(plan_batches(lengths, token_budget=budget, padding=enough)) == len(
        plan_batches(lengths, token_budget=budget)
    )


def test_the_memory_limit_is_halved_at_once_and_raised_with_patience() -> None:
    limit = MemoryLimit(patience=3)
    limit.passed(10_000)
    assert not limit.is_set
    limit.lower(1000)
    limit.lower(500)
    assert (limit.tokens, limit.is_set) == (250, True)
    limit.lower(600)
    assert limit.tokens == 250
    for _ in range(10):
        limit.passed(100)  # says nothing about twice the limit
    assert limit.tokens == 250
    for expected in (250, 250, 500, 500, 500, 1000):
        limit.passed(limit.tokens)
        assert limit.tokens == expected


def test_the_memory_limit_tries_ever_more_rarely_what_fails_every_time() -> None:
    limit = MemoryLimit(patience=3)
    limit.lower(1000)
    waits = []
    for _ in range(4):
        passed = 0
        while limit.tokens == 500:
            limit.passed(500)
            passed += 1
        waits.append(passed)
        limit.lower(1000)
    assert waits == [3, 6, 12, 24]


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
