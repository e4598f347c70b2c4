from __future__ import annotations

import pytest
import torch

from f2rag import device
from f2rag.device import check_dtype_name, plan_device
from f2rag.errors import DeviceError


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def with_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(("amx", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_the_cpu_computes_bfloat16_only_with_amx(monkeypatch: pytest.MonkeyPatch, amx: bool, dtype: str) -> None:
    capabilities = {"amx_bf16": amx, "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    plan = plan_device()
    assert (plan.device, plan.dtype) == ("cpu", dtype)
    assert "AMX" in plan.describe()
    assert plan.torch_dtype == getattr(torch, dtype)


@pytest.mark.usefixtures("no_accelerator")
def test_an_older_torch_tells_amx_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert plan_device().dtype == "bfloat16"


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_a_gpu_gets_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
) -> None:
    with_cuda(monkeypatch, capability)
    plan = plan_device()
    assert (plan.device, plan.dtype) == ("cuda:0", dtype)
    assert plan.token_budget > plan_device("cpu").token_budget
    assert plan_device("cuda:1").device == "cuda:1"
    with pytest.raises(DeviceError, match="2 CUDA devices"):
        plan_device("cuda:2")


def test_apple_gpus_get_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (plan_device().device, plan_device("mps").dtype) == ("mps", "float32")


@pytest.mark.usefixtures("no_accelerator")
def test_what_is_given_is_kept_or_refused() -> None:
    assert plan_device("cpu", "float16").dtype == "float16"
    assert plan_device("cpu", "float16").reason == "dtype as given"
    for wrong in ("cuda", "mps", "tpu:x", "meta"):
        with pytest.raises(DeviceError, match=f"device='{wrong}' was given"):
            plan_device(wrong)


def test_rounded_weights_are_part_of_the_plan() -> None:
    plan = plan_device("cpu", "float32", "int8")
    assert plan.weight_dtype == "int8"
    assert plan.describe().startswith("cpu, float32 with int8 weights: ")
    assert plan.rounding > plan_device("cpu", "float32", "int4").rounding == plan_device("cpu", "float32").rounding


@pytest.mark.parametrize(
    ("given", "name"),
    [(None, None), ("auto", None), ("bf16", "bfloat16"), (torch.float32, "float32"), ("torch.float16", "float16")],
)
def test_dtype_names(given: object, name: str | None) -> None:
    assert check_dtype_name(given) == name
    with pytest.raises(DeviceError, match="expected one of"):
        device.check_dtype_name("int4")
