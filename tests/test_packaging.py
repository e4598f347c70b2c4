"""The three distributions as users get them: built as wheels and installed into a clean environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import f2rag

ROOT = Path(__file__).parent.parent
MEMBERS = [ROOT, *sorted(path.parent for path in ROOT.glob("integrations/*/pyproject.toml"))]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), *map(str, MEMBERS)], check=True, capture_output=True, timeout=240)
    return sorted(folder.glob("*.whl"))


def test_wheels_hold_what_they_need_and_nothing_else(wheels: list[Path]) -> None:
    held = {wheel.name.partition("-")[0]: zipfile.ZipFile(wheel).namelist() for wheel in wheels}
    assert set(held) == {"f2rag", "langchain_f2llm", "llama_index_embeddings_f2llm"}
    tops = {name: {file.partition("/")[0] for file in files} for name, files in held.items()}
    assert {top for top in tops["f2rag"] if ".dist-info" not in top} == {"f2rag"}
    assert {top for top in tops["langchain_f2llm"] if ".dist-info" not in top} == {"langchain_f2llm"}
    assert {top for top in tops["llama_index_embeddings_f2llm"] if ".dist-info" not in top} == {"llama_index"}
    for needed in (
        "py.typed",
        "data/instructions.json",
        "data/corpus/udhr.jsonl.xz",
        "data/stand_in/model.safetensors",
    ):
        assert f"f2rag/{needed}" in held["f2rag"], needed
    # Above the leaves there must be no __init__.py, or llama-index-core could not be imported beside it.
    assert "llama_index/__init__.py" not in held["llama_index_embeddings_f2llm"]
    assert "llama_index/embeddings/__init__.py" not in held["llama_index_embeddings_f2llm"]
    assert "llama_index/embeddings/f2llm/py.typed" in held["llama_index_embeddings_f2llm"]
    assert "langchain_f2llm/py.typed" in held["langchain_f2llm"]


def test_the_wheels_work_in_a_clean_environment(wheels: list[Path], tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clean)], check=True, timeout=120)
    python = clean / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, *map(str, wheels)], check=True, capture_output=True, timeout=240)
    code = """
import f2rag, langchain_f2llm
from langchain_f2llm import F2LLMEmbeddings
from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore
one = F2LLMEmbeddings(model="stand-in", dimensions=64).embed_query("Where can I sleep?")
other = F2LLMEmbedding(model="stand-in", dimensions=64).get_query_embedding("Where can I sleep?")
assert one == other and len(one) == 64
print(f2rag.__file__, langchain_f2llm.__file__, sep="\\n")
"""
    # The dependencies come from the tests' own environment; through this variable its editable installs do not.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    done = subprocess.run(
        [str(python), "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(clean)) for line in done.stdout.split()), done.stdout


def test_the_three_versions_are_equal_and_pin_each_other() -> None:
    for member in MEMBERS[1:]:
        text = (member / "pyproject.toml").read_text(encoding="utf-8")
        assert f'version = "{f2rag.__version__}"' in text
        assert re.search(rf'"f2rag=={re.escape(f2rag.__version__)}"', text)
