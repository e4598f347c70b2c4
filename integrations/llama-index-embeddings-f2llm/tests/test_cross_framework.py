"""One collection, both frameworks: index with one, query with the other, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index.embeddings.f2llm import F2LLMEmbedding
from llama_index.vector_stores.f2llm import F2LLMVectorStore

langchain = pytest.importorskip("langchain_f2llm", reason="langchain-f2llm is not installed")

TEXTS = ["The hotel is by the lake.", "Das Brot wird am Morgen gebacken.", "La porte est fermée."]
LANGUAGES = ["en", "de", "fr"]


@pytest.fixture(params=["memory", "folder"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A home that can be opened twice: one client for both, or a folder that is closed in between."""
    if request.param == "folder":
        return tmp_path / "shared"
    from qdrant_client import QdrantClient

    return QdrantClient(":memory:")


def test_indexed_with_llama_index_and_searched_with_langchain(
    location: Any, tiny: Path, embedding: F2LLMEmbedding
) -> None:
    store = F2LLMVectorStore.open(location, embed_model=embedding, collection="shared")
    nodes = [
        TextNode(
            text=text, id_=f"node/{language}", metadata={"language": language, "page": page},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
        )
        for page, (text, language) in enumerate(zip(TEXTS, LANGUAGES, strict=True))
    ]  # fmt: skip
    VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embedding)
    hits = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=3)
    wanted = [(hit.node_id, hit.score) for hit in hits.retrieve("Wo ist das Hotel?")]
    store.close()

    other = langchain.F2LLMVectorStore(
        langchain.F2LLMEmbeddings(model=str(tiny), dtype="float32"), location=location, collection_name="shared"
    )
    found = other.similarity_search_with_score("Wo ist das Hotel?", k=3)
    assert [document.id for document, _ in found] == [key for key, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-5)
    first = next(document for document, _ in found if document.id == "node/en")
    assert first.page_content == TEXTS[0]
    assert (first.metadata["language"], first.metadata["page"]) == ("en", 0)
    other.delete(["node/en"])
    other.close()

    again = F2LLMVectorStore.open(location, embed_model=embedding, collection="shared")
    assert sorted(node.node_id for node in again.get_nodes()) == ["node/de", "node/fr"]
    assert again.get_nodes(["node/de"])[0].ref_doc_id == "book"
    again.close()


def test_indexed_with_langchain_and_searched_with_llama_index(
    location: Any, tiny: Path, embedding: F2LLMEmbedding
) -> None:
    other = langchain.F2LLMVectorStore(
        langchain.F2LLMEmbeddings(model=str(tiny), dtype="float32"), location=location, collection_name="shared"
    )
    metadata = [{"language": language, "page": page} for page, language in enumerate(LANGUAGES)]
    other.add_texts(TEXTS, metadatas=metadata, ids=[f"any/{language}" for language in LANGUAGES])
    wanted = [(doc.id, score) for doc, score in other.similarity_search_with_score("Wo ist das Hotel?", k=3)]
    other.close()

    store = F2LLMVectorStore.open(location, embed_model=embedding, collection="shared")
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    hits = index.as_retriever(similarity_top_k=3).retrieve("Wo ist das Hotel?")
    assert [hit.node_id for hit in hits] == [key for key, _ in wanted]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in wanted], abs=1e-5)
    german = MetadataFilters(filters=[MetadataFilter(key="language", value="de"), MetadataFilter(key="page", value=1)])
    (hit,) = index.as_retriever(filters=german).retrieve("Wo ist das Hotel?")
    assert hit.node.get_content() == TEXTS[1]
    assert hit.node.metadata == {"language": "de", "page": 1}
    store.close()
