"""What all browser sessions share: one model, one open home of collections, and one engine over each of them.

The model is loaded once for what is set (model, revision, device, dtype and so on); a vector size is chosen search by
search and loads nothing. Each collection is stored once, at the model's own width: its shorter sizes are levels beside
that. This file draws nothing.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jobs
import streamlit as st
from jobs import OnProgress, Report

from f2rag import F2LLMEncoder, SearchEngine
from f2rag.corpus import load_udhr
from f2rag.demo import DEMO_LANGUAGES, STAND_IN, choose_model
from f2rag.errors import ContractMismatchError, ModelLoadError
from f2rag.models import mrl_ladder
from f2rag.settings import Settings, load_settings
from f2rag.store import CollectionInfo, Collections, Layout, Lexical
from f2rag.store.agreement import refuse_mismatch

T = TypeVar("T")

SMALLEST = 64
"""The smallest level of the app's own collections; below it, hits get visibly worse."""

BUNDLED_TITLE = "Universal Declaration of Human Rights"

_WINDOW = 128
"""Articles per step of the progress bar."""

_FRESH_SECONDS = 10.0
"""How long a listing of the collections or of their languages is taken as it was: every click asks for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """The model that runs.

    Attributes:
        encoder: It, loaded.
        settings: What it was made from.
        reason: Why it is this one.
        description: What runs where, in one line.
    """

    encoder: F2LLMEncoder
    settings: Settings
    reason: str
    description: str


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A collection as the app offers it.

    Attributes:
        name: Of the collection.
        title: What people read.
        info: What it holds; of the bundled corpus also before it is there, with no points.
        problem: Why this model cannot search it, in the library's words; ``None`` where it can.
    """

    name: str
    title: str
    info: CollectionInfo
    problem: str | None


def running_model(on_progress: OnProgress | None = None) -> Model:
    """The model that the settings name; else F2LLM-v2-80M where it can be had, else the stand-in.

    It is loaded once, in a job of its own.

    Args:
        on_progress: Called while it is loading.

    Raises:
        F2RagError: A setting is wrong, or the model cannot be used. Nothing is remembered then; the next call tries
            again.
    """
    settings = load_settings()
    key = "model:" + repr(sorted((name, str(value)) for name, value in settings.encoder_arguments().items()))
    model = jobs.start(key, lambda report: _load(settings, report), keep=True).wait(on_progress)
    return dataclasses.replace(model, settings=settings)


def _load(settings: Settings, report: Report) -> Model:
    given = settings.model if "model" in settings.model_fields_set else None
    report(0, 3, "Choosing the model")
    choice = choose_model(given, local_files_only=settings.local_files_only, cache_folder=settings.cache_folder)
    try:
        encoder, description = _warm(settings, choice.model, report)
    except ModelLoadError as error:
        if given is not None or choice.model == STAND_IN:
            raise
        reason = f"{choice.model} could not be had: {str(error).splitlines()[0]}"
        encoder, description = _warm(settings, STAND_IN, report)
        return Model(encoder=encoder, settings=settings, reason=reason, description=description)
    return Model(encoder=encoder, settings=settings, reason=choice.reason, description=description)


def _warm(settings: Settings, model: str, report: Report) -> tuple[F2LLMEncoder, str]:
    encoder = F2LLMEncoder(**{**settings.encoder_arguments(), "model": model})
    try:
        report(1, 3, f"Fetching {encoder.model_name}, which takes a while the first time")
        encoder.fetch()
        report(2, 3, f"Loading {encoder.model_name}")
        return encoder, encoder.warm_up()
    except BaseException:
        encoder.close()
        raise


