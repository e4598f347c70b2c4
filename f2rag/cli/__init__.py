"""The command ``f2rag``: models, doctor, embed, index, search, collections, evaluate, advise, demo and others.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed with one message, 2 wrong usage,
130 interrupted. The commands import what is heavy when they run, so that ``f2rag --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from f2rag import __version__
from f2rag.cli import documents, evaluation, inspection, maintenance, vectors
from f2rag.cli.output import Notes, show_error, show_note, show_warning
from f2rag.errors import F2RagError

INTERRUPTED = 130


class F2RagGroup(TyperGroup):
    """Turns errors that a person can mend into one message, and leaves bugs their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            Exit: With 1 after an error, with 130 after Ctrl-C.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = show_warning
                result = super().invoke(ctx)
                sys.stdout.flush()  # a closed pipe is to be noticed here, not while Python shuts down
                return result
        except F2RagError as error:
            show_error(error, as_json=ctx.meta.get("json", False))
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            show_note("Interrupted. What is stored is kept; the same command goes on from there.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe, such as head, has seen enough.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    name="f2rag",
    cls=F2RagGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Multilingual embeddings with F2LLM-v2: embed, index and search, right with no option given.",
    epilog="Options of the model and the store can be set in the environment or in .env, e.g. F2RAG_MODEL=80M.",
)

inspection.register(app)
vectors.register(app)
documents.register(app)
maintenance.register(app)
evaluation.register(app)


def _print_version(value: bool) -> None:  # noqa: FBT001  # typer calls it by position
    if value:
        typer.echo(f"f2rag {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what happens inside.")] = False,
) -> None:
    """Options that stand before the command."""
    if not verbose:
        library, notes = logging.getLogger("f2rag"), Notes(lambda: not context.meta.get("json", False))
        library.addHandler(notes)
        context.call_on_close(lambda: library.removeHandler(notes))
    else:
        from rich.logging import RichHandler

        from f2rag.cli.output import stderr

        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=stderr())])


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # texts are in every script, whatever the locale of a pipe is
    app()
