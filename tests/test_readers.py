"""Files become documents, lazily, and what is wrong in them is named with its line."""

from __future__ import annotations

import json
import os
import sys

import pytest

from f2rag.errors import DocumentError
from f2rag.readers import ReadOptions, Skipped, decode_lines, read_documents, read_file, read_lines
from f2rag.types import Document


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, name, content):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content, encoding="utf-8", newline="")
    return file


def read(*paths, **options):
    skipped = []
    root = options.pop("root", None)
    documents = list(read_documents(paths, root=root, options=ReadOptions(**options), on_skipped=skipped.append))
    return documents, skipped


def test_jsonl_rows(here):
    rows = [
        {"id": 7, "text": "un", "language": "fr", "topic": "numbers", "metadata": {"deep": [1]}},
        {"text": "two", "source": "https://example.org/2"},
    ]
    write(here, "rows.jsonl", "".join(json.dumps(row) + "\n\n" for row in rows))
    documents, skipped = read(here / "rows.jsonl", language="en")
    assert documents == [
        Document(
            text="un",
            id="7",
            language="fr",
            source="rows.jsonl",
            metadata={"topic": "numbers", "deep": [1], "row": 1},
        ),
        Document(text="two", language="en", source="https://example.org/2", metadata={"row": 3}),
    ]
    assert skipped == []


def test_fields_may_have_other_names(here):
    write(here, "rows.ndjson", '{"body": "text", "key": "a", "lang": "sw", "text": 3}\n')
    (document,), _ = read(here / "rows.ndjson", text_column="body", id_column="key", language_column="lang")
    assert (document.text, document.id, document.language) == ("text", "a", "sw")
    assert document.metadata == {"text": 3, "row": 1}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not valid JSON"),
        ('"text"', "holds a JSON str"),
        ("[1]", "holds a JSON list"),
        ('{"txt": "a"}', r"has no 'text'; it has 'txt'"),
        ("{}", "has no 'text'; it has nothing"),
        ('{"text": 3}', "has int in 'text'"),
        ('{"text": null}', "has NoneType in 'text'"),
        ('{"text": "a", "id": 1.5}', "has float in 'id'"),
        ('{"text": "a", "id": true}', "has bool in 'id'"),
        ('{"text": "a", "language": ["en"]}', "has list in 'language'"),
        ('{"text": "a", "score": NaN}', "NaN is not a JSON number"),
        ('{"text": "\\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_wrong_line_is_named(line, problem, here):
    write(here, "rows.jsonl", f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(DocumentError, match=rf"rows\.jsonl:2 .*{problem}|rows\.jsonl:2 {problem}"):
        read(here / "rows.jsonl")


def test_rows_come_before_a_later_line_is_read(here):
    write(here, "rows.jsonl", '{"text": "first"}\nbroken\n')
    stream = read_file(here / "rows.jsonl")
    assert next(stream).text == "first"
    with pytest.raises(DocumentError):
        next(stream)


def test_csv_rows(here):
    write(here, "rows.csv", '\ufeffid,text,language,year\r\na,"one,\r\ntwo",en,1948\r\n\r\nb,drei,,\r\n')
    documents, skipped = read(here / "rows.csv", language="de")
    assert documents == [
        Document(text="one,\r\ntwo", id="a", language="en", source="rows.csv", metadata={"year": "1948", "row": 2}),
        Document(text="drei", id="b", language="de", source="rows.csv", metadata={"row": 5}),
    ]
    assert skipped == []


def test_tsv_and_other_delimiters(here):
    write(here, "a.tsv", "title\ttext\none\tI\n")
    write(here, "b.csv", "title;text\ntwo;II\n")
    (first,), _ = read(here / "a.tsv")
    (second,), _ = read(here / "b.csv", delimiter=";")
    assert (first.text, first.metadata["title"]) == ("I", "one")
    assert (second.text, second.metadata["title"]) == ("II", "two")


def test_a_long_cell_is_read(here):
    text = "long " * 60_000  # over the csv module's own limit
    write(here, "rows.csv", f"text\n{text}\n")
    (document,), _ = read(here / "rows.csv")
    assert document.text == text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a,b\n1,2\n", r"rows\.csv has no column 'text'; its header names 'a', 'b'"),
        ("text,text\n1,2\n", "names a column twice"),
        ("text,b\n1\n", r"rows\.csv:2 has 1 cells; the header has 2"),
        ("text,b\n1,2\n1,2,3\n", r"rows\.csv:3 has 3 cells"),
        ('text\n"open\n', r"rows\.csv:2 is not valid CSV"),
        ('text\n"a"b\n', r"rows\.csv:2 is not valid CSV"),
    ],
)
def test_wrong_csv_is_named(content, problem, here):
    write(here, "rows.csv", content)
    with pytest.raises(DocumentError, match=problem):
        read(here / "rows.csv")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.txt", "rows.md"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_files_are_reported(name, content, here):
    write(here, name, content)
    if name == "rows.csv" and content == "\n \n":
        content = "text\n\n"
        write(here, name, content)
    assert read(here / name) == ([], [Skipped(name, "no text in it")])


