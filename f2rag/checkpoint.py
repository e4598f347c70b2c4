"""What the files of a checkpoint say, and whether they can be trusted.

Reads configs and safetensors headers only; no weight is read here and torch is not imported. Repairs, in memory and
never on disk, the two mistakes that are known in published F2LLM-v2 files: 28 ``layer_types`` in pruned models of 8, 9
or 16 layers, and a wrong width in ``1_Pooling``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from f2rag.errors import CorruptCheckpointError, InstructionError, ModelNotFoundError
from f2rag.models import STAND_IN_FOLDER, ResolvedModel, read_json

_ROPE_THETA = 1_000_000.0
"""Base of the rotary frequencies of all published checkpoints."""

_REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)

_TEMPLATE = re.compile(r"Instruct: (?P<instruction>[^\n]*)\nQuery: ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The files of one model, with its config as it is used.

    Attributes:
        name: What people call the model.
        model_id: Repository id, ``"stand-in"``, or ``local:<folder name>``; goes into contracts.
        revision: Commit of the repository, or a fingerprint of a local folder's content.
        folder: Where the files are.
        config: ``config.json``, repaired.
        repairs: What was repaired or overridden, in words.
    """

    name: str
    model_id: str
    revision: str
    folder: Path
    config: Mapping[str, Any]
    repairs: tuple[str, ...]

    @property
    def hidden_size(self) -> int:
        """The native dimensions, from the config and not from ``1_Pooling``, which lies in some published copies."""
        return int(self.config["hidden_size"])

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of the user's, which may change, and no download or part of f2rag."""
        return self.model_id.startswith("local:")

    @property
    def rope_theta(self) -> float:
        """The base of the rotary frequencies, wherever this version of the config format keeps it."""
        return float(self.config["rope_theta"])

    @property
    def maximum_length(self) -> int:
        """Positions that the architecture allows."""
        return int(self.config.get("max_position_embeddings", 40960))


def read_checkpoint(model: ResolvedModel, folder: Path, *, revision: str | None = None) -> Checkpoint:
    """Read and repair the config of the model in ``folder``.

    Raises:
        CorruptCheckpointError: ``config.json`` is not JSON, is incomplete, or describes another architecture.
    """
    raw = read_json(folder / "config.json")
    config, repairs = repair_config(raw, folder=folder)
    repairs += _pooling_overrides(folder, hidden_size=int(config["hidden_size"]))
    if model.folder is None:
        # A branch or tag may move: the snapshot's folder is named by the commit that is really here.
        given = revision or model.revision
        model_id, known = model.repo, str(given) if is_commit(given) else folder.name
    else:
        model_id = model.name if folder == STAND_IN_FOLDER else f"local:{folder.name}"
        known = fingerprint(folder)
    return Checkpoint(
        name=model.name,
        model_id=model_id,
        revision=known,
        folder=folder,
        config=config,
        repairs=tuple(repairs),
    )


