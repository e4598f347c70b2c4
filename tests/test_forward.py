"""The fast forward computes what transformers' own, masked forward computes, however the tokens are packed."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch

from f2rag import attention
from f2rag import forward as forwards
from f2rag.attention import adapt_kernel
from f2rag.checkpoint import read_checkpoint
from f2rag.device import DevicePlan
from f2rag.forward import FastForward, StockForward, choose_forward
from f2rag.loading import load_model
from f2rag.models import resolve
from f2rag.packing import join
from f2rag.testing import write_checkpoint

PAD = 0
SHAPES = ("80M", "160M", "330M", "0.6B", "1.7B", "4B", "8B", "14B")


def plan(dtype: str = "float32") -> DevicePlan:
    return DevicePlan(device="cpu", dtype=dtype, token_budget=1024, reason="test")


def reference_kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):
    """What torch's kernel for CUDA computes, row by row and without any of its shortcuts."""
    assert enable_gqa
    assert query.is_contiguous()
    assert key.is_contiguous()
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    group = query.shape[1] // key.shape[1]
    rows = []
    for row in range(len(cu_seq_q) - 1):
        queries = query[cu_seq_q[row] : cu_seq_q[row + 1]]
        keys, values = (
            part[cu_seq_k[row] : cu_seq_k[row + 1]].repeat_interleave(group, dim=1) for part in (key, value)
        )
        assert len(queries) <= max_q
        assert len(keys) <= max_k
        scores = torch.einsum("qhd,khd->hqk", queries.float(), keys.float()) / query.shape[2] ** 0.5
        if window_size == (-1, 0):
            hidden = torch.ones(len(queries), len(keys), dtype=torch.bool).tril(len(keys) - len(queries)).logical_not()
            scores = scores.masked_fill(hidden, float("-inf"))
        rows.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values.float()).to(query.dtype))
    return torch.cat(rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def make(shape: str):
        if shape not in made:
            made[shape] = write_checkpoint(tmp_path_factory.mktemp(f"shape-{shape}"), model=shape)
        return made[shape]

    return make


def load(folder, dtype: str = "float32"):
    return load_model(read_checkpoint(resolve(folder), folder), plan(dtype))


def some_texts(*, count: int = 9, shortest: int = 1, longest: int = 40, shared: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    beginning = generator.integers(0, 250, size=shared)
    lengths = generator.integers(shortest, longest, size=count)
    return [np.concatenate([beginning, generator.integers(0, 250, size=length)]) for length in lengths]


def unit(states: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(states, dim=1).numpy()


@torch.inference_mode()
def states(forward, texts) -> np.ndarray:
    return unit(forward.states(texts))


class TestFastForward:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(
        ("texts", "joined", "folded"),
        [
            (some_texts(shortest=35), False, False),
            (some_texts(count=5, shortest=1, longest=90), True, False),  # padding alone would be half
            (some_texts(shortest=35, shared=60), False, True),
            (some_texts(count=4, longest=200, shared=60), True, True),
        ],
        ids=["alike", "of all lengths", "that begin alike", "that begin alike and are of all lengths"],
    )
    def test_it_equals_the_masked_forward_of_transformers(self, folders, shape, texts, joined, folded):
        model = load(folders(shape))
        expected = states(StockForward(model, device="cpu", pad_id=PAD), texts)
        fast = FastForward(model, device="cpu", pad_id=PAD)
        packing = fast.pack(texts)
        assert (packing.joined, packing.expand is not None) == (joined, folded)
        np.testing.assert_allclose(states(fast, texts), expected, atol=2e-6)

    @pytest.mark.parametrize("shape", ["80M", "14B"])
    def test_every_packing_gives_the_same_vectors(self, folders, shape):
        model = load(folders(shape))
        texts = some_texts(shared=5)
        alone = np.concatenate([states(StockForward(model, device="cpu", pad_id=PAD), [text]) for text in texts])
        for kernel in (None, adapt_kernel(reference_kernel)):
            fast = FastForward(model, device="cpu", pad_id=PAD, kernel=kernel)
            for packing in fast.packings(texts):
                with torch.inference_mode():
                    np.testing.assert_allclose(unit(fast.compute(packing)), alone, atol=2e-6)

    def test_order_and_company_do_not_matter(self, folders):
        fast = FastForward(load(folders("0.6B")), device="cpu", pad_id=PAD)
        texts = some_texts(count=12)
        together = states(fast, texts)
        order = np.random.default_rng(1).permutation(len(texts))
        np.testing.assert_allclose(states(fast, [texts[i] for i in order]), together[order], atol=2e-6)
        for row, text in enumerate(texts):
            np.testing.assert_allclose(states(fast, [text]), together[row : row + 1], atol=2e-6)

    def test_texts_longer_than_the_first_rotations(self, folders, monkeypatch):
        monkeypatch.setattr(forwards, "_FIRST_POSITIONS", 8)
        model = load(folders("80M"))
        texts = some_texts(longest=200)
        fast = FastForward(model, device="cpu", pad_id=PAD)
        np.testing.assert_allclose(
            states(fast, texts), states(StockForward(model, device="cpu", pad_id=PAD), texts), atol=2e-6
        )

    def test_bfloat16_stays_close_to_float32(self, folders):
        texts = some_texts(count=20)
        exact = states(StockForward(load(folders("0.6B")), device="cpu", pad_id=PAD), texts)
        for kernel in (None, adapt_kernel(reference_kernel)):
            fast = FastForward(load(folders("0.6B"), "bfloat16"), device="cpu", pad_id=PAD, kernel=kernel)
            cosines = (states(fast, texts) * exact).sum(axis=1)
            assert cosines.min() >= 0.999

    @pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
    def test_weights_in_whole_numbers_are_fused_too(self, folders, weight_dtype):
        rounded = dataclasses.replace(plan(), weight_dtype=weight_dtype)
        model = load_model(read_checkpoint(resolve(folders("0.6B")), folders("0.6B")), rounded)
        texts = some_texts(count=12)
        expected = states(StockForward(model, device="cpu", pad_id=PAD), texts)
        fast = FastForward(model, device="cpu", pad_id=PAD)
        assert not isinstance(fast._last_layer.query_projection, torch.Tensor)
        np.testing.assert_allclose(states(fast, texts), expected, atol=rounded.rounding)
        assert ((states(fast, texts) * expected).sum(axis=1) > 0.9995).all()

    @pytest.mark.parametrize(("more", "block"), [(0, attention.QUERY_BLOCK), (1, None)])
    def test_queries_come_in_blocks_where_the_heads_keep_all_threads_busy(self, folders, monkeypatch, more, block):
        model = load(folders("80M"))
        monkeypatch.setattr(torch, "get_num_threads", lambda: model.config.num_attention_heads + more)
        assert FastForward(model, device="cpu", pad_id=PAD).query_block == block

    def test_no_weight_is_held_twice(self, folders):
        model = load(folders("80M"))
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        FastForward(model, device="cpu", pad_id=PAD)
        attention = model.layers[0].self_attn
        storages = {part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.v_proj)}
        assert len(storages) == 1
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name])


