"""How tokens lie side by side: every packing holds the same texts, and folding computes no beginning twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from f2rag.packing import Packing, fold, join, may_share, pad

PAD = 99


def rows_of(*texts: list[int]) -> list[np.ndarray]:
    return [np.asarray(text, dtype=np.int64) for text in texts]


def texts_of(packing: Packing) -> list[list[int]]:
    """What attention sees of each row."""
    places = np.arange(len(packing.ids)) if packing.expand is None else packing.expand
    if packing.joined:
        parts = np.split(places, np.cumsum(packing.lengths)[:-1])
    else:
        table = places.reshape(packing.rows, packing.width)
        parts = [row[:length] for row, length in zip(table, packing.lengths, strict=True)]
    return [packing.ids[part].tolist() for part in parts]


# Few tokens, so that rows often begin alike.
TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


class TestEveryPacking:
    @given(TEXTS)
    def test_attention_sees_each_text_whole_and_in_order(self, texts):
        ids = rows_of(*texts)
        for packing in (pad(ids, pad_id=PAD), join(ids), fold(ids, joined=False), fold(ids, joined=True)):
            assert texts_of(packing) == texts
            assert packing.ids[packing.last].tolist() == [text[-1] for text in texts]

    @given(TEXTS)
    def test_positions_count_from_the_beginning_of_each_text(self, texts):
        ids = rows_of(*texts)
        for packing in (pad(ids, pad_id=PAD), join(ids), fold(ids, joined=False), fold(ids, joined=True)):
            assert packing.positions[packing.last].tolist() == [len(text) - 1 for text in texts]

    @given(TEXTS)
    def test_folding_computes_each_distinct_beginning_once(self, texts):
        beginnings = {tuple(text[: end + 1]) for text in texts for end in range(len(text))}
        for joined in (False, True):
            packing = fold(rows_of(*texts), joined=joined)
            assert len(packing.ids) == len(beginnings)

    @given(TEXTS)
    def test_what_is_gathered_from_attention_belongs_to_the_token(self, texts):
        for joined in (False, True):
            packing = fold(rows_of(*texts), joined=joined)
            assert packing.expand is not None
            assert packing.fold is not None
            assert packing.expand[packing.fold].tolist() == list(range(len(packing.ids)))


class TestPad:
    def test_padding_stands_behind_each_text(self):
        packing = pad(rows_of([1, 2, 3], [4]), pad_id=PAD)
        assert packing.ids.tolist() == [1, 2, 3, 4, PAD, PAD]
        assert packing.last.tolist() == [2, 3]

    def test_a_fixed_shape_is_filled_with_the_first_text(self):
        packing = pad(rows_of([1, 2], [4]), pad_id=PAD, rows=3, width=4)
        assert packing.ids.reshape(3, 4).tolist() == [[1, 2, PAD, PAD], [4, PAD, PAD, PAD], [1, 2, PAD, PAD]]
        assert packing.lengths.tolist() == [2, 1, 2]

    def test_indices_can_be_handed_to_torch(self):
        for packing in (pad(rows_of([1, 2, 3]), pad_id=PAD), join(rows_of([1])), fold(rows_of([1, 2]), joined=False)):
            arrays = (packing.ids, packing.positions, packing.last, packing.lengths, packing.expand, packing.fold)
            assert all(array is None or array.flags.writeable for array in arrays)


class TestMayShare:
    def test_queries_of_one_instruction_may(self):
        assert may_share(rows_of(*([1, 2, 3, 4, last] for last in range(5))))

    def test_texts_that_begin_differently_may_not(self):
        assert not may_share(rows_of(*([first, 2, 3, 4] for first in range(20))))

    def test_one_text_may_not(self):
        assert not may_share(rows_of([1, 2, 3]))
