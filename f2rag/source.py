"""A model's files without its weights: what is known before loading, read when it is first needed.

For published models most of it stands in ``models.py``, so that opening a collection for a 14B model reads nothing.
"""

from __future__ import annotations

import threading
from typing import cast

from f2rag import checkpoint as checkpoints
from f2rag.checkpoint import Checkpoint
from f2rag.download import locate
from f2rag.models import resolve
from f2rag.options import EncoderOptions, check_options, choose_instructions
from f2rag.prompts import DEFAULT_INSTRUCTION
from f2rag.tokenizer import F2LLMTokenizer

_FALLBACK_MAX_LENGTH = 8192
"""The authors' evaluation length, for checkpoints about whose safe length nothing is known."""


class ModelSource:
    """The model that an encoder's options name.

    Args:
        options: What the caller decided; checked here.

    Raises:
        UnknownModelError: The model name means nothing.
        InputError: An option is out of range.
    """

    def __init__(self, options: EncoderOptions) -> None:
        self.options = options
        self.model = resolve(options.model)
        self._query_instruction, self._document_instruction = choose_instructions(options, self.model)
        check_options(options, self.model)
        self._lock = threading.RLock()
        self._checkpoint: Checkpoint | None = None
        self._tokenizer: F2LLMTokenizer | None = None

    @property
    def native_dimensions(self) -> int:
        """The model's own width."""
        spec = self.model.spec
        return spec.hidden_size if self.is_published and spec is not None else self.checkpoint.hidden_size

    @property
    def is_published(self) -> bool:
        """Whether this is one of the published checkpoints, about which everything is known."""
        return self.model.folder is None and self.model.spec is not None

    @property
    def instruction(self) -> str:
        """What queries get when a call names nothing."""
        if self._query_instruction is None:
            stored = checkpoints.stored_prompts(self.checkpoint.folder).query
            self._query_instruction = DEFAULT_INSTRUCTION if stored is None else stored
        return self._query_instruction

    @property
    def document_instruction(self) -> str:
        """What documents get."""
        if self._document_instruction is None:
            self._document_instruction = checkpoints.stored_prompts(self.checkpoint.folder).document or ""
        return self._document_instruction

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut, EOS included."""
        if self.options.max_length is not None:
            return self.options.max_length
        spec = self.model.spec
        if self.is_published and spec is not None:
            return spec.safe_length
        stored = checkpoints.stored_max_length(self.checkpoint.folder)
        wanted = stored or (spec.safe_length if spec is not None else _FALLBACK_MAX_LENGTH)
        return min(wanted, self.checkpoint.maximum_length)

    @property
    def identity(self) -> tuple[str, str]:
        """Model and revision as contracts name them; the revision is a commit or a fingerprint, never a branch."""
        revision = self.options.revision or self.model.revision
        if self.is_published and checkpoints.is_commit(revision):
            return self.model.repo, cast(str, revision)
        return self.checkpoint.model_id, self.checkpoint.revision

    @property
    def checkpoint(self) -> Checkpoint:
        """The config with what was repaired; fetches small files only."""
        with self._lock:
            if self._checkpoint is None:
                self._checkpoint = self._read(weights=False)
            return self._checkpoint

    @property
    def tokenizer(self) -> F2LLMTokenizer:
        """The probed tokenizer; fetches small files only."""
        with self._lock:
            if self._tokenizer is None:
                vocabulary_size = int(self.checkpoint.config["vocab_size"])
                self._tokenizer = F2LLMTokenizer(self.checkpoint.folder, vocabulary_size=vocabulary_size)
            return self._tokenizer

    def fetch(self) -> Checkpoint:
        """Make sure that all files are on this machine, downloading what is missing."""
        with self._lock:
            _ = self.checkpoint
            return self._read(weights=True)

    def renew_lock(self) -> None:
        """In a forked child: the thread that held the lock, if one did, does not exist here."""
        self._lock = threading.RLock()

    def _read(self, *, weights: bool) -> Checkpoint:
        revision = self.options.revision
        if self._checkpoint is not None and self.model.folder is None:
            # The weights of the very commit whose config and tokenizer are in use, though a branch has moved since.
            revision = self._checkpoint.revision
        folder = locate(
            self.model,
            revision=revision,
            cache_folder=self.options.cache_folder,
            local_files_only=self.options.local_files_only,
            weights=weights,
        )
        return checkpoints.read_checkpoint(self.model, folder, revision=revision)
