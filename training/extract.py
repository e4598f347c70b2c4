"""Reads the pinned packages into aligned rows, one function per file format."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import PurePosixPath
from typing import Any

from training import udhr
from training.languages import is_regional, language
from training.pins import HELP_SUFFIXES
from training.rows import Row, RowBuilder, TestGuard, clean, is_prose
from training.sources import Store

Catalogue = dict[str, str]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (path, string) of a nested JSON object."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}/{key}")
    elif isinstance(value, str):
        yield prefix, value


def read_mo(data: bytes) -> Iterator[tuple[str, str]]:
    """Yields (msgid, msgstr) of a compiled gettext catalogue, singular forms only."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    _, count, ids, strings = struct.unpack_from(order + "4I", data, 4)

    def text(table: int, index: int) -> str:
        length, start = struct.unpack_from(order + "2I", data, table + 8 * index)
        return data[start : start + length].decode("utf-8", "replace").split("\0")[0]

    for index in range(count):
        key = text(ids, index)
        if key:
            yield key.rpartition("\x04")[2], text(strings, index)


_PO_ENTRY = re.compile(
    r'^msgid ((?:"(?:[^"\\]|\\.)*"\s*)+)(?:^msgid_plural .*?)?^msgstr(?:\[0\])? ((?:"(?:[^"\\]|\\.)*"\s*)+)',
    re.M | re.S,
)
_PO_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def read_po(data: bytes) -> Iterator[tuple[str, str]]:
    """Yields (msgid, msgstr) of a gettext source catalogue; fuzzy entries are skipped."""
    for chunk in data.decode("utf-8").split("\n\n"):
        if re.search(r"^#,.*fuzzy", chunk, re.M):
            continue
        for match in _PO_ENTRY.finditer(chunk):
            key, value = (
                "".join(_PO_STRING.findall(part)).replace('\\"', '"').replace("\\n", " ") for part in match.groups()
            )
            if key and value:
                yield key, value


def gettext_rows(
    store: Store, package: str, suffix: str, reader: Callable[[bytes], Iterator[tuple[str, str]]]
) -> list[Row]:
    """Reads every catalogue `…/<locale>/LC_MESSAGES/*` of a wheel."""
    builder = RowBuilder(package)
    for name, data in store.files(package, contains="/LC_MESSAGES/", suffix=suffix):
        code = language(PurePosixPath(name).parent.parent.name)
        if code and code != "en" and "/dist/" not in name:
            for english, text in reader(data):
                builder.add(english, code, text)
    return builder.rows()


def _align(builder: RowBuilder, catalogues: dict[str, Catalogue]) -> None:
    english = catalogues.get("en", {})
    for code, catalogue in catalogues.items():
        if code != "en":
            for key, text in catalogue.items():
                if key in english:
                    builder.add(english[key], code, text)


def json_rows(store: Store, package: str, contains: str, pattern: str) -> list[Row]:
    """Reads JSON catalogues whose path matches `pattern` (named groups: locale, catalogue)."""
    builder, expression = RowBuilder(package), re.compile(pattern)
    found: dict[str, dict[str, Catalogue]] = defaultdict(dict)
    for name, data in store.files(package, contains=contains, suffix=".json"):
        match = expression.search(name)
        code = language(match["locale"]) if match else None
        if match and code:
            content = json.loads(data)
            # CLDR repeats the locale inside the file: {"main": {"de": …}}.
            content = content["main"][match["locale"]] if set(content) == {"main"} else content
            catalogues = found[match["catalogue"] or ""]
            if code not in catalogues or not is_regional(match["locale"]):
                catalogues[code] = dict(flatten(content))
    for catalogues in found.values():
        _align(builder, catalogues)
    return builder.rows()


def read_pak(data: bytes) -> Catalogue:
    """Returns resource id -> string of a Chromium data pack, version 5."""
    version, encoding, count, _ = struct.unpack_from("<IBxxxHH", data, 0)
    if version != 5:
        raise ValueError(f"Chromium data pack of version {version}; this reader knows version 5")
    entries = [struct.unpack_from("<HI", data, 12 + 6 * index) for index in range(count + 1)]
    codec = "utf-8" if encoding == 1 else "utf-16le"
    pairs = itertools.pairwise(entries)
    return {str(key): data[start:end].decode(codec, "replace") for (key, start), (_, end) in pairs}


def chromium_rows(store: Store) -> list[Row]:
    """Reads Chromium's locale packs; English is `en-US` of the other package."""
    builder = RowBuilder("chromium")
    catalogues: dict[str, Catalogue] = {}
    for package in ("chromium-common", "chromium-l10n"):
        for name, data in store.files(package, contains="/locales/", suffix=".pak"):
            code = language(PurePosixPath(name).stem)
            if code and "_" not in PurePosixPath(name).stem:
                catalogues[code] = read_pak(data)
    _align(builder, catalogues)
    return builder.rows()


def annotation_rows(store: Store) -> list[Row]:
    """Reads CLDR's names and keywords of pictographs."""
    builder = RowBuilder("cldr-annotations-full")
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, data in store.files("cldr-annotations-full", contains="annotations/", suffix="/annotations.json"):
        locale = PurePosixPath(name).parent.name
        code = language(locale)
        if code and not is_regional(locale):
            found[code] = json.loads(data)["annotations"]["annotations"]
    for code, entries in found.items():
        for symbol, entry in entries.items() if code != "en" else ():
            for field, limit in (("tts", 1), ("default", 8)):
                sides = [side.get(field, [])[:limit] for side in (found["en"].get(symbol, {}), entry)]
                builder.add(" ".join(sides[0]), code, " ".join(sides[1]))
    return builder.rows()


