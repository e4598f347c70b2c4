"""F2LLMEncoder: queries and documents in, unit vectors out.

This file holds what a caller decides (model, role, instruction, dimensions, length policy) and joins the parts that do
the work: checkpoint, tokenizer, runtime. The two roles are separate methods, so that no caller can forget one.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from f2rag import pipeline
from f2rag.checkpoint import Checkpoint, weights_state
from f2rag.contract import EmbeddingContract
from f2rag.device import DevicePlan, check_dtype_name, plan_device
from f2rag.errors import EncoderClosedError, InputError, OverlongTextError, TextTypeError
from f2rag.models import mrl_ladder
from f2rag.options import (
    EncoderOptions,
    check_takes_instruction,
    check_text,
    check_texts,
    check_weight_dtype,
    check_whole_number,
)
from f2rag.runtime import Lease, ModelRuntime, RuntimeKey, lease
from f2rag.source import ModelSource
from f2rag.types import FloatMatrix, FloatVector, Overflow
from f2rag.vectors import check_dimensions

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_CALLER_THREADS = 8
"""Threads that tokenise for async callers; none of them waits for the device, which has its own worker."""


class TruncationWarning(UserWarning):
    """Texts were longer than ``max_length`` and were cut."""


class F2LLMEncoder:
    """An F2LLM-v2 model as an embedder, right with no argument given.

    Construction imports no torch, touches no device, and for the published models reads no file. The model is loaded
    with the first text, once per (model, revision, device, dtype) in a process however many encoders use it. All
    methods may be called from many threads.

    Args:
        model: ``"80M"``, ``"F2LLM-v2-0.6B"``, a repository id, a folder, or ``"stand-in"``.
        revision: Commit, tag or branch instead of the pinned commit.
        dimensions: Output size, 1 to the model's own width; the sizes of the training loss (powers of two) are best.
        task: A named task, e.g. ``"sts"``, or an MTEB task name; chooses the instruction and whether documents get it.
        instruction: The sentence that says what is looked for; ``""`` embeds queries bare. Not together with ``task``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``"cuda:0,cuda:1"`` splits the model over both; ``None``
            takes the best there is.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; ``None`` takes what the device computes fast.
        weight_dtype: ``"int8"`` or ``"int4"`` holds the layers' weights rounded, in less memory and at a cost in
            quality (``docs/quantization.md``); ``None`` holds them in ``dtype``.
        max_length: Tokens after which a text is cut, EOS included; ``None`` takes the model's safe length.
        on_overflow: What to do with longer texts: ``"warn"`` cuts them and warns, ``"truncate"`` cuts silently (see
            ``truncated_count``), ``"error"`` refuses them.
        local_files_only: Never ask the model hub.
        cache_folder: Where downloaded models lie, instead of the Hugging Face cache.
        token_budget: Padded tokens per forward; ``None`` takes what suits the device.

    Raises:
        UnknownModelError: The model name means nothing.
        InputError: An argument is out of range, or ``task`` and ``instruction`` are both given.

    Example:
        >>> from f2rag import F2LLMEncoder
        >>> encoder = F2LLMEncoder("stand-in", dimensions=64)
        >>> documents = encoder.embed_documents(["Das Licht ist an.", "The door is locked."])
        >>> documents.shape
        (2, 64)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "0.6B",
        *,
        revision: str | None = None,
        dimensions: int | None = None,
        task: str | None = None,
        instruction: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        weight_dtype: str | None = None,
        max_length: int | None = None,
        on_overflow: Overflow = "warn",
        local_files_only: bool = False,
        cache_folder: str | os.PathLike[str] | None = None,
        token_budget: int | None = None,
    ) -> None:
        self._setup(
            EncoderOptions(
                model=model,
                revision=revision,
                dimensions=dimensions,
                task=task,
                instruction=instruction,
                device=device,
                dtype=check_dtype_name(dtype),
                weight_dtype=check_weight_dtype(weight_dtype),
                max_length=max_length,
                on_overflow=on_overflow,
                local_files_only=local_files_only,
                cache_folder=None if cache_folder is None else str(cache_folder),
                token_budget=token_budget,
            )
        )

    def _setup(self, options: EncoderOptions) -> None:
        self._source = ModelSource(options)
        if self._source.is_published:
            self._checked_dimensions(None)
        # Loading may take a minute: what the event loop's thread touches must not wait behind it.
        self._loading = threading.RLock()
        self._state = threading.Lock()
        self._process = os.getpid()
        self._truncated_count = 0
        self._closed = False
        self._lease: Lease | None = None
        self._callers: ThreadPoolExecutor | None = None
        self._places = pipeline.Places()

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def model_name(self) -> str:
        """The model's name as it is shown to people, e.g. ``"F2LLM-v2-80M"``."""
        return self._source.model.name

    @property
    def options(self) -> EncoderOptions:
        """What it was made with, so that another like it can be made."""
        return self._source.options

    @property
    def is_stand_in(self) -> bool:
        """Whether this is the small bundled model for demos and tests, which is not F2LLM-v2."""
        return self._source.model.spec is not None and self._source.model.spec.kind == "stand-in"

    @property
    def native_dimensions(self) -> int:
        """The model's own width; needs the config at most, never the weights."""
        return self._source.native_dimensions

    @property
    def dimensions(self) -> int:
        """Output size when a call names none."""
        return self._checked_dimensions(None)

    @property
    def instruction(self) -> str:
        """What queries get when a call names nothing; ``""`` means bare queries."""
        return self._source.instruction

    @property
    def document_instruction(self) -> str:
        """What documents get: ``""`` for retrieval, the instruction for symmetric tasks, or what the folder says."""
        return self._source.document_instruction

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut, EOS included."""
        return self._source.max_length

    @property
    def truncated_count(self) -> int:
        """How many texts were cut to ``max_length`` since construction."""
        return self._truncated_count

    @property
    def device_plan(self) -> DevicePlan:
        """Device, dtype and token budget, with the reason."""
        return plan_device(self.options.device, self.options.dtype, self.options.weight_dtype)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's files and config, with what was repaired; fetches small files only."""
        return self._source.checkpoint

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        """What makes two document vectors of this encoder comparable; needs no weights.

        Args:
            dimensions: Of the vectors in question; ``None`` takes this encoder's.
        """
        model, revision = self._source.identity
        return EmbeddingContract(
            model=model,
            revision=revision,
            native_dimensions=self.native_dimensions,
            dimensions=self._checked_dimensions(dimensions),
            document_instruction=self.document_instruction,
            max_length=self.max_length,
            dtype=self.options.dtype or "by hardware",
            weight_dtype=self.options.weight_dtype or "",
        )

    # -- embedding ----------------------------------------------------------------------------------------------

    def embed_query(self, text: str, *, dimensions: int | None = None, instruction: str | None = None) -> FloatVector:
        """Embed one query.

        Args:
            text: The query, without any prompt.
            dimensions: Output size for this call.
            instruction: Instruction for this call; ``""`` for none.

        Returns:
            float32 (dimensions,), of unit length.

        Raises:
            TextTypeError: ``text`` is not a string.
            InputError: Overlong under ``on_overflow="error"``, not valid Unicode, or an option out of range.
            ModelLoadError: The model cannot be loaded.
        """
        check_text(text, method="embed_query")
        vector: FloatVector = self.embed_queries([text], dimensions=dimensions, instruction=instruction)[0]
        return vector

    def embed_queries(
        self, texts: Sequence[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """Embed queries, each with the instruction in front; see ``embed_query``.

        Returns:
            float32 (n, dimensions), rows of unit length, in the order given.
        """
        call = functools.partial(self._for_queries, dimensions, instruction)
        return self._embed(texts, call, method="embed_queries")

    def embed_documents(self, texts: Sequence[str], *, dimensions: int | None = None) -> FloatMatrix:
        """Embed documents: bare for retrieval, with the instruction for symmetric tasks; see ``embed_query``.

        Returns:
            float32 (n, dimensions), rows of unit length, in the order given.
        """
        return self._embed(texts, functools.partial(self._for_documents, dimensions), method="embed_documents")

    def iter_documents(
        self, texts: Iterable[str], *, dimensions: int | None = None, window: int = 2048
    ) -> Iterator[FloatMatrix]:
        """Embed a stream of documents, endless if need be, in bounded memory.

        Args:
            texts: Any iterable. It is read by the thread that asks for the next array, up to one window beyond that
                array, so that the device computes while you work with what you have: a stream that waits for its own
                vectors would wait for ever.
            dimensions: Output size.
            window: Texts that are sorted and embedded together.

        Returns:
            An iterator of float32 arrays (up to ``window``, dimensions), in the order given. An error comes after the
            arrays of the windows before it. Closing or dropping the iterator drops what has not been computed.

        Raises:
            TextTypeError: ``texts`` is one string, or no stream; while iterating: an item is no string.
        """
        size = check_whole_number(window, name="window", least=1)
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            message = f"iter_documents takes a stream of strings; {type(texts).__name__} was given."
            raise TextTypeError(message)
        call = functools.partial(self._for_documents, dimensions)
        return pipeline.stream(call, texts, window=size, method="iter_documents")

    async def aembed_query(
        self, text: str, *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatVector:
        """``embed_query`` without blocking the event loop; what waits when the device becomes free is one batch."""
        check_text(text, method="embed_query")
        rows = await self.aembed_queries([text], dimensions=dimensions, instruction=instruction)
        vector: FloatVector = rows[0]
        return vector

    async def aembed_queries(
        self, texts: Sequence[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """``embed_queries`` without blocking the event loop."""
        call = functools.partial(self._for_queries, dimensions, instruction)
        return await self._aembed(texts, call, method="embed_queries")

    async def aembed_documents(self, texts: Sequence[str], *, dimensions: int | None = None) -> FloatMatrix:
        """``embed_documents`` without blocking the event loop."""
        return await self._aembed(texts, functools.partial(self._for_documents, dimensions), method="embed_documents")

    def similarity(self, queries: FloatMatrix | FloatVector, documents: FloatMatrix | FloatVector) -> FloatMatrix:
        """Cosine similarities of unit vectors.

        Returns:
            float32 (queries, documents), -1..1.

        Raises:
            InputError: The widths differ: both sides need the same ``dimensions``.
        """
        left, right = np.atleast_2d(queries), np.atleast_2d(documents)
        if left.shape[1] != right.shape[1]:
            message = (
                f"queries have {left.shape[1]} dimensions and documents {right.shape[1]}; "
                "embed both with the same dimensions."
            )
            raise InputError(message)
        return np.asarray(left @ right.T, dtype=np.float32)

    # -- tokens -------------------------------------------------------------------------------------------------

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as a document, EOS included; loads the tokenizer but not the weights."""
        check_text(text, method="count_tokens")
        return self._source.tokenizer.count(text)

    def tokenizer_file(self) -> Path:
        """The model's ``tokenizer.json``, for splitters that count with it; downloads it if need be."""
        return self._source.tokenizer.file

    # -- life ---------------------------------------------------------------------------------------------------

    def warm_up(self) -> str:
        """Load the model and compute once, so that the first query does not wait.

        Returns:
            One line that says what runs where and why.
        """
        self.embed_queries(["warm up"])
        return f"{self.model_name} on {self._runtime().plan.describe()}"

    def compile(self) -> str:
        """Compile the parts of the model between its matrix products, and wait until that is done.

        Takes tens of seconds, and pays on a GPU or on a CPU with AMX; there it also begins by itself, beside the work,
        once enough was computed (``TORCHDYNAMO_DISABLE=1`` prevents it). Needs triton or a C++ compiler.

        Returns:
            ``"compiled"``, or ``"not compiled"`` with the reason; then everything works as before.
        """
        return self._runtime().compile()

    def fetch(self) -> Checkpoint:
        """Make sure that all files of the model are on this machine, downloading what is missing; loads nothing.

        Returns:
            Where they are and what their config says.
        """
        return self._source.fetch()

    def self_test_result(self) -> tuple[float, bool]:
        """Difference of the fast forward from the stock one at load, and whether the fast one is in use."""
        runtime = self._runtime()
        return runtime.self_test_difference, runtime.uses_fast_forward

    def close(self) -> None:
        """Let go of the model; the last encoder that uses it frees its memory. May be called twice."""
        with self._state:
            self._closed = True
            callers, self._callers = self._callers, None
        if callers is not None:
            # What waits is not cancelled: it then meets the closed encoder and says so.
            callers.shutdown(wait=False)
        with self._loading:
            if self._lease is not None:
                self._lease.end()
                self._lease = None

    def __enter__(self) -> F2LLMEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        wanted = "" if self.options.dimensions is None else f", dimensions={self.options.dimensions}"
        return f"F2LLMEncoder({self._source.model.name!r}{wanted})"

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._setup(state["options"])

    # -- inside -------------------------------------------------------------------------------------------------

    def _embed(self, texts: Sequence[str], call: Callable[[], pipeline.Embedding], *, method: str) -> FloatMatrix:
        self._check_open()
        check_texts(texts, method=method)
        # A copy: the caller may change the list while the model works.
        return pipeline.embed(call(), list(texts))

    async def _aembed(
        self, texts: Sequence[str], call: Callable[[], pipeline.Embedding], *, method: str
    ) -> FloatMatrix:
        self._check_process()
        self._check_open()
        check_texts(texts, method=method)
        return await pipeline.aembed(call, list(texts), places=self._places, in_thread=self._in_thread)

    def _for_queries(self, dimensions: int | None, instruction: str | None) -> pipeline.Embedding:
        return self._for_call(self._instruction_for_call(instruction), dimensions)

    def _for_documents(self, dimensions: int | None) -> pipeline.Embedding:
        return self._for_call(self.document_instruction, dimensions)

    def _for_call(self, prompt: str, dimensions: int | None) -> pipeline.Embedding:
        """What one call decided; may read the checkpoint's small files."""
        self._check_open()
        return pipeline.Embedding(
            tokenizer=lambda: self._source.tokenizer,
            runtime=self._runtime,
            prompt=prompt,
            dimensions=self._checked_dimensions(dimensions),
            max_length=self.max_length,
            token_budget=self.options.token_budget,
            on_overlong=self._report_overlong,
        )

    def _report_overlong(self, positions: dict[int, int], total: int) -> None:
        first = min(positions)
        what = f"text {first} has {positions[first]} tokens, max_length is {self.max_length}"
        if self.options.on_overflow == "error":
            message = f"{total} of the texts are too long ({what}). Split them, or set on_overflow='truncate'."
            raise OverlongTextError(message)
        with self._state:
            self._truncated_count += total
        logger.info("%d texts were cut: %s.", total, what)
        if self.options.on_overflow == "warn":
            # One text for all: Python keeps every different text of a warning for as long as the process lives.
            message = (
                f"Texts were cut to max_length={self.max_length} tokens; truncated_count says how many, the log which. "
                "Split long texts, or raise max_length."
            )
            warnings.warn(message, TruncationWarning, stacklevel=pipeline.level_of_caller())

    def _instruction_for_call(self, instruction: str | None) -> str:
        if instruction is None:
            return self.instruction
        check_takes_instruction(instruction, self._source.model)
        return instruction

    def _checked_dimensions(self, dimensions: int | None) -> int:
        wanted = self.options.dimensions if dimensions is None else dimensions
        native = self.native_dimensions
        if wanted is None:
            return native
        return check_dimensions(wanted, native=native, ladder=mrl_ladder(native), model_name=self.model_name)

    def _runtime(self) -> ModelRuntime:
        self._check_process()
        with self._loading:
            self._check_open()
            if self._lease is None:
                self._lease = self._take_lease()
            return self._lease.runtime

    def _check_open(self) -> None:
        if self._closed:
            message = f"{self!r} is closed. Make a new encoder, or close it later."
            raise EncoderClosedError(message)

    def _check_process(self) -> None:
        """In a forked child, let go of what is the parent's: its locks, its threads and its share of the model."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._loading, self._state = threading.RLock(), threading.Lock()
        self._source.renew_lock()
        self._callers = None
        self._places = pipeline.Places()
        if self._lease is not None:
            self._lease.forget()
            self._lease = None

    def _take_lease(self) -> Lease:
        plan = self.device_plan
        found = self.fetch()
        if self.max_length > found.maximum_length:
            message = f"max_length={self.max_length} was given; {self.model_name} has {found.maximum_length} positions."
            raise InputError(message)
        pad_id = self._source.tokenizer.pad_id
        state = weights_state(found.folder)
        key = RuntimeKey(str(found.folder.resolve()), found.revision, state, plan.device, plan.dtype, plan.weight_dtype)
        return lease(key, lambda: ModelRuntime(found, plan, pad_id=pad_id), owner=self)

    def _in_thread(self, work: Callable[[], Result]) -> Future[Result]:
        with self._state:
            self._check_open()
            if self._callers is None:
                self._callers = ThreadPoolExecutor(_CALLER_THREADS, thread_name_prefix="f2rag-caller")
            return self._callers.submit(work)
