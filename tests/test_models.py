"""The rows equal the published facts, and every way of naming a model leads to the right one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import f2rag.models
from f2rag.errors import CorruptCheckpointError, InputError, ModelNotFoundError, UnknownModelError
from f2rag.models import LANGUAGES, MODELS, STAND_IN, STAND_IN_FOLDER, count_parameters, mrl_ladder, resolve

SHAPE = (
    "hidden_size",
    "layers",
    "intermediate_size",
    "attention_heads",
    "key_value_heads",
    "head_dim",
    "vocab_size",
)
INSTRUCT = {spec.short_name: spec for spec in MODELS if spec.kind == "instruct"}
PREVIEWS = {spec.short_name: spec for spec in MODELS if spec.kind == "preview"}
REAL = [*INSTRUCT.values(), *PREVIEWS.values()]

# Sums of the bytes that the safetensors of each size hold in bfloat16.
BFLOAT16_BYTES = {
    "80M": 160_168_576,
    "160M": 318_370_048,
    "330M": 668_698_368,
    "0.6B": 1_192_099_840,
    "1.7B": 3_441_149_952,
    "4B": 8_044_936_192,
    "8B": 15_136_811_008,
    "14B": 27_980_789_760,
}
# mteb's memory_usage_mb: mebibytes in float32.
MTEB_MEBIBYTES = {
    "80M": 305,
    "160M": 607,
    "330M": 1_275,
    "0.6B": 2_274,
    "1.7B": 6_563,
    "4B": 15_344,
    "8B": 28_871,
    "14B": 53_369,
}
SAFE_LENGTHS = {"80M": 1_024, "160M": 2_048, "330M": 4_096}


def shape_of(spec: f2rag.models.ModelSpec) -> dict[str, int]:
    return {name: getattr(spec, name) for name in SHAPE}


def test_the_rows_stand_in_order() -> None:
    assert [spec.short_name for spec in MODELS] == [
        *("80M", "160M", "330M", "0.6B", "1.7B", "4B", "8B", "14B"),
        *("0.6B-Preview", "1.7B-Preview", "4B-Preview", "8B-Preview", "14B-Preview"),
        "stand-in",
    ]
    assert MODELS[-1] is STAND_IN


@pytest.mark.parametrize("spec", REAL, ids=lambda spec: spec.short_name)
def test_parameters_follow_from_the_shape(spec: f2rag.models.ModelSpec) -> None:
    assert count_parameters(**shape_of(spec)) == spec.parameters


@pytest.mark.parametrize("size", INSTRUCT)
def test_memory_equals_the_published_bytes(size: str) -> None:
    spec = INSTRUCT[size]
    assert spec.memory_bytes("bfloat16") == BFLOAT16_BYTES[size] == spec.memory_bytes("float16")
    assert spec.memory_bytes("bfloat16", weight_dtype="int8") < spec.memory_bytes("bfloat16")
    assert spec.memory_bytes("float32") / 2**20 == pytest.approx(MTEB_MEBIBYTES[size], abs=1)


def test_memory_of_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InputError, match=r"dtype='fp8' was given; expected one of float32, bfloat16, float16\."):
        INSTRUCT["80M"].memory_bytes("fp8")


@pytest.mark.parametrize("spec", REAL, ids=lambda spec: spec.short_name)
def test_the_ladder_is_powers_of_two_and_the_native_size(spec: f2rag.models.ModelSpec) -> None:
    *powers, native = spec.mrl_dimensions
    assert native == spec.native_dimensions == spec.hidden_size
    assert powers == [2**exponent for exponent in range(3, 15) if 2**exponent < native]


def test_the_ladder_equals_the_table() -> None:
    assert INSTRUCT["80M"].mrl_dimensions == (8, 16, 32, 64, 128, 256, 320)
    assert INSTRUCT["0.6B"].mrl_dimensions == (8, 16, 32, 64, 128, 256, 512, 1024)
    assert INSTRUCT["14B"].mrl_dimensions == (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 5120)
    assert mrl_ladder(8) == (8,)
    assert mrl_ladder(4) == (4,)


@pytest.mark.parametrize("size", INSTRUCT)
def test_instruct_facts(size: str) -> None:
    spec = INSTRUCT[size]
    assert spec.repo == f"codefuse-ai/F2LLM-v2-{size}"
    assert spec.revision is not None
    assert len(spec.revision) == 40
    assert int(spec.revision, 16) >= 0
    assert spec.takes_instructions
    assert spec.safe_length == SAFE_LENGTHS.get(size, 8_192)
    assert (spec.evaluated_length, spec.maximum_length) == (8_192, 40_960)
    assert spec.languages == LANGUAGES
    assert spec.licence == "Apache-2.0"
    assert (spec.key_value_heads, spec.head_dim, spec.vocab_size) == (8, 128, 151_936)
    assert len(spec.earlier_revisions) == (1 if size in SAFE_LENGTHS else 0)
    assert spec.revision not in spec.earlier_revisions


def test_revisions_are_distinct() -> None:
    revisions = [revision for spec in REAL for revision in (spec.revision, *spec.earlier_revisions) if revision]
    assert len(set(revisions)) == len(revisions) == 11


def test_the_pinned_revisions_of_the_pruned_sizes_are_those_that_load() -> None:
    assert INSTRUCT["80M"].revision == "6faa7738f343cd4321f9b2fa92fdb7cae3c117a5"
    assert INSTRUCT["160M"].revision == "4013fb02c4b37ae14fc567fb190051b6cad652f6"
    assert INSTRUCT["330M"].revision == "e8ef9a8eb907a9dffdd9442424a967ba73e70d31"


def test_lineage() -> None:
    assert INSTRUCT["80M"].base == "codefuse-ai/F2LLM-v2-0.6B-Preview-Pruned-80M"
    assert INSTRUCT["4B"].base == PREVIEWS["4B-Preview"].repo
    teachers = {size: spec.teacher for size, spec in INSTRUCT.items() if spec.teacher}
    assert teachers == {
        **dict.fromkeys(("80M", "160M", "330M"), "F2LLM-v2-0.6B"),
        "0.6B": "F2LLM-v2-1.7B",
        "1.7B": "F2LLM-v2-4B",
    }


@pytest.mark.parametrize("name", PREVIEWS)
def test_previews_have_the_shape_of_their_instruct_model_and_no_instructions(name: str) -> None:
    preview, instruct = PREVIEWS[name], INSTRUCT[name.removesuffix("-Preview")]
    assert shape_of(preview) == shape_of(instruct)
    assert preview.repo == f"{instruct.repo}-Preview"
    assert preview.revision is None
    assert not preview.takes_instructions
    assert preview.languages == 44
    assert preview.base == f"Qwen/Qwen3-{instruct.short_name}"
    assert preview.teacher is None


def test_languages_are_the_87_tags_of_the_cards() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 87
    assert LANGUAGES[:3] == ("en", "zh", "ru")
    assert LANGUAGES[-1] == "yo"


def test_rows_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        INSTRUCT["80M"].hidden_size = 1  # type: ignore[misc]  # the point of the test


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MODLES'"):
        f2rag.models.MODLES  # noqa: B018  # the access is the test


@pytest.fixture
def stand_in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for the stand-in, whatever the package ships."""
    folder = tmp_path / "stand_in"
    monkeypatch.setattr(f2rag.models, "STAND_IN_FOLDER", folder)
    f2rag.models._stand_in.cache_clear()
    yield folder
    f2rag.models._stand_in.cache_clear()


