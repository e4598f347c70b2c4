"""The app's documents page: uploads and pasted text, what the collections hold, and how something is deleted."""

from __future__ import annotations

import threading

import pytest
import streamlit as st
from app_fixtures import CORPUS, AppEncoder, at_page, html_of, keyed, plain, until

from f2rag import Document
from f2rag.demo import STAND_IN
from f2rag.errors import StoreError
from f2rag.models import resolve
from f2rag.store import QdrantStore
from f2rag.testing import FakeEncoder

NOTES = ("notes.txt", b"invoices are paid on the last day of the month", "text/plain")
LONG = "\n\n".join(f"Paragraph {number} says that rule {number} holds for everybody." for number in range(40))


@pytest.fixture
def space(modules, monkeypatch):
    """The workspace that the sessions share."""
    folder = resolve(STAND_IN).folder
    monkeypatch.setattr(AppEncoder, "tokenizer_file", lambda self: folder / "tokenizer.json", raising=False)
    return modules.workspace()


@pytest.fixture
def app(space):
    """A browser on the page."""
    return at_page("documents").run()


def index(app, *files, target="notes"):
    app.file_uploader(key="upload").set_value(list(files))
    type_into(app.selectbox(key="target"), target)
    return app.button(key="index").click().run()


def paste(app, text, *, title, language=None, target="notes"):
    app.text_input(key="paste_title").set_value(title)
    app.text_area(key="paste").set_value(text)
    app.selectbox(key="paste_language").set_value(language)
    type_into(app.selectbox(key="target"), target)
    return app.button(key="index").click().run()


def type_into(box, value):
    """Type what may not be among the options; the test framework knows those alone."""
    if value not in box.options:
        box.options.append(value)
    box.set_value(value)


def said(elements):
    return [plain(element.value).replace("\u2068", "").replace("\u2069", "") for element in elements]


def counts_of(app):
    """What the report says, by word."""
    (told,) = [line for line in said(app.success) if line.startswith("Indexed")]
    return {word: int(number) for number, word in (part.split() for part in told.split("Chunks: ")[1][:-1].split(", "))}


def sources_of(app):
    """The sources that are listed."""
    import resources

    there = resources.workspace().engine(app.session_state.collection).store.facet("source")
    return [text for text in said(app.main.markdown) if text in there]


def stored(space, name="notes"):
    return sorted(space.engine(name).store.documents(), key=lambda document: document.key)


def test_an_upload_is_indexed_reported_and_found(app, space):
    index(app, NOTES)
    assert not app.exception
    assert not app.error
    assert counts_of(app) == {"added": 1, "updated": 0, "unchanged": 0, "removed": 0}
    assert app.selectbox(key="collection").value == "notes"
    assert sources_of(app) == ["notes.txt"]
    assert "1 chunk" in said(app.caption)
    (hit,) = space.engine("notes").search("when are invoices paid").hits
    assert (hit.text, hit.source) == (NOTES[1].decode(), "notes.txt")


def test_a_new_collection_stores_every_size_and_words(app, space):
    index(app, NOTES)
    assert space.engine("notes").store.layout == space.layout()
    assert space.layout().levels == (64, 128)


def test_uploading_again_changes_nothing(app, space):
    index(app, NOTES)
    before = stored(space)
    index(app, NOTES)
    assert counts_of(app) == {"added": 0, "updated": 0, "unchanged": 1, "removed": 0}
    assert stored(space) == before


def test_a_changed_file_replaces_what_it_was(app, space):
    app.number_input(key="chunk_tokens").set_value(64)
    app.number_input(key="overlap").set_value(0)
    index(app, ("rules.md", LONG.encode(), "text/markdown"))
    many = counts_of(app)["added"]
    assert many > 3
    index(app, ("rules.md", b"There are no rules any more.", "text/markdown"))
    assert counts_of(app)["removed"] >= many - 1
    assert [document.text for document in stored(space)] == ["There are no rules any more."]


def test_chunks_are_as_long_as_the_form_says(app, space):
    app.number_input(key="chunk_tokens").set_value(32)
    app.number_input(key="overlap").set_value(0)
    index(app, ("rules.md", LONG.encode(), "text/markdown"), target="short")
    app.number_input(key="chunk_tokens").set_value(512)
    index(app, ("rules.md", LONG.encode(), "text/markdown"), target="long")
    assert space.engine("short").store.count() > 2 * space.engine("long").store.count()


