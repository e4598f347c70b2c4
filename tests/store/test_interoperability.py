"""What f2rag writes opens in langchain-qdrant and in LlamaIndex's Qdrant store; what those wrote opens in f2rag.

With their own defaults, on a real server and in memory.
"""

from __future__ import annotations

import uuid

import pytest
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore as LangChainStore
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexStore
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from f2rag.store import Layout, Lexical, QdrantStore
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DOCUMENTS = [
    Document(text="the red house", id="a", language="en", source="one.txt", metadata={"year": 1999, "tags": ["x"]}),
    Document(text="la mer bleue", id="b", language="fr", source="two.txt", metadata={"year": 2024}),
]
LAYOUTS = {"plain": Layout(), "rich": Layout(levels=(16,), lexical=Lexical())}

# The comparison with a server of another minor version is deliberate.
pytestmark = pytest.mark.filterwarnings("ignore:.*incompatible with server version.*:UserWarning")


class Fake(Embeddings):
    """LangChain's interface over the fake encoder."""

    def __init__(self, encoder):
        self.encoder = encoder

    def embed_documents(self, texts):
        return self.encoder.embed_documents(texts).tolist()

    def embed_query(self, text):
        return self.encoder.embed_query(text).tolist()


@pytest.fixture(scope="module")
def encoder():
    return FakeEncoder(dimensions=64)


@pytest.fixture(params=["memory", "server"])
def client(request):
    if request.param == "memory":
        made = QdrantClient(location=":memory:")
    else:
        made = request.getfixturevalue("qdrant_server").client()
    yield made
    made.close()


@pytest.fixture
def name():
    return f"interop-{uuid.uuid4().hex}"


@pytest.fixture(params=LAYOUTS)
def filled(request, client, encoder, name):
    layout = LAYOUTS[request.param]
    with QdrantStore.open(client, collection=name, contract=encoder.contract(), layout=layout) as store:
        store.upsert(DOCUMENTS, encoder.embed_documents([document.text for document in DOCUMENTS]))
        yield store


def test_langchain_qdrant_reads_what_f2rag_wrote(filled, client, encoder, name):
    theirs = LangChainStore(client=client, collection_name=name, embedding=Fake(encoder))
    found = theirs.similarity_search("la mer bleue", k=1)[0]
    assert found.page_content == "la mer bleue"
    own = {key: value for key, value in found.metadata.items() if not key.startswith("_")}
    assert own == {"language": "fr", "source": "two.txt", "year": 2024}


def test_llama_index_reads_what_f2rag_wrote(filled, client, encoder, name):
    theirs = LlamaIndexStore(client=client, collection_name=name)
    query = VectorStoreQuery(query_embedding=encoder.embed_query("la mer bleue").tolist(), similarity_top_k=2)
    found = theirs.query(query).nodes
    assert [(node.node_id, node.get_content()) for node in found] == [("b", "la mer bleue"), ("a", "the red house")]
    assert found[1].metadata == {"language": "en", "source": "one.txt", "year": 1999, "tags": ["x"]}
    query.filters = MetadataFilters(filters=[MetadataFilter(key="language", value="en")])
    assert [node.node_id for node in theirs.query(query).nodes] == ["a"]


def test_llama_index_deletes_by_source(filled, client, name):
    LlamaIndexStore(client=client, collection_name=name).delete("one.txt")
    assert [document.key for document in filled.documents()] == ["b"]


def test_f2rag_reads_and_extends_what_langchain_qdrant_wrote(client, encoder, name):
    client.create_collection(name, vectors_config=VectorParams(size=64, distance=Distance.COSINE))
    foreign = LangChainStore(client=client, collection_name=name, embedding=Fake(encoder))
    identifier = str(uuid.uuid4())
    foreign.add_texts(["the red house"], [{"language": "en", "page": 3}], ids=[identifier])
    with QdrantStore.open(client, collection=name, contract=encoder.contract(), adopt=True) as store:
        (hit,) = store.search(encoder.embed_query("red house"), language="en")
        assert (hit.id, hit.text, hit.metadata) == (identifier, "the red house", {"page": 3})
        again = Document(text="the blue house", id=identifier, language="en")
        store.upsert([again], encoder.embed_documents([again.text]))
        assert [document.text for document in store.documents()] == ["the blue house"]
    assert foreign.similarity_search("blue house", k=5)[0].page_content == "the blue house"


def test_f2rag_reads_what_llama_index_wrote(client, encoder, name):
    client.create_collection(name, vectors_config=VectorParams(size=64, distance=Distance.COSINE))
    theirs = LlamaIndexStore(client=client, collection_name=name)
    node = TextNode(
        id_=str(uuid.uuid4()),
        text="the red house",
        metadata={"language": "en", "page": 3},
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
        embedding=encoder.embed_documents(["the red house"])[0].tolist(),
    )
    theirs.add([node])
    with QdrantStore.open(client, collection=name, contract=encoder.contract(), adopt=True) as store:
        (hit,) = store.search(encoder.embed_query("red house"))
        assert (hit.id, hit.text, hit.language, hit.metadata) == (node.node_id, "the red house", "en", {"page": 3})
        assert hit.payload["doc_id"] == "book"


def test_a_document_read_and_written_back_is_unchanged(filled, encoder):
    documents = list(filled.documents())
    assert filled.unchanged(documents) == [True, True]
    own = Document(text="own", id="c", payload={"_node_content": "{}", "topic": "x"})
    filled.upsert([own], encoder.embed_documents([own.text]))
    (read,) = filled.get(["c"])
    assert read.payload == own.payload
    assert filled.unchanged([read]) == [True]
    assert filled.unchanged([Document(text="own", id="c", payload={"topic": "y"})]) == [False]
