from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from f2rag import memory
from f2rag.checkpoint import read_checkpoint
from f2rag.device import plan_device
from f2rag.errors import InputError, OutOfMemoryError
from f2rag.forward import FastForward
from f2rag.loading import load_model
from f2rag.memory import activation_bytes, advice, available_bytes, check_fits, fits, gigabytes, shape_of, weight_bytes
from f2rag.models import MODELS, resolve
from f2rag.quantization import GROUP

INSTRUCT = {spec.short_name: spec for spec in MODELS if spec.kind == "instruct"}
FOURTEEN = INSTRUCT["14B"]


@pytest.mark.parametrize("spec", INSTRUCT.values(), ids=lambda spec: spec.short_name)
def test_weights_are_counted_to_the_byte(spec: Any) -> None:
    for dtype, wide in (("float32", 4), ("bfloat16", 2), ("float16", 2)):
        assert weight_bytes(spec, dtype=dtype) == wide * spec.parameters
    table = spec.vocab_size * spec.hidden_size
    matrices = spec.parameters - table - spec.hidden_size - spec.layers * (2 * spec.hidden_size + 256)
    rest = spec.parameters - matrices
    outputs = spec.layers * (
        128 * (spec.attention_heads + 2 * spec.key_value_heads) + 2 * spec.hidden_size + 2 * spec.intermediate_size
    )
    assert weight_bytes(spec, dtype="bfloat16", weight_dtype="int8") == matrices + 4 * outputs + 2 * rest
    # Five bits each: four, and a scale and a lowest value of two bytes for every 32.
    assert weight_bytes(spec, dtype="bfloat16", weight_dtype="int4") == matrices * 5 // 8 + 2 * rest


def test_the_sizes_that_people_are_told() -> None:
    assert gigabytes(weight_bytes(FOURTEEN, dtype="bfloat16")) == "28 GB"
    assert gigabytes(weight_bytes(FOURTEEN, dtype="bfloat16", weight_dtype="int8")) == "15 GB"
    assert [gigabytes(size) for size in (160_168_576, 999_400_000, 999_600_000, 9_940_000_000, 9_960_000_000)] == [
        "160 MB", "999 MB", "1.0 GB", "9.9 GB", "10 GB",
    ]  # fmt: skip


