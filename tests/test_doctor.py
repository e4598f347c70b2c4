from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from f2rag import doctor
from f2rag.doctor import Check, run_checks


def checks(folder: Path | str, **options: Any) -> dict[str, Check]:
    return {check.name: check for check in run_checks(folder, dtype="float32", **options)}


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_a_sound_model_passes_every_check(tiny: Path) -> None:
    found = checks(tiny)
    assert {name: check.verdict for name, check in found.items() if check.verdict != "ok"} == {}
    assert next(iter(found)) == "model"
    assert "one <|im_end|>" in found["tokenizer"].detail
    assert "Query: " in found["query prompt"].detail
    assert "cpu, float32" in found["device"].detail
    assert "at 32 of 40" in found["dimensions"].detail
    assert re.fullmatch(r"needs \d+ MB in float32, cpu has [\d.]+ GB free: fits", found["memory"].detail)


def test_a_model_that_does_not_fit_is_said_before_its_weights_are_looked_at(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.memory, "available_bytes", lambda device: 1000)
    found = checks(tiny)
    assert found["memory"].verdict == "warning"
    assert "does not fit" in found["memory"].detail
    names = list(found)
    assert names.index("memory") < names.index("weights")


def test_rounded_weights_pass_every_check() -> None:
    found = checks("stand-in", weight_dtype="int8")
    assert {check.verdict for name, check in found.items() if name != "model"} == {"ok"}
    assert "float32 with int8 weights" in found["device"].detail
    assert " in int8, " in found["memory"].detail


def test_repairs_are_warnings(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    found = checks(folder)
    assert found["config"].verdict == "warning"
    assert "last-token pooling is used" in found["config"].detail


def test_after_a_failure_what_needs_it_is_skipped_and_the_store_is_still_looked_at(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    found = checks(folder)
    assert found["weights"].verdict == "failed"
    assert "cut short" in found["weights"].detail
    assert {found[name].verdict for name in ("loading", "self-test", "dimensions")} == {"skipped"}
    assert found["store"].verdict == "ok"


def test_an_unknown_model_fails_the_first_check() -> None:
    found = checks("81M")
    assert found["model"].verdict == "failed"
    assert "80M" in found["model"].detail


def test_a_model_without_instruction_says_so(folder: Path) -> None:
    stored = folder / "config_sentence_transformers.json"
    stored.write_text(json.dumps({"prompts": {"query": "", "document": ""}}))
    found = checks(folder)
    assert "without an instruction" in found["query prompt"].detail
    assert "no instruction" in found["query and document"].detail


def test_a_missing_engine_is_a_warning(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "qdrant_edge" else original(name, *rest)
    )
    assert checks(tiny)["store"].verdict == "warning"


@pytest.mark.parametrize(
    ("method", "broken", "name"),
    [
        ("embed_query", lambda self, text: self.embed_documents([text])[0], "query and document"),
        ("self_test_result", lambda self: (0.5, False), "self-test"),
    ],
)
def test_a_wrong_result_is_noticed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, method: str, broken: Any, name: str
) -> None:
    monkeypatch.setattr(doctor.F2LLMEncoder, method, broken)
    assert checks(tiny)[name].verdict in {"failed", "warning"}


def test_vectors_that_depend_on_their_batch_or_dimension_are_noticed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = doctor.F2LLMEncoder.embed_documents

    def unstable(self: Any, texts: Any, *, dimensions: int | None = None) -> np.ndarray:
        vectors = original(self, texts, dimensions=dimensions)
        return vectors if len(texts) > 1 and dimensions is None else vectors[:, ::-1]

    monkeypatch.setattr(doctor.F2LLMEncoder, "embed_documents", unstable)
    assert checks(tiny)["batch and single"].verdict == "failed"
    monkeypatch.setattr(
        doctor._Examination,
        "batch_and_single",
        lambda self: setattr(self, "_vectors", self.encoder.embed_documents(doctor._PROBES)) or ("ok", ""),
    )
    assert checks(tiny)["dimensions"].verdict == "failed"


def test_known_models_introduce_themselves_before_anything_is_fetched(tmp_path: Path) -> None:
    found = checks("80M", local_files_only=True, cache_folder=tmp_path)
    assert "80,084,288 parameters" in found["model"].detail
    assert found["files"].verdict == "failed"
    found = checks("0.6B-Preview", local_files_only=True, cache_folder=tmp_path)
    assert found["model"].verdict == "warning"


def test_an_unforeseen_error_is_a_finding_and_no_traceback(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(doctor._Examination, "weights", broken)
    found = checks(tiny)
    assert found["weights"].verdict == "failed"
    assert "unforeseen ZeroDivisionError" in found["weights"].detail
