"""The search page and the app's four states, with a fake encoder and a small corpus in a real store."""

from __future__ import annotations

import re
import threading

import pytest
from app_fixtures import (
    ARABIC,
    CORPUS,
    EVIL,
    AppEncoder,
    address_of,
    ask,
    cards_of,
    html_of,
    ids_of,
    keyed,
    new_session,
    plain,
    text_of,
    until,
)
from servers import free_ports

from f2rag import Document, SearchEngine
from f2rag.demo import Choice
from f2rag.errors import ModelNotFoundError, StoreError
from f2rag.store import Hybrid, Layout, Lexical, Prefix

pytestmark = pytest.mark.usefixtures("modules")


def scores_of(app):
    return [float(re.search(r'title="[a-z ]+">(-?\d\.\d+)<', card)[1]) for card in cards_of(app)]


def space_of(modules):
    return modules.workspace()


class TestHome:
    def test_it_says_what_is_searched_and_by_what(self, app):
        app.run()
        assert not app.exception
        assert not app.error
        assert "4 languages" in app.markdown[0].value
        assert "4 articles" in html_of(app)
        assert "256 of 256 dimensions" in html_of(app)
        assert not cards_of(app)

    def test_the_stand_in_is_named_as_such(self, app):
        app.run()
        assert "**This is the stand-in, not F2LLM-v2**" in app.warning[0].value
        assert "you named it" in app.warning[0].value
        ask(app, "slavery")
        assert "**This is the stand-in, not F2LLM-v2**" in app.warning[0].value

    def test_a_real_model_has_no_banner(self, app, monkeypatch):
        monkeypatch.setattr(AppEncoder, "is_stand_in", False)
        app.run()
        assert not app.warning


class TestResults:
    def test_cards_come_with_their_evidence(self, app):
        app.run()
        ask(app, "held in slavery")
        first = cards_of(app)[0]
        assert "No one shall be held in slavery" in first
        assert ">English<" in first
        assert "Universal Declaration of Human Rights · article 4" in first
        assert re.search(r"encode \d+ ms</span><span>search \d+\.\d ms", html_of(app))
        assert scores_of(app) == sorted(scores_of(app), reverse=True)
        assert len(scores_of(app)) == len(CORPUS)

    def test_the_best_sentence_is_marked(self, app):
        app.run()
        ask(app, "held in slavery")
        assert "country. <mark>No one shall be held in slavery.</mark></p>" in cards_of(app)[0]
        assert "<mark>" not in next(
            card for card in cards_of(app) if "esclavage" in card
        )  # one sentence: nothing to choose

    def test_hits_are_there_before_the_sentences_are_marked(self, app, monkeypatch):
        go_on, waiting = threading.Event(), threading.Event()
        embed = AppEncoder.embed_documents

        def slow(self, texts, **options):
            if any(text == "No one shall be held in slavery." for text in texts):
                waiting.set()
                go_on.wait(20)
            return embed(self, texts, **options)

        monkeypatch.setattr(AppEncoder, "embed_documents", slow)
        shown = []
        import ui

        card = ui.card
        monkeypatch.setattr(
            ui, "card", lambda hit, **options: shown.append((hit.id, options.get("highlight"))) or card(hit, **options)
        )
        app.query_params["q"] = "held in slavery"
        thread = threading.Thread(target=app.run)
        thread.start()
        until(waiting.is_set, 20)
        before = list(shown)
        go_on.set()
        thread.join()
        assert [highlight for _, highlight in before] == [None] * len(CORPUS)
        assert any(highlight is not None for _, highlight in shown)

    def test_sentences_are_embedded_once_for_what_is_shown(self, app, modules):
        app.run()
        ask(app, "held in slavery")
        calls = modules.running_model().encoder.document_calls
        before = len(calls)
        app.run()
        assert cards_of(app)
        assert len(calls) == before

    def test_what_a_document_holds_is_shown_as_text(self, app):
        app.run()
        ask(app, EVIL)
        first = cards_of(app)[0]
        assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in first
        assert "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;quotes&quot;" in first
        assert EVIL in text_of(first)
        for card in cards_of(app):
            assert set(re.findall(r"</?(\w+)", card)) <= {"article", "div", "span", "p", "mark"}
            # The only quotes that are left are those of our own attributes.
            assert re.sub(r' (class|dir|lang|title)="[^"<>]*"', "", card).count('"') == 0

    def test_text_runs_in_its_own_direction(self, app):
        app.run()
        ask(app, ARABIC)
        first = cards_of(app)[0]
        assert f'<p class="f2-text" dir="auto" lang="ar">{ARABIC}</p>' in first
        assert "\u2068العربية\u2069 · Arabic" in first
        assert "unicode-bidi: plaintext" in html_of(app)

    def test_nothing_found_is_said(self, app, modules, monkeypatch):
        monkeypatch.setattr(SearchEngine, "search", lambda self, query, **options: nothing(self, query))
        app.query_params["q"] = "slavery"
        app.run()
        assert not cards_of(app)
        assert "Nothing was found" in app.info[0].value


