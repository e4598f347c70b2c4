"""Who takes part, what each needs, and how each is made: as its own documentation says, nothing tuned but what is said.

``ENTRIES`` is plain data that the parent reads; the makers below it run in the contestant's own process, import its
packages there, and give back two functions. Nothing here imports f2rag, torch or a peer before a maker is called: the
workers of other virtual environments read this file, too.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Embed = Callable[[Sequence[str], int | None], Any]
"""From texts and a batch size (``None`` for the package's own) to vectors in whatever form the package gives them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A contestant that is ready.

    Attributes:
        documents: Embeds bare texts.
        queries: Embeds texts with the instruction in front, which the contestant puts there itself.
        facts: ``dtype`` that it computes in, and what else a reader should know.
        aquery: Embeds one query without blocking the event loop; ``None`` runs ``queries`` in a thread.
        prepare: Told the texts' lengths in tokens before they are embedded; only the limit wants them.
    """

    documents: Embed
    queries: Embed
    facts: dict[str, Any]
    aquery: Callable[[str], Awaitable[Any]] | None = None
    prepare: Callable[[list[int]], dict[str, Any]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One contestant, as data.

    Attributes:
        key: Short name for options and files.
        label: For people.
        maker: ``module:function`` that makes it, called with the keywords of ``common`` and one of ``variants``.
        needs: Modules without which it is skipped.
        get: How to get them.
        variants: Settings to try; with several, or several batch sizes, the fastest in a short trial takes part.
        batch_sizes: To try; ``None`` is the package's own.
        everywhere: Takes part in every workload, and not in P and M alone.
        devices: Kinds of device that it runs on.
        honours_isa: Whether the environment variables that mask instruction sets reach it.
        needs_compiler: Whether it compiles code while it runs.
        ours: Whether it is f2rag.
        like: Takes variant and batch size of this other entry's trial, instead of a trial of its own.
    """

    key: str
    label: str
    maker: str
    needs: tuple[str, ...]
    get: str
    variants: tuple[dict[str, Any], ...] = ({},)
    batch_sizes: tuple[int | None, ...] = (None,)
    everywhere: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    honours_isa: bool = True
    needs_compiler: bool = False
    ours: bool = False
    like: str | None = None


OURS = "f2rag"
LIMIT = "limit"

_HERE = "benchmarks.speed.contestants"
_OUTSIDE = "benchmarks.speed.external"
_ST = ("sentence_transformers", "torch")
_GET_ST = "pip install sentence-transformers"
_PEERS = "make bench-peers"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        key=OURS,
        ours=True,
        label="f2rag, nothing set",
        maker=f"{_HERE}:f2rag_encoder",
        needs=("f2rag", "torch"),
        get="pip install f2rag",
        everywhere=True,
    ),
    Entry(
        key="langchain-f2llm",
        ours=True,
        label="langchain-f2llm, nothing set",
        maker=f"{_HERE}:langchain_f2llm",
        needs=("langchain_f2llm", "torch"),
        get="pip install langchain-f2llm",
    ),
    Entry(
        key="llama-index-f2llm",
        ours=True,
        label="llama-index-embeddings-f2llm, nothing set",
        maker=f"{_HERE}:llama_index_f2llm",
        needs=("llama_index.embeddings.f2llm", "torch"),
        get="pip install llama-index-embeddings-f2llm",
    ),
    Entry(
        key="st-default",
        label="sentence-transformers, default",
        maker=f"{_HERE}:sentence_transformers",
        needs=_ST,
        get=_GET_ST,
        everywhere=True,
    ),
    Entry(
        key="st-tuned",
        label="sentence-transformers, best tuned",
        maker=f"{_HERE}:sentence_transformers",
        needs=_ST,
        get=_GET_ST,
        variants=({"dtype": "float32"}, {"dtype": "bfloat16"}),
        batch_sizes=(8, 32, 128, 512),
        everywhere=True,
    ),
    Entry(
        key="st-compiled",
        label="sentence-transformers, best tuned and compiled",
        maker=f"{_HERE}:sentence_transformers",
        needs=_ST,
        get=_GET_ST,
        variants=({"compiled": True},),
        everywhere=True,
        needs_compiler=True,
        like="st-tuned",
    ),
    Entry(
        key="langchain-huggingface",
        label="langchain-huggingface, default",
        maker=f"{_HERE}:langchain_huggingface",
        needs=("langchain_huggingface", *_ST),
        get="pip install langchain-huggingface sentence-transformers",
    ),
    Entry(
        key="llama-index-huggingface",
        label="llama-index-embeddings-huggingface, default",
        maker=f"{_HERE}:llama_index_huggingface",
        needs=("llama_index.embeddings.huggingface", *_ST),
        get="pip install llama-index-embeddings-huggingface",
    ),
    Entry(
        key="transformers",
        label="transformers in a loop, one text at a time",
        maker=f"{_HERE}:transformers_loop",
        needs=("transformers", "torch"),
        get="pip install transformers torch",
    ),
    *(
        Entry(
            key=f"openvino-{short}",
            label=f"OpenVINO {short} through sentence-transformers",
            maker=f"{_OUTSIDE}:openvino",
            needs=("openvino", "optimum.intel", *_ST),
            get=_PEERS,
            variants=({"precision": precision},),
            batch_sizes=(8, 32),
            devices=("cpu",),
            honours_isa=False,
        )
        for short, precision in (("fp32", "float32"), ("bf16", "bfloat16"), ("int8", "int8"))
    ),
    *(
        Entry(
            key=f"onnx-{short}",
            label=f"ONNX {short} through sentence-transformers",
            maker=f"{_OUTSIDE}:onnx",
            needs=("onnxruntime", "optimum.onnxruntime", *_ST),
            get=_PEERS,
            variants=({"precision": precision},),
            batch_sizes=(8, 32),
            devices=("cpu",),
            honours_isa=False,
        )
        for short, precision in (("fp32", "float32"), ("int8", "int8"))
    ),
    *(
        Entry(
            key=f"llama-cpp-{short}",
            label=f"llama.cpp {short} through llama-cpp-python",
            maker=f"{_OUTSIDE}:llama_cpp",
            needs=("llama_cpp", "gguf", "torch"),
            get=_PEERS,
            variants=({"precision": precision},),
            devices=("cpu",),
            honours_isa=False,
        )
        for short, precision in (("f32", "float32"), ("bf16", "bfloat16"), ("q8_0", "q8_0"))
    ),
    Entry(
        key=LIMIT,
        label="the model's own matrix products and attention (the limit)",
        maker="benchmarks.speed.limit:limit",
        needs=("torch",),
        get="pip install torch",
        everywhere=True,
    ),
)
"""Everyone, f2rag first: it is what all ratios are against."""

