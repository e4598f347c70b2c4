"""The README's snippets and the example run, and print what stands beside them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from f2rag.models import STAND_IN_FOLDER
from f2rag.testing import write_checkpoint
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import langchain_f2llm
from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore

ROOT = Path(__file__).parents[2]
STAND_IN = (STAND_IN_FOLDER / "config.json").is_file()


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-in; where it is not built, random weights, which show all but meaning."""
    if STAND_IN:
        return "stand-in"
    return str(write_checkpoint(tmp_path_factory.mktemp("demo") / "model", model="160M", scale=4))


@pytest.fixture(scope="session")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("langchain_rag_example", ROOT / "examples" / "rag.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def snippets() -> list[tuple[str, str]]:
    """Each Python block with what is printed below it."""
    pattern = r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?"
    return re.findall(pattern, (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)


def test_snippets_print_what_they_say(demo_model: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    assert len(snippets()) >= 6
    for snippet, expected in snippets():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(snippet.replace('"stand-in"', repr(demo_model)), namespace)
        assert printed.getvalue() == expected, snippet


def test_the_example_shows_sources_and_answer(
    example: ModuleType, demo_model: str, tmp_path: Path, capsys: Any
) -> None:
    arguments = ["Torture?", "--language", "en", "sw", "--model", demo_model, "--index", str(tmp_path / "index")]
    for _ in range(2):  # the second time from the folder
        example.main(arguments)
        shown = capsys.readouterr().out
        assert "Question: Torture?" in shown
        for number in (1, 2, 3, 4):
            assert f"[{number}] Universal Declaration of Human Rights, article" in shown
        assert "Answer: (No chat model is set" in shown


def test_the_chat_model_sees_the_sources(example: ModuleType, embeddings: F2LLMEmbeddings) -> None:
    seen: list[Any] = []

    class Noting(GenericFakeChatModel):
        def _generate(self, messages: Any, *arguments: Any, **options: Any) -> Any:
            seen.extend(messages)
            return super()._generate(messages, *arguments, **options)

    documents = example.load(["en"])
    assert len(documents) == 30
    with F2LLMVectorStore.from_documents(documents, embeddings) as store:
        chain = example.build_chain(store.as_retriever(k=2), Noting(messages=iter([AIMessage("Nobody. [1]")])))
        result = chain.invoke({"question": "torture or cruel punishment"})
    assert result["answer"] == "Nobody. [1]"
    assert len(result["documents"]) == 2
    system, human = seen
    assert human.content == "torture or cruel punishment"
    for number, document in enumerate(result["documents"], start=1):
        assert f"[{number}] {document.metadata['source']}\n{document.page_content}" in system.content


def test_docstrings_run(demo_model: str, monkeypatch: Any) -> None:
    import doctest

    from langchain_f2llm import embeddings, retriever, vectorstore

    for module in (embeddings, retriever, vectorstore):
        finder = doctest.DocTestFinder()
        for test in finder.find(module):
            for example in test.examples:
                example.source = example.source.replace('"stand-in"', repr(demo_model))
            assert doctest.DocTestRunner().run(test).failed == 0


def test_the_readme_names_every_argument() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in langchain_f2llm.F2LLMEmbeddings.model_fields)
