"""Which files are read, as what, and under which source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers.docx import read_docx
from f2rag.readers.html import read_html
from f2rag.readers.inputs import Format, Input, OnSkipped, ReadOptions, Skipped, ignore
from f2rag.readers.pdf import read_pdf
from f2rag.readers.rows import read_csv, read_jsonl
from f2rag.readers.text import read_text
from f2rag.types import Document

Reader: TypeAlias = Callable[[Input, ReadOptions, OnSkipped], Iterator[Document]]

FORMATS: dict[Format, Reader] = {
    "csv": read_csv,
    "docx": read_docx,
    "html": read_html,
    "jsonl": read_jsonl,
    "pdf": read_pdf,
    "text": read_text,
    "tsv": read_csv,
}
"""What reads each format."""

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".docx": "docx",
    ".htm": "html",
    ".html": "html",
    ".jsonl": "jsonl",
    ".markdown": "text",
    ".md": "text",
    ".ndjson": "jsonl",
    ".pdf": "pdf",
    ".text": "text",
    ".tsv": "tsv",
    ".txt": "text",
}
"""Suffixes that can be read, and as what."""

_MADE_BY_PROGRAMS = ("docx", "html", "pdf")
"""Of these a folder often holds one that is protected, scanned or damaged; a person cannot mend it in an editor."""


def read_documents(
    paths: Iterable[Path],
    *,
    root: Path | None = None,
    options: ReadOptions | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Document]:
    """Read files and folders in the order given; folders by name, with subfolders, without hidden ones.

    The ``source`` of a document is its file's path relative to ``root`` where it lies there, else the whole path;
    always with forward slashes. The id of a text, HTML or Word file is its source, so that a changed file replaces what
    it was; of a PDF's page it is ``<source>#page=<number>``, and ``page`` in its metadata. Rows have ``row`` in their
    metadata, the line they start on.

    Args:
        paths: Files and folders.
        root: What sources are relative to; the working directory when not given.
        options: How files are read.
        on_skipped: Called for every blank file or row, and inside a folder for every file of another kind and every
            HTML, PDF or Word file that cannot be read.

    Raises:
        DocumentError: A path that is not there or may not be read, a file that is named and is of another kind or
            cannot be read, text that is not UTF-8, or a row that is no document.
        MissingExtraError: A file that is named needs a library that is not installed.
    """
    options, report = options or ReadOptions(), on_skipped or ignore
    for given in inputs_of(paths, root=root, on_skipped=report):
        try:
            yield from read_input(given, options=options, on_skipped=report)
        except (DocumentError, MissingExtraError) as error:
            if not given.lenient:
                raise
            report(given.skipped(error))


def read_file(
    file: Path,
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Document]:
    """Read one file.

    Args:
        file: A file with one of ``SUFFIXES``.
        source: What its documents name as their source; the path as given when not given.
        options: How it is read.
        on_skipped: Called for a blank file and for every blank row.

    Raises:
        DocumentError: A suffix that cannot be read, a file that cannot be, text that is not UTF-8, or a row that is no
            document.
        MissingExtraError: It needs a library that is not installed.
    """
    yield from read_input(input_of(file, source=source), options=options, on_skipped=on_skipped)


def read_input(
    given: Input, *, options: ReadOptions | None = None, on_skipped: OnSkipped | None = None
) -> Iterator[Document]:
    """Read one input, whether it is lenient or not.

    Raises:
        As ``read_file`` does.
    """
    report, found = on_skipped or ignore, False
    for document in FORMATS[given.format](given, options or ReadOptions(), report):
        found = True
        yield document
    if not found:
        report(Skipped(given.source, "no text in it"))


def inputs_of(
    paths: Iterable[Path], *, root: Path | None = None, on_skipped: OnSkipped | None = None
) -> Iterator[Input]:
    """The files that ``read_documents`` reads, before any of them is opened.

    Raises:
        DocumentError: A path that is not there, a file that is named and is of another kind, or a folder that cannot be
            listed.
    """
    report, base = on_skipped or ignore, _absolute(root or Path())
    for path in map(Path, paths):
        check_paths([path])
        if not path.is_dir():
            yield input_of(path, source=_source(path, base))
        else:
            for file in _walk(path, report):
                lenient = SUFFIXES[file.suffix.lower()] in _MADE_BY_PROGRAMS
                yield input_of(file, source=_source(file, base), lenient=lenient)


def input_of(file: Path, *, source: str | None = None, lenient: bool = False) -> Input:
    """A file as an input.

    Raises:
        DocumentError: A suffix that cannot be read.
    """
    return Input(
        name=str(file),
        source=source or file.as_posix(),
        format=format_of(str(file)),
        content=lambda: file.open("rb"),
        lenient=lenient,
    )


def format_of(name: str) -> Format:
    """What a file of this name is read as.

    Raises:
        DocumentError: A suffix that cannot be read.
    """
    kind = SUFFIXES.get(Path(name).suffix.lower())
    if kind is None:
        message = f"{name} cannot be read: expected a file named {', '.join(sorted(SUFFIXES))}."
        raise DocumentError(message)
    return kind


def check_paths(paths: Iterable[Path]) -> None:
    """Make sure that files and folders are there, before anything costly begins.

    Raises:
        DocumentError: One is not.
    """
    for path in paths:
        if not path.exists():
            message = f"{path} does not exist. Give the path of a file or a folder."
            raise DocumentError(message)


def _walk(path: Path, report: OnSkipped) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(path, onerror=_cannot_list):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith("."):
                continue
            if file.suffix.lower() in SUFFIXES:
                yield file
            else:
                report(Skipped(file.as_posix(), f"{file.suffix or 'no suffix'} is not read"))


def _cannot_list(error: OSError) -> None:
    message = f"{error.filename} cannot be read: {error.strerror}."
    raise DocumentError(message) from error


def _source(file: Path, base: Path) -> str:
    whole = _absolute(file)
    return (whole.relative_to(base) if whole.is_relative_to(base) else whole).as_posix()


def _absolute(path: Path) -> Path:
    """Without ``..`` and with links left as they are: a linked file is known by the name it has here."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve follows links
