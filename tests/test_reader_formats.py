"""HTML, PDF and Word become documents, uploads are read like files, and hostile files are refused with a reason."""

from __future__ import annotations

import io
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from docx.oxml import parse_xml
from made_files import lines, package, pdf, word

import f2rag.readers.docx
import f2rag.readers.html
import f2rag.readers.pdf
from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers import (
    SUFFIXES,
    ReadOptions,
    Skipped,
    read_documents,
    read_file,
    read_upload,
    safe_name,
    text_input,
)
from f2rag.types import Document

ROOT = Path(__file__).parent.parent
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def upload(name, content, **options):
    skipped = []
    content = content if isinstance(content, bytes) else content.encode()
    documents = list(read_upload(name, content, options=ReadOptions(**options), on_skipped=skipped.append))
    return documents, skipped


def text_of(name, content):
    (document,), skipped = upload(name, content)
    assert skipped == []
    return document.text


# -- HTML


PAGE = """<!doctype html>
<html lang="fr-CA"><head><title> Les  droits
de l’homme </title><style>p { color: red }</style><script>var secret = "</p>";</script></head>
<body>
<!-- a remark -->
<nav><ul><li>Accueil</li><li>Texte</li></ul></nav>
<h1>Déclaration</h1><p>Tous les <b>êtres</b> hu<i>mains</i>
naissent&nbsp;libres.<br>Et égaux &amp; dignes &lt;b&gt;.</p><div>Un<div>Deux</div>Trois</div>
<p hidden>caché</p><p style="display: none">caché</p><template><p>caché</p></template><noscript>caché</noscript>
<svg><text>caché</text></svg> après<script>caché()</script> cela
<pre>a  b
  c</pre><ruby>漢<rt>かん</rt>字<rt>じ</rt></ruby>inter&shy;national
</body></html>"""


def test_html_is_what_a_reader_sees_by_paragraphs():
    (document,), skipped = upload("droits.html", PAGE, language="en")
    assert document == Document(
        text="Accueil\nTexte\n\nDéclaration\n\nTous les êtres humains naissent\u00a0libres.\nEt égaux & dignes <b>.\n\n"
        "Un\n\nDeux\n\nTrois\n\naprès cela\n\na  b\n  c\n\n漢字international",
        id="droits.html",
        language="fr-CA",
        source="droits.html",
        metadata={"title": "Les droits de l’homme"},
    )
    assert skipped == []


def test_html_tables_of_facts_are_lines_and_those_of_the_layout_are_not():
    facts = "<table><tr><th>Size</th><th>MB</th></tr><tr><td><p>80M</p><p>small</p></td><td>160</td></tr></table>after"
    assert text_of("a.html", facts) == "Size | MB\n80M small | 160\n\nafter"
    long = "word " * 80
    layout = f"<table><tr><td><p>{long}</p><p>next</p></td></tr></table>"
    assert text_of("a.html", layout) == f"{long.strip()}\n\nnext"
    assert text_of("a.html", f"<table><tr><td><p>one</p><p>two</p>{facts}</td></tr></table>").startswith("one\n\ntwo")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<p>Grüße".encode("utf-8-sig"), "Grüße"),
        ("<p>Grüße".encode("utf-16"), "Grüße"),
        ('<meta charset="iso-8859-1"><p>Grüße – “so”'.encode("cp1252"), "Grüße – “so”"),
        (
            "<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'><p>日本語".encode("shift_jis"),
            "日本語",
        ),
        ('<meta charset="nonsense"><p>Grüße'.encode(), "Grüße"),
        ('<meta charset="utf-16"><p>Grüße'.encode(), "Grüße"),
        ('<meta charset="rot13"><p>Grüße'.encode(), "Grüße"),
        ('<?xml version="1.0" encoding="utf-8"?><html><body><p>Grüße'.encode(), "Grüße"),
        (b"plain <text", "plain"),
        (b"a < b and <unknown>c</unknown>", "a < b and c"),
    ],
)
def test_html_is_read_in_the_encoding_that_a_browser_takes(content, text):
    assert text_of("a.htm", content) == text