def typescript_rows(store: Store) -> list[Row]:
    """Reads TypeScript's diagnostics; the English text is spelled in the key."""
    builder = RowBuilder("typescript")
    for name, data in store.files("typescript", suffix="diagnosticMessages.generated.json"):
        code = language(PurePosixPath(name).parent.name)
        for key, text in json.loads(data).items() if code else ():
            builder.add(re.sub(r"_\d+$", "", key).replace("_", " "), str(code), text)
    return builder.rows()


_HELP_BLOCK = re.compile(r'<(h1|h2|h3|p)\b[^>]*?id="((?:par|hd)_id[^"]+)"[^>]*>(.*?)</\1>', re.S)


def help_rows(store: Store) -> list[Row]:
    """Reads LibreOffice help: paragraphs aligned by page and id, and the first paragraphs of a page joined to prose."""
    builder, prose = RowBuilder("libreoffice-help"), RowBuilder("libreoffice-help-pages")
    english: dict[str, dict[str, str]] = {}
    for suffix in HELP_SUFFIXES:
        code = language(suffix) or suffix
        for name, data in store.files(f"libreoffice-help-{suffix}", contains="/text/", suffix=".html"):
            page = name.partition("/text/")[2]
            blocks = {
                key: unescape(re.sub(r"<[^>]+>", "", text))
                for _, key, text in _HELP_BLOCK.findall(data.decode("utf-8", "replace"))
            }
            if suffix == "en-us":
                english[page] = blocks
                continue
            shared = [key for key in english.get(page, ()) if key in blocks]
            for key in shared:
                builder.add(english[page][key], code, blocks[key])
            changed = [key for key in shared if blocks[key] != english[page][key]]
            for start in range(0, min(len(changed), 8), 4):
                sides = (
                    " ".join(" ".join(side[key].split()) for key in changed[start : start + 4])
                    for side in (english[page], blocks)
                )
                prose.add(next(sides)[:900], code, next(sides)[:900])
    return [*builder.rows(), *(row for row in prose.rows() if len(row.english) > 80)]


#: The files read from CLDR's packages beside the annotations.
CLDR_FILES = {
    "cldr-localenames-full": "territories|languages",
    "cldr-dates-full": "dateFields|ca-gregorian",
    "cldr-units-full": "units",
}
CHAT_LANGUAGES = {
    "bengali": "bn", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "hebrew": "he",
    "hindi": "hi", "indonesian": "id", "italian": "it", "japanese": "ja", "korean": "ko", "persian": "fa",
    "portuguese": "pt", "russian": "ru", "spanish": "es", "swedish": "sv", "tamil": "ta", "thai": "th", "turkish": "tr",
    "ukrainian": "uk",
}  # fmt: skip
_CHAT_LINE = re.compile(r"^\s*-\s+(?:-\s+)?(\S.*)$", re.M)


def chat_texts(store: Store) -> dict[str, str]:
    """Reads small talk (not aligned: each text gets the teacher's vector of itself): text -> language."""
    found: dict[str, str] = {}
    for name, data in store.files("chatterbot-corpus", contains="/data/", suffix=".yml"):
        code = CHAT_LANGUAGES.get(PurePosixPath(name).parent.name)
        conversations = data.decode("utf-8").partition("conversations:")[2]
        for line in _CHAT_LINE.findall(conversations) if code else ():
            text = clean(line.strip("'\""))
            if is_prose(text) and len(text) <= 300:
                found.setdefault(text, str(code))
    return found


def all_rows(store: Store) -> Iterator[list[Row]]:
    """Yields the rows of each source."""
    yield json_rows(
        store, "homeassistant", "/translations/", r"components/(?P<catalogue>.*)/translations/(?P<locale>[^/.]+)\.json$"
    )
    yield json_rows(
        store,
        "home-assistant-frontend",
        "static/translations/",
        r"translations/(?:(?P<catalogue>.*)/)?(?P<locale>[A-Za-z_-]+)-[0-9a-f]{16,}\.json$",
    )
    yield gettext_rows(store, "apache_superset", ".po", read_po)
    yield gettext_rows(store, "kolibri", ".mo", read_mo)
    yield json_rows(
        store, "kolibri", "/locale/", r"locale/(?P<locale>[^/]+)/LC_MESSAGES/(?P<catalogue>.*)-messages\.json$"
    )
    yield gettext_rows(store, "wagtail", ".mo", read_mo)
    yield gettext_rows(store, "django", ".mo", read_mo)
    yield chromium_rows(store)
    yield annotation_rows(store)
    for package, files in CLDR_FILES.items():
        yield json_rows(store, package, "/main/", rf"/main/(?P<locale>[^/]+)/(?P<catalogue>{files})\.json$")
    yield typescript_rows(store)
    yield help_rows(store)
    yield declaration_rows(store)


def declaration_rows(store: Store) -> list[Row]:
    """Returns articles 16-30 of the declaration."""
    groups = udhr.training_groups(udhr.load(store))
    return [Row("udhr", group["en"], {code: text for code, text in group.items() if code != "en"}) for group in groups]


def guarded(rows: list[Row], guard: TestGuard) -> list[Row]:
    """Drops test text from every side of the rows."""
    kept = []
    for row in rows:
        texts = {code: text for code, text in row.texts.items() if guard.allows(text)}
        if texts and guard.allows(row.english):
            kept.append(Row(row.source, row.english, texts))
    return kept