def nothing(engine, query):
    from f2rag.types import SearchResult, Timings

    timings = Timings(encode_ms=1, search_ms=1)
    return SearchResult(
        query=query, instruction="", model="fake", dimensions=256, mode="exact", hits=[], timings=timings
    )


class TestAddress:
    def test_it_carries_question_languages_dimensions_mode_and_instruction(self, app):
        app.query_params.update(
            {"q": "slavery", "language": "fr", "dimensions": "64", "mode": "hybrid", "instructed": "false"}
        )
        app.run()
        assert app.text_input(key="q").value == "slavery"
        assert app.selectbox(key="dimensions").value == 64
        assert app.selectbox(key="mode").value == "hybrid"
        assert app.toggle(key="instructed").value is False
        assert app.multiselect(key="language").value == ["fr"]
        assert ids_of(app) == ["fr"]
        assert "64 dimensions</span><span>hybrid" in html_of(app)

    def test_an_impossible_one_is_the_same_as_none(self, app):
        app.query_params.update(
            {"q": "slavery", "language": "tlh", "dimensions": "banana", "mode": "x", "collection": "none", "first": "?"}
        )
        app.run()
        assert not app.exception
        assert not app.error
        assert app.selectbox(key="dimensions").value == 256
        assert app.selectbox(key="mode").value == "auto"
        assert len(cards_of(app)) == len(CORPUS)
        assert "language" not in app.query_params
        assert "collection" not in app.query_params

    def test_languages_are_written_into_it(self, app):
        app.run()
        app.multiselect(key="language").set_value(["fr", "ar"]).run()
        assert address_of(app, "language") == ["fr", "ar"]
        app.multiselect(key="language").set_value([]).run()
        assert "language" not in app.query_params

    def test_the_languages_are_those_of_the_collection(self, app):
        app.run()
        options = app.multiselect(key="language").options
        assert options == ["\u2068العربية\u2069 · Arabic", "English", "\u2068Français\u2069 · French", *options[3:]]
        assert len(options) == 4


class TestWays:
    def test_shorter_vectors_are_searched_in_the_same_collection(self, app, modules):
        app.run()
        assert app.selectbox(key="dimensions").options == ["64", "128", "256"]
        encoder = modules.running_model().encoder
        assert encoder.document_calls == [len(CORPUS)]
        app.selectbox(key="dimensions").set_value(64).run()
        ask(app, "held in slavery")
        engine = space_of(modules).engine(space_of(modules).bundled)
        expected = engine.search("held in slavery", mode=Prefix(64))
        assert ids_of(app) == [hit.id for hit in expected.hits]
        assert scores_of(app) == [round(hit.score, 3) for hit in expected.hits]
        assert "64 dimensions</span><span>prefix" in html_of(app)
        assert len(space_of(modules).collections()) == 1

    def test_modes_are_those_of_the_collection_with_what_they_cost(self, app):
        app.run()
        assert app.selectbox(key="mode").options == ["auto", "exact", "funnel", "hybrid", "diverse"]
        app.selectbox(key="mode").set_value("funnel").run()
        assert "Walks the graph over a short prefix" in plain(app.caption[0].value)
        app.selectbox(key="dimensions").set_value(64).run()
        assert app.selectbox(key="mode").options == ["auto", "exact", "hybrid"]
        assert app.selectbox(key="mode").value == "auto"
        assert not app.exception

    @pytest.mark.parametrize(
        ("name", "dimensions", "expected"),
        [
            ("auto", 256, "auto"),
            ("funnel", 256, "funnel"),
            ("auto", 64, Prefix(64)),
            ("exact", 64, Prefix(64, exact=True)),
            ("hybrid", 64, Hybrid(dense=Prefix(64))),
        ],
    )
    def test_a_mode_at_a_size(self, modules, name, dimensions, expected):
        import controls

        assert controls.mode_for(name, dimensions=dimensions, width=256) == expected

    def test_the_mode_that_is_set_is_the_first_one(self, app, monkeypatch):
        monkeypatch.setenv("F2RAG_MODE", "hybrid")
        app.run()
        assert app.selectbox(key="mode").value == "hybrid"

    def test_a_hybrid_score_is_called_what_it_is(self, app):
        app.query_params.update({"q": "slavery", "mode": "hybrid"})
        app.run()
        assert 'title="sum of reciprocal ranks"' in cards_of(app)[0]

    def test_the_instruction_can_be_changed_and_switched_off(self, app):
        app.run()
        ask(app, "held in slavery")
        default = scores_of(app)[0]
        app.text_area(key="instruction").set_value("Find the right").run()
        edited = scores_of(app)[0]
        app.toggle(key="instructed").set_value(False).run()
        bare = scores_of(app)[0]
        assert len({default, edited, bare}) == 3
        assert app.text_area(key="instruction").disabled

    def test_a_model_without_instructions_offers_none(self, app, modules, monkeypatch):
        monkeypatch.setattr(modules, "F2LLMEncoder", lambda **options: AppEncoder(instruction=""))
        app.run()
        ask(app, "slavery")
        assert not app.toggle
        assert cards_of(app)

    def test_a_collection_without_levels_and_words_offers_less(self, app, modules, monkeypatch):
        monkeypatch.setenv("F2RAG_LEVELS", "128")
        monkeypatch.setenv("F2RAG_LEXICAL", "false")
        app.run()
        assert app.selectbox(key="dimensions").options == ["128", "256"]
        assert app.selectbox(key="mode").options == ["auto", "exact", "funnel", "diverse"]


