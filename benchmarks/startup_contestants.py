"""Ways to the first vector in a fresh process, each written as a careful user would.

    python -m benchmarks.startup_contestants NAME FOLDER CACHE  ─►  one line of JSON: when, and the vector

Nothing is imported at the top that a contestant might import itself: imports are most of what is measured.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable

TEXT = "Everyone has the right to rest and leisure. 人人有享有休息和闲暇的权利。"
REPOSITORY_MODEL = "80M"


def ours_folder(folder: str, cache: str) -> list[float]:  # noqa: ARG001 - all take the same
    """F2LLMEncoder with a folder; its content is fingerprinted."""
    from f2rag import F2LLMEncoder

    vector: list[float] = F2LLMEncoder(folder).embed_documents([TEXT])[0].tolist()
    return vector


def ours_cache(folder: str, cache: str) -> list[float]:  # noqa: ARG001
    """F2LLMEncoder with a published name, whose files lie in the hub's cache."""
    from f2rag import F2LLMEncoder

    encoder = F2LLMEncoder(REPOSITORY_MODEL, cache_folder=cache, local_files_only=True)
    vector: list[float] = encoder.embed_documents([TEXT])[0].tolist()
    return vector


def _transformers(folder: str, dtype: str | None) -> list[float]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, **({} if dtype is None else {"dtype": getattr(torch, dtype)}))
    model.eval()
    batch = tokenizer([TEXT], padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    last = batch["attention_mask"].sum(dim=1) - 1
    pooled = states[torch.arange(len(states)), last].float()
    vector: list[float] = torch.nn.functional.normalize(pooled, dim=1)[0].tolist()
    return vector


def transformers_stored(folder: str, cache: str) -> list[float]:  # noqa: ARG001
    """AutoModel and AutoTokenizer in the dtype that is stored, last token pooled by hand."""
    return _transformers(folder, None)


def transformers_float32(folder: str, cache: str) -> list[float]:  # noqa: ARG001
    """The same in float32."""
    return _transformers(folder, "float32")


def sentence_transformers(folder: str, cache: str) -> list[float]:  # noqa: ARG001
    """SentenceTransformer with nothing set."""
    from sentence_transformers import SentenceTransformer

    vector: list[float] = SentenceTransformer(folder).encode_document([TEXT], normalize_embeddings=True)[0].tolist()
    return vector


def langchain_huggingface(folder: str, cache: str) -> list[float]:  # noqa: ARG001
    """HuggingFaceEmbeddings with nothing set."""
    from langchain_huggingface import HuggingFaceEmbeddings

    vector: list[float] = HuggingFaceEmbeddings(model_name=folder).embed_documents([TEXT])[0]
    return vector


CONTESTANTS: dict[str, Callable[[str, str], list[float]]] = {
    "f2rag, a folder": ours_folder,
    "f2rag, the hub's cache": ours_cache,
    "transformers, dtype as stored": transformers_stored,
    "transformers, float32": transformers_float32,
    "sentence-transformers": sentence_transformers,
    "langchain-huggingface": langchain_huggingface,
}


def main() -> None:
    """Make the vector, and say when it was there: the clock is the system's, the same in every process."""
    name, folder, cache = sys.argv[1:]
    warnings.simplefilter("ignore")
    vector = CONTESTANTS[name](folder, cache)
    print(json.dumps({"at": time.perf_counter(), "vector": vector}))


if __name__ == "__main__":
    main()