def test_an_upload_can_have_a_language_and_rows_name_theirs(app, space):
    app.selectbox(key="upload_language").set_value("fr")
    app.text_input(key="text_column").set_value("body")
    rows = ("rows.csv", b"body,language\nhallo Welt,de\nbonjour,\n", "text/csv")
    index(app, rows, NOTES)
    assert {document.text: document.language for document in stored(space)} == {
        "hallo Welt": "de",
        "bonjour": "fr",
        NOTES[1].decode(): "fr",
    }


def test_a_pasted_text_is_known_by_its_title(app, space):
    paste(app, "مدة العقد سنة واحدة.", title="عقد", language="ar")
    assert counts_of(app)["added"] == 1
    (document,) = stored(space)
    assert (document.source, document.language, document.text) == ("عقد", "ar", "مدة العقد سنة واحدة.")
    paste(app, "مدة العقد سنتان.", title="عقد", language="ar")
    assert [document.text for document in stored(space)] == ["مدة العقد سنتان."]


def test_files_and_a_text_can_go_in_together(app, space):
    app.file_uploader(key="upload").set_value([NOTES])
    paste(app, "a pasted text", title="pasted")
    assert counts_of(app)["added"] == 2
    assert sorted(document.source for document in stored(space)) == ["notes.txt", "pasted"]


def test_what_cannot_be_read_is_named_with_its_reason_and_the_rest_goes_on(app, space):
    index(app, ("broken.pdf", b"no pdf", "application/pdf"), NOTES, ("blank.txt", b"  \n", "text/plain"))
    assert counts_of(app)["added"] == 1
    (skipped,) = [text for text in said(app.warning) if "skipped" in text]
    assert skipped.startswith("2 skipped:")
    assert "broken.pdf: is no PDF" in skipped
    assert "blank.txt: no text in it" in skipped
    assert [document.source for document in stored(space)] == ["notes.txt"]


def test_no_collection_is_made_for_nothing(app, space):
    index(app, ("broken.pdf", b"no pdf", "application/pdf"))
    assert "Nothing was indexed." in said(app.warning)
    assert any("broken.pdf: is no PDF" in text for text in said(app.warning))
    assert [entry.name for entry in space.collections()] == [space.bundled]
    assert not app.success


def test_what_lacks_is_said_before_anything_is_done(app, space):
    app.button(key="index").click().run()
    assert "Choose files or paste a text first." in said(app.warning)
    app.text_area(key="paste").set_value("a text").run()
    app.button(key="index").click().run()
    assert any(text.startswith("Give the text a title") for text in said(app.warning))
    app.text_input(key="paste_title").set_value("title").run()
    app.button(key="index").click().run()
    assert any(text.startswith("Choose a collection") for text in said(app.warning))
    assert [entry.name for entry in space.collections()] == [space.bundled]


def test_the_bundled_corpus_is_read_only(app, space):
    assert app.button(key="index")
    assert keyed(app.button, "delete-0") is None
    assert any("can only be read" in text for text in said(app.caption))
    for name in (space.bundled, "Universal Declaration of Human Rights"):
        index(app, NOTES, target=name)
        assert any("can only be read" in text for text in said(app.warning))
    assert space.engine(space.bundled).store.count() == len(CORPUS)
    assert space.bundled not in app.selectbox(key="target").options


@pytest.mark.parametrize(
    ("target", "tokens", "overlap", "message"),
    [("no/name", 512, 64, "name"), ("notes", 64, 64, "overlap=64 was given with chunk_tokens=64")],
)
def test_what_the_library_refuses_is_told_in_its_words(app, target, tokens, overlap, message):
    app.number_input(key="chunk_tokens").set_value(tokens)
    app.number_input(key="overlap").set_value(overlap)
    index(app, NOTES, target=target)
    assert not app.exception
    assert message in said(app.error)[0]
    assert not app.success
    app.number_input(key="overlap").set_value(0)
    index(app, NOTES)
    assert not app.error
    assert counts_of(app)["added"] == 1