CONFIG = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1_000,
    "max_position_embeddings": 2_048,
}


def write_config(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}), encoding="utf-8")
    return folder


def test_an_absent_stand_in_breaks_nothing_but_itself(stand_in_folder: Path) -> None:
    row = f2rag.models.STAND_IN
    assert (row.name, row.kind, row.hidden_size, row.parameters) == ("stand-in", "stand-in", 256, 0)
    assert len(f2rag.models.MODELS) == 14
    assert resolve("80M").spec is INSTRUCT["80M"]
    with pytest.raises(ModelNotFoundError, match=r"not in this installation; expected its files in .*Install f2rag"):
        resolve("stand-in")


def test_the_stand_in_takes_its_shape_from_its_config(stand_in_folder: Path) -> None:
    write_config(stand_in_folder)
    row = f2rag.models.STAND_IN
    assert shape_of(row) == dict(zip(SHAPE, (256, 4, 512, 4, 2, 32, 1_000), strict=True))
    assert row.parameters == count_parameters(**shape_of(row)) == 2_224_640
    assert (row.safe_length, row.evaluated_length, row.maximum_length) == (512, 512, 2_048)
    assert row.takes_instructions
    for name in ("stand-in", "standin", "stand_in", "Stand-In", "STANDIN"):
        found = resolve(name)
        assert (found.name, found.folder, found.spec, found.repo) == ("stand-in", stand_in_folder, row, "")


