"""One regression test for each pain that users of the peers reported, by its letter in the project's list.

Letters that are missing lie below the wrapper, in the core's own tests: G and H (pooling, EOS) are held here only
through equality with sentence-transformers; AB is about fusion, which this store does not do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag import runtime
from f2rag.errors import (
    ContractMismatchError,
    DimensionsError,
    InputError,
    ModelNotFoundError,
    TextTypeError,
)
from f2rag.prompts import DEFAULT_INSTRUCTION, format_query
from f2rag.testing import FakeEncoder
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.stores import InMemoryByteStore

from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore

TEXTS = ["a red house", "the blue sea", "كل الناس", "人人生而自由", ""]


def model(folder: Path, **options: Any) -> F2LLMEmbeddings:
    return F2LLMEmbeddings(model=folder, device="cpu", **{"dtype": "float32", **options})


def equal(left: Any, right: Any) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= 1e-6)


class CountingEncoder(FakeEncoder):
    """Counts what reaches the model."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0

    def embed_queries(self, texts: Any, **options: Any) -> Any:
        self.calls += 1
        return super().embed_queries(texts, **options)

    def embed_documents(self, texts: Any, **options: Any) -> Any:
        self.calls += 1
        return super().embed_documents(texts, **options)


class TestPrompts:
    def test_pain_A_the_models_query_prompt_is_used_by_default(self, tiny: Path) -> None:
        bare = model(tiny, instruction="")
        prompted = [format_query(text, DEFAULT_INSTRUCTION) for text in TEXTS]
        mine = model(tiny).embed_queries(TEXTS)
        assert equal(mine, bare.embed_documents(prompted))
        assert not equal(mine, bare.embed_queries(TEXTS))  # unset is not empty

    def test_pain_A_langchain_huggingface_erases_it(self, tiny: Path) -> None:
        """The peer, so that this comparison does not outlive its reason."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from langchain_huggingface import HuggingFaceEmbeddings

            peer = HuggingFaceEmbeddings(model_name=str(tiny), model_kwargs={"device": "cpu"})
            assert equal(peer.embed_query("a"), peer.embed_documents(["a"])[0])
        assert not equal(peer.embed_query("a"), model(tiny).embed_query("a"))
        assert equal(peer.embed_documents(["a"]), model(tiny).embed_documents(["a"]))

    def test_pain_B_settings_reach_both_sides_and_the_instruction_only_one(self, tiny: Path) -> None:
        plain, mine = model(tiny), model(tiny, instruction="Another.", dimensions=16)
        assert equal(mine.embed_documents(TEXTS), plain.embed_documents(TEXTS, dimensions=16))
        assert not equal(mine.embed_queries(TEXTS), plain.embed_queries(TEXTS, dimensions=16))
        for rows in (mine.embed_queries(TEXTS), mine.embed_documents(TEXTS)):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)

    def test_pain_I_the_templates_white_space_survives(self, tiny: Path) -> None:
        bare = model(tiny, instruction="")
        for text in (" leading", "trailing ", "\nline", "  "):
            expected = bare.embed_documents([f"Instruct: {DEFAULT_INSTRUCTION}\nQuery: {text}"])[0]
            assert equal(model(tiny).embed_query(text), expected)

    def test_pain_J_users_have_their_own_instruction(self, tiny: Path) -> None:
        sentence = "Given a complaint, find the rule it is about."
        assert equal(
            model(tiny, instruction=sentence).embed_query("a"), model(tiny).embed_query("a", instruction=sentence)
        )
        assert not equal(model(tiny, instruction=sentence).embed_query("a"), model(tiny).embed_query("a"))

    def test_pain_U_newlines_stay(self, tiny: Path) -> None:
        one, two = model(tiny).embed_documents(["a\nb", "a b"])
        assert not equal(one, two)
        assert not equal(model(tiny).embed_query("a\nb"), model(tiny).embed_query("a b"))


class TestCaches:
    @pytest.fixture
    def store(self) -> InMemoryByteStore:
        return InMemoryByteStore()

    async def test_pain_C_a_cached_query_never_gets_a_documents_vector(
        self, embeddings: F2LLMEmbeddings, store: InMemoryByteStore
    ) -> None:
        cached = embeddings.cached(store)
        document, query = embeddings.embed_documents(["same text"])[0], embeddings.embed_query("same text")
        assert not equal(document, query)
        for _ in range(2):  # the second time from the cache
            assert cached.embed_documents(["same text"])[0] == document
            assert cached.embed_query("same text") == query
            assert (await cached.aembed_documents(["same text"]))[0] == document
            assert await cached.aembed_query("same text") == query
        assert len(list(store.yield_keys())) == 2

    def test_pain_C_langchains_own_on_ramp_mixes_them(
        self, embeddings: F2LLMEmbeddings, store: InMemoryByteStore
    ) -> None:
        """Why ``cached`` exists; when this fails, LangChain has repaired it and ``cached`` may go."""
        naive = CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            store,
            namespace=embeddings.cache_namespace("document"),
            query_embedding_cache=True,
            key_encoder="sha256",
        )
        assert naive.embed_documents(["same text"])[0] == naive.embed_query("same text")

    def test_pain_C_its_on_ramp_is_safe_with_a_store_and_a_namespace_for_documents_only(
        self, embeddings: F2LLMEmbeddings, store: InMemoryByteStore
    ) -> None:
        plain = CacheBackedEmbeddings.from_bytes_store(
            embeddings, store, namespace=embeddings.cache_namespace("document"), key_encoder="sha256"
        )
        plain.embed_documents(["same text"])
        assert plain.embed_query("same text") == embeddings.embed_query("same text")

    def test_pain_C_whatever_changes_a_vector_changes_the_key(
        self, tiny: Path, make_checkpoint: Any, store: InMemoryByteStore
    ) -> None:
        plain = model(tiny)
        others = [
            model(tiny, dimensions=16),
            model(tiny, dtype="bfloat16"),
            model(tiny, max_length=7),
            model(tiny, task="sts"),
            model(make_checkpoint(model="80M", seed=1)),
        ]
        names = {each.cache_namespace("document") for each in [plain, *others]}
        assert len(names) == 6
        # An instruction changes queries, and documents stay cached.
        other = model(tiny, instruction="Other.")
        assert other.cache_namespace("document") == plain.cache_namespace("document")
        assert other.cache_namespace("query") != plain.cache_namespace("query")
        assert plain.cache_namespace("query") == model(tiny, instruction=DEFAULT_INSTRUCTION).cache_namespace("query")
        assert plain.cache_namespace() == plain.cache_namespace("document")
        assert plain.cached(store).embed_query("a") == plain.embed_query("a")
        assert other.cached(store).embed_query("a") == other.embed_query("a")
        with pytest.raises(InputError, match="'query' or 'document'"):
            plain.cache_namespace("both")  # type: ignore[arg-type]

    def test_pain_C_a_cached_document_is_not_embedded_again(self, store: InMemoryByteStore) -> None:
        encoder = CountingEncoder()
        cached = F2LLMEmbeddings.from_encoder(encoder).cached(store, queries=False)
        for _ in range(3):
            cached.embed_documents(["a", "b"])
            cached.embed_query("a")
        assert encoder.calls == 1 + 3

    def test_pain_C_without_the_package_the_way_is_named(
        self, embeddings: F2LLMEmbeddings, store: InMemoryByteStore, monkeypatch: Any
    ) -> None:
        monkeypatch.setitem(sys.modules, "langchain_classic.embeddings", None)
        with pytest.raises(ImportError, match=r"langchain-f2llm\[cache\]"):
            embeddings.cached(store)


class TestDimensions:
    def test_pain_D_truncated_vectors_have_unit_length(self, tiny: Path) -> None:
        for size in (8, 16, 32, 40):
            e = model(tiny, dimensions=size)
            for rows in (e.embed_queries(TEXTS), e.embed_documents(TEXTS)):
                np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)

    def test_pain_E_an_impossible_size_is_an_error_and_never_ignored(self, tiny: Path) -> None:
        for size in (0, 41, 999):
            with pytest.raises(DimensionsError):
                model(tiny, dimensions=size)
            with pytest.raises(DimensionsError):
                model(tiny).embed_query("a", dimensions=size)
        with pytest.raises(DimensionsError):
            model(tiny).contract(dimensions=0)

    def test_pain_X_another_width_is_refused_and_nothing_deleted(
        self, embeddings: F2LLMEmbeddings, tmp_path: Path
    ) -> None:
        F2LLMVectorStore.from_texts(TEXTS, embeddings, location=tmp_path).close()
        smaller = embeddings.model_copy(update={"dimensions": 16})
        with pytest.raises(ContractMismatchError, match=r"dimensions.*64.*16.*dimensions=64"):
            F2LLMVectorStore.from_texts(["new"], smaller, location=tmp_path)
        with F2LLMVectorStore(embeddings, location=tmp_path) as store:
            assert store.store.count() == len(TEXTS)

    def test_pain_Y_another_model_of_the_same_width_is_refused(
        self, tiny: Path, make_checkpoint: Any, tmp_path: Path
    ) -> None:
        F2LLMVectorStore.from_texts(TEXTS, model(tiny), location=tmp_path).close()
        with pytest.raises(ContractMismatchError, match="revision"):
            F2LLMVectorStore(model(make_checkpoint(model="80M", seed=1)), location=tmp_path)
        # The instruction of queries is no part of what lies there.
        F2LLMVectorStore(model(tiny, instruction="Other."), location=tmp_path).close()


class TestWork:
    def test_pain_F_long_and_short_texts_in_one_call(self, tiny: Path) -> None:
        texts = ["x " * 400, *[f"short {n}" for n in range(50)], "y " * 700]
        roomy, tight = model(tiny), model(tiny, token_budget=64)
        assert equal(tight.embed_documents(texts), roomy.embed_documents(texts))

    def test_pain_G_neighbours_do_not_move_a_vector(self, tiny: Path) -> None:
        e = model(tiny)
        texts = ["x " * 60, "a", "b " * 7, "", "人人生而自由"]
        rows = e.embed_documents(texts)
        order = [3, 0, 4, 2, 1]
        assert equal(e.embed_documents([texts[n] for n in order]), [rows[n] for n in order])
        for text, row in zip(texts, rows, strict=True):
            assert equal(e.embed_documents([text])[0], row)

    def test_pain_K_the_dtype_is_chosen_and_the_stored_one_does_not_surprise(self, make_checkpoint: Any) -> None:
        stored_half = make_checkpoint(model="80M", dtype="bfloat16")
        rows = F2LLMEmbeddings(model=stored_half, device="cpu", dtype="float32").embed_documents_array(TEXTS)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
        for name in ("bfloat16", "float16"):
            half = F2LLMEmbeddings(model=stored_half, device="cpu", dtype=name).embed_documents_array(TEXTS)
            np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-6)
            assert (rows * half).sum(axis=1).min() > 0.99

    def test_pain_L_threads_share_one_object(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        texts = [f"text {n} " * (1 + n % 4) for n in range(48)]
        expected = tiny_embeddings.embed_queries(texts)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            found = list(pool.map(tiny_embeddings.embed_query, texts))
        assert equal(found, expected)

    def test_pain_O_there_is_no_pool(self, tiny: Path) -> None:
        with pytest.raises(InputError, match="One worker"):
            F2LLMEmbeddings(model=tiny, multi_process=True)

    def test_pain_Q_an_error_is_raised_at_once(self) -> None:
        class Failing(CountingEncoder):
            def embed_documents(self, texts: Any, **options: Any) -> Any:
                super().embed_documents(texts, **options)
                raise InputError("no")

        encoder = Failing()
        with F2LLMVectorStore(F2LLMEmbeddings.from_encoder(encoder)) as store, pytest.raises(InputError):
            store.add_texts(["a"])
        assert encoder.calls == 1

    def test_pain_R_many_first_callers_load_once(self, make_checkpoint: Any, monkeypatch: Any) -> None:
        folder = make_checkpoint(model="80M", seed=2)
        loads: list[object] = []
        original = runtime.ModelRuntime.__init__

        def counted(self: Any, *arguments: Any, **options: Any) -> None:
            loads.append(self)
            original(self, *arguments, **options)

        monkeypatch.setattr(runtime.ModelRuntime, "__init__", counted)
        several = [model(folder) for _ in range(4)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda n: several[n % 4].embed_query("a"), range(16)))
        assert equal(rows, [rows[0]] * 16)
        assert len(loads) == 1

    def test_pain_S_the_last_close_frees_the_model(self, make_checkpoint: Any) -> None:
        folder = make_checkpoint(model="80M", seed=3)
        before = set(runtime._entries)
        first, second = model(folder), model(folder, dimensions=16)
        for each in (first, second):
            each.embed_query("a")
        first.close()
        assert second.embed_query("a")
        assert len(set(runtime._entries) - before) == 1
        second.close()
        assert set(runtime._entries) == before

    def test_pain_AC_objects_share_one_loaded_model(self, tiny: Path) -> None:
        one, two = model(tiny), model(tiny, dimensions=16, instruction="Other.")
        one.embed_query("a")
        two.embed_query("a")
        assert one.encoder._runtime() is two.encoder._runtime()  # type: ignore[attr-defined]


class TestAsync:
    async def test_pain_M_the_loop_ticks_during_a_large_embed(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        ticks = 0
        done = asyncio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        texts = [f"text {n} " * 20 for n in range(300)]
        rows = await tiny_embeddings.aembed_documents(texts)
        done.set()
        await ticking
        assert len(rows) == 300
        assert ticks > 10  # turns of the loop, not seconds

    async def test_pain_M_64_callers_get_their_own_answers(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        texts = [f"question {n}" for n in range(64)]
        expected = tiny_embeddings.embed_queries(texts)
        found = await asyncio.gather(*(tiny_embeddings.aembed_query(text) for text in texts))
        assert equal(found, expected)

    async def test_pain_M_a_running_loop_may_call_the_sync_methods(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        assert len(tiny_embeddings.embed_query("a")) == 40

    async def test_pain_M_a_cancelled_caller_harms_nobody(self, tiny_embeddings: F2LLMEmbeddings) -> None:
        with F2LLMVectorStore(tiny_embeddings) as store:
            texts = [f"text {n} " * 20 for n in range(200)]
            task = asyncio.create_task(store.aadd_texts(texts, batch_size=20))
            while store.store.count() < 20:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert equal(await tiny_embeddings.aembed_query("a"), tiny_embeddings.embed_query("a"))
            await store.aadd_texts(texts, batch_size=20)
            assert store.store.count() == 200

    async def test_pain_AA_the_store_is_asynchronous(self, tiny_embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        with await F2LLMVectorStore.afrom_texts(["seed"], tiny_embeddings, location=tmp_path) as store:
            texts = [f"text {n}" for n in range(16)]
            names = await asyncio.gather(*(store.aadd_texts([text], ids=[text]) for text in texts))
            assert names == [[text] for text in texts]
            found = await asyncio.gather(*(store.asimilarity_search(text, k=2) for text in texts))
            assert [[document.id for document in each] for each in found] == [
                [document.id for document in store.similarity_search(text, k=2)] for text in texts
            ]

    async def test_pain_AA_no_search_runs_on_the_loops_thread(self, monkeypatch: Any) -> None:
        threads: set[int] = set()

        class Noting(FakeEncoder):
            def embed_queries(self, texts: Any, **options: Any) -> Any:
                threads.add(threading.get_ident())
                return super().embed_queries(texts, **options)

            def embed_documents(self, texts: Any, **options: Any) -> Any:
                threads.add(threading.get_ident())
                return super().embed_documents(texts, **options)

        with F2LLMVectorStore(F2LLMEmbeddings.from_encoder(Noting())) as store:
            for name in ("upsert", "search", "get", "delete", "vectors", "unchanged"):
                original = getattr(store.store, name)

                def noted(*arguments: Any, original: Any = original, **options: Any) -> Any:
                    threads.add(threading.get_ident())
                    return original(*arguments, **options)

                monkeypatch.setattr(store.store, name, noted)
            await store.aadd_texts(["a"], ids=["a"])
            await store.asimilarity_search("a")
            await store.amax_marginal_relevance_search("a")
            await store.aget_by_ids(["a"])
            await store.adelete(["a"])
        assert threads
        assert threading.get_ident() not in threads


class TestObjects:
    def test_pain_N_a_pickle_holds_settings_and_no_weights(self, tiny: Path) -> None:
        e = model(tiny, dimensions=16)
        e.warm_up()
        pickled = pickle.dumps(e)
        assert len(pickled) < 4_000
        assert equal(pickle.loads(pickled).embed_query("a"), e.embed_query("a"))

    def test_pain_N_another_process_can_use_it(self, tiny: Path) -> None:
        e = model(tiny, dimensions=16)
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).cache_namespace(), 'torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(e), capture_output=True, check=True, env={**os.environ}
        )
        assert done.stdout.decode().split() == [e.cache_namespace(), "False"]

    def test_pain_P_what_is_dumped_can_be_read(self, tiny: Path) -> None:
        e = model(tiny, dimensions=16, task="sts", token_budget=512, show_progress=False)
        again = F2LLMEmbeddings(**e.model_dump())
        assert again == e
        assert hash(again) == hash(e)
        assert again != e.model_copy(update={"dimensions": 8})
        assert equal(again.embed_query("a"), e.embed_query("a"))

    def test_pain_T_nothing_is_downloaded_behind_the_users_back(self, tmp_path: Path) -> None:
        e = F2LLMEmbeddings(model="80M", local_files_only=True, cache_folder=tmp_path)
        assert e.output_dimensions == 320  # known without a file
        with pytest.raises(ModelNotFoundError):
            e.embed_query("a")
        with pytest.raises(InputError, match="no code"):
            F2LLMEmbeddings(model="80M", trust_remote_code=True)


class TestStore:
    @pytest.fixture(params=["memory", "folder"])
    def empty(self, request: Any, embeddings: F2LLMEmbeddings, tmp_path: Path) -> Iterator[F2LLMVectorStore]:
        location = ":memory:" if request.param == "memory" else tmp_path / "index"
        with F2LLMVectorStore(embeddings, location=location) as store:
            yield store

    def test_pain_V_any_string_is_an_id(self, empty: F2LLMVectorStore) -> None:
        names = ["1", "sha256:" + "f" * 64, "ünï 🤖", "", "00000000-0000-0000-0000-000000000001"]
        assert empty.add_texts(names, ids=names) == names
        assert [document.id for document in empty.get_by_ids(names)] == names

    def test_pain_V_the_indexing_api_takes_sha256(self, empty: F2LLMVectorStore) -> None:
        records = InMemoryRecordManager("test")
        records.create_schema()
        documents = [Document(page_content=text) for text in ("a", "b")]
        assert index(documents, records, empty, key_encoder="sha256")["num_added"] == 2
        assert index(documents, records, empty, key_encoder="sha256")["num_skipped"] == 2

    def test_pain_W_adding_again_changes_and_embeds_nothing(
        self, empty: F2LLMVectorStore, fake_encoder: FakeEncoder
    ) -> None:
        documents = [
            Document(page_content="a", metadata={"source": "x", "page": n % 2, "tags": ["u", "v"]}) for n in range(4)
        ]
        first = empty.add_documents(documents)
        assert empty.store.count() == 2
        assert empty.add_documents(documents) == first
        assert empty.add_texts(["a"], [{"tags": ["u", "v"], "page": 1, "source": "x"}]) == [first[1]]
        assert empty.store.count() == 2
        assert fake_encoder.document_calls == [2]

    def test_pain_Z_a_large_add_goes_in_pieces(self, embeddings: F2LLMEmbeddings, monkeypatch: Any) -> None:
        sizes: list[int] = []
        with F2LLMVectorStore(embeddings) as store:
            upsert = store.store.upsert

            def noted(documents: Any, vectors: Any) -> int:
                sizes.append(len(documents))
                return upsert(documents, vectors)

            monkeypatch.setattr(store.store, "upsert", noted)
            store.add_texts([f"text {n}" for n in range(1100)])
            assert store.store.count() == 1100
        assert sizes == [1024, 76]  # and by bytes within each, in the store itself

    def test_pain_U_newlines_and_blanks_come_back(self, empty: F2LLMVectorStore) -> None:
        text = "  def f():\n\treturn 1\r\n\n"
        (name,) = empty.add_texts([text])
        assert empty.get_by_ids([name])[0].page_content == text


async def test_a_wrong_type_is_no_vector(tiny_embeddings: F2LLMEmbeddings) -> None:
    with F2LLMVectorStore(tiny_embeddings) as store:
        for query in (["a"], None, 3):
            with pytest.raises(TextTypeError):
                store.similarity_search(query)  # type: ignore[arg-type]
            with pytest.raises(TextTypeError):
                await store.asimilarity_search(query)  # type: ignore[arg-type]
