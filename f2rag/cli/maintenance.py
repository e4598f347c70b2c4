"""``f2rag backfill`` and ``f2rag reindex``: a collection made whole, and a collection made anew."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from f2rag.cli import options
from f2rag.cli.output import print_json, progress_bar, show_note, stderr, stdout, table

if TYPE_CHECKING:
    from f2rag.store import Layout

Name = Annotated[str, typer.Argument(help="Name of the collection, or an alias.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(backfill)
    app.command()(reindex)


def backfill(collection: Name, *, location: options.Location = None, json: options.Json = False) -> None:
    """Give documents the vectors that their collection stores and they lack; nothing is embedded.

    Other tools write points with the full vector alone, and a funnel or hybrid search does not find those.
    """
    from f2rag.store import QdrantStore

    settings = options.settings_from(location=location, collection=collection)
    with QdrantStore.open(settings.location_for_store(), collection=collection, create=False) as store:
        missing = store.missing()
        made = 0
        if missing:
            with progress_bar(stderr()) as bar:
                task = bar.add_task("Filling in", total=sum(missing.values()))
                made = store.backfill(on_progress=lambda count: bar.update(task, completed=count))
    if json:
        print_json({"collection": collection, "location": settings.location, "missing": missing, "made": made})
    elif not missing:
        show_note(f"Nothing is missing in {collection}.")
    else:
        result = table("vector", "was missing", right=("was missing",))
        for name, count in missing.items():
            result.add_row(name, f"{count:,}")
        stdout().print(result)
        show_note(f"{made:,} vectors were made.")


def reindex(
    collection: Name,
    *,
    into: Annotated[str, typer.Option(help="Name of the new collection.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(help="Folder or server of the new collection.", show_default="the same", rich_help_panel="Store"),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(help="Name that stands for the new collection once it is complete.", rich_help_panel="Store"),
    ] = None,
    model: options.Model = None,
    revision: options.Revision = None,
    dimensions: options.Dimensions = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    levels: options.Levels = None,
    quantization: options.Quantization = None,
    lexical: options.Lexical = None,
    field: options.Field = None,
    json: options.Json = False,
) -> None:
    """Fill a new collection from another: for another layout, size, model, folder or server.

    What is not named stays as it is in the first collection, which is only read; another model comes at its own size.
    Vectors of the same model are copied, or cut to a smaller size; else the stored texts are embedded again. Readers of
    the alias see the first collection until the new one is complete.
    """
    from f2rag.cli.indexing import as_filled
    from f2rag.store import QdrantStore
    from f2rag.store import reindex as fill

    settings = options.settings_from(
        model=model,
        revision=revision,
        dimensions=dimensions,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        levels=levels,
        quantization=quantization,
        lexical=lexical,
        field=field,
    )
    target = options.settings_from(location=to or settings.location)
    with (
        QdrantStore.open(settings.location_for_store(), collection=collection, create=False) as source,
        # Another model comes at its own size.
        options.make_encoder(settings if model else as_filled(settings, source.contract)) as encoder,
        progress_bar(stderr()) as bar,
    ):
        task = bar.add_task("Filling", total=source.count())
        report = fill(
            source,
            encoder,
            into=into,
            location=None if target.location == settings.location else target.location_for_store(),
            layout=settings.layout(base=_fitting(source.layout, encoder.dimensions)),
            alias=alias,
            on_progress=lambda count: bar.update(task, completed=count),
        )
    if json:
        print_json({**dataclasses.asdict(report), "collection": into, "location": target.location})
        return
    how = "embedded again" if report.embedded else "copied with their vectors"
    show_note(f"{report.documents:,} documents are in {target.location}, collection {into}: {how}.")
    if report.alias is not None:
        show_note(f"{report.alias} now stands for {into}.")


def _fitting(layout: Layout, dimensions: int) -> Layout:
    """A layout for vectors of another size: levels that are no prefix of it fall away."""
    return dataclasses.replace(layout, levels=tuple(level for level in layout.levels if level < dimensions))
