"""All HTML and Markdown of the app is made here, and everything that is not ours is escaped first.

Streamlit has no notion of right-to-left text, so what a document says is set in HTML with ``dir="auto"``: the browser
then finds the direction of each paragraph itself. Scores and badges are elements of their own, whose digits stay put.
This file knows no model, no store and no widget.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from f2rag.corpus import UDHR_LANGUAGES

if TYPE_CHECKING:
    from f2rag import Highlight, Hit

STYLE = """<style>
/* unicode-bidi: plaintext gives every paragraph, and what is typed, its own direction. */
.f2-text {unicode-bidi: plaintext; text-align: start; white-space: pre-line; margin: 0.5rem 0 0; line-height: 1.6;
  overflow-wrap: anywhere; max-height: 16rem; overflow-y: auto}
.f2-text mark {background: color-mix(in srgb, #f5b301 32%, transparent); color: inherit; border-radius: 0.2rem;
  padding: 0.05rem 0; box-decoration-break: clone; -webkit-box-decoration-break: clone}
.f2-head, .f2-facts {display: flex; flex-wrap: wrap; gap: 0.25rem 0.75rem; align-items: baseline; font-size: 0.875rem}
.f2-facts {opacity: 0.75}
.f2-badge {border: 1px solid color-mix(in srgb, currentColor 35%, transparent); border-radius: 1rem;
  padding: 0 0.6rem; white-space: nowrap}
.f2-place {opacity: 0.75; overflow-wrap: anywhere; min-width: 0}
.f2-right {font-weight: 600}
.f2-score {margin-inline-start: auto; font-variant-numeric: tabular-nums; font-weight: 600}
/* One hue for each shared hit; its number says the same to those who see no hues. */
.f2-pair {display: inline-block; min-width: 1.6rem; text-align: center; border-radius: 0.4rem; font-weight: 600;
  padding: 0 0.3rem; background: color-mix(in srgb, hsl(var(--f2-hue) 75% 50%) 30%, transparent);
  box-shadow: inset 0 0 0 1px hsl(var(--f2-hue) 65% 45%)}
.f2-alone {display: inline-block; border: 1px dashed color-mix(in srgb, currentColor 45%, transparent);
  border-radius: 0.4rem; padding: 0 0.4rem; white-space: nowrap}
.f2-change {font-variant-numeric: tabular-nums; white-space: nowrap}
.f2-table {border-collapse: collapse; font-size: 0.875rem; width: 100%}
.f2-scroll {overflow-x: auto}
.f2-table th, .f2-table td {text-align: start; padding: 0.3rem 0.9rem 0.3rem 0; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); font-variant-numeric: tabular-nums}
.f2-table thead th {font-weight: 600; opacity: 0.75; white-space: nowrap}
.f2-table tbody th {font-weight: 500; white-space: nowrap}
.f2-table tr.f2-chosen {background: color-mix(in srgb, #14b8a6 18%, transparent)}
.f2-narrow .f2-place {order: 1; flex-basis: 100%}
.f2-pairs td {overflow-wrap: anywhere}
@media (max-width: 640px) {
  .f2-place {order: 1; flex-basis: 100%}
  .f2-table tbody th {white-space: normal}
  .stMain .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem}
}
/* "Press Enter", "28/2000": in a box this low they lie on top of right-to-left text. */
[data-testid="stTextInput"] [data-testid="InputInstructions"] {display: none}
[data-testid="stTextInput"] input, [data-testid="stTextArea"] textarea {unicode-bidi: plaintext; text-align: start}
/* What is shown where the pointer is on a map. */
#vg-tooltip-element td.value {unicode-bidi: plaintext; text-align: start; overflow-wrap: anywhere}
.stMain .stMainBlockContainer {padding-top: 4.5rem; max-width: 80rem}
.stMain .stMainBlockContainer h1 {font-size: 2rem; padding-bottom: 0.25rem}
[class*="st-key-similar-"] button {min-height: 0; padding-top: 0.5rem; font-size: 0.875rem; opacity: 0.85}
</style>"""

_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")
"""All ASCII punctuation: Markdown takes each of them literally after a backslash."""

_POSITIONS = ("article", "page", "row", "chunk")
"""Metadata that says where in its source a text stands."""

_HUES = (172, 32, 262, 330, 205, 85, 0, 290, 50, 140)


def card(
    hit: Hit,
    *,
    mode: str = "exact",
    highlight: Highlight | None = None,
    answer: int | None = None,
    badge: str = "",
) -> str:
    """A hit as HTML: language, place, score, and the text in its own direction.

    Args:
        hit: What was found.
        mode: How it was searched, which says what the score is.
        highlight: The sentence that is marked.
        answer: The article that is known to answer the query; a hit of that article is marked.
        badge: What ``pair`` or ``alone`` made, to come first on a card in a narrow column.
    """
    tag = html.escape(hit.language or "")
    language = f'<span class="f2-badge" title="{tag}">{html.escape(language_name(hit.language))}</span>' if tag else ""
    head = "f2-head f2-narrow" if badge else "f2-head"
    meaning = "sum of reciprocal ranks" if mode == "hybrid" else "cosine similarity"
    return (
        f'<article><div class="{head}">{badge}{language}<span class="f2-place" dir="auto">{_place(hit, answer)}</span>'
        f'<span class="f2-score" title="{meaning}">{hit.score:.3f}</span></div>'
        f'<p class="f2-text" dir="auto" lang="{tag}">{_marked(hit.text, highlight)}</p></article>'
    )


def pair(number: int, change: int | None) -> str:
    """The badge of a hit that both sides found.

    Args:
        number: Its rank on the left side, which both sides show.
        change: By how many ranks it stands higher than there; ``None`` on the left side itself.
    """
    hue = _HUES[(number - 1) % len(_HUES)]
    label = f'<span class="f2-pair" style="--f2-hue: {hue}" title="found by both, number {number} left">{number}</span>'
    if change is None:
        return label
    arrow = f"↑{change}" if change > 0 else f"↓{-change}" if change < 0 else "="
    words = "same rank" if not change else f"{abs(change)} {'higher' if change > 0 else 'lower'} than left"
    return f'{label}<span class="f2-change" title="{words}">{arrow}</span>'


def alone() -> str:
    """The badge of a hit that the other side has not."""
    return '<span class="f2-alone">only here</span>'


def facts(parts: Iterable[str]) -> str:
    """A quiet line of short facts as HTML."""
    return f'<div class="f2-facts">{"".join(f"<span>{html.escape(part)}</span>" for part in parts)}</div>'


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), chosen: int | None = None) -> str:
    """A table as HTML; the first cell of each row is its heading.

    Args:
        rows: Plain text.
        head: Headings of the columns.
        chosen: The row that stands out.
    """
    titles = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    body = ""
    for number, (first, *rest) in enumerate(rows):
        mark = ' class="f2-chosen"' if number == chosen else ""
        cells = "".join(f'<td dir="auto">{html.escape(cell)}</td>' for cell in rest)
        body += f'<tr{mark}><th scope="row">{html.escape(first)}</th>{cells}</tr>'
    heading = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    kind = "f2-table" if head else "f2-table f2-pairs"
    return f'<div class="f2-scroll"><table class="{kind}">{heading}<tbody>{body}</tbody></table></div>'


def language_name(tag: str | None) -> str:
    """A language's own name and its English one; the tag itself where the language is not known."""
    language = UDHR_LANGUAGES.get(tag or "")
    if language is None:
        return isolate(tag or "")
    if language.autonym == language.name:
        return language.name
    return f"{isolate(language.autonym)} · {language.name}"


def language_sort_key(tag: str) -> str:
    """Languages in the order of their English names."""
    return UDHR_LANGUAGES[tag].name if tag in UDHR_LANGUAGES else tag


def isolate(text: str) -> str:
    """Plain text whose direction neither follows nor changes that of what stands around it (U+2068, U+2069)."""
    return f"\u2068{text}\u2069"


def shorten(text: str, *, length: int = 80) -> str:
    """Plain text in one line of at most ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def markdown(text: str) -> str:
    """Plain text as Markdown that shows exactly this text, line by line."""
    return _MARKDOWN.sub(r"\\\1", text).replace("\n", "  \n")


def _place(hit: Hit, answer: int | None) -> str:
    """Where a hit stands, and whether it is the answer."""
    positions = [f"{name} {hit.metadata[name]}" for name in _POSITIONS if hit.metadata.get(name) not in (None, "")]
    place = " · ".join(html.escape(str(part)) for part in (hit.source, *positions) if part)
    if answer is not None and hit.metadata.get("article") == answer:
        place += ' <span class="f2-right">✓ the answer</span>'
    return place


def _marked(text: str, highlight: Highlight | None) -> str:
    """A text, escaped, with the best sentence marked."""
    if highlight is None:
        return html.escape(text)
    before, best, after = text[: highlight.start], text[highlight.start : highlight.end], text[highlight.end :]
    return f"{html.escape(before)}<mark>{html.escape(best)}</mark>{html.escape(after)}"
