"""Which wrapper gets F2LLM-v2 right? The same checks against LangChain's and LlamaIndex's own packages and ours.

    python -m benchmarks.wrapper_correctness

A random checkpoint in F2LLM-v2's file layout stands in for the weights: whether a prompt, a norm or a cache key is
right does not depend on them. The reference is sentence-transformers' ``encode_query`` and ``encode_document`` on the
same files. Every cell is measured in this run; a package that is not installed is shown as such. The checks lie in
``wrapper_checks.py``, the packages in ``wrapper_contestants.py``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import f2rag
from benchmarks.wrapper_checks import EMBEDDING_CHECKS, STORE_CHECKS, Check, Reference, judge
from benchmarks.wrapper_contestants import EMBEDDINGS, STORES, Embeddings, Store
from f2rag.testing import write_checkpoint

RESULTS = Path(__file__).parent / "results"
MARKS = {True: "yes", False: "**no**", None: "–"}
LIBRARIES = (
    "sentence-transformers", "transformers", "torch", "langchain-core", "langchain-tests", "llama-index-core",
    "qdrant-client",
)  # fmt: skip


def measure(reference: Reference) -> dict[str, list[dict[str, Any]]]:
    """Run every check on every contestant."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for title, contestants, checks in (
        ("Embeddings", EMBEDDINGS, EMBEDDING_CHECKS),
        ("Vector stores", STORES, STORE_CHECKS),
    ):
        tables[title] = [
            {
                "check": (check.__doc__ or "").strip().rstrip("."),
                "cells": {each.name: _cell(each, check, reference) for each in contestants},
            }
            for check in checks
        ]
    return tables


def _cell(contestant: Embeddings | Store, check: Check, reference: Reference) -> dict[str, Any]:
    if not _importable(contestant.module):
        return {"passed": None, "detail": "not installed"}
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        verdict = judge(check, contestant, reference)
    return {"passed": verdict.passed, "detail": verdict.detail}


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def versions() -> dict[str, str]:
    """What was compared, and on what."""
    found = {"python": platform.python_version(), "f2rag": f2rag.__version__}
    for name in (*LIBRARIES, *dict.fromkeys(each.name for each in (*EMBEDDINGS, *STORES))):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            ours = name.endswith("-f2llm")
            found[name] = f"{f2rag.__version__} (this repository)" if ours else "not installed"
    return found


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """One table in Markdown."""
    names = list(rows[0]["cells"])
    passed = {name: sum(row["cells"][name]["passed"] is True for row in rows) for name in names}
    asked = {name: sum(row["cells"][name]["passed"] is not None for row in rows) for name in names}
    lines = [f"## {title}", "", f"| Check | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for row in rows:
        cells = [f"{MARKS[cell['passed']]} ({cell['detail']})" for cell in row["cells"].values()]
        lines.append(f"| {row['check']} | {' | '.join(cells)} |")
    lines.append(f"| **Passed** | {' | '.join(f'**{passed[name]} of {asked[name]}**' for name in names)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and write ``results/wrapper_correctness.json`` and ``.md``."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "model")
        other = write_checkpoint(Path(folder) / "other", seed=1)
        tables = measure(Reference(str(model), str(other)))
    compared = versions()
    content = {"versions": compared, "tables": tables}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "wrapper_correctness.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    parts = [
        "# Which wrapper gets F2LLM-v2 right?",
        "Made by `python -m benchmarks.wrapper_correctness` on a random checkpoint in F2LLM-v2's layout; no cell is "
        "written by hand. Each wrapper is used as its documentation says, with no argument that is not needed.\n"
        "In brackets: what was measured. –: does not apply, or is not installed.",
        *(table(title, rows) for title, rows in tables.items()),
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in compared.items()),
    ]
    text = "\n\n".join(parts) + "\n"
    (RESULTS / "wrapper_correctness.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
