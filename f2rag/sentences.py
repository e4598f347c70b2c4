"""Texts in any script cut into sentences, by rules and without a model.

    a mark, a blank line, the next item of a list   ─► where a sentence may end
    abbreviations, ordinals, a small letter behind  ─► where it does not
    too short to stand alone                        ─► taken together with what follows

It serves two purposes: to mark the best sentence of a hit, and to ask a collection something where nobody gave a query.
The rules lean towards sentences that are too long, since half a sentence reads worse than two. This file knows no
encoder.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, TypeAlias

Span: TypeAlias = tuple[int, int]
"""Where a sentence begins in a text, and where it ends."""

LIMIT: Final = 200
"""Sentences of one text. A text of more has a vector that saw its beginning only, too."""

_LONGEST_QUERY: Final = 120
"""Characters."""

_SHORTEST: Final = 9
"""Letters, marks and digits, wide ones counted twice; what has fewer, such as "Art. 1." or a title, does not stand
alone."""

_SHORTEST_CLAUSE: Final = 40
"""The same where only a blank ends it: in Thai and Lao blanks stand between clauses and around names, too."""

_CLOSING: Final = r"[\"'”’»›)\]}」』）】》〉]*+"
_HAN_AND_KANA: Final = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_THAI_OR_LAO: Final = r"[\u0e01-\u0e2e\u0e30-\u0e45\u0e47-\u0e59\u0e81-\u0eae\u0eb0-\u0ec5\u0ec7-\u0ed9\u0edc-\u0edf]"
"""Without the signs for an abbreviation and for a repetition, which have blanks around them inside a clause."""

_AND_OR_WHICH: Final = "และ|หรือ|ซึ่ง|ແລະ|ຫຼື|ຫລື"

# A row of marks is read from its first one only (the lookbehind) and never given back (++), so that a million full
# stops take one pass.
_BOUNDARY: Final = re.compile(
    rf"""
      # a blank must follow: 3.14, f2rag.dev
      (?P<spaced> (?<![.!?…])[.!?…]++ (?:{_CLOSING}|[“‘«]) (?=\s|\Z) )
      # Greek and Armenian as they are typed; Ethiopic with two word dividers, or their look-alikes
    | (?: (?<=[\u0370-\u03ff\u1f00-\u1fff]); | (?<=[\u0531-\u058a]): | (?<=[\u1200-\u135a])(?:፡፡|::) )
      {_CLOSING} (?=\s|\Z)
      # no blank is needed
    | (?: [。！？｡．؟۔܀܁܂։\u037e।॥။፧፨៕᙮᠃᠉꓿꘎꘏⸮‼⁇⁈⁉]++ | [།༎༏]++ | ።፡? ) {_CLOSING}
    | (?<!។ល)។(?!ល។) {_CLOSING}  # but not in ។ល។, the Khmer "etc."
    | (?<={_HAN_AND_KANA})[!?.]++ {_CLOSING} (?={_HAN_AND_KANA})
      # layout
    | (?P<paragraph> \n[^\S\n]*+\n\s*+ )
    | (?<=[:;؛：；])\n
    | \n(?=[^\S\n]*+(?: [-*+•‣·–—|>\#] | \d{{1,3}}[.)] | [(\[]\w{{1,3}}[)\]] | \w\) )[^\S\n])
    | (?<={_THAI_OR_LAO})[^\S\n]*+\n(?={_THAI_OR_LAO})
    | (?P<clause> (?<={_THAI_OR_LAO})(?<!ແລະ|ຫຼື|ຫລື|และ)[^\S\n]++(?={_THAI_OR_LAO})(?!{_AND_OR_WHICH}) )
    """,
    re.VERBOSE,
)

_NAMES: Final = (
    "mr mrs ms dr prof rev gen col lt sgt capt st jr vs approx dept univ",  # English
    "hr fr dipl ing bzw ggf inkl vgl evtl ca mio mrd geb gest sog",  # German
    "mme mlle mgr sr sra srta dra ud uds avda sig dott avv",  # Romance
    "dhr mevr drs tzw tzn św ul inż tzv např mudr judr",  # Dutch, Polish, Czech
    "гг ул им проф акад тыс млн млрд руб см напр вул див",  # Russian, Ukrainian
    "δρ κα κος sn bkz tn ny gs ts tp डॉ प्रो श्री",  # Greek, Turkish, Indonesian, Vietnamese, Hindi
)
_NUMBERS: Final = (
    "no nos nr art arts abs fig figs vol ch cap chap sec para pp pg pag pág blz bd kap ziff anm tab abb núm num",
    "čl odst str ust pkt poz rys md ст пп гл рис табл стр чл άρθ αρ σελ παρ",
)

_BEFORE_NAMES: Final = frozenset(word for line in _NAMES for word in line.split())
"""Abbreviations in small letters, behind which a sentence goes on."""

_BEFORE_NUMBERS: Final = frozenset(word for line in _NUMBERS for word in line.split())
"""The same where a number follows, since some of them are words as well."""

_WORD_BEFORE: Final = re.compile(r"\S*\Z")
_AROUND_WORDS: Final = ".\"'“”„‘’«»‹›()[]¿¡"
_BEGINNING: Final = re.compile(r"\s*+[\"'“”‘’„«»‹›(\[¿¡§№–—-]*+\s?(?P<number>\d|[IVXLC]+\b)?(?P<letter>\w)?")
_LONGEST_ABBREVIATION: Final = 12


def sentences(text: str, *, limit: int = LIMIT) -> list[Span]:
    """The sentences of a text, as places in it, in order and without the blanks around them.

    Together they hold all of the text, up to the last of ``limit`` sentences. Blank lines end a sentence; single line
    ends do not, unless the next line begins an item of a list, for texts may be wrapped.

    >>> text = "Art. 1. All are born free. They have reason, e.g. to ask: why?"
    >>> [text[start:end] for start, end in sentences(text)]
    ['Art. 1. All are born free.', 'They have reason, e.g. to ask: why?']

    Args:
        text: In any script; Thai and Lao, which write no full stop, are cut at blanks.
        limit: At most so many.

    Returns:
        Pairs (start, end), so that ``text[start:end]`` is the sentence. None for a blank text.
    """
    found: list[Span] = []
    start = counted = width = 0
    apart = False
    for boundary in _BOUNDARY.finditer(text):
        kind, end = boundary.lastgroup, boundary.end()
        shortest = _SHORTEST_CLAUSE if kind == "clause" else _SHORTEST
        if kind == "spaced" and _goes_on(text, boundary):
            continue
        if width < shortest:  # every character is looked at once, however many boundaries are passed over
            width += _width(text[counted:end])
            counted = end
        if width == 0:
            apart = apart or kind == "paragraph"
        elif width >= shortest:
            found.append(_trimmed(text, start, end))
            if len(found) == limit:
                return found
            start = counted = end
            width, apart = 0, kind == "paragraph"
    rest = _trimmed(text, start, len(text))
    if rest[0] < rest[1]:
        width += _width(text[counted:])
        if found and (width == 0 or (width < _SHORTEST and not apart)):
            found[-1] = (found[-1][0], rest[1])
        else:
            found.append(rest)
    return found


def first_sentence(text: str) -> str:
    """The first sentence of at least a few words, on one line; at most 120 characters, cut between words.

    >>> first_sentence("Art. 1. All human beings are born free. They are endowed with reason.")
    'Art. 1. All human beings are born free.'
    """
    sentence = " ".join("".join(text[start:end] for start, end in sentences(text, limit=1)).split())
    if len(sentence) <= _LONGEST_QUERY:
        return sentence
    cut = sentence[:_LONGEST_QUERY]
    return cut.rpartition(" ")[0] or cut


def _goes_on(text: str, boundary: re.Match[str]) -> bool:
    """Whether a mark with a blank behind it stands inside a sentence."""
    following = _BEGINNING.match(text, boundary.end())
    assert following is not None  # it matches nothing as well
    letter = following["letter"] if following["number"] is None else None
    if letter is not None and letter.islower() and not _is_georgian(letter):
        return True
    if boundary[0] != ".":
        return False
    before = _WORD_BEFORE.search(text, max(0, boundary.start() - _LONGEST_ABBREVIATION), boundary.start())
    return before is not None and _is_abbreviation(before[0], number_follows=following["number"] is not None)


def _is_abbreviation(word: str, *, number_follows: bool) -> bool:
    """Whether the full stop behind a word belongs to the word."""
    parts = word.strip(_AROUND_WORDS).split(".")
    if len(parts) > 1:  # e.g., z.B., U.S., т.е., Ph.D.
        return all(part.isalpha() and len(part) <= 2 for part in parts)
    small = parts[0].lower()
    if small.isdigit():  # the 3rd of October is "3. Oktober" in a dozen languages
        return len(small) <= 2
    if len(small) == 1:  # J. R. R. Tolkien, and the same in alphabets without capitals
        return small.upper() != small or "\u05d0" <= small <= "\u064a"
    return small in _BEFORE_NAMES or (number_follows and small in _BEFORE_NUMBERS)


def _is_georgian(letter: str) -> bool:
    """Whether it is one of the letters that Unicode calls small, and with which sentences begin."""
    return "\u10d0" <= letter <= "\u10ff"


def _width(part: str) -> int:
    """Letters, marks and digits, wide ones twice; no further than it matters."""
    width = 0
    for each in part:
        if unicodedata.category(each)[0] in "LMN":
            width += 2 if unicodedata.east_asian_width(each) in "WF" else 1
            if width >= _SHORTEST_CLAUSE:
                break
    return width


def _trimmed(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())
