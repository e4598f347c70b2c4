"""The settings of the command line and of the app: one class, read from one place.

What is given explicitly, such as an option on the command line, wins over an environment variable
``F2RAG_<NAME>``, that wins over a line in the file ``.env`` of the working directory, and that wins over the
default. An empty variable counts as not set. The library itself never reads the environment: its classes take
arguments.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import pydantic
from dotenv import dotenv_values
from pydantic_settings import BaseSettings, SettingsConfigDict

from f2rag.errors import SettingsError

PREFIX = "F2RAG_"

_LONGEST_ECHO = 24
"""A value is repeated in a message only when it is shorter than access tokens are."""

_EXCLUSIVE = {"task": "instruction", "instruction": "task"}


class Settings(BaseSettings):
    """Everything that can be set without code. ``load_settings`` makes one.

    Attributes:
        model: Name, repository id or folder of the model; ``"stand-in"`` is the small one that ships with f2rag.
        revision: Commit, tag or branch instead of the pinned commit.
        dimensions: Vector size after Matryoshka truncation; the model's own size when not set.
        task: A named task that chooses the instruction.
        instruction: What queries are looking for, in the words of a sentence; used exactly as it is.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when not set.
        dtype: ``float32``, ``bfloat16`` or ``float16``; what the device computes fast when not set.
        max_length: Tokens after which a text is cut; the model's safe length when not set.
        on_overflow: What happens to longer texts.
        local_files_only: Never ask the model hub.
        cache_folder: Where downloaded models lie, instead of the Hugging Face cache.
        token_budget: Padded tokens per forward pass; what suits the device when not set.
        location: Folder of the stored vectors, or ``:memory:``.
        collection: The collection within it.
        language: BCP 47 tag of indexed documents that do not name theirs.
        chunk_tokens: Most tokens of a chunk, EOS included.
        overlap: Most tokens that a chunk repeats of the one before.
        limit: Hits per search.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    model: str = "0.6B"
    revision: str | None = None
    dimensions: int | None = pydantic.Field(default=None, ge=1)
    task: str | None = None
    instruction: str | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    max_length: int | None = pydantic.Field(default=None, ge=2)
    on_overflow: Literal["truncate", "warn", "error"] = "warn"
    local_files_only: bool = False
    cache_folder: Path | None = None
    token_budget: int | None = pydantic.Field(default=None, ge=1)
    location: str = ".f2rag"
    collection: str = "documents"
    language: str | None = None
    chunk_tokens: int = pydantic.Field(default=512, ge=16)
    overlap: int = pydantic.Field(default=64, ge=0)
    limit: int = pydantic.Field(default=10, ge=1)

    def encoder_arguments(self) -> dict[str, Any]:
        """The arguments of ``F2LLMEncoder``, its first one included."""
        names = (
            *("model", "revision", "dimensions", "task", "instruction", "device", "dtype", "max_length"),
            *("on_overflow", "local_files_only", "cache_folder", "token_budget"),
        )
        return {name: getattr(self, name) for name in names}


def load_settings(**explicit: Any) -> Settings:
    """Read the settings; what is given here wins, and ``None`` stands for not given.

    An explicit task displaces an instruction from the environment and the other way round, since only one may
    be set.

    Raises:
        SettingsError: A value that is wrong, a variable that is a misspelt setting, or a ``.env`` that is no
        text.
    """
    given = {name: value for name, value in explicit.items() if value is not None}
    try:
        written = dotenv_values(".env", encoding="utf-8")
        _check_names({*os.environ, *written})
        settings = Settings(**given)
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(_line(problem) for problem in error.errors())) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file .env cannot be read: {error}. Save it as UTF-8 text, one NAME=value per line."
        raise SettingsError(message) from error
    displaced = {other: None for name, other in _EXCLUSIVE.items() if name in given and other not in given}
    settings = settings.model_copy(update=displaced)
    if settings.task is not None and settings.instruction is not None:
        message = "Both a task and an instruction are set. Set one: a task stands for its own instruction."
        raise SettingsError(message)
    return settings


def _check_names(names: set[str]) -> None:
    """Refuse variables that are nearly a setting; others under the prefix may belong to somebody else."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(names):
        if not name.upper().startswith(PREFIX) or name.upper() in known:
            continue
        if near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85):
            message = f"{name} is no setting of f2rag. Did you mean {near[0]}?"
            raise SettingsError(message)


def _line(problem: Any) -> str:
    """One validation problem in one line, without values that may be secret."""
    name = ".".join(map(str, problem["loc"]))
    given = str(problem["input"])
    what = f"{given!r} was given" if len(given) < _LONGEST_ECHO else "the value given is wrong"
    return f"{PREFIX}{name.upper()} or --{name.replace('_', '-')}: {what}; it {problem['msg'].removeprefix('Input ')}."