def test_html_without_a_title_or_a_language_has_neither():
    (document,), _ = upload("a.html", '<html lang="a language"><title> </title><p>text', language="sw")
    assert (document.language, dict(document.metadata)) == ("sw", {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<p>Grüße".encode("latin-1"), r"^a\.html is not utf-8 text: .*0xfc.* Save it as UTF-8"),
        (b"<p>text\0", "is a binary file"),
        (b"<div>" * 3_000 + b"text", "nests its elements deeper"),
    ],
)
def test_wrong_html_is_named(content, problem):
    with pytest.raises(DocumentError, match=problem):
        upload("a.html", content)


def test_html_nested_deeper_than_the_stack_is_read():
    assert text_of("a.html", "<div>" * 1_900 + "text" + "</div>" * 1_900) == "text"


@pytest.mark.parametrize("content", ["", " \n", "<html><body><script>1</script></body></html>", "<!-- only this -->"])
def test_html_without_text_is_reported(content):
    assert upload("a.html", content) == ([], [Skipped("a.html", "no text in it")])


# -- PDF


def test_pdf_pages_are_documents_that_name_their_page():
    content = pdf(lines("All human beings", "are born free."), lines(""), lines("Everyone has \\(all\\) rights."))
    documents, skipped = upload("rights.pdf", content, language="en")
    common = {"language": "en", "source": "rights.pdf"}
    assert documents == [
        Document(text="All human beings\nare born free.", id="rights.pdf#page=1", metadata={"page": 1}, **common),
        Document(text="Everyone has (all) rights.", id="rights.pdf#page=3", metadata={"page": 3}, **common),
    ]
    assert skipped == []


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("the inter-", "national word", "the international word"),
        ("said Jean-", "Paul aloud", "said Jean-Paul aloud"),
        ("pages 10-", "12 of it", "pages 10-\n12 of it"),
    ],
)
def test_pdf_words_divided_at_the_end_of_a_line_are_joined(first, second, text):
    assert text_of("a.pdf", pdf(lines(first, second))) == text


CMAP = """<< /Length 400 >>
stream
/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapType 2 def
1 begincodespacerange <00> <FF> endcodespacerange
6 beginbfchar <41> <064A> <42> <0648> <43> <0644> <44> <062F> <45> <05D0> <46> <05D1> endbfchar
endcmap end end
endstream"""


def from_the_right(stream, *, number):
    """A page in a font whose letters A to D are those of the Arabic word for "is born", E and F those of the Hebrew one
    for "father"."""
    font = (
        "<< /Type /Font /Subtype /TrueType /BaseFont /Arial /FirstChar 65 /LastChar 70 "
        f"/Widths [600 600 600 600 600 600] /ToUnicode {number + 1} 0 R >>"
    )
    return pdf(f"BT /F2 12 Tf 72 720 Td {stream} ET", extra=(font, CMAP))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        ("(DCBA) Tj", "يولد"),  # as most programs write it: the letters as they lie on the page
        ("(FE) Tj", "אב"),
        # As browsers print letters of several strokes: each with its meaning beside it.
        (
            "".join(
                f"/Span << /ActualText <FEFF{code}> >> BDC ({letter}) Tj EMC "
                for letter, code in (("D", "062F"), ("C", "0644"), ("B", "0648"), ("A", "064A"))
            ),
            "يولد",
        ),
    ],
)
def test_pdf_words_are_read_from_the_right(stream, text):
    assert text_of("a.pdf", from_the_right(stream, number=7)) == text


def test_pdf_words_are_turned_only_where_it_is_known_where_their_letters_lie():
    class Shown:
        def __init__(self, *lefts):
            self.lefts = lefts

        def count_chars(self):
            return len(self.lefts)

        def get_charbox(self, index):
            return (self.lefts[index], 0, 0, 0)

    turn = f2rag.readers.pdf._read_from_the_right
    assert turn(Shown(1, 2, 3, 0, 9, 8), "דלי אב") == "ילד אב"
    assert turn(Shown(1, 2, 3), "דלי אב") == "דלי אב"
    assert turn(Shown(1, 2, 3), "abc") == "abc"
    assert turn(Shown(1, 2), "٤٢") == "٤٢"


