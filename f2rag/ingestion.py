"""Files, uploads and pasted texts into a collection: read, split, embed, store, and remove what they no longer hold.

    files ─► readers ─► chunker ─► engine.index ─► what an earlier version of a file had left behind is deleted

What is given is read twice. The first time counts the chunks, so that progress can say when it ends, and finds what
is wrong before any text has been embedded; reading is quick beside embedding. The second time the chunks go to the
engine.

The rule to know: a file is known by its source, and after an ingestion the collection holds of that source what the
file holds now, be it fewer chunks, pages or rows than before. Doing it again changes nothing. A row that names a source
of its own belongs to that source and is never removed here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from f2rag.errors import DocumentError, MissingExtraError
from f2rag.readers import (
    Input,
    ReadOptions,
    Skipped,
    Upload,
    inputs_of,
    read_input,
    reason_of,
    text_input,
    upload_input,
)
from f2rag.types import Document, Encoder, IndexReport

if TYPE_CHECKING:
    from qdrant_client import models

    from f2rag.chunking import Chunker
    from f2rag.engine import SearchEngine
    from f2rag.store import QdrantStore

WINDOW = 1024
"""Chunks per step: enough to fill a GPU with texts of like length."""

WINDOW_CPU = 64
"""Chunks per step on a CPU, which takes seconds for so many: progress moves, and little is lost by a kill."""

_DELETED_AT_ONCE = 1_000

OnProgress = Callable[[int, int], object]
"""Called after each step with the number of chunks that are stored so far, and with that of all."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport(IndexReport):
    """What one ingestion did; the counts of ``IndexReport`` are of chunks.

    Attributes:
        removed: Chunks that an earlier version of the files had left behind.
        skipped: What was passed over, and why: uploads and files inside folders that cannot be read, blank rows.
        files: Files that text was read from.
    """

    removed: int
    skipped: tuple[Skipped, ...]
    files: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a first reading found; ``store`` reads again and stores. Made by ``survey_files`` or ``survey_uploads``.

    Attributes:
        chunks: How many chunks there are to store.
        files: How many files text was found in.
        skipped: What was passed over, and why.
        inputs: What could be read, also where it is blank.
        chunker: Splits their texts.
        reading: How they are read.
    """

    chunks: int
    files: int
    skipped: tuple[Skipped, ...]
    inputs: tuple[Input, ...]
    chunker: Chunker
    reading: ReadOptions

    def store(
        self, engine: SearchEngine, *, window: int | None = None, on_progress: OnProgress | None = None
    ) -> IngestReport:
        """Store every chunk, and remove those of these files that they no longer hold.

        After an error or a kill everything up to the last finished window is stored and nothing is removed; the same
        call completes the rest.

        Args:
            engine: Embeds and stores.
            window: Chunks per step; ``None`` takes what suits the encoder's device.
            on_progress: Called after each step with the chunks stored so far, and with all.

        Raises:
            DocumentError: A file has become unreadable since, or metadata that JSON cannot hold.
            InputError: ``window`` is not positive, or a text cannot be embedded.
            StoreError: The collection failed.
        """
        kept: dict[str, set[int]] = {}
        skipped = list(self.skipped)
        report = engine.index(
            self._chunks(kept, skipped),
            window=window or window_for(engine.encoder),
            on_progress=None if on_progress is None else lambda count: on_progress(count, self.chunks),
        )
        removed = sum(_remove_stale(engine.store, source, keys) for source, keys in kept.items())
        return IngestReport(**dataclasses.asdict(report), removed=removed, skipped=tuple(skipped), files=self.files)

    def _chunks(self, kept: dict[str, set[int]], skipped: list[Skipped]) -> Iterator[Document]:
        """Every chunk; meanwhile ``kept`` fills with the hashes of the keys that each source has now."""
        for given in self.inputs:
            keys = kept.setdefault(given.source, set())
            try:
                for chunk in self.chunker.split_documents(read_input(given, options=self.reading)):
                    if chunk.source == given.source:
                        keys.add(hash(chunk.key))  # a few bytes; a file may have millions of rows
                    yield chunk
            except (DocumentError, MissingExtraError) as error:
                if not given.lenient:
                    raise
                # It could be read a moment ago. What is stored of it stays as it is.
                del kept[given.source]
                skipped.append(given.skipped(error))


def survey_files(
    paths: Iterable[Path], *, chunker: Chunker, reading: ReadOptions | None = None, root: Path | None = None
) -> Survey:
    """Read files and folders once, as ``f2rag.readers.read_documents`` does.

    Args:
        paths: Files and folders.
        chunker: Splits their texts.
        reading: How rows are read, and the language of what names none.
        root: What sources are relative to; the working directory when not given.

    Raises:
        DocumentError: A path that is not there, a file that is named and cannot be read, or a wrong row.
        MissingExtraError: A file that is named needs a library that is not installed.
    """
    skipped: list[Skipped] = []
    inputs = inputs_of(paths, root=root, on_skipped=skipped.append)
    return _survey(inputs, skipped, chunker=chunker, reading=reading or ReadOptions())


def survey_uploads(uploads: Iterable[Upload], *, chunker: Chunker, reading: ReadOptions | None = None) -> Survey:
    """Read uploaded files once; one that cannot be read is skipped with its reason, and the others go on.

    Args:
        uploads: Names and contents, as a browser gives them. The name, cleaned of path parts, is the file's source: a
            further upload under the same name replaces it.
        chunker: Splits their texts.
        reading: How rows are read, and the language of what names none. Rows belong to their file, see
            ``ReadOptions.rows_by_file``.
    """
    skipped: list[Skipped] = []
    inputs: dict[str, Input] = {}
    for upload in uploads:
        try:
            given = upload_input(upload)
        except DocumentError as error:
            skipped.append(Skipped(upload.name, reason_of(error, upload.name)))
            continue
        if given.source in inputs:
            skipped.append(Skipped(given.source, "another file of this name is uploaded with it; rename one of them"))
        else:
            inputs[given.source] = given
    reading = dataclasses.replace(reading or ReadOptions(), rows_by_file=True)
    return _survey(inputs.values(), skipped, chunker=chunker, reading=reading)


def _survey(given: Iterable[Input], skipped: list[Skipped], *, chunker: Chunker, reading: ReadOptions) -> Survey:
    """Count the chunks of every input; those that cannot be read and may be passed over are added to ``skipped``."""
    chunks, inputs, filled = 0, [], set()
    for each in given:
        try:
            found = sum(
                len(chunker.split(document.text))
                for document in read_input(each, options=reading, on_skipped=skipped.append)
            )
        except (DocumentError, MissingExtraError) as error:
            if not each.lenient:
                raise
            skipped.append(each.skipped(error))
            continue
        chunks += found
        inputs.append(each)
        if found:
            filled.add(each.source)
    return Survey(
        chunks=chunks,
        files=len(filled),
        skipped=tuple(skipped),
        inputs=tuple(inputs),
        chunker=chunker,
        reading=reading,
    )


def ingest(
    engine: SearchEngine,
    paths: Iterable[Path],
    *,
    chunker: Chunker,
    reading: ReadOptions | None = None,
    root: Path | None = None,
    window: int | None = None,
    on_progress: OnProgress | None = None,
) -> IngestReport:
    """Read, split, embed and store files and folders: ``survey_files`` and ``Survey.store`` in one.

    Raises:
        DocumentError: A file that is named cannot be read, or a wrong row; then nothing is stored.
        MissingExtraError: A file that is named needs a library that is not installed.
        StoreError: The collection failed.
    """
    survey = survey_files(paths, chunker=chunker, reading=reading, root=root)
    return survey.store(engine, window=window, on_progress=on_progress)


def ingest_uploads(
    engine: SearchEngine,
    uploads: Iterable[Upload],
    *,
    chunker: Chunker,
    reading: ReadOptions | None = None,
    window: int | None = None,
    on_progress: OnProgress | None = None,
) -> IngestReport:
    """Read, split, embed and store uploaded files: ``survey_uploads`` and ``Survey.store`` in one.

    A file that cannot be read is no error: ``IngestReport.skipped`` holds its name and the reason.

    Example:
        >>> report = ingest_uploads(engine, [Upload("notes.md", b"# Notes")], chunker=chunker)  # doctest: +SKIP

    Raises:
        DocumentError: Metadata that JSON cannot hold.
        StoreError: The collection failed.
    """
    survey = survey_uploads(uploads, chunker=chunker, reading=reading)
    return survey.store(engine, window=window, on_progress=on_progress)


def ingest_text(
    engine: SearchEngine,
    text: str,
    *,
    title: str,
    chunker: Chunker,
    language: str | None = None,
    window: int | None = None,
    on_progress: OnProgress | None = None,
) -> IngestReport:
    """Split, embed and store a text that was pasted; ``title`` is its source, and the same title replaces it.

    Raises:
        DocumentError: The text or the title is blank, or no Unicode text.
        StoreError: The collection failed.
    """
    if not text.strip():
        message = f"The text {title!r} is blank. Paste some text."
        raise DocumentError(message)
    reading = ReadOptions(language=language)
    survey = _survey([text_input(text, title=title)], [], chunker=chunker, reading=reading)
    return survey.store(engine, window=window, on_progress=on_progress)


def remove_source(store: QdrantStore, source: str) -> int:
    """Delete every chunk, page and row of one source, e.g. of an uploaded file.

    ``store.facet("source")`` names the sources of a collection with their numbers of chunks.

    Returns:
        How many chunks there were.

    Raises:
        StoreError: The collection failed.
    """
    return store.delete_where(filter=_of(source))


def window_for(encoder: Encoder) -> int:
    """How many chunks to embed per step: more on a GPU than on a CPU, and few where the device is not known."""
    plan = getattr(encoder, "device_plan", None)  # of the real encoder only
    return WINDOW_CPU if plan is None or plan.devices[0] == "cpu" else WINDOW


def _remove_stale(store: QdrantStore, source: str, keys: set[int]) -> int:
    """Delete the documents of a source that are not among ``keys``, which are stored; mostly there are none."""
    if store.count(filter=_of(source)) == len(keys):
        return 0
    stale = [document.key for document in store.documents(filter=_of(source)) if hash(document.key) not in keys]
    return sum(
        store.delete(stale[start : start + _DELETED_AT_ONCE]) for start in range(0, len(stale), _DELETED_AT_ONCE)
    )


def _of(source: str) -> models.Filter:
    from qdrant_client import models

    condition = models.FieldCondition(key="metadata.source", match=models.MatchValue(value=source))
    return models.Filter(must=[condition])
