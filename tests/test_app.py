"""The search app, page and states, with a fake encoder and a small corpus in a real store."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import pytest

from f2rag import Document, QdrantStore
from f2rag.demo import Choice
from f2rag.errors import ModelNotFoundError
from f2rag.testing import FakeEncoder

pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")

import streamlit as st
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[1] / "apps" / "search"
MODULES = ("resources", "ui", "examples")

EVIL = 'evil <script>alert("x")</script> <img src=x onerror=alert(1)> & "quotes"'
ARABIC = "لا يعرَّض أي إنسان للتعذيب (ISO 27001)."
CORPUS = [
    Document(id="en", text="no one shall be held in slavery", language="en", source="UDHR", metadata={"article": 4}),
    Document(id="fr", text="nul ne sera tenu en esclavage", language="fr", source="UDHR", metadata={"article": 4}),
    Document(id="ar", text=ARABIC, language="ar", source="<b>source</b>", metadata={"article": 5}),
    Document(id="evil", text=EVIL, language='xx"><script>', source="<script>s</script>", metadata={"article": "<i>"}),
]


class AppEncoder(FakeEncoder):
    """The fake encoder with what the app asks of the real one beside."""

    is_stand_in = True

    def warm_up(self):
        return f"{self.model_name} on cpu"


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """The app's own modules, on a clean environment, with the fake encoder and the small corpus."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("F2RAG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("F2RAG_LOCATION", str(tmp_path / "store"))
    monkeypatch.setenv("F2RAG_MODEL", "stand-in")
    monkeypatch.syspath_prepend(str(APP))
    # Streamlit makes the script the main module; processes that later tests spawn would import it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    import resources

    monkeypatch.setattr(resources, "F2LLMEncoder", lambda **options: AppEncoder(native_dimensions=128, dimensions=128))
    monkeypatch.setattr(resources, "load_udhr", lambda languages: CORPUS)
    yield resources
    st.cache_resource.clear()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def app(modules):
    return AppTest.from_file(str(APP / "streamlit_app.py"), default_timeout=20)


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def cards_of(app):
    return [element.proto.body for element in app.main.get("html") if "<article>" in element.proto.body]


def ask(app, query):
    return app.text_input(key="q").set_value(query).run()


def test_home_says_what_is_searched_and_by_what(app):
    app.run()
    assert not app.exception
    assert not app.error
    assert "83 languages" in app.markdown[0].value
    assert "4 articles" in html_of(app)
    assert "128 of 128 dimensions" in html_of(app)
    assert not cards_of(app)


def test_the_stand_in_is_named_as_such(app):
    app.run()
    assert "**This is the stand-in, not F2LLM-v2**" in app.warning[0].value
    assert "you named it" in app.warning[0].value
    ask(app, "slavery")
    assert "**This is the stand-in, not F2LLM-v2**" in app.warning[0].value


def test_a_real_model_has_no_banner(app, monkeypatch):
    monkeypatch.setattr(AppEncoder, "is_stand_in", False)
    app.run()
    assert not app.warning