def test_a_broken_stand_in_does_not_stop_the_others(stand_in_folder: Path) -> None:
    stand_in_folder.mkdir()
    (stand_in_folder / "config.json").write_text("{", encoding="utf-8")
    assert resolve("4B").spec is INSTRUCT["4B"]
    with pytest.raises(CorruptCheckpointError, match="not readable JSON"):
        resolve("stand-in")


@pytest.mark.skipif(not (STAND_IN_FOLDER / "config.json").is_file(), reason="the stand-in is not in this checkout")
def test_the_shipped_stand_in_is_counted() -> None:
    assert resolve("stand-in").folder == STAND_IN_FOLDER
    assert STAND_IN.parameters == count_parameters(**shape_of(STAND_IN)) > 0


@pytest.mark.parametrize("spec", REAL, ids=lambda spec: spec.short_name)
def test_every_spelling_of_a_known_name(spec: f2rag.models.ModelSpec) -> None:
    for name in (spec.short_name, spec.name, spec.repo):
        for spelling in (name, name.lower(), name.upper(), name.replace("-", "_")):
            found = resolve(spelling)
            assert found.spec is spec
            assert (found.name, found.repo, found.revision) == (spec.name, spec.repo, spec.revision)
            assert found.folder is None
            assert found.takes_instructions == spec.takes_instructions


def test_other_repositories_pass_through() -> None:
    found = resolve("someone/F2LLM-v2-330M-law")
    assert (found.name, found.repo) == ("someone/F2LLM-v2-330M-law", "someone/F2LLM-v2-330M-law")
    assert (found.revision, found.folder, found.spec, found.takes_instructions) == (None, None, None, True)


@pytest.mark.parametrize(
    "repo", ["codefuse-ai/F2LLM-v2-0.6B-Preview-Pruned-80M", "someone/F2LLM-v2-4B-Preview", "x/y-preview"]
)
def test_bases_without_instructions_are_known_by_their_names(repo: str) -> None:
    found = resolve(repo)
    assert found.repo == repo
    assert not found.takes_instructions


@pytest.mark.parametrize("name", ["F2LLM-0.6B", "codefuse-ai/F2LLM-1.7B", "f2llm-4b", "codefuse-ai/F2LLM-4B"])
def test_the_first_family_is_refused(name: str) -> None:
    with pytest.raises(UnknownModelError, match=r"F2LLM v1, .*another family.*expected F2LLM-v2.*Give 'F2LLM-v2-"):
        resolve(name)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("F2LLMv2-80M", "F2LLM-v2-80M"),
        ("06B", "F2LLM-v2-0.6B"),
        ("codefuse-ai/F2LLM-v2-06B", "F2LLM-v2-0.6B"),
        ("17B-preview", "F2LLM-v2-1.7B-Preview"),
        ("standing", "stand-in"),
    ],
)
def test_a_typo_lists_near_matches_and_all_names(typo: str, meant: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve(typo)
    message = str(caught.value)
    assert repr(typo) in message
    assert "expected the name of a checkpoint or a path" in message
    assert "Did you mean " in message
    assert repr(meant) in message.partition("Did you mean ")[2].partition("?")[0]
    assert "Give one of 80M, 160M, 330M, 0.6B, 1.7B, 4B, 8B, 14B, 0.6B-Preview, " in message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["", "qqqqqqqqqqq", "a" * 5_000, "\0", None, 80, b"80M"])
