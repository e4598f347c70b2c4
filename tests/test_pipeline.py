"""Windows, streams and async callers, between the tokenizer and the scheduler."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from f2rag import F2LLMEncoder, pipeline
from f2rag.encoder import TruncationWarning
from f2rag.errors import EncoderClosedError, InputError, OverlongTextError, TextTypeError
from f2rag.tokenizer import F2LLMTokenizer
from f2rag.vectors import truncate

PATIENCE = 100
"""Seconds after which something that must happen has not happened; machines can be busy."""

TEXTS = [f"text number {i} {'and more ' * (i % 4)}" for i in range(64)]


@pytest.fixture
def encoder(tiny: Path) -> Iterator[F2LLMEncoder]:
    with F2LLMEncoder(tiny, dtype="float32", device="cpu", max_length=256) as made:
        yield made


class Worker:
    """Sees every forward, and can hold the worker inside one."""

    def __init__(self, encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.scheduler = encoder._runtime()._scheduler
        self.before: Callable[[Sequence[np.ndarray]], object] = lambda ids: None
        self._go = threading.Event()
        self._go.set()
        self._inside = threading.Semaphore(0)
        forward = self.scheduler._forward

        def counted(ids: Sequence[np.ndarray], dimensions: int) -> Any:
            self.batches.append(len(ids))
            self._inside.release()
            assert self._go.wait(PATIENCE)
            self.before(ids)
            return forward(ids, dimensions)

        monkeypatch.setattr(self.scheduler, "_forward", counted)

    def hold(self) -> None:
        """Stop in every forward that begins from now on."""
        while self._inside.acquire(blocking=False):
            pass
        self._go.clear()

    def wait(self) -> None:
        """Until a forward has begun, since the last one that was waited for."""
        assert self._inside.acquire(timeout=PATIENCE)

    async def until_waiting(self, count: int) -> None:
        """Until so many calls have reached the scheduler, while the worker is held."""
        deadline = time.monotonic() + PATIENCE
        while len(self.scheduler._mailbox) < count:
            assert time.monotonic() < deadline, len(self.scheduler._mailbox)
            await asyncio.sleep(0.002)

    async def until_cancelled(self, count: int) -> None:
        """Until so many of the calls that wait are cancelled: a thread may just be handing in what was given up."""
        deadline = time.monotonic() + PATIENCE
        while sum(call.future.cancelled() for call in list(self.scheduler._mailbox)) < count:
            assert time.monotonic() < deadline, "cancelled queries still wait to be computed"
            await asyncio.sleep(0.002)

    def free(self) -> None:
        self._go.set()


@pytest.fixture
def worker(encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    made = Worker(encoder, monkeypatch)
    yield made
    made.free()


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of every call of the tokenizer, as it ends."""
    seen: list[int] = []
    original = F2LLMTokenizer.encode

    def encode(self: F2LLMTokenizer, texts: Sequence[str], **options: Any) -> Any:
        found = original(self, texts, **options)
        seen.append(len(texts))
        return found

    monkeypatch.setattr(F2LLMTokenizer, "encode", encode)
    return seen


# -- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_is_tokenised_while_the_one_before_is_computed(
    encoder: F2LLMEncoder, worker: Worker, tokenized: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_WINDOW", 16)
    alone = np.vstack([encoder.embed_documents([text]) for text in TEXTS])
    tokenized.clear()
    seen: list[int] = []

    def wait_for_the_next_window(ids: Sequence[np.ndarray]) -> None:
        """The first forward ends only when the second window has been tokenised, which would never be otherwise."""
        deadline = time.monotonic() + PATIENCE
        while len(tokenized) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if not seen:
            time.sleep(0.05)  # in which a third could be tokenised, if it were allowed to
        seen.append(len(tokenized))

    worker.before = wait_for_the_next_window
    assert np.allclose(encoder.embed_documents(TEXTS), alone, atol=1e-6)
    assert tokenized == [16, 16, 16, 16]
    assert seen[0] == 2


