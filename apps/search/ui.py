"""All HTML and Markdown of the app is made here, and everything that is not ours is escaped first.

Streamlit has no notion of right-to-left text, so what a document says is set in HTML with ``dir="auto"``: the browser
then finds the direction of each paragraph itself. Scores and badges are elements of their own, whose digits stay put.
This file knows no model, no store and no widget.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from f2rag.corpus import UDHR_LANGUAGES

if TYPE_CHECKING:
    from f2rag import Hit

STYLE = """<style>
/* unicode-bidi: plaintext gives every paragraph, and what is typed, its own direction. */
.f2-text {unicode-bidi: plaintext; text-align: start; white-space: pre-line; margin: 0.5rem 0 0; line-height: 1.6;
  overflow-wrap: anywhere}
.f2-head, .f2-facts {display: flex; flex-wrap: wrap; gap: 0.25rem 0.75rem; align-items: baseline; font-size: 0.875rem}
.f2-facts {opacity: 0.75}
.f2-badge {border: 1px solid color-mix(in srgb, currentColor 35%, transparent); border-radius: 1rem;
  padding: 0 0.6rem; white-space: nowrap}
.f2-place {opacity: 0.75}
.f2-right {font-weight: 600}
.f2-score {margin-inline-start: auto; font-variant-numeric: tabular-nums; font-weight: 600}
@media (max-width: 640px) {.f2-place {order: 1; flex-basis: 100%}}
/* "Press Enter", "28/2000": in a box this low they lie on top of right-to-left text. */
[data-testid="stTextInput"] [data-testid="InputInstructions"] {display: none}
[data-testid="stTextInput"] input, [data-testid="stTextArea"] textarea {unicode-bidi: plaintext; text-align: start}
</style>"""

_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")
"""All ASCII punctuation: Markdown takes each of them literally after a backslash."""


def card(hit: Hit, *, answer: int | None = None) -> str:
    """A hit as HTML: language, place, score, and the text in its own direction.

    Args:
        hit: What was found.
        answer: The article that is known to answer the query; a hit of that article is marked.
    """
    article = hit.metadata.get("article")
    places = [hit.source, None if article is None else f"article {article}"]
    place = " · ".join(html.escape(str(part)) for part in places if part)
    if answer is not None and article == answer:
        place += ' <span class="f2-right">✓ the answer</span>'
    tag = html.escape(hit.language or "")
    badge = f'<span class="f2-badge" title="{tag}">{html.escape(language_name(hit.language))}</span>' if tag else ""
    return (
        f'<article><div class="f2-head">{badge}<span class="f2-place" dir="auto">{place}</span>'
        f'<span class="f2-score" title="cosine similarity">{hit.score:.3f}</span></div>'
        f'<p class="f2-text" dir="auto" lang="{tag}">{html.escape(hit.text)}</p></article>'
    )


def facts(parts: Iterable[str]) -> str:
    """A quiet line of short facts as HTML."""
    return f'<div class="f2-facts">{"".join(f"<span>{html.escape(part)}</span>" for part in parts)}</div>'


def language_name(tag: str | None) -> str:
    """A language's own name and its English one; the tag itself where the language is not known."""
    language = UDHR_LANGUAGES.get(tag or "")
    if language is None:
        return isolate(tag or "")
    if language.autonym == language.name:
        return language.name
    return f"{isolate(language.autonym)} · {language.name}"


def isolate(text: str) -> str:
    """Plain text whose direction neither follows nor changes that of what stands around it (U+2068, U+2069)."""
    return f"\u2068{text}\u2069"


def markdown(text: str) -> str:
    """Plain text as Markdown that shows exactly this text, line by line."""
    return _MARKDOWN.sub(r"\\\1", text).replace("\n", "  \n")
