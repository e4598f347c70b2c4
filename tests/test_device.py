from __future__ import annotations

import os
import subprocess
import sys

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


def with_cpu(monkeypatch: pytest.MonkeyPatch, *, allowed: bool = True, **capabilities: object) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(device, "_onednn_takes_bfloat16", lambda: allowed)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("capabilities", "dtype", "reason"),
    [
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "amx_bf16": True, "avx512_bf16": True}, "bfloat16", "AMX"),
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "amx_bf16": False, "avx512_bf16": True}, "float32", "neither"),
        ({"cpu_name": "AMD EPYC 9554 64-Core Processor", "amx_bf16": False, "avx512_bf16": True}, "bfloat16", "AMD"),
        (
            {"cpu_name": "AMD EPYC 7763 64-Core Processor", "amx_bf16": False, "avx512_bf16": False},
            "float32",
            "neither",
        ),
        ({"avx2": True}, "float32", "neither"),
    ],
)
def test_a_cpu_computes_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], dtype: str, reason: str
) -> None:
    with_cpu(monkeypatch, **capabilities)
    plan = plan_device()
    assert (plan.device, plan.dtype) == ("cpu", dtype)
    assert reason in plan.reason
    assert plan.torch_dtype == getattr(torch, dtype)
    with_cpu(monkeypatch, allowed=False, **capabilities)
    assert plan_device().dtype == "float32"


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_instructions_that_are_masked_off_are_not_counted_on(instructions: str) -> None:
    """The library reads the variable once, so another process asks it."""
    script = "from f2rag import device; print(device._onednn_takes_bfloat16())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert done.stdout.strip() == str(has_avx512 and instructions == "DEFAULT")


@pytest.mark.usefixtures("no_accelerator")
def test_an_older_torch_tells_amx_another_way_and_no_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cpu(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert plan_device().dtype == "bfloat16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert plan_device().dtype == "float32"


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
