"""Where a model's files lie: in a folder, in the cache, or on the hub (one pinned revision, only the needed files)."""

from __future__ import annotations

import errno
from pathlib import Path

from f2rag.checkpoint import is_commit, weight_files
from f2rag.errors import ModelLoadError, ModelNotFoundError
from f2rag.models import ResolvedModel

CONFIG_PATTERNS = ("*.json", "1_Pooling/*.json", "2_Normalize/*.json")
"""Small files: configs and the tokenizer; enough to know dimensions and to count tokens."""

WEIGHT_PATTERNS = (*CONFIG_PATTERNS, "model*.safetensors")
"""All that is needed to embed; the repositories hold hundreds of gigabytes more on other branches."""

_HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""


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
    if cached is not None and (local_files_only or (is_commit(revision) and _has_prompts(cached))):
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


def _has_prompts(folder: Path) -> bool:
    """Without it, nothing tells a half-downloaded folder from a model that stores no prompts."""
    return (folder / "config_sentence_transformers.json").is_file()
