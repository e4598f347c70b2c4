"""``f2rag models``, ``f2rag doctor`` and ``f2rag collections``: what there is, and whether it is right."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from f2rag.cli import options
from f2rag.cli.output import print_json, show_note, stdout, table

if TYPE_CHECKING:
    from f2rag.models import ModelSpec

_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]", "skipped": "[dim]–[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(models)
    app.command()(doctor)
    app.command()(collections)


def models(*, json: options.Json = False) -> None:
    """List the F2LLM-v2 models with their sizes."""
    from f2rag.models import MODELS

    if json:
        print_json([_facts(spec) for spec in MODELS])
        return
    numbers = ("parameters", "dimensions", "bf16", "fp32", "tokens")
    result = table("model", "kind", *numbers[:2], "smaller sizes", *numbers[2:], right=numbers)
    for spec in MODELS:
        smaller = [size for size in spec.mrl_dimensions if size < spec.native_dimensions]
        result.add_row(
            f"[bold]{escape(spec.short_name)}[/]",
            spec.kind,
            f"{spec.parameters / 1e6:,.0f} M",
            str(spec.native_dimensions),
            f"{smaller[0]} … {smaller[-1]}",
            _size(spec.memory_bytes("bfloat16")),
            _size(spec.memory_bytes("float32")),
            f"{spec.safe_length:,}",
        )
    console = stdout()
    console.print(result)
    console.print(
        "model: what --model takes. bf16, fp32: memory of the weights. tokens: up to which long-text scores hold.\n"
        "smaller sizes: powers of two that were trained; --dimensions takes any size up to the model's own.\n"
        "Preview models take no instruction. The stand-in ships with f2rag for demos and is not F2LLM-v2.",
        style="dim",
    )


def _facts(spec: ModelSpec) -> dict[str, object]:
    memory = {dtype: spec.memory_bytes(dtype) for dtype in ("bfloat16", "float32")}
    return {**dataclasses.asdict(spec), "native_dimensions": spec.native_dimensions, "memory_bytes": memory}


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def doctor(
    *,
    model: options.Model = None,
    revision: options.Revision = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    json: options.Json = False,
) -> None:
    """Check that a model loads and gives right vectors on this machine."""
    from f2rag.doctor import run_checks

    settings = options.settings_from(
        model=model, revision=revision, device=device, dtype=dtype, offline=offline, cache_folder=cache_folder
    )
    checks = run_checks(
        settings.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        local_files_only=settings.local_files_only,
        cache_folder=settings.cache_folder,
    )
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
        console.print(f"\n{escape(settings.model)} is ready.", style="green")
    if failed:
        raise typer.Exit(1)


def collections(
    *,
    location: options.Location = None,
    json: options.Json = False,
) -> None:
    """List what is stored, and which model filled it."""
    from f2rag.store import list_collections

    settings = options.settings_from(location=location)
    found = list_collections(settings.location)
    if json:
        print_json(
            [
                {"name": one.name, "points": one.points, "contract": one.contract.to_dict() if one.contract else None}
                for one in found
            ]
        )
        return
    if not found:
        show_note(f"Nothing is stored in {settings.location} yet. Store something with: f2rag index PATH")
        return
    result = table("collection", "documents", "dimensions", "model", "revision", right=("documents", "dimensions"))
    for one in found:
        contract = one.contract
        described = (str(contract.dimensions), contract.model, contract.revision[:12]) if contract else ("", "", "")
        result.add_row(
            f"[bold]{escape(one.name)}[/]",
            "in use" if one.points is None else f"{one.points:,}",
            *map(escape, described),
        )
    stdout().print(result)
