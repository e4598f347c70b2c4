"""Engines that are not torch: OpenVINO and ONNX through sentence-transformers, and llama.cpp.

Each runs in the environment that has it (``make bench-peers``). What it needs of the checkpoint in its own format is
made once and kept beside it, outside any measured time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import Made, through_sentence_transformers

_OPENVINO_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Left to itself it computes in bfloat16 where the processor can, whatever the weights' dtype."""

_QUANTISED = "model_int8.onnx"


def openvino(*, folder: str, max_length: int, precision: str, **_: Any) -> Made:
    """sentence-transformers with ``backend="openvino"``; int8 is its weight compression."""
    from sentence_transformers import SentenceTransformer

    exported = Path(folder) / "exports" / "openvino"
    options: dict[str, Any] = {"ov_config": {"INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[precision]}}
    if not exported.is_dir():
        made = SentenceTransformer(
            folder, device="cpu", backend="openvino", model_kwargs={"export": True, "load_in_8bit": False}
        )
        made.save_pretrained(str(exported))
    if precision == "int8":
        options["load_in_8bit"] = True
    model = SentenceTransformer(str(exported), device="cpu", backend="openvino", model_kwargs=options)
    model.max_seq_length = max_length
    return through_sentence_transformers(model, dtype=precision)


def onnx(*, folder: str, max_length: int, precision: str, **_: Any) -> Made:
    """sentence-transformers with ``backend="onnx"``; int8 is its dynamic quantisation for this processor."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    exported = Path(folder) / "exports" / "onnx"
    options: dict[str, Any] = {"provider": "CPUExecutionProvider"}
    if not exported.is_dir():
        made = SentenceTransformer(
            folder, device="cpu", backend="onnx", model_kwargs={"export": True, "dtype": "float32", **options}
        )
        made.save_pretrained(str(exported))
    if precision == "int8":
        if not (exported / "onnx" / _QUANTISED).is_file():
            made = SentenceTransformer(str(exported), device="cpu", backend="onnx", model_kwargs=dict(options))
            target = "avx512_vnni" if "avx512_vnni" in _flags() else "avx2"
            export_dynamic_quantized_onnx_model(made, target, str(exported), file_suffix="int8")
        options["file_name"] = _QUANTISED
    model = SentenceTransformer(str(exported), device="cpu", backend="onnx", model_kwargs=options)
    model.max_seq_length = max_length
    _give_positions(model[0])
    return through_sentence_transformers(model, dtype=precision)


def _give_positions(transformer: Any) -> None:
    """Add the positions that the exported Qwen3 asks for and that sentence-transformers does not give."""
    network = transformer.auto_model
    forward = network.forward

    def with_positions(*arguments: Any, **features: Any) -> Any:
        if features.get("position_ids") is None:
            features["position_ids"] = (features["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return forward(*arguments, **features)

    network.forward = with_positions


def llama_cpp(*, folder: str, max_length: int, query_prefix: str, precision: str, **_: Any) -> Made:
    """llama-cpp-python's ``embed`` over a GGUF file of the same weights, on all cores.

    Text by text and with flash attention, each of which is faster: texts of one call share a batch in which every
    token is compared with all others and the rest masked. Measured with 12 texts, bf16, on 2 cores of an EPYC:
    449 tokens/s with neither, 1,009 with both.
    """
    import llama_cpp as library  # type: ignore[import-not-found,unused-ignore]  # only where the peers are

    from benchmarks.speed.gguf_file import write_gguf

    file = Path(folder) / "exports" / f"{precision}.gguf"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        write_gguf(Path(folder), file, precision=precision)
    cores = os.cpu_count() or 1
    model = library.Llama(
        str(file),
        embedding=True,
        pooling_type=library.LLAMA_POOLING_TYPE_LAST,
        n_ctx=max_length,
        n_batch=max_length,
        n_ubatch=max_length,
        n_threads=cores,
        n_threads_batch=cores,
        flash_attn=True,
        verbose=False,
    )
    return Made(
        documents=lambda texts, _: [model.embed(text, normalize=True) for text in texts],
        queries=lambda texts, _: [model.embed(query_prefix + text, normalize=True) for text in texts],
        facts={"dtype": precision},
    )


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    return set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
