from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import pytest

import f2rag
from f2rag import errors
from f2rag.options import EncoderOptions


def test_the_public_names_are_frozen() -> None:
    assert f2rag.__all__ == [
        "Comparison",
        "Document",
        "EmbeddingContract",
        "F2LLMEncoder",
        "F2RagError",
        "Highlight",
        "Hit",
        "IndexReport",
        "ModelSpec",
        "Projection",
        "QdrantStore",
        "SearchEngine",
        "SearchResult",
        "Timings",
        "__version__",
        "best_sentences",
        "compare",
        "project",
    ]
    assert dir(f2rag) == f2rag.__all__
    for name in f2rag.__all__:
        assert getattr(f2rag, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Encoder'"):
        _ = f2rag.Encoder


def test_constructor_arguments_equal_the_stored_options() -> None:
    arguments = list(inspect.signature(f2rag.F2LLMEncoder).parameters)
    assert arguments == [field.name for field in dataclasses.fields(EncoderOptions)]


def test_every_error_stands_in_the_tree_of_its_docstring() -> None:
    classes = [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.F2RagError)
    ]
    for each in classes:
        assert re.search(rf"\b{each.__name__}\b", str(errors.__doc__)), each
        assert each.__doc__


def test_a_missing_extra_names_the_install_line() -> None:
    error = errors.MissingExtraError("streamlit", extra="app")
    assert "pip install 'f2rag[app]'" in str(error)
    assert error.extra == "app"


@pytest.mark.parametrize(
    "module",
    [
        "batching",
        "comparison",
        "contract",
        "errors",
        "highlighting",
        "models",
        "projection",
        "prompts",
        "sentences",
        "tokenizer",
        "types",
        "vectors",
    ],
)
def test_every_module_says_what_it_does(module: str) -> None:
    assert importlib.import_module(f"f2rag.{module}").__doc__