def test_a_source_is_deleted_after_a_second_click(app, space):
    index(app, ("first.txt", b"one", "text/plain"), ("second.txt", b"two", "text/plain"))
    app.button(key="delete-0").click().run()
    assert "Delete all of first.txt for good?" in said(app.markdown)
    assert len(stored(space)) == 2
    app.button(key="keep-0").click().run()
    assert keyed(app.button, "confirm-0") is None
    app.button(key="delete-0").click().run()
    app.button(key="confirm-0").click().run()
    assert not app.exception
    assert "Deleted first.txt: 1 chunk." in said(app.success)
    assert [document.source for document in stored(space)] == ["second.txt"]
    assert sources_of(app) == ["second.txt"]
    assert ">1 document<" in html_of(app)
    assert keyed(app.button, "confirm-0") is None


def test_a_click_deletes_what_it_showed_also_when_the_list_has_changed(app, space):
    index(
        app,
        ("first.txt", b"one", "text/plain"),
        ("second.txt", b"two", "text/plain"),
        ("third.txt", b"3", "text/plain"),
    )
    app.button(key="delete-1").click().run()
    space.engine("notes").store.delete([document.key for document in stored(space) if document.source == "first.txt"])
    app.button(key="confirm-1").click().run()
    assert [document.source for document in stored(space)] == ["third.txt"]


def test_a_whole_file_goes_and_not_one_of_its_chunks_stays(app, space):
    app.number_input(key="chunk_tokens").set_value(32)
    app.number_input(key="overlap").set_value(0)
    index(app, ("rules.md", LONG.encode(), "text/markdown"), NOTES)
    app.button(key="delete-0").click().run()
    app.button(key="confirm-0").click().run()
    assert [document.source for document in stored(space)] == ["notes.txt"]


def test_markup_in_a_name_is_shown_as_text(app, space):
    name = "<img src=x onerror=alert(1)> *b*.md"
    index(app, (name, b"a text", "text/markdown"))
    assert sources_of(app) == [name]
    for element in (*app.markdown, *app.success, *app.warning, *app.caption):
        assert "<img" not in element.value.replace("\\<", "")
    assert not any(element.proto.allow_html for element in (*app.markdown, *app.caption))
    assert "<img" not in html_of(app)


def test_many_sources_are_found_by_name(app, space):
    space.engine("notes", create=True).index(
        [Document(text=f"text {number}", source=f"Datei {number:03}.txt") for number in range(120)]
    )
    session = at_page("documents", collection="notes").run()
    assert len(sources_of(session)) == 50
    assert "The 50 of 120 with the most chunks." in said(session.caption)
    session.text_input(key="find_source").set_value("DATEI 11").run()
    assert sources_of(session) == [f"Datei {number:03}.txt" for number in range(110, 120)]
    session.text_input(key="find_source").set_value("nowhere").run()
    assert "No source has that in its name." in said(session.info)


def test_chunks_of_no_source_are_counted(app, space):
    space.engine("notes", create=True).index([Document(text="one"), Document(text="two", source="b.txt")])
    session = at_page("documents", collection="notes").run()
    assert sources_of(session) == ["b.txt"]
    assert any(text.startswith("No source: 1 chunk,") for text in said(session.caption))


def test_an_empty_collection_is_said(app, space):
    space.engine("notes", create=True)
    session = at_page("documents", collection="notes").run()
    assert "This collection holds no documents yet." in said(session.info)


def test_collections_are_listed_with_their_contract(app, space):
    assert f"{len(CORPUS)} documents" in html_of(app)
    for fact in ("fake", "revision fake-1", "256 of 256 dimensions", "levels 64, 128", "not compressed", "with words"):
        assert f">{fact}<" in html_of(app)


def test_a_collection_of_another_model_is_listed_with_the_reason_and_refused(space, tmp_path):
    other = FakeEncoder(model_name="other", dimensions=64)
    space.close()
    with QdrantStore.open(tmp_path / "store", collection="theirs", contract=other.contract()) as store:
        store.upsert([Document(text="a", source="a")], other.embed_documents(["a"]))
    st.cache_resource.clear()
    app = at_page("documents").run()
    (problem,) = [text for text in said(app.warning) if "cannot be compared" in text]
    assert "stored 'other', given 'fake'" in problem
    assert "f2rag reindex" in problem
    assert "theirs" not in app.selectbox(key="target").options
    index(app, NOTES, target="theirs")
    assert len([text for text in said(app.warning) if "cannot be compared" in text]) == 2
    assert not app.success


