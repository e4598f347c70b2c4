"""Where a checkpoint's files lie, what its config says, and whether they can be trusted.

Reads configs and safetensors headers only; no weight is read here and torch is not imported. Repairs, in memory and
never on disk, the two mistakes that are known in published F2LLM-v2 files: 28 ``layer_types`` in pruned models of 8, 9
or 16 layers, and a wrong width in ``1_Pooling``.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from f2rag.errors import CorruptCheckpointError, InstructionError, ModelLoadError, ModelNotFoundError
from f2rag.models import STAND_IN_FOLDER, ResolvedModel

CONFIG_PATTERNS = ("*.json", "1_Pooling/*.json", "2_Normalize/*.json")
"""Small files: configs and the tokenizer; enough to know dimensions and to count tokens."""

WEIGHT_PATTERNS = (*CONFIG_PATTERNS, "model*.safetensors")
"""All that is needed to embed; the repositories hold hundreds of gigabytes more on other branches."""

_HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""

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
    def rope_theta(self) -> float:
        """The base of the rotary frequencies, wherever this version of the config format keeps it."""
        return float(self.config["rope_theta"])

    @property
    def maximum_length(self) -> int:
        """Positions that the architecture allows."""
        return int(self.config.get("max_position_embeddings", 40960))


def locate(
    model: ResolvedModel,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> Path:
    """Find the model's folder, downloading the needed files of one pinned revision if that is allowed.

    Args:
        model: What the model name resolved to.
        revision: Commit, tag or branch instead of the pinned one.
        cache_folder: Instead of the Hugging Face cache.
        local_files_only: Never ask the hub.
        weights: ``False`` fetches configs and tokenizer only.

    Raises:
        ModelNotFoundError: Not in the folder, not in the cache and not to be had from the hub.
        ModelLoadError: The download failed for another reason, for example no disk space.
    """
    if model.folder is not None:
        if not (model.folder / "config.json").is_file():
            message = (
                f"{str(model.folder)!r} was given as a model folder; it has no config.json. "
                "Give the folder that holds config.json, tokenizer.json and model.safetensors."
            )
            raise ModelNotFoundError(message)
        return model.folder
    return _download(
        model.repo,
        revision=revision or model.revision,
        cache_folder=cache_folder,
        local_files_only=local_files_only,
        weights=weights,
    )


def read_checkpoint(model: ResolvedModel, folder: Path, *, revision: str | None = None) -> Checkpoint:
    """Read and repair the config of the model in ``folder``.

    Raises:
        CorruptCheckpointError: ``config.json`` is not JSON, is incomplete, or describes another architecture.
    """
    raw = _read_json(folder / "config.json")
    config, repairs = repair_config(raw, folder=folder)
    repairs += _pooling_overrides(folder, hidden_size=int(config["hidden_size"]))
    if model.folder is None:
        model_id, known = model.repo, revision or model.revision or folder.name
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
    repairs = _repair_layer_types(config, folder=folder)
    rope = config.get("rope_parameters") or {}
    # transformers 5 writes rope_parameters, version 4 reads rope_theta: with only one of them the other version would
    # silently take its own default base.
    config["rope_theta"] = config.get("rope_theta") or rope.get("rope_theta") or 1_000_000.0
    return config, repairs


def default_instruction(folder: Path) -> str | None:
    """The instruction in a folder's own query prompt; ``""`` for an empty prompt, ``None`` if none is stored.

    Raises:
        InstructionError: The prompt is not F2LLM-v2's template, so that f2rag cannot tell what to put before a query.
    """
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return None
    prompt = (_read_json(path).get("prompts") or {}).get("query")
    if not prompt:
        return prompt if prompt is None else ""
    match = _TEMPLATE.fullmatch(prompt)
    if match is None:
        message = (
            f"{str(folder)!r} stores the query prompt {prompt!r}; expected the form 'Instruct: ...\\nQuery: '. "
            "Pass instruction=... (the sentence only, or '' for none) to decide it yourself."
        )
        raise InstructionError(message)
    return match["instruction"]


def stored_max_length(folder: Path) -> int | None:
    """``max_seq_length`` of ``sentence_bert_config.json``, if the folder has one."""
    path = folder / "sentence_bert_config.json"
    value = _read_json(path).get("max_seq_length") if path.is_file() else None
    return value if isinstance(value, int) else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each checked to be whole.

    Raises:
        ModelNotFoundError: There are none.
        CorruptCheckpointError: One is missing, cut short, or a git-lfs pointer.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
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

    Covers the config, the tokenizer, and of each weight file the size, the header (all names, shapes and offsets) and
    64 KiB at sixteen places; so a 28 GB model is recognised in milliseconds, and any training step changes it.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"\0")
    for file in sorted(folder.glob("model*.safetensors")):
        for block in _samples(file):
            digest.update(block)
    return f"sha256:{digest.hexdigest()[:40]}"


def _samples(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    yield f"{file.name}:{size}".encode()
    with file.open("rb") as stream:
        yield stream.read(1 << 20)
        for part in range(16):
            stream.seek(size * part // 16)
            yield stream.read(1 << 16)


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


def _pooling_overrides(folder: Path, *, hidden_size: int) -> list[str]:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return ["no 1_Pooling was stored; last-token pooling is used (other loaders would take the mean)"]
    stored = _read_json(path)
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
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == b"version ":
            message = (
                f"{file.name} in {str(file.parent)!r} is a git-lfs pointer, not weights. Run 'git lfs pull' there."
            )
            raise CorruptCheckpointError(message)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        header = stream.read(length) if length < size else b""
    try:
        entries = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError) as error:
        message = f"{file.name} in {str(file.parent)!r} ({size} bytes) has no readable header. Download it again."
        raise CorruptCheckpointError(message) from error
    expected = 8 + length + end
    if size != expected:
        message = (
            f"{file.name} in {str(file.parent)!r} has {size} bytes; its header promises {expected}. "
            "The download was cut short: delete the file and download it again."
        )
        raise CorruptCheckpointError(message)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path.name} in {str(path.parent)!r} cannot be read as JSON ({error}). Download it again."
        raise CorruptCheckpointError(message) from error
    if not isinstance(content, dict):
        message = f"{path.name} in {str(path.parent)!r} holds no JSON object. Download it again."
        raise CorruptCheckpointError(message)
    return content


def _download(
    repo: str,
    *,
    revision: str | None,
    cache_folder: str | Path | None,
    local_files_only: bool,
    weights: bool,
) -> Path:
    from huggingface_hub import errors as hub

    wanted = f"{repo} at revision {revision or 'main'}"
    cached = _cached(repo, revision=revision, cache_folder=cache_folder, weights=weights)
    # A commit never changes: once it is here, nothing is asked of the hub again.
    if cached is not None and (local_files_only or _is_commit(revision)):
        return cached
    try:
        return _fetch(repo, revision, cache_folder, local_files_only=local_files_only, weights=weights)
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError) as error:
        message = f"{wanted} does not exist on the hub, or needs a login. Check the name with 'f2rag models'."
        raise ModelNotFoundError(message) from error
    except Exception as error:  # the hub's client lets errors of several HTTP libraries through, by version
        if cached is not None:
            return cached
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = f"The disk is full: {wanted} could not be stored. Free space, or give another cache_folder."
            raise ModelLoadError(message) from error
        asked = "not asked (local_files_only)" if local_files_only else f"not reachable ({type(error).__name__})"
        message = (
            f"{wanted} is not in the local cache, and the hub was {asked}. Download it once with 'hf download {repo}' "
            "where there is a connection, give a local folder, or use model='stand-in'."
        )
        raise ModelNotFoundError(message) from error


def _fetch(
    repo: str, revision: str | None, cache_folder: str | Path | None, *, local_files_only: bool, weights: bool
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if not local_files_only:
        # One question with a short limit: without a connection the download itself retries for half a minute.
        HfApi().repo_info(repo, revision=revision, timeout=_HUB_TIMEOUT)
    folder = snapshot_download(
        repo,
        revision=revision,
        cache_dir=cache_folder,
        local_files_only=local_files_only,
        allow_patterns=list(WEIGHT_PATTERNS if weights else CONFIG_PATTERNS),
    )
    return Path(folder)


def _cached(repo: str, *, revision: str | None, cache_folder: str | Path | None, weights: bool) -> Path | None:
    """The folder in the local cache, if it holds all that is needed."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", cache_dir=cache_folder, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    if not (folder / "tokenizer.json").is_file():
        return None
    if weights:
        try:
            weight_files(folder)
        except ModelLoadError:
            return None
    return folder


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
