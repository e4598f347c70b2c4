"""The compare page: two ways to search side by side, and the recall of shorter vectors, measured on demand."""

from __future__ import annotations

import html
import json
import re
import threading

import pytest
from app_fixtures import (
    AppEncoder,
    address_of,
    ask,
    at_page,
    cards_of,
    html_of,
    keyed,
    plain,
    text_of,
    until,
)

from f2rag import Document, SearchEngine, compare
from f2rag.errors import StoreError
from f2rag.store import Layout, Prefix

pytestmark = pytest.mark.usefixtures("modules")

WORDS = ["red", "blue", "green", "house", "sea", "sky", "tree", "stone", "road", "river"]


@pytest.fixture
def many(modules, monkeypatch):
    """Forty documents, so that sides differ and there is something to measure."""
    documents = [
        Document(
            id=f"d{number}",
            text=f"{WORDS[number % 10]} {WORDS[number // 4]} {WORDS[(number * 7) % 10]}. Number {number}.",
            language="en",
            source="words",
        )
        for number in range(40)
    ]
    monkeypatch.setattr(modules, "load_udhr", lambda languages: documents)
    return documents


@pytest.fixture
def page(many):
    return at_page("compare")


def rows_of(app):
    """The table of evidence, by its first cells."""
    table = next(element.proto.body for element in app.main.get("html") if "Left" in element.proto.body)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table)
    cells = [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]
    return {first: rest for first, *rest in cells}


class TestSides:
    def test_home_offers_presets_and_asks_for_a_question(self, page):
        page.run()
        assert not page.exception
        assert not page.error
        assert not cards_of(page)
        assert "Ask a question" in page.markdown[0].value
        assert page.button_group(key="preset").options
        assert page.selectbox(key="left_dimensions").value == 256
        assert page.selectbox(key="right_dimensions").value == 64

    def test_each_side_is_searched_as_it_says(self, page, modules):
        page.run()
        ask(page, "red house")
        engine = modules.workspace().engine(modules.workspace().bundled)
        left = engine.search("red house")
        right = engine.search("red house", mode=Prefix(64))
        shown = [text_of(card) for card in cards_of(page)]
        assert len(shown) == 20
        for hit, card in zip([*left.hits, *right.hits], shown, strict=True):
            assert hit.text in card
            assert f"{hit.score:.3f}" in card
        assert rows_of(page)["Dimensions"] == ["256", "64"]
        assert rows_of(page)["Mode"] == ["exact", "prefix"]

    def test_shared_hits_have_the_same_number_and_their_change(self, page, modules):
        page.run()
        ask(page, "red house")
        engine = modules.workspace().engine(modules.workspace().bundled)
        found = compare(engine.search("red house"), engine.search("red house", mode=Prefix(64)))
        cards = cards_of(page)
        assert f"**overlap@10: {found.overlap:.0%}**" in html_and_markdown(page)
        assert 0 < found.overlap < 1
        for row in found.rows:
            if row.left_rank is not None:
                card = cards[row.left_rank - 1]
                assert ("only here" in card) == (row.right_rank is None)
                assert (f'number {row.left_rank} left">{row.left_rank}<' in card) == (row.right_rank is not None)
            if row.right_rank is not None:
                card = cards[10 + row.right_rank - 1]
                assert ("only here" in card) == (row.left_rank is None)
                if row.change is not None:
                    assert f'title="found by both, number {row.left_rank} left">{row.left_rank}<' in card
                    sign = "=" if not row.change else f"{'↑' if row.change > 0 else '↓'}{abs(row.change)}"
                    assert f">{sign}</span>" in card

    def test_memory_and_times_are_told_for_each(self, page, modules):
        page.run()
        ask(page, "red house")
        store = modules.workspace().engine(modules.workspace().bundled).store
        from f2rag.advice import readable_bytes

        expected = [readable_bytes(store.memory_per_million(mode)) for mode in ("auto", Prefix(64))]
        assert expected == ["512 MB", "256 MB"]
        assert rows_of(page)["First pass, per million vectors"] == expected
        assert all(re.fullmatch(r"\d+ ms", cell) for cell in rows_of(page)["Encode (fastest)"])
        assert all(re.fullmatch(r"\d+\.\d ms", cell) for cell in rows_of(page)["Search (fastest)"])

    def test_with_and_without_the_instruction(self, page):
        page.run()
        ask(page, "red house")
        page.button_group(key="preset").set_value("with and without the instruction").run()
        assert page.toggle(key="left_instructed").value is True
        assert page.toggle(key="right_instructed").value is False
        assert rows_of(page)["Instruction"] == ["the model's own", "none"]
        assert rows_of(page)["Dimensions"] == ["256", "256"]
        scores = [re.search(r'title="cosine similarity">(.*?)<', card)[1] for card in cards_of(page)]
        assert scores[0] != scores[10]

    @pytest.mark.parametrize(
        ("preset", "right"),
        [
            ("256 against 64 dimensions", ["64", "prefix"]),
            ("256 against 128 dimensions", ["128", "prefix"]),
            ("exact against funnel", ["256", "funnel"]),
            ("exact against hybrid", ["256", "hybrid"]),
            ("exact against diverse", ["256", "diverse"]),
        ],
    )
    def test_a_preset_sets_both_sides(self, page, preset, right):
        page.run()
        ask(page, "red house")
        page.button_group(key="preset").set_value(preset).run()
        assert not page.exception
        rows = rows_of(page)
        assert [rows["Dimensions"][0], rows["Mode"][0]] == ["256", "exact"]
        assert [rows["Dimensions"][1], rows["Mode"][1]] == right

    def test_the_address_carries_both_sides(self, many):
        page = at_page(
            "compare", q="red house", left_dimensions="128", right_mode="funnel", right_dimensions="256", language="en"
        )
        page.run()
        assert rows_of(page)["Dimensions"] == ["128", "256"]
        assert rows_of(page)["Mode"] == ["prefix", "funnel"]
        assert address_of(page, "language") == ["en"]

    def test_equal_sides_are_said_to_be(self, page):
        page.run()
        ask(page, "red house")
        assert not any("in the same way" in caption.value for caption in page.caption)
        page.selectbox(key="right_dimensions").set_value(256).run()
        assert any("in the same way" in caption.value for caption in page.caption)
        assert "overlap@10: 100%" in html_and_markdown(page)

    def test_a_collection_without_levels_has_nothing_to_shorten(self, modules):
        location = modules.load_settings().location
        with SearchEngine.open(modules.F2LLMEncoder(), location, collection="plain", layout=Layout()) as engine:
            engine.index([Document(text="red house"), Document(text="blue sea")])
        page = at_page("compare", collection="plain", q="red")
        page.run()
        assert page.selectbox(key="right_dimensions").options == ["256"]
        assert not any("dimensions" in option for option in page.button_group(key="preset").options)
        assert len(cards_of(page)) == 4

    def test_an_error_has_its_state(self, page, monkeypatch):
        page.run()
        monkeypatch.setattr(SearchEngine, "search", failing)
        ask(page, "red house")
        assert plain(page.error[0].value) == "it *broke*"
        assert keyed(page.button, "retry") is not None

    def test_an_empty_collection_says_so(self, modules):
        SearchEngine.open(modules.F2LLMEncoder(), modules.load_settings().location, collection="void").close()
        page = at_page("compare", collection="void").run()
        assert "holds no documents" in page.info[0].value
        assert keyed(page.button, "curve") is None


