"""Text with markup into plain text: paragraphs between blank lines, rows of tables as lines."""

from __future__ import annotations

import re

PARAGRAPH, LINE, CELL, WORD = "\n\n", "\n", " | ", " "
"""What can stand between two pieces of text, the widest first."""

_WIDTH = {PARAGRAPH: 4, LINE: 3, CELL: 2, WORD: 1, "": 0}
_BLANKS = re.compile(r"[ \t\n\r\f]+")
"""What markup collapses; blanks that mean something, as the ideographic one, are left."""

_INVISIBLE = str.maketrans("", "", "\u00ad\0")


class Paragraphs:
    """Collects pieces of text and what stands between them; of several gaps in a row the widest is taken."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._gap = ""

    def gap(self, gap: str) -> None:
        """Let ``gap`` stand before the next piece, unless a wider one does already."""
        if _WIDTH[gap] > _WIDTH[self._gap]:
            self._gap = gap

    def text(self, text: str) -> None:
        """Add a piece whose blanks mean no more than that words end."""
        collapsed = _BLANKS.sub(WORD, text.translate(_INVISIBLE))
        if collapsed.startswith(WORD):
            self.gap(WORD)
        self.exactly(collapsed.strip(WORD))
        if collapsed.endswith(WORD):
            self.gap(WORD)

    def exactly(self, text: str) -> None:
        """Add a piece as it is."""
        if text:
            if self._parts:
                self._parts.append(self._gap)
            self._parts.append(text)
            self._gap = ""

    def __str__(self) -> str:
        return "".join(self._parts)
