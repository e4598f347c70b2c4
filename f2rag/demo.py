"""``f2rag demo``: ask the Universal Declaration of Human Rights in one language, be answered in all.

Articles are the same in every language, so that it is known which article answers each question; the tables
say of every hit whether it is that one. Nothing is staged: a wrong hit is shown as wrong.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from f2rag.cli.output import progress_bar, snippet, stderr, stdout, table
from f2rag.corpus import UDHR_LANGUAGES, load_udhr
from f2rag.errors import ContractMismatchError, ModelLoadError
from f2rag.models import LANGUAGES, resolve
from f2rag.store import QdrantStore, drop_collection
from f2rag.vectors import memory_per_million, truncate

if TYPE_CHECKING:
    from f2rag.encoder import F2LLMEncoder
    from f2rag.types import Document, Encoder, FloatVector, Hit

REAL_MODEL = "80M"
STAND_IN = "stand-in"
SMALL = 64
"""The size that is shown beside the model's own."""

HITS = 5
HUB_TIMEOUT = 3.0
"""Seconds that the model hub has to answer; without it the demo goes on with the stand-in."""

DEMO_LANGUAGES = tuple(tag for tag in UDHR_LANGUAGES if tag in LANGUAGES)
"""The languages of the Declaration that the model cards name."""

_WINDOW = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question with the article that answers it."""

    text: str
    language: str
    article: int
    english: str

    def is_answered_by(self, hit: Hit) -> bool:
        """Whether a hit is that article, in any language."""
        return bool(hit.metadata["article"] == self.article)


QUESTIONS = (
    Question("Can a government take away my nationality?", "en", 15, ""),
    Question("¿La educación debe ser gratuita?", "es", 26, "Must education be free of charge?"),
    Question("工人有休息和带薪休假的权利吗？", "zh", 24, "Do workers have a right to rest and paid holidays?"),
    Question("هل يشترط رضا الزوجين في الزواج؟", "ar", 16, "Does a marriage need the consent of both?"),
    Question("क्या सरकार मेरी नागरिकता छीन सकती है?", "hi", 15, "Can the government take away my citizenship?"),
    Question("Je, ninaweza kubadili dini yangu?", "sw", 18, "Can I change my religion?"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Which model the demo runs, and why."""

    model: str
    reason: str


def run_demo(
    *,
    model: str | None = None,
    location: Path | None = None,
    local_files_only: bool = False,
    cache_folder: Path | None = None,
) -> None:
    """Index the Declaration at two vector sizes and ask it questions in six languages.

    Args:
        model: The model; the real F2LLM-v2-80M where it can be had, else the stand-in, when not given.
        location: Folder of the vectors; ``.f2rag/demo`` when not given.
        local_files_only: Never ask the model hub.
        cache_folder: Where downloaded models lie, instead of the Hugging Face cache.

    Raises:
        F2RagError: The model that was named cannot be used, or the folder cannot be written.
    """
    console = stdout()
    folder = location or Path(".f2rag/demo")
    choice = choose_model(model, local_files_only=local_files_only, cache_folder=cache_folder)
    encoder, choice = _ready(choice, given=model is not None, offline=local_files_only, cache_folder=cache_folder)
    with encoder:
        _introduce(console, encoder, choice)
        with _open(folder, encoder, encoder.native_dimensions) as large, _open(folder, encoder, SMALL) as small:
            index_declaration(encoder, [large, small], console=console)
            console.print(f"[dim]{escape(encoder.warm_up())}[/]\n")
            for question in QUESTIONS:
                ask(question, encoder, large=large, small=small, console=console)
            _what_next(console, folder=folder, large=large, small=small)


def choose_model(given: str | None, *, local_files_only: bool = False, cache_folder: Path | None = None) -> Choice:
    """The model that was named, else F2LLM-v2-80M if it can be had at once, else the stand-in."""
    if given is not None:
        return Choice(given, "you named it")
    if _cached(cache_folder):
        return Choice(REAL_MODEL, "it is in the cache of this machine")
    from huggingface_hub import constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        return Choice(STAND_IN, f"F2LLM-v2-{REAL_MODEL} is not in the cache, and the model hub is switched off")
    if _hub_answers():
        return Choice(REAL_MODEL, "the model hub answers; it is downloaded once, 170 MB")
    return Choice(STAND_IN, f"F2LLM-v2-{REAL_MODEL} is not in the cache, and the model hub does not answer")


