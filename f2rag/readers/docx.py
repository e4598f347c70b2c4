"""Word's .docx: paragraphs, headings and tables, with what stands in forms, text boxes and tracked changes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions
from f2rag.readers.paragraphs import CELL, LINE, PARAGRAPH, WORD, Paragraphs
from f2rag.types import Document

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_LARGEST = 256 * 2**20
"""Bytes of the file."""

_LARGEST_UNPACKED = 512 * 2**20
"""Bytes of all that is in it, with pictures."""

_LARGEST_TEXT = 64 * 2**20
"""Bytes of the texts in it with their markup; the trees take some ten times as much. A thick book has a quarter."""

_MOST_PARTS = 10_000

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How Word's old files begin, and new ones that are protected by a password."""

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_GAPS = {
    **{f"{_W}{name}": PARAGRAPH for name in ("p", "tbl")},
    **{f"{_W}{name}": LINE for name in ("tr", "br", "cr")},
    **{f"{_W}{name}": WORD for name in ("tab", "ptab")},
    f"{_W}tc": CELL,
}
_UNSEEN = frozenset(
    {
        # Properties, among them the positions of tabs, which are called as tabs are.
        *(f"{_W}{name}" for name in ("pPr", "rPr", "sectPr", "sdtPr", "tblPr", "tcPr", "trPr")),
        f"{_W}moveFrom",  # what a tracked change has moved stands where it went, too
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",  # a text box for older programs
    }
)


def read_docx(given: Input, options: ReadOptions, _: OnSkipped) -> Iterator[Document]:
    """The whole text as one document: paragraphs between blank lines, each row of a table as one line.

    Raises:
        DocumentError: No Word file, an old or protected one, a damaged one, or one that unpacks to too much.
        MissingExtraError: python-docx is not installed.
    """
    try:
        import docx
    except ImportError as error:
        raise MissingExtraError("python-docx", extra="documents") from error
    content = given.read(most=_LARGEST)
    _check_package(content, given.name)
    try:
        body = docx.Document(io.BytesIO(content)).element.body
    except Exception as error:  # whatever a damaged zip, XML or package may raise; the library checks little of it
        message = f"{given.name} cannot be opened as a Word file: it is damaged or of another kind. Save it again."
        raise DocumentError(message) from error
    text = "" if body is None else _text(body)
    if text.strip():
        yield Document(text=text, id=given.source, language=options.language, source=given.source)


def _text(body: Element) -> str:
    """Every run of text that is shown, in order.

    The library's own paragraphs lack what stands in forms, text boxes and inserted by tracked changes, so its tree is
    walked; without recursion, since tables may be nested to any depth.
    """
    from lxml import etree

    found = Paragraphs()
    cells = 0
    walk = etree.iterwalk(body, events=("start", "end"))
    for event, element in walk:
        name, begins = element.tag, event == "start"
        if begins and name in _UNSEEN:
            walk.skip_subtree()
            continue
        cells -= name == f"{_W}tc" and not begins
        gap = _GAPS.get(name, "")
        found.gap(WORD if gap and cells else gap)
        cells += name == f"{_W}tc" and begins
        if begins and name == f"{_W}t":
            found.text(element.text or "")
        elif begins and name == f"{_W}noBreakHyphen":
            found.text("-")
    return str(found)


def _check_package(content: bytes, name: str) -> None:
    """Make sure that it is a zip file which unpacks to a bearable size, before the library unpacks all of it."""
    if content.startswith(_OLE):
        message = f"{name} is an old Word file or protected by a password. Save it as .docx without a password."
        raise DocumentError(message)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            parts = package.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        message = f"{name} is no Word file under the name of one, or only a part of one. Save or download it again."
        raise DocumentError(message) from error
    unpacked = sum(part.file_size for part in parts)
    texts = sum(part.file_size for part in parts if part.filename.lower().endswith((".xml", ".rels")))
    # The sizes are what the parts say of themselves, and none is unpacked further than it says.
    if len(parts) > _MOST_PARTS or unpacked > _LARGEST_UNPACKED or texts > _LARGEST_TEXT:
        message = (
            f"{name} unpacks to {unpacked // 2**20:,} MiB in {len(parts):,} parts, of which {texts // 2**20:,} MiB are "
            f"texts. At most {_LARGEST_UNPACKED // 2**20} MiB and {_LARGEST_TEXT // 2**20} MiB of texts are read; "
            "split it into smaller files."
        )
        raise DocumentError(message)
