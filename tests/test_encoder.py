from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2rag import F2LLMEncoder, runtime
from f2rag.encoder import TruncationWarning
from f2rag.errors import (
    DeviceError,
    DimensionsError,
    EncoderClosedError,
    F2RagError,
    InputError,
    InstructionError,
    OutOfMemoryError,
    OverlongTextError,
    TextTypeError,
    UnknownModelError,
)
from f2rag.testing import FakeEncoder
from f2rag.types import Encoder
from f2rag.vectors import truncate

TEXTS = ["a short text", "ein längerer Text mit mehr Wörtern", "短文"]


def wrap_forward(encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch, before: Any) -> None:
    """Call ``before(ids)`` on the worker in front of every forward; loads the model."""
    scheduler = encoder._runtime()._scheduler
    original = scheduler._forward

    def forward(ids, dimensions):
        before(ids)
        return original(ids, dimensions)

    monkeypatch.setattr(scheduler, "_forward", forward)


class Held:
    """Counts the rows of forwards, and holds the worker inside the next one until it is freed."""

    def __init__(self, encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self._begun, self._go = threading.Event(), threading.Event()
        wrap_forward(encoder, monkeypatch, self._before)

    def _before(self, ids) -> None:
        self.batches.append(len(ids))
        self._begun.set()
        assert self._go.wait(60)

    def wait(self) -> None:
        assert self._begun.wait(60)

    def free(self) -> None:
        self._go.set()


@pytest.fixture
def encoder(tiny: Path):
    with F2LLMEncoder(tiny, dtype="float32", device="cpu", max_length=256) as made:
        yield made


# -- construction ---------------------------------------------------------------------------------------------------


def test_construction_touches_neither_disk_nor_device() -> None:
    code = """
import builtins, os, pathlib, sys
import f2rag.encoder
def refuse(*arguments, **options):
    raise AssertionError(f"disk was touched: {arguments}")
for owner, name in ((builtins, "open"), (os, "stat"), (os, "scandir"), (os, "listdir"), (pathlib.Path, "open")):
    setattr(owner, name, refuse)
encoder = f2rag.encoder.F2LLMEncoder("14B", dimensions=256, device="cuda", dtype="bfloat16")
assert (encoder.dimensions, encoder.native_dimensions) == (256, 5120)
assert encoder.contract().model == "codefuse-ai/F2LLM-v2-14B"
assert encoder.max_length == 8192
assert not {"torch", "transformers", "tokenizers", "huggingface_hub"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_heavy_module() -> None:
    code = (
        "import f2rag, sys; f2rag.F2LLMEncoder; f2rag.Document; "
        "heavy = {'torch', 'transformers', 'qdrant_client', 'qdrant_edge', 'streamlit', 'llama_index', "
        "'langchain_core', 'sentence_transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dimensions_are_known_before_weights_are_read(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert F2LLMEncoder(tmp_path).dimensions == 40


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "80Mb"}, UnknownModelError, "80M"),
        ({"model": "80M", "dimensions": 321}, DimensionsError, "320"),
        ({"model": "80M", "dimensions": 0}, DimensionsError, "320"),
        ({"model": "80M", "task": "sts", "instruction": "x"}, InputError, "give one of them"),
        ({"model": "80M", "task": "retreival"}, InstructionError, "retrieval"),
        ({"model": "0.6B-Preview", "task": "sts"}, InstructionError, "trained without instructions"),
        ({"model": "0.6B-Preview", "instruction": "Find it."}, InstructionError, "trained without instructions"),
        ({"model": "80M", "dtype": "int3"}, DeviceError, "float32, bfloat16, float16"),
        ({"model": "80M", "on_overflow": "cut"}, InputError, "truncate, warn, error"),
        ({"model": "80M", "max_length": 1}, InputError, "at least 2"),
        ({"model": "80M", "max_length": True}, InputError, "at least 2"),
        ({"model": "80M", "token_budget": 0}, InputError, "at least 1"),
        ({"model": "80M", "token_budget": "many"}, InputError, "at least 1"),
        ({"model": "80M", "revision": 5}, InputError, "commit, tag or branch"),
    ],
)
def test_a_wrong_argument_is_refused_at_construction(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        F2LLMEncoder(**options)
    assert isinstance(raised.value, F2RagError)


def test_a_preview_gets_no_instruction() -> None:
    encoder = F2LLMEncoder("0.6B-Preview")
    assert encoder.instruction == ""
    assert encoder.document_instruction == ""
    assert F2LLMEncoder("0.6B-Preview", instruction="").instruction == ""


def test_a_wrong_device_is_refused_with_the_first_text(tiny: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    for device, message in (("cuda", "0 CUDA devices"), ("gpu", "expected 'cpu'"), ("xpu", "runs on 'cpu'")):
        with pytest.raises(DeviceError, match=message):
            F2LLMEncoder(tiny, device=device).embed_query("x")


def test_real_and_fake_encoders_have_the_interface(encoder: F2LLMEncoder) -> None:
    for each in (encoder, FakeEncoder()):
        interface: Encoder = each
        assert interface.embed_query("x").shape == (interface.dimensions,)


# -- vectors --------------------------------------------------------------------------------------------------------


def test_vectors_are_float32_unit_rows_of_the_asked_size(encoder: F2LLMEncoder) -> None:
    for method in (encoder.embed_documents, encoder.embed_queries):
        vectors = method(TEXTS, dimensions=16)
        assert vectors.shape == (3, 16)
        assert vectors.dtype == np.float32
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert encoder.embed_query(TEXTS[0]).shape == (40,)


def test_asked_dimensions_equal_the_cut_and_normalised_full_vector(encoder: F2LLMEncoder) -> None:
    full = encoder.embed_documents(TEXTS)
    assert np.allclose(encoder.embed_documents(TEXTS, dimensions=16), truncate(full, 16), atol=1e-6)


def test_an_instruction_per_call_is_used_and_an_empty_one_means_none(encoder: F2LLMEncoder) -> None:
    usual = encoder.embed_query(TEXTS[0])
    other = encoder.embed_query(TEXTS[0], instruction="Retrieve translations of the following text.")
    bare = encoder.embed_query(TEXTS[0], instruction="")
    assert abs(float(usual @ other)) < 0.999
    assert np.allclose(bare, encoder.embed_documents(TEXTS[:1])[0], atol=1e-6)


def test_a_symmetric_task_puts_the_instruction_on_both_sides(tiny: Path) -> None:
    with F2LLMEncoder(tiny, dtype="float32", task="sts") as encoder:
        assert np.allclose(encoder.embed_queries(TEXTS), encoder.embed_documents(TEXTS), atol=1e-6)
        assert encoder.contract().document_instruction == encoder.instruction
    assert F2LLMEncoder(tiny, task="fact-checking").document_instruction == ""


def test_an_own_query_prompt_in_the_folder_is_kept(make_checkpoint: Any, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "tuned"
    shutil.copytree(make_checkpoint(model="80M"), folder)
    stored = folder / "config_sentence_transformers.json"
    stored.write_text(json.dumps({"prompts": {"query": "Instruct: Find the recipe.\nQuery: ", "document": ""}}))
    assert F2LLMEncoder(folder).instruction == "Find the recipe."
    stored.write_text(json.dumps({"prompts": {"query": ""}}))
    assert F2LLMEncoder(folder).instruction == ""
    assert F2LLMEncoder(folder, task="fact-checking").instruction.startswith("Given a claim")
    both = "Instruct: Retrieve semantically similar text.\nQuery: "
    stored.write_text(json.dumps({"prompts": {"query": both, "document": both}}))
    with F2LLMEncoder(folder, dtype="float32") as symmetric:
        assert symmetric.document_instruction == "Retrieve semantically similar text."
        assert np.allclose(symmetric.embed_queries(TEXTS), symmetric.embed_documents(TEXTS), atol=1e-6)
    stored.write_text(json.dumps({"prompts": {"query": "", "document": "passage: "}}))
    with pytest.raises(InstructionError, match="document prompt 'passage: '"):
        F2LLMEncoder(folder).embed_documents(["x"])
    stored.write_text(json.dumps({"prompts": {"query": "query: "}}))
    with pytest.raises(InstructionError, match="'query: '"):
        _ = F2LLMEncoder(folder).instruction
    assert F2LLMEncoder(folder, instruction="Find it.").instruction == "Find it."


def test_empty_inputs(encoder: F2LLMEncoder) -> None:
    assert encoder.embed_documents([]).shape == (0, 40)
    assert encoder.embed_queries([], dimensions=8).shape == (0, 8)
    assert np.linalg.norm(encoder.embed_documents([""])[0]) == pytest.approx(1, abs=1e-6)


def test_equal_texts_are_computed_once(encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = runtime.ModelRuntime.submit

    def submit(self, ids, **options):
        seen.append(len(ids))
        return original(self, ids, **options)

    monkeypatch.setattr(runtime.ModelRuntime, "submit", submit)
    vectors = encoder.embed_documents(["a", "b", "a", "a"])
    assert seen == [2]
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    monkeypatch.setattr("f2rag.pipeline._WINDOW", 2)
    seen.clear()
    again = encoder.embed_documents(["a", "b", "a", "c", "b", "a", "d", "e"])
    assert seen == [2, 2, 1]
    assert np.allclose(again[[0, 1, 2, 4, 5]], vectors[[0, 1, 0, 1, 0]], atol=1e-6)


def test_a_stream_is_embedded_window_by_window(encoder: F2LLMEncoder) -> None:
    endless = (f"text {i}" for i in itertools.count())
    parts = list(itertools.islice(encoder.iter_documents(endless, window=4), 3))
    assert [part.shape for part in parts] == [(4, 40)] * 3
    assert next(endless) == "text 16"  # one window is read ahead
    assert np.allclose(np.vstack(parts), encoder.embed_documents([f"text {i}" for i in range(12)]), atol=1e-6)
    for window in (0, 2.5, None, "a", True):
        with pytest.raises(InputError, match=f"window={window!r}"):
            encoder.iter_documents(["x"], window=window)


def test_similarity_is_the_cosine(encoder: F2LLMEncoder) -> None:
    queries, documents = encoder.embed_queries(TEXTS), encoder.embed_documents(TEXTS)
    assert encoder.similarity(queries, documents).shape == (3, 3)
    assert encoder.similarity(queries[0], documents[0])[0, 0] == pytest.approx(queries[0] @ documents[0])
    with pytest.raises(InputError, match="40 dimensions and documents 8"):
        encoder.similarity(queries, documents[:, :8])


def test_bfloat16_stays_close_to_float32(tiny: Path, encoder: F2LLMEncoder) -> None:
    with F2LLMEncoder(tiny, dtype="bfloat16", max_length=256) as low:
        vectors = low.embed_documents(TEXTS)
        assert (vectors * encoder.embed_documents(TEXTS)).sum(axis=1).min() > 0.995
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        difference, fast = low.self_test_result()
        assert fast, difference


# -- input that cannot be embedded ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.embed_documents("one"), r"Use embed_documents\(\[text\]\)"),
        (lambda e: e.embed_queries("one"), "Use embed_query for a single text"),
        (lambda e: e.embed_query(["a"]), "Use embed_queries"),
        (lambda e: e.embed_query(None), "NoneType was given"),
        (lambda e: e.embed_documents(["a", None, "b"]), "Item 1 is of type NoneType"),
        (lambda e: e.embed_documents(["a", "b", b"bytes"]), "Item 2 is of type bytes"),
        (lambda e: e.embed_documents(["a", 10**5000]), "Item 1 is of type int"),
        (lambda e: e.embed_documents(b"bytes"), "Decode them first"),
        (lambda e: e.count_tokens(["a", "b"]), "count_tokens takes one string"),
        (lambda e: e.iter_documents("text"), "iter_documents takes a stream"),
        (lambda e: e.iter_documents(None), "iter_documents takes a stream"),
        (lambda e: list(e.iter_documents(["a"] * 10 + [1], window=4)), "Item 10 is of type int"),
        (lambda e: e.embed_documents(text for text in TEXTS), "Use iter_documents"),
    ],
)
def test_what_is_not_text_is_refused_and_named(encoder: F2LLMEncoder, call: Any, message: str) -> None:
    with pytest.raises(TextTypeError, match=message):
        call(encoder)


@pytest.mark.parametrize("texts", [["same", "same", "half \ud83e"], ["x"] * 9 + ["\udc00"]])
def test_half_of_a_surrogate_pair_is_named_by_its_position(
    encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    monkeypatch.setattr("f2rag.pipeline._WINDOW", 4)
    for method in (encoder.embed_documents, encoder.embed_queries, lambda t: list(encoder.iter_documents(t, window=2))):
        with pytest.raises(InputError, match=rf"Text {len(texts) - 1} is not valid Unicode"):
            method(texts)
    with pytest.raises(InputError, match="not valid Unicode"):
        encoder.embed_query(texts[-1])


def test_more_texts_than_one_window_keep_order_duplicates_and_positions(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"text {i % 9}" for i in range(30)] + ["x" * 300]
    with F2LLMEncoder(tiny, dtype="float32", max_length=256) as encoder:
        expected = np.vstack([encoder.embed_documents([text]) for text in texts[:-1]])
        monkeypatch.setattr("f2rag.pipeline._WINDOW", 7)
        assert np.allclose(encoder.embed_documents(texts[:-1]), expected, atol=1e-6)
        with caplog.at_level(logging.INFO), pytest.warns(TruncationWarning, match="cut to max_length=256"):
            assert encoder.embed_documents(texts).shape == (31, 40)
        assert "1 texts were cut: text 30 has 301 tokens" in caplog.text


def test_numpy_integers_are_whole_numbers(tiny: Path) -> None:
    options = {"max_length": np.int64(32), "token_budget": np.int32(64), "dimensions": np.int64(8)}
    with F2LLMEncoder(tiny, dtype="float32", **options) as encoder:
        assert encoder.embed_documents(["x"]).shape == (1, 8)


@pytest.mark.parametrize("dimensions", [0, -1, 41, 8.0, True, "8"])
def test_dimensions_out_of_range_are_refused(encoder: F2LLMEncoder, dimensions: Any) -> None:
    with pytest.raises(DimensionsError, match="40"):
        encoder.embed_query("x", dimensions=dimensions)


@pytest.mark.parametrize("policy", ["truncate", "warn", "error"])
def test_overlong_texts_under_each_policy(tiny: Path, policy: Any) -> None:
    texts = ["short", "x" * 100, "short", "x" * 100]
    with F2LLMEncoder(tiny, dtype="float32", max_length=16, on_overflow=policy) as encoder:
        if policy == "error":
            with pytest.raises(OverlongTextError, match=r"2 of the texts are too long .text 1 has 101 tokens"):
                encoder.embed_documents(texts)
            assert encoder.truncated_count == 0
            return
        if policy == "warn":
            with pytest.warns(TruncationWarning, match=r"cut to max_length=16 tokens") as caught:
                vectors = encoder.embed_documents(texts)
            assert Path(caught[0].filename).name == Path(__file__).name
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                vectors = encoder.embed_documents(texts)
        assert encoder.truncated_count == 2
        assert np.allclose(vectors[1], encoder.embed_documents(["x" * 15])[0], atol=1e-6)


def test_max_length_beyond_the_positions_is_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match="40960 positions"):
        F2LLMEncoder(tiny, max_length=50_000).embed_query("x")


# -- sharing, threads, async ----------------------------------------------------------------------------------------


def test_encoders_share_one_loaded_model_until_the_last_lets_go(make_checkpoint: Any) -> None:
    folder = make_checkpoint(model="160M", seed=7)
    before = runtime.loaded_count()
    first = F2LLMEncoder(folder, dtype="float32")
    second = F2LLMEncoder(folder, dtype="float32", dimensions=16, task="sts")
    other = F2LLMEncoder(folder, dtype="bfloat16")
    assert runtime.loaded_count() == before
    first.warm_up()
    second.warm_up()
    assert runtime.loaded_count() == before + 1
    other.warm_up()
    assert runtime.loaded_count() == before + 2
    first.close()
    first.close()
    assert second.embed_query("still works").shape == (16,)
    with pytest.raises(EncoderClosedError, match="is closed"):
        first.embed_query("x")
    del second
    other.close()
    assert runtime.loaded_count() == before


def test_an_encoder_that_is_dropped_without_close_frees_its_model(make_checkpoint: Any) -> None:
    before = runtime.loaded_count()
    encoder = F2LLMEncoder(make_checkpoint(model="160M", seed=10), dtype="float32")
    model = weakref.ref(encoder._runtime()._chosen.forward._model)
    assert runtime.loaded_count() == before + 1
    del encoder
    gc.collect()
    assert runtime.loaded_count() == before
    assert model() is None


def test_closing_while_it_works_ends_the_call_with_a_clear_error(
    make_checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = F2LLMEncoder(make_checkpoint(model="160M", seed=11), dtype="float32", token_budget=16)
    encoder.warm_up()
    held = Held(encoder, monkeypatch)
    errors = []

    def work() -> None:
        try:
            encoder.embed_documents([f"text {i}" for i in range(200)])
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    encoder.close()
    held.free()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [EncoderClosedError]


def test_the_model_is_loaded_once_by_racing_threads(make_checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(model="160M", seed=8)
    loads = []
    original = runtime.load_model

    def load(*arguments):
        loads.append(threading.current_thread().name)
        time.sleep(0.2)
        return original(*arguments)

    monkeypatch.setattr(runtime, "load_model", load)
    encoders = [F2LLMEncoder(folder, dtype="float32") for _ in range(6)]
    threads = [threading.Thread(target=encoder.warm_up) for encoder in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    for encoder in encoders:
        encoder.close()


def test_different_models_loaded_at_once_do_not_disturb_each_other(make_checkpoint: Any) -> None:
    folders = [make_checkpoint(model="160M", seed=seed) for seed in (7, 8, 9)]
    default = torch.get_default_dtype()
    expected = {}
    for folder in folders:
        with F2LLMEncoder(folder, dtype="float32") as alone:
            expected[folder] = alone.embed_documents(TEXTS)
    for _ in range(3):
        encoders = [F2LLMEncoder(folder, dtype=dtype) for folder in folders for dtype in ("float32", "bfloat16")]
        results: dict[int, np.ndarray] = {}

        def embed(i: int, encoders: Any = encoders, results: Any = results) -> None:
            results[i] = encoders[i].embed_documents(TEXTS)

        threads = [threading.Thread(target=embed, args=(i,)) for i in range(len(encoders))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, each in enumerate(encoders):
            tolerance = 1e-6 if i % 2 == 0 else 0.05
            assert np.allclose(results[i], expected[folders[i // 2]], atol=tolerance), i
            each.close()
        assert torch.get_default_dtype() == default


def test_a_list_that_changes_meanwhile_does_not_change_the_result(encoder: F2LLMEncoder) -> None:
    texts = [f"text {i}" for i in range(50)]
    expected = encoder.embed_documents(texts)

    async def embed_and_clear() -> np.ndarray:
        coroutine = asyncio.ensure_future(encoder.aembed_documents(texts))
        await asyncio.sleep(0)
        texts.clear()
        return await coroutine

    assert np.allclose(asyncio.run(embed_and_clear()), expected, atol=1e-6)


def test_many_threads_get_right_answers(encoder: F2LLMEncoder) -> None:
    texts = [f"text number {i}" for i in range(32)]
    expected = encoder.embed_documents(texts)
    wrong = []

    def ask(i: int) -> None:
        dimensions = (8, 16, 32)[i % 3]
        if not np.allclose(
            encoder.embed_documents([texts[i]], dimensions=dimensions)[0], truncate(expected[i], dimensions), atol=1e-6
        ):
            wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


async def test_async_twins_equal_the_sync_methods_and_leave_the_loop_free(encoder: F2LLMEncoder) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    many = await encoder.aembed_documents([f"{'word ' * 8}{i}" for i in range(600)])
    ticking.cancel()
    assert many.shape == (600, 40)
    assert ticks > 5
    queries = await asyncio.gather(*(encoder.aembed_query(text) for text in TEXTS * 20))
    assert np.allclose(np.vstack(queries), encoder.embed_queries(TEXTS * 20), atol=1e-6)
    assert np.allclose(await encoder.aembed_queries(TEXTS), encoder.embed_queries(TEXTS), atol=1e-6)


async def test_a_cancelled_call_leaves_the_encoder_usable(encoder: F2LLMEncoder) -> None:
    task = asyncio.create_task(encoder.aembed_documents([f"text {i}" for i in range(500)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await encoder.aembed_query("next")).shape == (40,)


async def test_closing_while_async_calls_wait_is_an_error_and_no_cancellation(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = F2LLMEncoder(tiny, dtype="float32", max_length=256)
    held = Held(encoder, monkeypatch)
    first = asyncio.create_task(encoder.aembed_query("first"))
    await asyncio.to_thread(held.wait)
    tasks = [asyncio.create_task(encoder.aembed_query(f"query {i}")) for i in range(30)]
    await asyncio.sleep(0)
    encoder.close()
    held.free()
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert answers[0].shape == (40,)
    assert {type(answer) for answer in answers[1:]} == {EncoderClosedError}


async def test_async_use_after_close_is_refused(tiny: Path) -> None:
    encoder = F2LLMEncoder(tiny)
    encoder.close()
    with pytest.raises(EncoderClosedError):
        await encoder.aembed_query("x")


def test_a_pickle_holds_the_configuration_only(encoder: F2LLMEncoder) -> None:
    encoder.warm_up()
    stored = pickle.dumps(encoder)
    assert len(stored) < 1000
    with pickle.loads(stored) as copy:
        assert np.allclose(copy.embed_query("x"), encoder.embed_query("x"), atol=1e-6)
        assert copy.contract() == encoder.contract()


def test_it_works_in_other_processes(tiny: Path, tmp_path: Path) -> None:
    """In a program of its own: a pool whose workers die waits for them for ever, and so would all tests."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing
import numpy as np
from f2rag import F2LLMEncoder

def embed(encoder):
    return encoder.embed_query("in a child")

if __name__ == "__main__":
    with F2LLMEncoder({str(tiny)!r}, dtype="float32") as encoder:
        expected = encoder.embed_query("in a child")
        for method in ("spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                found = pool.apply_async(embed, (encoder,)).get(timeout=130)
            assert np.allclose(found, expected, atol=1e-6), method
""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=270)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX systems fork")
def test_a_forked_child_loads_for_itself_and_leaves_the_parents_share_alone(tiny: Path) -> None:
    code = f"""
import asyncio, os, sys
import numpy as np
from f2rag import F2LLMEncoder, runtime
first, second = (F2LLMEncoder({str(tiny)!r}, dtype="float32") for _ in range(2))
expected = first.embed_query("x")
second.warm_up()
child = os.fork()
if child == 0:
    assert runtime.loaded_count() == 0
    assert np.allclose(first.embed_query("x"), expected, atol=1e-6)
    assert np.allclose(asyncio.run(second.aembed_query("x")), expected, atol=1e-6)
    assert runtime.loaded_count() == 1
    first.close()
    assert np.allclose(second.embed_query("x"), expected, atol=1e-6)
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert np.allclose(first.embed_query("x"), expected, atol=1e-6)
sys.exit(0 if status == 7 else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


# -- memory ---------------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_until_it_fits(
    make_checkpoint: Any, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    folder = make_checkpoint(model="160M", seed=9)
    texts = [f"{'word ' * (i % 5)}{i}" for i in range(40)]
    with F2LLMEncoder(folder, dtype="float32", token_budget=1000) as encoder:
        expected = encoder.embed_documents(texts)
        sizes = []

        def short_of_memory(ids) -> None:
            padded = len(ids) * max(map(len, ids))
            if padded > 100:
                message = "CUDA out of memory. Tried to allocate 20.00 MiB"
                raise torch.OutOfMemoryError(message)
            sizes.append(padded)

        wrap_forward(encoder, monkeypatch, short_of_memory)
        assert np.allclose(encoder.embed_documents(texts), expected, atol=1e-6)
        assert max(sizes) <= 100
        assert "ran out of memory" in caplog.text
        caplog.clear()
        encoder.embed_documents([f"{text} again" for text in texts[:5]])
        assert "ran out of memory" not in caplog.text

        wrap_forward(encoder, monkeypatch, _always_out_of_memory)
        with pytest.raises(OutOfMemoryError, match="A single text of 2 tokens"):
            encoder.embed_documents(["x"])


def _always_out_of_memory(ids: Any) -> None:
    message = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
    raise RuntimeError(message)


def test_other_errors_of_the_device_are_not_hidden(encoder: F2LLMEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ids) -> None:
        message = "an illegal instruction"
        raise RuntimeError(message)

    wrap_forward(encoder, monkeypatch, broken)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        encoder.embed_documents(["x"])


def test_warm_up_says_what_runs_where_and_why(encoder: F2LLMEncoder) -> None:
    assert "cpu, float32" in encoder.warm_up()