def test_nonsense_is_an_unknown_model(name: Any) -> None:
    with pytest.raises(UnknownModelError, match="Give one of 80M") as caught:
        resolve(name)
    assert ("Did you mean" in str(caught.value)) == (name in (80, b"80M"))


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_the_resolution(name: str) -> None:
    try:
        resolve(name)
    except (UnknownModelError, ModelNotFoundError, CorruptCheckpointError) as error:
        assert str(error)  # noqa: PT017  # any other exception is the failure


def test_a_folder_of_a_known_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_config(tmp_path / "mine", hidden_size=320, num_hidden_layers=8)
    for spelling in ("mine", "./mine", "~/mine", str(folder), folder, Path("mine")):
        found = resolve(spelling)
        assert found.folder == folder
        assert (found.name, found.repo, found.revision) == ("mine", "", None)
        assert found.spec is INSTRUCT["80M"]
        assert found.takes_instructions


def test_a_folder_of_an_unknown_shape_is_fine(tmp_path: Path, stand_in_folder: Path) -> None:
    found = resolve(write_config(tmp_path / "tiny", hidden_size=24))
    assert found.spec is None
    assert found.takes_instructions


def test_a_known_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "80M")
    assert resolve("80M").folder is None
    assert resolve("./80M").folder == tmp_path / "80M"


def test_a_folder_wins_over_a_repository_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "models" / "law")
    assert resolve("models/law").folder == tmp_path / "models" / "law"
    assert resolve("models/tax").repo == "models/tax"


def test_an_empty_stored_prompt_does_not_forbid_instructions(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "mine")
    prompts = {"prompts": {"query": "", "document": ""}}  # what sentence-transformers saves by default
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    assert resolve(folder).takes_instructions


@pytest.mark.parametrize("name", ["F2LLM-v2-0.6B-Preview", "f2llm-v2-0.6b-preview"])
def test_a_preview_folder_takes_no_instructions(tmp_path: Path, name: str) -> None:
    found = resolve(write_config(tmp_path / name, hidden_size=1_024, num_hidden_layers=28))
    assert not found.takes_instructions
    assert found.spec is PREVIEWS["0.6B-Preview"]


def test_a_snapshot_of_the_hub_cache_has_the_name_of_its_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--codefuse-ai--F2LLM-v2-0.6B-Preview" / "snapshots" / ("a" * 40)
    found = resolve(write_config(snapshot, hidden_size=1_024, num_hidden_layers=28))
    assert found.name == "F2LLM-v2-0.6B-Preview"
    assert not found.takes_instructions


@pytest.mark.parametrize(
    "path", ["./nowhere", "/nowhere/at/all", "~nobody-here/x", "a/b/c", "x\\y", "x/y/", "../" + "n" * 300]
)
def test_a_missing_path_says_what_is_missing(path: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"does not exist; expected a folder with config\.json.*Correct it"
    ) as caught:
        resolve(path)
    assert isinstance(caught.value, OSError)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"is a file; expected a folder"):
        resolve(file)


def test_a_folder_without_a_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json; expected .*Give the folder"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"{", "not readable JSON"), (b"\xff", "not readable"), (b"[]", "holds a list")]
)
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=rf"config\.json.*{reason}.*expected .*Copy the checkpoint again"):
        resolve(tmp_path)


def test_importing_the_pure_modules_imports_no_framework() -> None:
    code = (
        "import sys, f2rag.models, f2rag.prompts, f2rag.vectors; f2rag.models.resolve('80M'); f2rag.models.MODELS; "
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'qdrant_client'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(f2rag.models.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