class TestExamples:
    QUESTION = "Можно ли держать человека в рабстве?"

    def test_one_is_asked_and_its_answer_marked(self, app):
        app.run()
        question = "Darf ein Mensch in Sklaverei gehalten werden?"
        app.button_group(key="example").set_value(question).run()
        assert app.text_input(key="q").value == question
        assert any("May a person be held in slavery" in caption.value for caption in app.caption)
        marked = [card for card in cards_of(app) if "✓ the answer" in card]
        assert len(marked) == 2
        assert all("article 4" in card for card in marked)

    def test_the_same_question_is_asked_in_another_language(self, app):
        app.query_params["q"] = self.QUESTION
        app.run()
        before = ids_of(app)
        app.selectbox(key="ask_in").set_value("de").run()
        assert app.text_input(key="q").value == "Darf ein Mensch in Sklaverei gehalten werden?"
        assert address_of(app, "first") == ["ru"]
        said = next(plain(caption.value) for caption in app.caption if "are the same as for" in caption.value)
        assert (
            said
            == f"4 of these 4 hits are the same as for \u2068{self.QUESTION}\u2069 (\u2068Русский\u2069 · Russian)."
        )
        assert set(ids_of(app)) == set(before)

    def test_how_many_hits_are_the_same_is_counted(self, app, modules, monkeypatch):
        monkeypatch.setenv("F2RAG_LIMIT", "1")
        known = "May a person be held in slavery?"
        monkeypatch.setattr(modules, "load_udhr", lambda languages: [
            Document(id="de", text="Sklaverei darf Mensch", language="de", metadata={"article": 4}),
            Document(id="en", text="may a person slavery", language="en", metadata={"article": 4}),
        ])  # fmt: skip
        app.query_params.update({"q": known, "first": "de"})
        app.run()
        assert any("0 of these 1 hits are the same" in caption.value for caption in app.caption)

    def test_back_in_the_first_language_nothing_is_compared(self, app):
        app.query_params.update({"q": "Darf ein Mensch in Sklaverei gehalten werden?", "first": "ru"})
        app.run()
        app.selectbox(key="ask_in").set_value("ru").run()
        assert app.text_input(key="q").value == self.QUESTION
        assert "first" not in app.query_params
        assert not any("the same as for" in caption.value for caption in app.caption)

    def test_another_question_has_nothing_of_the_one_before(self, app):
        app.query_params.update({"q": "Darf ein Mensch in Sklaverei gehalten werden?", "first": "ru", "similar": "en"})
        app.run()
        ask(app, "another")
        assert "first" not in app.query_params
        assert "similar" not in app.query_params
        assert keyed(app.selectbox, "ask_in") is None