COMPUTES = ("float32", "bfloat16", "float16")


def make(maker: str, settings: dict[str, Any]) -> Made:
    """Make a contestant in this process.

    Args:
        maker: ``module:function``.
        settings: Its keywords.
    """
    module, function = maker.split(":")
    made: Made = getattr(importlib.import_module(module), function)(**settings)
    return made


def f2rag_encoder(*, folder: str, device: str, max_length: int, dtype: str | None = None, **_: Any) -> Made:
    """The encoder as a user gets it with a folder alone."""
    from f2rag import F2LLMEncoder

    encoder = F2LLMEncoder(folder, device=device, dtype=dtype, max_length=max_length, on_overflow="truncate")
    return Made(
        documents=lambda texts, _: encoder.embed_documents(texts),
        queries=lambda texts, _: encoder.embed_queries(texts),
        aquery=encoder.aembed_query,
        facts={"dtype": encoder.device_plan.dtype, "plan": encoder.device_plan.describe()},
    )


def langchain_f2llm(*, folder: str, device: str, max_length: int, dtype: str | None = None, **_: Any) -> Made:
    """Our LangChain embeddings; the lists that LangChain wants are part of the time."""
    from langchain_f2llm import F2LLMEmbeddings

    embeddings = F2LLMEmbeddings(
        model=folder, device=device, dtype=dtype, max_length=max_length, on_overflow="truncate"
    )
    return Made(
        documents=lambda texts, _: embeddings.embed_documents(texts),
        queries=lambda texts, _: embeddings.embed_queries(texts),
        aquery=embeddings.aembed_query,
        facts={"dtype": _planned(device, dtype)},
    )


