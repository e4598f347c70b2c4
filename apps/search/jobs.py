"""Work that takes a while, in a thread of its own: a click or a closed browser never stops it half-way.

A job has a key. Whoever starts the same work a second time, in this session or in another one, gets the job that is
under way and watches it; what it reports is seen by all who wait. This file draws nothing.

    job = jobs.start("index:notes", lambda report: index(files, report))
    place = st.empty()
    report = job.wait(place.progress)
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

import streamlit as st

T = TypeVar("T")

Report: TypeAlias = Callable[[int, int, str], object]
"""What the work calls with what is done, what there is to do in all, and words for it."""

OnProgress: TypeAlias = Callable[[float, str], object]
"""What somebody who waits gives: called with the share that is done, 0 to 1, and words. ``place.progress`` fits."""

_POLL = 0.1
"""Seconds between two looks at the progress."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        done: Of ``total``, in whatever it counts.
        total: 0 while that is not known.
        words: What it is doing, for people.
    """

    done: int = 0
    total: int = 0
    words: str = ""

    @property
    def share(self) -> float:
        """What is done, 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0


class Job(Generic[T]):
    """One piece of work that is under way, has succeeded or has failed.

    Args:
        key: What it is known by.
        work: Called once, in a thread of its own, with a function that it reports to. It must not draw.
    """

    def __init__(self, key: str, work: Callable[[Report], T]) -> None:
        self.key = key
        self._work = work
        self._progress = Progress()
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()
        threading.Thread(target=self._run, name=f"f2rag-{key}"[:15], daemon=True).start()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._progress

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return not self._future.done()

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error, which ``wait`` raises."""
        return self._future.done() and self._future.exception() is not None

    @property
    def succeeded(self) -> bool:
        """Whether it has ended with a result, which ``wait`` then returns at once."""
        return self._future.done() and self._future.exception() is None

    def wait(self, on_progress: OnProgress | None = None) -> T:
        """Wait for the result.

        A rerun of the page ends the waiting in ``on_progress``, which draws, and never the work.

        Args:
            on_progress: Called ten times a second.

        Raises:
            Exception: Whatever the work raised.
        """
        while True:
            finished, _ = concurrent.futures.wait([self._future], timeout=_POLL)
            if finished:
                return self._future.result()
            if on_progress is not None:
                now = self._progress
                on_progress(now.share, now.words)

    def _run(self) -> None:
        try:
            self._future.set_result(self._work(self._report))
        except BaseException as error:  # it is raised again where somebody waits
            self._future.set_exception(error)

    def _report(self, done: int, total: int, words: str) -> None:
        self._progress = Progress(done, total, words)


class Board:
    """All jobs of this process, the last one of each key. Threads may share it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job[Any]] = {}
        self._lock = threading.Lock()

    def start(self, key: str, work: Callable[[Report], T], *, keep: bool = False) -> Job[T]:
        """The job of this key that is under way; else a new one.

        Args:
            key: What tells it from other work: the same key must mean the same work.
            work: See ``Job``.
            keep: Also take the one that has succeeded: the work is then done once, and again only after an error.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None or not (job.running or (keep and job.succeeded)):
                job = self._jobs[key] = Job(key, work)
            return job

    def find(self, key: str) -> Job[Any] | None:
        """The last job of this key, whatever became of it."""
        return self._jobs.get(key)

    def forget(self, key: str) -> None:
        """Take a job off the board; if it is under way, it goes on unseen."""
        with self._lock:
            self._jobs.pop(key, None)


@st.cache_resource(show_spinner=False)
def board() -> Board:
    """The board of this process, which all sessions share."""
    return Board()


def start(key: str, work: Callable[[Report], T], *, keep: bool = False) -> Job[T]:
    """``Board.start`` on the board of this process."""
    return board().start(key, work, keep=keep)


def find(key: str) -> Job[Any] | None:
    """``Board.find`` on the board of this process."""
    return board().find(key)


def forget(key: str) -> None:
    """``Board.forget`` on the board of this process."""
    board().forget(key)