def test_a_collection_is_deleted_only_by_its_name(app, space):
    index(app, NOTES)
    app.text_input(key="drop-name-1").set_value("note")
    app.button(key="drop-1").click().run()
    assert "That is not its name. Nothing was deleted." in said(app.error)
    assert [entry.name for entry in space.collections()] == [space.bundled, "notes"]
    app.text_input(key="drop-name-1").set_value("notes")
    app.button(key="drop-1").click().run()
    assert not app.exception
    assert not app.error
    assert "Deleted the collection notes." in said(app.success)
    assert [entry.name for entry in space.collections()] == [space.bundled]
    assert app.selectbox(key="collection").value == space.bundled
    assert keyed(app.button, "drop-0") is None  # the bundled corpus


def test_a_collection_that_was_set_and_is_not_there_yet_is_the_target(modules, monkeypatch, space):
    monkeypatch.setenv("F2RAG_COLLECTION", "mine")
    st.cache_resource.clear()
    app = at_page("documents").run()
    assert not app.exception
    assert any("There is no collection 'mine'" in text for text in said(app.info))
    assert app.selectbox(key="target").value == "mine"
    index(app, NOTES, target="mine")
    assert sources_of(app) == ["notes.txt"]


def test_a_store_that_fails_is_told_beside_everything_else_and_passes(app, space, monkeypatch):
    def fail(self, field, **options):
        raise StoreError("The *disk* is on fire. Put it out.")

    with monkeypatch.context() as broken:
        broken.setattr(QdrantStore, "facet", fail)
        app.run()
        assert not app.exception
        assert said(app.error) == ["The *disk* is on fire. Put it out."]
        assert app.button(key="index")
        assert "levels 64, 128" in html_of(app)
    app.button(key="retry").click().run()
    assert not app.error


def test_progress_is_shown_and_a_second_click_watches_the_same_job(app, space, monkeypatch):
    seen, words = threading.Event(), []
    embed = AppEncoder.embed_documents

    def slow(self, texts, **options):
        assert seen.wait(10)
        return embed(self, texts, **options)

    def progress(self, value, text=None, **options):
        words.append(text)
        if text and text.startswith("Indexing: 0 of"):
            seen.set()

    monkeypatch.setattr(AppEncoder, "embed_documents", slow)
    monkeypatch.setattr(st.delta_generator.DeltaGenerator, "progress", progress)
    index(app, NOTES)
    assert "Indexing: 0 of 1 chunks" in words
    assert counts_of(app)["added"] == 1


def test_who_leaves_does_not_stop_the_work_and_the_files_are_let_go(app, space, monkeypatch):
    import jobs

    go_on, started = threading.Event(), threading.Event()
    embed = AppEncoder.embed_documents

    def slow(self, texts, **options):
        started.set()
        assert go_on.wait(10)
        return embed(self, texts, **options)

    def leave(self, value, text=None, **options):
        if started.is_set():
            st.switch_page("app_pages/about.py")

    monkeypatch.setattr(AppEncoder, "embed_documents", slow)
    with monkeypatch.context() as left:
        left.setattr(st.delta_generator.DeltaGenerator, "progress", leave)
        index(app, NOTES)
    (key,) = [key for key in jobs.board()._jobs if key.startswith("ingest:")]
    assert jobs.find(key).running
    go_on.set()
    until(lambda: jobs.find(key) is None)
    assert [document.source for document in stored(space)] == ["notes.txt"]
    app.switch_page("app_pages/documents.py").run()
    assert counts_of(app)["added"] == 1
    assert "ingestion" not in app.session_state


def test_after_an_upload_the_map_is_made_anew(app, space):
    import jobs

    index(app, NOTES)
    at_page("map", collection="notes").run()
    assert jobs.find("map:notes") is not None
    index(app, ("notes.txt", b"another text under the same name", "text/plain"))
    assert counts_of(app)["updated"] == 1
    assert jobs.find("map:notes") is None
