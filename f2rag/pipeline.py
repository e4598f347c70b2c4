"""Texts through tokenizer and device, window by window: while the device computes one, the next is tokenised.

    texts ─► distinct ones ─► window ─► prompt, token ids ─► scheduler ─► vectors ─► one for each text
                                        (the caller's thread)  (its worker)

The tokenizer works in the thread that asks, in one call for each window, with the interpreter's lock free; the
scheduler's worker computes meanwhile. So no thread is started here and none is left behind, whatever goes wrong. On a
CPU both use the same cores, but tokenising takes under a hundredth of the time that computing does.

Of every call at most two windows are tokenised and not yet computed, so memory is bounded however long a list or a
stream is.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from f2rag.batching import deduplicate, windows
from f2rag.options import check_texts
from f2rag.prompts import format_query

if TYPE_CHECKING:
    from f2rag.runtime import ModelRuntime
    from f2rag.tokenizer import F2LLMTokenizer
    from f2rag.types import FloatMatrix

Result = TypeVar("Result")

_WINDOW = 4096
"""Texts that are tokenised and sorted together: large enough that lengths in a batch are alike, small in memory."""

_FIRST_WINDOW = 512
"""Texts of a list's first window; each further one is twice as large. So the device has not long to wait for it."""

_SHORT_TEXTS, _SHORT_CHARACTERS = 64, 65_536
"""Up to so much is a short call. Async callers wait for a place among their like: short ones never for long ones."""

_SHORT_PLACES, _LONG_PLACES = 1024, 4
"""Short calls, and windows of long ones, of async callers that may be tokenised and not yet computed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What one call decided, and where it finds the model.

    Attributes:
        tokenizer: Gives the model's tokenizer.
        runtime: Gives the loaded model; asked with every window, since the encoder may be closed meanwhile.
        prompt: The instruction in front of every text; ``""`` for none.
        dimensions: Of the vectors.
        max_length: Tokens after which a text is cut.
        token_budget: Padded tokens per forward; ``None`` takes the device's.
        on_overlong: Called with ``{position: tokens}`` of the different texts that are too long, and the number of all
            texts that are.
    """

    tokenizer: Callable[[], F2LLMTokenizer]
    runtime: Callable[[], ModelRuntime]
    prompt: str
    dimensions: int
    max_length: int
    token_budget: int | None
    on_overlong: Callable[[dict[int, int], int], object]


class _Work:
    """Texts on their way to vectors: equal ones once, window by window.

    Args:
        texts: Valid strings; must not change.
        first: Position of the first text for messages, where they are a part of a stream.
        owner: Whose they are, for the scheduler.
    """

    def __init__(self, texts: Sequence[str], *, first: int = 0, owner: object = None) -> None:
        firsts, inverse = deduplicate(texts)
        self._texts = [texts[position] for position in firsts]
        self._positions = first + np.asarray(firsts, dtype=np.intp)
        self._occurrences = np.bincount(inverse, minlength=len(firsts))
        self._inverse: npt.NDArray[np.intp] | None = None if len(firsts) == len(texts) else inverse
        self._owner = owner or self
        self.parts = list(_growing_parts(len(self._texts)))

    def begin(self, call: Embedding, part: range | None = None) -> Future[FloatMatrix]:
        """Tokenise a window, or everything, and hand it to the device.

        Raises:
            OverlongTextError: A text is too long, and the caller wants none.
            EncoderClosedError: The encoder was closed.
        """
        part = range(len(self._texts)) if part is None else part
        texts = self._texts[part.start : part.stop]
        if call.prompt:
            texts = [format_query(text, call.prompt) for text in texts]
        runtime = call.runtime()
        tokenized = call.tokenizer().encode(texts, max_length=call.max_length)
        if tokenized.overlong:
            rows = part.start + np.asarray(list(tokenized.overlong))
            positions = dict(zip(self._positions[rows].tolist(), tokenized.overlong.values(), strict=True))
            call.on_overlong(positions, int(self._occurrences[rows].sum()))
        return runtime.submit(
            tokenized.ids, dimensions=call.dimensions, token_budget=call.token_budget, owner=self._owner
        )

    def restore(self, vectors: Sequence[FloatMatrix], *, dimensions: int) -> FloatMatrix:
        """A vector for every text, from those of the windows."""
        if not vectors:
            return np.empty((0, dimensions), dtype=np.float32)
        distinct = vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
        return distinct if self._inverse is None else distinct[self._inverse]


