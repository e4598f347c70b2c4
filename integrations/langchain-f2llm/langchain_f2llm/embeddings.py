"""F2LLMEmbeddings: an F2LLM-v2 model as LangChain embeddings, right with no argument given.

It holds settings and an encoder of ``f2rag``; prompts, batches and vectors are the encoder's. It knows no store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from f2rag import F2LLMEncoder
from f2rag.errors import InputError
from f2rag.options import check_text, check_texts
from f2rag.types import Encoder, FloatMatrix, FloatVector, Overflow, Role
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from langchain_f2llm.habits import translated

if TYPE_CHECKING:
    from f2rag.contract import EmbeddingContract
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.stores import ByteStore

Result = TypeVar("Result")

PROGRESS_WINDOW = 512
"""Texts per step of the progress bar; large enough that sorting by length still pays."""


class F2LLMEmbeddings(BaseModel, Embeddings):
    """F2LLM-v2 embeddings.

    Queries get the model's instruction, documents none, and all vectors have unit length after truncation. The model
    is loaded with the first text, once per process however many objects use it. Objects are immutable and may be
    shared by threads and event loops; a pickle holds the settings, never weights.

    Setup:
        ``pip install langchain-f2llm``

    Instantiate:
        >>> from langchain_f2llm import F2LLMEmbeddings
        >>> embeddings = F2LLMEmbeddings(model="stand-in", dimensions=64)

    Embed:
        >>> len(embeddings.embed_query("Where can I sleep?"))
        64
        >>> [len(row) for row in embeddings.embed_documents(["Das Hotel ist am See.", "Il fait chaud."])]
        [64, 64]

    Raises:
        UnknownModelError: The model name means nothing; near matches are listed.
        InputError: An argument is out of range, contradicts another or cannot be honoured.
        pydantic.ValidationError: An argument is of the wrong type.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = "0.6B"
    """``"80M"``, ``"F2LLM-v2-0.6B"``, a repository id, a folder, or ``"stand-in"``. Also taken as ``model_name``."""

    revision: str | None = None
    """Commit, tag or branch instead of the pinned commit."""

    dimensions: int | None = Field(default=None, strict=True)
    """Size of the vectors, 1 to the model's own width (the default). Also taken as ``truncate_dim``."""

    task: str | None = None
    """A named task, e.g. ``"sts"``: chooses the instruction and whether documents get it."""

    instruction: str | None = None
    """The sentence that says what is looked for; ``""`` embeds queries bare. Not together with ``task``."""

    device: str | None = None
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``None`` takes the best there is."""

    dtype: str | None = None
    """``"float32"``, ``"bfloat16"``, ``"float16"``; ``None`` takes what the device computes fast."""

    weight_dtype: str | None = None
    """``"int8"`` or ``"int4"`` holds the model in less memory; ``None`` holds it in ``dtype``."""

    max_length: int | None = Field(default=None, strict=True)
    """Tokens after which a text is cut; ``None`` takes the model's safe length."""

    on_overflow: Overflow = "warn"
    """What to do with longer texts: ``"warn"`` cuts and warns, ``"truncate"`` cuts, ``"error"`` refuses."""

    local_files_only: bool = False
    """Never ask the model hub."""

    cache_folder: str | None = None
    """Where downloaded models lie, instead of the Hugging Face cache."""

    show_progress: bool = False
    """Show a progress bar while documents are embedded."""

    token_budget: int | None = Field(default=None, strict=True)
    """Padded tokens per forward, which bounds the memory; ``None`` takes what suits the device."""

    _encoder: Encoder = PrivateAttr()
    _given: bool = PrivateAttr(default=False)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**translated(arguments, type(self).model_fields))
        # Here and not in a validator, so that its errors arrive as they are, not wrapped in pydantic's.
        encoder = F2LLMEncoder(**self.model_dump(exclude={"show_progress"}))
        if self.dimensions is not None and os.path.isdir(self.model):  # noqa: PTH112 - it is a string
            _ = encoder.dimensions  # reads the config, so that a wrong size is refused here and not in the first call
        self._encoder = encoder

    @classmethod
    def from_encoder(
        cls,
        encoder: Encoder,
        *,
        dimensions: int | None = None,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> Self:
        """Embeddings over an encoder of your own, e.g. one that an application shares, or a fake one in tests.

        Args:
            encoder: An ``F2LLMEncoder``, ``f2rag.testing.FakeEncoder``, or anything of that shape. It stays yours:
                ``close`` does not close it.
            dimensions: Size of the vectors; ``None`` takes the encoder's.
            instruction: For queries; ``None`` takes the encoder's.
            show_progress: Show a progress bar while documents are embedded.

        Raises:
            InputError: ``encoder`` is none, or the size is impossible.
        """
        if not hasattr(encoder, "embed_queries") or not hasattr(encoder, "contract"):
            raise InputError(f"from_encoder takes an encoder of f2rag, e.g. F2LLMEncoder(), not {encoder!r:.80}.")
        made = cls.model_construct(
            model=encoder.model_name, dimensions=dimensions, instruction=instruction, show_progress=show_progress
        )
        if dimensions is not None:
            encoder.contract(dimensions=dimensions)
        made._encoder, made._given = encoder, True  # noqa: SLF001 - its own class
        return made

    @field_validator("model", "cache_folder", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        """The encoder that does the work."""
        return self._encoder

    @property
    def model_name(self) -> str:
        """The model's name as it is shown to people, e.g. ``"F2LLM-v2-80M"``."""
        return self._encoder.model_name

    @property
    def output_dimensions(self) -> int:
        """Size of the vectors; known without any weights."""
        return self.dimensions if self.dimensions is not None else self._encoder.dimensions

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        """What makes two document vectors comparable; a collection remembers it."""
        return self._encoder.contract(dimensions=self.dimensions if dimensions is None else dimensions)

    # -- queries ------------------------------------------------------------------------------------------------

    def embed_query(self, text: str, *, dimensions: int | None = None, instruction: str | None = None) -> list[float]:
        """Embed one query.

        Args:
            text: The query, without any prompt.
            dimensions: Size for this call.
            instruction: Instruction for this call; ``""`` for none.

        Raises:
            TextTypeError: ``text`` is not a string.
            InputError: A text that is no Unicode, or an option out of range.
            ModelLoadError: The model cannot be loaded.
        """
        return _row(self.embed_query_array(text, dimensions=dimensions, instruction=instruction))

    def embed_queries(
        self, texts: Iterable[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> list[list[float]]:
        """Embed queries in one go; see ``embed_query``."""
        return _rows(self.embed_queries_array(texts, dimensions=dimensions, instruction=instruction))

    async def aembed_query(
        self, text: str, *, dimensions: int | None = None, instruction: str | None = None
    ) -> list[float]:
        """``embed_query`` without blocking the event loop."""
        return _row(await self.aembed_query_array(text, dimensions=dimensions, instruction=instruction))

    async def aembed_queries(
        self, texts: Iterable[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> list[list[float]]:
        """``embed_queries`` without blocking the event loop."""
        return _rows(await self.aembed_queries_array(texts, dimensions=dimensions, instruction=instruction))

    def embed_query_array(
        self, text: str, *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatVector:
        """``embed_query`` as float32 array (dimensions,)."""
        check_text(text, method="embed_query")
        return self._encoder.embed_query(text, **self._query_options(dimensions, instruction))

    def embed_queries_array(
        self, texts: Iterable[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """``embed_queries`` as float32 array (n, dimensions)."""
        listed = _listed(texts, method="embed_queries")
        return self._encoder.embed_queries(listed, **self._query_options(dimensions, instruction))

    async def aembed_query_array(
        self, text: str, *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatVector:
        """``embed_query_array`` without blocking the event loop."""
        check_text(text, method="embed_query")
        vector: FloatVector = await self._twin("embed_query")(text, **self._query_options(dimensions, instruction))
        return vector

    async def aembed_queries_array(
        self, texts: Iterable[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """``embed_queries_array`` without blocking the event loop."""
        listed = _listed(texts, method="embed_queries")
        rows: FloatMatrix = await self._twin("embed_queries")(listed, **self._query_options(dimensions, instruction))
        return rows

    # -- documents ----------------------------------------------------------------------------------------------

    def embed_documents(self, texts: Iterable[str], *, dimensions: int | None = None) -> list[list[float]]:
        """Embed documents: bare for retrieval, with the instruction for symmetric tasks.

        Args:
            texts: The documents.
            dimensions: Size for this call.

        Raises:
            TextTypeError: Not several strings; the message names the first that is none.
            InputError: A text that is no Unicode or, under ``on_overflow="error"``, too long.
            ModelLoadError: The model cannot be loaded.
        """
        return _rows(self.embed_documents_array(texts, dimensions=dimensions))

    async def aembed_documents(self, texts: Iterable[str], *, dimensions: int | None = None) -> list[list[float]]:
        """``embed_documents`` without blocking the event loop."""
        return _rows(await self.aembed_documents_array(texts, dimensions=dimensions))

    def embed_documents_array(self, texts: Iterable[str], *, dimensions: int | None = None) -> FloatMatrix:
        """``embed_documents`` as float32 array (n, dimensions), for bulk work: an eighth of the lists' memory."""
        listed = _listed(texts, method="embed_documents")
        wanted = self._options(dimensions)
        with self._progress(len(listed)) as advance:
            parts = []
            for part in self._steps(listed):
                parts.append(self._encoder.embed_documents(part, **wanted))
                advance(len(part))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def aembed_documents_array(self, texts: Iterable[str], *, dimensions: int | None = None) -> FloatMatrix:
        """``embed_documents_array`` without blocking the event loop."""
        listed = _listed(texts, method="embed_documents")
        wanted = self._options(dimensions)
        embed = self._twin("embed_documents")
        with self._progress(len(listed)) as advance:
            parts = []
            for part in self._steps(listed):
                parts.append(await embed(part, **wanted))
                advance(len(part))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # -- caches -------------------------------------------------------------------------------------------------

    def cache_namespace(self, role: Role = "document") -> str:
        """A namespace for ``CacheBackedEmbeddings`` that changes with everything that changes a vector.

        A namespace serves one role. ``from_bytes_store(..., query_embedding_cache=True)`` keeps both roles under one
        key, so that a query gets the vector of an equal document: use ``cached`` where queries are cached too.

        Args:
            role: Which vectors are cached.

        Raises:
            InputError: Another role.
        """
        if role not in ("query", "document"):
            raise InputError(f"role={role!r} was given; expected 'query' or 'document'.")
        contract = self.contract()
        facts: dict[str, Any] = contract.to_dict()
        if role == "query":
            facts["instruction"] = self._encoder.instruction if self.instruction is None else self.instruction
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return f"f2llm-{role}-{contract.dimensions}-{digest}-"

    def cached(self, store: ByteStore, *, queries: bool = True, batch_size: int | None = None) -> CacheBackedEmbeddings:
        """LangChain's ``CacheBackedEmbeddings`` over these, with each role under its own keys in one store.

        Args:
            store: Any ``ByteStore``, e.g. ``LocalFileStore``; other models and settings may share it.
            queries: Cache queries too.
            batch_size: Documents to embed between two writes to the store.

        Raises:
            ImportError: ``langchain-classic``, the home of that class, is not installed.
        """
        from langchain_f2llm.caching import cache_backed

        return cache_backed(self, store, queries=queries, batch_size=batch_size)

    # -- life ---------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Load the model and compute once, so that the first query does not wait."""
        self.embed_query_array("warm up")

    def close(self) -> None:
        """Let go of the model; the last object that uses it frees its memory. An encoder of yours is left open."""
        if not self._given:
            self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed, checked as in the constructor.

        Raises:
            InputError: As in the constructor; or settings of a given encoder, which are not ours to change.
        """
        if not update:
            return super().model_copy(deep=deep)
        if not self._given:
            return type(self)(**{**self.model_dump(exclude_unset=True), **update})
        own = {name: getattr(self, name) for name in ("dimensions", "instruction", "show_progress")}
        if foreign := sorted(set(update) - set(own)):
            raise InputError(f"{', '.join(foreign)} cannot change: the encoder was given. Make another encoder.")
        return type(self).from_encoder(self._encoder, **{**own, **update})

    def __eq__(self, other: object) -> bool:
        # Not pydantic's, which would compare the encoders too, and those have no equality.
        return isinstance(other, F2LLMEmbeddings) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    # -- inside -------------------------------------------------------------------------------------------------

    def _options(self, dimensions: int | None) -> dict[str, Any]:
        """What a call passes to the encoder: its own wish, else this object's, else nothing."""
        size = self.dimensions if dimensions is None else dimensions
        return {} if size is None else {"dimensions": size}

    def _query_options(self, dimensions: int | None, instruction: str | None) -> dict[str, Any]:
        sentence = self.instruction if instruction is None else instruction
        options = self._options(dimensions)
        return options if sentence is None else {**options, "instruction": sentence}

    def _identity(self) -> tuple[Any, ...]:
        """The settings; and the very encoder where it was given, since settings do not tell which it is."""
        return (*self.model_dump().items(), id(self._encoder) if self._given else None)

    def _twin(self, method: str) -> Callable[..., Awaitable[Any]]:
        """The encoder's async twin; an encoder without one works in a thread."""
        twin: Callable[..., Awaitable[Any]] | None = getattr(self._encoder, f"a{method}", None)
        if twin is not None:
            return twin
        plain = getattr(self._encoder, method)

        def in_thread(*arguments: Any, **options: Any) -> Awaitable[Any]:
            return asyncio.to_thread(plain, *arguments, **options)

        return in_thread

    def _steps(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """The texts in one go, unless there is progress to show."""
        size = PROGRESS_WINDOW if self.show_progress else max(1, len(texts))
        for start in range(0, max(1, len(texts)), size):
            yield texts[start : start + size]

    @contextmanager
    def _progress(self, total: int) -> Iterator[Callable[[int], object]]:
        if not self.show_progress:
            yield int
            return
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

        with tqdm(total=total, desc=f"Embedding with {self.model_name}", unit=" texts") as bar:
            yield bar.update


def _listed(texts: Iterable[str], *, method: str) -> Sequence[str]:
    """The texts as a sequence; streams and columns are read, what has no order is refused."""
    listed: Any = texts
    if isinstance(texts, Iterable) and not isinstance(texts, (str, bytes, Sequence, Mapping, AbstractSet)):
        listed = list(texts)
    check_texts(listed, method=method)
    checked: Sequence[str] = listed
    return checked


def _row(vector: FloatVector) -> list[float]:
    """As the list of Python floats that LangChain passes around."""
    row: list[float] = vector.tolist()
    return row


def _rows(vectors: FloatMatrix) -> list[list[float]]:
    rows: list[list[float]] = vectors.tolist()
    return rows
