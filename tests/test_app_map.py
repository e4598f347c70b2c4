"""The app's map: what is drawn, where the question falls, what is said of it, and each of the page's states."""

from __future__ import annotations

import json
import threading

import numpy as np
import pyarrow as pa
import pytest
import streamlit as st
from app_fixtures import ARABIC, CORPUS, EVIL, at_page, plain

from f2rag import Document, project
from f2rag.errors import StoreError

OTHERS = "all others"


def at_map(**address):
    return at_page("map", **address)


def chart_of(app):
    (chart,) = app.get("vega_lite_chart")
    return chart.proto


def layers_of(app):
    """The chart's layers with their rows: documents, rings, star."""
    spec = json.loads(chart_of(app).spec)
    rows = {each.name: pa.ipc.open_stream(each.data.data).read_all().to_pylist() for each in chart_of(app).datasets}
    return [{**layer, "rows": rows[layer.get("data", spec.get("data"))["name"]]} for layer in spec["layer"]]


def places_of(layer):
    return np.array([[row["x"], row["y"]] for row in layer["rows"]])


def captions_of(app):
    return " ".join(caption.value for caption in app.caption)


def many(languages, *, each=1):
    return [
        Document(text=f"text {number} in {language}", language=language, source=f"file {number}.txt")
        for language in languages
        for number in range(each)
    ]


@pytest.fixture
def projections(monkeypatch):
    """Counts how often a map is computed."""
    calls = []

    def counted(store, **options):
        calls.append(store.collection)
        return project(store, **options)

    monkeypatch.setattr("f2rag.projection.project", counted)
    return calls


def test_every_document_is_where_its_vector_puts_it(modules):
    app = at_map().run()
    assert not app.exception
    assert not app.error
    (documents,) = layers_of(app)
    expected = project(modules.workspace().engine(modules.workspace().bundled).store)
    there = {document.text: place for document, place in zip(expected.documents, expected.coordinates, strict=True)}
    assert len(documents["rows"]) == len(CORPUS)
    for row in documents["rows"]:
        (text,) = [text for text in there if " ".join(text.split()).startswith(row["text"].rstrip("…"))]
        assert (row["x"], row["y"]) == pytest.approx(there[text].tolist(), abs=1e-6)


def test_the_question_is_a_star_and_its_hits_are_ringed(modules):
    app = at_map(q="held in slavery").run()
    documents, rings, star = layers_of(app)
    engine = modules.workspace().engine(modules.workspace().bundled)
    place = project(engine.store).place(engine.encoder.embed_query("held in slavery"))[0]
    assert places_of(star)[0] == pytest.approx(place.tolist(), abs=1e-6)
    assert star["rows"][0]["question"] == "held in slavery"
    hits = engine.search("held in slavery").hits
    assert [row["rank"] for row in rings["rows"]] == [1, 2, 3, 4]
    assert [row["text"][:10] for row in rings["rows"]] == [hit.text[:10] for hit in hits]
    on_map = {row["text"]: (row["x"], row["y"]) for row in documents["rows"]}
    for row in rings["rows"]:
        assert (row["x"], row["y"]) == pytest.approx(on_map[row["text"]], abs=1e-5)
    assert "its best hits" in captions_of(app)
    assert "all 256 dimensions" in captions_of(app)


def test_without_a_question_there_is_neither_star_nor_ring(modules):
    app = at_map(q="   ").run()
    assert len(layers_of(app)) == 1
    assert "star" not in captions_of(app)


def test_a_question_can_be_typed_here(modules):
    app = at_map().run()
    app.text_input(key="q").set_value("slavery").run()
    assert len(layers_of(app)) == 3


def test_a_hit_outside_the_sample_is_on_the_map_as_well(modules, monkeypatch):
    def few(store, *, sample, on_progress):
        assert sample == 5_000
        return project(store, sample=2, on_progress=on_progress)

    monkeypatch.setattr("f2rag.projection.project", few)
    app = at_map(q="held in slavery").run()
    documents, rings, _ = layers_of(app)
    assert len(documents["rows"]) == 2
    assert len(rings["rows"]) == len(CORPUS)
    assert "one of 2 documents, a sample of all 4;" in captions_of(app)


def test_the_share_that_the_map_shows_is_said(modules):
    app = at_map().run()
    share = sum(project(modules.workspace().engine(modules.workspace().bundled).store).explained)
    assert f"The map shows {share:.0%} of what" in captions_of(app)
    assert "a sample" not in captions_of(app)


def test_markup_in_a_document_is_data_and_no_markup(modules):
    app = at_map(q="evil").run()
    documents, rings, _ = layers_of(app)
    assert EVIL in [row["text"] for row in documents["rows"]]
    assert ARABIC in [row["text"] for row in documents["rows"]]
    for layer in (documents, rings):
        assert "url" not in layer["encoding"]
        assert "href" not in layer["encoding"]
        # The tooltip sets "title" and "image" apart, and fetches what "image" names.
        titles = [shown["title"] for shown in layer["encoding"]["tooltip"]]
        assert titles[-3:] == ["Text", "Language", "Source"]
    assert "tooltip" not in json.loads(chart_of(app).spec)["usermeta"]["embedOptions"]


