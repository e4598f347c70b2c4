"""``f2rag embed``: texts in, vectors out."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2rag.cli import options
from f2rag.cli.output import print_json, show_note

if TYPE_CHECKING:
    from f2rag.encoder import F2LLMEncoder
    from f2rag.types import FloatMatrix

_WINDOW = 256
"""Texts that are read before vectors are printed."""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(embed)


def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of --file or of stdin.")] = None,
    *,
    query: Annotated[
        bool | None,
        typer.Option("--query/--document", help="What the texts are; queries get the instruction.", show_default=False),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="One text per line.")] = None,
    npy: Annotated[Path | None, typer.Option(help="Write a float32 array to this file instead of JSON lines.")] = None,
    model: options.Model = None,
    revision: options.Revision = None,
    dimensions: options.Dimensions = None,
    task: options.Task = None,
    instruction: options.Instruction = None,
    max_length: options.MaxLength = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
) -> None:
    """Embed texts and print a JSON line for each: text, role, model, dimensions, vector.

    Say which side of a search the texts are: F2LLM-v2 embeds a query otherwise than a document.
    """
    if query is None:
        message = "Say what the texts are: --query or --document. Their vectors differ."
        raise typer.BadParameter(message)
    if texts and file is not None:
        message = "Give texts or --file, not both."
        raise typer.BadParameter(message)
    settings = options.settings_from(
        model=model,
        revision=revision,
        dimensions=dimensions,
        task=task,
        instruction=instruction,
        max_length=max_length,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
    )
    with options.make_encoder(settings) as encoder:
        embedded = _embedded(encoder, texts or _lines(file), is_query=query)
        if npy is None:
            _print_lines(embedded, encoder, is_query=query)
        else:
            _write_npy(embedded, npy, dimensions=encoder.dimensions)


def _embedded(
    encoder: F2LLMEncoder, texts: Iterable[str], *, is_query: bool
) -> Iterator[tuple[list[str], FloatMatrix]]:
    waiting = iter(texts)
    embed_texts = encoder.embed_queries if is_query else encoder.embed_documents
    while window := list(itertools.islice(waiting, _WINDOW)):
        yield window, embed_texts(window)


def _print_lines(embedded: Iterable[tuple[list[str], FloatMatrix]], encoder: F2LLMEncoder, *, is_query: bool) -> None:
    about = {"role": "query" if is_query else "document", "model": encoder.model_name}
    for window, vectors in embedded:
        for text, vector in zip(window, vectors, strict=True):
            # The shortest decimals that give the same float32 back.
            numbers = [float(str(number)) for number in vector]
            print_json({"text": text, **about, "dimensions": len(numbers), "vector": numbers})


def _write_npy(embedded: Iterable[tuple[list[str], FloatMatrix]], file: Path, *, dimensions: int) -> None:
    import numpy as np

    from f2rag.errors import InputError

    empty = np.empty((0, dimensions), dtype=np.float32)
    vectors = np.concatenate([empty, *(part for _, part in embedded)])
    try:
        with file.open("wb") as stream:
            np.save(stream, vectors)
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror}. Give a path in a folder that exists."
        raise InputError(message) from error
    show_note(f"{file}: float32 {vectors.shape}")


def _lines(file: Path | None) -> Iterator[str]:
    """One text per line of the file or of stdin; an empty line too, so that rows keep their numbers."""
    from f2rag.readers import decode_lines, read_lines

    if file is None and sys.stdin.isatty():
        show_note("Reading one text per line until Ctrl-D …")
    lines = decode_lines(sys.stdin.buffer, name="stdin") if file is None else read_lines(file)
    return (line.rstrip("\r\n") for line in lines)