@pytest.mark.parametrize("weight_dtype", [None, "int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_holds_what_was_counted(tiny: Path, dtype: str, weight_dtype: str | None) -> None:
    found = read_checkpoint(resolve(tiny), tiny)
    model = load_model(found, plan_device("cpu", dtype, weight_dtype))
    held = dict(model.named_parameters())
    held |= {name: part for name, part in model.named_buffers() if "rotary" not in name}
    size = sum(part.numel() * part.element_size() for part in held.values())
    assert size == weight_bytes(shape_of(found.config), dtype=dtype, weight_dtype=weight_dtype)
    assert memory.INT4_GROUP == GROUP


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError, match=r"dtype='fp8' was given; expected one of float32"):
        weight_bytes(FOURTEEN, dtype="fp8")
    with pytest.raises(InputError, match=r"weight_dtype='int3' was given; expected 'int8' or 'int4'"):
        weight_bytes(FOURTEEN, dtype="float32", weight_dtype="int3")


class PeakMemory(TorchDispatchMode):
    """Bytes of all that operations have made and that is alive, at their most.

    Args:
        besides: Tensors that were there before; views of them are nothing new.
    """

    def __init__(self, besides: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._besides = {one.untyped_storage().data_ptr() for one in besides}
        self._made: dict[int, weakref.ref[torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._made |= {id(one): weakref.ref(one) for one in tree_leaves(result) if isinstance(one, torch.Tensor)}
        storages = [made.untyped_storage() for one in self._made.values() if (made := one()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.peak = max(self.peak, sum(size for place, size in sizes.items() if place not in self._besides))
        return result


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_estimated_within_a_factor_of_two(make_checkpoint: Any, dtype: str) -> None:
    folder = make_checkpoint(model="0.6B", scale=4)
    found = read_checkpoint(resolve(folder), folder)
    model = load_model(found, plan_device("cpu", dtype))
    forward = FastForward(model, device="cpu", pad_id=0)
    ids = np.random.default_rng(0).integers(0, 200, (8, 128))
    with torch.inference_mode(), PeakMemory([*model.parameters(), *model.buffers()]) as measured:
        forward.states(list(ids))
    estimate = activation_bytes(shape_of(found.config), dtype=dtype, tokens=ids.size)
    assert 0.5 < estimate / measured.peak < 2


def test_rounded_weights_need_room_for_one_widened_matrix() -> None:
    plain, rounded = (
        activation_bytes(FOURTEEN, dtype="bfloat16", tokens=1, weight_dtype=kind) for kind in (None, "int8")
    )
    assert rounded - plain == 2 * 17_408 * 5_120
    assert activation_bytes(FOURTEEN, dtype="bfloat16", tokens=2) == 2 * plain


def test_what_cannot_fit_is_refused_with_what_does() -> None:
    with pytest.raises(
        OutOfMemoryError,
        match=r"14B needs 28 GB for its weights in bfloat16; cuda:0 has 20 GB free\. Use weight_dtype='int8' "
        r"\(15 GB\) or weight_dtype='int4' \(9\.8 GB\) or the 8B model \(15 GB\), or another device\.",
    ):
        check_fits("14B", FOURTEEN, device="cuda:0", dtype="bfloat16", available=20 * 10**9)
    # Borderline, unknown, and rounded: let it try.
    check_fits("14B", FOURTEEN, device="cuda:0", dtype="bfloat16", available=26 * 10**9)
    check_fits("14B", FOURTEEN, device="cuda:0", dtype="bfloat16", available=None)
    check_fits("14B", FOURTEEN, device="cuda:0", dtype="bfloat16", weight_dtype="int8", available=16 * 10**9)
    assert advice(FOURTEEN, device="cpu", dtype="float32", available=10**6).startswith("No F2LLM-v2 model fits")
    assert advice(INSTRUCT["80M"], device="cuda:0", dtype="bfloat16", available=10**6).endswith("use device='cpu'.")


@pytest.mark.parametrize(
    ("available", "verdict", "words"),
    [
        (40e9, True, "needs 31 GB in bfloat16, cuda:0 has 40 GB free: fits"),
        (28.9e9, True, "fits with smaller batches"),
        (20e9, False, "does not fit. Use weight_dtype='int8'"),
        (None, True, "cannot be known"),
    ],
)
def test_the_words_for_people(
    monkeypatch: pytest.MonkeyPatch, available: float | None, verdict: bool, words: str
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: None if available is None else int(available))
    found, said = fits(FOURTEEN, device="cuda:0", dtype="bfloat16", tokens=16_384)
    assert found is verdict
    assert words in said


def test_a_model_that_cannot_fit_is_refused_before_its_weights_are_read(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import f2rag.loading

    read = []
    monkeypatch.setattr(f2rag.loading, "_read", lambda *arguments, **options: read.append(arguments))
    monkeypatch.setattr(f2rag.loading, "available_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemoryError, match=r"needs .* MB for its weights in float32; cpu has 0 MB free"):
        load_model(read_checkpoint(resolve(tiny), tiny), plan_device("cpu", "float32"))
    assert read == []


def write_group(folder: Path, *, limit: str, used: int, cached: int, kept: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nfile {cached}\nshmem {kept}\n")


def test_a_container_s_limit_counts_and_its_page_cache_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(memory, "_MEMORY_FILE", system)
    monkeypatch.setattr(memory, "_CGROUP_ROOT", tmp_path / "groups")
    inner, outer = tmp_path / "groups" / "a" / "b", tmp_path / "groups" / "a"
    monkeypatch.setattr(memory, "_control_groups", lambda: iter([inner, outer]))
    assert available_bytes("cpu") == 8_192_000
    write_group(inner, limit="max", used=7_000_000, cached=0)
    assert available_bytes("cpu") == 8_192_000
    write_group(outer, limit="5000000", used=4_000_000, cached=3_000_000, kept=500_000)
    assert available_bytes("cpu") == 3_500_000
    (outer / "memory.max").unlink()
    for name, content in (("limit_in_bytes", "2000000"), ("usage_in_bytes", "1500000")):
        (outer / f"memory.{name}").write_text(content)
    (outer / "memory.stat").write_text("total_cache 200000\ntotal_shmem 0\n")
    assert available_bytes("cpu") == 700_000
    (outer / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert available_bytes("cpu") == 8_192_000
    system.unlink()
    assert available_bytes("cpu") is None


def test_the_groups_of_this_process_are_looked_at_up_to_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP_ROOT", tmp_path)
    real = Path.read_text
    lines = "9:name=systemd:/x\n4:memory:/docker/abc\n0::/slice/unit\n"
    monkeypatch.setattr(
        Path, "read_text", lambda self, **given: lines if str(self) == "/proc/self/cgroup" else real(self, **given)
    )
    found = set(memory._control_groups())
    assert found == {
        tmp_path, tmp_path / "slice", tmp_path / "slice" / "unit",
        tmp_path / "memory", tmp_path / "memory" / "docker", tmp_path / "memory" / "docker" / "abc",
    }  # fmt: skip


def test_a_gpu_s_free_memory_includes_what_torch_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    assert available_bytes("cuda:0") == 13
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 50, raising=False)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 20, raising=False)
    assert available_bytes("mps") == 30

    def fails(device: str) -> tuple[int, int]:
        raise RuntimeError

    monkeypatch.setattr(torch.cuda, "mem_get_info", fails)
    assert available_bytes("cuda:0") is None


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys, f2rag.memory, f2rag.models; f2rag.memory.available_bytes('cpu'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
