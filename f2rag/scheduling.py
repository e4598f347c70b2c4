"""Who computes next: one worker, and what waits when it becomes free is one batch.

A call hands in the token ids of its texts and gets a future. Nothing is delayed on purpose: the worker takes what is
there, so a lone query is computed at once, and 64 that came while the device was busy are computed together.

The rules, in the order in which they decide:

1. A call that fits into one batch is *short*, any other is *long*. While both wait, batches of short and of long calls
   alternate. So a query waits for the batch that runs and at most one more of long calls, however long those are; and
   under a constant stream of queries a long call still gets every second batch.
2. Short calls: the oldest goes next, and with it every other row that waits and is of similar length, of whatever
   call, as far as the token budget allows. Rows that would add more padding than a forward of their own costs stay for
   the next batch: one long text does not make sixty queries long.
3. Long calls take turns, batch by batch. Calls of one owner, e.g. the windows of one list, go one after the other.

A batch is computed at the largest size that is asked for in it; each call's rows are cut to its own size and only then
scaled to unit length. When memory runs out a batch is halved; when it fails otherwise, each caller's part is
computed alone. So an error reaches only the call whose row causes it.

The state belongs to the worker: callers only append to a mailbox, and nothing here takes a lock that the garbage
collector could meet.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from f2rag.batching import Batch, MemoryLimit, plan_batches
from f2rag.errors import EncoderClosedError, OutOfMemoryError
from f2rag.loading import is_out_of_memory
from f2rag.tokenizer import TokenIds
from f2rag.types import FloatMatrix
from f2rag.vectors import normalize

logger = logging.getLogger(__name__)

_LOOKED_AT = 4
"""Budgets' worth of waiting short rows among which rows of similar length are looked for."""


class Arrival(Protocol):
    """Rows that are being computed elsewhere, so that the next batch can be begun meanwhile."""

    def wait(self) -> FloatMatrix:
        """The rows, once they are there."""


Forward: TypeAlias = Callable[[Sequence[TokenIds], int], FloatMatrix | Arrival]
"""Computes token ids together: ``forward(ids, dimensions)`` gives float32 (rows, at least ``dimensions``), unscaled."""


