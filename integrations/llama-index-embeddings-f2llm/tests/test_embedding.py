"""Vectors, roles, forms and bad input of F2LLMEmbedding."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
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
    ModelNotFoundError,
    OverlongTextError,
    TextTypeError,
    UnknownModelError,
)
from f2rag.prompts import DEFAULT_INSTRUCTION, TASKS, format_query
from f2rag.runtime import loaded_count
from f2rag.testing import FakeEncoder
from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from llama_index.embeddings.f2llm import F2LLMEmbedding

TEXTS = ["Where can I sleep?", "Das Hotel\nist am See.", "  两端有空格  ", "", " ", "ሰላም", "the quick brown fox " * 20]
LADDER = [8, 16, 32, 40]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    """Sentence-transformers over the same files."""
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(tiny), device="cpu")


def test_bfloat16_is_near(tiny: Path, reference: Any) -> None:
    half = F2LLMEmbedding(str(tiny), dtype="bfloat16")
    queries = np.asarray(half.get_query_embedding_batch(TEXTS))
    documents = np.asarray(half.get_text_embedding_batch(TEXTS))
    assert (queries * reference.encode_query(TEXTS)).sum(axis=1).min() >= 0.999
    assert (documents * reference.encode_document(TEXTS)).sum(axis=1).min() >= 0.999


def test_vectors_equal_sentence_transformers(embedding: F2LLMEmbedding, reference: Any) -> None:
    queries = np.asarray(embedding.get_query_embedding_batch(TEXTS))
    documents = np.asarray(embedding.get_text_embedding_batch(TEXTS))
    np.testing.assert_allclose(queries, reference.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(documents, reference.encode_document(TEXTS), atol=1e-6)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(embedding.get_query_embedding(text), queries[row], atol=1e-6)
        np.testing.assert_allclose(embedding.get_text_embedding(text), documents[row], atol=1e-6)


@pytest.mark.parametrize("dimensions", LADDER)
def test_every_dimension_equals_the_reference(tiny: Path, reference: Any, dimensions: int) -> None:
    made = F2LLMEmbedding(str(tiny), dtype="float32", dimensions=dimensions)
    for role, wanted in (
        (made.get_query_embedding_batch, reference.encode_query(TEXTS)),
        (made.get_text_embedding_batch, reference.encode_document(TEXTS)),
    ):
        wanted = wanted[:, :dimensions] / np.linalg.norm(wanted[:, :dimensions], axis=1, keepdims=True)
        np.testing.assert_allclose(role(TEXTS), wanted, atol=1e-6)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_equals_the_core_and_the_reference(tiny: Path, reference: Any, task: str) -> None:
    encoder = F2LLMEncoder(tiny, dtype="float32", task=task)
    made = F2LLMEmbedding(str(tiny), dtype="float32", task=task)
    np.testing.assert_allclose(made.get_query_embedding_batch(TEXTS), encoder.embed_queries(TEXTS), atol=1e-6)
    np.testing.assert_allclose(made.get_text_embedding_batch(TEXTS), encoder.embed_documents(TEXTS), atol=1e-6)
    prompted = [format_query(text, encoder.instruction) for text in TEXTS]
    np.testing.assert_allclose(made.get_query_embedding_batch(TEXTS), reference.encode(prompted), atol=1e-6)


def test_an_instruction_of_ones_own_and_none(tiny: Path, reference: Any) -> None:
    own = F2LLMEmbedding(str(tiny), dtype="float32", instruction="Find the recipe")
    bare = F2LLMEmbedding(str(tiny), dtype="float32", instruction="")
    np.testing.assert_allclose(
        own.get_query_embedding("soup"), reference.encode("Instruct: Find the recipe\nQuery: soup"), atol=1e-6
    )
    np.testing.assert_allclose(bare.get_query_embedding("soup"), reference.encode("soup"), atol=1e-6)


def test_vectors_are_lists_of_python_floats(embedding: F2LLMEmbedding) -> None:
    for vector in (embedding.get_query_embedding("a"), embedding.get_text_embedding("a")):
        assert type(vector) is list
        assert {type(value) for value in vector} == {float}
    assert embedding.get_text_embedding_batch([]) == []
    assert embedding.get_query_embedding_batch([]) == []


async def test_async_equals_sync(embedding: F2LLMEmbedding) -> None:
    assert await embedding.aget_query_embedding("Wo?") == embedding.get_query_embedding("Wo?")
    assert await embedding.aget_text_embedding("Da.") == embedding.get_text_embedding("Da.")
    np.testing.assert_allclose(
        await embedding.aget_text_embedding_batch(TEXTS), embedding.get_text_embedding_batch(TEXTS), atol=1e-6
    )
    np.testing.assert_allclose(
        await embedding.aget_query_embedding_batch(TEXTS), embedding.get_query_embedding_batch(TEXTS), atol=1e-6
    )
    np.testing.assert_allclose(
        await embedding.aget_agg_embedding_from_queries(TEXTS[:2]),
        np.mean([embedding.get_query_embedding(text) for text in TEXTS[:2]], axis=0),
        atol=1e-6,
    )
    assert embedding.get_agg_embedding_from_queries(["Wo?"]) == embedding.get_query_embedding("Wo?")


async def test_a_batch_is_one_call() -> None:
    """LlamaIndex's base class gathers one call per text."""
    encoder = FakeEncoder()
    made = F2LLMEmbedding.from_encoder(encoder)
    assert made.embed_batch_size == 2048
    await made.aget_text_embedding_batch(["text"] * 100)
    made.get_text_embedding_batch(["text"] * 100)
    made([TextNode(text="one"), TextNode(text="two")])
    await made.acall([TextNode(text="one")])
    assert encoder.document_calls == [100, 100, 2, 1]


