"""Collections exchanged with langchain-qdrant, and LangChain's indexing API."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from f2rag.errors import ContractMismatchError
from f2rag.testing import FakeEncoder
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore

TEXTS = ["a red house", "the blue sea", "red apples and green apples"]
METADATAS = [{"year": 2020, "source": "a.txt"}, {"year": 2021, "language": "de"}, {"year": 2022}]


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    made = QdrantClient(location=":memory:")
    yield made
    made.close()


@pytest.fixture
def theirs(client: QdrantClient, embeddings: F2LLMEmbeddings) -> QdrantVectorStore:
    """A collection that langchain-qdrant made and filled with our embeddings."""
    client.create_collection("docs", vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE))
    store = QdrantVectorStore(client=client, collection_name="docs", embedding=embeddings)
    store.add_texts(TEXTS, METADATAS)
    return store


class TestTheirCollections:
    def test_must_be_taken_over_knowingly(
        self, theirs: QdrantVectorStore, client: QdrantClient, embeddings: F2LLMEmbeddings
    ) -> None:
        with pytest.raises(ContractMismatchError, match="adopt=True"):
            F2LLMVectorStore.from_existing_collection(embeddings, "docs", location=client)

    def test_open_and_search(
        self, theirs: QdrantVectorStore, client: QdrantClient, embeddings: F2LLMEmbeddings
    ) -> None:
        with F2LLMVectorStore.from_existing_collection(embeddings, "docs", location=client, adopt=True) as ours:
            for query in ("blue sea", "red"):
                mine = ours.similarity_search_with_score(query, k=3)
                other = theirs.similarity_search_with_score(query, k=3)
                assert [(d.page_content, pytest.approx(s)) for d, s in other] == [(d.page_content, s) for d, s in mine]
            document = ours.similarity_search("blue sea", k=1)[0]
            assert document.metadata == {"year": 2021, "language": "de"}
            assert ours.get_by_ids([str(document.id)]) == [document]
            assert ours.similarity_search("red", k=3, filter={"year": 2022})[0].page_content == TEXTS[2]
            assert len(ours.max_marginal_relevance_search("red", k=2)) == 2
        # It remembers now, so nobody has to vouch for it again.
        F2LLMVectorStore.from_existing_collection(embeddings, "docs", location=client).close()

    def test_a_document_is_replaced_and_deleted_by_its_id(
        self, theirs: QdrantVectorStore, client: QdrantClient, embeddings: F2LLMEmbeddings
    ) -> None:
        with F2LLMVectorStore(embeddings, location=client, collection_name="docs", adopt=True) as ours:
            document = ours.similarity_search("blue sea", k=1)[0]
            ours.add_documents([Document(id=document.id, page_content="the black sea", metadata=document.metadata)])
            assert ours.store.count() == 3
            assert ours.similarity_search("black sea", k=1)[0].id == document.id
            ours.delete([str(document.id)])
            assert ours.store.count() == 2

    def test_of_another_width_are_refused(
        self, theirs: QdrantVectorStore, client: QdrantClient, embeddings: F2LLMEmbeddings
    ) -> None:
        with pytest.raises(ContractMismatchError, match="64"):
            F2LLMVectorStore(embeddings, location=client, collection_name="docs", adopt=True, dimensions=16)


def test_our_collections_open_in_langchain_qdrant(client: QdrantClient, embeddings: F2LLMEmbeddings) -> None:
    with F2LLMVectorStore(embeddings, location=client, collection_name="ours") as ours:
        ours.add_texts(TEXTS, METADATAS, ids=["any", "string", "id"])
        theirs = QdrantVectorStore(client=client, collection_name="ours", embedding=embeddings)
        for query in ("blue sea", "red"):
            mine, other = ours.similarity_search(query, k=3), theirs.similarity_search(query, k=3)
            assert [document.page_content for document in other] == [document.page_content for document in mine]
            for left, right in zip(mine, other, strict=True):
                assert left.metadata == {key: value for key, value in right.metadata.items() if not key.startswith("_")}
        year = models.FieldCondition(key="metadata.year", match=models.MatchValue(value=2022))
        assert theirs.similarity_search("red", filter=models.Filter(must=[year]))[0].page_content == TEXTS[2]
        theirs.add_texts(["written by them"], [{"n": 1}], ids=[str(uuid.uuid4())])
        assert ours.similarity_search("written by them", k=1)[0].metadata == {"n": 1}


def pages(*texts: str, source: str = "book") -> list[Document]:
    return [Document(page_content=text, metadata={"source": source, "page": n}) for n, text in enumerate(texts)]


KEY_ENCODERS: list[Any] = ["sha1", "sha256", "sha512", "blake2b", lambda document: f"§ {document.page_content} ☃"]


@pytest.fixture(params=["memory", "folder"])
def empty(request: Any, embeddings: F2LLMEmbeddings, tmp_path: Path) -> Iterator[F2LLMVectorStore]:
    with F2LLMVectorStore(embeddings, location=":memory:" if request.param == "memory" else tmp_path / "index") as it:
        yield it


@pytest.mark.filterwarnings("ignore:Using SHA-1 for document hashing")
class TestIndexing:
    """``langchain_core.indexing``; with any other key encoder than SHA-1 it crashes on langchain-qdrant."""

    @pytest.mark.parametrize("key_encoder", KEY_ENCODERS)
    def test_every_key_encoder(self, empty: F2LLMVectorStore, key_encoder: Any) -> None:
        records = InMemoryRecordManager("test")
        records.create_schema()

        def run(documents: list[Document], cleanup: Any) -> tuple[int, int, int]:
            result = index(
                documents,
                records,
                empty,
                cleanup=cleanup,
                source_id_key="source",
                key_encoder=key_encoder,
                batch_size=2,
            )
            return result["num_added"], result["num_skipped"], result["num_deleted"]

        assert run(pages("a", "b", "c"), "full") == (3, 0, 0)
        assert run(pages("a", "b", "c"), "full") == (0, 3, 0)
        assert run(pages("a", "b"), "full") == (0, 2, 1)
        assert empty.store.count() == 2

    @pytest.mark.parametrize(
        ("cleanup", "counts", "left"),
        [
            (None, (1, 0), {"a", "b", "new", "other"}),
            ("incremental", (1, 2), {"new", "other"}),
            ("scoped_full", (1, 2), {"new", "other"}),
            ("full", (1, 3), {"new"}),
        ],
    )
    async def test_every_way_to_clean_up(
        self, embeddings: F2LLMEmbeddings, cleanup: Any, counts: tuple[int, int], left: set[str]
    ) -> None:
        async def asynchronous(documents: list[Document], records: Any, store: F2LLMVectorStore) -> Any:
            return await aindex(
                documents, records, store, cleanup=cleanup, source_id_key="source", key_encoder="sha256"
            )

        async def synchronous(documents: list[Document], records: Any, store: F2LLMVectorStore) -> Any:
            return index(documents, records, store, cleanup=cleanup, source_id_key="source", key_encoder="sha256")

        run: Callable[..., Any]
        for run in (synchronous, asynchronous):
            clock = itertools.count(1)
            records = InMemoryRecordManager("test")
            records.get_time = lambda clock=clock: float(next(clock))  # type: ignore[method-assign, misc]
            records.aget_time = _ticking(clock)  # type: ignore[method-assign]
            with F2LLMVectorStore(embeddings) as store:
                await run([*pages("a", "b"), *pages("other", source="letter")], records, store)
                result = await run(pages("new"), records, store)
                assert (result["num_added"], result["num_deleted"]) == counts
                assert {document.text for document in store.store.documents()} == left

    def test_forced_updates(self, empty: F2LLMVectorStore) -> None:
        records = InMemoryRecordManager("test")
        for _ in range(2):
            result = index(pages("a", "b"), records, empty, force_update=True, key_encoder="sha256")
        assert result["num_updated"] == 2
        assert empty.store.count() == 2


def _ticking(clock: Iterator[int]) -> Callable[[], Any]:
    async def now() -> float:
        return float(next(clock))

    return now


def test_the_fake_encoder_is_enough_for_users_tests() -> None:
    with F2LLMVectorStore(F2LLMEmbeddings.from_encoder(FakeEncoder())) as store:
        store.add_texts(TEXTS)
        assert store.similarity_search("sea", k=1)[0].page_content == "the blue sea"