@dataclasses.dataclass(eq=False, slots=True)
class _Call:
    """What one caller asked for; everything but the future belongs to the worker."""

    ids: Sequence[TokenIds]
    dimensions: int
    token_budget: int
    owner: object
    vectors: FloatMatrix
    waiting: collections.deque[Batch]
    missing: int
    future: concurrent.futures.Future[FloatMatrix] = dataclasses.field(default_factory=concurrent.futures.Future)
    is_settled: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for it any more: it is done, has failed or was cancelled."""
        return self.is_settled or self.future.cancelled()

    def fill(self, rows: npt.NDArray[np.intp], vectors: FloatMatrix) -> None:
        self.vectors[rows] = vectors
        self.missing -= len(rows)
        if self.missing == 0 and not self.is_settled:
            self.is_settled = True
            if self.future.set_running_or_notify_cancel():
                self.future.set_result(self.vectors)

    def fail(self, error: BaseException) -> None:
        if not self.is_settled:
            self.is_settled = True
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)


@dataclasses.dataclass(frozen=True, slots=True)
class _Share:
    """Rows of one call in a batch."""

    call: _Call
    rows: npt.NDArray[np.intp]


_Shares: TypeAlias = list[_Share]


class _Waiting:
    """The calls that wait, and which rows of them are next; see the rules above.

    Args:
        padding: Tokens of padding in a batch of short calls that are cheaper than one forward more.
    """

    def __init__(self, *, padding: int) -> None:
        self._padding = padding
        self._short: collections.deque[_Call] = collections.deque()
        self._long: collections.OrderedDict[int, collections.deque[_Call]] = collections.OrderedDict()
        self._long_is_next = False

    def add(self, call: _Call) -> None:
        if len(call.waiting) == 1:
            self._short.append(call)
        else:
            # By identity: the call keeps its owner alive, so that no other can have the same one meanwhile.
            self._long.setdefault(id(call.owner), collections.deque()).append(call)

    def take(self, limit: int) -> _Shares:
        """The rows to compute next; none if nothing waits.

        Args:
            limit: Padded tokens for which there is memory.
        """
        self._drop_gone()
        if self._short and not (self._long and self._long_is_next):
            self._long_is_next = True
            return self._take_short(limit)
        if self._long:
            self._long_is_next = False
            return self._take_long()
        return []

    def take_all(self) -> list[_Call]:
        """Every call that waits; none of them waits any more."""
        calls = [*self._short, *itertools.chain.from_iterable(self._long.values())]
        self._short.clear()
        self._long.clear()
        return calls

    def _take_long(self) -> _Shares:
        owner, calls = next(iter(self._long.items()))
        call = calls[0]
        rows = call.waiting.popleft().rows
        if not call.waiting:
            calls.popleft()
        self._long.move_to_end(owner)
        if not calls:
            del self._long[owner]
        return [_Share(call, rows)]

    def _take_short(self, limit: int) -> _Shares:
        oldest = self._short[0]
        if len(self._short) == 1:
            self._short.clear()
            return [_Share(oldest, oldest.waiting.popleft().rows)]
        budget = min(oldest.token_budget, limit)
        calls = self._beside(oldest, tokens=budget * _LOOKED_AT)
        rows = [call.waiting.popleft().rows for call in calls]
        callers = np.repeat(np.arange(len(calls)), [len(each) for each in rows])
        together = np.concatenate(rows)
        lengths = [len(calls[caller].ids[row]) for caller, row in zip(callers, together, strict=True)]
        batches = plan_batches(lengths, token_budget=budget, padding=self._padding)
        # The first row is the oldest call's.
        chosen = np.zeros(len(lengths), dtype=bool)
        chosen[next(batch.rows for batch in batches if 0 in batch.rows)] = True
        shares = []
        for position, call in enumerate(calls):
            mine = callers == position
            if (taken := together[mine & chosen]).size:
                shares.append(_Share(call, taken))
            if (left := together[mine & ~chosen]).size:
                call.waiting.append(Batch(left, max(len(call.ids[row]) for row in left)))
        self._short = collections.deque(call for call in self._short if call.waiting)
        return shares

    def _beside(self, oldest: _Call, *, tokens: int) -> list[_Call]:
        """The oldest short calls that may share a batch, until they hold so many tokens."""
        calls: list[_Call] = []
        for call in self._short:
            if call.token_budget != oldest.token_budget:
                continue
            calls.append(call)
            tokens -= call.waiting[0].padded_tokens
            if tokens <= 0:
                break
        return calls

    def _drop_gone(self) -> None:
        if any(call.is_gone for call in self._short):
            self._short = collections.deque(call for call in self._short if not call.is_gone)
        for owner, calls in list(self._long.items()):
            if any(call.is_gone for call in calls):
                kept = collections.deque(call for call in calls if not call.is_gone)
                self._long[owner] = kept
                if not kept:
                    del self._long[owner]


class Scheduler:
    """Computes what callers hand in, by the rules above, on one worker thread.

    Args:
        forward: Computes token ids together.
        name: Of the model, for messages.
        device: For messages and the thread's name.
        padding: Tokens that one forward more costs, beside its own: rows of short calls share a batch as long as they
            pad for less.
        on_out_of_memory: Called on the worker after memory ran out, with the failed batch already dropped.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        name: str,
        device: str,
        padding: int,
        on_out_of_memory: Callable[[], object] = lambda: None,
    ) -> None:
        self._forward = forward
        self._name = name
        self._device = device
        self._on_out_of_memory = on_out_of_memory
        self._closed = False
        self._limit = MemoryLimit()
        self._mailbox: collections.deque[_Call] = collections.deque()
        self._waiting = _Waiting(padding=padding)
        self._again: list[_Shares] = []  # parts of a batch that failed, computed before anything new
        self._under_way: collections.deque[tuple[_Shares, Arrival]] = collections.deque()
        # The executor is here for the end of its thread: it knows interpreter exit and forks, and starts with the first
        # call.
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"f2rag-{device}")

    def submit(
        self, ids: Sequence[TokenIds], *, dimensions: int, token_budget: int, owner: object = None
    ) -> concurrent.futures.Future[FloatMatrix]:
        """Hand in token ids; returns at once.

        Args:
            ids: One int64 array per text; must not change.
            dimensions: Columns of the result.
            token_budget: Padded tokens per forward.
            owner: Long calls of one owner are computed one after the other and have one turn among them.

        Returns:
            A future of float32 (n, dimensions), rows of unit length, in the order of ``ids``. Cancelling it drops the
            rows that have not begun. It may hold ``OutOfMemoryError``, ``EncoderClosedError`` or what the forward
            raised for this call's rows.

        Raises:
            EncoderClosedError: After ``close``, or while the interpreter ends.
        """
        budget = min(token_budget, self._limit.tokens)
        planned = plan_batches([len(row) for row in ids], token_budget=budget)
        vectors = np.empty((len(ids), dimensions), dtype=np.float32)
        call = _Call(
            ids=ids,
            dimensions=dimensions,
            token_budget=token_budget,
            owner=object() if owner is None else owner,
            vectors=vectors,
            waiting=collections.deque(planned),
            missing=len(ids),
        )
        if not planned:
            call.future.set_result(vectors)
            return call.future
        self._mailbox.append(call)
        try:
            # One run for each call: most find nothing left to do, and none can be forgotten.
            self._worker.submit(self._run)
        except RuntimeError as error:  # closed, or the interpreter ends
            call.future.cancel()
            raise self._closed_error() from error
        return call.future

    def close(self) -> None:
        """Take no more calls; the batch that runs is finished, and whoever waits gets ``EncoderClosedError``.

        Does not wait: the garbage collector may call this, in any thread, the worker's own among them. The executor's
        lock is free then, since whoever hands in holds the encoder and so keeps it from being collected.
        """
        self._closed = True
        # What holds the weights is let go here; the worker keeps it for the batch that runs only.
        self._forward = self._refuse
        self._on_out_of_memory = lambda: None
        # Runs that are queued are not cancelled: they tell those who wait.
        self._worker.shutdown(wait=False)

    def _refuse(self, ids: Sequence[TokenIds], dimensions: int) -> FloatMatrix:  # noqa: ARG002 - a forward's arguments
        raise self._closed_error()

    def _closed_error(self) -> EncoderClosedError:
        message = f"The encoder of {self._name} was closed while it worked. Close it after its last call has returned."
        return EncoderClosedError(message)

    # -- on the worker ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Compute until nothing waits."""
        try:
            self._compute_all()
        except BaseException as error:
            # A mistake in this file must not leave callers waiting for ever.
            self._open_mail()
            begun = [
                share.call for shares in (*self._again, *(each for each, _ in self._under_way)) for share in shares
            ]
            self._again.clear()
            self._under_way.clear()
            for call in (*begun, *self._waiting.take_all()):
                call.fail(error)
            raise

    def _compute_all(self) -> None:
        while True:
            shares = self._again.pop() if self._again else self._next()
            if shares:
                self._again.extend(self._begin(shares))
            elif not self._under_way:
                return
            # One batch computes while the next one is queued behind it, if there is one; never a third.
            while self._under_way and (len(self._under_way) > 1 or not shares):
                self._again.extend(self._finish(*self._under_way.popleft()))

    def _next(self) -> _Shares:
        self._open_mail()
        if self._closed:
            for call in self._waiting.take_all():
                call.fail(self._closed_error())
        return self._waiting.take(self._limit.tokens)

    def _open_mail(self) -> None:
        while self._mailbox:
            self._waiting.add(self._mailbox.popleft())

    def _begin(self, shares: _Shares) -> list[_Shares]:
        """Compute a batch, or queue it on the device; returns what to try instead if it fails, last part first."""
        shares = [share for share in shares if not share.call.is_gone]
        if not shares:
            return []
        padded = _padded_tokens(shares)
        if padded > self._limit.tokens and _count(shares) > 1:
            return _halves(shares)
        failed = None
        try:
            ids = [share.call.ids[row] for share in shares for row in share.rows]
            found = self._forward(ids, max(share.call.dimensions for share in shares))
            if isinstance(found, np.ndarray):
                _hand_out(shares, found)
            else:
                self._under_way.append((shares, found))
        except BaseException as error:
            failed = self._parts_to_try(shares, error)
        return self._settle(padded, failed)

    def _finish(self, shares: _Shares, arrival: Arrival) -> list[_Shares]:
        """Hand out a batch that was queued on the device; returns what to try instead if it failed."""
        failed = None
        try:
            _hand_out(shares, arrival.wait())
        except BaseException as error:
            failed = self._parts_to_try(shares, error)
        return self._settle(_padded_tokens(shares), failed)

    def _settle(self, padded: int, failed: _Failure | None) -> list[_Shares]:
        # Outside the except block, so that the failed batch's tensors are gone before memory is given back.
        if failed is None:
            self._limit.passed(padded)
            return []
        if failed.was_memory:
            self._on_out_of_memory()
        return failed.parts

    def _parts_to_try(self, shares: _Shares, error: BaseException) -> _Failure:
        """Smaller batches instead of one that failed; a call with nothing left to try fails."""
        if is_out_of_memory(error):
            if _count(shares) > 1:
                self._limit.lower(_padded_tokens(shares))
                message = "%s ran out of memory at %d tokens per batch; continuing with %d for a while."
                logger.warning(message, self._device, _padded_tokens(shares), self._limit.tokens)
                return _Failure(_halves(shares), was_memory=True)
            shares[0].call.fail(self._text_too_large(_padded_tokens(shares), error))
            return _Failure([], was_memory=True)
        if len(shares) > 1:
            return _Failure([[share] for share in reversed(shares)], was_memory=False)
        shares[0].call.fail(error)
        return _Failure([], was_memory=False)

    def _text_too_large(self, tokens: int, cause: BaseException) -> OutOfMemoryError:
        message = (
            f"A single text of {tokens} tokens does not fit into the memory of {self._device}. "
            "Set a smaller max_length, split the text, or use a smaller model, another dtype or another device."
        )
        error = OutOfMemoryError(message)
        # Without its traceback, which would keep the failed batch's tensors for as long as a caller keeps the error.
        error.__cause__ = cause.with_traceback(None)
        return error