def test_a_long_text_is_shortened(modules, monkeypatch):
    monkeypatch.setattr(modules, "load_udhr", lambda languages: [Document(text="word\n " * 500)])
    (documents,) = layers_of(at_map().run())
    text = documents["rows"][0]["text"]
    assert text.endswith("word…")
    assert len(text) <= 201
    assert "\n" not in text


def test_colours_stand_for_languages_or_for_sources(modules):
    app = at_map().run()
    (documents,) = layers_of(app)
    names = documents["encoding"]["color"]["scale"]["domain"]
    assert {"English", "\u2068Français\u2069 · French"} <= set(names)
    assert {row["group"] for row in documents["rows"]} == set(names)
    (documents,) = layers_of(at_map(colour="source").run())
    assert documents["encoding"]["color"]["scale"]["domain"][0] == "Universal Declaration of Human Rights"
    app.segmented_control(key="colour").set_value("source").run()
    (documents,) = layers_of(app)
    assert "<b>source</b>" in documents["encoding"]["color"]["scale"]["domain"]


def test_the_legend_has_twenty_entries_at_most_and_each_looks_different(modules, monkeypatch):
    rare = [f"x{chr(ord('a') + number)}" for number in range(24)]
    corpus = [*many(["en", "ko"]), *many(["de"], each=3), *many(rare)]
    monkeypatch.setattr(modules, "load_udhr", lambda languages: corpus)
    (documents,) = layers_of(at_map().run())
    colour, shape = (documents["encoding"][channel]["scale"] for channel in ("color", "shape"))
    assert colour["domain"] == shape["domain"]
    assert len(colour["domain"]) == 20
    # The most frequent first; of equals the widely read ones.
    assert colour["domain"][:3] == ["\u2068Deutsch\u2069 · German", "English", "\u2068한국어\u2069 · Korean"]
    assert colour["domain"][-1] == OTHERS
    assert len(set(zip(colour["range"], shape["range"], strict=True))) == 20
    assert {row["group"] for row in documents["rows"]} == set(colour["domain"])
    # Greys lie behind.
    others = [row["group"] == OTHERS for row in documents["rows"]]
    assert others == sorted(others, reverse=True)
    assert sum(others) == len(rare) - 16


def test_twenty_languages_need_no_grey_when_nineteen_have_a_colour(modules, monkeypatch):
    monkeypatch.setattr(modules, "load_udhr", lambda languages: many([f"x{number}" for number in range(19)]))
    (documents,) = layers_of(at_map().run())
    assert OTHERS not in documents["encoding"]["color"]["scale"]["domain"]
    assert len(documents["encoding"]["color"]["scale"]["range"]) == 19


def test_a_document_of_no_language_is_named_so(modules, monkeypatch):
    monkeypatch.setattr(modules, "load_udhr", lambda languages: [Document(text="one"), Document(text="two")])
    (documents,) = layers_of(at_map().run())
    assert documents["encoding"]["color"]["scale"]["domain"] == ["no language given"]
    assert documents["rows"][0]["source"] == "no source given"


def test_a_map_is_computed_once_for_each_state_of_a_collection(modules, projections):
    app = at_map().run()
    app.text_input(key="q").set_value("slavery").run()
    at_map(q="another session").run()
    assert len(projections) == 1
    space = modules.workspace()
    space.engine(space.bundled).index([Document(text="something new", language="en")])
    app.run()
    assert len(projections) == 2
    documents, *_ = layers_of(app)
    assert len(documents["rows"]) == len(CORPUS) + 1


def test_an_empty_collection_is_said(modules):
    modules.workspace().engine("empty", create=True)
    app = at_map(collection="empty").run()
    assert "no documents yet" in app.info[0].value
    assert not app.exception
    assert not app.get("vega_lite_chart")


def test_an_error_is_told_in_the_librarys_words_and_passes(modules, monkeypatch):
    def fail(store, **options):
        raise StoreError("The *disk* is on fire. Put it out.")

    with monkeypatch.context() as broken:
        broken.setattr("f2rag.projection.project", fail)
        app = at_map().run()
        assert not app.exception
        assert plain(app.error[0].value) == "The *disk* is on fire. Put it out."
    app.button(key="retry").click().run()
    assert not app.error
    assert len(layers_of(app)) == 1


def test_progress_is_shown_while_the_map_is_made(modules, monkeypatch):
    seen, words = threading.Event(), []

    def slow(store, **options):
        assert seen.wait(10)
        return project(store, **options)

    def progress(self, value, text=None, **options):
        words.append(text)
        if text and text.startswith("Making the map"):
            seen.set()

    monkeypatch.setattr("f2rag.projection.project", slow)
    monkeypatch.setattr(st.delta_generator.DeltaGenerator, "progress", progress)
    app = at_map().run()
    assert "Making the map: 0 of 4 documents" in words
    assert len(layers_of(app)) == 1


def test_who_cannot_see_the_map_is_told_what_it_shows(modules):
    app = at_map(q="slavery").run()
    assert "Map of 4 documents" in chart_of(app).alt
    assert "rings its best hits" in chart_of(app).alt
