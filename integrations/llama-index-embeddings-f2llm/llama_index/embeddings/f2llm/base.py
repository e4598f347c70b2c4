"""F2LLMEmbedding: an F2LLM-v2 model as a LlamaIndex embedding, right with no argument given.

It holds settings and an encoder of ``f2rag``; prompts, batches and vectors are the encoder's. It knows no store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from f2rag import F2LLMEncoder
from f2rag.errors import InputError, ModelLoadError, TextTypeError
from f2rag.options import check_text, check_texts
from f2rag.types import Encoder, FloatMatrix, Overflow, Role
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding, mean_agg
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # exported, not declared
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.storage.kvstore.types import BaseKVStore

from llama_index.embeddings.f2llm.cache import RoleKeyedCache, cache_keys
from llama_index.embeddings.f2llm.habits import translate

dispatcher = get_dispatcher(__name__)

DEFAULT_MODEL = "0.6B"

EMBED_BATCH_SIZE = 2048
"""Texts per call, LlamaIndex's largest: the base class cuts before the encoder sees the texts, and the encoder sorts
by length and cuts by tokens itself."""

_SETTINGS = {
    "model_name": DEFAULT_MODEL,
    "revision": None,
    "dimensions": None,
    "task": None,
    "instruction": None,
    "device": None,
    "dtype": None,
    "weight_dtype": None,
    "max_length": None,
    "on_overflow": "warn",
    "local_files_only": False,
    "cache_folder": None,
    "token_budget": None,
}
"""What makes an encoder, with what is meant when nothing is given."""

_WRITTEN_BESIDES = ("class_name", "fingerprint")
"""What ``to_dict`` writes besides the arguments."""


class F2LLMEmbedding(BaseEmbedding):
    """F2LLM-v2 embeddings.

    Queries get the model's instruction, documents none, and all vectors have unit length after truncation. The model
    is loaded with the first text, once per process however many objects use it. What decides a vector cannot be
    changed afterwards; threads and event loops may share an object; a pickle or a dictionary holds the settings, never
    weights, caches or callbacks.

    Nodes are embedded with their metadata lines, as LlamaIndex does with every model; see a node's
    ``excluded_embed_metadata_keys``.

    Args:
        model_name: ``"80M"``, ``"F2LLM-v2-0.6B"``, a repository id, a folder, or ``"stand-in"``; also as ``model``.
        encoder: An encoder of your own instead, e.g. one that an application shares; see ``from_encoder``.
        embed_batch_size: Texts per call of the encoder, 1 to 2048.
        num_workers: How many of these calls wait for the device at a time in asynchronous batches.
        callback_manager: LlamaIndex's.
        embeddings_cache: Any LlamaIndex key-value store; made sound per role, instruction, model and dimensions.
        rate_limiter: LlamaIndex's.
        **settings: The other fields below, and the habitual names of HuggingFaceEmbedding, which are honoured or
            refused with what to use instead.

    Raises:
        UnknownModelError: The model name means nothing; near matches are listed.
        InputError: An argument is out of range, contradicts another or cannot be honoured.
        pydantic.ValidationError: An argument is of the wrong type.

    Example:
        >>> from llama_index.embeddings.f2llm import F2LLMEmbedding
        >>> embedding = F2LLMEmbedding(model_name="stand-in", dimensions=64)
        >>> len(embedding.get_query_embedding("Where can I sleep?"))
        64
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    model_name: str = Field(
        default=DEFAULT_MODEL, frozen=True, description="A size such as '80M', a repository id, a folder or 'stand-in'."
    )
    revision: str | None = Field(
        default=None, frozen=True, description="Commit, tag or branch instead of the pinned commit."
    )
    dimensions: int | None = Field(
        default=None, strict=True, frozen=True, description="Size of the vectors; None takes the model's own width."
    )
    task: str | None = Field(
        default=None, frozen=True, description="A named task, e.g. 'sts'; chooses the instruction and who gets it."
    )
    instruction: str | None = Field(
        default=None, frozen=True, description="The sentence that says what is looked for; '' embeds queries bare."
    )
    device: str | None = Field(default=None, frozen=True, description="E.g. 'cpu' or 'cuda'; None takes the best.")
    dtype: str | None = Field(
        default=None, frozen=True, description="E.g. 'bfloat16'; None takes what the device computes fast."
    )
    weight_dtype: str | None = Field(
        default=None, frozen=True, description="'int8' or 'int4' holds the model in less memory; None as dtype."
    )
    max_length: int | None = Field(
        default=None, strict=True, frozen=True, description="Tokens after which a text is cut."
    )
    on_overflow: Overflow = Field(
        default="warn", frozen=True, description="'warn' cuts longer texts and warns, 'truncate' cuts, 'error' refuses."
    )
    local_files_only: bool = Field(default=False, frozen=True, description="Never ask the model hub.")
    cache_folder: str | None = Field(default=None, frozen=True, description="Where downloaded models lie.")
    token_budget: int | None = Field(
        default=None, strict=True, frozen=True, description="Padded tokens per forward, which bounds the memory."
    )
    embed_batch_size: int = Field(default=EMBED_BATCH_SIZE, gt=0, le=2048, description="Texts per call of the encoder.")
    # Not serialised: a key-value store is a connection or a heap of vectors, and neither belongs in a configuration.
    embeddings_cache: Any | None = Field(default=None, exclude=True, description="Key-value store for vectors.")

    _encoder: Encoder = PrivateAttr()
    _given: bool = PrivateAttr(default=False)

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        *,
        encoder: Encoder | None = None,
        embed_batch_size: int = EMBED_BATCH_SIZE,
        num_workers: int | None = None,
        callback_manager: CallbackManager | None = None,
        embeddings_cache: BaseKVStore | None = None,
        rate_limiter: Any | None = None,
        **settings: Any,
    ) -> None:
        chosen = _chosen(model_name, settings)
        if "embed_batch_size" in chosen:
            embed_batch_size = chosen.pop("embed_batch_size")
        if encoder is not None:
            chosen = _described(encoder, chosen)
        super().__init__(
            **chosen,
            embed_batch_size=embed_batch_size,
            num_workers=num_workers,
            callback_manager=callback_manager or CallbackManager([]),
            embeddings_cache=_sound(embeddings_cache),
            rate_limiter=rate_limiter,
        )
        self._given = encoder is not None
        self._encoder = encoder if encoder is not None else self._make_encoder()

    @classmethod
    def from_encoder(cls, encoder: Encoder, **arguments: Any) -> Self:
        """An embedding over an encoder of your own.

        Args:
            encoder: An ``F2LLMEncoder``, ``f2rag.testing.FakeEncoder``, or anything of that shape. It says the model,
                the dimensions and the instruction.
            **arguments: ``embed_batch_size``, ``num_workers``, ``callback_manager``, ``embeddings_cache``,
                ``rate_limiter``.

        Raises:
            InputError: ``encoder`` is none, or a setting is given that the encoder decides.
        """
        return cls(encoder=encoder, **arguments)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised forms."""
        return "F2LLMEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The encoder that does the work."""
        return self._encoder

    def close(self) -> None:
        """Let go of the model; the last object in the process that uses it frees its memory.

        An encoder that was handed in stays open.
        """
        if not self._given:
            self._encoder.close()

    # -- queries ------------------------------------------------------------------------------------------------

    def get_query_embedding_batch(self, queries: Iterable[str]) -> list[Embedding]:
        """Embed many queries in one go, each with the instruction; LlamaIndex has no such method of its own.

        Raises:
            TextTypeError: One string instead of several, or an item that is none.
        """
        texts = _listed(queries, single="get_query_embedding")
        with self._announced(texts) as vectors:
            vectors.extend(self._vectors("query", texts))
        return vectors

    async def aget_query_embedding_batch(self, queries: Iterable[str]) -> list[Embedding]:
        """``get_query_embedding_batch`` without blocking the event loop."""
        texts = _listed(queries, single="aget_query_embedding")
        with self._announced(texts) as vectors:
            vectors.extend(await self._avectors("query", texts))
        return vectors

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Aggregate several queries, by default their mean; they are embedded in one go."""
        return (agg_fn or mean_agg)(self.get_query_embedding_batch(queries))

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """``get_agg_embedding_from_queries`` without blocking the event loop."""
        return (agg_fn or mean_agg)(await self.aget_query_embedding_batch(queries))

    def _get_query_embedding(self, query: str) -> Embedding:
        check_text(query, method="get_query_embedding")
        return self._vectors("query", [query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        check_text(query, method="aget_query_embedding")
        return (await self._avectors("query", [query]))[0]

    # -- documents ----------------------------------------------------------------------------------------------

    def get_text_embedding_batch(
        self,
        texts: Iterable[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - LlamaIndex's signature
        **kwargs: Any,
    ) -> list[Embedding]:
        """Embed documents; any iterable of strings.

        Raises:
            TextTypeError: One string instead of several, or an item that is none.
        """
        return super().get_text_embedding_batch(_listed(texts, single="get_text_embedding"), show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self,
        texts: Iterable[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - LlamaIndex's signature
        **kwargs: Any,
    ) -> list[Embedding]:
        """``get_text_embedding_batch`` without blocking the event loop."""
        listed = _listed(texts, single="aget_text_embedding")
        return await super().aget_text_embedding_batch(listed, show_progress, **kwargs)

    def _get_text_embedding(self, text: str) -> Embedding:
        check_text(text, method="get_text_embedding")
        return self._vectors("document", [text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._vectors("document", texts)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        check_text(text, method="aget_text_embedding")
        return (await self._avectors("document", [text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._avectors("document", texts)

    # -- forms --------------------------------------------------------------------------------------------------

    def to_payload(self) -> dict[str, Any]:
        """What observers are told: no path, no instruction in words, nothing secret."""
        return {
            "class_name": self.class_name(),
            "model_name": self._encoder.model_name,
            "embed_batch_size": self.embed_batch_size,
            "dimensions": self.dimensions,
            "task": self.task,
            "instruction_id": None if self.instruction is None else _digest(self.instruction),
        }

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The settings, and the fingerprint of the model's vectors.

        The ingestion pipeline makes its cache keys of this: with the fingerprint, a model that was trained further in
        the same folder does not get the old vectors. It is left out where the model is not on this machine yet.
        """
        data: dict[str, Any] = super().to_dict(**kwargs)
        with suppress(ModelLoadError):
            data["fingerprint"] = self._encoder.contract().fingerprint
        return data

    def __getstate__(self) -> dict[str, Any]:
        """The settings; with an encoder of another kind also that."""
        foreign = self._given and not isinstance(self._encoder, F2LLMEncoder)
        return {"settings": self.to_dict(), "encoder": self._encoder if foreign else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start again from the settings."""
        settings, encoder = dict(state["settings"]), state["encoder"]
        if encoder is not None:
            settings = {name: settings[name] for name in ("embed_batch_size", "num_workers")}
        self.__init__(**settings, encoder=encoder)  # type: ignore[misc]  # what the base class does as well

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _sound(value) if name == "embeddings_cache" else value)

    # -- inside -------------------------------------------------------------------------------------------------

    def _make_encoder(self) -> F2LLMEncoder:
        options = {name: getattr(self, name) for name in _SETTINGS if name != "model_name"}
        encoder = F2LLMEncoder(self.model_name, **options)
        if self.dimensions is not None and os.path.isdir(self.model_name):  # noqa: PTH112 - it is a string
            _ = encoder.dimensions  # reads the config, so that a wrong size is refused here and not in the first call
        return encoder

    def _vectors(self, role: Role, texts: Sequence[str]) -> list[Embedding]:
        check_texts(texts, method="embed_queries" if role == "query" else "embed_documents")
        embed = self._encoder.embed_queries if role == "query" else self._encoder.embed_documents
        cache = self.embeddings_cache
        if cache is None:
            return _rows(embed(texts))
        keys = self._keys(role, texts)
        found = cache.read(keys)
        missing = [row for row, vector in enumerate(found) if vector is None]
        if missing:
            made = _rows(embed([texts[row] for row in missing]))
            cache.write([keys[row] for row in missing], made)
            for row, vector in zip(missing, made, strict=True):
                found[row] = vector
        return found  # type: ignore[no-any-return]  # the cache is Any in the base class

    async def _avectors(self, role: Role, texts: Sequence[str]) -> list[Embedding]:
        check_texts(texts, method="embed_queries" if role == "query" else "embed_documents")
        cache = self.embeddings_cache
        if cache is None:
            return _rows(await self._aembed(role, texts))
        keys = self._keys(role, texts)
        found = await cache.aread(keys)
        missing = [row for row, vector in enumerate(found) if vector is None]
        if missing:
            made = _rows(await self._aembed(role, [texts[row] for row in missing]))
            await cache.awrite([keys[row] for row in missing], made)
            for row, vector in zip(missing, made, strict=True):
                found[row] = vector
        return found  # type: ignore[no-any-return]  # the cache is Any in the base class

    async def _aembed(self, role: Role, texts: Sequence[str]) -> FloatMatrix:
        """One call for all texts; encoders of another kind may have only the blocking one."""
        method = "embed_queries" if role == "query" else "embed_documents"
        native = getattr(self._encoder, f"a{method}", None)
        if native is not None:
            return await native(texts)  # type: ignore[no-any-return]  # looked up by name
        return await asyncio.to_thread(getattr(self._encoder, method), texts)

    def _keys(self, role: Role, texts: Sequence[str]) -> list[str]:
        contract = self._encoder.contract()
        return cache_keys(
            texts,
            role=role,
            instruction=self._encoder.instruction if role == "query" else contract.document_instruction,
            fingerprint=contract.fingerprint,
            max_length=contract.max_length,
            on_overflow=self.on_overflow,
        )

    @contextmanager
    def _announced(self, texts: list[str]) -> Iterator[list[Embedding]]:
        """The events that the base class emits around its own methods; the block fills the list of vectors."""
        payload = self.to_payload()
        vectors: list[Embedding] = []
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            yield vectors
            event.on_end(payload={EventPayload.CHUNKS: texts, EventPayload.EMBEDDINGS: vectors})
        dispatcher.event(EmbeddingEndEvent(chunks=texts, embeddings=vectors))


def _chosen(model_name: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a caller chose, under their own names."""
    fields = [*_SETTINGS, "embed_batch_size", "num_workers", "callback_manager", "embeddings_cache", "rate_limiter"]
    chosen = {name: value for name, value in given.items() if name in _SETTINGS}
    if model_name is not None:
        chosen["model_name"] = model_name
    habitual = {name: value for name, value in given.items() if name not in _SETTINGS and name not in _WRITTEN_BESIDES}
    for name, value in translate(habitual, fields).items():
        if chosen.get(name, value) != value:
            raise InputError(f"{name} was given twice, as {chosen[name]!r} and as {value!r}; give it once.")
        chosen[name] = value
    for name in ("model_name", "cache_folder"):
        if isinstance(chosen.get(name), os.PathLike):
            chosen[name] = os.fspath(chosen[name])
    return chosen


def _described(encoder: Encoder, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an encoder that was handed in."""
    if not hasattr(encoder, "embed_queries") or not hasattr(encoder, "contract"):
        raise InputError(f"encoder takes an encoder of f2rag, e.g. F2LLMEncoder(), not {encoder!r:.80}.")
    besides = sorted(name for name, value in chosen.items() if value != _SETTINGS[name])
    if besides:
        raise InputError(f"{', '.join(besides)} was given besides an encoder; give it to the encoder.")
    if isinstance(encoder, F2LLMEncoder):
        options = dataclasses.asdict(encoder.options)
        return {"model_name": os.fspath(options.pop("model")), **options}
    return {
        "model_name": encoder.model_name,
        "dimensions": encoder.dimensions,
        "instruction": encoder.instruction,
    }


def _listed(texts: Iterable[str], *, single: str) -> list[str]:
    """The texts as a list; one string is refused, for its letters would be embedded."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TextTypeError(
            f"A list of strings is expected; {type(texts).__name__} was given. Use {single} for one text."
        )
    listed = list(texts)
    check_texts(listed, method="embed_documents")
    return listed


def _sound(cache: Any) -> Any:
    """A key-value store behind sound keys; anything else as it is, for the base class to judge."""
    return RoleKeyedCache(cache) if isinstance(cache, BaseKVStore) and not isinstance(cache, RoleKeyedCache) else cache


def _rows(vectors: FloatMatrix) -> list[Embedding]:
    """Plain lists of Python floats, as LlamaIndex expects."""
    rows: list[Embedding] = vectors.tolist()
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
