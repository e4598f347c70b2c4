from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2rag import F2LLMEncoder, quantization
from f2rag.checkpoint import read_checkpoint
from f2rag.corpus import load_udhr
from f2rag.device import plan_device
from f2rag.errors import InputError, OutOfMemoryError
from f2rag.loading import load_model
from f2rag.models import resolve
from f2rag.quantization import (
    Int4Linear,
    Int8Linear,
    choose_activations,
    fuse,
    group_size,
    joined,
    quantize_model,
    quantized_linear,
    rows_of,
)

ROWS, OUTPUTS, INPUTS = 9, 24, 64


@pytest.fixture
def matrix() -> torch.Tensor:
    found = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1))
    found[3] *= 40  # one scale for all outputs would lose the others
    found[5] = 0
    return found


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(3, ROWS // 3, INPUTS, generator=torch.Generator().manual_seed(2))


def int8_by_numpy(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    scales = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-30) / 127
    return np.rint(matrix / scales).clip(-127, 127) * scales


def test_int8_is_what_numpy_rounds(matrix: torch.Tensor, hidden: torch.Tensor) -> None:
    linear = quantized_linear(matrix, weight_dtype="int8")
    assert isinstance(linear, Int8Linear)
    expected = int8_by_numpy(matrix.double().numpy())
    assert linear.integers.dtype == torch.int8
    assert np.allclose(linear.dequantized(torch.float32).numpy(), expected, atol=1e-5)
    assert np.allclose(linear(hidden).numpy(), hidden.double().numpy() @ expected.T, atol=1e-3)
    assert linear(hidden).shape == (3, 3, OUTPUTS)
    # Half a step of each output's own scale at most.
    steps = matrix.abs().amax(dim=1) / 127
    assert bool(((linear.dequantized(torch.float32) - matrix).abs() <= steps[:, None] / 2 + 1e-6).all())


def test_rounded_activations_have_a_scale_per_token(matrix: torch.Tensor, hidden: torch.Tensor) -> None:
    linear = quantized_linear(matrix, weight_dtype="int8")
    assert isinstance(linear, Int8Linear)
    hidden[0, 0] *= 1000  # would leave nothing of the others under one scale
    hidden[0, 1] = 0
    rounded = int8_by_numpy(hidden.reshape(ROWS, INPUTS).double().numpy())
    expected = rounded @ int8_by_numpy(matrix.double().numpy()).T
    found = linear.whole_product(hidden)
    assert np.allclose(found.reshape(ROWS, OUTPUTS).numpy(), expected, rtol=1e-4, atol=1e-2)
    assert bool((found[0, 1] == 0).all())
    alone = torch.cat([linear.whole_product(hidden[index : index + 1]) for index in range(3)])
    assert torch.equal(alone, found)


def test_int4_has_a_scale_per_group(matrix: torch.Tensor, hidden: torch.Tensor) -> None:
    matrix[7, :32] *= 100  # its second group must not notice
    linear = quantized_linear(matrix, weight_dtype="int4")
    assert isinstance(linear, Int4Linear)
    assert linear.pairs.shape == (OUTPUTS, INPUTS // 2)
    found = linear.dequantized(torch.float32)
    groups = matrix.view(OUTPUTS, -1, 32)
    steps = (groups.amax(dim=2) - groups.amin(dim=2)) / 15
    # Half a step, and what bfloat16 rounds of the lowest value and, fifteen times, of the step.
    slack = 0.5 * steps + groups.abs().amax(dim=2) * 2**-8 + 15 * steps * 2**-8
    errors = (found - matrix).view(OUTPUTS, -1, 32).abs().amax(dim=2)
    assert bool((errors <= slack + 1e-6).all())
    assert np.allclose(linear(hidden).numpy(), hidden.numpy() @ found.numpy().T, atol=1e-2)
    numbers = np.stack([linear.pairs.numpy() & 15, linear.pairs.numpy() >> 4], axis=-1).reshape(OUTPUTS, -1, 32)
    by_numpy = numbers * linear.scales.float().numpy() + linear.lowest.float().numpy()
    assert np.array_equal(found.numpy(), by_numpy.reshape(OUTPUTS, INPUTS).astype(np.float32))


@pytest.mark.parametrize(("inputs", "size"), [(64, 32), (896, 32), (40, 8), (48, 16), (30, 2)])
def test_groups_fit_every_width(inputs: int, size: int) -> None:
    assert group_size(inputs) == size
    matrix = torch.randn(4, inputs, generator=torch.Generator().manual_seed(0))
    found = quantized_linear(matrix, weight_dtype="int4").dequantized(torch.float32)
    assert float((found - matrix).norm() / matrix.norm()) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
def test_a_bias_and_the_dtype_of_what_comes_in_are_kept(
    matrix: torch.Tensor, hidden: torch.Tensor, weight_dtype: str, dtype: torch.dtype
) -> None:
    bias = torch.arange(OUTPUTS, dtype=torch.float32)
    linear = quantized_linear(matrix, bias.to(dtype), weight_dtype=weight_dtype)
    plain = quantized_linear(matrix, weight_dtype=weight_dtype)
    found = linear(hidden.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), plain(hidden) + bias, rtol=0.02, atol=3)
    assert "in_features=64, out_features=24" in repr(linear)


def test_float16_does_not_overflow_on_the_way() -> None:
    linear = quantized_linear(torch.full((4, 4096), 0.01), weight_dtype="int8")
    assert float(linear(torch.ones(1, 4096, dtype=torch.float16)).max()) == pytest.approx(40.96, rel=0.01)


@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
def test_joined_matrices_are_the_parts_side_by_side_and_share_their_memory(
    matrix: torch.Tensor, hidden: torch.Tensor, weight_dtype: str
) -> None:
    parts = [quantized_linear(matrix[start : start + 8], weight_dtype=weight_dtype) for start in (0, 8, 16)]
    expected = torch.cat([part(hidden) for part in parts], dim=-1)
    whole = fuse(parts)
    assert torch.allclose(whole(hidden), expected, atol=1e-4)
    assert torch.allclose(quantized_linear(matrix, weight_dtype=weight_dtype)(hidden), expected, atol=1e-4)
    assert torch.allclose(torch.cat([part(hidden) for part in parts], dim=-1), expected, atol=1e-4)
    assert torch.allclose(rows_of(whole, 8, 16)(hidden), expected[..., 8:16], atol=1e-4)
    storages = {buffer.untyped_storage().data_ptr() for part in (*parts, whole) for buffer in part.buffers()}
    assert len(storages) == len(list(whole.buffers()))


def test_what_cannot_be_joined_or_rounded_is_refused(matrix: torch.Tensor) -> None:
    mixed = [quantized_linear(matrix, weight_dtype=kind) for kind in ("int8", "int4")]
    with pytest.raises(InputError, match="different kinds"):
        joined(mixed)
    with pytest.raises(InputError, match="weight_dtype='int3' was given; expected 'int8' or 'int4'"):
        quantized_linear(matrix, weight_dtype="int3")
    with pytest.raises(InputError, match="63 inputs was given; int4 needs an even number"):
        quantized_linear(matrix[:, :63], weight_dtype="int4")


def test_activations_are_rounded_only_if_those_of_all_joined_parts_are(matrix: torch.Tensor) -> None:
    parts = [quantized_linear(matrix, weight_dtype="int8") for _ in range(2)]
    for first, second in ((True, True), (True, False)):
        parts[0].rounds_activations, parts[1].rounds_activations = first, second
        whole = joined(parts)
        assert isinstance(whole, Int8Linear)
        assert whole.rounds_activations is (first and second)


@pytest.fixture(scope="module")
def stand_in() -> Any:
    folder = resolve("stand-in").folder
    assert folder is not None
    return load_model(read_checkpoint(resolve("stand-in"), folder), plan_device("cpu", "float32"))


def test_a_matrix_whose_input_has_a_few_huge_channels_keeps_it_in_floating_point(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "cpu_multiplies_int8", lambda: True)
    model = copy.deepcopy(stand_in)
    with torch.no_grad():
        # The product of up and down stays what it is; what lies between them gets three channels of 200 times the size.
        model.layers[1].mlp.up_proj.weight[:3] *= 200
        model.layers[1].mlp.down_proj.weight[:, :3] /= 200
    quantize_model(model, weight_dtype="int8", device="cpu", dtype=torch.float32)
    kept = choose_activations(model)
    assert kept == ["layers.1.mlp.down_proj"]
    rounded = {name for name, part in model.named_modules() if getattr(part, "rounds_activations", False)}
    assert len(rounded) == 7 * 3 - 1


def test_everything_but_the_matrices_has_the_compute_dtype_and_frequencies_stay_exact(stand_in: Any) -> None:
    model = copy.deepcopy(stand_in)
    quantize_model(model, weight_dtype="int8", device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.rotary_emb.inv_freq.dtype == torch.float32
    assert not any(isinstance(part, torch.nn.Linear) for part in model.modules())


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_vnni": True}, True), ({"avx_vnni": True}, True), ({"amx_int8": True}, True), ({"avx2": True}, False)],
)
def test_whether_the_cpu_multiplies_int8(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert quantization.cpu_multiplies_int8() is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert quantization.cpu_multiplies_int8() is False


@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize(("weight_dtype", "least"), [("int8", 0.995), ("int4", 0.985)])
def test_the_stand_in_keeps_its_meaning(
    weight_dtype: str, least: float, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate: mean cosine of int8 to float32 at least 0.995."""
    monkeypatch.setattr(quantization, "cpu_multiplies_int8", lambda: rounds)
    texts = [document.text for document in load_udhr(["en", "zh", "ar"])][::3]
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "on_overflow": "truncate"}
    with (
        F2LLMEncoder("stand-in", **options) as exact,
        F2LLMEncoder("stand-in", weight_dtype=weight_dtype, **options) as rounded,
    ):
        found, expected = rounded.embed_documents(texts), exact.embed_documents(texts)
        cosines = (found * expected).sum(axis=1)
        assert least < float(cosines.mean()) < 0.99999
        assert rounded.self_test_result()[1]
        # Whatever else is in the batch: a vector is the same to rounding.
        alone = np.vstack([rounded.embed_documents([text]) for text in texts[:3]])
        assert float((alone * found[:3]).sum(axis=1).min()) > 0.9999
        assert rounded.contract().weight_dtype == weight_dtype
        assert rounded.contract().fingerprint == exact.contract().fingerprint
        assert f"with {weight_dtype} weights" in rounded.warm_up()


def test_a_wrong_name_is_refused_at_once(tiny: Path) -> None:
    with pytest.raises(InputError, match="weight_dtype='int5' was given; expected 'int8' or 'int4', or None"):
        F2LLMEncoder(tiny, weight_dtype="int5")


def test_running_out_of_memory_while_rounding_says_what_to_do(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(quantization, "quantized_linear", full)
    with pytest.raises(OutOfMemoryError, match="in int8 does not fit into the memory of cpu"):
        load_model(read_checkpoint(resolve(tiny), tiny), plan_device("cpu", "float32", "int8"))
