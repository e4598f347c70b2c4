"""What all browser sessions share: one model, and the bundled corpus at each vector size on offer.

Every article is embedded once, at the model's own size; the other sizes are cut from that. A thread of its own does
it, so that neither a click nor a closed browser stops it, and everybody who waits sees its progress. This file draws
nothing.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import threading
from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from f2rag import Document, F2LLMEncoder, QdrantStore, SearchEngine
from f2rag.corpus import load_udhr
from f2rag.demo import DEMO_LANGUAGES, STAND_IN, choose_model
from f2rag.errors import ModelLoadError
from f2rag.models import mrl_ladder
from f2rag.settings import Settings, load_settings
from f2rag.vectors import truncate

SMALLEST = 64
"""The smallest vector size on offer; below it, hits get visibly worse."""

_WINDOW = 128
"""Articles per step of the progress bar."""

_POLL = 0.1
"""Seconds between two looks at the progress."""


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

    @property
    def dimension_choices(self) -> list[int]:
        """The vector sizes on offer: those the model was trained for, and the one that is set."""
        native = self.encoder.native_dimensions
        trained = {size for size in mrl_ladder(native) if size >= min(SMALLEST, native)}
        return sorted(trained | {self.encoder.dimensions})


@st.cache_resource(show_spinner=False)
def running_model() -> Model:
    """Load the model that the settings name; else F2LLM-v2-80M where it can be had, else the stand-in.

    Raises:
        F2RagError: A setting is wrong, or the model cannot be used. Nothing is remembered then; the next call tries
            again.
    """
    settings = load_settings()
    given = settings.model if "model" in settings.model_fields_set else None
    choice = choose_model(given, local_files_only=settings.local_files_only, cache_folder=settings.cache_folder)
    model, reason = choice.model, choice.reason
    encoder = _encoder(settings, model)
    try:
        description = encoder.warm_up()
    except ModelLoadError as error:
        encoder.close()
        if given is not None or model == STAND_IN:
            raise
        reason = f"{model} could not be had: {str(error).splitlines()[0]}"
        encoder = _encoder(settings, STAND_IN)
        description = encoder.warm_up()
    return Model(encoder=encoder, settings=settings, reason=reason, description=description)


def _encoder(settings: Settings, model: str) -> F2LLMEncoder:
    return F2LLMEncoder(**{**settings.encoder_arguments(), "model": model})


class Declaration:
    """The Universal Declaration of Human Rights, in one collection per vector size; indexed when first asked for.

    Args:
        model: Makes the vectors.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._attempt: concurrent.futures.Future[Mapping[int, SearchEngine]] | None = None
        self._done = 0

    def engines(self, on_progress: Callable[[float, str], object]) -> Mapping[int, SearchEngine]:
        """The engines over the filled collections, by vector size; waits until they are filled.

        Args:
            on_progress: Called every now and then with the share that is done, 0 to 1, and with words for it.

        Raises:
            F2RagError: A collection cannot be opened or filled. The next call tries again.
        """
        attempt = self._started()
        while True:
            finished, _ = concurrent.futures.wait([attempt], timeout=_POLL)
            if finished:
                return attempt.result()
            total = len(_documents())
            on_progress(self._done / total, f"Indexing, the first time only: {self._done:,} of {total:,} articles")

    def close(self) -> None:
        """Let go of the collections, once they are filled."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.add_done_callback(_close)

    def _started(self) -> concurrent.futures.Future[Mapping[int, SearchEngine]]:
        """The attempt that is under way or has succeeded; a new one after a failure."""
        with self._lock:
            if self._attempt is None or (self._attempt.done() and self._attempt.exception() is not None):
                self._attempt = concurrent.futures.Future()
                self._done = 0
                threading.Thread(target=self._run, args=(self._attempt,), name="f2rag-index", daemon=True).start()
            return self._attempt

    def _run(self, attempt: concurrent.futures.Future[Mapping[int, SearchEngine]]) -> None:
        engines: dict[int, SearchEngine] = {}
        try:
            for dimensions in self._model.dimension_choices:
                engines[dimensions] = self._open(dimensions)
            self._fill([engine.store for engine in engines.values()])
        except BaseException as error:  # it is raised again where somebody waits for the engines
            for engine in engines.values():
                engine.close()
            attempt.set_exception(error)
        else:
            attempt.set_result(engines)

    def _open(self, dimensions: int) -> SearchEngine:
        """Open a collection that is named by what is in it, so that no other model's vectors are ever met there."""
        encoder = self._model.encoder
        contract = encoder.contract(dimensions=dimensions)
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", encoder.model_name)[-80:]
        collection = f"udhr-{name}-{dimensions}-{contract.fingerprint[:8]}"
        location = self._model.settings.location_for_store()
        return SearchEngine.open(encoder, location, collection=collection, dimensions=dimensions)

    def _fill(self, stores: Sequence[QdrantStore]) -> None:
        encoder, documents = self._model.encoder, _documents()
        for start in range(0, len(documents), _WINDOW):
            window = documents[start : start + _WINDOW]
            stored = [store.unchanged(window) for store in stores]
            wanted = [document for document, *there in zip(window, *stored, strict=True) if not all(there)]
            if wanted:
                texts = [document.text for document in wanted]
                vectors = encoder.embed_documents(texts, dimensions=encoder.native_dimensions)
                for store in stores:
                    store.upsert(wanted, truncate(vectors, store.dimensions))
            self._done = start + len(window)


@st.cache_resource(show_spinner=False, on_release=Declaration.close)
def declaration() -> Declaration:
    """The Declaration for the model that runs; nothing is opened yet."""
    return Declaration(running_model())


def _documents() -> list[Document]:
    return load_udhr(DEMO_LANGUAGES)


def _close(attempt: concurrent.futures.Future[Mapping[int, SearchEngine]]) -> None:
    if attempt.exception() is None:
        for engine in attempt.result().values():
            engine.close()
