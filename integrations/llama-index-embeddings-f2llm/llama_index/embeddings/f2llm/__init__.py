"""F2LLM-v2 embeddings for LlamaIndex."""

from llama_index.embeddings.f2llm.base import F2LLMEmbedding

__all__ = ["F2LLMEmbedding"]
