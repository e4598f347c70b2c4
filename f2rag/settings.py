"""The settings of the command line and of the app: one class, read from one place.

What is given explicitly, such as an option on the command line, wins over an environment variable
``F2RAG_<NAME>``, that wins over a line in the file ``.env`` of the working directory, and that wins over the
default. An empty variable counts as not set. Where ``F2RAG_LOCATION`` and ``F2RAG_QDRANT_API_KEY`` are not set,
``QDRANT_URL`` and ``QDRANT_API_KEY`` are read, which other programs know too. The library itself never reads the
environment: its classes take arguments.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import pydantic
from dotenv import dotenv_values
from pydantic_settings import BaseSettings, SettingsConfigDict

from f2rag.errors import InputError, SettingsError
from f2rag.store.layout import FieldKind, Layout, Lexical, Quantization
from f2rag.store.modes import ModeName

if TYPE_CHECKING:
    from f2rag.store.server import Server

PREFIX = "F2RAG_"

CONVENTIONAL = {"location": "QDRANT_URL", "qdrant_api_key": "QDRANT_API_KEY"}
"""Variables that other programs read too, for the settings that they stand in for."""

_LONGEST_ECHO = 24
"""A value is repeated in a message only when it is shorter than access tokens are."""

_EXCLUSIVE = {"task": "instruction", "instruction": "task"}

_OPTIONS = {"fields": "field"}
"""Options that are not called as the setting is."""

_NO_OPTION = {"qdrant_api_key", "grpc_port", "timeout", "ca_certificate", "token_budget"}
"""Settings without an option; of a key because a command line is seen by every process of the machine."""


class Settings(BaseSettings):
    """Everything that can be set without code. ``load_settings`` makes one.

    Attributes:
        model: Name, repository id or folder of the model; ``"stand-in"`` is the small one that ships with f2rag.
        revision: Commit, tag or branch instead of the pinned commit.
        dimensions: Vector size after Matryoshka truncation; the model's own size when not set.
        task: A named task that chooses the instruction.
        instruction: What queries are looking for, in the words of a sentence; used exactly as it is.
        device: ``cpu``, ``cuda``, ``mps``, or ``cuda:0,cuda:1`` to split the model; the best there is when not set.
        dtype: ``float32``, ``bfloat16`` or ``float16``; what the device computes fast when not set.
        weight_dtype: ``int8`` or ``int4`` holds the model in less memory; the dtype when not set.
        max_length: Tokens after which a text is cut; the model's safe length when not set.
        on_overflow: What happens to longer texts.
        local_files_only: Never ask the model hub.
        cache_folder: Where downloaded models lie, instead of the Hugging Face cache.
        token_budget: Padded tokens per forward pass; what suits the device when not set.
        location: Folder of the stored vectors, ``:memory:``, or the address of a Qdrant server such as
            ``http://127.0.0.1:6333``; several nodes of one cluster are separated by commas and asked in this order.
        collection: The collection within it.
        qdrant_api_key: Key or token for the server.
        grpc_port: The server's port for gRPC; when not set, its usual one is tried.
        timeout: Seconds that a read from the server may take.
        ca_certificate: PEM file of the authority that signed the server's certificate, if it is one of your own.
        mode: How to search; ``auto`` chooses what suits the collection.
        levels: Prefix sizes that a new collection stores, for the modes ``funnel`` and ``prefix``, e.g. ``128,256``.
        quantization: Compression of a new collection's indexed vectors; ``none`` where one is to lose it.
        lexical: Whether a new collection also indexes words, for hybrid search.
        fields: Metadata fields that a new collection indexes for filters, e.g. ``year:integer,author:keyword``; without
            a kind it is ``keyword``.
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
    weight_dtype: Literal["int8", "int4"] | None = None
    max_length: int | None = pydantic.Field(default=None, ge=2)
    on_overflow: Literal["truncate", "warn", "error"] = "warn"
    local_files_only: bool = False
    cache_folder: Path | None = None
    token_budget: int | None = pydantic.Field(default=None, ge=1)
    location: str = ".f2rag"
    collection: str = "documents"
    qdrant_api_key: pydantic.SecretStr | None = None
    grpc_port: int | None = pydantic.Field(default=None, ge=1, le=65535)
    timeout: float | None = pydantic.Field(default=None, gt=0)
    ca_certificate: Path | None = None
    mode: ModeName = "auto"
    levels: str | None = None
    quantization: Literal[Quantization, "none"] | None = None
    lexical: bool | None = None
    fields: str | None = None
    language: str | None = None
    chunk_tokens: int = pydantic.Field(default=512, ge=16)
    overlap: int = pydantic.Field(default=64, ge=0)
    limit: int = pydantic.Field(default=10, ge=1)

    @pydantic.field_validator("location")
    @classmethod
    def _location_is_one(cls, location: str) -> str:
        if re.fullmatch(r"[\w.-]+:\d+", location):
            raise ValueError("should be a folder, or an address that begins with http:// or https://")
        for address in _addresses(location):
            _check_address(address)
        return location

    @pydantic.field_validator("levels")
    @classmethod
    def _levels_are_numbers(cls, levels: str | None) -> str | None:
        _levels(levels)
        return levels

    @pydantic.field_validator("fields")
    @classmethod
    def _fields_are_fields(cls, fields: str | None) -> str | None:
        _fields(fields)
        return fields

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the server or cluster that ``location`` names; empty for a folder or memory."""
        return _addresses(self.location)

    def location_for_store(self) -> str | Server:
        """The location as ``QdrantStore.open`` takes it: a server comes with its key, port and timeout.

        Raises:
            InputError: An address that no server has, or a certificate that cannot be read.
        """
        if not self.addresses:
            return self.location
        from f2rag.store.server import Server

        options = {
            "api_key": self.qdrant_api_key,
            "grpc_port": self.grpc_port,
            "timeout": self.timeout,
            "ca_certificate": self.ca_certificate,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return Server(self.addresses, **cast("dict[str, Any]", given))

    def layout(self, *, base: Layout | None = None) -> Layout | None:
        """The layout of a new collection.

        Args:
            base: Where it gets what is not set.

        Returns:
            ``base`` where nothing is set; if that is ``None``, a collection that exists keeps its own.
        """
        if self.levels is None and self.quantization is None and self.lexical is None and self.fields is None:
            return base
        base = base or Layout()
        quantization = base.quantization if self.quantization is None else self.quantization
        return Layout(
            levels=base.levels if self.levels is None else _levels(self.levels),
            quantization=None if quantization == "none" else quantization,
            lexical=None if self.lexical is False else base.lexical or (Lexical() if self.lexical else None),
            fields=base.fields if self.fields is None else _fields(self.fields),
        )

    def encoder_arguments(self) -> dict[str, Any]:
        """The arguments of ``F2LLMEncoder``, its first one included."""
        names = (
            *("model", "revision", "dimensions", "task", "instruction", "device", "dtype", "weight_dtype"),
            *("max_length", "on_overflow", "local_files_only", "cache_folder", "token_budget"),
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
        if conventional := _conventional(settings, written):
            settings = Settings(**given, **conventional)
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


def _conventional(settings: Settings, written: Mapping[str, str | None]) -> dict[str, Any]:
    """What the variables that other programs read too say about settings that are not set."""
    found = {name: os.environ.get(variable) or written.get(variable) for name, variable in CONVENTIONAL.items()}
    wanted = {name: value for name, value in found.items() if value and name not in settings.model_fields_set}
    if "location" in wanted and not _addresses(wanted["location"]):
        raise SettingsError("QDRANT_URL is no address of a server. Write it like http://127.0.0.1:6333, or unset it.")
    return wanted


def _addresses(location: str) -> tuple[str, ...]:
    if not re.match(r"\s*[a-z][a-z0-9+.-]*://", location, re.IGNORECASE):
        return ()
    return tuple(address.strip() for address in location.split(",") if address.strip())


def _check_address(address: str) -> None:
    """Refuse what is no address of a server; the message does not repeat it, since it may hold a key.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("should hold no key or password: set F2RAG_QDRANT_API_KEY instead")
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("should be a folder, ':memory:', or an address such as http://127.0.0.1:6333")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("should have a whole number after the colon, the server's port") from None


