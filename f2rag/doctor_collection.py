"""The checks behind ``f2rag doctor --collection``: what a collection holds, what it lacks, and how it is searched.

It loads no model. Each check says what it found in a sentence, and for what is wrong what to do.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from f2rag.doctor import Check, Finding, checked
from f2rag.store import QdrantStore, list_aliases
from f2rag.store.layout import LEXICAL, Layout

if TYPE_CHECKING:
    from f2rag.store.homes import HomeKind, Location
    from f2rag.types import Encoder

_HOMES: dict[HomeKind, str] = {
    "edge": "Qdrant's engine in this process, on a folder; one process at a time",
    "memory": "in memory, gone with this process",
    "client-local": "qdrant-client's own mode in pure Python, on a folder; one process at a time",
    "server": "a server, for any number of processes",
}

_STEPS = ("engine", "contract", "layout", "documents", "index", "completeness", "filters", "search", "aliases")

_SHOWN = 5
"""Languages that are named; of more, the number is told."""


def run_collection_checks(location: Location, collection: str, *, encoder: Encoder | None = None) -> Iterator[Check]:
    """Look at one collection; nothing is changed, and nothing is embedded.

    Args:
        location: As for ``QdrantStore.open``.
        collection: Its name, or an alias.
        encoder: Whether its vectors may go in is checked if it is given.

    Yields:
        One ``Check`` after the other, as soon as each is known.
    """
    stores: list[QdrantStore] = []

    def opened() -> Finding:
        store = QdrantStore.open(location, collection=collection, create=False)
        stores.append(store)
        return "ok", f"{store.location}: {_HOMES[store.home]}"

    yield checked("home", opened)
    if not stores:
        yield from (Check(name, "skipped", "needs the collection to be open") for name in _STEPS)
        return
    with stores[0] as store:
        examination = _CollectionExamination(store, location=location, encoder=encoder)
        for name in _STEPS:
            yield checked(name, getattr(examination, name))


class _CollectionExamination:
    """The steps of one run, each on its own."""

    def __init__(self, store: QdrantStore, *, location: Location, encoder: Encoder | None) -> None:
        self._store = store
        self._location = location
        self._encoder = encoder

    def engine(self) -> Finding:
        engine = self._store.status().engine
        if self._store.home in ("memory", "client-local"):
            return "warning", f"{engine}; it compares every vector, which is slow above some 20,000 documents"
        if self._store.home != "server":
            return "ok", engine
        return "ok", f"{engine}{_lacks(engine)}"

    def contract(self) -> Finding:
        contract = self._store.contract
        vectors = f"{contract.dimensions} of {contract.native_dimensions} dimensions"
        filled = f"filled by {contract.model} at {contract.revision[:12]}, {vectors}"
        if self._encoder is None:
            return "ok", filled
        self._store.check(
            self._encoder.contract(dimensions=min(self._store.dimensions, self._encoder.native_dimensions))
        )
        return "ok", f"{filled}; vectors of {self._encoder.model_name} may go in"

    def layout(self) -> Finding:
        return "ok", f"besides the full vectors: {layout_words(self._store.layout) or 'nothing'}"

    def documents(self) -> Finding:
        points = self._store.status().points
        if not points:
            return "warning", "none yet; store some with: f2rag index PATH"
        languages = self._store.languages()
        named = ", ".join(f"{language} {count:,}" for language, count in list(languages.items())[:_SHOWN])
        more = f" and {len(languages) - _SHOWN} more languages" if len(languages) > _SHOWN else ""
        return "ok", f"{points:,}" + (f": {named}{more}" if languages else "")

    def index(self) -> Finding:
        status = self._store.status()
        detail = f" ({status.detail})" if status.detail else ""
        if status.state == "ready":
            return "ok", f"ready{detail}"
        if status.state == "indexing":
            return "warning", f"being built; searches work meanwhile and are slower{detail}"
        if status.state == "waiting":
            return "warning", f"not finished when the server was restarted; it goes on at the next write{detail}"
        return "failed", f"the server cannot go on{detail}; its log says why"

    def completeness(self) -> Finding:
        missing = self._store.missing()
        if not missing:
            return "ok", "every document has every vector of the layout"
        lacking = ", ".join(f"{count:,} lack {name}" for name, count in missing.items())
        searches = [
            *(["the funnel"] if set(missing) - {LEXICAL} else []),
            *(["hybrid search"] if LEXICAL in missing else []),
        ]
        what = " and ".join(searches)
        command = f"f2rag backfill {self._store.collection}{_location_option(self._location)}"
        return "warning", f"{lacking}: {what} may not find them. Mend it with: {command}"

    def filters(self) -> Finding:
        fields = {
            path.removeprefix("metadata."): kind
            for path, kind in self._store.layout.indexes.items()
            if path != "doc_id"
        }
        named = ", ".join(name if kind == "keyword" else f"{name} ({kind})" for name, kind in fields.items())
        if self._store.home in ("memory", "client-local"):
            return "ok", "there are no indexes here; every document is compared with a filter"
        return "ok", f"indexed: {named}; filters on other fields read every document"

    def search(self) -> Finding:
        mode, reason = self._store.plan("auto")
        return "ok", f"mode auto takes {mode}: {reason}"

    def aliases(self) -> Finding:
        found = list_aliases(self._location)
        if target := found.get(self._store.collection):
            return "ok", f"{self._store.collection} is an alias of {target}"
        names = sorted(alias for alias, target in found.items() if target == self._store.collection)
        return "ok", f"also called {', '.join(names)}" if names else "none"


def layout_words(layout: Layout) -> str:
    """What a collection stores besides the full vectors, in a few words; empty where that is nothing."""
    parts = []
    if layout.levels:
        parts.append(f"levels {', '.join(map(str, layout.levels))}")
    if layout.quantization is not None:
        parts.append(layout.quantization)
    if layout.lexical is not None:
        parts.append("words" if layout.lexical.tokenizer == "multilingual" else f"words ({layout.lexical.tokenizer})")
    if layout.fields:
        parts.append(f"fields {', '.join(f'{name}:{kind}' for name, kind in layout.fields.items())}")
    return " · ".join(parts)


def _location_option(location: Location) -> str:
    """What a person adds to a command so that it goes there."""
    if isinstance(location, (str, os.PathLike)):
        return f" --location {shlex.quote(os.fspath(location))}"
    url = getattr(location, "url", None)
    if url is None:
        return ""
    return f" --location {url if isinstance(url, str) else ','.join(url)}"


def _lacks(engine: str) -> str:
    """What a server of this version cannot do, as the rest of a sentence."""
    from f2rag.store.features import SINCE, Feature, supports, version_of, version_text

    found = re.search(r"\d+\.\d+\.\d+", engine)
    if found is None:
        return ""
    features: list[Feature] = [name for name in get_args(Feature) if not supports(version_of(found[0]), name)]
    if not features:
        return ""
    named = ", ".join(f"{name.replace('_', ' ')} (from {version_text(SINCE[name])})" for name in features)
    return f"; it is too old for {named}"