def llama_index_f2llm(*, folder: str, device: str, max_length: int, dtype: str | None = None, **_: Any) -> Made:
    """Our LlamaIndex embedding; the lists that LlamaIndex wants are part of the time."""
    from llama_index.embeddings.f2llm import F2LLMEmbedding

    embedding = F2LLMEmbedding(folder, device=device, dtype=dtype, max_length=max_length, on_overflow="truncate")
    return Made(
        documents=lambda texts, _: embedding.get_text_embedding_batch(texts),
        queries=lambda texts, _: embedding.get_query_embedding_batch(texts),
        aquery=embedding.aget_query_embedding,
        facts={"dtype": _planned(device, dtype)},
    )


def sentence_transformers(
    *,
    folder: str,
    device: str,
    max_length: int,
    dtype: str | None = None,
    compiled: bool = False,
    **_: Any,
) -> Made:
    """sentence-transformers' own ``encode_query`` and ``encode_document``; ``dtype=None`` is its default."""
    import torch
    from sentence_transformers import SentenceTransformer

    options = {} if dtype is None else {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    model = SentenceTransformer(folder, device=device, **options)  # type: ignore[arg-type]  # keywords of two kinds
    model.max_seq_length = max_length
    if compiled:
        # The transformer alone: tokenising and pooling around it differ from text to text.
        transformer: Any = model[0]
        transformer.auto_model.compile(dynamic=True)
    return through_sentence_transformers(model, dtype=_dtype_of(model))


def through_sentence_transformers(model: Any, *, dtype: str) -> Made:
    """A contestant of a ``SentenceTransformer`` over any backend."""

    def sized(batch_size: int | None) -> dict[str, Any]:
        chosen = {} if batch_size is None else {"batch_size": batch_size}
        return {"normalize_embeddings": True, "show_progress_bar": False, **chosen}

    return Made(
        documents=lambda texts, batch_size: model.encode_document(list(texts), **sized(batch_size)),
        queries=lambda texts, batch_size: model.encode_query(list(texts), **sized(batch_size)),
        facts={"dtype": dtype},
    )


def langchain_huggingface(*, folder: str, device: str, max_length: int, query_prefix: str, **_: Any) -> Made:
    """LangChain's own package; for queries it is told the prompt, and embeds one at a time."""
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(
        model_name=folder,
        model_kwargs={"device": device},
        encode_kwargs={"normalize_embeddings": True},
        query_encode_kwargs={"normalize_embeddings": True, "prompt": query_prefix},
    )
    model = embeddings._client  # noqa: SLF001 - there is no public way to set the length or to ask for the dtype
    model.max_seq_length = max_length
    return Made(
        documents=lambda texts, _: embeddings.embed_documents(list(texts)),
        queries=lambda texts, _: [embeddings.embed_query(text) for text in texts],
        aquery=embeddings.aembed_query,
        facts={"dtype": _dtype_of(model)},
    )


def llama_index_huggingface(*, folder: str, device: str, max_length: int, query_prefix: str, **_: Any) -> Made:
    """LlamaIndex's own package; for queries it is told the prompt, and embeds one at a time."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(
        model_name=folder, device=device, max_length=max_length, query_instruction=query_prefix
    )
    return Made(
        documents=lambda texts, _: embedding.get_text_embedding_batch(list(texts)),
        queries=lambda texts, _: [embedding.get_query_embedding(text) for text in texts],
        aquery=embedding.aget_query_embedding,
        facts={"dtype": _dtype_of(embedding._model)},  # noqa: SLF001 - there is no public way to ask
    )


def transformers_loop(*, folder: str, device: str, max_length: int, query_prefix: str, **_: Any) -> Made:
    """The plainest use of transformers: no batches, the dtype that it loads by itself."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).to(device).eval()

    def embed(text: str) -> Any:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length).to(device)
        with torch.inference_mode():
            state = model(**ids, use_cache=False).last_hidden_state[0, -1]
        return torch.nn.functional.normalize(state.float(), dim=0).cpu().numpy()

    return Made(
        documents=lambda texts, _: [embed(text) for text in texts],
        queries=lambda texts, _: [embed(query_prefix + text) for text in texts],
        facts={"dtype": str(model.dtype).removeprefix("torch.")},
    )


def _planned(device: str, dtype: str | None) -> str:
    from f2rag.device import plan_device

    return plan_device(device, dtype).dtype


def _dtype_of(model: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(next(model.parameters()).dtype).removeprefix("torch.")
