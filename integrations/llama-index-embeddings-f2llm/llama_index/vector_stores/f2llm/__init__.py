"""f2rag's Qdrant store for LlamaIndex."""

from llama_index.vector_stores.f2llm.base import F2LLMVectorStore
from llama_index.vector_stores.f2llm.nodes import content_id

__all__ = ["F2LLMVectorStore", "content_id"]