async def test_num_workers_and_small_batches_change_nothing(tiny: Path, embedding: F2LLMEmbedding) -> None:
    made = F2LLMEmbedding(str(tiny), dtype="float32", num_workers=2, embed_batch_size=2)
    texts = [f"text {number}" for number in range(9)]
    for show_progress in (False, True):
        np.testing.assert_allclose(
            await made.aget_text_embedding_batch(texts, show_progress=show_progress),
            embedding.get_text_embedding_batch(texts),
            atol=1e-6,
        )


def test_nodes_are_embedded_with_their_metadata_lines(embedding: F2LLMEmbedding) -> None:
    nodes = [TextNode(text="body", metadata={"title": "head"}), TextNode(text="body")]
    nodes[1].metadata = {"title": "head"}
    nodes[1].excluded_embed_metadata_keys = ["title"]
    embedding(nodes)
    assert nodes[0].embedding == pytest.approx(embedding.get_text_embedding("title: head\n\nbody"), abs=1e-6)
    assert nodes[1].embedding == pytest.approx(embedding.get_text_embedding("body"), abs=1e-6)


# -- forms --------------------------------------------------------------------------------------------------------


def test_construction_reads_nothing_and_wrappers_share_one_model(tiny: Path) -> None:
    before = loaded_count()
    made = [F2LLMEmbedding("8B"), F2LLMEmbedding("80M", dimensions=64)]
    assert loaded_count() == before
    assert made[1].to_payload()["dimensions"] == 64
    first, second = F2LLMEmbedding(tiny, dtype="float32"), F2LLMEmbedding(tiny, dtype="float32", instruction="Find it")
    first.get_query_embedding("a")
    loaded = loaded_count()
    assert second.get_query_embedding("a") != first.get_query_embedding("a")
    assert loaded_count() == loaded
    first.close()
    with pytest.raises(EncoderClosedError):
        first.get_query_embedding("a")
    assert len(second.get_query_embedding("a")) == 40


