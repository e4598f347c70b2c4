"""What the search app's files hold: markup that escapes, examples, settings of Streamlit, and no heavy import."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from f2rag.corpus import UDHR_LANGUAGES

APP = Path(__file__).parents[1] / "apps" / "search"


@pytest.fixture
def app_modules(monkeypatch):
    """The app's folder where imports are looked for."""
    monkeypatch.syspath_prepend(str(APP))
    yield
    for name in ("ui", "examples"):
        sys.modules.pop(name, None)


def test_there_are_examples_in_ten_scripts(app_modules):
    from examples import EXAMPLES

    assert len({UDHR_LANGUAGES[example.language].script for example in EXAMPLES}) >= 10
    assert len({example.text for example in EXAMPLES}) == len(EXAMPLES)


def test_markdown_shows_exactly_the_text(app_modules):
    import ui

    assert ui.markdown("a *b* [c](d) <e> $f$ :red[g]\nh") == (r"a \*b\* \[c\]\(d\) \<e\> \$f\$ \:red\[g\]" + "  \nh")
    assert plain(ui.markdown("`x`_y_~z~|#1.")) == "`x`_y_~z~|#1."


def test_the_app_imports_neither_torch_nor_the_database():
    for file in APP.glob("*.py"):
        assert not re.search(r"^\s*(from|import) (torch|qdrant)", file.read_text(encoding="utf-8"), re.MULTILINE), file


def test_html_is_made_in_one_file_only():
    for file in APP.glob("*.py"):
        if file.name != "ui.py":
            text = file.read_text(encoding="utf-8")
            assert "unsafe_allow" not in text
            assert not re.search(r"</?(div|span|p|style|b|a)\b", text), file
            for call in re.findall(r"st\.html\(\s*(\w+)", text):
                assert call == "ui"


def test_nothing_is_reported_to_anybody_and_no_trace_is_shown():
    config = tomllib.loads((APP / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["browser"]["gatherUsageStats"] is False
    assert config["browser"]["serverAddress"] == "127.0.0.1"
    assert config["server"]["address"] == "127.0.0.1"
    assert config["client"]["showErrorDetails"] == "none"


def plain(markdown):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)
