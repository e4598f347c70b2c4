"""What ``f2rag index`` does between reading files and printing a report.

The files are read twice. The first time counts the chunks, so that progress can say when it ends, and finds a
wrong line before any text has been embedded; reading is quick beside embedding. The second time the chunks go
to the engine.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from f2rag.chunking import Chunker
from f2rag.cli.options import make_encoder
from f2rag.cli.output import progress_bar, show_note, stderr
from f2rag.engine import SearchEngine
from f2rag.errors import DocumentError, UnknownModelError
from f2rag.models import resolve
from f2rag.readers import ReadOptions, Skipped, check_paths, read_documents
from f2rag.store.homes import home_of
from f2rag.store.planning import plan_layout

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from f2rag.settings import Settings
    from f2rag.store import Layout, QdrantStore

_SHOWN = 5
"""Skipped files that are named; of more, the number is told."""

_WINDOW = 1024
"""Chunks per step: enough to fill a GPU with texts of like length."""

_WINDOW_CPU = 64
"""Chunks per step on a CPU, which takes seconds for so many: progress moves, and little is lost by a kill."""

_PROBE = 64
"""Ids that are looked up at once when a file has become shorter."""


def index_paths(
    paths: Sequence[Path], *, settings: Settings, reading: ReadOptions, root: Path | None
) -> dict[str, Any]:
    """Read, split, embed and store files, with progress on stderr.

    Returns:
        The fields of the engine's ``IndexReport``, and ``removed``: chunks of files that have become shorter.

    Raises:
        DocumentError: A file or row that cannot be read, or nothing to read at all.
        ContractMismatchError: The collection was filled by another model, at another dimension or with another layout.
    """
    check_paths(paths)  # before a model is looked for, which may be a long download
    skipped: list[Skipped] = []
    files: collections.Counter[str] = collections.Counter()
    with make_encoder(settings) as encoder:
        chunker = Chunker(encoder.tokenizer_file(), chunk_tokens=settings.chunk_tokens, overlap=settings.overlap)
        total = 0
        with stderr().status("Reading …"):
            for document in read_documents(paths, root=root, options=reading, on_skipped=skipped.append):
                chunks = len(chunker.split(document.text))
                total += chunks
                if "row" not in document.metadata:
                    files[document.key] = chunks
        _tell_skipped(skipped)
        if not total:
            message = f"No text was found in {', '.join(map(str, paths))}."
            raise DocumentError(message)
        documents = chunker.split_documents(read_documents(paths, root=root, options=reading))
        with (
            SearchEngine.open(
                encoder,
                settings.location_for_store(),
                collection=settings.collection,
                layout=layout_for(settings, dimensions=encoder.dimensions),
            ) as engine,
            progress_bar(stderr()) as bar,
        ):
            task = bar.add_task("Indexing", total=total)
            window = _WINDOW_CPU if encoder.device_plan.device == "cpu" else _WINDOW
            report = engine.index(documents, window=window, on_progress=lambda count: bar.update(task, completed=count))
            removed = sum(_remove_stale(engine.store, key, chunks) for key, chunks in files.items())
    return {**dataclasses.asdict(report), "removed": removed}


def as_filled(settings: Settings, contract: EmbeddingContract) -> Settings:
    """Complete the settings with the model and the vector size that a collection was filled with.

    What was set stays as it is, so that the store can say in what it differs.
    """
    update: dict[str, object] = {}
    if settings.dimensions is None:
        update["dimensions"] = contract.dimensions
    if "model" not in settings.model_fields_set and _is_model(contract.model):
        update["model"] = contract.model
        if settings.revision is None and resolve(contract.model).repo:
            update["revision"] = contract.revision
    return settings.model_copy(update=update)


def layout_for(settings: Settings, *, dimensions: int) -> Layout | None:
    """The layout that the settings ask for; what they leave open is as in the collection, or as suits a new one.

    Args:
        settings: Name the location, the collection and perhaps parts of a layout.
        dimensions: Size of the vectors of a new collection.

    Returns:
        ``None`` where the settings ask for nothing.

    Raises:
        StoreError: The home cannot be read.
    """
    if settings.layout() is None:
        return None
    home = home_of(settings.location_for_store())
    try:
        name = home.aliases().get(settings.collection, settings.collection)
        stored = home.info(name).layout if name in home.collections() else None
        return settings.layout(base=stored or plan_layout(dimensions=dimensions, home=home.kind)[0])
    finally:
        home.close()


def _is_model(name: str) -> bool:
    try:
        resolve(name)
    except (UnknownModelError, OSError):
        return False  # for example a folder on another machine
    return True


def _remove_stale(store: QdrantStore, key: str, chunks: int) -> int:
    """Remove the chunks that a file had before it became shorter; their numbers have no holes."""
    removed = 0
    first = chunks + 1 if chunks > 1 else 1
    stale = [] if chunks == 1 else [key]
    while True:
        stale += [f"{key}#{number}" for number in range(first, first + _PROBE)]
        found = [document.key for document in store.get(stale)]
        removed += store.delete(found) if found else 0
        if len(found) < _PROBE:
            return removed
        first, stale = first + _PROBE, []


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    for one in skipped[:_SHOWN]:
        show_note(f"Skipped {one.where}: {one.reason}")
    if len(skipped) > _SHOWN:
        show_note(f"Skipped {len(skipped) - _SHOWN:,} more.")
