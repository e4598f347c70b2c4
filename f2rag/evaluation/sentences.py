"""The first sentence of a text in any script, to serve as a query where nobody gave one."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 120
_SHORTEST: Final = 12
"""Characters; what is shorter, such as "Art. 1." or a title, is taken together with what follows."""

# Full stops that need a space behind them (3.14, f2rag.dev), and those of scripts that write none.
_END = re.compile(r"[.!?…؟۔।॥።፧។៕။؛]+[\"'”’»)\]]*(?=\s)|[。！？｡]+[”’」』）]*|\n\s*\n")


def first_sentence(text: str) -> str:
    """The first sentence of at least a few words, on one line; at most 120 characters, cut between words.

    >>> first_sentence("Art. 1. All human beings are born free. They are endowed with reason.")
    'Art. 1. All human beings are born free.'
    """
    stripped = text.strip()
    end = next((match.end() for match in _END.finditer(stripped) if match.end() >= _SHORTEST), len(stripped))
    sentence = " ".join(stripped[:end].split())
    if len(sentence) <= _LONGEST:
        return sentence
    cut = sentence[:_LONGEST]
    return cut.rpartition(" ")[0] or cut
