"""HTML as a person sees it in a browser: no scripts, styles or hidden parts; the title goes into the metadata."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions
from f2rag.readers.paragraphs import CELL, LINE, PARAGRAPH, WORD, Paragraphs
from f2rag.types import Document

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_LARGEST = 32 * 2**20
"""Bytes; the tree takes some ten times as much. The longest pages that people write have a third of it."""

_LONGEST_CELL = 300
"""Characters; a longer cell is there for the layout of the page, and its paragraphs are kept apart."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNSEEN = _names(
    "audio button canvas datalist head iframe input map meter noscript object option progress rp rt script select "
    "style svg template textarea title video"
)
_PARAGRAPHS = _names(
    "address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hgroup hr legend main menu nav ol p pre section summary table ul"
)
_LINES = _names("br caption li optgroup tbody tfoot thead tr")
_CELLS = frozenset({"td", "th"})

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{2,40})", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
"""A language tag of BCP 47, roughly."""


def read_html(given: Input, options: ReadOptions, _: OnSkipped) -> Iterator[Document]:
    """The visible text as one document, with the page's ``title`` in its metadata and its own language, if it says so.

    Raises:
        DocumentError: It is no text, or not in the encoding that it names.
        MissingExtraError: lxml is not installed.
    """
    try:
        from lxml import etree
    except ImportError as error:
        raise MissingExtraError("lxml", extra="documents") from error
    markup = _decoded(given.read(most=_LARGEST), given.name)
    if not markup.strip():
        return
    # The parser is told the encoding, since it would take what the page names for the encoding of these bytes.
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    root = etree.fromstring(markup.encode(), parser)
    if root is None:  # nothing but remarks
        return
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        message = f"{given.name} nests its elements deeper than any browser shows. Save its text as .txt."
        raise DocumentError(message)
    text = _visible(etree.iterwalk(root, events=("start", "end")))
    title = " ".join(root.findtext("head/title", default="").split())
    if text.strip():
        yield Document(
            text=text,
            id=given.source,
            language=_language(root) or options.language,
            source=given.source,
            metadata={"title": title} if title else {},
        )


def _visible(walk: Any) -> str:
    """The text that is seen; walked through without recursion, since pages may be nested deeper than Python's stack."""
    found = Paragraphs()
    flat: list[bool] = []  # of each open cell, whether its paragraphs go into one line
    kept = 0  # open elements whose blanks count
    for event, element in walk:
        name, begins = element.tag, event == "start"
        seen = not _is_unseen(element)
        if seen:
            if name in _CELLS and not begins:
                flat.pop()
            found.gap(WORD if any(flat) and _gap(name) else _gap(name))
            if name in _CELLS and begins:
                flat.append(_is_short(element))
            kept += (name == "pre") * (1 if begins else -1)
        elif begins:
            walk.skip_subtree()
            continue
        text = (element.text if begins else element.tail) or ""
        if kept:
            found.exactly(text)
        else:
            found.text(text)
    return str(found)


def _gap(name: str) -> str:
    """What stands before and after an element of this name."""
    if name in _PARAGRAPHS:
        return PARAGRAPH
    if name in _LINES:
        return LINE
    return CELL if name in _CELLS else ""


def _is_unseen(element: Element) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    hidden = element.get("hidden") is not None or "display:none" in style or "visibility:hidden" in style
    return hidden or element.tag in _UNSEEN


def _is_short(cell: Element) -> bool:
    """Whether a cell is one of a table of facts rather than of a page that is laid out as a table."""
    return cell.find(".//table") is None and sum(map(len, cell.itertext())) <= _LONGEST_CELL


def _language(root: Element) -> str | None:
    tag = (root.get("lang") or root.get("xml:lang") or "").strip()
    return tag if _TAG.fullmatch(tag) else None


def _decoded(content: bytes, name: str) -> str:
    """As browsers do: by the mark that it begins with, by the encoding that it names, else as UTF-8."""
    marked = [encoding for mark, encoding in _MARKS if content.startswith(mark)]
    named = _CHARSET.search(content, 0, 4096)
    encoding = marked[0] if marked else _codec(named[1].decode()) if named else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        message = f"{name} is not {encoding} text: {error}. Save it as UTF-8 and name that in it: <meta charset=utf-8>."
        raise DocumentError(message) from error
    if "\0" in text:
        message = f"{name} is a binary file under the name of a page (it holds zero bytes)."
        raise DocumentError(message)
    return text


def _codec(label: str) -> str:
    """Python's name of the encoding that browsers take for a label."""
    try:
        found = codecs.lookup(label)
    except LookupError:
        return "utf-8"
    # A browser takes these labels for their supersets, and so do the programs that write them.
    supersets = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
    if found.name.startswith("utf-16"):  # it was read as bytes so far, so it is no such thing
        return "utf-8"
    return supersets.get(found.name, found.name) if _is_text(found) else "utf-8"


def _is_text(codec: codecs.CodecInfo) -> bool:
    return getattr(codec, "_is_text_encoding", True)
