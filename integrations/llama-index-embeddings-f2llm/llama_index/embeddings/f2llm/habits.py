"""Arguments that people type from habit, from HuggingFaceEmbedding and others: honoured, or refused with the way to go.

Nothing is ignored: an argument that silently does nothing changes vectors without a word.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from f2rag.errors import InputError

ALIASES = {
    "model": "model_name",
    "model_id": "model_name",
    "query_instruction": "instruction",
    "truncate_dim": "dimensions",
    "output_dimension": "dimensions",
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "batch_size": "embed_batch_size",
}
"""Other names of the same thing."""

HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "text_instruction": (None, ""),
    "normalize": (None, True),
    "show_progress_bar": (None, False),
    "trust_remote_code": (None, False),
    "parallel_process": (None, False),
    "target_devices": (None,),
    "pooling": (None, "last", "deprecated"),
    "tokenizer_name": (None, "deprecated"),
    "tokenizer": (None, "deprecated"),
}
"""Arguments of HuggingFaceEmbedding with the values that ask for what happens anyway."""

ADVICE = {
    "text_instruction": "F2LLM-v2 gives documents no instruction; for symmetric tasks give task=, e.g. task='sts'.",
    "normalize": "Vectors are always of unit length, after truncation to dimensions=.",
    "show_progress_bar": "Ask for it per call: get_text_embedding_batch(texts, show_progress=True).",
    "trust_remote_code": "F2LLM-v2 needs no code from the model hub; leave it out.",
    "parallel_process": "One worker per device computes for all callers; a pool would load the model again.",
    "target_devices": "Choose one device with device=.",
    "pooling": "F2LLM-v2 pools the last token; anything else gives wrong vectors.",
    "tokenizer_name": "The model brings its tokenizer.",
    "tokenizer": "The model brings its tokenizer.",
    "prompts": "Give instruction=, the sentence alone; the template around it is the model's own.",
    "query_prompt": "Give instruction=, the sentence alone; the template around it is the model's own.",
    "encode_kwargs": "Give dimensions= or token_budget= themselves; vectors are always of unit length.",
    "tokenizer_kwargs": "The model brings its tokenizer.",
    "backend": "The model runs in PyTorch; choose device= and dtype=.",
}
"""What to use instead of arguments that mean something which this package does otherwise."""

_FROM_MODEL_KWARGS = ("revision", "dtype", "torch_dtype", "local_files_only", "cache_folder", "device", "truncate_dim")


def translate(given: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The arguments under their own names.

    Args:
        given: As the caller typed them, without those that are named right.
        fields: The names that exist.

    Raises:
        InputError: An argument that cannot be honoured or is unknown; the message names what to use instead.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in ALIASES:
            _put(values, ALIASES[name], value)
        elif name == "model_kwargs":
            for key, inner in _unpacked(value).items():
                _put(values, ALIASES.get(key, key), inner)
        elif not (name in HARMLESS and value in HARMLESS[name]):
            raise InputError(_refusal(name, value, fields))
    return values


def _put(values: dict[str, Any], field: str, value: Any) -> None:
    if field in values and values[field] != value:
        raise InputError(f"{field} was given twice, as {values[field]!r} and as {value!r}; give it once.")
    values[field] = value


def _unpacked(model_kwargs: Any) -> dict[str, Any]:
    if not isinstance(model_kwargs, Mapping):
        raise InputError(
            f"model_kwargs={model_kwargs!r} was given; expected a dictionary, or the arguments themselves."
        )
    for key, value in model_kwargs.items():
        if key not in _FROM_MODEL_KWARGS:
            advice = ADVICE.get(key, f"It can hold {', '.join(_FROM_MODEL_KWARGS)}.")
            raise InputError(f"model_kwargs[{key!r}]={value!r} was given. {advice}")
    return {
        key: str(value).removeprefix("torch.") if "dtype" in key and value is not None else value
        for key, value in model_kwargs.items()
    }


def _refusal(name: str, value: Any, fields: Collection[str]) -> str:
    if name in ADVICE:
        return f"{name}={value!r} was given. {ADVICE[name]}"
    near = difflib.get_close_matches(name, [*fields, *ALIASES], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name} is no argument of F2LLMEmbedding.{hint} It takes {', '.join(sorted(fields))}."
