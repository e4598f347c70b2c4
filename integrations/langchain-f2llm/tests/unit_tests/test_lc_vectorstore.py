"""F2LLMVectorStore and its retriever: documents, ids, filters, scores, errors, in memory and in a folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag import QdrantStore
from f2rag.errors import (
    CollectionNotFoundError,
    ContractMismatchError,
    DimensionsError,
    DocumentError,
    F2RagError,
    InputError,
    StoreError,
)
from f2rag.store import Hybrid, Layout, Lexical
from f2rag.testing import FakeEncoder
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from qdrant_client import QdrantClient, models

from langchain_f2llm import F2LLMEmbeddings, F2LLMRetriever, F2LLMVectorStore

TEXTS = ["a red house", "the blue sea", "red apples and green apples"]
METADATAS: list[dict[str, Any]] = [
    {"year": 2020, "language": "en", "tags": ["home", "red"], "ok": True, "price": 1.5, "author": {"name": "Ada"}},
    {"year": 2021, "language": "de", "tags": ["water"], "ok": False, "price": 2.5, "author": None},
    {"year": 2022, "language": "en", "tags": [], "ok": True, "price": 2.5, "a key": "x"},
]


@pytest.fixture(scope="module", params=["memory", "folder"])
def filled(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[F2LLMVectorStore]:
    """Three documents, made once: tests leave it as they find it."""
    location: Any = ":memory:" if request.param == "memory" else tmp_path_factory.mktemp("filled")
    embeddings = F2LLMEmbeddings.from_encoder(FakeEncoder())
    with F2LLMVectorStore.from_texts(TEXTS, embeddings, METADATAS, ids=["1", "two", "drei/3"], location=location) as it:
        yield it


def found(documents: list[Document]) -> set[str | None]:
    return {document.id for document in documents}


UUID = "5f6b0c1e-7a52-4a3e-9c55-0d1f6f0d9b7e"


class TestDocuments:
    def test_come_back_as_they_were_given(self, filled: F2LLMVectorStore) -> None:
        assert filled.get_by_ids(["drei/3", "1", "absent", "two"]) == [
            Document(id=name, page_content=TEXTS[n], metadata=METADATAS[n])
            for name, n in [("drei/3", 2), ("1", 0), ("two", 1)]
        ]

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"source": None, "language": None},
            {"source": "", "language": ""},
            {"source": 7, "language": ["de", "fr"]},
            {"f2rag": "mine", "page_content": "x", "metadata": {"id": 1}, "_id": "y", "id": 3},
            {"deep": {"list": [1, 2.5, None, {"x": "ü"}]}, "Ключ": "значение", "with.dot": 1, "": "empty"},
            {"big": 2**62, "small": -1e-300, "yes": True},
        ],
    )
    def test_metadata_is_untouched(self, store: F2LLMVectorStore, metadata: dict[str, Any]) -> None:
        (name,) = store.add_texts(["text"], [metadata])
        assert store.similarity_search("text")[0].metadata == metadata
        assert store.get_by_ids([name])[0].metadata == metadata

    @pytest.mark.parametrize("name", ["", " ", "7", "0", "a" * 5000, "ünï/¢ode 🤖", UUID, "NULL", "a\nb"])
    def test_any_string_is_an_id(self, filled: F2LLMVectorStore, name: str) -> None:
        assert filled.add_texts(["special"], ids=[name]) == [name]
        assert filled.get_by_ids([name])[0].id == name
        assert filled.similarity_search("special", k=1)[0].id == name
        assert filled.delete([name]) is True
        assert filled.get_by_ids([name]) == []
        assert filled.store.count() == 3

    def test_ids_go_before_the_documents_own(self, store: F2LLMVectorStore) -> None:
        documents = [Document(id="own", page_content="a"), Document(page_content="b")]
        assert store.add_documents(documents, ids=["given", "too"]) == ["given", "too"]
        names = store.add_documents(documents)
        assert names[0] == "own"
        assert uuid.UUID(names[1])

    def test_the_last_of_one_id_wins(self, store: F2LLMVectorStore) -> None:
        assert store.add_texts(["first", "second"], ids=["x", "x"]) == ["x", "x"]
        assert [document.page_content for document in store.get_by_ids(["x"])] == ["second"]

    def test_equal_texts_of_two_places_stay_two(self, store: F2LLMVectorStore) -> None:
        store.add_texts(["same", "same"], [{"page": 1}, {"page": 2}])
        assert store.store.count() == 2

    def test_generators_are_read(self, store: F2LLMVectorStore) -> None:
        names = store.add_texts(
            (text for text in TEXTS), (metadata for metadata in METADATAS), ids=(str(n) for n in range(3))
        )
        assert names == ["0", "1", "2"]
        assert store.add_documents(document for document in [Document(page_content="x", id="y")]) == ["y"]
        assert store.store.count() == 4

    def test_batches_cut_nothing_off(self, store: F2LLMVectorStore, fake_encoder: FakeEncoder) -> None:
        names = store.add_texts([f"text {n}" for n in range(25)], batch_size=10)
        assert fake_encoder.document_calls == [10, 10, 5]
        assert len(store.get_by_ids(names)) == 25

    def test_delete(self, store: F2LLMVectorStore) -> None:
        store.add_texts(TEXTS, ids=list("abc"))
        assert store.delete(["a", "absent"]) is True
        assert found(store.similarity_search("red", k=9)) == {"b", "c"}
        assert store.delete([]) is True
        with pytest.raises(InputError, match="drop_collection"):
            store.delete()
        assert store.store.count() == 2


class TestMaking:
    def test_from_documents(self, embeddings: F2LLMEmbeddings) -> None:
        documents = [Document(id="a", page_content="x", metadata={"n": 1}), Document(page_content="y")]
        with F2LLMVectorStore.from_documents(documents, embeddings) as store:
            assert store.get_by_ids(["a"]) == documents[:1]
            assert store.embeddings is embeddings
            assert "fake" in repr(store)

    async def test_async(self, embeddings: F2LLMEmbeddings) -> None:
        with await F2LLMVectorStore.afrom_texts(TEXTS, embeddings, METADATAS) as store:
            assert store.store.count() == 3
        with await F2LLMVectorStore.afrom_documents([Document(page_content="y")], embeddings) as store:
            assert store.store.count() == 1

    def test_a_folder_opens_again(self, embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        F2LLMVectorStore.from_texts(TEXTS, embeddings, location=tmp_path, collection_name="mine").close()
        with F2LLMVectorStore.from_existing_collection(embeddings, "mine", location=tmp_path) as store:
            assert store.store.count() == 3
            assert store.similarity_search("blue sea", k=1)[0].page_content == "the blue sea"

    def test_an_absent_collection(self, embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        with pytest.raises(CollectionNotFoundError):
            F2LLMVectorStore.from_existing_collection(embeddings, "mine", location=tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_width_of_its_own(self, embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        with F2LLMVectorStore.from_texts(TEXTS, embeddings, location=tmp_path, dimensions=16) as store:
            assert store.store.dimensions == 16
            assert store.similarity_search("blue sea", k=1)[0].page_content == "the blue sea"
        with pytest.raises(ContractMismatchError, match="dimensions=16"):
            F2LLMVectorStore(embeddings, location=tmp_path)
        with pytest.raises(DimensionsError):
            F2LLMVectorStore(embeddings, dimensions=0)

    def test_an_open_store_stays_its_owners(self, embeddings: F2LLMEmbeddings) -> None:
        inner = QdrantStore.open(":memory:", contract=embeddings.contract(dimensions=16))
        with F2LLMVectorStore(embeddings, store=inner) as store:
            store.add_texts(TEXTS)
        assert inner.count() == 3
        foreign = QdrantStore.open(":memory:", contract=FakeEncoder(dimensions=128, model_name="x").contract())
        for options in ({}, {"dimensions": 16}):
            with pytest.raises(ContractMismatchError):
                F2LLMVectorStore(embeddings, store=foreign, **options)

    def test_other_embeddings_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"expected F2LLMEmbeddings.*from_encoder"):
            F2LLMVectorStore(DeterministicFakeEmbedding(size=6))

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("client", "location="),
            ("url", "location="),
            ("path", "location="),
            ("vector_name", "one unnamed"),
            ("retrieval_mode", "one unnamed"),
            ("frobnicate", "Leave it out"),
        ],
    )
    def test_arguments_of_other_stores_are_refused(self, embeddings: F2LLMEmbeddings, name: str, hint: str) -> None:
        with pytest.raises(InputError, match=hint):
            F2LLMVectorStore(embeddings, **{name: "x"})
        with pytest.raises(InputError, match=hint):
            F2LLMVectorStore.from_texts(["a"], embeddings, **{name: "x"})

    def test_a_failure_on_the_way_leaves_the_folder_free(self, embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        with pytest.raises(DocumentError):
            F2LLMVectorStore.from_texts(["a"], embeddings, [{"x": object()}], location=tmp_path)
        with F2LLMVectorStore(embeddings, location=tmp_path) as store:
            assert store.store.count() == 0

    async def test_also_when_async(self, embeddings: F2LLMEmbeddings, tmp_path: Path) -> None:
        with pytest.raises(DocumentError):
            await F2LLMVectorStore.afrom_texts(["a"], embeddings, [{"x": object()}], location=tmp_path)
        with F2LLMVectorStore(embeddings, location=tmp_path) as store:
            assert store.store.count() == 0


class TestFilters:
    @pytest.mark.parametrize(
        ("filter_", "expected"),
        [
            ({"year": 2020}, {"1"}),
            ({"year": 2020, "language": "de"}, set()),
            ({"year": [2020, 2021]}, {"1", "two"}),
            ({"language": "en"}, {"1", "drei/3"}),
            ({"ok": False}, {"two"}),
            ({"ok": True, "year": 2022}, {"drei/3"}),
            ({"price": 2.5}, {"two", "drei/3"}),
            ({"price": [1.5, 9.0]}, {"1"}),
            ({"tags": "red"}, {"1"}),
            ({"tags": ["water", "red"]}, {"1", "two"}),
            ({"author.name": "Ada"}, {"1"}),
            ({"a key": "x"}, {"drei/3"}),
            ({"author": None}, {"two"}),
            ({"year": [2020, None, "x"]}, {"1"}),
            ({}, {"1", "two", "drei/3"}),
            (
                models.Filter(must=[models.FieldCondition(key="metadata.year", range=models.Range(gt=2020))]),
                {"two", "drei/3"},
            ),
        ],
    )
    def test_dictionaries_and_qdrants(self, filled: F2LLMVectorStore, filter_: Any, expected: set[str]) -> None:
        assert found(filled.similarity_search("red", k=9, filter=filter_)) == expected

    @pytest.mark.parametrize(
        "filter_",
        [
            {"metadata.year": 2020},
            {"": 1},
            {3: 1},
            {"year": []},
            {"year": {"$gt": 2020}},
            {"year": object()},
            "year == 2020",
            lambda document: True,
        ],
    )
    def test_what_equality_cannot_ask_is_refused(self, store: F2LLMVectorStore, filter_: Any) -> None:
        with pytest.raises(InputError):
            store.similarity_search("red", filter=filter_)

    def test_language(self, filled: F2LLMVectorStore) -> None:
        assert found(filled.similarity_search("red", k=9, language="de")) == {"two"}
        assert found(filled.similarity_search("red", k=9, language=["de", "en"])) == {"1", "two", "drei/3"}


class TestSearch:
    def test_scores_are_cosines(self, filled: F2LLMVectorStore, fake_encoder: FakeEncoder) -> None:
        query = fake_encoder.embed_query("red house")
        scored = filled.similarity_search_with_score("red house", k=3)
        assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)
        for document, score in scored:
            row = fake_encoder.embed_documents([document.page_content])[0]
            assert score == pytest.approx(float(query @ row), abs=1e-5)

    def test_relevance_is_between_zero_and_one(self, filled: F2LLMVectorStore) -> None:
        plain = {document.id: score for document, score in filled.similarity_search_with_score("red house", k=3)}
        for document, relevance in filled.similarity_search_with_relevance_scores("red house", k=3):
            assert relevance == pytest.approx((plain[document.id] + 1) / 2)
        best = max(plain.values())
        kept = filled.similarity_search_with_relevance_scores("red house", k=3, score_threshold=(best + 1) / 2 - 1e-6)
        assert len(kept) == 1

    def test_a_threshold_is_a_cosine(self, filled: F2LLMVectorStore) -> None:
        (_, best), (_, second), _ = filled.similarity_search_with_score("red house", k=3)
        kept = filled.similarity_search("red house", k=3, score_threshold=(best + second) / 2, mode="exact")
        assert len(kept) == 1

    def test_hybrid_finds_a_word_that_only_one_text_has(self, embeddings: F2LLMEmbeddings) -> None:
        words = Layout(lexical=Lexical())
        with F2LLMVectorStore.from_texts([*TEXTS, "number 4711"], embeddings, layout=words) as store:
            mode = Hybrid(weights=(0.1, 0.9))
            assert store.similarity_search("4711", k=1, mode=mode)[0].page_content == "number 4711"
            retriever = store.as_retriever(k=1, search_kwargs={"mode": "hybrid"})
            assert retriever.invoke("number 4711")[0].page_content == "number 4711"
            with pytest.raises(InputError, match="score_threshold"):
                store.similarity_search("4711", mode="hybrid", score_threshold=0.5)

    def test_by_vector(self, filled: F2LLMVectorStore, embeddings: F2LLMEmbeddings) -> None:
        vector = embeddings.embed_query("blue sea")
        assert filled.similarity_search_by_vector(vector, k=2) == filled.similarity_search("blue sea", k=2)
        assert filled.similarity_search_with_score_by_vector(
            vector, k=1, filter={"year": 2020}
        ) == filled.similarity_search_with_score("blue sea", k=1, filter={"year": 2020})

    def test_an_instruction_for_one_query(self, filled: F2LLMVectorStore, fake_encoder: FakeEncoder) -> None:
        (document, score), *_ = filled.similarity_search_with_score("red house", instruction="Other.")
        row = fake_encoder.embed_documents([document.page_content])[0]
        assert score == pytest.approx(
            float(fake_encoder.embed_query("red house", instruction="Other.") @ row), abs=1e-5
        )
        filled.max_marginal_relevance_search("red house", instruction="Other.")

    def test_variety(self, store: F2LLMVectorStore, embeddings: F2LLMEmbeddings) -> None:
        store.add_texts(["red house one", "red house two", "red house three", "red garden wall"], ids=list("abcd"))
        nearest = [document.id for document in store.similarity_search("red house", k=2)]
        assert set(nearest) <= set("abc")
        varied = [document.id for document in store.max_marginal_relevance_search("red house", k=2, lambda_mult=0.1)]
        assert varied[0] == nearest[0]
        assert varied[1] == "d"
        vector = embeddings.embed_query("red house")
        by_vector = store.max_marginal_relevance_search_by_vector(vector, k=2, lambda_mult=0.1)
        assert [document.id for document in by_vector] == varied
        filtered = store.max_marginal_relevance_search("red house", k=9, filter={"no": "such"})
        assert filtered == []
        assert len(store.max_marginal_relevance_search("red house", k=3, fetch_k=1)) == 3

    def test_variety_embeds_no_document_again(self, store: F2LLMVectorStore, fake_encoder: FakeEncoder) -> None:
        store.add_texts(TEXTS)
        store.max_marginal_relevance_search("red house", k=2)
        assert fake_encoder.document_calls == [3]

    @pytest.mark.parametrize("k", [0, -1, 1.5, "2", None])
    def test_k_is_a_whole_number_from_one(self, filled: F2LLMVectorStore, k: Any) -> None:
        for search in (filled.similarity_search, filled.max_marginal_relevance_search):
            with pytest.raises((InputError, TypeError)):
                search("red", k=k)

    @pytest.mark.parametrize("options", [{"fetch_k": 0}, {"lambda_mult": -0.1}, {"lambda_mult": 2}])
    def test_variety_out_of_range(self, filled: F2LLMVectorStore, options: Any) -> None:
        with pytest.raises(InputError, match=next(iter(options))):
            filled.max_marginal_relevance_search("red", **options)

    @pytest.mark.parametrize("vector", [[1.0], ["a"], None, [], [float("nan")] * 64, [0.0] * 64, [[0.5] * 64]])
    def test_a_vector_that_cannot_be_searched_for(self, filled: F2LLMVectorStore, vector: Any) -> None:
        with pytest.raises(F2RagError):
            filled.similarity_search_by_vector(vector)

    def test_an_unknown_option_is_not_ignored(self, filled: F2LLMVectorStore) -> None:
        with pytest.raises(InputError, match="search_params"):
            filled.similarity_search("red", search_params=models.SearchParams())

    def test_an_empty_query_has_a_result(self, filled: F2LLMVectorStore) -> None:
        assert len(filled.similarity_search("", k=2)) == 2


class TestAsync:
    async def test_every_method_equals_its_twin(self, filled: F2LLMVectorStore, embeddings: F2LLMEmbeddings) -> None:
        it, vector = filled, embeddings.embed_query("red house")
        assert await it.asimilarity_search("red house", k=2) == it.similarity_search("red house", k=2)
        assert await it.asimilarity_search_with_score("red") == it.similarity_search_with_score("red")
        assert await it.asimilarity_search_by_vector(vector) == it.similarity_search_by_vector(vector)
        assert await it.asimilarity_search_with_score_by_vector(
            vector, filter={"ok": True}
        ) == it.similarity_search_with_score_by_vector(vector, filter={"ok": True})
        assert await it.amax_marginal_relevance_search("red", k=2) == it.max_marginal_relevance_search("red", k=2)
        assert await it.amax_marginal_relevance_search_by_vector(
            vector, k=2
        ) == it.max_marginal_relevance_search_by_vector(vector, k=2)
        assert await it.asimilarity_search_with_relevance_scores("red") == it.similarity_search_with_relevance_scores(
            "red"
        )
        assert await it.aget_by_ids(["1"]) == it.get_by_ids(["1"])

    async def test_adding_and_deleting(self, store: F2LLMVectorStore) -> None:
        assert await store.aadd_texts(iter(TEXTS), METADATAS, ids=list("abc"), batch_size=2) == list("abc")
        assert await store.aadd_documents([Document(id="d", page_content="x")]) == ["d"]
        assert await store.adelete(["a", "absent"]) is True
        assert found(store.similarity_search("red", k=9)) == {"b", "c", "d"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("texts", "metadatas", "ids", "hint"),
        [
            ("one string", None, None, "several strings"),
            (["a", None], None, None, "Text 1 is NoneType"),
            (["a", 3], None, None, "Text 1 is int"),
            (["a", "b"], [{}], None, "1 metadatas were given for 2 texts"),
            (["a", "b"], [{}, {}, {}], None, "3 metadatas"),
            (["a", "b"], None, ["x"], "1 ids"),
            (["a", "b"], None, "xy", "ids is one str"),
            (["a"], {"year": 1}, None, "metadatas is one dict"),
            (["a"], ["x"], None, "Metadata 0 is str"),
            (["a", "b"], None, ["x", 7], "Id 1 is int"),
            (["a", "b"], [{}, {"when": object()}], None, "JSON"),
            (["a", "b"], [{}, {3: "x"}], None, "text"),
            (["a", "b"], [{}, {"x": float("nan")}], None, "JSON"),
            (["a", "b\ud800"], None, None, "surrogate"),
            (["a", "b"], None, ["x", "y\ud800"], "surrogate"),
            (["a", "b"], [{}, {"x": "\ud800"}], None, "surrogate"),
        ],
    )
    async def test_nothing_is_embedded_or_stored(
        self, store: F2LLMVectorStore, fake_encoder: FakeEncoder, texts: Any, metadatas: Any, ids: Any, hint: str
    ) -> None:
        with pytest.raises((InputError, DocumentError), match=hint):
            store.add_texts(texts, metadatas, ids=ids, batch_size=1)
        with pytest.raises((InputError, DocumentError), match=hint):
            await store.aadd_texts(texts, metadatas, ids=ids, batch_size=1)
        assert store.store.count() == 0
        assert fake_encoder.document_calls == []

    def test_documents_are_documents(self, store: F2LLMVectorStore) -> None:
        with pytest.raises(InputError, match="Document 1 is str"):
            store.add_documents([Document(page_content="a"), "b"])  # type: ignore[list-item]

    @pytest.mark.parametrize("size", [0, -1, 1.5, True])
    def test_batch_size(self, store: F2LLMVectorStore, size: Any) -> None:
        with pytest.raises(InputError, match="batch_size"):
            store.add_texts(["a"], batch_size=size)

    def test_a_typo_in_an_argument(self, store: F2LLMVectorStore) -> None:
        with pytest.raises(InputError, match="metadata"):
            store.add_texts(["a"], metadata=[{}])
        with pytest.raises(InputError, match="no where"):
            store.delete(["a"], where={})

    def test_a_failure_while_embedding_leaves_whole_batches(
        self, store: F2LLMVectorStore, fake_encoder: FakeEncoder, monkeypatch: Any
    ) -> None:
        embed = fake_encoder.embed_documents

        def failing(texts: list[str], **options: Any) -> np.ndarray:
            if "text 5" in texts:
                raise MemoryError
            return embed(texts, **options)

        monkeypatch.setattr(fake_encoder, "embed_documents", failing)
        texts = [f"text {n}" for n in range(8)]
        with pytest.raises(MemoryError):
            store.add_texts(texts, batch_size=2)
        assert store.store.count() == 4
        monkeypatch.undo()
        store.add_texts(texts, batch_size=2)
        assert store.store.count() == 8
        assert fake_encoder.document_calls == [2, 2, 2, 2]

    def test_a_closed_store_says_so(self, embeddings: F2LLMEmbeddings) -> None:
        store = F2LLMVectorStore(embeddings)
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.similarity_search("a")


class TestRetriever:
    def test_tags_and_tracing(self, filled: F2LLMVectorStore) -> None:
        mine = ["mine"]
        retriever = filled.as_retriever(tags=mine, k=2)
        assert retriever.tags == ["mine", "F2LLMVectorStore", "F2LLMEmbeddings"]
        assert mine == ["mine"]
        assert isinstance(retriever, F2LLMRetriever)

    def test_search_kwargs_and_calls_win(self, filled: F2LLMVectorStore) -> None:
        assert len(filled.as_retriever(k=2).invoke("red")) == 2
        assert len(filled.as_retriever(k=2, search_kwargs={"k": 1}).invoke("red")) == 1
        assert len(filled.as_retriever(search_kwargs={"k": 1}).invoke("red", k=3)) == 3
        assert found(filled.as_retriever().invoke("red", filter={"year": 2021})) == {"two"}

    @pytest.mark.parametrize("kind", ["similarity", "mmr", "similarity_score_threshold"])
    async def test_every_kind_of_search(self, filled: F2LLMVectorStore, kind: str) -> None:
        options = {"score_threshold": 0.1} if kind == "similarity_score_threshold" else {}
        retriever = filled.as_retriever(search_type=kind, search_kwargs={"language": "en", **options})
        assert found(retriever.invoke("red house")) == {"1", "drei/3"}
        assert found(await retriever.ainvoke("red house")) == {"1", "drei/3"}


def test_a_shared_client_holds_several_collections(embeddings: F2LLMEmbeddings) -> None:
    client = QdrantClient(location=":memory:")
    make: Callable[..., F2LLMVectorStore] = F2LLMVectorStore
    with (
        make(embeddings, location=client, collection_name="one") as one,
        make(embeddings, location=client, collection_name="two", dimensions=16) as two,
    ):
        one.add_texts(["a"])
        two.add_texts(["b", "c"])
        assert (one.store.count(), two.store.count()) == (1, 2)
    assert len(client.get_collections().collections) == 2