class TestCausal:
    @pytest.mark.parametrize("width", [1, 63, 64, 65, 130, 512, 513])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_blocks_of_queries_give_what_one_call_gives(self, width, dtype):
        generator = torch.Generator().manual_seed(width)
        queries, keys, values = (torch.randn(2, heads, width, 16, generator=generator).to(dtype) for heads in (4, 2, 2))
        whole = attention.causal_attention(queries, keys, values)
        assert whole.shape == (2, width, 4, 16)
        blocks = attention.causal_attention(queries, keys, values, query_block=64)
        torch.testing.assert_close(blocks, whole, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0)

    @pytest.mark.parametrize(("width", "calls"), [(64, 1), (65, 2), (200, 4), (512, 8), (513, 1)])
    def test_there_are_blocks_where_they_are_faster(self, monkeypatch, width, calls):
        made = []
        real = torch.nn.functional.scaled_dot_product_attention
        monkeypatch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda *parts, **options: made.append(parts[0].shape[2]) or real(*parts, **options),
        )
        heads = torch.zeros(2, 4, width, 16)
        attention.causal_attention(heads, heads, heads, query_block=64)
        assert len(made) == calls
        assert sum(made) == width


class TestEqualLengths:
    def test_rows_of_one_length_are_one_call(self, monkeypatch):
        calls = []
        real = attention.causal_attention
        monkeypatch.setattr(
            attention,
            "causal_attention",
            lambda *parts, **options: calls.append(parts[0].shape) or real(*parts, **options),
        )
        rows = attention.Rows.of(join([np.arange(length) for length in (5, 5, 5, 3, 4, 4)]), "cpu")
        tokens = torch.randn(26, 4, 16)
        attended = attention.EqualLengthsAttention(rows)(tokens, tokens[:, :2], tokens[:, 2:])
        assert attended.shape == (26, 64)
        assert calls == [(3, 4, 5, 16), (1, 4, 3, 16), (2, 4, 4, 16)]