class Workspace:
    """The collections of the home that is set, and the engines over them. Sessions and jobs share it.

    Nothing that failed is remembered: the next call tries again.

    Args:
        model: Makes the vectors.
        home: Keeps them; closed with the workspace.
    """

    def __init__(self, model: Model, home: Collections) -> None:
        self._model = model
        self._home = home
        self._engines: dict[str, SearchEngine] = {}
        self._lock = threading.RLock()
        self._complete = False
        self._recent: dict[str, tuple[float, Any]] = {}

    @property
    def model(self) -> Model:
        """The model that all engines use."""
        return self._model

    @property
    def location(self) -> str:
        """Where the collections lie, without secrets: a folder, ``":memory:"`` or the address of a server."""
        return self._home.location

    @property
    def bundled(self) -> str:
        """Name of the bundled corpus, made of what is in it, so that no other model's vectors are ever met there."""
        encoder = self._model.encoder
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", encoder.model_name)[-80:]
        return f"udhr-{name}-{encoder.contract().fingerprint[:8]}"

    @property
    def default(self) -> str:
        """The collection that is shown unless the address names another one."""
        settings = self._model.settings
        return settings.collection if "collection" in settings.model_fields_set else self.bundled

    def layout(self) -> Layout:
        """The layout of the app's own collections: what is set, else all sizes to compare, and words for hybrid."""
        encoder = self._model.encoder
        trained = mrl_ladder(encoder.native_dimensions)
        levels = tuple(size for size in trained if SMALLEST <= size < encoder.dimensions)
        base = Layout(levels=levels, lexical=Lexical())
        return self._model.settings.layout(base=base) or base

    def collections(self) -> list[Entry]:
        """All collections, the default one first, then the bundled one; at most ten seconds old (``refresh``).

        Raises:
            StoreError: The home cannot be read.
        """
        return self._recently("collections", self._list)

    def refresh(self) -> None:
        """Forget what was listed: collections or documents have changed."""
        with self._lock:
            self._recent.clear()

    def engine(self, name: str, *, create: bool = False) -> SearchEngine:
        """The engine over a collection; opened once, and shared by all.

        Every ten seconds it is looked whether another program has dropped or replaced the collection meanwhile.

        Args:
            name: Of the collection, or an alias.
            create: Make it, at the encoder's width and with ``layout()``, if it is absent.

        Raises:
            CollectionNotFoundError: It is absent, and ``create`` is false.
            ContractMismatchError: Another model, or something else than f2rag, filled it.
            StoreError: It cannot be opened.
        """
        with self._lock:
            return self._recently(f"engine:{name}", lambda: self._open(name, create=create))

    def ensure_bundled(self, on_progress: OnProgress | None = None) -> SearchEngine:
        """The engine over the bundled corpus, complete; it is indexed when it is first asked for, in a job of its own.

        Args:
            on_progress: Called while it is being indexed.

        Raises:
            StoreError: It cannot be opened or filled.
        """
        if not self._complete:
            jobs.start(f"index:{self.bundled}", self._index_bundled).wait(on_progress)
        return self.engine(self.bundled)

    def ready(self, name: str, on_progress: OnProgress | None = None) -> SearchEngine:
        """``ensure_bundled`` for that collection, ``engine`` for any other."""
        return self.ensure_bundled(on_progress) if name == self.bundled else self.engine(name)

    def languages(self, name: str) -> dict[str, int]:
        """The languages of a collection with their numbers, the most frequent first; at most ten seconds old.

        Raises:
            StoreError: The collection failed.
        """
        return self._recently(f"languages:{name}", lambda: self.engine(name).store.languages())

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents.

        Raises:
            CollectionNotFoundError: It is absent.
            StoreError: It cannot be deleted.
        """
        with self._lock:
            self._complete = self._complete and name != self.bundled
            self._engines.pop(name, None)
            self._home.drop(name)
            self.refresh()

    def close(self) -> None:
        """Let go of all collections."""
        with self._lock:
            self._engines.clear()
            self._recent.clear()
            self._home.close()

    def _open(self, name: str, *, create: bool) -> SearchEngine:
        encoder = self._model.encoder
        if create and name not in self._names():
            store = self._home.open(name, contract=encoder.contract(), layout=self.layout())
            self._recent.pop("collections", None)
        else:
            store = self._home.open(name, create=False)
        known = self._engines.get(store.collection)
        if known is None or known.store is not store:
            known = self._engines[store.collection] = SearchEngine(encoder, store)
        return known

    def _names(self) -> set[str]:
        return {info.name for info in self._home.list()} | set(self._home.aliases())

    def _index_bundled(self, report: Report) -> None:
        report(0, 1, "Opening the bundled corpus")
        engine = self.engine(self.bundled, create=True)
        documents = load_udhr(DEMO_LANGUAGES)
        total = len(documents)

        def told(done: int) -> None:
            report(done, total, f"Indexing, the first time only: {done:,} of {total:,} articles")

        told(0)
        engine.index(documents, window=_WINDOW, on_progress=told)
        self._complete = True
        self.refresh()

    def _list(self) -> list[Entry]:
        infos = {info.name: info for info in self._home.list()}
        for alias, target in self._home.aliases().items():
            if alias == self.default and target in infos:
                infos[alias] = dataclasses.replace(infos[target], name=alias)
        if self.bundled not in infos:
            contract = self._model.encoder.contract()
            infos[self.bundled] = CollectionInfo(name=self.bundled, contract=contract, layout=self.layout(), points=0)
        if self.default not in infos:
            infos[self.default] = CollectionInfo(name=self.default, contract=None, layout=None, points=None)
        first = {self.default: 0, self.bundled: 1}
        return [self._entry(infos[name]) for name in sorted(infos, key=lambda name: (first.get(name, 2), name))]

    def _entry(self, info: CollectionInfo) -> Entry:
        title = BUNDLED_TITLE if info.name == self.bundled else info.name
        return Entry(name=info.name, title=title, info=info, problem=self._problem(info))

    def _problem(self, info: CollectionInfo) -> str | None:
        if info.contract is None and info.points is None:
            return f"There is no collection {info.name!r} in {self.location}, or it cannot be opened now."
        if info.contract is None:
            return f"Collection {info.name!r} was not filled by f2rag."
        encoder = self._model.encoder
        ours = encoder.contract(dimensions=min(info.contract.dimensions, encoder.native_dimensions))
        try:
            refuse_mismatch(info.contract, ours, f"Collection {info.name!r} in {self.location}")
        except ContractMismatchError as error:
            return str(error)
        if info.points is None:
            return f"Collection {info.name!r} cannot be opened now: another process may have it open."
        return None

    def _recently(self, key: str, make: Callable[[], T]) -> T:
        with self._lock:
            known = self._recent.get(key)
        if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS:
            return cast("T", known[1])
        value = make()
        with self._lock:
            self._recent[key] = (time.monotonic(), value)
        return value


def workspace() -> Workspace:
    """The workspace of this process, which all sessions share.

    Raises:
        F2RagError: As ``running_model``, or the home cannot be used. The next call tries again.
    """
    model = running_model()
    return _workspace(repr(model.settings), id(model.encoder), _model=model)


@st.cache_resource(show_spinner=False, max_entries=1, on_release=Workspace.close)
def _workspace(settings: str, encoder: int, *, _model: Model) -> Workspace:  # noqa: ARG001  # they are the key
    return Workspace(_model, Collections(_model.settings.location_for_store()))
