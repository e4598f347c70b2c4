"""One regression test for each pain of users that lies in a LlamaIndex wrapper, named after the study's rows."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag.errors import ContractMismatchError, DimensionsError, InputError
from f2rag.prompts import DEFAULT_INSTRUCTION
from f2rag.runtime import loaded_count
from f2rag.testing import FakeEncoder
from llama_index.core import Document
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores.types import VectorStoreQuery

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore, content_id


@pytest.fixture(scope="module")
def bare(tiny: Path) -> F2LLMEmbedding:
    return F2LLMEmbedding(tiny, dtype="float32", instruction="")


def cosine(left: Any, right: Any) -> float:
    return float(np.dot(left, right) / np.linalg.norm(left) / np.linalg.norm(right))


def test_pain_a_the_query_instruction_is_never_erased(tiny: Path, embedding: F2LLMEmbedding) -> None:
    """HuggingFaceEmbedding passes empty prompts for models that it does not know, and erases the saved ones."""
    wanted = F2LLMEmbedding(tiny, dtype="float32", instruction=DEFAULT_INSTRUCTION).get_query_embedding("Wo?")
    assert embedding.get_query_embedding("Wo?") == wanted
    for unset in ({"instruction": None}, {"query_instruction": None}, {"text_instruction": ""}):
        assert F2LLMEmbedding(tiny, dtype="float32", **unset).get_query_embedding("Wo?") == wanted
    assert cosine(wanted, embedding.get_text_embedding("Wo?")) < 0.99
    assert F2LLMEmbedding(tiny, dtype="float32", query_instruction="").get_query_embedding("Wo?") != wanted


def test_pain_b_documents_get_no_instruction_and_both_roles_all_settings(
    embedding: F2LLMEmbedding, bare: F2LLMEmbedding, tiny: Path
) -> None:
    assert embedding.get_text_embedding("Da.") == bare.get_query_embedding("Da.")
    small = F2LLMEmbedding(tiny, dtype="float32", dimensions=16)
    for vector in (small.get_query_embedding("Da."), small.get_text_embedding("Da.")):
        assert len(vector) == 16
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_pain_c_caches_mix_no_roles_and_no_dimensions(tiny: Path, embedding: F2LLMEmbedding) -> None:
    """With the base class's keys, the query gets the document's vector."""
    store = SimpleKVStore()
    cached = F2LLMEmbedding(tiny, dtype="float32", embeddings_cache=store)
    assert cached.get_text_embedding("Paris") == embedding.get_text_embedding("Paris")
    assert cached.get_query_embedding("Paris") == embedding.get_query_embedding("Paris")
    small = F2LLMEmbedding(tiny, dtype="float32", dimensions=16, embeddings_cache=store)
    assert len(small.get_text_embedding("Paris")) == 16
    nodes = [TextNode(text="Paris")]
    assert get_transformation_hash(nodes, small) != get_transformation_hash(nodes, cached)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pain_d_truncated_vectors_have_unit_length(tiny: Path, embedding: F2LLMEmbedding) -> None:
    whole = np.asarray(embedding.get_text_embedding("Da."))
    for dimensions in (1, 7, 16, 32):
        vector = F2LLMEmbedding(tiny, dtype="float32", dimensions=dimensions).get_text_embedding("Da.")
        np.testing.assert_allclose(vector, whole[:dimensions] / np.linalg.norm(whole[:dimensions]), atol=1e-6)


def test_pain_e_impossible_dimensions_are_refused(tiny: Path) -> None:
    for dimensions in (0, -1, 999):
        with pytest.raises(DimensionsError, match="40"):
            F2LLMEmbedding(tiny, dimensions=dimensions)


def test_pain_f_one_long_text_does_not_pad_the_others(tiny: Path, embedding: F2LLMEmbedding) -> None:
    texts = ["short", "long " * 300, "also short"] * 3
    made = F2LLMEmbedding(tiny, dtype="float32", token_budget=64)
    np.testing.assert_allclose(
        made.get_text_embedding_batch(texts), embedding.get_text_embedding_batch(texts), atol=1e-6
    )


def test_pain_g_any_batch_in_any_order_gives_the_single_vector(embedding: F2LLMEmbedding) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(20)]
    single = [embedding.get_text_embedding(text) for text in texts]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = embedding.get_text_embedding_batch([texts[row] for row in order])
    np.testing.assert_allclose(shuffled, np.asarray(single)[order], atol=1e-6)


def test_pain_i_the_template_is_ours_and_a_whole_prompt_is_refused() -> None:
    with pytest.raises(InputError):
        F2LLMEmbedding("80M", query_instruction=f"Instruct: {DEFAULT_INSTRUCTION}\nQuery: ")


def test_pain_j_an_instruction_of_ones_own(embedding: F2LLMEmbedding, tiny: Path) -> None:
    own = F2LLMEmbedding(tiny, dtype="float32", instruction="Find the law that answers the question")
    assert own.get_query_embedding("Wo?") != embedding.get_query_embedding("Wo?")
    assert own.get_text_embedding("Da.") == embedding.get_text_embedding("Da.")


def test_pain_l_threads_may_share_an_embedding(embedding: F2LLMEmbedding) -> None:
    texts = [f"thread {number} " * (number + 1) for number in range(12)]
    wanted = [embedding.get_query_embedding(text) for text in texts]
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        for _ in range(3):
            found[number] = embedding.get_query_embedding(texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose([found[number] for number in range(len(texts))], wanted, atol=1e-6)


async def test_pain_m_the_event_loop_ticks_during_a_large_embed(embedding: F2LLMEmbedding, ticks: Any) -> None:
    embedding.get_text_embedding("loaded")
    texts = [f"{number} " * 60 for number in range(400)]
    vectors, count = await ticks(embedding.aget_text_embedding_batch(texts))
    assert len(vectors) == 400
    assert count >= 3


async def test_pain_m_blocking_calls_inside_a_running_loop_are_fine(embedding: F2LLMEmbedding) -> None:
    assert embedding.get_query_embedding("Wo?") == await embedding.aget_query_embedding("Wo?")


async def test_pain_m_encoders_without_asynchronous_methods_do_not_block(ticks: Any) -> None:
    class Slow(FakeEncoder):
        def embed_documents(self, texts: Any, *, dimensions: int | None = None) -> Any:
            time.sleep(0.05)
            return super().embed_documents(texts, dimensions=dimensions)

    _, count = await ticks(F2LLMEmbedding.from_encoder(Slow()).aget_text_embedding_batch(["a"]))
    assert count >= 1


def test_pain_n_pickles_hold_the_settings_and_load_again(embedding: F2LLMEmbedding) -> None:
    """HuggingFaceEmbedding pickles the weights, several times over."""
    wanted = embedding.get_query_embedding("Wo?")
    pickled = pickle.dumps(embedding)
    assert len(pickled) < 2_000
    assert pickle.loads(pickled).get_query_embedding("Wo?") == wanted


def test_pain_o_pools_are_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="One worker"):
        F2LLMEmbedding("80M", parallel_process=True)


def test_pain_p_to_dict_round_trips_and_inherited_arguments_are_taken(tiny: Path) -> None:
    """HuggingFaceEmbedding raises ``TypeError`` in ``from_dict(to_dict())``."""
    made = F2LLMEmbedding(tiny, num_workers=2, embeddings_cache=SimpleKVStore())
    back = F2LLMEmbedding.from_dict(made.to_dict())
    assert back.to_dict() == made.to_dict()


def test_pain_q_errors_are_not_retried(embedding: F2LLMEmbedding) -> None:
    """HuggingFaceEmbedding tries bad input three times, seconds apart."""
    encoder = FakeEncoder()
    encoder.close()
    calls = []
    made = F2LLMEmbedding.from_encoder(encoder)
    original = encoder.embed_documents
    encoder.embed_documents = lambda *given, **named: (calls.append(1), original(*given, **named))[1]  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="closed"):
        made.get_text_embedding("a")
    assert calls == [1]


def test_pain_s_the_last_wrapper_frees_the_model(other_tiny: Path) -> None:
    before = loaded_count()
    first, second = F2LLMEmbedding(other_tiny), F2LLMEmbedding(other_tiny, instruction="Find it")
    first.get_query_embedding("a")
    second.get_query_embedding("a")
    assert loaded_count() == before + 1
    first.close()
    first.close()
    assert loaded_count() == before + 1
    second.close()
    assert loaded_count() == before


def test_pain_t_nothing_is_downloaded_where_it_is_not_wanted(tmp_path: Path) -> None:
    made = F2LLMEmbedding("80M", local_files_only=True, cache_folder=tmp_path)
    with pytest.raises(OSError, match="80M"):
        made.get_query_embedding("a")
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_pain_u_newlines_are_kept(embedding: F2LLMEmbedding) -> None:
    assert cosine(embedding.get_text_embedding("a\nb"), embedding.get_text_embedding("a b")) < 0.9999
    assert cosine(embedding.get_query_embedding("a\nb"), embedding.get_query_embedding("a b")) < 0.9999


ANY_IDS = ["plain", "with space/slash", "ünï", "7", "", "5f0c9c9e-0a3f-4c0e-9a59-3a1f3c9f6d11", "x" * 300]


def test_pain_v_any_string_is_an_id(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    nodes = [TextNode(text=f"text {number}", id_=key) for number, key in enumerate(ANY_IDS)]
    assert store.add(fake(nodes)) == ANY_IDS
    assert [node.node_id for node in store.get_nodes(ANY_IDS)] == ANY_IDS
    found = store.query(VectorStoreQuery(query_embedding=fake.get_query_embedding("text"), similarity_top_k=20))
    assert sorted(found.ids or []) == sorted(ANY_IDS)
    store.delete_nodes(["with space/slash", "7"])
    assert store.client.count() == len(ANY_IDS) - 2


def test_pain_w_ingesting_again_makes_no_duplicates(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    splitter = SentenceSplitter(chunk_size=32, chunk_overlap=0, id_func=content_id)
    text = " ".join(f"Sentence number {number} says something." for number in range(20))
    for _ in range(2):  # the documents' own ids are random each time
        nodes = splitter([Document(text=text, metadata={"page": 1}), Document(text="Short.")])
        store.add(fake(nodes))
    assert store.client.count() == len(nodes) > 2
    store.add(nodes)
    assert store.client.count() == len(nodes)


def test_pain_x_another_dimension_is_refused_at_open(tmp_path: Path, tiny: Path, embedding: F2LLMEmbedding) -> None:
    F2LLMVectorStore.open(tmp_path, embed_model=embedding).close()
    with pytest.raises(ContractMismatchError, match="dimensions"):
        F2LLMVectorStore.open(tmp_path, embed_model=F2LLMEmbedding(tiny, dimensions=16))
    with F2LLMVectorStore.open(tmp_path, embed_model=embedding).client as kept:
        assert kept.count() == 0


def test_pain_x_vectors_of_another_width_are_refused_and_nothing_is_written(
    store: F2LLMVectorStore, fake: F2LLMEmbedding
) -> None:
    nodes = [TextNode(text="a", embedding=fake.get_text_embedding("a")), TextNode(text="b", embedding=[1.0, 0.0])]
    with pytest.raises(InputError, match="width"):
        store.add(nodes)
    with pytest.raises(ContractMismatchError, match="64"):
        store.add(nodes[1:])
    assert store.client.count() == 0


def test_pain_y_another_model_of_the_same_width_is_refused(
    tmp_path: Path, tiny: Path, other_tiny: Path, embedding: F2LLMEmbedding
) -> None:
    """The other store for Qdrant takes it without a word."""
    other = F2LLMEmbedding(other_tiny)
    opened = F2LLMVectorStore.open(tmp_path, embed_model=embedding)
    with pytest.raises(ContractMismatchError, match="model"):
        opened.check(other)
    opened.check(F2LLMEmbedding(tiny, instruction="A new instruction is no new model"))
    opened.close()
    with pytest.raises(ContractMismatchError, match="other-f2llm"):
        F2LLMVectorStore.open(tmp_path, embed_model=other)


async def test_pain_aa_the_store_does_not_block_the_event_loop(fake: F2LLMEmbedding, ticks: Any) -> None:
    """The other store for Qdrant needs a second client for that, which shares nothing in memory."""
    opened = F2LLMVectorStore.open(":memory:", embed_model=fake)
    nodes = [TextNode(text=f"text {number}", id_=str(number)) for number in range(600)]
    await fake.acall(nodes)
    ids, count = await ticks(opened.async_add(nodes))
    assert len(ids) == 600
    assert count >= 1
    query = VectorStoreQuery(query_embedding=fake.get_query_embedding("text 7"), similarity_top_k=3)
    answers = await asyncio.gather(*(opened.aquery(query) for _ in range(16)))
    assert all(answer.ids == answers[0].ids for answer in answers)
    opened.close()