def _growing_parts(count: int) -> Iterator[range]:
    start, size = 0, min(_FIRST_WINDOW, _WINDOW)
    while start < count:
        yield range(start, min(start + size, count))
        start, size = start + size, min(2 * size, _WINDOW)


def embed(call: Embedding, texts: Sequence[str]) -> FloatMatrix:
    """Embed a list; see the file's head.

    Returns:
        float32 (n, dimensions), rows of unit length, in the order given.
    """
    work = _Work(texts)
    begun = (work.begin(call, part) for part in work.parts)
    return work.restore(list(_one_ahead(begun)), dimensions=call.dimensions)


def stream(call: Callable[[], Embedding], texts: Iterable[str], *, window: int, method: str) -> Iterator[FloatMatrix]:
    """Embed a stream, window by window.

    The stream is read where the next array is asked for, in that thread, up to one window beyond that array; so the
    device computes while the caller works with what it has. An error, of the stream or of a text, comes after the
    arrays of the windows before it. Closing or dropping the iterator drops what has not begun.

    Args:
        call: Asked with every window.
        texts: Strings, which are checked window by window.
        window: Texts in an array.
        method: For messages.
    """
    owner = object()

    def begin() -> Iterator[Future[FloatMatrix] | _Restored]:
        first = 0
        for part in windows(texts, size=window):
            check_texts(part, method=method, first=first)
            now = call()
            work = _Work(part, first=first, owner=owner)
            yield _Restored(work, work.begin(now), now.dimensions)
            first += len(part)

    return _one_ahead(begin(), errors_last=True)


@dataclasses.dataclass(frozen=True, slots=True)
class _Restored:
    """One window of a stream, as a future of a vector for every text of it."""

    work: _Work
    future: Future[FloatMatrix]
    dimensions: int

    def result(self) -> FloatMatrix:
        return self.work.restore([self.future.result()], dimensions=self.dimensions)

    def cancel(self) -> bool:
        return self.future.cancel()


def _one_ahead(begun: Iterator[Future[FloatMatrix] | _Restored], *, errors_last: bool = False) -> Iterator[FloatMatrix]:
    """Results in order, each waited for only when the next window has begun.

    Args:
        begun: Tokenises a window and hands it over whenever it is asked for the next.
        errors_last: What ``begun`` raises comes after the result that is still computed, and not at once.
    """
    running: collections.deque[Future[FloatMatrix] | _Restored] = collections.deque()
    error: Exception | None = None
    more = True
    try:
        while more:
            try:
                following = next(begun, None)
                if following is None:
                    more = False
                else:
                    running.append(following)
            except Exception as raised:
                if not errors_last:
                    raise
                error, more = raised, False
            while running and (len(running) > 1 or not more):
                result = running[0].result()
                running.popleft()
                yield result
                # Not kept while the next one is computed: the caller alone decides how long an array lives.
                del result
        if error is not None:
            raise error
    finally:
        for window in running:
            window.cancel()


def level_of_caller() -> int:
    """``stacklevel`` for a warning, given where this is called, that names the first line outside this package."""
    package, level = Path(__file__).parent, 0
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None and Path(frame.f_code.co_filename).parent == package:
        level, frame = level + 1, frame.f_back
    return max(level, 1)


# -- async ----------------------------------------------------------------------------------------------------------


