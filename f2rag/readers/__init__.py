"""Files into documents: text, Markdown, HTML, PDF, Word, CSV and JSON Lines, alone, in folders or uploaded.

    paths ─► inputs_of ─┐
    uploads ────────────┴► Input ─► read_input ─► text.py · rows.py · html.py · pdf.py · docx.py ─► documents

A text, HTML or Word file becomes one document, which ``f2rag.chunking`` splits; so does each page of a PDF, and each
row. Everything that a person has to mend says which file, and in which line or on which page. Nothing here knows a
model or a database. Each format is one file; those of HTML, PDF and Word import their libraries when the first such
file is read (``pip install 'f2rag[documents]'``).
"""

from __future__ import annotations

from f2rag.readers.files import (
    FORMATS,
    SUFFIXES,
    check_paths,
    inputs_of,
    read_documents,
    read_file,
    read_input,
)
from f2rag.readers.inputs import Input, OnSkipped, ReadOptions, Skipped, reason_of
from f2rag.readers.text import decode_lines, read_lines
from f2rag.readers.uploads import Upload, read_upload, safe_name, text_input, upload_input

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Input",
    "OnSkipped",
    "ReadOptions",
    "Skipped",
    "Upload",
    "check_paths",
    "decode_lines",
    "inputs_of",
    "read_documents",
    "read_file",
    "read_input",
    "read_lines",
    "read_upload",
    "reason_of",
    "safe_name",
    "text_input",
    "upload_input",
]