def _levels(levels: str | None) -> tuple[int, ...]:
    """Read ``"128,256"``.

    Raises:
        ValueError: It is no list of levels.
    """
    try:
        found = tuple(int(level) for level in (levels or "").split(",") if level.strip())
        return Layout(levels=found).levels
    except ValueError as error:
        why = f" ({error})" if isinstance(error, InputError) else ""
        raise ValueError(f"should be sizes separated by commas, for example 128,256{why}") from None


def _fields(fields: str | None) -> dict[str, FieldKind]:
    """Read ``"year:integer,author"``.

    Raises:
        ValueError: It is no list of fields.
    """
    pairs = [field.partition(":") for field in (fields or "").split(",") if field.strip()]
    found = {name.strip(): kind.strip() or "keyword" for name, _, kind in pairs}
    try:
        Layout(fields=cast("dict[str, FieldKind]", found))
    except InputError as error:
        raise ValueError(
            f"should be fields with their kinds, for example year:integer,author:keyword ({error})"
        ) from None
    return cast("dict[str, FieldKind]", found)


def _line(problem: Any) -> str:
    """One validation problem in one line, without values that may be secret."""
    name = ".".join(map(str, problem["loc"]))
    given = str(problem["input"])
    repeatable = len(given) < _LONGEST_ECHO and "://" not in given  # an address may hold a password
    what = f"{given!r} was given" if repeatable else "the value given is wrong"
    where = [PREFIX + name.upper(), *([CONVENTIONAL[name]] if name in CONVENTIONAL else [])]
    if name not in _NO_OPTION:
        where.append(f"--{_OPTIONS.get(name, name.replace('_', '-'))}")
    msg = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{' or '.join(where)}: {what}; it {msg.removesuffix('.')}."