class Places:
    """How much of async callers may be under way: short calls, and windows of long ones, each in the order they came.

    What waits for a place is the caller's own text; what has one has token ids beside it.
    """

    def __init__(self) -> None:
        self._short = _Gate(_SHORT_PLACES)
        self._long = _Gate(_LONG_PLACES)

    def like(self, texts: Sequence[str]) -> _Gate:
        """The gate for calls of this size."""
        is_short = len(texts) <= _SHORT_TEXTS and sum(map(len, texts)) <= _SHORT_CHARACTERS
        return self._short if is_short else self._long


class _Gate:
    """Lets in so many at a time, the others in order. Of no event loop: callers of several may share it."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._queue: collections.deque[Future[None]] = collections.deque()

    async def enter(self) -> None:
        """Take a place, waiting for one if need be."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._queue.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            if not turn.cancel():  # the place was given at the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place back, or rather to whoever has waited longest."""
        with self._lock:
            while self._queue:
                turn = self._queue.popleft()
                if turn.set_running_or_notify_cancel():
                    break
            else:
                self._free += 1
                return
        turn.set_result(None)


class InThread(Protocol):
    """Runs a function in some thread."""

    def __call__(self, work: Callable[[], Result], /) -> Future[Result]:
        """A future of what ``work`` returns."""


async def aembed(
    call: Callable[[], Embedding], texts: Sequence[str], *, places: Places, in_thread: InThread
) -> FloatMatrix:
    """``embed`` for an event loop: tokenising takes a thread, waiting for the device takes none.

    Cancelled, it drops what has not begun.

    Args:
        call: Asked in a thread, since it may read files.
        texts: Valid strings; must not change.
        places: Bounds what is under way.
        in_thread: Tokenises elsewhere.
    """
    if not texts:
        return np.empty((0, (await asyncio.wrap_future(in_thread(call))).dimensions), dtype=np.float32)
    state = _AsyncWork(call, texts)
    gate = places.like(texts)
    running: collections.deque[Future[FloatMatrix]] = collections.deque()
    vectors: list[FloatMatrix] = []
    try:
        while state.has_more or running:
            if state.has_more:
                running.append(await _begun(state.begin, gate, in_thread))
            while running and (len(running) > 1 or not state.has_more):
                vectors.append(await asyncio.wrap_future(running[0]))
                running.popleft()
    finally:
        for window in running:
            window.cancel()
    return state.restore(vectors)


class _AsyncWork:
    """Work that is prepared with its first window, in the thread that tokenises it."""

    def __init__(self, call: Callable[[], Embedding], texts: Sequence[str]) -> None:
        self._call, self._texts = call, texts
        self._prepared: tuple[Embedding, _Work] | None = None
        self._begun = 0

    @property
    def has_more(self) -> bool:
        return self._prepared is None or self._begun < len(self._prepared[1].parts)

    def begin(self) -> Future[FloatMatrix]:
        """Begin the next window; by one thread at a time."""
        if self._prepared is None:
            self._prepared = self._call(), _Work(self._texts)
        call, work = self._prepared
        part = work.parts[self._begun]
        self._begun += 1
        return work.begin(call, part)

    def restore(self, vectors: Sequence[FloatMatrix]) -> FloatMatrix:
        assert self._prepared is not None
        call, work = self._prepared
        return work.restore(vectors, dimensions=call.dimensions)


async def _begun(begin: Callable[[], Future[FloatMatrix]], gate: _Gate, in_thread: InThread) -> Future[FloatMatrix]:
    """A window that is tokenised and handed over, in its turn; it has its place until it is computed."""
    await gate.enter()
    tokenizing: Future[Future[FloatMatrix]] | None = None
    try:
        tokenizing = in_thread(begin)
        window = await asyncio.wrap_future(tokenizing)
    except BaseException:
        if tokenizing is not None:
            # Cancelled while a thread is at it: that cannot be stopped, but nothing shall be computed.
            tokenizing.add_done_callback(_cancel_window)
        gate.leave()
        raise
    window.add_done_callback(lambda _: gate.leave())
    return window


def _cancel_window(tokenizing: Future[Future[FloatMatrix]]) -> None:
    if not tokenizing.cancelled() and tokenizing.exception() is None:
        tokenizing.result().cancel()
