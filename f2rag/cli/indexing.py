"""What ``f2rag index`` does around an ingestion (``f2rag.ingestion``): progress and notes on stderr.

The collection is opened when the files have been read once and nothing was wrong, so that a wrong line leaves nothing
behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from f2rag.chunking import Chunker
from f2rag.cli.options import make_encoder
from f2rag.cli.output import progress_bar, show_note, stderr
from f2rag.engine import SearchEngine
from f2rag.errors import DocumentError, UnknownModelError
from f2rag.ingestion import survey_files
from f2rag.models import resolve
from f2rag.readers import ReadOptions, Skipped, check_paths
from f2rag.store.homes import home_of
from f2rag.store.planning import plan_layout

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from f2rag.settings import Settings
    from f2rag.store import Layout

_SHOWN = 5
"""Skipped files that are named; of more, the number is told."""

_FACTS = ("added", "updated", "unchanged", "truncated", "seconds", "removed")
"""What is shown of a report."""


def index_paths(
    paths: Sequence[Path], *, settings: Settings, reading: ReadOptions, root: Path | None
) -> dict[str, Any]:
    """Read, split, embed and store files, with progress on stderr.

    Returns:
        The fields of the engine's ``IndexReport``, and ``removed``: chunks that files no longer hold.

    Raises:
        DocumentError: A file or row that cannot be read, or nothing to read at all.
        MissingExtraError: A file that is named needs a library that is not installed.
        ContractMismatchError: The collection was filled by another model, at another dimension or with another layout.
    """
    check_paths(paths)  # before a model is looked for, which may be a long download
    with make_encoder(settings) as encoder:
        chunker = Chunker(encoder.tokenizer_file(), chunk_tokens=settings.chunk_tokens, overlap=settings.overlap)
        with stderr().status("Reading …"):
            survey = survey_files(paths, chunker=chunker, reading=reading, root=root)
        _tell_skipped(survey.skipped)
        if not survey.chunks:
            message = f"No text was found in {', '.join(map(str, paths))}."
            raise DocumentError(message)
        with (
            SearchEngine.open(
                encoder,
                settings.location_for_store(),
                collection=settings.collection,
                layout=layout_for(settings, dimensions=encoder.dimensions),
            ) as engine,
            progress_bar(stderr()) as bar,
        ):
            task = bar.add_task("Indexing", total=survey.chunks)
            report = survey.store(engine, on_progress=lambda done, total: bar.update(task, completed=done, total=total))
        _tell_skipped(report.skipped[len(survey.skipped) :])
    return {name: getattr(report, name) for name in _FACTS}


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


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    for one in skipped[:_SHOWN]:
        show_note(f"Skipped {one.where}: {one.reason}")
    if len(skipped) > _SHOWN:
        show_note(f"Skipped {len(skipped) - _SHOWN:,} more.")
