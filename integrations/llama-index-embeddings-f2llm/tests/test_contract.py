"""The LlamaIndex contract: what every embedding must do inside the framework, after the study of its peers.

LlamaIndex has no shared suite. Where HuggingFaceEmbedding fails a row today, the test's docstring says so.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from f2rag.testing import FakeEncoder, write_checkpoint
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.embeddings.f2llm.cache import CACHE_COLLECTION
from llama_index.vector_stores.f2llm import F2LLMVectorStore, content_id

DOCUMENTS = [
    Document(text="Everyone has the right to education.", id_="art-26", metadata={"language": "en", "article": 26}),
    Document(text="Chacun a droit au repos et aux loisirs.", id_="art-24", metadata={"language": "fr", "article": 24}),
    Document(text="Jeder hat das Recht auf Arbeit.", id_="art-23", metadata={"language": "de", "article": 23}),
]


def test_method_resolution_order() -> None:
    assert BaseEmbedding in F2LLMEmbedding.__mro__


def test_every_method_of_the_base_class_is_native() -> None:
    """HuggingFaceEmbedding inherits the asynchronous batch, which gathers one forward per text."""
    own = vars(F2LLMEmbedding)
    for name in (
        "_get_query_embedding", "_aget_query_embedding", "_get_text_embedding", "_aget_text_embedding",
        "_get_text_embeddings", "_aget_text_embeddings", "class_name",
    ):  # fmt: skip
        assert name in own, name


def test_inherited_fields_pass_through_the_constructor() -> None:
    """HuggingFaceEmbedding documents ``num_workers`` and ``embeddings_cache`` and takes neither."""
    cache, limiter = SimpleKVStore(), object()
    made = F2LLMEmbedding("80M", num_workers=3, embed_batch_size=17, embeddings_cache=cache, rate_limiter=limiter)
    assert (made.num_workers, made.embed_batch_size, made.rate_limiter) == (3, 17, limiter)
    assert made.embeddings_cache.store is cache
    assert set(inspect.signature(F2LLMEmbedding.__init__).parameters) >= {"model_name", "num_workers", "rate_limiter"}
    with pytest.raises(TypeError, match="BaseKVStore"):
        F2LLMEmbedding("80M", embeddings_cache={})  # type: ignore[arg-type]


async def test_cached_equals_uncached_in_each_role(tiny: Path, embedding: F2LLMEmbedding) -> None:
    """HuggingFaceEmbedding cannot be given a cache; every other one hands a query the document's vector."""
    cached = F2LLMEmbedding(tiny, dtype="float32", embeddings_cache=SimpleKVStore())
    texts = ["Paris", "Berlin", "Paris"]
    for _ in range(2):
        assert cached.get_text_embedding("Paris") == embedding.get_text_embedding("Paris")
        assert cached.get_query_embedding("Paris") == embedding.get_query_embedding("Paris")
        assert await cached.aget_query_embedding("Paris") == embedding.get_query_embedding("Paris")
        assert await cached.aget_text_embedding("Paris") == embedding.get_text_embedding("Paris")
        for vectors in (cached.get_text_embedding_batch(texts), await cached.aget_text_embedding_batch(texts)):
            np.testing.assert_allclose(vectors, embedding.get_text_embedding_batch(texts), atol=1e-6)


async def test_the_cache_is_used() -> None:
    store = SimpleKVStore()
    encoder = FakeEncoder()
    made = F2LLMEmbedding.from_encoder(encoder, embeddings_cache=store)
    made.get_text_embedding_batch(["a", "b"])
    made.get_text_embedding_batch(["b", "c", "a"])
    await made.aget_text_embedding_batch(["c", "a", "d"])
    made.get_text_embedding("d")
    assert encoder.document_calls == [2, 1, 1]
    assert len(store.get_all(collection=CACHE_COLLECTION)) == 4
    assert store.get_all(collection="embeddings") == {}


def test_one_cache_serves_many_settings(tiny: Path, other_tiny: Path) -> None:
    store = SimpleKVStore()
    settings: list[dict[str, Any]] = [
        {"model_name": tiny},
        {"model_name": other_tiny},
        {"model_name": tiny, "instruction": "Find it"},
        {"model_name": tiny, "instruction": ""},
        {"model_name": tiny, "task": "sts"},
        {"model_name": tiny, "max_length": 8, "on_overflow": "truncate"},
    ]
    text = "a text that is longer than eight tokens in any vocabulary"
    for _ in range(2):
        for chosen in settings:
            plain, cached = F2LLMEmbedding(**chosen), F2LLMEmbedding(**chosen, embeddings_cache=store)
            assert cached.get_query_embedding(text) == pytest.approx(plain.get_query_embedding(text), abs=1e-6)
            assert cached.get_text_embedding(text) == pytest.approx(plain.get_text_embedding(text), abs=1e-6)


def test_a_cache_that_is_set_afterwards_is_sound_as_well(fake: F2LLMEmbedding) -> None:
    query, document = fake.get_query_embedding("Paris"), fake.get_text_embedding("Paris")
    fake.embeddings_cache = SimpleKVStore()
    for _ in range(2):
        assert (fake.get_query_embedding("Paris"), fake.get_text_embedding("Paris")) == (query, document)
    fake.embeddings_cache = None
    assert fake.get_query_embedding("Paris") == query