class TestSimilar:
    def test_neighbours_of_a_hit_are_shown_without_itself_until_they_are_closed(self, app, modules):
        app.run()
        ask(app, "held in slavery")
        before = ids_of(app)
        app.button(key="similar-1").click().run()
        assert address_of(app, "similar") == ["en"]
        engine = space_of(modules).engine(space_of(modules).bundled)
        assert ids_of(app) == [hit.id for hit in engine.similar("en").hits]
        assert "en" not in ids_of(app)
        assert any("Similar to:" in each.value and "No one shall be held" in plain(each.value) for each in app.markdown)
        assert app.toggle(key="instructed").disabled
        app.button(key="similar_close").click().run()
        assert "similar" not in app.query_params
        assert ids_of(app) == before

    def test_a_document_that_is_gone_is_an_error_that_can_be_closed(self, app):
        app.query_params.update({"q": "slavery", "similar": "nobody"})
        app.run()
        assert "holds no document 'nobody'" in plain(app.error[0].value)
        app.button(key="similar_close").click().run()
        assert not app.error
        assert cards_of(app)


class TestCollections:
    @pytest.fixture
    def notes(self, modules):
        """A collection of the user's own, filled by the model that runs, without levels and words."""
        engine = SearchEngine.open(
            modules.F2LLMEncoder(), modules.load_settings().location, collection="notes", layout=Layout()
        )
        with engine:
            engine.index(
                [Document(text="buy milk. and bread.", source="list.txt", metadata={"page": 3, "chunk": 2}), CORPUS[0]]
            )

    def test_the_bundled_one_comes_first(self, app, notes):
        app.run()
        assert app.selectbox(key="collection").options == ["Universal Declaration of Human Rights", "notes"]
        assert "collection" not in app.query_params

    def test_another_one_is_searched_with_what_it_has(self, app, notes):
        app.run()
        app.selectbox(key="collection").set_value("notes").run()
        assert address_of(app, "collection") == ["notes"]
        assert keyed(app.button_group, "example") is None
        assert app.selectbox(key="dimensions").options == ["256"]
        assert "hybrid" not in app.selectbox(key="mode").options
        ask(app, "milk")
        assert "list.txt · page 3 · chunk 2" in cards_of(app)[0]

    def test_the_address_names_one(self, app, notes):
        app.query_params.update({"collection": "notes", "q": "milk"})
        app.run()
        assert app.selectbox(key="collection").value == "notes"
        assert "buy milk" in text_of(cards_of(app)[0])

    def test_one_that_is_set_is_the_default(self, app, notes, monkeypatch):
        monkeypatch.setenv("F2RAG_COLLECTION", "notes")
        app.run()
        assert app.selectbox(key="collection").options == ["notes", "Universal Declaration of Human Rights"]
        assert app.selectbox(key="collection").value == "notes"
        assert "notes" in plain(app.markdown[0].value)

    def test_one_that_is_set_and_missing_is_an_error(self, app, monkeypatch):
        monkeypatch.setenv("F2RAG_COLLECTION", "elsewhere")
        app.run()
        assert "There is no collection 'elsewhere'" in plain(app.error[0].value)

    def test_one_of_another_model_is_not_offered_and_says_why(self, app, modules):
        other = AppEncoder(native_dimensions=256, dimensions=256, model_name="other")
        with SearchEngine.open(other, modules.load_settings().location, collection="theirs") as engine:
            engine.index(CORPUS)
        app.run()
        assert app.selectbox(key="collection").options == ["Universal Declaration of Human Rights"]
        entry = next(each for each in space_of(modules).collections() if each.name == "theirs")
        assert "other" in entry.problem
        assert "theirs" in entry.problem

    def test_an_empty_one_says_so(self, app, modules):
        SearchEngine.open(modules.F2LLMEncoder(), modules.load_settings().location, collection="void").close()
        app.query_params.update({"collection": "void"})
        app.run()
        assert "holds no documents" in app.info[0].value
        ask(app, "anything")
        assert "holds no documents" in app.info[0].value

    def test_a_new_one_gets_all_sizes_and_words(self, modules):
        space = space_of(modules)
        engine = space.engine("mine", create=True)
        assert engine.store.layout == Layout(levels=(64, 128), lexical=Lexical())
        assert space.engine("mine") is engine
        assert "mine" in [entry.name for entry in space.collections()]
        space.drop("mine")
        assert "mine" not in [entry.name for entry in space.collections()]
        assert space.engine("mine", create=True) is not engine

    def test_settings_decide_over_the_layout_and_the_width(self, modules, monkeypatch):
        monkeypatch.setenv("F2RAG_LEVELS", "32")
        assert space_of(modules).layout() == Layout(levels=(32,), lexical=Lexical())

    def test_the_bundled_one_is_filled_again_after_it_was_dropped(self, app, modules):
        app.run()
        space = space_of(modules)
        space.drop(space.bundled)
        app.run()
        assert "4 articles" in html_of(app)


