"""``f2rag models``, ``f2rag doctor`` and ``f2rag collections``: what there is, and whether it is right."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from f2rag.cli import options
from f2rag.cli.output import print_json, show_note, stdout, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from f2rag.doctor import Check
    from f2rag.models import ModelSpec
    from f2rag.settings import Settings
    from f2rag.store import CollectionInfo

_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]", "skipped": "[dim]–[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(models)
    app.command()(doctor)
    app.command()(collections)


def models(*, json: options.Json = False) -> None:
    """List the F2LLM-v2 models with their sizes."""
    from f2rag.memory import gigabytes
    from f2rag.models import MODELS

    if json:
        print_json([_facts(spec) for spec in MODELS])
        return
    numbers = ("parameters", "dimensions", "fp32", "bf16", "int8", "int4", "tokens")
    result = table("model", "kind", *numbers[:2], "smaller sizes", *numbers[2:], right=numbers)
    for spec in MODELS:
        smaller = [size for size in spec.mrl_dimensions if size < spec.native_dimensions]
        result.add_row(
            f"[bold]{escape(spec.short_name)}[/]",
            spec.kind,
            f"{spec.parameters / 1e6:,.0f} M",
            str(spec.native_dimensions),
            f"{smaller[0]} … {smaller[-1]}",
            *(gigabytes(size) for size in _memory(spec).values()),
            f"{spec.safe_length:,}",
        )
    console = stdout()
    console.print(result)
    console.print(
        "model: what --model takes. fp32 to int4: memory of the weights, for int8 and int4 beside bfloat16 (--dtype, "
        "--weight-dtype).\ntokens: up to which long-text scores hold. "
        "smaller sizes: powers of two that were trained; --dimensions takes any size up to the model's own.\n"
        "Preview models take no instruction. The stand-in ships with f2rag for demos and is not F2LLM-v2.",
        style="dim",
    )


def _facts(spec: ModelSpec) -> dict[str, object]:
    return {**dataclasses.asdict(spec), "native_dimensions": spec.native_dimensions, "memory_bytes": _memory(spec)}


def _memory(spec: ModelSpec) -> dict[str, int]:
    from f2rag.memory import WEIGHT_DTYPES

    whole = {dtype: spec.memory_bytes(dtype) for dtype in ("float32", "bfloat16")}
    return whole | {kind: spec.memory_bytes("bfloat16", weight_dtype=kind) for kind in WEIGHT_DTYPES}


def doctor(
    *,
    model: options.Model = None,
    revision: options.Revision = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Look at this collection instead.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Check that a model loads and gives right vectors on this machine; or that a collection is sound.

    With --collection or --location it says what a collection holds, what is missing in it and how it is searched. With
    --model besides it says whether that model's vectors may go in.
    """
    settings = options.settings_from(
        model=model,
        revision=revision,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        collection=collection,
    )
    of_a_collection = collection is not None or location is not None
    checks = _collection_checks(settings, compare=model is not None) if of_a_collection else _model_checks(settings)
    seen = []
    console = stdout()
    for check in checks:
        seen.append(check)
        if not json:
            line = table("", "", "")
            line.show_header, line.box = False, None
            line.columns[1].width = 20
            line.add_row(_SIGNS[check.verdict], f"[bold]{escape(check.name)}[/]", escape(check.detail))
            console.print(line)
    failed = sum(check.verdict == "failed" for check in seen)
    if json:
        print_json([dataclasses.asdict(check) for check in seen])
    elif not failed:
        subject = f"Collection {settings.collection}" if of_a_collection else settings.model
        console.print(f"\n{escape(subject)} is ready.", style="green")
    if failed:
        raise typer.Exit(1)


def _model_checks(settings: Settings) -> Iterator[Check]:
    from f2rag.doctor import run_checks

    return run_checks(
        settings.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        weight_dtype=settings.weight_dtype,
        local_files_only=settings.local_files_only,
        cache_folder=settings.cache_folder,
    )


def _collection_checks(settings: Settings, *, compare: bool) -> Iterator[Check]:
    from f2rag.doctor_collection import run_collection_checks

    with contextlib.ExitStack() as opened:
        encoder = opened.enter_context(options.make_encoder(settings)) if compare else None
        yield from run_collection_checks(settings.location_for_store(), settings.collection, encoder=encoder)


def collections(
    *,
    location: options.Location = None,
    json: options.Json = False,
) -> None:
    """List what is stored, which model filled it, and by what other names it goes."""
    from f2rag.doctor_collection import layout_words
    from f2rag.store import list_aliases, list_collections

    settings = options.settings_from(location=location)
    found = list_collections(settings.location_for_store())
    aliases: dict[str, list[str]] = {}
    for alias, target in sorted(list_aliases(settings.location_for_store()).items()):
        aliases.setdefault(target, []).append(alias)
    if json:
        print_json([_described(one, aliases.get(one.name, [])) for one in found])
        return
    if not found:
        show_note(f"Nothing is stored in {settings.location} yet. Store something with: f2rag index PATH")
        return
    numbers = ("documents", "dimensions")
    columns = ["collection", *numbers, "model", "revision", "besides the vectors", *(["aliases"] if aliases else [])]
    result = table(*columns, right=numbers)
    for one in found:
        contract = one.contract
        described = (str(contract.dimensions), contract.model, contract.revision[:12]) if contract else ("", "", "")
        result.add_row(
            f"[bold]{escape(one.name)}[/]",
            "in use" if one.points is None else f"{one.points:,}",
            *map(escape, described),
            escape(layout_words(one.layout) if one.layout else ""),
            *([escape(", ".join(aliases.get(one.name, [])))] if aliases else []),
        )
    stdout().print(result)


def _described(one: CollectionInfo, aliases: list[str]) -> dict[str, object]:
    return {
        "name": one.name,
        "points": one.points,
        "contract": one.contract.to_dict() if one.contract else None,
        "layout": one.layout.to_dict() if one.layout else None,
        "aliases": aliases,
    }