async def test_the_cache_shows_and_deletes_what_the_store_holds(fake: F2LLMEmbedding) -> None:
    fake.embeddings_cache = SimpleKVStore()
    fake.get_text_embedding("Paris")
    cache = fake.embeddings_cache
    first, second = cache.get_all(collection=CACHE_COLLECTION), await cache.aget_all(collection=CACHE_COLLECTION)
    assert first == second
    (key,) = first
    assert cache.delete(key, collection=CACHE_COLLECTION) is True
    assert await cache.adelete(key, collection=CACHE_COLLECTION) is False
    assert await cache.aget("Paris") is None


def test_the_ingestion_hash_differs_for_each_setting(tiny: Path, tmp_path: Path) -> None:
    """HuggingFaceEmbedding's is equal for different dimensions: they are no fields."""
    again = write_checkpoint(tmp_path / tiny.name, seed=5)  # trained further, under the same name
    settings: list[dict[str, Any]] = [
        {}, {"dimensions": 32}, {"dimensions": 16}, {"instruction": "Find it"}, {"instruction": ""}, {"task": "sts"},
        {"max_length": 64}, {"dtype": "bfloat16"}, {"on_overflow": "truncate"},
    ]  # fmt: skip
    made = [F2LLMEmbedding(tiny, **chosen) for chosen in settings]
    nodes = [TextNode(text="a")]
    hashes = [get_transformation_hash(nodes, each) for each in (*made, F2LLMEmbedding(again))]
    assert len(set(hashes)) == len(hashes)
    cached = F2LLMEmbedding(tiny, embeddings_cache=SimpleKVStore())
    assert get_transformation_hash(nodes, cached) == hashes[0]


def test_retrained_weights_in_the_same_folder_change_the_ingestion_hash(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    nodes = [TextNode(text="a")]
    before = get_transformation_hash(nodes, F2LLMEmbedding(folder))
    write_checkpoint(folder, seed=9)
    assert get_transformation_hash(nodes, F2LLMEmbedding(folder)) != before


async def test_ingestion_pipeline_with_cache_and_upserts() -> None:
    encoder = FakeEncoder()
    made = F2LLMEmbedding.from_encoder(encoder)
    store = F2LLMVectorStore.open(":memory:", embed_model=made)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0, id_func=content_id), made],
        cache=IngestionCache(),
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
        vector_store=store,
    )
    pipeline.run(documents=DOCUMENTS)
    pipeline.run(documents=DOCUMENTS)
    await pipeline.arun(documents=DOCUMENTS)
    assert store.client.count() == 3
    assert encoder.document_calls == [3]
    changed = Document(text="Everyone has the right to free education.", id_="art-26", metadata={"language": "en"})
    pipeline.run(documents=[changed, *DOCUMENTS[1:]])
    assert sorted(node.get_content()[:12] for node in store.get_nodes()) == [
        "Chacun a dro",
        "Everyone has",
        "Jeder hat da",
    ]
    assert encoder.document_calls == [3, 1]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the pipeline's own, about forks and event loops
def test_ingestion_pipeline_with_two_workers(tiny: Path, embedding: F2LLMEmbedding) -> None:
    """The workers get the settings, load for themselves and give equal vectors."""
    made = F2LLMEmbedding(tiny, dtype="float32", num_workers=2, embeddings_cache=SimpleKVStore())
    pipeline = IngestionPipeline(transformations=[made], disable_cache=True)
    nodes = pipeline.run(documents=DOCUMENTS, num_workers=2)
    wanted = embedding([Document(**document.to_dict()) for document in DOCUMENTS])
    np.testing.assert_allclose(
        [node.embedding for node in sorted(nodes, key=lambda each: each.node_id)],
        [node.embedding for node in sorted(wanted, key=lambda each: each.node_id)],
        atol=1e-6,
    )


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")  # the other store asks for some
@pytest.mark.parametrize("home", ["ours in memory", "ours in a folder", "llama-index-vector-stores-qdrant"])
async def test_vector_store_index_over_qdrant_with_filters(home: str, tmp_path: Path, fake: F2LLMEmbedding) -> None:
    vector_store: Any
    if home == "llama-index-vector-stores-qdrant":
        qdrant = pytest.importorskip("llama_index.vector_stores.qdrant")
        from qdrant_client import QdrantClient

        vector_store = qdrant.QdrantVectorStore(client=QdrantClient(":memory:"), collection_name="plain")
    else:
        location = ":memory:" if home.endswith("memory") else tmp_path
        vector_store = F2LLMVectorStore.open(location, embed_model=fake)
    context = StorageContext.from_defaults(vector_store=vector_store)
    index = VectorStoreIndex.from_documents(DOCUMENTS, storage_context=context, embed_model=fake)
    found = index.as_retriever(similarity_top_k=1).retrieve("the right to education")
    assert found[0].node.ref_doc_id == "art-26"
    french = MetadataFilters(filters=[MetadataFilter(key="language", value="fr")])
    found = index.as_retriever(similarity_top_k=3, filters=french).retrieve("the right to education")
    assert [hit.node.ref_doc_id for hit in found] == ["art-24"]
    if home != "llama-index-vector-stores-qdrant":  # the other store needs a second, asynchronous client
        hits = await index.as_retriever(similarity_top_k=2).aretrieve("Recht auf Arbeit")
        assert hits[0].node.ref_doc_id == "art-23"
        vector_store.close()
