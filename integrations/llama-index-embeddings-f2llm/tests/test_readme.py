"""The README's snippets and the example run as they are, with the bundled model in place of the downloaded one."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from f2rag.models import resolve

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tiny: Path) -> str:
    """The bundled stand-in, or where that is absent a random model."""
    try:
        from f2rag import F2LLMEncoder

        _ = F2LLMEncoder("stand-in").checkpoint
    except Exception:
        return str(tiny)
    return resolve("stand-in").name


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_the_readme(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llama_index.vector_stores.qdrant")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 6
    monkeypatch.chdir(tmp_path)
    width = 256 if model == "stand-in" else 32
    scope: dict[str, object] = {}
    for snippet in snippets:
        code = snippet.replace('"0.6B", dimensions=256', f"{model!r}, dimensions={width}")
        exec(compile(code, "README.md", "exec"), scope)
    scope["store"].close()  # type: ignore[attr-defined]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{width} 2"
    assert "[26]" in printed
    assert "3" in printed, "the second ingestion added nothing"
    assert any(line.startswith("[2] ") for line in printed)
    assert printed[-1] == "The sea is blue."


def test_the_example(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("F2RAG_EXAMPLE_MODEL", model)
    monkeypatch.setattr(sys, "argv", ["rag.py", "Do I have a right to holidays with pay?"])
    example = runpy.run_path(str(ROOT / "examples" / "rag.py"))
    example["main"].__globals__["LANGUAGES"] = ["en", "fr"]
    example["main"]()
    printed = capsys.readouterr().out
    assert [f"[{number}] Universal Declaration" in printed for number in range(1, 6)] == [True] * 4 + [False]
    assert "Query: Do I have a right to holidays with pay?" in printed, "the question reached the language model"
    if model == "stand-in":
        assert "24 (en)" in printed
