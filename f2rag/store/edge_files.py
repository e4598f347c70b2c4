"""The files that f2rag keeps beside the embedded engine's own: each is there whole or not at all, or nothing changes.

    <folder>/<collection>/f2rag.json   the record of the collection
    <folder>/.aliases/<alias>          the collection that the alias stands for, as JSON

An alias is a file of its own, so that switching one is one rename and two processes cannot undo each other's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from f2rag.errors import StorageFullError
from f2rag.store.agreement import damaged
from f2rag.store.failures import translated

CONTRACT_FILE = "f2rag.json"
ALIASES = ".aliases"
"""Folder of the aliases; no collection can have its name."""


def require_space(folder: Path, needed: int) -> None:
    """Make sure of ``needed`` free bytes where ``folder`` lies.

    Raises:
        StorageFullError: There are fewer.
    """
    with translated(f"Folder {folder}"):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageFullError(
            f"The device of {folder} has {free / 2**20:.0f} MiB free, and this step needs {needed / 2**20:.0f} MiB "
            "to be safe. What was stored stays. Free some space or choose a folder on another device, then repeat it."
        )


def read_contract_file(path: Path) -> Mapping[str, Any] | None:
    """The record in the collection folder ``path``, or ``None`` where there is none.

    Raises:
        StoreError: It is damaged or cannot be read.
    """
    file = path / CONTRACT_FILE
    with translated(f"Collection folder {path}"):
        try:
            stored = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:  # neither UTF-8 nor JSON
            raise damaged(str(path), f"{CONTRACT_FILE} is no JSON: {error}") from error
    if not isinstance(stored, dict):
        raise damaged(str(path), f"{CONTRACT_FILE} holds no JSON object")
    return stored


def write_contract_file(path: Path, stored: Mapping[str, Any]) -> None:
    """Write the record into the collection folder ``path``."""
    _write_whole(path / CONTRACT_FILE, json.dumps(stored, ensure_ascii=False, indent=2) + "\n")


def read_aliases(folder: Path) -> dict[str, str]:
    """The collection that each alias of ``folder`` stands for, sorted by alias; damaged ones are left out."""
    found: dict[str, str] = {}
    with translated(f"Folder {folder}"):
        for file in sorted((folder / ALIASES).glob("*")):
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
                target = json.loads(file.read_text("utf-8"))["collection"]
                if not file.name.startswith(".") and isinstance(target, str):
                    found[file.name] = target
    return found


def write_alias(folder: Path, alias: str, collection: str) -> None:
    """Let ``alias`` stand for ``collection``, in one step."""
    with translated(f"Folder {folder}"):
        (folder / ALIASES).mkdir(exist_ok=True)
        _write_whole(folder / ALIASES / alias, json.dumps({"collection": collection}) + "\n")


def forget_aliases(folder: Path, collection: str) -> None:
    """Take away the aliases of a collection that goes away."""
    with translated(f"Folder {folder}"):
        for alias, target in read_aliases(folder).items():
            if target == collection:
                (folder / ALIASES / alias).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # absent, or others are left
            (folder / ALIASES).rmdir()


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_whole(file: Path, text: str) -> None:
    """Write ``file`` so that it is there, complete, or not at all, also after a power loss."""
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~umask())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
