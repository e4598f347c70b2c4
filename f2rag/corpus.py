"""The texts that ship with f2rag: the Universal Declaration of Human Rights, and everyday sentences.

The Declaration is the same thirty articles in every language, so the right answer to a question is known in
all of
them: it is what the demo searches and what tests of meaning across languages use. The stand-in was trained on
articles 16 to 30 and has never seen articles 1 to 15, nor the everyday sentences. This file knows no model
and no database; ``training/build_corpus.py`` makes the data file that it reads.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from f2rag.errors import DocumentError
from f2rag.types import Document

UDHR_SOURCE = "Universal Declaration of Human Rights"
"""The ``source`` of every document of the Declaration."""

RIGHT_TO_LEFT_SCRIPTS = frozenset({"Arabic", "Hebrew", "Syriac", "Thaana"})
"""Scripts of the table below that run from right to left."""


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """A language of the Declaration.

    Attributes:
        tag: BCP 47 tag, the ``language`` of its documents.
        name: English name.
        autonym: The language's name for itself.
        script: English name of its script.
    """

    tag: str
    name: str
    autonym: str
    script: str

    @property
    def direction(self) -> Literal["ltr", "rtl"]:
        """Which way the text runs."""
        return "rtl" if self.script in RIGHT_TO_LEFT_SCRIPTS else "ltr"


# fmt: off
_LANGUAGES = (
    Language("af", "Afrikaans", "Afrikaans", "Latin"),
    Language("aii", "Assyrian Neo-Aramaic", "ܣܘܪܝܬ", "Syriac"),
    Language("am", "Amharic", "አማርኛ", "Ethiopic"),
    Language("ar", "Arabic", "العربية", "Arabic"),
    Language("az", "Azerbaijani", "Azərbaycanca", "Latin"),
    Language("be", "Belarusian", "Беларуская", "Cyrillic"),
    Language("bg", "Bulgarian", "Български", "Cyrillic"),
    Language("bn", "Bengali", "বাংলা", "Bengali"),
    Language("bo", "Tibetan", "བོད་ཡིག", "Tibetan"),
    Language("br", "Breton", "Brezhoneg", "Latin"),
    Language("bs", "Bosnian", "Bosanski", "Latin"),
    Language("ca", "Catalan", "Català", "Latin"),
    Language("ceb", "Cebuano", "Cebuano", "Latin"),
    Language("chr", "Cherokee", "ᏣᎳᎩ", "Cherokee"),
    Language("cs", "Czech", "Čeština", "Latin"),
    Language("cy", "Welsh", "Cymraeg", "Latin"),
    Language("da", "Danish", "Dansk", "Latin"),
    Language("de", "German", "Deutsch", "Latin"),
    Language("dv", "Dhivehi", "ދިވެހި", "Thaana"),
    Language("el", "Greek", "Ελληνικά", "Greek"),
    Language("en", "English", "English", "Latin"),
    Language("eo", "Esperanto", "Esperanto", "Latin"),
    Language("es", "Spanish", "Español", "Latin"),
    Language("et", "Estonian", "Eesti", "Latin"),
    Language("eu", "Basque", "Euskara", "Latin"),
    Language("fa", "Persian", "فارسی", "Arabic"),
    Language("fi", "Finnish", "Suomi", "Latin"),
    Language("fo", "Faroese", "Føroyskt", "Latin"),
    Language("fr", "French", "Français", "Latin"),
    Language("ga", "Irish", "Gaeilge", "Latin"),
    Language("gd", "Scottish Gaelic", "Gàidhlig", "Latin"),
    Language("gl", "Galician", "Galego", "Latin"),
    Language("gn", "Guarani", "Avañe'ẽ", "Latin"),
    Language("gu", "Gujarati", "ગુજરાતી", "Gujarati"),
    Language("ha", "Hausa", "Hausa", "Latin"),
    Language("haw", "Hawaiian", "ʻŌlelo Hawaiʻi", "Latin"),
    Language("he", "Hebrew", "עברית", "Hebrew"),
    Language("hi", "Hindi", "हिन्दी", "Devanagari"),
    Language("hr", "Croatian", "Hrvatski", "Latin"),
    Language("ht", "Haitian Creole", "Kreyòl ayisyen", "Latin"),
    Language("hu", "Hungarian", "Magyar", "Latin"),
    Language("hy", "Armenian", "Հայերեն", "Armenian"),
    Language("id", "Indonesian", "Bahasa Indonesia", "Latin"),
    Language("ig", "Igbo", "Igbo", "Latin"),
    Language("ii", "Nuosu", "ꆈꌠꉙ", "Yi"),
    Language("is", "Icelandic", "Íslenska", "Latin"),
    Language("it", "Italian", "Italiano", "Latin"),
    Language("ja", "Japanese", "日本語", "Japanese"),
    Language("jv", "Javanese", "Basa Jawa", "Latin"),
    Language("ka", "Georgian", "ქართული", "Georgian"),
    Language("kk", "Kazakh", "Қазақ тілі", "Cyrillic"),
    Language("km", "Khmer", "ខ្មែរ", "Khmer"),
    Language("kn", "Kannada", "ಕನ್ನಡ", "Kannada"),
    Language("ko", "Korean", "한국어", "Hangul"),
    Language("ku", "Kurdish", "Kurdî", "Latin"),
    Language("ky", "Kyrgyz", "Кыргызча", "Cyrillic"),
    Language("lb", "Luxembourgish", "Lëtzebuergesch", "Latin"),
    Language("ln", "Lingala", "Lingála", "Latin"),
    Language("lo", "Lao", "ລາວ", "Lao"),
    Language("lt", "Lithuanian", "Lietuvių", "Latin"),
    Language("lv", "Latvian", "Latviešu", "Latin"),
    Language("mg", "Malagasy", "Malagasy", "Latin"),
    Language("mk", "Macedonian", "Македонски", "Cyrillic"),
    Language("ml", "Malayalam", "മലയാളം", "Malayalam"),
    Language("mn", "Mongolian", "Монгол", "Cyrillic"),
    Language("mr", "Marathi", "मराठी", "Devanagari"),
    Language("ms", "Malay", "Bahasa Melayu", "Latin"),
    Language("mt", "Maltese", "Malti", "Latin"),
    Language("my", "Burmese", "မြန်မာ", "Myanmar"),
    Language("nb", "Norwegian Bokmål", "Norsk bokmål", "Latin"),
    Language("ne", "Nepali", "नेपाली", "Devanagari"),
    Language("nl", "Dutch", "Nederlands", "Latin"),
    Language("nn", "Norwegian Nynorsk", "Norsk nynorsk", "Latin"),
    Language("ny", "Chichewa", "Chicheŵa", "Latin"),
    Language("om", "Oromo", "Afaan Oromoo", "Latin"),
    Language("pa", "Punjabi", "ਪੰਜਾਬੀ", "Gurmukhi"),
    Language("pl", "Polish", "Polski", "Latin"),
    Language("ps", "Pashto", "پښتو", "Arabic"),
    Language("pt", "Portuguese", "Português", "Latin"),
    Language("qu", "Quechua", "Runasimi", "Latin"),
    Language("ro", "Romanian", "Română", "Latin"),
    Language("ru", "Russian", "Русский", "Cyrillic"),
    Language("rw", "Kinyarwanda", "Ikinyarwanda", "Latin"),
    Language("sa", "Sanskrit", "संस्कृतम्", "Devanagari"),
    Language("si", "Sinhala", "සිංහල", "Sinhala"),
    Language("sk", "Slovak", "Slovenčina", "Latin"),
    Language("sl", "Slovenian", "Slovenščina", "Latin"),
    Language("sn", "Shona", "ChiShona", "Latin"),
    Language("so", "Somali", "Soomaali", "Latin"),
    Language("sq", "Albanian", "Shqip", "Latin"),
    Language("sr", "Serbian", "Српски", "Cyrillic"),
    Language("sr-Latn", "Serbian (Latin)", "Srpski", "Latin"),
    Language("su", "Sundanese", "Basa Sunda", "Latin"),
    Language("sv", "Swedish", "Svenska", "Latin"),
    Language("sw", "Swahili", "Kiswahili", "Latin"),
    Language("ta", "Tamil", "தமிழ்", "Tamil"),
    Language("te", "Telugu", "తెలుగు", "Telugu"),
    Language("tg", "Tajik", "Тоҷикӣ", "Cyrillic"),
    Language("th", "Thai", "ไทย", "Thai"),
    Language("ti", "Tigrinya", "ትግርኛ", "Ethiopic"),
    Language("tk", "Turkmen", "Türkmençe", "Latin"),
    Language("tl", "Tagalog", "Tagalog", "Latin"),
    Language("tr", "Turkish", "Türkçe", "Latin"),
    Language("tt", "Tatar", "Татарча", "Cyrillic"),
    Language("ug", "Uyghur", "ئۇيغۇرچە", "Arabic"),
    Language("uk", "Ukrainian", "Українська", "Cyrillic"),
    Language("ur", "Urdu", "اردو", "Arabic"),
    Language("uz", "Uzbek", "Oʻzbekcha", "Latin"),
    Language("vi", "Vietnamese", "Tiếng Việt", "Latin"),
    Language("wo", "Wolof", "Wolof", "Latin"),
    Language("xh", "Xhosa", "isiXhosa", "Latin"),
    Language("yi", "Yiddish", "ייִדיש", "Hebrew"),
    Language("yo", "Yoruba", "Yorùbá", "Latin"),
    Language("zgh", "Standard Moroccan Tamazight", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "Tifinagh"),
    Language("zh", "Chinese", "简体中文", "Han"),
    Language("zh-Hant", "Chinese (Traditional)", "繁體中文", "Han"),
    Language("zu", "Zulu", "isiZulu", "Latin"),
)
# fmt: on

UDHR_LANGUAGES: Mapping[str, Language] = MappingProxyType({language.tag: language for language in _LANGUAGES})
"""Every language of the Declaration that ships with f2rag, by tag, sorted by tag."""


def load_udhr(languages: Iterable[str] | None = None) -> list[Document]:
    """Load the Declaration, one document per article.

    The id is ``udhr:<language>:<article>``; ``metadata`` holds ``article`` (1 to 30), ``title`` (the native
    heading), ``language_name``, ``autonym``, ``script`` and ``direction``.

    Args:
        languages: BCP 47 tags of ``UDHR_LANGUAGES``; all of them when not given.

    Returns:
        Thirty documents per language, in the order of the tags and the articles. An article of several
        paragraphs is one text with the paragraphs on lines of their own.

    Raises:
        DocumentError: A tag that the Declaration does not have here.
    """
    return [
        Document(
            id=f"udhr:{language.tag}:{metadata['article']}",
            text="\n".join(paragraphs),
            language=language.tag,
            source=UDHR_SOURCE,
            metadata=metadata,
        )
        for language, metadata, paragraphs in _articles(languages)
    ]


def load_udhr_paragraphs(languages: Iterable[str] | None = None) -> list[Document]:
    """Load the Declaration, one document per paragraph.

    The id is ``udhr:<language>:<article>:<paragraph>``, both counted from one; ``metadata`` has ``paragraph``
    besides the keys of ``load_udhr``. English has 50 paragraphs, and so have nearly all languages.

    Args:
        languages: BCP 47 tags of ``UDHR_LANGUAGES``; all of them when not given.

    Returns:
        The documents in the order of the tags, the articles and the paragraphs.

    Raises:
        DocumentError: A tag that the Declaration does not have here.
    """
    return [
        Document(
            id=f"udhr:{language.tag}:{metadata['article']}:{number}",
            text=paragraph,
            language=language.tag,
            source=UDHR_SOURCE,
            metadata={**metadata, "paragraph": number},
        )
        for language, metadata, paragraphs in _articles(languages)
        for number, paragraph in enumerate(paragraphs, start=1)
    ]


def load_everyday() -> dict[str, list[str]]:
    """Load 24 everyday sentences by language, translations of each other in the same order.

    They are our own text, on topics that the Declaration does not touch: weather, food, travel, sport and so
    on.
    """
    stored: dict[str, list[str]] = json.loads(_data("everyday.json").decode("utf-8"))
    return stored


def _articles(languages: Iterable[str] | None) -> Iterator[tuple[Language, dict[str, Any], list[str]]]:
    wanted = list(UDHR_LANGUAGES) if languages is None else _known(languages)
    texts = _declaration()
    for tag in wanted:
        language = UDHR_LANGUAGES[tag]
        for number, (title, paragraphs) in enumerate(texts[tag], start=1):
            metadata = {
                "article": number,
                "title": title,
                "language_name": language.name,
                "autonym": language.autonym,
                "script": language.script,
                "direction": language.direction,
            }
            yield language, metadata, paragraphs


def _known(languages: Iterable[str]) -> list[str]:
    if isinstance(languages, str):  # a string is an iterable of letters, never what is meant
        languages = [languages]
    tags = list(languages)
    unknown = [tag for tag in tags if tag not in UDHR_LANGUAGES]
    if unknown:
        message = (
            f"The Declaration does not ship in {', '.join(map(repr, unknown))}. "
            f"Expected tags of f2rag.corpus.UDHR_LANGUAGES: {', '.join(UDHR_LANGUAGES)}."
        )
        raise DocumentError(message)
    return tags


@functools.cache
def _declaration() -> Mapping[str, list[tuple[str, list[str]]]]:
    """Title and paragraphs of the thirty articles, by language; read once, about 20 ms."""
    lines = lzma.decompress(_data("udhr.jsonl.xz")).decode("utf-8").splitlines()
    rows = map(json.loads, lines)
    return {row["language"]: [(title, paragraphs) for title, *paragraphs in row["articles"]] for row in rows}


def _data(name: str) -> bytes:
    return importlib.resources.files("f2rag").joinpath("data", "corpus", name).read_bytes()