PROTECTED = "<< /Filter /Standard /V 1 /R 2 /Length 40 /P -4 /O <{0}> /U <{0}> >>".format("41" * 32)
UNKNOWN = "<< /Filter /Unheard /V 9 /R 9 >>"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pdf(lines("a"), extra=(PROTECTED,), trailer=f"/ID [<{'41' * 16}> <{'41' * 16}>] /Encrypt 7 0 R"), "password"),
        (pdf(lines("a"), extra=(UNKNOWN,), trailer="/Encrypt 7 0 R"), "is protected in a way that cannot be read"),
        (pdf("", "", ""), r"has no text on its 3 pages; they are probably scanned\. .*ocrmypdf"),
        (b"", "is no PDF under the name of one"),
        (b"<html><body>not found</body></html>", "is no PDF under the name of one"),
        (b"%PDF-1.7\n" + b"\xff" * 300, "is damaged"),
    ],
)
def test_wrong_pdf_is_named(content, problem):
    with pytest.raises(DocumentError, match=rf"^a\.pdf .*{problem}"):
        upload("a.pdf", content)


def test_a_damaged_page_is_reported_and_the_others_are_read(monkeypatch):
    import pypdfium2

    real = f2rag.readers.pdf._text

    def text(file, number):
        if number == 1:
            raise pypdfium2.PdfiumError("Failed to load page.")
        return real(file, number)

    monkeypatch.setattr(f2rag.readers.pdf, "_text", text)
    documents, skipped = upload("a.pdf", pdf(lines("one"), lines("two"), lines("three")))
    assert [document.metadata["page"] for document in documents] == [1, 3]
    assert skipped == [Skipped("a.pdf#page=2", "damaged page (Failed to load page.)")]


def test_a_pdf_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(f2rag.readers.pdf, "_MOST_TEXT", 5)
    with pytest.raises(DocumentError, match="unpacks to more than 5 characters"):
        upload("a.pdf", pdf(lines("abc"), lines("def")))


def test_pdfs_are_read_by_several_threads():
    content = pdf(*(lines(f"page {number}") for number in range(40)))
    found = []

    def read():
        found.append([document.text for document in upload("a.pdf", content)[0]])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[f"page {number}" for number in range(40)]] * 4


# -- Word


def test_docx_headings_paragraphs_and_tables_in_their_order():
    def fill(file):
        file.add_heading("Rights", level=1)
        paragraph = file.add_paragraph("All hu")
        paragraph.add_run("man").bold = True
        paragraph.add_run(" beings\tare\nborn  free.")
        table = file.add_table(rows=2, cols=2)
        for cell, text in zip(
            (cell for row in table.rows for cell in row.cells), ("Article", "Says", "1", "free"), strict=True
        ):
            cell.text = text
        table.rows[1].cells[1].add_paragraph("and equal")
        file.add_paragraph("البيت الأحمر")

    (document,), skipped = upload("rights.docx", word(fill), language="en")
    assert document == Document(
        text="Rights\n\nAll human beings are\nborn free.\n\nArticle | Says\n1 | free and equal\n\nالبيت الأحمر",
        id="rights.docx",
        language="en",
        source="rights.docx",
    )
    assert skipped == []