@dataclasses.dataclass(frozen=True, slots=True)
class _Failure:
    """What to try instead of a batch that failed, last part first."""

    parts: list[_Shares]
    was_memory: bool


def _hand_out(shares: _Shares, found: FloatMatrix) -> None:
    """Give every call its rows, cut to its own size and then scaled to unit length."""
    if len(found) != _count(shares):
        message = f"The forward gave {len(found)} rows for {_count(shares)} texts."
        raise AssertionError(message)
    sizes = {share.call.dimensions for share in shares}
    unit = {size: normalize(found[:, :size]) for size in sizes}
    start = 0
    for share in shares:
        stop = start + len(share.rows)
        share.call.fill(share.rows, unit[share.call.dimensions][start:stop])
        start = stop


def _count(shares: Iterable[_Share]) -> int:
    return sum(len(share.rows) for share in shares)


def _padded_tokens(shares: _Shares) -> int:
    return _count(shares) * max(len(share.call.ids[row]) for share in shares for row in share.rows)


def _halves(shares: _Shares) -> list[_Shares]:
    """Two batches of half the rows, the second one first, as the end of a stack."""
    middle = _count(shares) // 2
    first: _Shares = []
    second: _Shares = []
    for share in shares:
        room = middle - _count(first)
        if room > 0:
            first.append(_Share(share.call, share.rows[:room]))
        if len(share.rows) > room:
            second.append(_Share(share.call, share.rows[max(room, 0) :]))
    return [second, first]
