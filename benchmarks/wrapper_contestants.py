"""The packages that ``wrapper_correctness.py`` compares, each used as its documentation says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

Framework = Literal["LangChain", "LlamaIndex"]


class NotApplicableError(Exception):
    """The framework has nothing of the kind."""


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """One embedding package.

    Attributes:
        name: Distribution.
        module: What to import.
        framework: Whose interface it has.
        make: The object for a model's folder, with ``dimensions`` and the framework's own arguments.
    """

    name: str
    module: str
    framework: Framework
    make: Callable[..., Any]

    def query(self, made: Any, text: str) -> Any:
        """Embed a query."""
        return made.embed_query(text) if self.framework == "LangChain" else made.get_query_embedding(text)

    def documents(self, made: Any, texts: Any) -> Any:
        """Embed documents."""
        return made.embed_documents(texts) if self.framework == "LangChain" else made.get_text_embedding_batch(texts)

    def cached(self, model: str) -> Any:
        """The object with its framework's cache for queries and documents."""
        if self.framework == "LlamaIndex":
            from llama_index.core.storage.kvstore import SimpleKVStore

            return self.make(model, embeddings_cache=SimpleKVStore())
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_core.stores import InMemoryByteStore

        made, store = self.make(model), InMemoryByteStore()
        if hasattr(made, "cached"):
            return made.cached(store)
        return CacheBackedEmbeddings.from_bytes_store(
            made, store, namespace=model, query_embedding_cache=True, key_encoder="sha256"
        )

    def round_trip(self, made: Any) -> Any:
        """The object through its framework's dictionary form."""
        if self.framework == "LangChain":
            raise NotApplicableError("LangChain has no such form")
        return type(made).from_dict(made.to_dict())

    def ingestion_key(self, made: Any) -> str:
        """Under what the framework's pipeline caches what the object makes."""
        if self.framework == "LangChain":
            raise NotApplicableError("LangChain has no pipeline")
        from llama_index.core.ingestion.pipeline import get_transformation_hash
        from llama_index.core.schema import TextNode

        return str(get_transformation_hash([TextNode(text="a")], made))


def _langchain_huggingface(model: str, **settings: Any) -> Any:
    from langchain_huggingface import HuggingFaceEmbeddings

    options = {{"dimensions": "truncate_dim"}.get(name, name): value for name, value in settings.items()}
    return HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu", **options})


def _langchain_ours(model: str, **settings: Any) -> Any:
    from langchain_f2llm import F2LLMEmbeddings

    return F2LLMEmbeddings(model=model, dtype="float32", **settings)


def _llama_index_huggingface(model: str, **settings: Any) -> Any:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    options = {{"dimensions": "truncate_dim"}.get(name, name): value for name, value in settings.items()}
    return HuggingFaceEmbedding(model_name=model, device="cpu", **options)


def _llama_index_ours(model: str, **settings: Any) -> Any:
    from llama_index.embeddings.f2llm import F2LLMEmbedding

    return F2LLMEmbedding(model, dtype="float32", **settings)


EMBEDDINGS = (
    Embeddings("langchain-huggingface", "langchain_huggingface", "LangChain", _langchain_huggingface),
    Embeddings("langchain-f2llm", "langchain_f2llm", "LangChain", _langchain_ours),
    Embeddings(
        "llama-index-embeddings-huggingface",
        "llama_index.embeddings.huggingface",
        "LlamaIndex",
        _llama_index_huggingface,
    ),
    Embeddings("llama-index-embeddings-f2llm", "llama_index.embeddings.f2llm", "LlamaIndex", _llama_index_ours),
)