def failing(self, query, **options):
    raise StoreError("it *broke*")


def html_and_markdown(app):
    return "\n".join([html_of(app), *(element.value for element in app.markdown)])


class TestTimes:
    """Of quick searches the fastest counts; slow ones are not repeated."""

    @pytest.mark.parametrize(("milliseconds", "searches"), [(1.0, 6), (500.0, 2)])
    def test_how_often_is_searched(self, page, monkeypatch, milliseconds, searches):
        import dataclasses

        from f2rag.types import Timings

        times, search = [], SearchEngine.search

        def timed(self, query, **options):
            times.append(milliseconds + len(times))
            found = search(self, query, **options)
            return dataclasses.replace(found, timings=Timings(encode_ms=times[-1], search_ms=0.5))

        monkeypatch.setattr(SearchEngine, "search", timed)
        page.run()
        ask(page, "red house")
        assert len(times) == searches
        assert rows_of(page)["Encode (fastest)"] == [f"{milliseconds:.0f} ms", f"{milliseconds + 1:.0f} ms"]


class TestCurve:
    def test_it_is_measured_on_demand_and_shared(self, page, modules):
        page.run()
        assert not page.success
        page.button(key="curve").click().run()
        assert not page.exception
        assert "per million vectors" in plain(page.success[0].value)
        (spec,) = [json.loads(element.proto.spec) for element in page.get("vega_lite_chart")]
        assert len(spec["layer"]) == 3
        assert "shorter vectors alone" in json.dumps(spec)
        assert any("40 of 40 documents" in caption.value for caption in page.caption)
        choices = next(element.proto.body for element in page.main.get("html") if "95 % interval" in element.proto.body)
        assert re.findall(r'<th scope="row">(\d+)</th>', choices) == ["8", "16", "32", "64", "128", "256"]
        another = at_page("compare").run()
        assert another.success[0].value == page.success[0].value

    def test_its_values_are_the_librarys(self, page, modules):
        page.run()
        page.button(key="curve").click().run()
        import jobs

        advice = jobs.find(f"curve:{modules.workspace().bundled}").wait()
        choices = next(element.proto.body for element in page.main.get("html") if "95 % interval" in element.proto.body)
        for choice in advice.choices:
            assert f'<td dir="auto">{choice.recall.mean:.3f}</td>' in choices
        assert 'class="f2-chosen"' in choices

    def test_progress_is_told_and_a_click_elsewhere_does_not_stop_it(self, page, monkeypatch):
        go_on, embed = threading.Event(), AppEncoder.embed_queries
        held = threading.Event()

        def slow(self, texts, **options):
            if len(texts) > 1:
                held.set()
                assert go_on.wait(90)
            return embed(self, texts, **options)

        page.run()
        monkeypatch.setattr(AppEncoder, "embed_queries", slow)
        import jobs

        thread = threading.Thread(target=page.button(key="curve").click().run, kwargs={"timeout": 90})
        thread.start()
        until(held.is_set, 90)

        def curves():
            return [job for key, job in dict(jobs.board()._jobs).items() if key.startswith("curve:")]

        until(curves, 90)  # a job is on the board a moment after it has begun
        (job,) = curves()
        assert job.running
        assert job.progress.words == "Reading documents"
        go_on.set()
        thread.join()
        assert job.progress.words.startswith("Timing the mode funnel")
        assert page.success

    def test_a_failure_is_told_beside_the_button(self, page, monkeypatch):
        page.run()

        def broken(engine, **options):
            raise StoreError("no *luck*")

        import f2rag.advice

        with monkeypatch.context() as patch:
            patch.setattr(f2rag.advice, "advise", broken)
            page.button(key="curve").click().run()
            assert plain(page.error[0].value) == "no *luck*"
        page.button(key="curve").click().run()
        assert not page.error
        assert page.success
