"""F2LLMEmbeddings: its arguments, roles, arrays, copies and errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag import F2LLMEncoder
from f2rag.encoder import TruncationWarning
from f2rag.errors import (
    DimensionsError,
    EncoderClosedError,
    InputError,
    InstructionError,
    ModelNotFoundError,
    OverlongTextError,
    TextTypeError,
    UnknownModelError,
)
from f2rag.testing import FakeEncoder
from f2rag.vectors import DimensionsWarning
from pydantic import ValidationError

import langchain_f2llm
from langchain_f2llm import F2LLMEmbeddings


class TestArguments:
    def test_none_is_needed(self) -> None:
        assert F2LLMEmbeddings().model_name == "F2LLM-v2-0.6B"
        assert F2LLMEmbeddings().output_dimensions == 1024

    def test_each_reaches_the_encoder(self, tiny: Path) -> None:
        given: dict[str, Any] = {
            "model": str(tiny),
            "revision": None,
            "dimensions": 16,
            "task": "sts",
            "instruction": None,
            "device": "cpu",
            "dtype": "float32",
            "weight_dtype": "int8",
            "max_length": 9,
            "on_overflow": "error",
            "local_files_only": True,
            "cache_folder": "somewhere",
            "token_budget": 77,
        }
        embeddings = F2LLMEmbeddings(**given)
        assert isinstance(embeddings.encoder, F2LLMEncoder)
        assert embeddings.encoder.__getstate__()["options"] == F2LLMEncoder(**given).__getstate__()["options"]

    def test_names_equal_the_encoders(self) -> None:
        import inspect

        assert set(F2LLMEmbeddings.model_fields) == {*inspect.signature(F2LLMEncoder).parameters, "show_progress"}

    def test_a_path_is_a_model(self, tiny: Path) -> None:
        assert F2LLMEmbeddings(model=tiny).model == str(tiny)

    @pytest.mark.parametrize("size", [0, -1, 41, 10**9])
    def test_an_impossible_size_is_refused_at_once(self, tiny: Path, size: int) -> None:
        with pytest.raises(DimensionsError, match=str(size)):
            F2LLMEmbeddings(model=tiny, dimensions=size)

    @pytest.mark.parametrize("size", [0, -5, 1025])
    def test_of_a_known_model_without_a_file(self, size: int) -> None:
        with pytest.raises(DimensionsError, match=str(size)):
            F2LLMEmbeddings(model="0.6B", dimensions=size)

    @pytest.mark.parametrize("size", ["64", 64.0, True])
    def test_a_size_is_a_whole_number(self, size: Any) -> None:
        with pytest.raises(ValidationError, match="dimensions"):
            F2LLMEmbeddings(dimensions=size)

    def test_off_the_ladder_warns(self) -> None:
        with pytest.warns(DimensionsWarning, match="100"):
            assert F2LLMEmbeddings(model="80M", dimensions=100).output_dimensions == 100

    def test_an_unknown_model_lists_near_ones(self) -> None:
        with pytest.raises(UnknownModelError, match=r"F2LLM-v2-0\.6B"):
            F2LLMEmbeddings(model="F2LLM-v2-0.6")

    def test_an_absent_folder_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="does not exist"):
            F2LLMEmbeddings(model=tmp_path / "gone")

    def test_task_and_instruction_exclude_each_other(self) -> None:
        with pytest.raises(InputError, match="give one of them"):
            F2LLMEmbeddings(task="sts", instruction="Find.")

    def test_an_unknown_task(self) -> None:
        with pytest.raises(InstructionError):
            F2LLMEmbeddings(task="stss")

    def test_construction_reads_no_weights_and_imports_no_torch(self) -> None:
        code = (
            "import sys, langchain_f2llm as l; e = l.F2LLMEmbeddings(); e.contract(); e.cache_namespace('query');"
            "l.F2LLMVectorStore(e); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestHabits:
    @pytest.mark.parametrize(
        ("typed", "field", "value"),
        [
            ({"model_name": "80M"}, "model", "80M"),
            ({"model": "80M", "model_name": "80M"}, "model", "80M"),
            ({"truncate_dim": 64}, "dimensions", 64),
            ({"model_kwargs": {"truncate_dim": 64}}, "dimensions", 64),
            ({"model_kwargs": {"device": "cpu", "revision": "abc"}}, "revision", "abc"),
            ({"model_kwargs": {"model_kwargs": {"torch_dtype": "bfloat16"}}}, "dtype", "bfloat16"),
            ({"model_kwargs": {"trust_remote_code": False}}, "device", None),
            ({"encode_kwargs": {"normalize_embeddings": True}}, "model", "0.6B"),
            ({"encode_kwargs": {}, "query_encode_kwargs": {}}, "model", "0.6B"),
            ({"multi_process": False}, "model", "0.6B"),
            ({"query_instruction": "Find it."}, "instruction", "Find it."),
            ({"max_seq_length": 99}, "max_length", 99),
        ],
    )
    def test_honoured(self, typed: dict[str, Any], field: str, value: Any) -> None:
        assert getattr(F2LLMEmbeddings(**typed), field) == value

    def test_a_torch_dtype_is_honoured(self) -> None:
        import torch

        assert F2LLMEmbeddings(model_kwargs={"torch_dtype": torch.bfloat16}).dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("typed", "hint"),
        [
            ({"encode_kwargs": {"batch_size": 8}}, "token_budget="),
            ({"encode_kwargs": {"normalize_embeddings": False}}, "unit length"),
            ({"encode_kwargs": {"prompt": "x"}}, "dimensions="),
            ({"query_encode_kwargs": {"prompt": "x"}}, "instruction="),
            ({"multi_process": True}, "One worker"),
            ({"batch_size": 8}, "token_budget="),
            ({"embed_instruction": "x"}, "task="),
            ({"prompts": {"query": "x"}}, "instruction="),
            ({"trust_remote_code": True}, "no code"),
            ({"model_kwargs": {"attn_implementation": "eager"}}, "device"),
            ({"model_kwargs": {"trust_remote_code": True}}, "no code"),
            ({"model_kwargs": "cpu"}, "dictionary"),
            ({"dimension": 64}, "Did you mean dimensions"),
            ({"frobnicate": 1}, "It takes cache_folder"),
            ({"model": "80M", "model_name": "4B"}, "give model once"),
            ({"device": "cuda", "model_kwargs": {"device": "cpu"}}, "give device once"),
        ],
    )
    def test_refused_with_what_to_use_instead(self, typed: dict[str, Any], hint: str) -> None:
        with pytest.raises(InputError, match=hint):
            F2LLMEmbeddings(**typed)


class TestCalls:
    def test_lists_of_python_floats(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        for vector in (
            tiny_embeddings.embed_query("a"),
            *tiny_embeddings.embed_queries(["a", "b"]),
            *tiny_embeddings.embed_documents(["a", "b"]),
        ):
            assert type(vector) is list
            assert {type(number) for number in vector} == {float}
            assert len(vector) == 40

    def test_nothing_in_nothing_out(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        assert tiny_embeddings.embed_documents([]) == []
        assert tiny_embeddings.embed_queries([]) == []
        assert tiny_embeddings.embed_documents_array([]).shape == (0, 40)

    def test_queries_equal_single_queries(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        texts = ["one", "two words", "three more words"]
        rows = tiny_embeddings.embed_queries_array(texts)
        for text, row in zip(texts, rows, strict=True):
            np.testing.assert_allclose(tiny_embeddings.embed_query_array(text), row, atol=1e-6)

    async def test_async_equals_sync(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        texts = ["one", "two words"]
        e = tiny_embeddings
        np.testing.assert_allclose(await e.aembed_query("one"), e.embed_query("one"), atol=1e-6)
        np.testing.assert_allclose(await e.aembed_queries(texts), e.embed_queries(texts), atol=1e-6)
        np.testing.assert_allclose(await e.aembed_documents(texts), e.embed_documents(texts), atol=1e-6)
        assert await e.aembed_documents([]) == []

    async def test_dimension_and_instruction_per_call(self, tiny_embeddings: F2LLMEmbeddings, tiny: Path) -> None:
        e = tiny_embeddings
        other = F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32", dimensions=16, instruction="Other.")
        options: dict[str, Any] = {"dimensions": 16, "instruction": "Other."}
        np.testing.assert_allclose(e.embed_query("a", **options), other.embed_query("a"), atol=1e-6)
        np.testing.assert_allclose(e.embed_queries(["a"], **options), other.embed_queries(["a"]), atol=1e-6)
        np.testing.assert_allclose(await e.aembed_query("a", **options), other.embed_query("a"), atol=1e-6)
        np.testing.assert_allclose(await e.aembed_queries(["a"], **options), [other.embed_query("a")], atol=1e-6)
        np.testing.assert_allclose(e.embed_documents(["a"], dimensions=16), other.embed_documents(["a"]), atol=1e-6)
        assert len(other.embed_query("a", dimensions=32)) == 32
        assert other.embed_query("a") != other.embed_query("a", instruction="")

    @pytest.mark.parametrize("columns", [(text for text in ["a", "b"]), np.array(["a", "b"]), ("a", "b")])
    def test_streams_and_columns_are_read(self, embeddings: F2LLMEmbeddings, columns: Any) -> None:
        assert embeddings.embed_documents(columns) == embeddings.embed_documents(["a", "b"])

    def test_progress_shows_and_changes_nothing(
        self, tiny: Path, tiny_embeddings: F2LLMEmbeddings, capsys: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("langchain_f2llm.embeddings.PROGRESS_WINDOW", 4)
        texts = [f"text {n}" * (n % 5) for n in range(10)]
        shown = F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32", show_progress=True)
        rows = shown.embed_documents_array(texts)
        np.testing.assert_allclose(rows, tiny_embeddings.embed_documents_array(texts), atol=1e-6)
        assert "10/10" in capsys.readouterr().err

    async def test_progress_shows_when_async_too(self, embeddings: F2LLMEmbeddings, capsys: Any) -> None:
        shown = embeddings.model_copy(update={"show_progress": True})
        assert await shown.aembed_documents(["a", "b"]) == embeddings.embed_documents(["a", "b"])
        assert "2/2" in capsys.readouterr().err
        assert shown.embed_documents([]) == []


class TestBadInput:
    @pytest.mark.parametrize("text", [["a"], None, 3, b"a"])
    async def test_a_query_is_one_string(self, embeddings: F2LLMEmbeddings, text: Any) -> None:
        with pytest.raises(TextTypeError, match="embed_query takes one string"):
            embeddings.embed_query(text)
        with pytest.raises(TextTypeError, match="embed_query takes one string"):
            await embeddings.aembed_query(text)

    @pytest.mark.parametrize("texts", ["one string", None, 3, {"a": 1}, {"a"}, ["a", None], ["a", 3], b"ab"])
    async def test_documents_are_several_strings(self, embeddings: F2LLMEmbeddings, texts: Any) -> None:
        for method in (embeddings.embed_documents, embeddings.embed_queries):
            with pytest.raises(TextTypeError):
                method(texts)
        for coroutine in (embeddings.aembed_documents, embeddings.aembed_queries):
            with pytest.raises(TextTypeError):
                await coroutine(texts)

    def test_the_wrong_item_is_named(self, embeddings: F2LLMEmbeddings) -> None:
        with pytest.raises(TextTypeError, match="Item 2 "):
            embeddings.embed_documents(["a", "b", None])  # type: ignore[list-item]

    @pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00\x07", "\u200b", "a\u0301", "🤖" * 50])
    def test_odd_texts_have_unit_vectors(self, tiny_embeddings: F2LLMEmbeddings, text: str) -> None:
        query = tiny_embeddings.embed_query_array(text)
        document = tiny_embeddings.embed_documents_array([text])[0]
        for vector in (query, document):
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_half_a_surrogate_pair_is_refused(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        with pytest.raises(InputError):
            tiny_embeddings.embed_query("a\ud800")
        with pytest.raises(InputError):
            tiny_embeddings.embed_documents(["fine", "a\ud800"])

    def test_a_megabyte_is_cut_and_said(self, tiny: Path) -> None:
        text = "word " * 200_000
        e = F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32", max_length=32)
        with pytest.warns(TruncationWarning, match="cut to max_length=32"):
            vector = e.embed_documents_array([text])[0]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        with pytest.raises(OverlongTextError, match="Split"):
            e.model_copy(update={"on_overflow": "error"}).embed_documents([text])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            e.model_copy(update={"on_overflow": "truncate"}).embed_documents([text])


class TestCopies:
    def test_settings_cannot_change_behind_the_encoder(self, tiny: Path) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            F2LLMEmbeddings(model=tiny).dimensions = 16  # type: ignore[misc]

    def test_a_changed_copy_is_checked_and_changed(self, tiny: Path) -> None:
        e = F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32")
        assert len(e.model_copy(update={"dimensions": 16}).embed_query("a")) == 16
        with pytest.raises(DimensionsError):
            e.model_copy(update={"dimensions": 99})
        assert e.model_copy().embed_query("a") == e.embed_query("a")
        assert e.model_copy(deep=True).embed_query("a") == e.embed_query("a")

    def test_a_copy_of_a_given_encoder(self, embeddings: F2LLMEmbeddings, fake_encoder: FakeEncoder) -> None:
        smaller = embeddings.model_copy(update={"dimensions": 16, "instruction": "Other."})
        assert smaller.encoder is fake_encoder
        expected = fake_encoder.embed_query("a", dimensions=16, instruction="Other.").tolist()
        assert smaller.embed_query("a") == expected
        with pytest.raises(InputError, match="model cannot change"):
            embeddings.model_copy(update={"model": "80M"})

    def test_settings_make_an_equal_object(self, tiny: Path) -> None:
        e = F2LLMEmbeddings(model=tiny, dimensions=16, task="sts", device="cpu", dtype="float32")
        again = F2LLMEmbeddings.model_validate_json(e.model_dump_json())
        assert again.model_dump() == e.model_dump()
        assert again.embed_query("a") == e.embed_query("a")
        assert F2LLMEmbeddings(**e.model_dump()).cache_namespace() == e.cache_namespace()

    def test_a_pickle_works(self, tiny: Path) -> None:
        e = F2LLMEmbeddings(model=tiny, dimensions=16, device="cpu", dtype="float32")
        vector = e.embed_query("a")
        assert pickle.loads(pickle.dumps(e)).embed_query("a") == vector


class TestGivenEncoder:
    def test_it_stays_its_owners(self, embeddings: F2LLMEmbeddings, fake_encoder: FakeEncoder) -> None:
        with embeddings:
            embeddings.warm_up()
        assert fake_encoder.embed_query("still open").shape == (64,)

    def test_our_own_is_closed(self, tiny: Path) -> None:
        with F2LLMEmbeddings(model=tiny, device="cpu", dtype="float32") as e:
            e.warm_up()
        with pytest.raises(EncoderClosedError):
            e.embed_query("a")

    def test_size_and_instruction(self, fake_encoder: FakeEncoder) -> None:
        e = F2LLMEmbeddings.from_encoder(fake_encoder, dimensions=16, instruction="Other.")
        assert e.output_dimensions == e.contract().dimensions == 16
        assert F2LLMEmbeddings.from_encoder(fake_encoder).output_dimensions == 64
        with pytest.raises(DimensionsError):
            F2LLMEmbeddings.from_encoder(fake_encoder, dimensions=65)

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(InputError, match="takes an encoder"):
            F2LLMEmbeddings.from_encoder("80M")  # type: ignore[arg-type]


def test_public_names_are_frozen() -> None:
    import f2rag

    assert langchain_f2llm.__all__ == ["F2LLMEmbeddings", "F2LLMRetriever", "F2LLMVectorStore", "__version__"]
    assert langchain_f2llm.__version__ == f2rag.__version__
