"""How the command line looks: consoles, tables, snippets, errors, JSON.

Text that runs from right to left is kept from reordering the table around it: every line of it stands between
left-to-right marks, which take no room. Nothing here knows a model or a store.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import rich.box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

LEFT_TO_RIGHT_MARK = "\u200e"


def stdout() -> Console:
    """The console of results; into a file or a pipe it is 100 columns wide."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100
    return Console(highlight=False, width=width)


def stderr() -> Console:
    """The console of progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def show_error(error: Exception, *, as_json: bool = False) -> None:
    """Print an error's message, and nothing of where it was raised."""
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": str(error)}}, to_stderr=True)
    else:
        stderr().print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print a warning of f2rag in one line; those of other libraries are for ``--verbose``."""
    if category.__module__.startswith("f2rag."):
        stderr().print(f"[yellow]Note:[/] {escape(str(message))}", soft_wrap=True)
    else:
        logging.getLogger("f2rag").info("%s: %s", category.__name__, message)


class Notes(logging.Handler):
    """Prints what f2rag's modules warn of, each in one line: a server that does not answer, a key sent in the open.

    Args:
        wanted: Asked each time whether anybody wants to read it.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        super().__init__(logging.WARNING)
        self._wanted = wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if self._wanted():
            stderr().print(f"[yellow]Note:[/] {escape(record.getMessage())}", soft_wrap=True)


def show_note(message: str) -> None:
    """Say something that is no result."""
    stderr().print(escape(message), style="dim", soft_wrap=True)


def print_json(value: Any, *, to_stderr: bool = False) -> None:
    """Print one JSON value on one line, as it is: no colours, no wrapping."""
    (sys.stderr if to_stderr else sys.stdout).write(json.dumps(value, ensure_ascii=False) + "\n")


def table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """A table in the house style.

    Args:
        columns: The headings.
        right: Those of them that stand over numbers.
        title: A line above it.
    """
    result = Table(box=rich.box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, collapse_padding=True)
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    return result


def snippet(text: str, *, width: int, lines: int = 1) -> Text:
    """The beginning of a text: at most ``lines`` lines of ``width`` cells, an ellipsis where it is cut."""
    words = Text(" ".join(text.split()))
    wrapped = [line.plain.rstrip() for line in words.wrap(Console(width=width), width)]
    shown = wrapped[:lines]
    if len(wrapped) > lines:
        last = shown[-1]
        while cell_len(last) >= width:
            last = last[:-1]
        shown[-1] = last.rstrip() + "…"
    return Text("\n".join(map(isolated, shown)), no_wrap=True)


def isolated(line: str) -> str:
    """Put a line with right-to-left letters between marks that hold its neighbours in place."""
    if any(unicodedata.bidirectional(character) in {"R", "AL"} for character in line):
        return f"{LEFT_TO_RIGHT_MARK}{line}{LEFT_TO_RIGHT_MARK}"
    return line


class _Rate(ProgressColumn):
    """Documents per second."""

    def render(self, task: Task) -> Text:
        """The speed of the last half minute, or nothing while there is none."""
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="progress.data.speed")


def progress_bar(console: Console) -> Progress:
    """A bar with a count, a rate and the time that is left."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console)
