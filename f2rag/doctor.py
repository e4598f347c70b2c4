"""The checks behind ``f2rag doctor``: each thing that silently gives wrong vectors elsewhere, with its verdict.

Those of a collection are in ``doctor_collection.py``.

Each check is one small function that returns what it found or raises; ``run_checks`` yields verdicts as they come, so
that a person sees progress while a large model loads.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from f2rag import checkpoint as checkpoints
from f2rag import memory
from f2rag.encoder import F2LLMEncoder
from f2rag.errors import F2RagError
from f2rag.models import mrl_ladder, resolve
from f2rag.prompts import format_query
from f2rag.tokenizer import F2LLMTokenizer
from f2rag.vectors import truncate

Verdict = Literal["ok", "warning", "failed", "skipped"]

_PROBES = ("What is F2LLM used for?", "F2LLM 是 CodeFuse 开源的系列嵌入模型。", "Короткий текст.", "نص قصير")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One verdict.

    Attributes:
        name: What was looked at.
        verdict: ``"ok"``, ``"warning"`` (works, and worth knowing), ``"failed"``, or ``"skipped"`` after a failure.
        detail: What was found, and for a failure what to do.
    """

    name: str
    verdict: Verdict
    detail: str


Finding = tuple[Verdict, str]


def run_checks(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    weight_dtype: str | None = None,
    local_files_only: bool = False,
    cache_folder: str | os.PathLike[str] | None = None,
) -> Iterator[Check]:
    """Check a model from its name to its vectors; after a failure the checks that need it are skipped.

    Args: as for ``F2LLMEncoder``.

    Yields:
        One ``Check`` after the other, as soon as each is known.
    """
    examination = _Examination(
        lambda: F2LLMEncoder(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            weight_dtype=weight_dtype,
            local_files_only=local_files_only,
            cache_folder=cache_folder,
            on_overflow="truncate",
        ),
        model=model,
    )
    steps: list[tuple[str, Callable[[], Finding]]] = [
        ("model", examination.model_name),
        ("files", examination.files),
        ("config", examination.config),
        ("device", examination.device),
        ("memory", examination.memory),
        ("weights", examination.weights),
        ("tokenizer", examination.tokenizer),
        ("query prompt", examination.query_prompt),
        ("loading", examination.loading),
        ("self-test", examination.self_test),
        ("batch and single", examination.batch_and_single),
        ("query and document", examination.query_and_document),
        ("dimensions", examination.dimensions),
        ("store", examination.store),
    ]
    failed = False
    try:
        for name, step in steps:
            if failed and name != "store":
                yield Check(name, "skipped", "needs the check that failed")
                continue
            check = checked(name, step)
            failed = failed or check.verdict == "failed"
            yield check
    finally:
        examination.close()


def checked(name: str, step: Callable[[], Finding]) -> Check:
    """What one step finds; an error is a failure with the error's own words."""
    try:
        verdict, detail = step()
    except F2RagError as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # a check of its own kind: what is unforeseen is a finding, not a traceback
        return Check(name, "failed", f"unforeseen {type(error).__name__}: {error}. Please report it.")
    return Check(name, verdict, detail)


