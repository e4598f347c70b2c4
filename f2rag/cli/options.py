"""The options that several commands share, each written once, and the way from options to an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from f2rag.encoder import F2LLMEncoder
    from f2rag.settings import Settings


def _remember(context: typer.Context, value: bool) -> bool:  # noqa: FBT001  # typer calls it by position
    context.meta["json"] = value
    return value


_MODEL, _STORE, _LAYOUT = "Model", "Store", "New collections"

Json = Annotated[bool, typer.Option("--json", help="Print only JSON.", callback=_remember, is_eager=True)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="80M to 14B, a repository, a folder, or stand-in.",
        show_default="0.6B",
        rich_help_panel=_MODEL,
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch instead of the pinned one.", rich_help_panel=_MODEL)
]
Dimensions = Annotated[
    int | None,
    typer.Option("--dimensions", "-d", help="Vector size; the model's own if not set.", rich_help_panel=_MODEL),
]
Instruction = Annotated[str | None, typer.Option(help="What queries look for, in a sentence.", rich_help_panel=_MODEL)]
Task = Annotated[str | None, typer.Option(help="A named task that chooses the instruction.", rich_help_panel=_MODEL)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best one if not set.", rich_help_panel=_MODEL)]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16; the fastest exact one if not set.", rich_help_panel=_MODEL),
]
WeightDtype = Annotated[
    str | None,
    typer.Option(help="int8 or int4: the model in less memory.", rich_help_panel=_MODEL),
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens after which a text is cut.", rich_help_panel=_MODEL)]
Offline = Annotated[
    bool | None,
    typer.Option("--offline/--online", help="Never ask the model hub.", rich_help_panel=_MODEL),
]
CacheFolder = Annotated[str | None, typer.Option(help="Where downloaded models lie.", rich_help_panel=_MODEL)]
Location = Annotated[
    str | None,
    typer.Option(
        "--location",
        "-l",
        help="Folder of the stored vectors, or address of a Qdrant server.",
        show_default=".f2rag",
        rich_help_panel=_STORE,
    ),
]
Collection = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="Collection in it.", show_default="documents", rich_help_panel=_STORE),
]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="How to search: auto, exact, hnsw, quantized, funnel, prefix, hybrid or diverse.",
        show_default="auto",
        rich_help_panel=_STORE,
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(help="Prefix sizes to store for the modes funnel and prefix, e.g. 128,256.", rich_help_panel=_LAYOUT),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="Compress what is indexed: int8, turbo4, turbo2, turbo1, binary or none.", rich_help_panel=_LAYOUT
    ),
]
Lexical = Annotated[
    bool | None,
    typer.Option("--lexical/--no-lexical", help="Index words too, for hybrid search.", rich_help_panel=_LAYOUT),
]
Field = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="Metadata field to index for filters, e.g. year:integer; may be repeated.",
        rich_help_panel=_LAYOUT,
    ),
]


def settings_from(*, field: list[str] | None = None, **options: Any) -> Settings:
    """The settings under the options of a command; an option that was not given is ``None``.

    Raises:
        SettingsError: A setting in the environment, ``.env`` or here is wrong.
    """
    from f2rag.settings import load_settings

    if "offline" in options:
        options["local_files_only"] = options.pop("offline")
    return load_settings(**options, fields=",".join(field) if field else None)


def make_encoder(settings: Settings) -> F2LLMEncoder:
    """The encoder that the settings describe; nothing is loaded yet.

    Raises:
        UnknownModelError: The model name means nothing.
        InputError: A setting is out of range for the model.
    """
    from f2rag.encoder import F2LLMEncoder

    return F2LLMEncoder(**settings.encoder_arguments())
