"""``f2rag index``, ``f2rag search`` and ``f2rag demo``: documents in, hits out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from f2rag.cli import options
from f2rag.cli.output import isolated, print_json, show_note, snippet, stderr, stdout, table

if TYPE_CHECKING:
    from f2rag.settings import Settings
    from f2rag.types import SearchResult


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(index)
    app.command()(search)
    app.command()(demo)


def index(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files and folders: .txt .md .html .pdf .docx .csv .tsv .jsonl", show_default=False),
    ],
    *,
    language: Annotated[
        str | None, typer.Option(help="BCP 47 tag of documents that do not name theirs, e.g. fr.")
    ] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Most tokens of a chunk.", show_default="512")] = None,
    overlap: Annotated[int | None, typer.Option(help="Tokens that chunks share.", show_default="64")] = None,
    text_column: Annotated[str, typer.Option(help="Column or key of the text in rows.")] = "text",
    delimiter: Annotated[str | None, typer.Option(help="Of CSV files, e.g. ';'.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Sources are named relative to this folder.", show_default="here")
    ] = None,
    model: options.Model = None,
    revision: options.Revision = None,
    dimensions: options.Dimensions = None,
    task: options.Task = None,
    max_length: options.MaxLength = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    collection: options.Collection = None,
    levels: options.Levels = None,
    quantization: options.Quantization = None,
    lexical: options.Lexical = None,
    field: options.Field = None,
    json: options.Json = False,
) -> None:
    """Read, split, embed and store documents.

    Doing it again embeds only what is new or changed; after an interruption the same command goes on.
    """
    from f2rag.cli.indexing import index_paths
    from f2rag.readers import ReadOptions

    settings = options.settings_from(
        language=language,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        model=model,
        revision=revision,
        dimensions=dimensions,
        task=task,
        max_length=max_length,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        collection=collection,
        levels=levels,
        quantization=quantization,
        lexical=lexical,
        field=field,
    )
    reading = ReadOptions(text_column=text_column, language=settings.language, delimiter=delimiter)
    facts = index_paths(paths, settings=settings, reading=reading, root=root)
    if json:
        print_json({**facts, "collection": settings.collection, "location": settings.location})
    else:
        _show_report(facts)
        chosen = {"--location": location, "--collection": collection}
        where = "".join(f" {option} {value}" for option, value in chosen.items() if value is not None)
        show_note(f'Stored in {settings.location}, collection {settings.collection}. Try: f2rag search "…"{where}')


def _show_report(facts: dict[str, Any]) -> None:
    result = table(*facts, "per second", right=(*facts, "per second"))
    embedded = facts["added"] + facts["updated"]
    rate = f"{embedded / facts['seconds']:,.0f}" if embedded and facts["seconds"] else ""
    counts = [f"{value:,.1f}" if name == "seconds" else f"{value:,}" for name, value in facts.items()]
    result.add_row(*counts, rate)
    stdout().print(result)


def search(
    query: Annotated[str, typer.Argument(help="A question or a few words, in any language.", show_default=False)],
    *,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Number of hits.", show_default="10")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Only documents in this language; may be repeated.")
    ] = None,
    model: options.Model = None,
    revision: options.Revision = None,
    dimensions: options.Dimensions = None,
    task: options.Task = None,
    instruction: options.Instruction = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    collection: options.Collection = None,
    mode: options.Mode = None,
    json: options.Json = False,
) -> None:
    """Find the documents that are closest to a query.

    Model and vector size are those that the collection was filled with, unless you name others.
    """
    if not query.strip():
        message = "The query is empty. Give a question or a few words."
        raise typer.BadParameter(message)
    settings = options.settings_from(
        limit=limit,
        model=model,
        revision=revision,
        dimensions=dimensions,
        task=task,
        instruction=instruction,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        collection=collection,
        mode=mode,
    )
    result, reason = _search(query, settings=settings, languages=language)
    if json:
        print_json({**_as_json(result), "mode_reason": reason})
    else:
        _show(result, reason)


def _search(query: str, *, settings: Settings, languages: list[str] | None) -> tuple[SearchResult, str]:
    """The result, and why it was searched in its mode."""
    from f2rag.cli.indexing import as_filled
    from f2rag.engine import SearchEngine
    from f2rag.store import QdrantStore

    with (
        QdrantStore.open(settings.location_for_store(), collection=settings.collection, create=False) as store,
        options.make_encoder(as_filled(settings, store.contract)) as encoder,
    ):
        encoder.contract()  # wrong settings are told before a model is loaded
        engine = SearchEngine(encoder, store)
        with stderr().status("Loading the model …"):
            encoder.warm_up()  # so that the time shown is the query's own
        result = engine.search(query, limit=settings.limit, language=languages, mode=settings.mode)
        return result, store.plan(settings.mode)[1]


def _as_json(result: SearchResult) -> dict[str, Any]:
    return {
        "query": result.query,
        "instruction": result.instruction,
        "model": result.model,
        "dimensions": result.dimensions,
        "mode": result.mode,
        "encode_ms": round(result.timings.encode_ms, 3),
        "search_ms": round(result.timings.search_ms, 3),
        "hits": [{**dataclasses.asdict(hit), "metadata": dict(hit.metadata)} for hit in result.hits],
    }


def _show(result: SearchResult, reason: str) -> None:
    console = stdout()
    if not result.hits:
        console.print("Nothing was found.")
    else:
        sources = [_place(hit.source or "", hit.metadata) for hit in result.hits]
        room = min(30, max(map(len, sources)))
        hits = table("", "score", "lang", "source", "text", right=("", "score"))
        for rank, (hit, source) in enumerate(zip(result.hits, sources, strict=True), start=1):
            text = snippet(hit.text, width=max(20, console.width - room - 28), lines=2)
            hits.add_row(str(rank), f"{hit.score:.3f}", hit.language or "", snippet(source, width=30, lines=2), text)
        console.print(hits)
    timings = result.timings
    console.print(
        f"{escape(result.model)}, {result.dimensions} dimensions · "
        f"encode {timings.encode_ms:.0f} ms · search {timings.search_ms:.1f} ms\n"
        f"mode {result.mode}: {escape(reason)}",
        style="dim",
    )


def _place(source: str, metadata: Any) -> str:
    """Where a hit is: its source, with the row or the chunk where it has one."""
    for name in ("row", "page", "chunk", "article"):
        if name in metadata:
            return isolated(f"{source} · {name} {metadata[name]}")
    return isolated(source)


def demo(
    *,
    model: options.Model = None,
    location: Annotated[
        Path | None,
        typer.Option("--location", "-l", help="Where the demo keeps its vectors.", show_default=".f2rag/demo"),
    ] = None,
    offline: options.Offline = None,
) -> None:
    """Search the Universal Declaration of Human Rights in many languages at once."""
    from f2rag.demo import run_demo

    settings = options.settings_from(model=model, offline=offline)
    run_demo(
        model=settings.model if "model" in settings.model_fields_set else None,
        location=location,
        local_files_only=settings.local_files_only,
        cache_folder=settings.cache_folder,
    )