def test_docx_forms_text_boxes_links_and_tracked_changes():
    def run(text):
        return f"<w:r><w:t>{text}</w:t></w:r>"

    added = (
        f"<w:sdt><w:sdtPr><w:tab/></w:sdtPr><w:sdtContent><w:p>{run('in a form')}</w:p></w:sdtContent></w:sdt>",
        f"<w:p><w:pPr><w:tabs><w:tab w:val='left' w:pos='9'/></w:tabs></w:pPr>{run('kept')}<w:ins>{run('inserted')}"
        f"</w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:moveFrom>{run('moved')}</w:moveFrom>"
        f"<w:hyperlink>{run('linked')}</w:hyperlink><w:r><w:noBreakHyphen/><w:instrText>PAGE</w:instrText></w:r></w:p>",
        "<w:p xmlns:mc='http://schemas.openxmlformats.org/markup-compatibility/2006'><w:r><mc:AlternateContent>"
        f"<mc:Choice Requires='wps'><w:txbxContent><w:p>{run('in a box')}</w:p></w:txbxContent></mc:Choice>"
        f"<mc:Fallback><w:txbxContent><w:p>{run('in a box')}</w:p></w:txbxContent></mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p>",
    )

    def fill(file):
        for each in reversed(added):
            file.element.body.insert(
                0, parse_xml(each.replace(">", f" xmlns:w='{W}'>", 1).replace("/ xmlns", " xmlns"))
            )

    assert text_of("a.docx", word(fill)) == "in a form\n\nkeptinsertedlinked-\n\nin a box"


def test_docx_without_text_is_reported():
    assert upload("a.docx", word(lambda file: None)) == ([], [Skipped("a.docx", "no text in it")])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is an old Word file or protected by a password"),
        (b"", "is no Word file under the name of one"),
        (b"%PDF-1.7", "is no Word file under the name of one"),
        (word(lambda file: None)[:2_000], "is no Word file under the name of one, or only a part of one"),
        (package({"mimetype": "application/epub+zip"}), "cannot be opened as a Word file"),
        (package({"word/document.xml": b"\0" * (65 * 2**20)}), r"unpacks to 65 MiB in 1 parts, of which 65 MiB are"),
        (package({f"{number}": b"" for number in range(10_001)}), r"unpacks to 0 MiB in 10,001 parts"),
    ],
)
def test_wrong_docx_is_named(content, problem):
    with pytest.raises(DocumentError, match=rf"^a\.docx {problem}"):
        upload("a.docx", content)


def test_a_damaged_docx_is_named():
    whole = word(lambda file: file.add_paragraph("text"))
    parts = {
        name: zipfile.ZipFile(io.BytesIO(whole)).read(name) for name in zipfile.ZipFile(io.BytesIO(whole)).namelist()
    }
    entities = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    body = f"<w:document xmlns:w='{W}'><w:body><w:p><w:r><w:t>&c;&c;</w:t></w:r></w:p></w:body></w:document>"
    assert upload("a.docx", package({**parts, "word/document.xml": f"{entities}{body}"}))[0] == []
    with pytest.raises(DocumentError, match=r"^a\.docx cannot be opened as a Word file"):
        upload("a.docx", package({**parts, "word/document.xml": "<w:document"}))
    empty = f"<w:document xmlns:w='{W}'/>"
    assert upload("a.docx", package({**parts, "word/document.xml": empty})) == (
        [],
        [Skipped("a.docx", "no text in it")],
    )


# -- libraries, sizes, folders


