"""From what a caller asks of one collection to the stages of the search."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from f2rag.errors import InputError
from f2rag.store.filters import EVERYTHING
from f2rag.store.modes import Hybrid, Mode, ModeName, Prefix, mode_name, mode_of
from f2rag.store.planning import EXACT_BELOW, Plan, level_of, plan_mode, stages_of

if TYPE_CHECKING:
    from f2rag.store.homes import Backend, HomeKind
    from f2rag.store.layout import Layout
    from f2rag.store.lexical import WordEncoder
    from f2rag.store.stages import Stage
    from f2rag.types import FloatVector

_COUNT_SECONDS = 60.0


class Planner:
    """Chooses how to search one collection; threads may share it.

    Args:
        backend: The collection, to count its points now and then.
        home: What keeps it.
        layout: What it stores.
        words: Cuts the text of hybrid queries, where the layout has words.
    """

    def __init__(self, backend: Backend, *, home: HomeKind, layout: Layout, words: WordEncoder | None) -> None:
        self._backend = backend
        self._home = home
        self._layout = layout
        self._words = words
        self._size = 0
        self._counted_until = -math.inf
        self._lock = threading.Lock()

    def plan(self) -> Plan:
        """The mode for a search that names none."""
        with self._lock:
            if time.monotonic() > self._counted_until:
                self._size = self._backend.count(EVERYTHING)
                # A large collection stays large until something is deleted.
                large = self._size >= EXACT_BELOW
                self._counted_until = math.inf if large else time.monotonic() + _COUNT_SECONDS
            return plan_mode(self._layout, points=self._size, home=self._home)

    def describe(self, mode: Mode | ModeName) -> tuple[ModeName, str]:
        """The name of the mode that a search takes, and why.

        Raises:
            InputError: No mode.
        """
        asked = mode_of(mode)
        if asked is not None:
            return mode_name(asked), "as asked"
        plan = self.plan()
        return mode_name(plan.mode), plan.reason

    def resolved(self, mode: Mode | ModeName) -> Mode:
        """The mode that a search takes.

        Raises:
            InputError: No mode.
        """
        return mode_of(mode) or self.plan().mode

    def level(self, mode: Mode | ModeName) -> int | None:
        """The level that alone decides over the dense hits of a search; ``None`` where the full vectors do.

        Raises:
            InputError: No mode, or a level that is not stored.
        """
        asked = mode_of(mode)
        dense = asked.dense if isinstance(asked, Hybrid) else asked
        return level_of(dense, self._layout) if isinstance(dense, Prefix) else None

    def forget_size(self) -> None:
        """Count again at the next search: points came or went."""
        with self._lock:
            self._counted_until = -math.inf

    def stage(
        self,
        vector: FloatVector,
        *,
        text: str | None,
        limit: int,
        mode: Mode | ModeName,
        score_threshold: float | None,
    ) -> Stage:
        """What a search does, stage by stage.

        Args:
            vector: Checked, of shape (dimensions,).
            text: The query's text, for a hybrid search.
            limit: Hits that are wanted.
            mode: What the caller asks for.
            score_threshold: Refused where scores are no cosines.

        Raises:
            InputError: The collection does not store what the mode needs.
        """
        mode = self.resolved(mode)
        words = None
        if isinstance(mode, Hybrid):
            if score_threshold is not None:
                raise InputError(
                    "A hybrid search has no score_threshold: its scores are sums of reciprocal ranks, no cosines. "
                    "Leave it out, or search in another mode."
                )
            if text is not None and self._words is not None:
                words = self._words.query(text)
        dense = self.plan().mode
        return stages_of(mode, vector=vector, words=words, limit=limit, layout=self._layout, dense=dense)
