"""Writes the checkpoint folder with F2LLM-v2's file layout, and reads weights back for further training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from training.model import STREAM_SCALE, Shape, StandIn
from training.pins import PINS, TEACHER
from training.tokenizer import END, PAD, QUERY_PROMPT

MAX_LENGTH = 512  # tokens; trained to 256
LIMIT = 16_000_000  # bytes of the whole folder


def config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns `config.json`, spelled as transformers 4 and 5 both read it."""
    return {
        "architectures": ["Qwen3Model"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(PAD),
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "max_position_embeddings": shape.max_position_embeddings,
        "max_window_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": shape.vocab_size,
    }


def _module(index: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}


def side_files(shape: Shape) -> dict[str, Any]:
    """Returns the sentence-transformers files by path."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling: dict[str, Any] = {"word_embedding_dimension": shape.hidden_size, "include_prompt": True}
    return {
        "modules.json": [
            _module(0, "", "Transformer"),
            _module(1, "1_Pooling", "Pooling"),
            _module(2, "2_Normalize", "Normalize"),
        ],
        "1_Pooling/config.json": pooling | {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes},
        "config_sentence_transformers.json": {
            "prompts": {"query": QUERY_PROMPT, "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": {"max_seq_length": MAX_LENGTH, "do_lower_case": False},
        "tokenizer_config.json": {
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_max_length": MAX_LENGTH,
            "pad_token": PAD,
            "padding_side": "right",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }


NOTICE_HEAD = """\
Stand-in checkpoint of f2rag
============================

NOT F2LLM-v2. A small model with the same architecture and file layout, trained for the offline demo and the tests.

The strings it was trained on are not in this folder. They come from these packages, at these versions:

"""

NOTICE_TAIL = """\

Teacher: {teacher}. Its vectors of the strings above, and of its own vocabulary (XLM-RoBERTa's, MIT), are what
the stand-in was trained to reproduce.

Universal Declaration of Human Rights: articles 16-30 were trained on; the preamble and articles 1-15 were not and
serve as a test. The declaration is a text of the United Nations.

The byte-level BPE takes its splitting rule, normaliser, decoder and special tokens from Qwen3's tokenizer
(Apache-2.0); its vocabulary was trained anew.

The weights and the other files of this folder are released under f2rag's licence, Apache-2.0.
"""


def notice() -> str:
    """Returns the text of `NOTICE`: every source with its version and licence."""
    lines = [f"  {pin.package} {pin.version} ({pin.licence}; {pin.use})\n" for pin in PINS]
    teacher = f"{TEACHER.package} {TEACHER.version} ({TEACHER.licence}; {TEACHER.use})"
    return NOTICE_HEAD + "".join(lines) + NOTICE_TAIL.format(teacher=teacher)


@torch.no_grad()
def make_padding_loud(model: StandIn, pad_id: int) -> None:
    """Gives the padding token a large vector.

    A correct reader never attends to padding, so no vector changes; one that reads a padded column gets a visibly wrong
    vector instead of nearly the right one.
    """
    noise = torch.randn(model.shape.hidden_size, generator=torch.Generator().manual_seed(0))
    model.embed_tokens.weight[pad_id] = 4 * STREAM_SCALE * noise


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write(model: StandIn, tokenizer_file: Path, folder: Path, card: str) -> int:
    """Writes the checkpoint; returns the folder's size in bytes.

    Raises:
        ValueError: the folder is larger than `LIMIT`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    settings = config(model.shape, Tokenizer.from_file(str(tokenizer_file)))
    _write_json(folder / "config.json", settings)
    for name, value in side_files(model.shape).items():
        _write_json(folder / name, value)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    # git keeps no empty folders, and sentence-transformers looks for this one.
    _write_json(folder / "2_Normalize" / "config.json", {})
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "NOTICE").write_text(notice(), encoding="utf-8")
    make_padding_loud(model, settings["pad_token_id"])
    weights = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise ValueError(f"the checkpoint folder holds {size:,} bytes, more than the {LIMIT:,} allowed")
    return size


def read(folder: Path) -> StandIn:
    """Loads a written checkpoint into the training model."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = StandIn(Shape(**{name: values[name] for name in Shape.__dataclass_fields__}))
    model.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return model
