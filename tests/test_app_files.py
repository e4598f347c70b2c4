"""What the search app's files hold: markup that escapes, examples, settings of Streamlit, and no heavy import."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from f2rag import Highlight, Hit
from f2rag.corpus import UDHR_LANGUAGES, load_udhr
from f2rag.demo import DEMO_LANGUAGES

APP = Path(__file__).parents[1] / "apps" / "search"
FILES = sorted(APP.rglob("*.py"))


@pytest.fixture
def app_modules(monkeypatch):
    """The app's folder where imports are looked for."""
    monkeypatch.syspath_prepend(str(APP))
    yield
    for name in ("ui", "examples"):
        sys.modules.pop(name, None)


class TestExamples:
    @pytest.fixture(autouse=True)
    def _on_the_path(self, app_modules):
        """All of these import the app's files."""

    def test_those_on_the_start_page_are_in_ten_scripts(self):
        from examples import EXAMPLES

        assert len({UDHR_LANGUAGES[example.language].script for example in EXAMPLES}) >= 10
        assert len({example.text for example in EXAMPLES}) == len(EXAMPLES)

    def test_every_question_is_there_in_the_same_languages(self):
        from examples import KNOWN

        languages = set(KNOWN[0].wordings)
        assert len(KNOWN) >= 5
        assert len(languages) >= 12
        assert languages <= set(DEMO_LANGUAGES)
        for known in KNOWN:
            assert set(known.wordings) == languages
            assert len(set(known.wordings.values())) == len(languages)
            assert all(text == text.strip() and text for text in known.wordings.values())

    def test_each_is_written_in_the_script_of_its_language(self):
        from examples import KNOWN

        scripts = {
            **{"Cyrillic": "а-я", "Han": "一-鿿", "Japanese": "ぁ-ヿ", "Hangul": "가-힣", "Korean": "가-힣"},
            **{"Arabic": "ا-ي", "Hebrew": "א-ת", "Devanagari": "अ-ह", "Greek": "α-ω", "Thai": "ก-ฮ", "Latin": "a-z"},
        }
        for known in KNOWN:
            for tag, text in known.wordings.items():
                script = UDHR_LANGUAGES[tag].script
                assert re.search(f"[{scripts[script]}]", text.lower()), (tag, text)

    def test_each_names_an_article(self):
        from examples import KNOWN

        articles = {document.metadata["article"] for document in load_udhr(["en"])}
        assert len({known.article for known in KNOWN}) == len(KNOWN)
        assert {known.article for known in KNOWN} <= articles

    def test_a_wording_is_recognised_in_any_language(self):
        from examples import EXAMPLES, KNOWN, known_question

        assert known_question(" Muss Bildung kostenlos sein? ") == (KNOWN[1], "de")
        assert known_question("Is the light on?") is None
        for example in EXAMPLES:
            known, language = known_question(example.text)
            assert (known.article, language) == (example.article, example.language)


class TestMarkup:
    @pytest.fixture(autouse=True)
    def _on_the_path(self, app_modules):
        """All of these import the app's files."""

    def test_markdown_shows_exactly_the_text(self):
        import ui

        shown = r"a \*b\* \[c\]\(d\) \<e\> \$f\$ \:red\[g\]" + "  \nh"
        assert ui.markdown("a *b* [c](d) <e> $f$ :red[g]\nh") == shown
        assert plain(ui.markdown("`x`_y_~z~|#1.")) == "`x`_y_~z~|#1."

    def test_a_mark_is_set_around_what_is_escaped(self):
        import ui

        text = "<a> & \n<b>best</b> end"
        hit = Hit(id="x", score=0.5, text=text, language="en")
        card = ui.card(hit, highlight=Highlight(start=7, end=18, score=1.0))
        assert "&lt;a&gt; &amp; \n<mark>&lt;b&gt;best&lt;/b&gt;</mark> end</p>" in card

    def test_a_card_says_where_its_text_stands(self):
        import ui

        hit = Hit(
            id="x", score=0.5, text="t", source="a<b>.pdf", metadata={"page": 3, "chunk": 2, "row": "", "other": 1}
        )
        assert ">a&lt;b&gt;.pdf · page 3 · chunk 2</span>" in ui.card(hit)

    @pytest.mark.parametrize(("change", "sign"), [(2, "↑2"), (-3, "↓3"), (0, "="), (None, None)])
    def test_a_shared_hit_shows_its_change(self, change, sign):
        import ui

        badge = ui.pair(4, change)
        assert ">4</span>" in badge
        assert ("f2-change" in badge) == (sign is not None)
        assert sign is None or badge.endswith(f">{sign}</span>")

    def test_a_table_holds_text_only(self):
        import ui

        table = ui.table([["<i>", "<script>"], ["b", "c"]], head=["<th>", ""], chosen=1)
        assert set(re.findall(r"</?(\w+)", table)) == {"div", "table", "thead", "tr", "th", "tbody", "td"}
        assert "&lt;script&gt;" in table
        assert table.index('class="f2-chosen"') < table.index(">b<")

    def test_a_long_text_is_shortened_to_one_line(self):
        import ui

        assert ui.shorten("a\n b  c") == "a b c"
        assert ui.shorten("x" * 100, length=10) == "x" * 9 + "…"


class TestFiles:
    def test_there_is_something_to_look_at(self):
        assert {"streamlit_app.py", "search.py", "compare.py", "map.py", "documents.py", "about.py"} <= {
            file.name for file in FILES
        }

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
    def test_neither_torch_nor_the_database_is_imported(self, file):
        assert not re.search(r"^\s*(from|import) (torch|qdrant)", file.read_text(encoding="utf-8"), re.MULTILINE)

    @pytest.mark.parametrize("file", [file for file in FILES if file.name != "ui.py"], ids=lambda file: file.name)
    def test_html_is_made_in_one_file_only(self, file):
        text = file.read_text(encoding="utf-8")
        assert "unsafe_allow" not in text
        assert not re.search(r"</?(div|span|p|style|b|a|mark|table|article)\b[^>]*>", text)
        for call in re.findall(r"\.html\(\s*(\w+)", text):
            assert call == "ui"

    def test_a_string_below_a_constant_is_not_written_onto_the_page(self):
        assert config()["runner"]["magicEnabled"] is False

    def test_nothing_is_reported_to_anybody_and_no_trace_is_shown(self):
        assert config()["browser"]["gatherUsageStats"] is False
        assert config()["browser"]["serverAddress"] == "127.0.0.1"
        assert config()["server"]["address"] == "127.0.0.1"
        assert config()["client"]["showErrorDetails"] == "none"

    def test_there_is_a_light_and_a_dark_theme(self):
        assert set(config()["theme"]) >= {"light", "dark"}
        assert config()["theme"]["light"]["primaryColor"] != config()["theme"]["dark"]["primaryColor"]


def config():
    return tomllib.loads((APP / ".streamlit" / "config.toml").read_text(encoding="utf-8"))


def plain(markdown):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)