@pytest.mark.parametrize(
    ("name", "library", "package"),
    [("a.html", "lxml", "lxml"), ("a.pdf", "pypdfium2", "pypdfium2"), ("a.docx", "docx", "python-docx")],
)
def test_a_missing_library_names_the_extra(name, library, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed\..*f2rag\[documents\]") as caught:
        upload(name, b"")
    assert caught.value.extra == "documents"
    (tmp_path / name).touch()
    skipped = []
    assert list(read_documents([tmp_path], on_skipped=skipped.append)) == []  # in a folder it stops nobody
    assert "is not installed" in skipped[0].reason


def test_the_extra_holds_the_libraries_and_the_app_needs_it():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {each.partition(">")[0] for each in extras["documents"]} == {"lxml", "pypdfium2", "python-docx"}
    assert "f2rag[documents]" in extras["app"]


@pytest.mark.parametrize(("name", "module"), [("a.html", "html"), ("a.pdf", "pdf"), ("a.docx", "docx")])
def test_files_that_are_too_large_are_refused(name, module, monkeypatch):
    monkeypatch.setattr(sys.modules[f"f2rag.readers.{module}"], "_LARGEST", 2**20)
    with pytest.raises(DocumentError, match=rf"^{name} is larger than 1 MiB"):
        upload(name, b" " * (2**20 + 1))


def test_what_cannot_be_read_in_a_folder_is_passed_over_and_named_files_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("a.pdf", pdf("")),
        ("b.docx", b"x"),
        ("c.html", b"\0"),
        ("d.md", b"text"),
        ("e.pdf", pdf(lines("page"))),
    ):
        Path(name).write_bytes(content)
    skipped = []
    documents = list(read_documents([Path()], on_skipped=skipped.append))
    assert [document.id for document in documents] == ["d.md", "e.pdf#page=1"]
    assert [one.where for one in skipped] == ["a.pdf", "b.docx", "c.html"]
    assert skipped[0].reason.startswith("has no text on its 1 pages")
    with pytest.raises(DocumentError, match="probably scanned"):
        list(read_documents([Path("a.pdf")]))


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "a.pdf").mkdir()
    for name in ("a.pdf", "b.docx"):
        with pytest.raises(DocumentError, match=r"cannot be read: Is a directory|does not exist"):
            list(read_file(tmp_path / name))


# -- uploads


def test_uploads_of_every_suffix_are_read():
    contents = {
        "csv": "text\nfound\n",
        "docx": word(lambda file: file.add_paragraph("found")),
        "html": "found",
        "jsonl": '{"text": "found"}',
        "pdf": pdf(lines("found")),
        "text": "found",
        "tsv": "a\ttext\n1\tfound\n",
    }
    for suffix, kind in SUFFIXES.items():
        (document,), skipped = upload(f"A file{suffix.upper()}", contents[kind])
        assert (document.text, document.source, skipped) == ("found", f"A file{suffix.upper()}", [])


def test_uploaded_rows_belong_to_their_file():
    rows = '{"id": 7, "text": "one", "source": "https://example.org/1"}\n{"text": "two", "origin": "mine"}\n'
    first, second = upload("rows.jsonl", rows)[0]
    assert (first.key, first.source) == ("rows.jsonl#7", "rows.jsonl")
    assert first.metadata == {"origin": "https://example.org/1", "row": 1}
    assert (second.id, second.source, second.metadata["origin"]) == (None, "rows.jsonl", "mine")
    other = upload("other.jsonl", rows)[0]
    assert not {first.key, second.key} & {document.key for document in other}


def test_wrong_uploads_are_named():
    with pytest.raises(DocumentError, match=r"^a\.exe cannot be read: expected a file named \.csv"):
        upload("C:\\secret\\a.exe", b"")
    with pytest.raises(DocumentError, match=r"^a\.txt:2 is not UTF-8"):
        upload("../a.txt", b"fine\n\x80")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a b.txt", "a b.txt"),
        ("доклад 2024 – итог.pdf", "доклад 2024 – итог.pdf"),
        ("می‌خواهم.txt", "می‌خواهم.txt"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        ("a\n\0b\u2028.txt", "ab.txt"),
        ("invoice\u202efdp.txt", "invoicefdp.txt"),
        ("half\ud800.txt", "half.txt"),
        (" .env ", ".env"),
        ("x" * 300 + ".docx", "x" * 195 + ".docx"),
        ("x" * 300, "x" * 200),
        ("<script>.txt", "<script>.txt"),
    ],
)
def test_names_are_cleaned(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", " ", "/", "a/..", "..", "\u202e", "a\\"])
def test_names_of_nothing_are_refused(name):
    with pytest.raises(DocumentError, match="cannot name a document"):
        safe_name(name)


def test_pasted_texts_keep_their_title():
    assert text_input("text", title="AC/DC: a history ").source == "AC/DC: a history"
    with pytest.raises(DocumentError, match=r"^Title holds half of a surrogate pair at 1"):
        text_input("a\ud800", title="Title")