def _cached(cache_folder: Path | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    known = resolve(REAL_MODEL)
    return all(
        isinstance(try_to_load_from_cache(known.repo, name, cache_dir=cache_folder, revision=known.revision), str)
        for name in ("config.json", "tokenizer.json", "model.safetensors")
    )


def _hub_answers() -> bool:
    """Ask for the model's description; in a thread, since name look-ups keep to no timeout."""
    answered = threading.Event()

    def ask_hub() -> None:
        from huggingface_hub import HfApi

        known = resolve(REAL_MODEL)
        try:
            HfApi().model_info(known.repo, revision=known.revision, timeout=HUB_TIMEOUT)
        except Exception:  # whatever goes wrong, it has not answered
            return
        answered.set()

    threading.Thread(target=ask_hub, daemon=True).start()
    return answered.wait(HUB_TIMEOUT + 1)


def _ready(choice: Choice, *, given: bool, offline: bool, cache_folder: Path | None) -> tuple[F2LLMEncoder, Choice]:
    """An encoder whose files are here; when the download of the real model fails, the stand-in's."""
    from f2rag.encoder import F2LLMEncoder

    options: dict[str, Any] = {"cache_folder": cache_folder, "on_overflow": "truncate"}
    encoder = F2LLMEncoder(choice.model, local_files_only=offline, **options)
    try:
        encoder.fetch()
    except ModelLoadError as error:
        if given or choice.model == STAND_IN:
            raise
        encoder.close()
        first = str(error).splitlines()[0]
        return F2LLMEncoder(STAND_IN, **options), Choice(STAND_IN, f"{choice.model} could not be had: {first}")
    return encoder, choice


def _introduce(console: Console, encoder: F2LLMEncoder, choice: Choice) -> None:
    if encoder.is_stand_in:
        text = (
            "[bold]This is the stand-in, not F2LLM-v2.[/]\n"
            f"It runs because {escape(choice.reason)}.\n"
            "It is a small model that ships with f2rag, to show how everything works without a download.\n"
            "Its answers are far worse than those of F2LLM-v2, above all at few dimensions. It was trained\n"
            "on articles 16 to 30 of this Declaration, among other texts; articles 1 to 15 are new to it."
        )
        console.print(Panel(text, border_style="yellow", title="stand-in"))
    else:
        console.print(Panel(f"[bold]{escape(encoder.model_name)}[/]: {escape(choice.reason)}.", border_style="green"))


def _open(folder: Path, encoder: Encoder, dimensions: int) -> QdrantStore:
    """The demo's collection for this model and size; one that another copy of the model filled is remade."""
    collection = f"udhr-{encoder.model_name}-{dimensions}"
    contract = encoder.contract(dimensions=dimensions)
    try:
        return QdrantStore.open(folder, collection=collection, contract=contract)
    except ContractMismatchError:
        drop_collection(folder, collection)
        return QdrantStore.open(folder, collection=collection, contract=contract)


def index_declaration(
    encoder: Encoder,
    stores: Sequence[QdrantStore],
    *,
    languages: Sequence[str] = DEMO_LANGUAGES,
    console: Console | None = None,
) -> int:
    """Embed the Declaration once, and store it at the size of every store.

    Returns:
        How many articles were embedded; none when all of them are stored.
    """
    documents = load_udhr(languages)
    started = time.perf_counter()
    embedded = 0
    with progress_bar(stderr()) as bar:
        task = bar.add_task(f"{len(documents):,} articles in {len(languages)} languages", total=len(documents))
        for start in range(0, len(documents), _WINDOW):
            window = documents[start : start + _WINDOW]
            embedded += _index_window(encoder, stores, window)
            bar.update(task, completed=start + len(window))
    seconds = time.perf_counter() - started
    sizes = " and ".join(str(store.dimensions) for store in stores)
    cut = encoder.truncated_count
    (console or stdout()).print(
        f"{len(documents):,} articles in {len(languages)} languages, at {sizes} dimensions: {embedded:,} embedded, "
        f"{len(documents) - embedded:,} there already, {seconds:.1f} s."
        + (f"\n[dim]Of {cut} long ones the model read only the beginning.[/]" if cut else "")
    )
    return embedded


def _index_window(encoder: Encoder, stores: Sequence[QdrantStore], window: Sequence[Document]) -> int:
    missing = [store.unchanged(window) for store in stores]
    wanted = [document for document, *there in zip(window, *missing, strict=True) if not all(there)]
    if wanted:
        vectors = encoder.embed_documents([document.text for document in wanted], dimensions=encoder.native_dimensions)
        for store in stores:
            store.upsert(wanted, truncate(vectors, store.dimensions))
    return len(wanted)


def ask(
    question: Question, encoder: Encoder, *, large: QdrantStore, small: QdrantStore, console: Console
) -> tuple[Sequence[Hit], Sequence[Hit]]:
    """Search both stores for one question and print the hits side by side.

    Returns:
        The hits at the large and at the small size.
    """
    started = time.perf_counter()
    vector = encoder.embed_query(question.text, dimensions=encoder.native_dimensions)
    encode_ms = (time.perf_counter() - started) * 1e3
    hits, search_ms = _timed_search(large, vector)
    small_hits, small_ms = _timed_search(small, truncate(vector, small.dimensions))
    meaning = f"  [dim]{escape(question.english)}[/]" if question.english else ""
    console.print(
        f"[bold]{escape(question.text)}[/]{meaning}\n"
        f"[dim]{UDHR_LANGUAGES[question.language].name} · answered by article {question.article} · "
        f"encode {encode_ms:.0f} ms · search {search_ms:.1f} ms at {large.dimensions}, "
        f"{small_ms:.1f} ms at {small.dimensions} dimensions[/]"
    )
    console.print(_side_by_side(question, hits, small_hits, large=large, small=small, width=console.width))
    shared = len({hit.id for hit in hits} & {hit.id for hit in small_hits})
    right, small_right = (sum(map(question.is_answered_by, found)) for found in (hits, small_hits))
    console.print(
        f"[dim]right article: {right} of {HITS} at {large.dimensions}, {small_right} of {HITS} at {small.dimensions} "
        f"dimensions · overlap@{HITS}: {shared} hits are the same[/]\n"
    )
    return hits, small_hits


def _timed_search(store: QdrantStore, vector: FloatVector) -> tuple[Sequence[Hit], float]:
    started = time.perf_counter()
    hits = store.search(vector, limit=HITS)
    return hits, (time.perf_counter() - started) * 1e3


def _side_by_side(
    question: Question,
    hits: Sequence[Hit],
    small_hits: Sequence[Hit],
    *,
    large: QdrantStore,
    small: QdrantStore,
    width: int,
) -> Table:
    first, second = f"{large.dimensions} dim.", f"{small.dimensions} dim."
    result = table("", first, "article", "language", "text", second, "article ", "lang", right=("", first, second))
    room = max(16, width - 59)
    for rank, (hit, other) in enumerate(zip(hits, small_hits, strict=True), start=1):
        result.add_row(
            str(rank),
            f"{hit.score:.3f}",
            _article(hit, question),
            escape(str(hit.metadata["language_name"])),
            snippet(hit.text, width=room),
            f"{other.score:.3f}",
            _article(other, question),
            other.language,
        )
    return result


def _article(hit: Hit, question: Question) -> str:
    return f"[green]{hit.metadata['article']} ✓[/]" if question.is_answered_by(hit) else f"{hit.metadata['article']}"


def _what_next(console: Console, *, folder: Path, large: QdrantStore, small: QdrantStore) -> None:
    where = "" if str(folder) == "." else f" --location {folder}"
    lines = (
        (f'f2rag search "May I change my religion?"{where} --collection {large.collection}', "ask something yourself"),
        (
            f'f2rag search "May I change my religion?"{where} --collection {small.collection} --language sw',
            "64 dimensions, only Swahili",
        ),
        ("f2rag index README.md", "your own files: .txt .md .jsonl .csv, or folders"),
        ("f2rag models", "the sizes of F2LLM-v2, 80M to 14B"),
        ("f2rag doctor --model 0.6B", "whether a model is right on this machine"),
    )
    console.print(
        f"A million vectors take {memory_per_million(large.dimensions) / 1e9:.2f} GB at {large.dimensions} dimensions "
        f"and {memory_per_million(small.dimensions) / 1e9:.2f} GB at {small.dimensions}.\n"
    )
    console.print("[bold]What to try next[/]")
    for command, what in lines:
        console.print(f"  {escape(command)}\n      [dim]{escape(what)}[/]", soft_wrap=True)
