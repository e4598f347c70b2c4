"""F2LLMVectorStore: nodes go in and come back as they were, in both homes that need no server."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import f2rag
import numpy as np
import pytest
from f2rag.errors import CollectionNotFoundError, ContractMismatchError, DocumentError, InputError, StoreError
from f2rag.store import Layout, Lexical, QdrantStore
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import ImageNode, IndexNode, Node, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode
from qdrant_client import QdrantClient, models

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore

METADATA = {
    "zebra": 1, "apple": [1, 2.5, "x", None, True], "language": "en", "source": "a/b.txt", "nested": {"b": 1, "a": []},
    "with space": "ü", "none": None, "flag": False, "number": -0.5,
}  # fmt: skip


def nodes_of_all_kinds() -> list[Any]:
    first = TextNode(
        text="The hotel is by the lake.\n", id_="any id/1", metadata=METADATA, start_char_idx=3, end_char_idx=29,
        excluded_embed_metadata_keys=["zebra"], excluded_llm_metadata_keys=["apple"], metadata_template="{key}={value}",
        text_template="{content} | {metadata_str}", mimetype="text/markdown",
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc 1", metadata={"page": 1}, hash="h"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="any id/2"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
        },
    )  # fmt: skip
    second = TextNode(
        text="Bread.", id_="any id/2", relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc 1")}
    )
    return [
        first,
        second,
        IndexNode(text="An index", id_="index", index_id="of something"),
        ImageNode(text="A picture", id_="image", image_url="http://example.org/a.png", metadata={"k": 1}),
        Document(text="A whole document", id_="document", metadata={"language": ["en", "fr"], "source": 3}),
        Node(id_="node", text_resource={"text": "A node"}),
        TextNode(text="", id_="empty"),
    ]


def fields(node: Any) -> dict[str, Any]:
    return dict(node.model_dump(exclude={"embedding"}))


def query(fake: F2LLMEmbedding, text: str, **settings: Any) -> VectorStoreQuery:
    return VectorStoreQuery(**{"query_embedding": fake.get_query_embedding(text), "similarity_top_k": 10, **settings})


def test_it_is_a_vector_store_of_llama_index(store: F2LLMVectorStore) -> None:
    assert isinstance(store, BasePydanticVectorStore)
    assert (store.stores_text, store.is_embedding_query, store.class_name()) == (True, True, "F2LLMVectorStore")
    assert isinstance(store.client, QdrantStore)


def test_nodes_come_back_exactly(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    nodes = nodes_of_all_kinds()
    assert store.add(fake(nodes)) == [node.node_id for node in nodes]
    for node, back in zip(nodes, store.get_nodes([node.node_id for node in nodes]), strict=True):
        assert type(back) is type(node)
        assert fields(back) == fields(node)
        assert list(back.metadata) == list(node.metadata), "the order of metadata is part of what is embedded"
        assert back.hash == node.hash
        assert back.ref_doc_id == node.ref_doc_id
    found = store.query(query(fake, "hotel lake"))
    by_id = {node.node_id: fields(node) for node in found.nodes or []}
    assert by_id == {node.node_id: fields(node) for node in nodes}


def test_what_users_see_is_stored_where_everybody_looks(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(fake(nodes_of_all_kinds()[:1]))
    (document,) = store.client.documents()
    assert document.text == "The hotel is by the lake.\n"
    assert (document.language, document.source) == ("en", "a/b.txt")
    assert {key: document.metadata[key] for key in ("zebra", "with space", "none")} == {
        "zebra": 1, "with space": "ü", "none": None,
    }  # fmt: skip
    assert store.client.languages() == {"en": 1}


def test_scores_are_cosines_and_the_best_comes_first(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    nodes = [TextNode(text=text, id_=text) for text in ("red house", "red car", "blue sea", "green field")]
    store.add(fake(nodes))
    found = store.query(query(fake, "red house"))
    vector = np.asarray(fake.get_query_embedding("red house"))
    wanted = {node.node_id: float(vector @ np.asarray(node.embedding)) for node in nodes}
    assert found.ids == sorted(wanted, key=lambda key: -wanted[key])
    assert found.similarities == pytest.approx([wanted[key] for key in found.ids], abs=1e-5)
    assert len(store.query(query(fake, "red house", similarity_top_k=2)).ids or []) == 2
    strict = store.query(query(fake, "red house"), score_threshold=found.similarities[1] - 1e-4, search_mode="exact")
    assert strict.ids == found.ids[:2]


def test_adding_again_replaces(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(fake([TextNode(text="old", id_="1", metadata={"v": 1})]))
    store.add(fake([TextNode(text="new", id_="1", metadata={"v": 2}), TextNode(text="two", id_="2")]))
    store.add(fake([TextNode(text="new", id_="1", metadata={"v": 2})]))
    (node,) = store.get_nodes(["1"])
    assert (store.client.count(), node.get_content(), node.metadata) == (2, "new", {"v": 2})
    assert store.add([]) == []


def test_deleting(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(fake(nodes_of_all_kinds()))
    store.delete("doc 1")
    assert store.get_nodes(["any id/1", "any id/2"]) == []
    store.delete("no such document")
    assert store.client.count() == 5
    store.delete_nodes(["index", "absent"])
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="k", value=1)]))
    assert sorted(node.node_id for node in store.get_nodes()) == ["document", "empty", "node"]
    store.delete_nodes(["node"], filters=MetadataFilters(filters=[MetadataFilter(key="k", value=1)]))
    store.delete_nodes([], filters=MetadataFilters(filters=[MetadataFilter(key="k", value=1)]))
    assert store.client.count() == 3
    with pytest.raises(InputError, match="clear"):
        store.delete_nodes()
    store.clear()
    store.clear()
    assert store.client.count() == 0
    store.add(fake([TextNode(text="the collection stays")]))


def test_getting_nodes(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(
        fake([TextNode(text=f"text {number}", id_=str(number), metadata={"even": number % 2}) for number in range(9)])
    )
    odd = MetadataFilters(filters=[MetadataFilter(key="even", value=1)])
    assert [node.node_id for node in store.get_nodes(["3", "absent", "0"])] == ["3", "0"]
    assert sorted(node.node_id for node in store.get_nodes(filters=odd)) == ["1", "3", "5", "7"]
    assert [node.node_id for node in store.get_nodes(["3", "4"], odd)] == ["3"]
    assert store.get_nodes([], odd) == store.get_nodes([]) == []
    assert len(store.get_nodes()) == 9


async def test_async_twins(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    nodes = nodes_of_all_kinds()
    assert await store.async_add(fake(nodes)) == [node.node_id for node in nodes]
    assert (await store.aquery(query(fake, "hotel"))).ids == store.query(query(fake, "hotel")).ids
    assert len(await store.aget_nodes(["index", "image"])) == 2
    await store.adelete("doc 1")
    await store.adelete_nodes(["index"])
    assert store.client.count() == 4
    await store.aclear()
    assert store.client.count() == 0


def test_node_and_document_ids_restrict_a_query(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(fake(nodes_of_all_kinds()))
    assert set(store.query(query(fake, "x", doc_ids=["doc 1"])).ids or []) == {"any id/1", "any id/2"}
    assert store.query(query(fake, "x", node_ids=["image"])).ids == ["image"]
    assert store.query(query(fake, "x", node_ids=["image"], doc_ids=["doc 1"])).ids == []
    assert len(store.query(query(fake, "x", node_ids=[], doc_ids=[])).ids or []) == 7
    index = VectorStoreIndex.from_vector_store(store, embed_model=fake)
    assert len(index.as_retriever(similarity_top_k=9, doc_ids=["doc 1"]).retrieve("x")) == 2


def test_a_filter_in_qdrants_own_words(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    store.add(fake(nodes_of_all_kinds()))
    own = models.Filter(must=[models.FieldCondition(key="metadata.k", match=models.MatchValue(value=1))])
    assert store.query(query(fake, "x"), qdrant_filters=own).ids == ["image"]
    index = VectorStoreIndex.from_vector_store(store, embed_model=fake)
    assert len(index.as_retriever(vector_store_kwargs={"qdrant_filters": own}).retrieve("x")) == 1


def test_maximal_marginal_relevance(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    texts = ["red house one", "red house two", "red house three", "red sea", "green field"]
    store.add(fake([TextNode(text=text, id_=text) for text in texts]))
    nearest = store.query(query(fake, "red house", similarity_top_k=3))
    only_query = store.query(
        query(fake, "red house", similarity_top_k=3, mode=VectorStoreQueryMode.MMR, mmr_threshold=1.0)
    )
    assert only_query.ids == nearest.ids
    assert only_query.similarities == pytest.approx(nearest.similarities, abs=1e-5)
    various = store.query(
        query(fake, "red house", similarity_top_k=3, mode=VectorStoreQueryMode.MMR), mmr_threshold=0.2
    )
    assert various.ids[0] == nearest.ids[0]  # type: ignore[index]
    assert "green field" in (various.ids or [])
    few = store.query(
        query(fake, "red house", similarity_top_k=2, mode=VectorStoreQueryMode.MMR), mmr_threshold=0.0, mmr_prefetch_k=3
    )
    assert "green field" not in (few.ids or [])
    index = VectorStoreIndex.from_vector_store(store, embed_model=fake)
    hits = index.as_retriever(
        vector_store_query_mode="mmr", similarity_top_k=3, vector_store_kwargs={"mmr_threshold": 0.2}
    ).retrieve("red house")
    assert [hit.node_id for hit in hits] == various.ids
    store.clear()
    assert store.query(query(fake, "x", mode=VectorStoreQueryMode.MMR)).ids == []
    with pytest.raises(InputError, match="mmr_threshold"):
        store.query(query(fake, "x", mode=VectorStoreQueryMode.MMR, mmr_threshold=1.5))


@pytest.mark.parametrize("mode", ["hybrid", "sparse", "text_search", "svm"])
def test_other_modes_are_refused_by_name(store: F2LLMVectorStore, fake: F2LLMEmbedding, mode: str) -> None:
    with pytest.raises(InputError, match=mode):
        store.query(query(fake, "x", mode=VectorStoreQueryMode(mode)))


def test_hybrid_joins_meaning_and_words(fake: F2LLMEmbedding) -> None:
    store = F2LLMVectorStore.open(":memory:", embed_model=fake, layout=Layout(lexical=Lexical()))
    store.add(fake([TextNode(id_="a", text="zebra 4711"), TextNode(id_="b", text="the sea")]))
    asked = query(fake, "the sea", mode=VectorStoreQueryMode.HYBRID)
    asked.query_str = "4711"
    for alpha, best in ((None, "a"), (0.0, "a"), (0.5, "a"), (1.0, "b")):
        asked.alpha = alpha
        found = store.query(asked)
        assert (found.ids or [])[0] == best, alpha
    asked.alpha = 1.5
    with pytest.raises(InputError, match="alpha"):
        store.query(asked)
    asked.query_str = None
    with pytest.raises(InputError, match="query_str"):
        store.query(asked)
    store.close()


def test_bad_queries_and_nodes_are_refused_and_nothing_is_written(
    store: F2LLMVectorStore, fake: F2LLMEmbedding
) -> None:
    with pytest.raises(InputError, match="hnsw"):
        store.query(query(fake, "x"), hnsw=3)
    with pytest.raises(InputError, match="no embedding"):
        store.query(VectorStoreQuery(query_str="x"))
    with pytest.raises(InputError, match="limit"):
        store.query(query(fake, "x", similarity_top_k=0))
    with pytest.raises(ContractMismatchError):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0]))
    good = fake([TextNode(text="good")])[0]
    unit = good.embedding
    for bad, error in (
        (TextNode(text="none", id_="none"), InputError),
        (TextNode(text="nan", embedding=[float("nan")] * 64), InputError),
        (TextNode(text="long", embedding=[1.0] * 64), InputError),
        (TextNode(text="half \ud83d", embedding=unit), DocumentError),
        (TextNode(text="nan", metadata={"n": [{"m": float("nan")}]}, embedding=unit), DocumentError),
    ):
        with pytest.raises(error):
            store.add([good, bad])
    assert store.client.count() == 0


def test_opening(tmp_path: Path, fake: F2LLMEmbedding) -> None:
    with pytest.raises(CollectionNotFoundError):
        F2LLMVectorStore.open(tmp_path)
    with pytest.raises(CollectionNotFoundError):
        F2LLMVectorStore.open(tmp_path, embed_model=fake, create=False)
    with pytest.raises(InputError, match="MockEmbedding"):
        F2LLMVectorStore.open(tmp_path, embed_model=MockEmbedding(embed_dim=8))  # type: ignore[arg-type]
    store = F2LLMVectorStore.open(tmp_path, embed_model=fake.encoder, collection="mine")
    store.add(fake([TextNode(text="a", id_="a")]))
    described = store.to_dict()
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.get_nodes()
    for reopen in (
        lambda: F2LLMVectorStore.from_dict(described),
        lambda: F2LLMVectorStore.open(tmp_path, collection="mine"),
    ):
        again = reopen()
        assert [node.node_id for node in again.get_nodes()] == ["a"]
        again.check(fake)
        pickled = pickle.dumps(again)
        again.close()
    back = pickle.loads(pickled)
    assert (back.collection, back.location, back.client.count()) == ("mine", str(tmp_path), 1)
    back.close()


def test_a_collection_in_memory_or_on_a_server_cannot_come_back_from_a_dictionary(fake: F2LLMEmbedding) -> None:
    described = F2LLMVectorStore.open(":memory:", embed_model=fake).to_dict()
    with pytest.raises(InputError, match="dictionary"):
        F2LLMVectorStore.from_dict(described)
    with pytest.raises(InputError, match="dictionary"):
        F2LLMVectorStore.from_dict({**described, "location": "Qdrant at http://somewhere"})


def test_a_client_of_ones_own_stays_open(fake: F2LLMEmbedding) -> None:
    client = QdrantClient(":memory:")
    store = F2LLMVectorStore.open(client, embed_model=fake)
    store.add(fake([TextNode(text="a", id_="a")]))
    store.close()
    assert client.count("documents").count == 1
    again = F2LLMVectorStore(QdrantStore.open(client))
    assert again.get_nodes()[0].get_content() == "a"


def test_documents_that_the_core_indexed_are_plain_nodes(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    document = f2rag.Document(text="from the core", id="core/1", language="en", source="x", metadata={"k": [1]})
    store.client.upsert([document], fake.encoder.embed_documents([document.text]))
    (node,) = store.get_nodes()
    assert type(node) is TextNode
    assert (node.node_id, node.text) == ("core/1", "from the core")
    assert node.metadata == {"k": [1], "language": "en", "source": "x"}


def test_metadata_that_something_else_changed_is_what_counts(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    nodes = fake(nodes_of_all_kinds()[:1])
    store.add(nodes)
    (stored,) = store.client.documents()
    changed = f2rag.Document(
        text="new text", id=stored.id, metadata={**stored.metadata, "zebra": 2}, payload=stored.payload
    )
    store.client.upsert([changed], fake.encoder.embed_documents(["new text"]))
    (node,) = store.get_nodes()
    assert (node.get_content(), node.metadata["zebra"], "language" in node.metadata) == ("new text", 2, False)
    assert node.ref_doc_id == "doc 1"


def test_an_index_of_both(store: F2LLMVectorStore, fake: F2LLMEmbedding) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=fake)
    index.insert(Document(text="The sea is blue.", id_="sea"))
    index.insert(Document(text="The field is green.", id_="field"))
    assert index.as_retriever(similarity_top_k=1).retrieve("blue sea")[0].node.ref_doc_id == "sea"
    index.delete_ref_doc("sea")
    assert [hit.node.ref_doc_id for hit in index.as_retriever().retrieve("blue sea")] == ["field"]
