"""PDF: the text of each page, so that a hit can name its page. Pictures of text are not read."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions, Skipped
from f2rag.types import Document

if TYPE_CHECKING:
    import pypdfium2

_LARGEST = 512 * 2**20
"""Bytes: books that were scanned are large, and their pictures are not unpacked."""

_MOST_TEXT = 64_000_000
"""Characters of one file, some ten times the longest books: a small file can unpack to any length."""

_LOCK = threading.Lock()
"""PDFium must not be called by two threads at once, whatever the files."""

_PASSWORD, _SECURITY = 4, 5
"""PDFium's codes of what kept a file from being opened."""

_DIVIDED = re.compile("[\ufffe\x02](?=(.?))")
"""What PDFium puts for a hyphen and the end of the line after it."""

_FROM_THE_RIGHT = re.compile("[\u0590-\u065f\u066e-\u06ef\u06fa-\u07bf\u07ca-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]{2,}")
"""Words of Hebrew, Arabic, Syriac, Thaana and N'Ko, without digits, which go from left to right in most of them."""

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\uffff]")


def read_pdf(given: Input, options: ReadOptions, report: OnSkipped) -> Iterator[Document]:
    """One document for each page with text, ``page`` in its metadata, in the lines that are on it.

    Pages that are damaged are reported and passed over.

    Raises:
        DocumentError: No PDF, protected by a password, damaged, or without any text, as scanned pages are.
        MissingExtraError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingExtraError("pypdfium2", extra="documents") from error
    content = given.read(most=_LARGEST)
    with _LOCK:
        try:
            file = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(_why_closed(error, given.name, content)) from error
    try:
        texts = list(_texts(file, given, report))
    finally:
        with _LOCK:  # closed here, since a finalizer would run in any thread
            file.close()
    if not any(texts):
        message = (
            f"{given.name} has no text on its {len(texts):,} pages; they are probably scanned. "
            "Recognise their text first, for example with: ocrmypdf in.pdf out.pdf"
        )
        raise DocumentError(message)
    for number, text in enumerate(texts, start=1):
        if text:
            identity = f"{given.source}#page={number}"  # as browsers write it (RFC 8118)
            metadata = {"page": number}
            yield Document(text=text, id=identity, language=options.language, source=given.source, metadata=metadata)


def _texts(file: pypdfium2.PdfDocument, given: Input, report: OnSkipped) -> Iterator[str]:
    """The text of each page; the lock is let go between them, so that a thick book holds nobody up."""
    import pypdfium2

    length = 0
    with _LOCK:
        pages = len(file)
    for number in range(pages):
        try:
            with _LOCK:
                text = _clean(_text(file, number))
        except pypdfium2.PdfiumError as error:
            report(Skipped(f"{given.source}#page={number + 1}", f"damaged page ({error})"))
            text = ""
        length += len(text)
        if length > _MOST_TEXT:
            message = f"{given.name} unpacks to more than {_MOST_TEXT:,} characters. Split it into smaller files."
            raise DocumentError(message)
        yield text


def _text(file: Any, number: int) -> str:
    page = file[number]
    try:
        shown = page.get_textpage()
        try:
            return _read_from_the_right(shown, str(shown.get_text_bounded()))
        finally:
            shown.close()
    finally:
        page.close()


def _read_from_the_right(shown: Any, text: str) -> str:
    """Turn the words of Arabic, Hebrew and the like around that PDFium gives from left to right.

    It does so with words whose letters are drawn in several strokes, as browsers print them. Where a word's last letter
    lies to the right of its first one, the word is the wrong way round.
    """
    words = [found.span() for found in _FROM_THE_RIGHT.finditer(text)]
    # Where the text lacks or adds a character, it is not known where a letter lies.
    if not words or shown.count_chars() != len(text):
        return text
    letters = list(text)
    for start, end in words:
        first, last = shown.get_charbox(start), shown.get_charbox(end - 1)
        if last[0] > first[0]:
            letters[start:end] = letters[start:end][::-1]
    return "".join(letters)


def _clean(text: str) -> str:
    # A capital does not go on with a word: Jean-Paul keeps his hyphen.
    joined = _DIVIDED.sub(lambda found: "-" if found[1].isupper() else "", text)
    return _CONTROLS.sub("", joined.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _why_closed(error: Any, name: str, content: bytes) -> str:
    if error.err_code == _PASSWORD:
        return f"{name} is protected by a password. Save it without one, for example with: qpdf --decrypt"
    if error.err_code == _SECURITY:
        return f"{name} is protected in a way that cannot be read here. Save it without protection."
    if b"%PDF-" not in content[:1024]:
        return f"{name} is no PDF under the name of one. Give it the suffix of what it is."
    return f"{name} is damaged and cannot be opened as a PDF. Save or download it again."
