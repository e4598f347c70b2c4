"""What an engine can do from which version on.

An old server ignores the fields of a request that it does not know, so an option can vanish without an error: 1.16.3
took ``update_mode`` and overwrote the point. Hence the version is read once and looked up here before anything is sent.
Sources: measured on servers 1.16.3 and 1.17.0 and on the embedded engine 0.9.0 (of the 1.20 generation); the release
notes of 1.18, 1.19 and 1.20 for what is newer than those servers.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from f2rag.errors import InputError, UnsupportedFeatureError
from f2rag.store.homes import Version

Feature: TypeAlias = Literal[
    "collection_metadata",
    "parametrised_rrf",
    "mmr",
    "weighted_rrf",
    "update_mode",
    "turbo_quant",
    "add_vector",
    "memory_tiers",
    "text_scoring",
]
"""What not every version can do."""

SINCE: dict[Feature, Version] = {
    "collection_metadata": (1, 16, 0),
    "parametrised_rrf": (1, 16, 0),
    "mmr": (1, 16, 0),
    "weighted_rrf": (1, 17, 0),
    "update_mode": (1, 17, 0),
    "turbo_quant": (1, 18, 0),
    "add_vector": (1, 18, 0),
    "memory_tiers": (1, 19, 0),
    "text_scoring": (1, 20, 0),
}

_WORDS: dict[Feature, tuple[str, str]] = {
    "collection_metadata": ("metadata of a collection, where the contract is kept", "upgrade the server"),
    "parametrised_rrf": ("a constant for reciprocal rank fusion", "upgrade the server"),
    "mmr": ("diverse search (MMR)", "search without diversity, or upgrade the server"),
    "weighted_rrf": ("weights for reciprocal rank fusion", "use equal weights, or upgrade the server"),
    "update_mode": ("writes that leave existing points alone", "write without update_mode, or upgrade the server"),
    "turbo_quant": (
        "TurboQuant",
        'choose quantization="int8" or none, use a folder (the embedded engine has it), or upgrade the server',
    ),
    "add_vector": (
        "further vectors for an existing collection",
        "index into a new collection and switch an alias to it (reindex), or upgrade the server",
    ),
    "memory_tiers": ("memory tiers", "leave them out, or upgrade the server"),
    "text_scoring": ("BM25 over a text index", "use the sparse vectors of a lexical layout, or upgrade the server"),
}


def supports(version: Version | None, feature: Feature) -> bool:
    """Whether an engine of this version can do it.

    Args:
        version: Of the engine; ``None`` is the client's local mode, which takes everything and ignores what it lacks.
        feature: What is asked for.
    """
    return version is None or version >= SINCE[feature]


def require(version: Version | None, feature: Feature, *, place: str) -> None:
    """Do nothing where the engine can do it.

    Args:
        version: Of the engine; ``None`` is the client's local mode.
        feature: What is asked for.
        place: Where, for the message.

    Raises:
        UnsupportedFeatureError: It cannot; it would ignore the request without a word.
    """
    if version is None or supports(version, feature):
        return
    what, way_out = _WORDS[feature]
    raise UnsupportedFeatureError(
        f"{place} runs Qdrant {version_text(version)}; {what} needs {version_text(SINCE[feature])} or newer. "
        f"The way out: {way_out}."
    )


def version_of(text: str) -> Version:
    """Read ``"1.17.0"`` or ``"1.20.1-dev"``.

    Raises:
        InputError: It names no version.
    """
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise InputError(f"{text[:40]!r} is no version; expected three numbers, for example 1.17.0.")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


def version_text(version: Version) -> str:
    """The version as Qdrant writes it."""
    return ".".join(map(str, version))


if set(_WORDS) != set(get_args(Feature)) or set(SINCE) != set(get_args(Feature)):  # pragma: no cover
    raise AssertionError("every feature has a version and a way out")
