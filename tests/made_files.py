"""PDF and Word files for tests, made when they are needed."""

from __future__ import annotations

import io
import zipfile

import docx


def pdf(*pages, trailer="", extra=()):
    """A PDF with the content stream of each page, or a line of text; Helvetica, and whatever objects are ``extra``."""
    kids = " ".join(f"{5 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        "<< >>",
    ]
    for index, page in enumerate(pages):
        stream = page if " Tf" in page or not page else f"BT /F1 12 Tf 14 TL 72 720 Td {page} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {6 + 2 * index} 0 R "
            "/Resources << /Font << /F1 3 0 R /F2 99 0 R >> >> >>".replace("99", str(5 + 2 * len(pages)))
        )
        objects.append(f"<< /Length {len(stream.encode('latin-1'))} >>\nstream\n{stream}\nendstream")
    objects += extra
    out, offsets = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(out)
    return out + (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    ).encode("latin-1")


def lines(*texts):
    return " T* ".join(f"({text}) Tj" for text in texts)


def word(fill):
    """A Word file that ``fill`` has written to."""
    file, stream = docx.Document(), io.BytesIO()
    fill(file)
    file.save(stream)
    return stream.getvalue()


def package(parts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return stream.getvalue()