def test_blank_rows_are_reported(here):
    write(here, "a.csv", "id,text\n1,\n2,here\n")
    write(here, "b.jsonl", '{"text": " "}\n{"text": "there"}\n')
    documents, skipped = read(here)
    assert [document.text for document in documents] == ["here", "there"]
    assert skipped == [Skipped("a.csv:2", "no text in 'text'"), Skipped("b.jsonl:1", "no text in 'text'")]


def test_text_files_are_one_document_with_the_text_as_it_is(here):
    write(here, "notes/a.md", "\ufeff# Title\r\n\r\nText.\r\n")
    (document,), _ = read(here / "notes", language="en")
    assert document == Document(text="# Title\r\n\r\nText.\r\n", id="notes/a.md", language="en", source="notes/a.md")


def test_folders_are_read_by_name_without_hidden_and_foreign_files(here):
    for name in (
        "b.txt",
        "a/z.TXT",
        "a/b/c.md",
        ".hidden.txt",
        ".git/config.txt",
        "a/.x/y.txt",
        "picture.png",
        "LICENSE",
    ):
        write(here, name, "text")
    documents, skipped = read(here)
    assert [document.source for document in documents] == ["b.txt", "a/z.TXT", "a/b/c.md"]
    assert skipped == [
        Skipped((here / "LICENSE").as_posix(), "no suffix is not read"),
        Skipped((here / "picture.png").as_posix(), ".png is not read"),
    ]


def test_sources_do_not_depend_on_how_a_path_is_written(here):
    write(here, "docs/a.txt", "text")
    ways = (here / "docs", here / "docs" / "a.txt", "docs", "./docs/../docs/a.txt")
    assert {document.source for way in ways for document in read(way)[0]} == {"docs/a.txt"}
    (document,), _ = read("docs", root=here / "docs")
    assert document.source == document.id == "a.txt"


def test_files_outside_the_root_keep_their_whole_path(here):
    file = write(here, "a.txt", "text")
    (document,), _ = read(file, root=here / "elsewhere")
    assert document.source == file.as_posix()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_linked_file_is_known_by_its_own_name(here):
    target = write(here, "outside/a.txt", "text")
    (here / "docs").mkdir()
    (here / "docs" / "b.txt").symlink_to(target)
    (document,), _ = read(here / "docs")
    assert document.source == "docs/b.txt"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Grüße\n".encode("latin-1"), r"a\.txt:1 is not UTF-8 text: byte 0xfc .*iconv"),
        (b"fine\n" + b"\x80", r"a\.txt:2 is not UTF-8"),
        ("text".encode("utf-16"), "is UTF-16 text.*iconv"),
        (b"\x7fELF\0\0", "is a binary file"),
    ],
)
def test_other_encodings_are_refused_with_advice(content, problem, here):
    write(here, "a.txt", content)
    with pytest.raises(DocumentError, match=problem):
        read(here / "a.txt")


def test_missing_and_unknown_files_are_refused(here):
    with pytest.raises(DocumentError, match=r"nothing\.txt does not exist"):
        read(here / "nothing.txt")
    with pytest.raises(DocumentError, match=r"nothing\.txt does not exist"):
        list(read_lines(here / "nothing.txt"))
    with pytest.raises(DocumentError, match=r"a\.odt cannot be read: expected .*\.jsonl"):
        read(write(here, "a.odt", "text"))
    (here / "folder.txt").mkdir()
    with pytest.raises(DocumentError, match=r"folder\.txt cannot be read"):
        list(read_file(here / "folder.txt"))


def test_a_folder_that_cannot_be_listed_is_named(here, monkeypatch):
    def walk(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(path)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(DocumentError, match="cannot be read: Permission denied"):
        read(here)


def test_lines_keep_their_ends():
    assert list(decode_lines([b"\xef\xbb\xbfa\r\n", b"b"], name="x")) == ["a\r\n", "b"]


def test_reading_twice_gives_the_same_documents(here):
    write(here, "a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    write(here, "b.txt", "three")
    first, second = read(here)[0], read(here)[0]
    assert first == second
    assert len({document.key for document in first}) == 3