class _Examination:
    """The steps of one run, in order; later ones use what earlier ones found."""

    def __init__(self, make_encoder: Callable[[], F2LLMEncoder], *, model: str | os.PathLike[str]) -> None:
        self._make_encoder = make_encoder
        self._model = model
        self._encoder: F2LLMEncoder | None = None
        self._vectors = np.empty((0, 0), dtype=np.float32)

    @property
    def encoder(self) -> F2LLMEncoder:
        if self._encoder is None:
            self._encoder = self._make_encoder()
        return self._encoder

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()

    def model_name(self) -> Finding:
        resolved = resolve(self._model)
        spec = resolved.spec
        if self.encoder.is_stand_in:
            return "warning", "stand-in: the small bundled model for demos and tests; it is not F2LLM-v2"
        if spec is None or resolved.folder is not None:
            shape = f" with the shape of {spec.name}" if spec is not None else ""
            return "ok", f"{resolved.name}: {resolved.folder or resolved.repo}{shape}"
        if spec.kind == "preview":
            return "warning", f"{spec.repo}: a stage-1 base, trained without instructions; queries go in bare"
        pinned = "the pinned commit" if self.encoder.options.revision is None else "as given"
        revision = (self.encoder.options.revision or resolved.revision or "main")[:12]
        return "ok", f"{spec.repo} at {revision} ({pinned}), {spec.parameters:,} parameters"

    def files(self) -> Finding:
        folder = self.encoder.tokenizer_file().parent
        offline = ", without asking the hub" if self.encoder.options.local_files_only else ""
        return "ok", f"{folder}{offline}"

    def config(self) -> Finding:
        found = self.encoder.checkpoint
        shape = f"{found.hidden_size} dimensions, {found.config['num_hidden_layers']} layers"
        if found.repairs:
            return "warning", f"{shape}; {'; '.join(found.repairs)}"
        return "ok", f"{shape}, last-token pooling"

    def weights(self) -> Finding:
        found = self.encoder.fetch()
        files = checkpoints.weight_files(found.folder)
        size = sum(file.stat().st_size for file in files)
        count = f"{len(files)} safetensors file{'s' * (len(files) > 1)}"
        return "ok", f"{count}, {size / 1e6:,.1f} MB, whole; no pickle, no remote code"

    def tokenizer(self) -> Finding:
        found = self.encoder.checkpoint
        tokenizer = F2LLMTokenizer(found.folder, vocabulary_size=int(found.config["vocab_size"]))
        cut = tokenizer.encode(["a long text " * 50], max_length=16).ids[0]
        if len(cut) != 16 or cut[-1] != tokenizer.eos_id:
            return "failed", "the EOS does not survive truncation; download tokenizer.json again"
        return "ok", f"one <|im_end|> (id {tokenizer.eos_id}) at the end, kept after truncation; padding on the right"

    def query_prompt(self) -> Finding:
        instruction = self.encoder.instruction
        if not instruction:
            return "ok", "queries go in without an instruction"
        return "ok", repr(format_query("", instruction))

    def device(self) -> Finding:
        return "ok", self.encoder.device_plan.describe()

    def memory(self) -> Finding:
        """Before the weights are fetched: nobody should download 28 GB to learn that they do not fit."""
        plan = self.encoder.device_plan
        if len(plan.devices) > 1:
            weights = memory.weight_bytes(memory.shape_of(self.encoder.checkpoint.config), dtype=plan.dtype)
            share = memory.gigabytes(weights // len(plan.devices))
            return "ok", f"needs at least {share} for weights on each of {', '.join(plan.devices)}"
        fits, found = memory.fits(
            memory.shape_of(self.encoder.checkpoint.config),
            device=plan.device,
            dtype=plan.dtype,
            tokens=self.encoder.options.token_budget or plan.token_budget,
            weight_dtype=plan.weight_dtype,
        )
        return ("ok" if fits else "warning"), found

    def loading(self) -> Finding:
        return "ok", self.encoder.warm_up()

    def self_test(self) -> Finding:
        difference, fast = self.encoder.self_test_result()
        tolerance = self.encoder.device_plan.rounding
        detail = f"fast forward differs from the stock one by {difference:.1e} (rounding: up to {tolerance:.0e})"
        return ("ok", detail) if fast else ("warning", f"{detail}; the stock forward is used")

    def batch_and_single(self) -> Finding:
        self._vectors = self.encoder.embed_documents(_PROBES)
        single = np.vstack([self.encoder.embed_documents([text]) for text in _PROBES])
        worst = float((self._vectors * single).sum(axis=1).min())
        detail = f"cosine of batched and single vectors is at least {worst:.6f}"
        # Batches of another shape round differently: in float32 by 1e-7, in bfloat16 by up to 4e-3 in a component.
        enough = 0.99999 if self.encoder.device_plan.rounding < 1e-4 else 0.998
        return ("ok" if worst > enough else "failed"), detail

    def query_and_document(self) -> Finding:
        query = self.encoder.embed_query(_PROBES[0])
        cosine = float(query @ self._vectors[0])
        if not self.encoder.instruction:
            return "ok", f"no instruction: a query equals the same text as a document (cosine {cosine:.3f})"
        if cosine > 0.99999:
            return "failed", "a query has the vector of the same text as a document: the instruction has no effect"
        return "ok", f"the instruction moves a query to cosine {cosine:.3f} of the same text as a document"

    def dimensions(self) -> Finding:
        smaller = mrl_ladder(self.encoder.native_dimensions)[:-1][-1:] or (self.encoder.native_dimensions,)
        size = smaller[0]
        asked = self.encoder.embed_documents(_PROBES, dimensions=size)
        if not np.allclose(asked, truncate(self._vectors, size), atol=1e-3):
            return "failed", f"vectors at {size} dimensions differ from cut and normalised full vectors"
        norms = np.linalg.norm(asked, axis=1)
        return "ok", f"at {size} of {self._vectors.shape[1]}: unit length to {float(np.abs(norms - 1).max()):.0e}"

    def store(self) -> Finding:
        if importlib.util.find_spec("qdrant_edge") is None:
            return "warning", "qdrant-edge-py has no wheel here; folders use the client's slower local mode"
        return "ok", "Qdrant's engine runs in this process (qdrant-edge-py)"