def test_the_windows_of_a_list_grow(encoder: F2LLMEncoder, tokenized: list[int], monkeypatch: Any) -> None:
    monkeypatch.setattr(pipeline, "_FIRST_WINDOW", 5)
    monkeypatch.setattr(pipeline, "_WINDOW", 20)
    whole = encoder.embed_documents(TEXTS)
    assert tokenized == [5, 10, 20, 20, 9]
    assert np.allclose(whole[[0, 4, 5, 63]], encoder.embed_documents([TEXTS[i] for i in (0, 4, 5, 63)]), atol=1e-6)


def test_an_error_in_a_later_window_ends_the_call_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_WINDOW", 8)
    with F2LLMEncoder(tiny, dtype="float32", max_length=64, on_overflow="error", token_budget=32) as encoder:
        worker = Worker(encoder, monkeypatch)
        worker.hold()
        with pytest.raises(OverlongTextError, match="text 9 has 101 tokens"):
            encoder.embed_documents([*TEXTS[:9], "x" * 100])
        worker.free()
        assert encoder.embed_documents(["next"]).shape == (1, 40)
        # The window that was under way went no further than the batch that ran, if it had begun at all.
        assert len(worker.batches) <= 2


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_one_window_ahead_and_no_further(
    encoder: F2LLMEncoder, worker: Worker, tokenized: list[int]
) -> None:
    read: list[str] = []

    def texts() -> Iterator[str]:
        for i in range(10**9):
            read.append(threading.current_thread().name)
            yield f"text {i}"

    stream = encoder.iter_documents(texts(), window=4)
    assert read == []
    for windows in range(1, 6):
        assert next(stream).shape == (4, 40)
        assert len(read) == 4 * (windows + 1)
        assert len(tokenized) == windows + 1
    assert set(read) == {threading.current_thread().name}


def test_an_endless_stream_keeps_no_more_than_two_windows(encoder: F2LLMEncoder) -> None:
    class Text(str):
        """A string that can be referred to weakly."""

    alive: weakref.WeakSet[Text] = weakref.WeakSet()

    def texts() -> Iterator[str]:
        for i in range(10**9):
            text = Text(f"text {i}")
            alive.add(text)
            yield text

    stream = encoder.iter_documents(texts(), window=8)
    for _ in range(10):
        next(stream)
        gc.collect()
        assert len(alive) <= 2 * 8