def test_a_search_shows_cards_with_their_evidence(app):
    app.run()
    ask(app, "held in slavery")
    first = cards_of(app)[0]
    assert "no one shall be held in slavery" in first
    assert ">English<" in first
    assert "UDHR · article 4" in first
    assert re.search(r">0\.\d{3}<", first)
    assert re.search(r"encode \d+ ms", html_of(app))
    assert re.search(r"search \d+\.\d ms", html_of(app))
    scores = [float(re.search(r'cosine similarity">(-?\d\.\d+)<', card)[1]) for card in cards_of(app)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == len(CORPUS)


def test_what_a_document_holds_is_shown_as_text(app):
    app.run()
    ask(app, EVIL)
    first = cards_of(app)[0]
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in first
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;quotes&quot;" in first
    for card in cards_of(app):
        assert set(re.findall(r"</?(\w+)", card)) == {"article", "div", "span", "p"}
        # The only quotes that are left are those of our own attributes.
        assert re.sub(r' (class|dir|lang|title)="[^"<>]*"', "", card).count('"') == 0


def test_text_runs_in_its_own_direction(app):
    app.run()
    ask(app, ARABIC)
    first = cards_of(app)[0]
    assert f'<p class="f2-text" dir="auto" lang="ar">{ARABIC}</p>' in first
    assert "\u2068العربية\u2069 · Arabic" in first
    assert "unicode-bidi: plaintext" in html_of(app)


def test_the_address_carries_question_languages_and_dimensions(app):
    app.query_params.update({"q": "slavery", "language": "fr", "dimensions": "64"})
    app.run()
    assert app.text_input(key="q").value == "slavery"
    assert app.selectbox(key="dimensions").value == 64
    assert [re.search(r'lang="(\w+)"', card)[1] for card in cards_of(app)] == ["fr"]
    assert "64 dimensions" in html_of(app)


def test_an_impossible_address_is_the_same_as_none(app):
    app.query_params.update({"q": "slavery", "language": "tlh", "dimensions": "banana"})
    app.run()
    assert not app.exception
    assert app.selectbox(key="dimensions").value == 128
    assert len(cards_of(app)) == len(CORPUS)


def test_an_example_is_asked_and_its_answer_marked(app):
    app.run()
    question = "Можно ли держать человека в рабстве?"
    app.button_group(key="example").set_value(question).run()
    assert app.text_input(key="q").value == question
    assert "May a person be held in slavery" in app.caption[0].value
    marked = [card for card in cards_of(app) if "✓ the answer" in card]
    assert len(marked) == 2
    assert all("article 4" in card for card in marked)


def test_the_instruction_can_be_changed_and_switched_off(app):
    def score():
        return re.search(r'cosine similarity">(-?\d\.\d+)<', cards_of(app)[0])[1]

    app.run()
    ask(app, "held in slavery")
    default = score()
    app.text_area(key="instruction").set_value("Find the right").run()
    edited = score()
    app.toggle(key="instructed").set_value(False).run()
    bare = score()
    assert len({default, edited, bare}) == 3
    assert app.text_area(key="instruction").disabled


def test_a_model_without_instructions_offers_none(app, modules, monkeypatch):
    monkeypatch.setattr(modules, "F2LLMEncoder", lambda **options: AppEncoder(instruction=""))
    app.run()
    ask(app, "slavery")
    assert not app.toggle
    assert cards_of(app)


def test_all_sizes_are_cut_from_one_embedding(app, modules):
    app.run()
    assert app.selectbox(key="dimensions").options == ["64", "128"]
    encoder = modules.running_model().encoder
    assert encoder.document_calls == [len(CORPUS)]
    app.selectbox(key="dimensions").set_value(64).run()
    ask(app, "held in slavery")
    assert encoder.document_calls == [len(CORPUS)]
    engine = modules.declaration().engines(print)[64]
    expected = encoder.embed_documents([CORPUS[0].text], dimensions=64)[0] @ encoder.embed_query(
        "held in slavery", dimensions=64
    )
    assert engine.search("held in slavery").hits[0].score == pytest.approx(float(expected), abs=1e-5)


def test_a_second_session_and_a_second_start_embed_nothing(app, modules):
    app.run()
    second = AppTest.from_file(str(APP / "streamlit_app.py"), default_timeout=20).run()
    assert "4 articles" in html_of(second)
    assert modules.running_model().encoder.document_calls == [len(CORPUS)]
    st.cache_resource.clear()
    app.run()
    assert "4 articles" in html_of(app)
    assert modules.running_model().encoder.document_calls == []


def test_nothing_found_is_said(app, modules, monkeypatch):
    monkeypatch.setattr(modules, "load_udhr", lambda languages: CORPUS[:1])
    app.query_params.update({"q": "slavery", "language": "fr"})
    app.run()
    assert not cards_of(app)
    assert "Nothing was found" in app.info[0].value


def test_progress_is_told_while_the_corpus_is_indexed(modules, monkeypatch):
    go_on = threading.Event()
    embed = AppEncoder.embed_documents

    def slow(self, texts, **options):
        go_on.wait(10)
        return embed(self, texts, **options)

    monkeypatch.setattr(AppEncoder, "embed_documents", slow)
    told = []

    def on_progress(share, words):
        told.append((share, words))
        go_on.set()

    modules.declaration().engines(on_progress)
    assert told[0] == (0.0, "Indexing, the first time only: 0 of 4 articles")


def test_a_store_in_use_elsewhere_is_an_error_that_passes(app, modules, tmp_path):
    app.run()
    engines = modules.declaration().engines(print)
    name, contract = engines[64].store.collection, engines[64].store.contract
    st.cache_resource.clear()
    with QdrantStore.open(tmp_path / "store", collection=name, contract=contract):
        app.run()
        assert not app.exception
        assert "is open in another process" in plain(app.error[0].value)
        assert not cards_of(app)
    app.button[0].click().run()
    assert not app.error
    assert "4 articles" in html_of(app)


def test_a_wrong_setting_is_told_in_the_librarys_words(app, monkeypatch):
    monkeypatch.setenv("F2RAG_LIMIT", "many")
    app.run()
    assert not app.exception
    assert "F2RAG_LIMIT or --limit: 'many' was given" in plain(app.error[0].value)


def test_without_the_real_model_the_stand_in_runs_and_says_why(app, modules, monkeypatch):
    monkeypatch.delenv("F2RAG_MODEL")
    asked = []

    def make(**options):
        asked.append(options["model"])
        encoder = AppEncoder()
        if options["model"] != "stand-in":
            encoder.warm_up = missing
        return encoder

    def missing():
        raise ModelNotFoundError("the download *broke*.\nTry again.")

    monkeypatch.setattr(modules, "F2LLMEncoder", make)
    monkeypatch.setattr(modules, "choose_model", lambda given, **options: Choice("80M", "the model hub answers"))
    app.run()
    assert asked == ["80M", "stand-in"]
    assert "80M could not be had: the download *broke*." in plain(app.warning[0].value)


def test_a_model_that_was_named_is_not_replaced(app, modules, monkeypatch):
    def missing(self):
        raise ModelNotFoundError("There is no such model.")

    monkeypatch.setenv("F2RAG_MODEL", "80M")
    monkeypatch.setattr(AppEncoder, "warm_up", missing)
    app.run()
    assert "There is no such model." in plain(app.error[0].value)
    assert not app.warning


def plain(markdown):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)