class TestChoice:
    def test_the_fast_forward_is_taken_where_it_agrees(self, folders):
        choice = choose_forward(load(folders("80M")), plan(), pad_id=PAD)
        assert choice.is_fast
        assert choice.difference < 1e-5

    @pytest.mark.parametrize(
        "name",
        [
            *("PaddedAttention.__call__", "PaddedAttention.of_last"),
            *("EqualLengthsAttention.__call__", "EqualLengthsAttention.of_last", "Rows.gather"),
        ],
    )
    def test_a_wrong_part_is_found_and_the_stock_forward_taken(self, folders, monkeypatch, caplog, name):
        owner, method = name.split(".")
        kind = getattr(forwards, owner)
        right = getattr(kind, method)
        monkeypatch.setattr(kind, method, lambda self, *parts: right(self, *parts) * 1.1)
        with caplog.at_level(logging.WARNING):
            choice = choose_forward(load(folders("80M")), plan(), pad_id=PAD)
        assert not choice.is_fast
        assert choice.difference > 1e-5
        assert "using a slower one" in caplog.text
        texts = some_texts()
        monkeypatch.undo()
        again = FastForward(load(folders("80M")), device="cpu", pad_id=PAD)
        np.testing.assert_allclose(states(choice.forward, texts), states(again, texts), atol=2e-6)

    def test_a_mistake_in_blocks_of_queries_is_found_though_no_row_of_the_test_is_as_long_as_one(
        self, folders, monkeypatch
    ):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        monkeypatch.setattr(attention, "_above_diagonal", lambda dtype: torch.zeros(512, 512, dtype=dtype))
        assert not choose_forward(load(folders("80M")), plan(), pad_id=PAD).is_fast

    def test_a_part_that_does_not_run_here_is_not_used(self, folders, monkeypatch, caplog):
        def refuse(*_: object) -> None:
            raise NotImplementedError("not on this device")

        monkeypatch.setattr(forwards.PaddedAttention, "of_last", refuse)
        choice = choose_forward(load(folders("80M")), plan(), pad_id=PAD)
        assert not choice.is_fast
        assert choice.difference == float("inf")
        assert "not on this device" in caplog.text


class TestKernelOfTorch:
    def test_the_release_that_says_causal(self):
        calls = []

        def old(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None, scale=None):
            calls.append(is_causal)

        kernel = adapt_kernel(old)
        kernel(*range(7), causal=True)
        kernel(*range(7), causal=False)
        assert calls == [True, False]

    def test_the_releases_that_take_a_window(self):
        calls = []

        def newer(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
            calls.append(window_size)

        kernel = adapt_kernel(newer)
        kernel(*range(7), causal=True)
        kernel(*range(7), causal=False)
        assert calls == [(-1, 0), (-1, -1)]

    def test_an_unknown_signature_is_not_used(self):
        assert adapt_kernel(lambda query, key: query) is None

    def test_the_installed_torch_is_understood(self):
        assert forwards.variable_length_kernel() is not None