FORMS = [
    lambda made: F2LLMEmbedding.from_dict(made.to_dict()),
    lambda made: F2LLMEmbedding.from_json(made.to_json()),
    lambda made: F2LLMEmbedding.model_validate_json(made.model_dump_json()),
    lambda made: F2LLMEmbedding(**made.to_dict()),
    lambda made: pickle.loads(pickle.dumps(made)),
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("form", FORMS)
def test_round_trips_keep_the_settings_and_the_vectors(tiny: Path, form: Any) -> None:
    made = F2LLMEmbedding(
        tiny, dtype="float32", dimensions=32, instruction="Find it", max_length=64, on_overflow="truncate",
        token_budget=512, num_workers=2, embed_batch_size=7, local_files_only=True, cache_folder=tiny,
    )  # fmt: skip
    wanted = made.get_query_embedding("a")
    back = form(made)
    assert type(back) is F2LLMEmbedding
    assert back.to_dict() == made.to_dict()
    assert back.get_query_embedding("a") == wanted


def test_a_pickle_holds_no_weights(embedding: F2LLMEmbedding) -> None:
    embedding.get_query_embedding("loaded")
    assert len(pickle.dumps(embedding)) < 2_000


def test_serialised_forms_hold_every_setting_and_nothing_else(embedding: F2LLMEmbedding) -> None:
    data = json.loads(embedding.to_json())
    assert data["class_name"] == F2LLMEmbedding.class_name() == "F2LLMEmbedding"
    assert set(data) == {
        "class_name", "cache_folder", "device", "dimensions", "dtype", "embed_batch_size", "fingerprint", "instruction",
        "local_files_only", "max_length", "model_name", "num_workers", "on_overflow", "revision", "task",
        "token_budget", "weight_dtype",
    }  # fmt: skip


def test_a_model_that_is_not_here_yet_serialises_without_its_fingerprint(tmp_path: Path) -> None:
    made = F2LLMEmbedding("someone/unheard-of", local_files_only=True, cache_folder=tmp_path)
    assert "fingerprint" not in made.to_dict()


@pytest.mark.parametrize("name", ["dimensions", "instruction", "task", "model_name", "max_length", "dtype"])
def test_what_decides_a_vector_cannot_be_changed_afterwards(embedding: F2LLMEmbedding, name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(embedding, name, None)


def test_from_encoder(tiny: Path, embedding: F2LLMEmbedding) -> None:
    encoder = F2LLMEncoder(tiny, dtype="float32", dimensions=16, task="sts")
    made = F2LLMEmbedding.from_encoder(encoder, embed_batch_size=3)
    assert (made.dimensions, made.task, made.embed_batch_size) == (16, "sts", 3)
    assert made.get_query_embedding("a") == encoder.embed_query("a").tolist()
    assert (
        F2LLMEmbedding.from_dict(made.to_dict()).get_text_embedding("a") == encoder.embed_documents(["a"])[0].tolist()
    )
    assert pickle.loads(pickle.dumps(made)).task == "sts"
    made.close()
    assert encoder.embed_query("still open").shape == (16,)


def test_an_encoder_of_another_kind_travels_with_its_pickle() -> None:
    made = F2LLMEmbedding.from_encoder(PicklableEncoder(dimensions=8))
    back = pickle.loads(pickle.dumps(made))
    assert back.get_query_embedding("a") == made.get_query_embedding("a")
    with pytest.raises(UnknownModelError):
        F2LLMEmbedding.from_dict(made.to_dict())


class PicklableEncoder(FakeEncoder):
    def __reduce__(self) -> Any:
        return PicklableEncoder._again, (self.dimensions,)

    @staticmethod
    def _again(dimensions: int) -> PicklableEncoder:
        return PicklableEncoder(dimensions=dimensions)


@pytest.mark.parametrize("settings", [{"dimensions": 8}, {"task": "sts"}, {"model_name": "80M"}])
def test_from_encoder_refuses_what_the_encoder_decides(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        F2LLMEmbedding.from_encoder(FakeEncoder(), **settings)
    with pytest.raises(InputError, match="takes an encoder"):
        F2LLMEmbedding.from_encoder("0.6B")  # type: ignore[arg-type]


def test_settings_embed_model(fake: F2LLMEmbedding) -> None:
    manager = CallbackManager([])
    before = Settings._embed_model
    try:
        Settings.embed_model = fake
        assert Settings.embed_model is fake
        assert Settings.embed_model.callback_manager is Settings.callback_manager
        fake.callback_manager = manager
        assert fake.callback_manager is manager
    finally:
        Settings._embed_model = before
    assert BaseEmbedding in F2LLMEmbedding.__mro__


# -- observers ----------------------------------------------------------------------------------------------------


async def test_events_and_callbacks_are_fired_and_tell_no_secret(tiny: Path) -> None:
    seen: list[Any] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    made = F2LLMEmbedding(tiny, instruction="Only for insiders", callback_manager=CallbackManager([debug]))
    handler, root = Handler(), get_dispatcher()
    root.add_event_handler(handler)
    try:
        made.get_query_embedding("a")
        await made.aget_query_embedding("a")
        made.get_text_embedding("a")
        await made.aget_text_embedding("a")
        made.get_text_embedding_batch(["a", "b"])
        await made.aget_text_embedding_batch(["a", "b"])
        made.get_query_embedding_batch(["a", "b"])
        await made.aget_query_embedding_batch(["a", "b"])
    finally:
        root.event_handlers.remove(handler)
    starts = [event for event in seen if isinstance(event, EmbeddingStartEvent)]
    ends = [event for event in seen if isinstance(event, EmbeddingEndEvent)]
    assert len(starts) == len(ends) == 8
    assert [len(event.chunks) for event in ends] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert all(len(event.chunks) == len(event.embeddings) for event in ends)
    assert len(debug.get_event_pairs(CBEventType.EMBEDDING)) == 8
    told = json.dumps(made.to_payload())
    assert starts[0].model_dict == made.to_payload()
    assert "insiders" not in told
    assert str(tiny.parent) not in told
    assert made.to_payload()["model_name"] == "tiny-f2llm"


# -- many callers -------------------------------------------------------------------------------------------------


async def test_64_callers_get_their_own_vectors(embedding: F2LLMEmbedding) -> None:
    texts = [f"caller {number} " * (number % 5 + 1) for number in range(32)]
    vectors = await asyncio.gather(
        *(embedding.aget_query_embedding(text) for text in texts),
        *(embedding.aget_text_embedding(text) for text in texts),
    )
    np.testing.assert_allclose(vectors[:32], embedding.get_query_embedding_batch(texts), atol=1e-6)
    np.testing.assert_allclose(vectors[32:], embedding.get_text_embedding_batch(texts), atol=1e-6)


async def test_a_cancelled_caller_harms_nobody(embedding: F2LLMEmbedding) -> None:
    texts = [f"{number} " * 40 for number in range(200)]
    task = asyncio.create_task(embedding.aget_text_embedding_batch(texts))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await embedding.aget_query_embedding("next") == embedding.get_query_embedding("next")


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [0, -1, 41, 10**9])
def test_an_impossible_dimension_is_refused_at_once(tiny: Path, dimensions: int) -> None:
    """HuggingFaceEmbedding slices silently to whatever is there."""
    with pytest.raises(DimensionsError):
        F2LLMEmbedding(tiny, dimensions=dimensions)
    with pytest.raises(DimensionsError):
        F2LLMEmbedding("80M", dimensions=dimensions * 10)


@pytest.mark.parametrize(
    "settings",
    [{"dimensions": "64"}, {"dimensions": True}, {"max_length": 5.5}, {"on_overflow": "explode"}, {"device": 3}],
)
def test_arguments_of_a_wrong_type(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        F2LLMEmbedding("80M", **settings)


def test_a_dimension_off_the_ladder_warns() -> None:
    with pytest.warns(UserWarning, match="100"):
        F2LLMEmbedding("80M", dimensions=100)


def test_unknown_models_are_refused_with_near_matches(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="80M"):
        F2LLMEmbedding("F2LLM-v2-88M")
    with pytest.raises(ModelNotFoundError):
        F2LLMEmbedding(tmp_path / "absent")


@pytest.mark.parametrize("wrong", [["a list"], None, 3, b"bytes"])
async def test_something_else_than_one_string(embedding: F2LLMEmbedding, wrong: Any) -> None:
    for method in (embedding.get_query_embedding, embedding.get_text_embedding):
        with pytest.raises(TextTypeError):
            method(wrong)
    for method in (embedding.aget_query_embedding, embedding.aget_text_embedding):
        with pytest.raises(TextTypeError):
            await method(wrong)


@pytest.mark.parametrize("wrong", ["one string", None, 3, ["a", None], [["a"]]])
async def test_something_else_than_strings(embedding: F2LLMEmbedding, wrong: Any) -> None:
    """HuggingFaceEmbedding embeds the letters of a string."""
    for method in (embedding.get_text_embedding_batch, embedding.get_query_embedding_batch):
        with pytest.raises(TextTypeError):
            method(wrong)
    for method in (embedding.aget_text_embedding_batch, embedding.aget_query_embedding_batch):
        with pytest.raises(TextTypeError):
            await method(wrong)


def test_a_generator_is_taken(embedding: F2LLMEmbedding) -> None:
    """HuggingFaceEmbedding raises ``TypeError`` after it has consumed the generator."""
    made = embedding.get_text_embedding_batch(text for text in TEXTS)
    np.testing.assert_allclose(made, embedding.get_text_embedding_batch(TEXTS), atol=1e-6)


@pytest.mark.parametrize("text", ["half \ud83d", "\udc00"])
def test_lone_surrogates_are_refused(embedding: F2LLMEmbedding, text: str) -> None:
    with pytest.raises(InputError):
        embedding.get_query_embedding(text)
    with pytest.raises(InputError):
        embedding.get_text_embedding_batch(["fine", text])


def test_control_characters_and_a_huge_text_have_a_vector(tiny: Path) -> None:
    made = F2LLMEmbedding(tiny, max_length=64, dtype="float32")
    assert np.linalg.norm(made.get_text_embedding("\0\x07\x1b[0m\u202e")) == pytest.approx(1, abs=1e-5)
    huge = "word " * 200_000
    with pytest.warns(TruncationWarning):
        vector = made.get_text_embedding(huge)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(OverlongTextError):
        F2LLMEmbedding(tiny, max_length=64, dtype="float32", on_overflow="error").get_text_embedding(huge)


# -- habits -------------------------------------------------------------------------------------------------------


def test_habitual_names_are_honoured(tiny: Path) -> None:
    made = F2LLMEmbedding(
        model=str(tiny), truncate_dim=32, query_instruction="Find it", text_instruction="", normalize=True,
        show_progress_bar=False, trust_remote_code=False, parallel_process=False, target_devices=None, batch_size=5,
        model_kwargs={"torch_dtype": "torch.float32", "local_files_only": True},
    )  # fmt: skip
    assert made.model_dump(include={"dimensions", "instruction", "dtype", "local_files_only", "embed_batch_size"}) == {
        "class_name": "F2LLMEmbedding", "dimensions": 32, "instruction": "Find it", "dtype": "float32",
        "local_files_only": True, "embed_batch_size": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"text_instruction": "passage: "}, "task="),
        ({"normalize": False}, "unit length"),
        ({"show_progress_bar": True}, "show_progress=True"),
        ({"trust_remote_code": True}, "leave it out"),
        ({"parallel_process": True}, "One worker"),
        ({"target_devices": ["cpu"]}, "device="),
        ({"pooling": "mean"}, "last token"),
        ({"prompts": {"query": "x"}}, "instruction="),
        ({"model_kwargs": {"attn_implementation": "eager"}}, "attn_implementation"),
        ({"model_kwargs": 3}, "dictionary"),
        ({"dimension": 64}, "Did you mean dimensions"),
        ({"qwerty": 1}, "It takes"),
        ({"model": "80M", "model_name": "0.6B"}, "twice"),
        ({"query_instruction": "a", "instruction": "b"}, "twice"),
        ({"truncate_dim": 64, "output_dimension": 32}, "twice"),
        ({"query_instruction": "Instruct: Find it\nQuery: "}, "sentence|line|template"),
        ({"task": "sts", "instruction": "Find it"}, "one of them"),
        ({"task": "dancing"}, "dancing"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_way_to_go(settings: dict[str, Any], advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        F2LLMEmbedding(**{"model_name": "80M", **settings} if "model" not in settings else settings)


def test_a_path_object_is_a_model(tiny: Path) -> None:
    assert F2LLMEmbedding(tiny).model_name == os.fspath(tiny)
    assert F2LLMEmbedding(tiny).encoder.instruction == DEFAULT_INSTRUCTION
