"""The modes that a collection offers, and what each of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from f2rag.store.features import supports
from f2rag.store.layout import FULL, Layout, Quantization, level_name
from f2rag.store.planning import stages_of
from f2rag.store.stages import Fused, Nearest, SparseVector

if TYPE_CHECKING:
    from f2rag.store.homes import HomeKind, Version
    from f2rag.store.modes import DenseMode, Mode, ModeName

_BITS: Final[dict[Quantization, int]] = {"int8": 8, "turbo4": 4, "turbo2": 2, "turbo1": 1, "binary": 1}
"""Of one compressed value."""

_LOCAL: Final = ("memory", "client-local")
"""Homes that keep every vector as float32 and compare all of them."""


def offered_modes(layout: Layout, *, home: HomeKind, version: Version | None) -> list[ModeName]:
    """The modes by name, ``"exact"`` first.

    Args:
        layout: What the collection stores.
        home: What keeps it; the client's local mode has no graph and no compressed vectors.
        version: Of the engine; ``None`` of the local mode.
    """
    modes: list[ModeName] = ["exact"]
    if layout.levels:
        modes += ["funnel", "prefix"]
    elif home not in _LOCAL:
        modes += ["hnsw"]
        if layout.quantization is not None:
            modes += ["quantized"]
    if layout.lexical is not None and supports(version, "parametrised_rrf"):
        modes += ["hybrid"]
    if supports(version, "mmr"):
        modes += ["diverse"]
    return modes


def first_pass_bytes(mode: Mode, *, layout: Layout, dimensions: int, home: HomeKind, dense: DenseMode) -> int:
    """Bytes per million vectors that the first dense pass of a mode compares.

    They are read off the stages of a search, so that they cannot differ from what a search does.

    Args:
        mode: The mode.
        layout: What the collection stores.
        dimensions: Of the full vectors.
        home: What keeps them.
        dense: The dense half of a ``Hybrid`` that names none.

    Raises:
        InputError: The collection does not store what the mode needs.
    """
    vector = np.zeros(dimensions, dtype=np.float32)
    nothing = SparseVector([], [])
    stage = stages_of(mode, vector=vector, words=nothing, limit=1, layout=layout, dense=dense)
    first = stage.searches[0] if isinstance(stage, Fused) else stage
    while first.prefetch is not None:
        first = first.prefetch
    widths = {FULL: dimensions, **{level_name(level): level for level in layout.levels}}
    return 1_000_000 * ((widths[first.using] * _bits(first, layout, home) + 7) // 8)


def _bits(first: Nearest, layout: Layout, home: HomeKind) -> int:
    """Of one value, as the first stage reads it."""
    if home in _LOCAL:
        return 32
    full_beside_levels = bool(layout.levels) and first.using == FULL
    if layout.quantization is None or full_beside_levels or first.exact or first.uncompressed:
        return 16 if full_beside_levels else 32
    return _BITS[layout.quantization]
