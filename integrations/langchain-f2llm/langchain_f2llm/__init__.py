"""F2LLM-v2 for LangChain: embeddings, a vector store on Qdrant and its retriever.

Importing this package loads no model and no torch.
"""

from __future__ import annotations

from langchain_f2llm.embeddings import F2LLMEmbeddings
from langchain_f2llm.retriever import F2LLMRetriever
from langchain_f2llm.vectorstore import F2LLMVectorStore

__version__ = "0.1.0"

__all__ = ["F2LLMEmbeddings", "F2LLMRetriever", "F2LLMVectorStore", "__version__"]