@pytest.mark.parametrize("wrong", ["reading", "type", "unicode"])
def test_what_goes_wrong_in_a_stream_comes_after_the_arrays_before_it(encoder: F2LLMEncoder, wrong: str) -> None:
    def texts() -> Iterator[Any]:
        yield from TEXTS[:10]
        if wrong == "reading":
            message = "the disk is gone"
            raise OSError(message)
        yield 5 if wrong == "type" else "half \ud83e"

    encoder.warm_up()
    threads = threading.active_count()
    stream = encoder.iter_documents(texts(), window=4)
    found = [next(stream), next(stream)]
    assert np.allclose(np.vstack(found), encoder.embed_documents(TEXTS[:8]), atol=1e-6)
    kind, message = {
        "reading": (OSError, "the disk is gone"),
        "type": (TextTypeError, "Item 10 is of type int"),
        "unicode": (InputError, "Text 10 is not valid Unicode"),
    }[wrong]
    with pytest.raises(kind, match=message):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)
    assert threading.active_count() == threads


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_stream_that_is_left_early_computes_no_further(
    tiny: Path, tokenized: list[int], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    with F2LLMEncoder(tiny, dtype="float32", token_budget=1) as encoder:  # every text is a batch of its own
        worker = Worker(encoder, monkeypatch)
        fifth = threading.Event()

        def stop_in_the_fifth(ids: Sequence[np.ndarray]) -> None:
            if len(worker.batches) == 5:
                fifth.set()
                assert left.wait(PATIENCE)

        left = threading.Event()
        worker.before = stop_in_the_fifth
        threads = threading.active_count() + 1
        stream = encoder.iter_documents((f"text {i}" for i in range(10**9)), window=4)
        assert next(stream).shape == (4, 40)
        assert fifth.wait(PATIENCE)
        # The worker is held in the first text of the second window.
        if end == "close":
            stream.close()  # type: ignore[attr-defined]
        else:
            del stream
            gc.collect()
        left.set()
        assert encoder.embed_query("next").shape == (40,)
        assert tokenized == [4, 4, 1]
        assert len(worker.batches) == 6
        assert threading.active_count() <= threads


def test_a_stream_of_a_closed_encoder_ends_with_its_error(encoder: F2LLMEncoder) -> None:
    stream = encoder.iter_documents((f"text {i}" for i in range(10**9)), window=4)
    assert next(stream).shape == (4, 40)
    encoder.close()
    with pytest.raises(EncoderClosedError):
        _ = [next(stream), next(stream)]


def test_empty_streams_and_lists(encoder: F2LLMEncoder) -> None:
    assert list(encoder.iter_documents([], window=4)) == []
    assert asyncio.run(encoder.aembed_documents([], dimensions=16)).shape == (0, 16)
    assert encoder._lease is None  # nothing was loaded for it


def test_the_warning_names_the_line_that_asked(tiny: Path) -> None:
    with F2LLMEncoder(tiny, dtype="float32", max_length=16) as encoder:
        for embed in (encoder.embed_documents, encoder.embed_queries, lambda t: next(encoder.iter_documents(t))):
            with pytest.warns(TruncationWarning, match="cut to max_length=") as caught:
                embed(["x" * 100])
            assert Path(caught[0].filename) == Path(__file__)


# -- async ------------------------------------------------------------------------------------------------------------


async def test_64_async_queries_share_forwards_and_get_the_same_vectors(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of different sizes and instructions; each must get what it gets alone."""
    encoder = F2LLMEncoder(tiny, dtype="float32", token_budget=20_000)
    worker = Worker(encoder, monkeypatch)
    sizes = [(8, 40, 16)[i % 3] for i in range(64)]
    instructions = [(None, "", "Retrieve translations of the following text.")[i % 3] for i in range(64)]
    asked = list(zip([f"query {i:02}" for i in range(64)], sizes, instructions, strict=True))
    alone = [encoder.embed_query(text, dimensions=size, instruction=kind) for text, size, kind in asked]
    worker.batches.clear()
    worker.hold()
    first = asyncio.create_task(encoder.aembed_query("first"))
    await asyncio.to_thread(worker.wait)
    tasks = [
        asyncio.create_task(encoder.aembed_query(text, dimensions=size, instruction=kind)) for text, size, kind in asked
    ]
    # More than there are threads: none of them waits in one.
    await worker.until_waiting(64)
    worker.free()
    found = await asyncio.gather(*tasks)
    assert (await first).shape == (40,)
    for mine, expected, size in zip(found, alone, sizes, strict=True):
        assert mine.shape == (size,)
        assert np.allclose(mine, expected, atol=1e-6)
    assert worker.batches[0] == 1
    assert sum(worker.batches) == 65
    assert len(worker.batches) <= 4  # one for each instruction, since these make texts of very different lengths
    encoder.close()


async def test_threads_that_ask_at_once_share_forwards_too(encoder: F2LLMEncoder, worker: Worker) -> None:
    alone = encoder.embed_documents(TEXTS[:16])
    worker.batches.clear()
    worker.hold()
    first = asyncio.ensure_future(asyncio.to_thread(encoder.embed_documents, TEXTS[:1]))
    await asyncio.to_thread(worker.wait)
    tasks = [asyncio.ensure_future(asyncio.to_thread(encoder.embed_documents, [text])) for text in TEXTS[1:4]]
    await worker.until_waiting(3)
    worker.free()
    assert np.allclose(np.vstack(await asyncio.gather(first, *tasks)), alone[:4], atol=1e-6)
    assert worker.batches == [1, 3]


async def test_a_query_does_not_wait_for_a_long_async_call(
    encoder: F2LLMEncoder, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_FIRST_WINDOW", 8)
    monkeypatch.setattr(pipeline, "_WINDOW", 8)
    monkeypatch.setattr(pipeline, "_SHORT_TEXTS", 4)
    done: list[str] = []

    async def embed(name: str, texts: list[str]) -> np.ndarray:
        found = await encoder.aembed_documents(texts)
        done.append(name)
        return found

    worker.hold()
    first = asyncio.create_task(encoder.aembed_query("first"))
    await asyncio.to_thread(worker.wait)
    jobs = [asyncio.create_task(embed(f"job {i}", TEXTS)) for i in range(8)]
    await worker.until_waiting(pipeline._LONG_PLACES)
    query = asyncio.create_task(embed("query", TEXTS[:1]))
    # The windows that long calls may have under way, and the query, which waits for no place among those.
    await worker.until_waiting(pipeline._LONG_PLACES + 1)
    await asyncio.sleep(0.05)
    assert len(worker.scheduler._mailbox) == pipeline._LONG_PLACES + 1
    worker.free()
    expected = encoder.embed_documents(TEXTS)
    for found in await asyncio.gather(*jobs):
        assert np.allclose(found, expected, atol=1e-6)
    assert np.allclose(await query, expected[:1], atol=1e-6)
    assert (await first).shape == (40,)
    assert done[0] == "query"


async def test_a_cancelled_async_query_is_not_computed(encoder: F2LLMEncoder, worker: Worker) -> None:
    worker.hold()
    first = asyncio.create_task(encoder.aembed_query("first"))
    await asyncio.to_thread(worker.wait)
    tasks = [asyncio.create_task(encoder.aembed_query(text)) for text in TEXTS[:10]]
    await worker.until_waiting(10)
    for task in tasks[:7]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks[:7], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    await worker.until_cancelled(7)
    worker.free()
    assert (await first).shape == (40,)
    assert np.vstack(await asyncio.gather(*tasks[7:])).shape == (3, 40)
    assert sum(worker.batches) == 4


async def test_a_call_that_is_cancelled_while_it_is_tokenised_is_not_computed(
    encoder: F2LLMEncoder, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    original = F2LLMTokenizer.encode

    def slow(self: F2LLMTokenizer, texts: Sequence[str], **options: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE)
        return original(self, texts, **options)

    with monkeypatch.context() as patched:
        patched.setattr(F2LLMTokenizer, "encode", slow)
        task = asyncio.create_task(encoder.aembed_query("x"))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        worker.hold()  # so that the dropped call cannot have begun before it is dropped
        go.set()
        encoder._callers.submit(int).result()  # type: ignore[union-attr]
    worker.free()
    assert (await encoder.aembed_query("y")).shape == (40,)
    assert encoder._places._short._free == pipeline._SHORT_PLACES


async def test_an_async_call_that_fails_gives_its_place_back(encoder: F2LLMEncoder) -> None:
    with pytest.raises(InputError):
        await encoder.aembed_query("x", dimensions=41)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        with pytest.raises(TruncationWarning):
            await encoder.aembed_documents(["x" * 300])
    assert encoder._places._short._free == pipeline._SHORT_PLACES
    assert truncate(await encoder.aembed_documents(["x"]), 8).shape == (1, 8)
    assert encoder._places._short._free == pipeline._SHORT_PLACES


async def test_a_gate_lets_in_so_many_and_the_others_in_order() -> None:
    gate = pipeline._Gate(2)
    inside: list[int] = []

    async def visit(number: int) -> None:
        await gate.enter()
        inside.append(number)

    tasks = [asyncio.create_task(visit(i)) for i in range(6)]
    await asyncio.sleep(0.01)
    assert inside == [0, 1]
    tasks[2].cancel()
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.sleep(0.01)
    assert inside == [0, 1, 3]
    gate.leave()  # given to 4, which is cancelled before it can notice
    tasks[4].cancel()
    await asyncio.sleep(0.01)
    assert inside == [0, 1, 3, 5]
    for _ in range(2):
        gate.leave()
    assert gate._free == 2