@dataclasses.dataclass(frozen=True)
class Store:
    """One vector-store package.

    Attributes:
        name: Distribution.
        module: What to import.
        framework: Whose interface it has.
        embeddings: The embedding package that it is used with.
        open: The store on a client and an embedding; makes the collection ``documents`` where it is absent.
        suite: The fixture for langchain-tests' own suite, indented by eight blanks.
    """

    name: str
    module: str
    framework: Framework
    embeddings: Embeddings
    open: Callable[[Any, Any], Any]
    suite: str | None = None

    def add(self, store: Any, embedding: Any, texts: Any, **columns: Any) -> None:
        """Add texts; ``ids`` and ``metadatas`` are lists beside them."""
        if self.framework == "LangChain":
            store.add_texts(texts, **columns)
            return
        from llama_index.core import Document, StorageContext, VectorStoreIndex

        ids, metadatas = columns.get("ids"), columns.get("metadatas")
        context = StorageContext.from_defaults(vector_store=store)
        if ids is None:
            listed = [Document(text=text) for text in texts]
            VectorStoreIndex.from_documents(listed, storage_context=context, embed_model=embedding)
            return
        from llama_index.core.schema import TextNode

        rows = zip(texts, ids, metadatas or [{}] * len(ids), strict=True)
        nodes = [TextNode(text=text, id_=key, metadata=metadata) for text, key, metadata in rows]
        VectorStoreIndex(nodes, storage_context=context, embed_model=embedding)

    def add_stream(self, store: Any, embedding: Any, texts: list[str]) -> None:
        """Add texts that come from a generator."""
        if self.framework == "LangChain":
            store.add_texts(text for text in texts)
            return
        from llama_index.core.schema import TextNode

        store.add(node for node in embedding([TextNode(text=text) for text in texts]))

    def best(self, store: Any, embedding: Any, query: str) -> tuple[str, str, dict[str, Any]]:
        """Id, text and metadata of the best hit."""
        if self.framework == "LangChain":
            document = store.similarity_search(query, k=1)[0]
            return document.id, document.page_content, document.metadata
        node = self._retriever(store, embedding).retrieve(query)[0].node
        return node.node_id, node.get_content(), node.metadata

    async def abest(self, store: Any, embedding: Any, query: str) -> str:
        """Text of the best hit, found asynchronously."""
        if self.framework == "LangChain":
            return str((await store.asimilarity_search(query, k=1))[0].page_content)
        return str((await self._retriever(store, embedding).aretrieve(query))[0].node.get_content())

    @staticmethod
    def _retriever(store: Any, embedding: Any) -> Any:
        from llama_index.core import VectorStoreIndex

        return VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=1)


def _langchain_qdrant(client: Any, embedding: Any) -> Any:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import models

    if not client.collection_exists("documents"):
        config = models.VectorParams(size=len(embedding.embed_query("a")), distance=models.Distance.COSINE)
        client.create_collection("documents", vectors_config=config)
    return QdrantVectorStore(client=client, collection_name="documents", embedding=embedding)


def _langchain_store(client: Any, embedding: Any) -> Any:
    from langchain_f2llm import F2LLMVectorStore

    return F2LLMVectorStore(embedding, location=client)


def _llama_index_qdrant(client: Any, embedding: Any) -> Any:  # noqa: ARG001 - the store never asks for it
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    return QdrantVectorStore(client=client, collection_name="documents")


def _llama_index_store(client: Any, embedding: Any) -> Any:
    from llama_index.vector_stores.f2llm import F2LLMVectorStore

    return F2LLMVectorStore.open(client, embed_model=embedding)


STORES = (
    Store(
        "langchain-qdrant",
        "langchain_qdrant",
        "LangChain",
        EMBEDDINGS[0],
        _langchain_qdrant,
        suite="""
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models
        client = QdrantClient(":memory:")
        client.create_collection("c", vectors_config=models.VectorParams(size=6, distance=models.Distance.COSINE))
        yield QdrantVectorStore(client=client, collection_name="c", embedding=self.get_embeddings())
""",
    ),
    Store(
        "langchain-f2llm",
        "langchain_f2llm",
        "LangChain",
        EMBEDDINGS[1],
        _langchain_store,
        suite="""
        from f2rag.testing import FakeEncoder
        from langchain_f2llm import F2LLMEmbeddings, F2LLMVectorStore
        with F2LLMVectorStore(F2LLMEmbeddings.from_encoder(FakeEncoder(dimensions=6))) as store:
            yield store
""",
    ),
    Store(
        "llama-index-vector-stores-qdrant",
        "llama_index.vector_stores.qdrant",
        "LlamaIndex",
        EMBEDDINGS[2],
        _llama_index_qdrant,
    ),
    Store(
        "llama-index-embeddings-f2llm",
        "llama_index.vector_stores.f2llm",
        "LlamaIndex",
        EMBEDDINGS[3],
        _llama_index_store,
    ),
)
