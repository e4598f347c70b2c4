"""Files, uploads and pasted texts are stored once, replaced when they change, and leave nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from made_files import lines, pdf, word

from f2rag.chunking import Chunker
from f2rag.device import DevicePlan
from f2rag.engine import SearchEngine
from f2rag.errors import DocumentError
from f2rag.ingestion import (
    WINDOW,
    WINDOW_CPU,
    Survey,
    ingest,
    ingest_text,
    ingest_uploads,
    remove_source,
    survey_files,
    survey_uploads,
    window_for,
)
from f2rag.readers import ReadOptions, Skipped, Upload
from f2rag.testing import FakeEncoder
from f2rag.types import Document


@pytest.fixture(scope="module")
def chunker(tiny):
    return Chunker(tiny / "tokenizer.json", chunk_tokens=60, overlap=0)


@pytest.fixture(params=["memory", "folder"])
def engine(request, tmp_path):
    """An empty collection in each home that needs no server."""
    location = ":memory:" if request.param == "memory" else tmp_path / "store"
    with SearchEngine.open(FakeEncoder(), location) as opened:
        yield opened


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def paragraphs(count):
    return "\n\n".join(f"Paragraph {number} of the text." for number in range(count))


def counts(report):
    return report.added, report.updated, report.unchanged, report.removed


def stored(engine):
    return {document.key: document.text for document in engine.store.documents()}


def upload(name, text):
    return Upload(name, text if isinstance(text, bytes) else text.encode())


def test_files_are_stored_and_again_changes_nothing(engine, chunker, here):
    write("docs/long.md", paragraphs(40))
    write("docs/rows.csv", "text,year\none,1948\n\ntwo,1950\n")
    write("docs/picture.png", "")
    progress = []
    report = ingest(
        engine,
        [here / "docs"],
        chunker=chunker,
        reading=ReadOptions(language="en"),
        window=8,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    total = engine.store.count()
    assert counts(report) == (total, 0, 0, 0)
    assert total > 10
    assert (report.files, report.total) == (2, total)
    assert report.skipped == (Skipped((here / "docs/picture.png").as_posix(), ".png is not read"),)
    assert progress == [(min(done, total), total) for done in range(8, total + 8, 8)]
    assert engine.store.facet("source") == {"docs/long.md": total - 2, "docs/rows.csv": 2}
    assert engine.store.languages() == {"en": total}
    calls = len(engine.encoder.document_calls)
    again = ingest(engine, [here / "docs"], chunker=chunker, reading=ReadOptions(language="en"))
    assert counts(again) == (0, 0, total, 0)
    assert len(engine.encoder.document_calls) == calls


@pytest.mark.parametrize(("before", "after"), [(40, 1), (40, 7), (1, 40), (7, 7)])
def test_a_changed_file_leaves_nothing_of_what_it_was(engine, chunker, here, before, after):
    write("other.md", paragraphs(40))
    ingest(engine, [Path("other.md")], chunker=chunker)
    other = stored(engine)
    write("a.md", paragraphs(before))
    ingest(engine, [Path("a.md")], chunker=chunker)
    write("a.md", paragraphs(after).replace("text", "story"))
    report = ingest(engine, [Path("a.md")], chunker=chunker)
    whole = "".join(text for key, text in stored(engine).items() if key not in other)
    assert whole.count("story") == after
    assert "text" not in whole
    assert other.items() <= stored(engine).items()
    assert (report.removed == 0) == (before == after)  # a single chunk is named otherwise than one of several


def test_rows_that_are_gone_are_removed_and_those_of_other_sources_are_not(engine, chunker, here):
    write("a.jsonl", '{"text": "one"}\n{"id": "2", "text": "two"}\n{"text": "mine", "source": "elsewhere"}\n')
    ingest(engine, [Path("a.jsonl")], chunker=chunker)
    write("a.jsonl", '{"text": "three"}\n{"text": "one"}\n')
    report = ingest(engine, [Path("a.jsonl")], chunker=chunker)
    assert (report.added, report.updated, report.removed) == (1, 1, 1)
    assert sorted(stored(engine).values()) == ["mine", "one", "three"]


def test_as_many_rows_of_another_source_hide_nothing(engine, chunker, here):
    write("a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    ingest(engine, [Path("a.jsonl")], chunker=chunker)
    write("a.jsonl", '{"text": "one"}\n{"text": "mine", "source": "elsewhere"}\n')
    assert ingest(engine, [Path("a.jsonl")], chunker=chunker).removed == 1
    assert sorted(stored(engine).values()) == ["mine", "one"]


def test_a_file_that_has_become_blank_leaves_nothing(engine, chunker, here):
    write("a/a.md", paragraphs(40))
    write("a/b.md", "text")
    ingest(engine, [Path("a")], chunker=chunker)
    write("a/a.md", " \n")
    report = ingest(engine, [Path("a")], chunker=chunker)
    assert report.removed > 1
    assert report.skipped == (Skipped("a/a.md", "no text in it"),)
    assert report.files == 1
    assert stored(engine) == {"a/b.md": "text"}


def test_pages_that_are_gone_are_removed(engine, chunker):
    content = pdf(lines("first page"), lines("second page"), lines("third page"))
    ingest_uploads(engine, [upload("a.pdf", content)], chunker=chunker)
    assert stored(engine) == {"a.pdf#page=1": "first page", "a.pdf#page=2": "second page", "a.pdf#page=3": "third page"}
    content = pdf(lines("first page"), lines(*(f"Line {number} of a page." for number in range(30))))
    report = ingest_uploads(engine, [upload("a.pdf", content)], chunker=chunker)
    assert report.removed == 2
    assert {key.partition("#page=")[2].partition("#")[0] for key in stored(engine)} == {"1", "2"}


def test_nothing_is_stored_when_a_file_is_wrong(engine, chunker, here):
    write("a.md", "fine")
    write("b.jsonl", "{")
    with pytest.raises(DocumentError, match=r"b\.jsonl:1"):
        ingest(engine, [Path("a.md"), Path("b.jsonl")], chunker=chunker)
    with pytest.raises(DocumentError, match=r"c\.md does not exist"):
        ingest(engine, [Path("a.md"), Path("c.md")], chunker=chunker)
    assert engine.store.count() == 0


def test_a_file_that_becomes_unreadable_keeps_what_is_stored(engine, chunker, here):
    write("a/b.md", "more")
    Path("a/a.docx").write_bytes(word(lambda file: file.add_paragraph("text")))
    ingest(engine, [Path("a")], chunker=chunker)
    survey = survey_files([Path("a")], chunker=chunker)
    Path("a/a.docx").write_bytes(b"half")
    report = survey.store(engine)
    assert counts(report) == (0, 0, 1, 0)
    assert [one.where for one in report.skipped] == ["a/a.docx"]
    assert stored(engine) == {"a/a.docx": "text", "a/b.md": "more"}
    assert counts(ingest(engine, [Path("a")], chunker=chunker)) == (0, 0, 1, 0)
    survey = survey_files([Path("a/b.md")], chunker=chunker)
    Path("a/b.md").write_bytes(b"\xff")
    with pytest.raises(DocumentError, match="is not UTF-8"):
        survey.store(engine)
    assert stored(engine) == {"a/a.docx": "text", "a/b.md": "more"}


def test_a_survey_counts_before_anything_is_stored(chunker, here):
    write("a/a.md", paragraphs(40))
    write("a/b.md", "")
    survey = survey_files([Path("a")], chunker=chunker, root=here / "a")
    assert survey.chunks == len(chunker.split(paragraphs(40)))
    assert survey.files == 1
    assert survey.skipped == (Skipped("b.md", "no text in it"),)
    assert [given.source for given in survey.inputs] == ["a.md", "b.md"]
    assert survey_uploads([], chunker=chunker) == Survey(
        chunks=0, files=0, skipped=(), inputs=(), chunker=chunker, reading=ReadOptions(rows_by_file=True)
    )


def test_a_file_that_is_given_twice_counts_once(engine, chunker, here):
    write("a.md", paragraphs(40))
    once = ingest(engine, [Path("a.md")], chunker=chunker)
    twice = ingest(engine, [Path("a.md"), Path()], chunker=chunker)
    assert counts(twice) == (0, 0, 2 * once.added, 0)
    assert twice.files == 1


# -- uploads and pasted texts


def test_uploads_are_stored_replaced_found_and_removed(engine, chunker):
    files = [upload("C:\\mine\\доклад.md", paragraphs(30)), upload("rows.csv", "id,text\n1,one\n2,two\n")]
    report = ingest_uploads(engine, files, chunker=chunker, reading=ReadOptions(language="en"))
    total = engine.store.count()
    assert counts(report) == (total, 0, 0, 0)
    assert (report.files, report.skipped) == (2, ())
    assert counts(ingest_uploads(engine, files, chunker=chunker, reading=ReadOptions(language="en"))) == (
        0,
        0,
        total,
        0,
    )
    assert engine.store.facet("source") == {"доклад.md": total - 2, "rows.csv": 2}
    hit = engine.search("Paragraph 17", limit=1, mode="exact").hits[0]
    assert (hit.source, hit.language) == ("доклад.md", "en")
    changed = ingest_uploads(engine, [upload("rows.csv", "id,text\n2,zwei\n")], chunker=chunker)
    assert counts(changed) == (0, 1, 0, 1)
    assert remove_source(engine.store, "доклад.md") == total - 2
    assert stored(engine) == {"rows.csv#2": "zwei"}
    assert remove_source(engine.store, "доклад.md") == 0


def test_rows_of_one_upload_never_replace_those_of_another(engine, chunker):
    rows = "id,text,source\n1,one,https://example.org\n"
    ingest_uploads(engine, [upload("a.csv", rows), upload("b.csv", rows.replace("one", "other"))], chunker=chunker)
    assert stored(engine) == {"a.csv#1": "one", "b.csv#1": "other"}
    assert remove_source(engine.store, "a.csv") == 1
    (left,) = engine.store.documents()
    assert (left.source, left.metadata["origin"]) == ("b.csv", "https://example.org")


def test_unreadable_uploads_are_skipped_and_the_others_go_on(engine, chunker):
    files = [
        upload("a.exe", ""),
        upload("..", ""),
        upload("b.txt", b"fine\n\xff"),
        upload("c.pdf", "no pdf"),
        upload("d.docx", pdf(lines("text"))),
        upload("e.jsonl", '{"text": "half of it"}\n{'),
        upload("f.md", "text"),
        upload("folder/f.md", "another"),
        upload("g.md", " "),
    ]
    report = ingest_uploads(engine, files, chunker=chunker)
    assert stored(engine) == {"f.md": "text"}
    assert report.files == 1
    reasons = {one.where: one.reason for one in report.skipped}
    assert list(reasons) == ["a.exe", "..", "f.md", "b.txt", "c.pdf", "d.docx", "e.jsonl", "g.md"]
    assert reasons["a.exe"].startswith("cannot be read: expected a file named .csv")
    assert reasons["b.txt"].startswith("line 2 is not UTF-8 text")
    assert reasons["c.pdf"].startswith("is no PDF under the name of one")
    assert reasons["f.md"].startswith("another file of this name")
    assert reasons["g.md"] == "no text in it"
    nothing = ingest_uploads(engine, files[:1], chunker=chunker)
    assert (counts(nothing), nothing.files) == ((0, 0, 0, 0), 0)


def test_pasted_texts_are_known_by_their_title(engine, chunker):
    report = ingest_text(engine, paragraphs(30), title="Notes / 1", chunker=chunker, language="en")
    assert report.added == engine.store.count() == engine.store.facet("source")["Notes / 1"]
    report = ingest_text(engine, "short", title="Notes / 1", chunker=chunker, language="fr")
    assert [dataclasses.replace(each, metadata={}) for each in engine.store.documents()] == [
        Document(text="short", id="Notes / 1", language="fr", source="Notes / 1")
    ]
    assert report.removed > 1
    for text, title in (("", "Title"), (" \n", "Title"), ("text", " "), ("\ud800", "Title")):
        with pytest.raises(DocumentError):
            ingest_text(engine, text, title=title, chunker=chunker)


def test_sources_are_matched_whole(engine, chunker):
    names = ("a.md", "dir a.md", "a.md.md", "A.md", "*.md")
    ingest_uploads(engine, [upload(name, name) for name in names], chunker=chunker)
    assert remove_source(engine.store, "a.md") == 1
    assert set(stored(engine)) == set(names) - {"a.md"}


def test_the_window_suits_the_device():
    encoder = FakeEncoder()
    assert window_for(encoder) == WINDOW_CPU
    for device, window in {"cuda": WINDOW, "cpu": WINDOW_CPU, "cuda:0,cuda:1": WINDOW, "cpu,cpu": WINDOW_CPU}.items():
        encoder.device_plan = DevicePlan(device=device, dtype="float32", token_budget=1024, reason="test")
        assert window_for(encoder) == window


def test_the_real_encoder_says_its_device(tiny):
    from f2rag.encoder import F2LLMEncoder

    with F2LLMEncoder(str(tiny), device="cpu") as encoder:
        assert encoder.device_plan.device == "cpu"
        assert window_for(encoder) == WINDOW_CPU