class TestSharing:
    def test_a_second_session_and_a_second_start_embed_nothing(self, app, modules):
        app.run()
        second = new_session().run()
        assert "4 articles" in html_of(second)
        assert modules.running_model().encoder.document_calls == [len(CORPUS)]
        first = space_of(modules)
        assert space_of(modules) is first
        modules.st.cache_resource.clear()
        app.run()
        assert "4 articles" in html_of(app)
        assert space_of(modules) is not first
        assert modules.running_model().encoder.document_calls == []

    def test_a_vector_size_loads_nothing(self, app, modules, monkeypatch):
        loads = []
        make = modules.F2LLMEncoder
        monkeypatch.setattr(modules, "F2LLMEncoder", lambda **options: loads.append(1) or make(**options))
        app.run()
        for size in (64, 128, 256):
            app.selectbox(key="dimensions").set_value(size).run()
        assert loads == [1]

    def test_progress_is_told_while_the_corpus_is_indexed(self, modules, monkeypatch):
        go_on = threading.Event()
        embed = AppEncoder.embed_documents

        def slow(self, texts, **options):
            go_on.wait(10)
            return embed(self, texts, **options)

        monkeypatch.setattr(AppEncoder, "embed_documents", slow)
        told = []

        def on_progress(share, words):
            told.append((share, words))
            if "of 4 articles" in words:
                go_on.set()

        space_of(modules).ensure_bundled(on_progress)
        assert (0.0, "Indexing, the first time only: 0 of 4 articles") in told

    def test_progress_is_told_while_the_model_is_loading(self, modules, monkeypatch):
        go_on, told = threading.Event(), []
        monkeypatch.setattr(AppEncoder, "warm_up", lambda self: go_on.wait(10) and "ready")

        def on_progress(share, words):
            told.append((share, words))
            if words.startswith("Loading"):
                go_on.set()

        modules.running_model(on_progress)
        assert (2 / 3, "Loading fake") in told


class TestErrors:
    def test_a_store_in_use_elsewhere_is_one_that_passes(self, app, modules, tmp_path):
        app.run()
        space = space_of(modules)
        name, contract = space.bundled, space.model.encoder.contract()
        modules.st.cache_resource.clear()
        from f2rag import QdrantStore

        with QdrantStore.open(tmp_path / "store", collection=name, contract=contract):
            app.run()
            assert not app.exception
            assert "is open in another process" in plain(app.error[0].value)
            assert not cards_of(app)
        app.button(key="retry").click().run()
        assert not app.error
        assert "4 articles" in html_of(app)

    def test_a_server_that_does_not_answer(self, app, modules, monkeypatch, tmp_path):
        monkeypatch.setenv("F2RAG_LOCATION", f"http://127.0.0.1:{free_ports(1)[0]}")
        monkeypatch.setenv("F2RAG_TIMEOUT", "1")
        app.run()
        assert not app.exception
        assert "127.0.0.1" in plain(app.error[0].value)
        monkeypatch.setenv("F2RAG_LOCATION", str(tmp_path / "store"))  # nothing of the failure is remembered
        app.button(key="retry").click().run()
        assert not app.error
        assert "4 articles" in html_of(app)

    def test_a_failure_while_indexing_is_told_and_tried_again(self, app, modules, monkeypatch):
        def broken(languages):
            raise StoreError("the disk *is* full")

        with monkeypatch.context() as patch:
            patch.setattr(modules, "load_udhr", broken)
            app.run()
            assert plain(app.error[0].value) == "the disk *is* full"
        app.button(key="retry").click().run()
        assert "4 articles" in html_of(app)

    def test_a_wrong_setting_is_told_in_the_librarys_words(self, app, monkeypatch):
        monkeypatch.setenv("F2RAG_LIMIT", "many")
        app.run()
        assert not app.exception
        assert "F2RAG_LIMIT or --limit: 'many' was given" in plain(app.error[0].value)

    def test_without_the_real_model_the_stand_in_runs_and_says_why(self, app, modules, monkeypatch):
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

    def test_a_model_that_was_named_is_not_replaced(self, app, monkeypatch):
        def missing(self):
            raise ModelNotFoundError("There is no such model.")

        monkeypatch.setenv("F2RAG_MODEL", "80M")
        monkeypatch.setattr(AppEncoder, "warm_up", missing)
        app.run()
        assert "There is no such model." in plain(app.error[0].value)
        assert not app.warning
