from __future__ import annotations

import concurrent.futures
import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2rag.errors import EncoderClosedError, InputError, OutOfMemoryError
from f2rag.scheduling import Scheduler
from f2rag.vectors import truncate

NATIVE = 8
PADDING = 128


def text(*, length: int, seed: int = 0) -> np.ndarray:
    """Token ids of a text; different seeds give different vectors."""
    return np.arange(length, dtype=np.int64) * 31 + seed * 7919 + 1


def raw(ids: np.ndarray) -> np.ndarray:
    """What the fake model computes for one text: far from unit length, so that the order of cut and scale shows."""
    return np.random.default_rng([int(ids.sum()), len(ids)]).standard_normal(NATIVE).astype(np.float32) * 5


def expected(ids: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
    return truncate(np.stack([raw(row) for row in ids]), dimensions)


class Model:
    """A forward that counts, and that can be held inside a batch while others wait.

    Attributes:
        batches: The lengths of the rows of every forward, in order.
        asked: The dimensions of every forward.
    """

    def __init__(self, before: Callable[[Sequence[np.ndarray]], object] = lambda ids: None) -> None:
        self.batches: list[list[int]] = []
        self.asked: list[int] = []
        self.entered = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._held = False
        self._before = before

    def __call__(self, ids: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
        self.batches.append([len(row) for row in ids])
        self.asked.append(dimensions)
        self.entered.release()
        if self._held:
            assert self._go.acquire(timeout=60)
        self._before(ids)
        return np.stack([raw(row)[:dimensions] for row in ids])

    def hold(self) -> None:
        """Stop in every forward from now on."""
        self._held = True

    def step(self) -> None:
        """Let the forward that is held finish, and wait for the next one to be held."""
        self._go.release()
        self.wait()

    def wait(self) -> None:
        """Wait until the next forward has begun."""
        assert self.entered.acquire(timeout=60)

    def free(self) -> None:
        """Hold no more."""
        self._held = False
        self._go.release()


class Asked:
    """A scheduler with a fake model, closed at the end of the test."""

    def __init__(self, model: Any = None, **options: Any) -> None:
        self.model = Model() if model is None else model
        self.scheduler = Scheduler(self.model, **{"name": "fake", "device": "cpu", "padding": PADDING, **options})

    def submit(
        self, *ids: np.ndarray, dimensions: int = NATIVE, token_budget: int = 2048, owner: object = None
    ) -> concurrent.futures.Future[np.ndarray]:
        return self.scheduler.submit(list(ids), dimensions=dimensions, token_budget=token_budget, owner=owner)

    def occupy(self) -> concurrent.futures.Future[np.ndarray]:
        """Have the worker held inside a batch of its own."""
        self.model.hold()
        future = self.submit(text(length=1))
        self.model.wait()
        return future

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self.model, Model):
            self.model.free()
        self.scheduler.close()


# -- what waits is one batch ------------------------------------------------------------------------------------------


def test_64_queries_that_wait_are_one_forward() -> None:
    queries = [text(length=20 + i % 3, seed=i) for i in range(64)]
    with Asked() as asked:
        first = asked.occupy()
        futures = [asked.submit(query) for query in queries]
        asked.model.free()
        for query, future in zip(queries, futures, strict=True):
            assert np.array_equal(future.result(timeout=60), expected([query], NATIVE))
        assert first.result().shape == (1, NATIVE)
        assert [len(batch) for batch in asked.model.batches] == [1, 64]


def test_a_lone_call_does_not_wait_for_others() -> None:
    with Asked() as asked:
        assert np.array_equal(asked.submit(text(length=5)).result(timeout=60), expected([text(length=5)], NATIVE))
        assert asked.submit().result(timeout=60).shape == (0, NATIVE)
        assert asked.model.batches == [[5]]


def test_a_long_text_does_not_pad_the_short_ones() -> None:
    texts = [text(length=2048), *(text(length=20 + i % 2, seed=i) for i in range(63))]
    for order in (texts, texts[::-1]):
        with Asked() as asked:
            asked.occupy()
            futures = [asked.submit(each) for each in order]
            asked.model.free()
            concurrent.futures.wait(futures, timeout=60)
            _, *batches = asked.model.batches
            assert sorted(map(len, batches)) == [1, 63]
            assert [2048] in batches
            # The oldest goes first.
            assert batches[0][0] // 1000 == len(order[0]) // 1000


def test_rows_share_a_batch_as_long_as_padding_costs_less_than_a_forward() -> None:
    lengths = [10, 40, 20, 30, 20, 10, 40]
    for padding, forwards in ((0, 4), (15, 3), (40, 2), (130, 1)):
        with Asked(padding=padding) as asked:
            asked.occupy()
            futures = [asked.submit(text(length=length)) for length in lengths]
            asked.model.free()
            concurrent.futures.wait(futures, timeout=60)
            batches = asked.model.batches[1:]
            assert len(batches) == forwards
            assert sorted(itertools.chain.from_iterable(batches)) == sorted(lengths)
            assert all(sum(max(batch) - length for length in batch) <= padding for batch in batches)


def test_each_caller_gets_its_own_size_cut_before_scaling() -> None:
    sizes = [8, 2, 5, 8, 1]
    with Asked() as asked:
        asked.occupy()
        futures = [asked.submit(text(length=9, seed=i), dimensions=size) for i, size in enumerate(sizes)]
        asked.model.free()
        for i, (size, future) in enumerate(zip(sizes, futures, strict=True)):
            found = future.result(timeout=60)
            assert np.allclose(found, expected([text(length=9, seed=i)], size), atol=1e-7)
            assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        assert asked.model.asked[1:] == [8]
    with Asked() as asked:
        asked.occupy()
        futures = [asked.submit(text(length=9), dimensions=size) for size in (2, 4)]
        asked.model.free()
        concurrent.futures.wait(futures, timeout=60)
        assert asked.model.asked[1:] == [4]


def test_calls_of_another_budget_keep_it() -> None:
    with Asked() as asked:
        asked.occupy()
        wide = [asked.submit(text(length=10, seed=i)) for i in range(5)]
        narrow = [asked.submit(text(length=10, seed=i), token_budget=20) for i in range(5)]
        asked.model.free()
        concurrent.futures.wait([*wide, *narrow], timeout=60)
        assert [len(batch) for batch in asked.model.batches[1:]] == [5, 2, 2, 1]


# -- who is next ------------------------------------------------------------------------------------------------------


def long_call(asked: Asked, *, batches: int, length: int, owner: object = None) -> concurrent.futures.Future[Any]:
    """A call of so many batches, whose rows are known by their length."""
    rows = [text(length=length, seed=i) for i in range(4 * batches)]
    return asked.submit(*rows, token_budget=4 * length, owner=owner)


def test_a_query_waits_for_no_more_than_the_batch_that_runs() -> None:
    with Asked() as asked:
        asked.model.hold()
        job = long_call(asked, batches=50, length=100)
        asked.model.wait()
        asked.model.step()
        query = asked.submit(text(length=7))
        asked.model.step()
        assert asked.model.batches == [[100] * 4, [100] * 4, [7]]
        asked.model.free()
        assert query.result(timeout=60).shape == (1, NATIVE)
        assert job.result(timeout=60).shape == (200, NATIVE)


def test_a_query_that_comes_during_another_one_waits_for_one_batch_of_a_long_call_more() -> None:
    with Asked() as asked:
        asked.occupy()
        job = long_call(asked, batches=50, length=100)
        asked.submit(text(length=7))
        asked.model.step()
        asked.model.step()
        late = asked.submit(text(length=8))
        asked.model.step()
        assert [batch[0] for batch in asked.model.batches] == [1, 100, 7, 100]
        asked.model.step()
        assert asked.model.batches[-1] == [8]
        asked.model.free()
        assert late.result(timeout=60).shape == (1, NATIVE)
        assert job.result(timeout=60).shape == (200, NATIVE)


def test_a_long_call_gets_every_second_batch_under_a_constant_stream_of_queries() -> None:
    """Every forward of a query brings the next query, so that one always waits."""
    asked: Asked
    futures = []

    def bring_another(ids: Sequence[np.ndarray]) -> None:
        if len(futures) < 500:
            futures.append(asked.submit(text(length=7, seed=len(futures))))

    with Asked(Model(bring_another)) as asked:
        job = long_call(asked, batches=20, length=100)
        assert job.result(timeout=60).shape == (80, NATIVE)
        batches = [batch[0] for batch in asked.model.batches]
        # By its end half of the forwards at least were its own.
        last = max(i for i, length in enumerate(batches) if length == 100)
        assert batches[: last + 1].count(100) == 20
        assert last + 1 <= 2 * 20
        assert batches[: last + 1].count(7) >= 19


def test_long_calls_take_turns_and_those_of_one_owner_have_one() -> None:
    mine = object()
    with Asked() as asked:
        asked.occupy()
        jobs = [
            long_call(asked, batches=3, length=100, owner=mine),
            long_call(asked, batches=3, length=101, owner=mine),
            long_call(asked, batches=3, length=200),
            long_call(asked, batches=3, length=300),
        ]
        asked.model.free()
        concurrent.futures.wait(jobs, timeout=60)
        turns = [batch[0] for batch in asked.model.batches[1:]]
        assert turns == [100, 200, 300] * 3 + [101] * 3


def test_short_calls_are_computed_oldest_first() -> None:
    with Asked(padding=0) as asked:
        asked.occupy()
        futures = [asked.submit(text(length=length)) for length in (30, 10, 20, 40)]
        asked.model.free()
        concurrent.futures.wait(futures, timeout=60)
        assert asked.model.batches[1:] == [[30], [10], [20], [40]]


# -- cancelling, failing, closing --------------------------------------------------------------------------------------


def test_what_is_cancelled_before_it_begins_is_not_computed() -> None:
    with Asked() as asked:
        asked.occupy()
        kept, dropped = asked.submit(text(length=11)), asked.submit(text(length=12))
        job = long_call(asked, batches=5, length=100)
        assert dropped.cancel()
        assert job.cancel()
        asked.model.free()
        assert kept.result(timeout=60).shape == (1, NATIVE)
        assert asked.submit(text(length=13)).result(timeout=60).shape == (1, NATIVE)
        assert asked.model.batches == [[1], [11], [13]]


def test_a_long_call_that_is_cancelled_halfway_goes_no_further() -> None:
    with Asked() as asked:
        asked.model.hold()
        job = long_call(asked, batches=5, length=100)
        asked.model.wait()
        asked.model.step()
        assert job.cancel()
        asked.model.free()
        assert asked.submit(text(length=13)).result(timeout=60).shape == (1, NATIVE)
        assert asked.model.batches == [[100] * 4, [100] * 4, [13]]


def test_cancelling_frees_the_token_ids() -> None:
    class Ids(list):
        pass

    with Asked() as asked:
        asked.occupy()
        ids = Ids([text(length=11)])
        freed = weakref.ref(ids)
        future = asked.scheduler.submit(ids, dimensions=4, token_budget=2048)
        future.cancel()
        del ids, future
        asked.submit(text(length=3))
        asked.model.step()
        gc.collect()
        assert freed() is None


def broken_by(seed_length: int) -> Model:
    def refuse(ids: Sequence[np.ndarray]) -> None:
        if any(len(row) == seed_length for row in ids):
            message = f"cannot compute {seed_length}"
            raise ValueError(message)

    return Model(refuse)


def test_an_error_reaches_only_the_call_whose_row_causes_it() -> None:
    with Asked(broken_by(13)) as asked:
        asked.occupy()
        good = [asked.submit(text(length=10 + i), text(length=9, seed=i)) for i in range(3)]
        bad = asked.submit(text(length=13), text(length=12))
        asked.model.free()
        with pytest.raises(ValueError, match="cannot compute 13"):
            bad.result(timeout=60)
        for i, future in enumerate(good):
            ids = [text(length=10 + i), text(length=9, seed=i)]
            assert np.array_equal(future.result(timeout=60), expected(ids, NATIVE))
        assert [len(batch) for batch in asked.model.batches] == [1, 8, 2, 2, 2, 2]


def test_a_row_that_is_not_finite_reaches_only_its_caller() -> None:
    class Overflowing(Model):
        def __call__(self, ids: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
            rows = super().__call__(ids, dimensions)
            rows[[len(row) == 13 for row in ids]] = np.nan
            return rows

    with Asked(Overflowing()) as asked:
        asked.occupy()
        good, bad = asked.submit(text(length=12)), asked.submit(text(length=13))
        asked.model.free()
        with pytest.raises(InputError, match="finite"):
            bad.result(timeout=60)
        assert np.array_equal(good.result(timeout=60), expected([text(length=12)], NATIVE))


def test_a_long_call_that_fails_goes_no_further() -> None:
    with Asked(broken_by(99)) as asked:
        asked.occupy()
        rows = [text(length=99), *(text(length=98, seed=i) for i in range(19))]
        job = asked.submit(*rows, token_budget=400)
        asked.model.free()
        with pytest.raises(ValueError, match="cannot compute 99"):
            job.result(timeout=60)
        assert asked.submit(text(length=3)).result(timeout=60).shape == (1, NATIVE)
        assert len(asked.model.batches) == 3


def short_of_memory(tokens: int) -> Callable[[Sequence[np.ndarray]], None]:
    def check(ids: Sequence[np.ndarray]) -> None:
        if len(ids) * max(map(len, ids)) > tokens:
            message = "CUDA out of memory. Tried to allocate 20.00 MiB"
            raise torch.OutOfMemoryError(message)

    return check


def test_out_of_memory_halves_the_batch_and_fails_only_the_text_that_never_fits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_back = []
    model = Model(short_of_memory(100))
    with Asked(model, padding=10_000, on_out_of_memory=lambda: given_back.append(len(model.batches))) as asked:
        asked.occupy()
        fits = [asked.submit(text(length=20, seed=i), text(length=10, seed=i)) for i in range(8)]
        too_large = asked.submit(text(length=101), text(length=20))
        asked.model.free()
        with pytest.raises(OutOfMemoryError, match="A single text of 101 tokens"):
            too_large.result(timeout=60)
        for i, future in enumerate(fits):
            ids = [text(length=20, seed=i), text(length=10, seed=i)]
            assert np.array_equal(future.result(timeout=60), expected(ids, NATIVE))
    assert "ran out of memory" in caplog.text
    assert given_back
    failed = [batch for batch in model.batches if len(batch) * max(batch) > 100]
    assert len(given_back) == len(failed)


def test_the_limit_after_out_of_memory_rises_again() -> None:
    short = threading.Event()
    short.set()
    check = short_of_memory(40)
    with Asked(Model(lambda ids: check(ids) if short.is_set() else None)) as asked:
        rows = [text(length=10, seed=i) for i in range(16)]
        assert np.array_equal(asked.submit(*rows).result(timeout=60), expected(rows, NATIVE))
        short.clear()
        asked.model.batches.clear()
        for _ in range(200):
            asked.submit(*rows).result(timeout=60)
        sizes = [len(batch) for batch in asked.model.batches]
        assert max(sizes[:60]) == 4
        assert sizes[-1] == 16


def test_closing_finishes_what_runs_and_tells_who_waits() -> None:
    with Asked() as asked:
        running = asked.occupy()
        waiting = [asked.submit(text(length=9)), long_call(asked, batches=3, length=100)]
        asked.scheduler.close()
        with pytest.raises(EncoderClosedError, match="fake was closed while it worked"):
            asked.submit(text(length=9))
        asked.model.free()
        assert running.result(timeout=60).shape == (1, NATIVE)
        for future in waiting:
            with pytest.raises(EncoderClosedError, match="was closed while it worked"):
                future.result(timeout=60)
        assert asked.model.batches == [[1]]


def test_closing_in_the_midst_of_a_long_call_ends_it() -> None:
    with Asked() as asked:
        asked.model.hold()
        job = long_call(asked, batches=5, length=100)
        asked.model.wait()
        asked.scheduler.close()
        asked.model.free()
        with pytest.raises(EncoderClosedError):
            job.result(timeout=60)
        assert len(asked.model.batches) == 1


def test_closing_on_the_worker_itself_blocks_nothing() -> None:
    """As the garbage collector may do it."""
    asked = Asked(Model(lambda ids: asked.scheduler.close()))
    assert asked.submit(text(length=4)).result(timeout=60).shape == (1, NATIVE)
    with pytest.raises(EncoderClosedError):
        asked.submit(text(length=4))


def test_a_closed_scheduler_holds_its_forward_no_more() -> None:
    model = Model()
    freed = weakref.ref(model)
    scheduler = Scheduler(model, name="fake", device="cpu", padding=0)
    scheduler.submit([text(length=3)], dimensions=2, token_budget=10).result(timeout=60)
    scheduler.close()
    del model
    assert freed() is None


def test_a_mistake_in_the_scheduler_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with Asked() as asked:
        asked.occupy()
        waiting = [asked.submit(text(length=9)), long_call(asked, batches=3, length=100)]

        def broken(limit: int) -> Any:
            message = "a mistake"
            raise KeyError(message)

        monkeypatch.setattr(asked.scheduler._waiting, "take", broken)
        asked.model.free()
        for future in waiting:
            with pytest.raises(KeyError, match="a mistake"):
                future.result(timeout=60)


def test_a_forward_of_the_wrong_shape_is_an_error() -> None:
    def one_too_many(ids: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
        return np.ones((len(ids) + 1, dimensions), dtype=np.float32)

    with Asked(one_too_many) as asked, pytest.raises(AssertionError, match="gave 2 rows for 1 texts"):
        asked.submit(text(length=4)).result(timeout=60)


def test_a_program_ends_that_neither_closes_nor_waits() -> None:
    code = """
import numpy as np, time
from f2rag.scheduling import Scheduler
def forward(ids, dimensions):
    time.sleep(0.05)
    return np.ones((len(ids), dimensions), dtype=np.float32)
scheduler = Scheduler(forward, name="fake", device="cpu", padding=0)
futures = [scheduler.submit([np.arange(1, n)], dimensions=2, token_budget=10) for n in range(2, 8)]
futures[0].result()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


# -- a device that computes while the host goes on --------------------------------------------------------------------


class Device:
    """Batches are queued and arrive when they are waited for, as on CUDA."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails_on = 0

    def __call__(self, ids: Sequence[np.ndarray], dimensions: int) -> Any:
        number = sum(event.startswith("begin") for event in self.events)
        self.events.append(f"begin {number}")
        device = self

        class Arriving:
            def wait(self) -> np.ndarray:
                device.events.append(f"end {number}")
                if any(len(row) == device.fails_on for row in ids):
                    message = "a kernel failed"
                    raise RuntimeError(message)
                return np.stack([raw(row)[:dimensions] for row in ids])

        return Arriving()


def test_the_next_batch_is_queued_before_the_last_one_is_waited_for() -> None:
    device = Device()
    with Asked(device) as asked:
        rows = [text(length=10, seed=i) for i in range(8)]
        found = asked.submit(*rows, token_budget=20).result(timeout=60)
        assert np.array_equal(found, expected(rows, NATIVE))
    assert device.events == [
        "begin 0", "begin 1", "end 0", "begin 2", "end 1", "begin 3", "end 2", "end 3",
    ]  # fmt: skip


def test_what_fails_on_the_device_after_it_was_queued_reaches_only_its_caller() -> None:
    device = Device()
    device.fails_on = 13
    gate = threading.Event()
    with Asked(lambda ids, dimensions: gate.wait(60) and device(ids, dimensions)) as asked:
        futures = [asked.submit(text(length=length)) for length in (12, 13, 14)]
        gate.set()
        with pytest.raises(RuntimeError, match="a kernel failed"):
            futures[1].result(timeout=60)
        for length, future in ((12, futures[0]), (14, futures[2])):
            assert np.array_equal(future.result(timeout=60), expected([text(length=length)], NATIVE))


# -- any mix ----------------------------------------------------------------------------------------------------------

CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "lengths": st.lists(st.integers(min_value=1, max_value=60), max_size=30),
            "dimensions": st.integers(min_value=1, max_value=NATIVE),
            "token_budget": st.sampled_from([30, 100, 2048]),
            "owner": st.sampled_from([None, "a", "b"]),
            "fate": st.sampled_from(["wanted", "wanted", "wanted", "cancelled", "broken"]),
        }
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    calls=CALLS,
    at_once=st.booleans(),
    padding=st.sampled_from([0, 20, 10_000]),
    memory=st.sampled_from([60, 100, 100_000]),
)
def test_any_mix_of_calls_gives_each_caller_its_rows_in_order(
    calls: list[dict[str, Any]], *, at_once: bool, padding: int, memory: int
) -> None:
    poison = 61  # longer than any other text

    def check(ids: Sequence[np.ndarray]) -> None:
        short_of_memory(memory)(ids)
        if any(len(row) == poison for row in ids):
            message = "poison"
            raise ValueError(message)

    model = Model(check)
    with Asked(model, padding=padding) as asked:
        if at_once:
            asked.occupy()
        futures = []
        for seed, call in enumerate(calls):
            lengths = [*call["lengths"], poison] if call["fate"] == "broken" else call["lengths"]
            ids = [text(length=length, seed=seed * 100 + i) for i, length in enumerate(lengths)]
            options = {name: call[name] for name in ("dimensions", "token_budget", "owner")}
            futures.append((call, ids, asked.submit(*ids, **options)))
        cancelled = {id(future) for call, _, future in futures if call["fate"] == "cancelled" and future.cancel()}
        asked.model.free()
        for call, ids, future in futures:
            if id(future) in cancelled:
                continue
            if call["fate"] == "broken":
                with pytest.raises(ValueError if memory > poison else OutOfMemoryError):
                    future.result(timeout=60)
            elif ids:
                found = future.result(timeout=60)
                assert np.allclose(found, expected(ids, call["dimensions"]), atol=1e-6)
            else:
                assert future.result(timeout=60).shape == (0, call["dimensions"])
        budgets = max((call["token_budget"] for call in calls), default=0)
        assert all(len(batch) == 1 or len(batch) * max(batch) <= budgets for batch in model.batches)


def test_many_threads_hand_in_at_once() -> None:
    wrong = []
    with Asked() as asked:

        def ask(thread: int) -> None:
            for turn in range(40):
                ids = [
                    text(length=1 + (thread * turn + i) % 50, seed=thread * 1000 + turn) for i in range(turn % 4 + 1)
                ]
                if not np.array_equal(asked.submit(*ids).result(timeout=60), expected(ids, NATIVE)):
                    wrong.append((thread, turn))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(asked.model.batches) < 16 * 40
