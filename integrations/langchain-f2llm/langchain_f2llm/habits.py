"""Arguments typed from habit, from HuggingFaceEmbeddings and others: honoured, or refused with what to use instead.

Nothing is ignored: an argument that silently does nothing changes vectors without a word.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from f2rag.errors import InputError

_ALIASES = {
    "model_name": "model",
    "model_id": "model",
    "repo_id": "model",
    "truncate_dim": "dimensions",
    "output_dimension": "dimensions",
    "output_dimensionality": "dimensions",
    "show_progress_bar": "show_progress",
    "max_seq_length": "max_length",
    "query_instruction": "instruction",
}
"""Other names of the same thing."""

_REFUSED = {
    "encode_kwargs": "Vectors are always of unit length; give dimensions=, show_progress= or token_budget= themselves.",
    "query_encode_kwargs": "Queries get the model's instruction anyway; choose another with instruction= or task=.",
    "multi_process": "One worker per device computes for all callers; a pool of processes would load the model again.",
    "batch_size": "Batches are cut by tokens, not by texts; limit their memory with token_budget=.",
    "embed_instruction": "F2LLM-v2 gives documents no instruction; for symmetric tasks give task=, e.g. task='sts'.",
    "prompts": "Give instruction=, the sentence alone; the template around it is the model's own.",
    "default_prompt_name": "Give instruction= or task=; a default prompt would also go before documents.",
    "query_prompt": "Give instruction=, the sentence alone; the template around it is the model's own.",
    "normalize_embeddings": "Vectors are always of unit length, after truncation to dimensions=.",
    "normalize": "Vectors are always of unit length, after truncation to dimensions=.",
    "trust_remote_code": "F2LLM-v2 needs no code from the model hub; leave it out.",
    "backend": "The model runs in PyTorch; choose device= and dtype=.",
    "chunk_size": "Batches are cut by tokens, not by texts; limit their memory with token_budget=.",
}
"""Arguments that mean something which this package does otherwise."""

_MODEL_KWARGS = {
    "device": "device",
    "revision": "revision",
    "cache_folder": "cache_folder",
    "local_files_only": "local_files_only",
    "truncate_dim": "dimensions",
    "dtype": "dtype",
    "torch_dtype": "dtype",
}
"""Keys of ``model_kwargs`` that are arguments of their own here."""

_CLIENT = ("client", "url", "host", "port", "grpc_port", "api_key", "prefer_grpc", "https", "path")
_OTHER_VECTORS = ("vector_name", "sparse_vector_name", "sparse_embedding", "retrieval_mode", "distance")

_HARMLESS = {
    "encode_kwargs": {"normalize_embeddings": True},
    "query_encode_kwargs": {"normalize_embeddings": True},
}
"""Contents that ask for what happens anyway."""


def translated(given: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The constructor's arguments under their own names.

    Args:
        given: As the caller typed them.
        fields: The names that exist.

    Raises:
        InputError: An argument that cannot be honoured, is unknown, or contradicts another; the message names what to
            use instead.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in fields:
            _put(values, name, value, typed=name)
        elif name in _ALIASES:
            _put(values, _ALIASES[name], value, typed=name)
        elif name == "model_kwargs":
            for key, inner in _unpacked(value):
                _put(values, key, inner, typed=f"model_kwargs[{key!r}]")
        elif not _asks_nothing(name, value):
            raise InputError(_refusal(name, value, fields))
    return values


def refuse_others(others: Mapping[str, Any], where: str) -> None:
    """Refuse arguments that would do nothing.

    Raises:
        InputError: There is one.
    """
    for name in others:
        advice = "Leave it out."
        if name in _CLIENT:
            advice = "Give location=, a folder or a qdrant_client.QdrantClient(...) of your server."
        elif name in _OTHER_VECTORS:
            advice = "Collections hold one unnamed dense vector under cosine similarity."
        raise InputError(f"{where} takes no {name}. {advice}")


def _put(values: dict[str, Any], field: str, value: Any, *, typed: str) -> None:
    """Set one field; a second, different value is a contradiction."""
    if field in values and values[field] != value:
        raise InputError(f"{typed}={value!r} was given besides {field}={values[field]!r}; give {field} once.")
    values[field] = value


def _unpacked(model_kwargs: Any) -> list[tuple[str, Any]]:
    if not isinstance(model_kwargs, Mapping):
        raise InputError(
            f"model_kwargs={model_kwargs!r} was given; expected a dictionary, or the arguments themselves."
        )
    pairs: list[tuple[str, Any]] = []
    for key, value in model_kwargs.items():
        if key == "trust_remote_code" and not value:
            continue
        if key == "model_kwargs":  # sentence-transformers nests transformers' own ones under the same name
            pairs.extend(_unpacked(value))
        elif key in _MODEL_KWARGS:
            field = _MODEL_KWARGS[key]
            pairs.append((field, str(value).removeprefix("torch.") if field == "dtype" else value))
        else:
            advice = _REFUSED.get(key, f"It can hold {', '.join(sorted(_MODEL_KWARGS))}.")
            raise InputError(f"model_kwargs[{key!r}]={value!r} was given. {advice}")
    return pairs


def _asks_nothing(name: str, value: Any) -> bool:
    """Whether an argument that is otherwise refused asks for what happens anyway."""
    if name in _HARMLESS and isinstance(value, Mapping):
        return all(_HARMLESS[name].get(key) == inner for key, inner in value.items())
    return (name in ("multi_process", "trust_remote_code") and value is False) or (
        name in ("normalize", "normalize_embeddings") and value is True
    )


def _refusal(name: str, value: Any, fields: Collection[str]) -> str:
    if name in _REFUSED:
        return f"{name}={value!r} was given. {_REFUSED[name]}"
    near = difflib.get_close_matches(name, [*fields, *_ALIASES], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name} is no argument of F2LLMEmbeddings.{hint} It takes {', '.join(sorted(fields))}."
