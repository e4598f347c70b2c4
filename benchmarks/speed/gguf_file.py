"""A checkpoint of F2LLM-v2 as a GGUF file, for llama.cpp: the same weights, tokens, EOS and pooling.

Runs in a worker of an environment that has the ``gguf`` package; names of tensors and layouts of numbers are that
package's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

END_OF_TEXT = "<|im_end|>"
PADDING = "<|endoftext|>"

TYPES = {"float32": "F32", "bfloat16": "BF16", "q8_0": "Q8_0"}
"""By our names, gguf's."""


def write_gguf(folder: Path, file: Path, *, precision: str) -> Path:
    """Convert a checkpoint.

    Args:
        folder: With ``config.json``, ``tokenizer.json`` and ``*.safetensors``.
        file: To write.
        precision: Of the matrices, one of ``TYPES``; vectors, which are norms, stay float32.

    Returns:
        ``file``.
    """
    import gguf  # type: ignore[import-not-found,unused-ignore]  # only where the peers are

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = gguf.GGMLQuantizationType[TYPES[precision]]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    _write_shape(writer, config)
    _write_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), config["vocab_size"])
    for name, values in named_tensors(folder, layers=config["num_hidden_layers"]):
        stored = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def named_tensors(folder: Path, *, layers: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Each tensor in float32 under llama.cpp's name for it.

    Raises:
        KeyError: A tensor that llama.cpp has no name for.
    """
    import gguf  # type: ignore[import-not-found,unused-ignore]  # only where the peers are
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no dictionary
                # A bare Qwen3Model leaves out what a causal language model puts in front.
                found = names.get_name(f"model.{name}", try_suffixes=(".weight",))
                if found is None:
                    raise KeyError(name)
                yield found, stored.get_tensor(name).float().numpy()


def _write_shape(writer: Any, config: dict[str, Any]) -> None:
    import gguf  # type: ignore[import-not-found,unused-ignore]  # only where the peers are

    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope_base(config))
    writer.add_pooling_type(gguf.PoolingType.LAST)


def rope_base(config: dict[str, Any]) -> float:
    """The base of the rotary frequencies, wherever this version of transformers stores it."""
    parameters = config.get("rope_parameters") or {}
    return float(parameters.get("rope_theta", config.get("rope_theta", 0)) or config["rope_parameters"]["rope_theta"])


def _write_tokenizer(writer: Any, content: dict[str, Any], size: int) -> None:
    import gguf  # type: ignore[import-not-found,unused-ignore]  # only where the peers are

    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, number in content["model"]["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for each in content["added_tokens"]:
        special = gguf.TokenType.CONTROL if each["special"] else gguf.TokenType.USER_DEFINED
        tokens[each["id"]], types[each["id"]] = each["content"], special
    merges = [each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index(END_OF_TEXT))
    writer.add_pad_token_id(tokens.index(PADDING))
    writer.add_add_bos_token(False)  # noqa: FBT003 - gguf's signature
    writer.add_add_eos_token(True)  # noqa: FBT003 - gguf's signature