def repair_config(raw: Mapping[str, Any], *, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Check that a config is an F2LLM-v2 one and mend what is known to be wrong in published copies.

    Returns:
        The config to build the model from, and what was changed in words.

    Raises:
        CorruptCheckpointError: Another architecture, or keys that are missing.
    """
    config = dict(raw)
    if config.get("model_type") != "qwen3":
        message = (
            f"{str(folder)!r} holds a model of type {config.get('model_type')!r}; F2LLM-v2 models are 'qwen3'. "
            "Give the folder or repository of an F2LLM-v2 checkpoint."
        )
        raise CorruptCheckpointError(message)
    missing = [key for key in _REQUIRED if not isinstance(config.get(key), int)]
    if missing:
        message = (
            f"config.json in {str(folder)!r} lacks {', '.join(missing)}. "
            "The file is damaged or not a Qwen3 config; download the checkpoint again."
        )
        raise CorruptCheckpointError(message)
    epsilon = config.get("rms_norm_eps", 1e-6)
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or epsilon <= 0:
        # Not every version of transformers looks at it before it computes.
        message = (
            f"config.json in {str(folder)!r} has rms_norm_eps={epsilon!r}; expected a positive number. "
            "The file is damaged; download the checkpoint again."
        )
        raise CorruptCheckpointError(message)
    _refuse_foreign_features(config, folder=folder)
    repairs = _repair_layer_types(config, folder=folder)
    repairs += _repair_rotary_base(config, folder=folder)
    return config, repairs


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPrompts:
    """The instructions in a folder's own prompts; ``""`` for an empty prompt, ``None`` where none is stored."""

    query: str | None
    document: str | None


def stored_prompts(folder: Path) -> StoredPrompts:
    """Read the instructions out of ``config_sentence_transformers.json``.

    Raises:
        InstructionError: A prompt is not F2LLM-v2's template, so that f2rag cannot tell what to put before a text.
        CorruptCheckpointError: The file is damaged.
    """
    path = folder / "config_sentence_transformers.json"
    prompts = (read_json(path).get("prompts") or {}) if path.is_file() else {}
    if not isinstance(prompts, dict):
        message = f"'prompts' in {str(path)!r} is no JSON object. Download the file again."
        raise CorruptCheckpointError(message)
    return StoredPrompts(
        *(_instruction_of(prompts.get(role), role=role, folder=folder) for role in ("query", "document"))
    )


def _instruction_of(prompt: Any, *, role: str, folder: Path) -> str | None:
    if prompt is None or prompt == "":
        return None if prompt is None else ""
    match = _TEMPLATE.fullmatch(prompt) if isinstance(prompt, str) else None
    if match is None:
        message = (
            f"{str(folder)!r} stores the {role} prompt {prompt!r}; expected the form 'Instruct: ...\\nQuery: '. "
            "Pass instruction=... (the sentence only, or '' for none) or task=... to decide it yourself."
        )
        raise InstructionError(message)
    return match["instruction"]


def stored_max_length(folder: Path) -> int | None:
    """``max_seq_length`` of ``sentence_bert_config.json``, if the folder has one."""
    path = folder / "sentence_bert_config.json"
    value = read_json(path).get("max_seq_length") if path.is_file() else None
    usable = isinstance(value, int) and not isinstance(value, bool) and value >= 2
    return value if usable else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each checked to be whole.

    Raises:
        ModelNotFoundError: There are none.
        CorruptCheckpointError: One is missing, cut short, or a git-lfs pointer.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        other = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        hint = f" It has {', '.join(other)}, but pickled weights are never read." if other else ""
        message = (
            f"{str(folder)!r} has no {', '.join(missing) or 'model.safetensors'}.{hint} "
            "Download the safetensors files of the checkpoint into it."
        )
        raise ModelNotFoundError(message)
    for file in files:
        _check_whole(file)
    return files


def fingerprint(folder: Path) -> str:
    """Digest of a local checkpoint's content, the same wherever the folder lies.

    Covers the config, the tokenizer, and of each weight file the size, the header and the first and last 64 bytes of
    every tensor; so a 28 GB model is recognised in milliseconds, and any training step, which moves all tensors,
    changes it.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"\0")
    for file in sorted(folder.glob("model*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
        for block in _samples(file):
            digest.update(block)
    return f"sha256:{digest.hexdigest()[:40]}"


def weights_state(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of each weight file: differs after any of them was written again."""
    states = [(file.name, file.stat()) for file in sorted(folder.glob("model*.safetensors"))]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


def _samples(file: Path) -> Iterator[bytes]:
    header, start = _read_header(file)
    yield json.dumps(header, sort_keys=True).encode()
    with file.open("rb") as stream:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            for position in (begin, max(begin, end - 64)):
                stream.seek(start + position)
                yield stream.read(min(64, end - begin))


def _repair_layer_types(config: dict[str, Any], *, folder: Path) -> list[str]:
    layers = config["num_hidden_layers"]
    types = config.get("layer_types")
    repairs = []
    if types is not None and len(types) > layers:
        repairs.append(f"layer_types had {len(types)} entries for {layers} layers and was cut to {layers}")
        types = types[:layers]
    wrong = types is not None and (len(types) < layers or set(types) != {"full_attention"})
    if wrong or config.get("use_sliding_window"):
        message = (
            f"config.json in {str(folder)!r} has layer_types {sorted(set(types or []))} of {len(types or [])} layers "
            f"(use_sliding_window={config.get('use_sliding_window', False)}); F2LLM-v2 has full attention in all "
            f"{layers}. This is another model, or a damaged config: download the checkpoint again."
        )
        raise CorruptCheckpointError(message)
    config["layer_types"] = ["full_attention"] * layers
    return repairs


def _repair_rotary_base(config: dict[str, Any], *, folder: Path) -> list[str]:
    """Put the rotary base where every version of transformers finds it.

    Version 5 writes ``rope_parameters``, version 4 reads ``rope_theta``: with only one of them the other version would
    silently take its own default base.
    """
    rope = {**(config.pop("rope_scaling", None) or {}), **(config.pop("rope_parameters", None) or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or not set(rope) <= {"rope_type", "type", "rope_theta"}:
        message = (
            f"config.json in {str(folder)!r} has rotary scaling ({rope}); F2LLM-v2 has none, and versions of "
            "transformers differ in how they read it. Remove it, or use the published config."
        )
        raise CorruptCheckpointError(message)
    theta = config.get("rope_theta") or rope.get("rope_theta")
    config["rope_theta"] = float(theta or _ROPE_THETA)
    return [] if theta else [f"no rotary base was stored; F2LLM-v2's {_ROPE_THETA:,.0f} is used"]


def _refuse_foreign_features(config: Mapping[str, Any], *, folder: Path) -> None:
    if config.get("quantization_config") is not None:
        message = (
            f"{str(folder)!r} holds quantised weights (quantization_config in config.json); f2rag runs float32, "
            "bfloat16 and float16. Use the unquantised checkpoint."
        )
        raise CorruptCheckpointError(message)


def _pooling_overrides(folder: Path, *, hidden_size: int) -> list[str]:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return ["no 1_Pooling was stored; last-token pooling is used (other loaders would take the mean)"]
    stored = read_json(path)
    overrides = []
    width = stored.get("word_embedding_dimension")
    if width is not None and width != hidden_size:
        overrides.append(f"1_Pooling says {width} dimensions; the model has {hidden_size}")
    modes = [key for key, value in stored.items() if key.startswith("pooling_mode_") and value]
    mode = stored.get("pooling_mode") or (modes[0].removeprefix("pooling_mode_") if len(modes) == 1 else modes)
    if mode != "lasttoken":
        overrides.append(f"1_Pooling says {mode!r}; last-token pooling is used, as the models were trained")
    return overrides


def _check_whole(file: Path) -> None:
    header, start = _read_header(file)
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    size = file.stat().st_size
    if size != start + end:
        message = (
            f"{file.name} in {str(file.parent)!r} has {size} bytes; its header promises {start + end}. "
            "The download was cut short: delete the file and download it again."
        )
        raise CorruptCheckpointError(message)


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and where the tensors begin.

    Source: the format's description, https://github.com/huggingface/safetensors#format.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == b"version ":
            message = f"{file.name} in {str(file.parent)!r} is a git-lfs pointer. Run 'git lfs pull' there."
            raise CorruptCheckpointError(message)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        content = stream.read(length) if length < size else b""
    try:
        header = json.loads(content)
        complete = all("data_offsets" in entry for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, AttributeError):
        complete = False
    if not complete:
        message = f"{file.name} in {str(file.parent)!r} ({size} bytes) has no readable header. Download it again."
        raise CorruptCheckpointError(message)
    return header, 8 + length


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a full commit id, which can never move."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
