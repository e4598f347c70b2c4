"""What users and the hub see of the distribution."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import f2rag

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEAVES = ("llama_index/embeddings/f2llm", "llama_index/vector_stores/f2llm")


def test_the_namespace_belongs_to_nobody() -> None:
    for folder in ("llama_index", "llama_index/embeddings", "llama_index/vector_stores"):
        assert not (ROOT / folder / "__init__.py").exists()
    for leaf in LEAVES:
        assert (ROOT / leaf / "py.typed").read_text(encoding="utf-8") == ""


def test_the_hub_finds_the_classes() -> None:
    hub = PROJECT["tool"]["llamahub"]
    assert hasattr(importlib.import_module(hub["import_path"]), "F2LLMEmbedding")
    assert set(hub["class_authors"]) == {"F2LLMEmbedding", "F2LLMVectorStore"}
    assert hub["contains_example"] is (ROOT / "examples").is_dir()


def test_versions_are_equal() -> None:
    assert PROJECT["project"]["version"] == f2rag.__version__
    assert f"f2rag=={f2rag.__version__}" in PROJECT["project"]["dependencies"]


def test_public_names() -> None:
    assert importlib.import_module("llama_index.embeddings.f2llm").__all__ == ["F2LLMEmbedding"]
    assert importlib.import_module("llama_index.vector_stores.f2llm").__all__ == ["F2LLMVectorStore", "content_id"]


def test_importing_and_constructing_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from llama_index.embeddings.f2llm import F2LLMEmbedding\n"
        "from llama_index.vector_stores.f2llm import F2LLMVectorStore\n"
        "made = F2LLMEmbedding('0.6B', dimensions=256)\n"
        "assert made.from_dict(made.to_dict()).dimensions == 256\n"
        "F2LLMVectorStore.open(':memory:', embed_model=made)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_files_and_functions_stay_short() -> None:
    import ast

    for path in [*ROOT.rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 500, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)
