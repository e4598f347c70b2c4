"""The F2LLM-v2 checkpoints as facts, and the way from a name or a folder to one of them.

One frozen row per checkpoint: where it lies, which commit is pinned, its shape, its exact parameter count,
its trained vector sizes and how much text it can take. This file loads no weights, reaches no network and
imports no torch; it does not know which device or dtype a model will run on.

Sources: the paper (arXiv 2603.19223) for shapes, mteb's metadata (2.26.24) for revisions and counts, the
model cards for languages and licence. ``count_parameters`` reproduces every count from its shape.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from f2rag.errors import CorruptCheckpointError, ModelNotFoundError, UnknownModelError
from f2rag.memory import weight_bytes

if TYPE_CHECKING:
    MODELS: tuple[ModelSpec, ...]
    """All rows: the eight instruct sizes, the five Previews, the stand-in. Read on first use."""
    STAND_IN: ModelSpec
    """The small trained checkpoint that ships with f2rag. Read on first use."""

OWNER: Final = "codefuse-ai"
"""The authors' account on the model hub."""

VOCABULARY_SIZE: Final = 151_936
"""Rows of the embedding table (the tokenizer itself has 151,669 entries)."""

EOS_TOKEN: Final = "<|im_end|>"  # noqa: S105  # a token of the tokenizer, no password
"""The token that the tokenizer appends and whose hidden state is the embedding."""

EOS_TOKEN_ID: Final = 151_645
"""Id of ``EOS_TOKEN``; not 151643, which Qwen3-Embedding appends."""

PAD_TOKEN_ID: Final = 151_643
"""Id of ``<|endoftext|>``, the padding token (right side)."""

EVALUATED_LENGTH: Final = 8_192
"""Tokens per text in the authors' own evaluation; nothing is measured beyond."""

MAXIMUM_LENGTH: Final = 40_960
"""Positions of the architecture; also the default that a loader falls through to when nobody caps it."""

STAND_IN_FOLDER: Final = Path(__file__).parent / "data" / "stand_in"
"""Where the stand-in's files lie inside the package."""

_TAGS: Final = (
    "en zh ru es fr de ar nl vi hi ko ja it id pt pl tr da th sv fa uk cs no el ca ro fi bg tl gl my hy km "
    "ne hu eu he lo sw az lv si sk tg et lt ms hr is sl sr ur bn af ta ka te ml mn nn kk cy mr sq nb mk jv "
    "kn eo la gu uz am oc be mg vo pa lb ht br ga xh tt bs yo"
)

LANGUAGES: Final = tuple(_TAGS.split())
"""The 87 language tags on the instruct cards. Training saw over 200 languages; the cards tag only these."""

Kind = Literal["instruct", "preview", "stand-in"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is known about one checkpoint before any of its files is read.

    Attributes:
        name: The name people use, e.g. ``"F2LLM-v2-80M"``.
        repo: Repository on the model hub; empty for the stand-in.
        revision: The pinned commit. ``None`` for the Previews, since no source names a commit of theirs that
            is known to work (mteb has no entry for them): a loader takes the newest.
        hidden_size: Width of the model, which is also the size of its full embedding.
        layers: Number of decoder layers.
        intermediate_size: Width inside each MLP.
        attention_heads: Number of query heads.
        key_value_heads: Number of key and value heads.
        head_dim: Size of one head. Never derive it as ``hidden_size / attention_heads``; five sizes differ.
        vocab_size: Rows of the embedding table.
        parameters: Exact number of parameters.
        kind: ``"preview"`` checkpoints are the stage-1 bases, trained without instructions.
        mrl_dimensions: Vector sizes that the training loss contained, ascending, the native size last. For the
            Previews this is inferred from the training code; no source states it.
        safe_length: Tokens up to which long-text scores hold. A reading of the LongEmbed results per size
            (80M about 1k, 160M 2k, 330M 4k, larger ones 8k); the Previews were never measured and take the
            value of the instruct model of their size.
        evaluated_length: Tokens per text in the authors' evaluation.
        maximum_length: Positions that the architecture has.
        languages: Tags of the languages, or their number where only that is known; 0 where nothing is.
        licence: SPDX identifier of the weights' licence.
        base: The checkpoint that training started from.
        teacher: Name of the model it was distilled from, if it was.
        earlier_revisions: Commits that older results were run on, for information. They do not load on
            transformers 4.57.0 and later: ``layer_types`` has 28 entries for 8, 9 or 16 layers.
    """

    name: str
    repo: str
    revision: str | None
    hidden_size: int
    layers: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    parameters: int
    kind: Kind
    mrl_dimensions: tuple[int, ...]
    safe_length: int
    evaluated_length: int
    maximum_length: int
    languages: int | tuple[str, ...]
    licence: str
    base: str
    teacher: str | None = None
    earlier_revisions: tuple[str, ...] = ()

    @property
    def native_dimensions(self) -> int:
        """Size of the full embedding."""
        return self.hidden_size

    @property
    def takes_instructions(self) -> bool:
        """Whether queries get an instruction; the Previews were trained without any."""
        return self.kind != "preview"

    @property
    def short_name(self) -> str:
        """The name without the family, e.g. ``"80M"`` or ``"0.6B-Preview"``."""
        return self.name.removeprefix("F2LLM-v2-")

    def memory_bytes(self, dtype: str, *, weight_dtype: str | None = None) -> int:
        """Bytes of the weights alone in ``dtype``: float32, bfloat16 or float16.

        Args:
            dtype: Compute dtype.
            weight_dtype: ``"int8"`` or ``"int4"`` for the layers' matrices, which are held rounded then.

        Raises:
            InputError: If one of the two is none of these.
        """
        return weight_bytes(self, dtype=dtype, weight_dtype=weight_dtype)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """What a model name or folder stands for.

    Attributes:
        name: How the model introduces itself.
        repo: Repository on the model hub; empty for a folder.
        revision: The pinned commit, if one is known.
        folder: The local folder (absolute), if it is one.
        spec: The known row. For a folder this is the row of the same shape, for information only: a fine-tune
            has its parent's shape. ``None`` when nothing is known.
        takes_instructions: Whether queries get an instruction.
    """

    name: str
    repo: str
    revision: str | None
    folder: Path | None
    spec: ModelSpec | None
    takes_instructions: bool


def count_parameters(
    *,
    hidden_size: int,
    layers: int,
    intermediate_size: int,
    attention_heads: int,
    key_value_heads: int = 8,
    head_dim: int = 128,
    vocab_size: int = VOCABULARY_SIZE,
) -> int:
    """Parameters of a bare Qwen3 decoder (no language-model head, no biases) of this shape."""
    queries_and_output = 2 * hidden_size * attention_heads * head_dim
    keys_and_values = 2 * hidden_size * key_value_heads * head_dim
    gated_mlp = 3 * hidden_size * intermediate_size
    norms = 2 * hidden_size + 2 * head_dim
    layer = queries_and_output + keys_and_values + gated_mlp + norms
    final_norm = hidden_size
    return vocab_size * hidden_size + layers * layer + final_norm


def mrl_ladder(native_dimensions: int) -> tuple[int, ...]:
    """Vector sizes in the training loss of a model of this width: 8, 16, 32, ... and the width itself.

    Source: the authors' training code (``F2LLM/utils.py``), powers 2^3 to 2^14.
    """
    powers = (2**exponent for exponent in range(3, 15))
    return (*(power for power in powers if power < native_dimensions), native_dimensions)


_TABLE: Final = (
    # size, (hidden size, layers, MLP width, query heads), parameters, safe length, pinned commit
    ("80M", (320, 8, 2_048, 16), 80_084_288, 1_024, "6faa7738f343cd4321f9b2fa92fdb7cae3c117a5"),
    ("160M", (640, 9, 1_536, 16), 159_185_024, 2_048, "4013fb02c4b37ae14fc567fb190051b6cad652f6"),
    ("330M", (896, 16, 2_560, 16), 334_349_184, 4_096, "e8ef9a8eb907a9dffdd9442424a967ba73e70d31"),
    ("0.6B", (1_024, 28, 3_072, 16), 596_049_920, 8_192, "54b4e2dc74e01be7126d4cf5f016af6b21edc563"),
    ("1.7B", (2_048, 28, 6_144, 16), 1_720_574_976, 8_192, "3766d46e7a68545ed6190c15330983f9b39ab718"),
    ("4B", (2_560, 36, 9_728, 32), 4_022_468_096, 8_192, "e04d1a04f4a0e154bf43969d3dcc596bbd92b1f8"),
    ("8B", (4_096, 36, 12_288, 32), 7_568_405_504, 8_192, "5ac7d57351026337281e8e6a23e05cce16e79415"),
    ("14B", (5_120, 40, 17_408, 40), 13_990_394_880, 8_192, "e42037a37e12999db44ce8e1a0e63c366c273f6a"),
)

_EARLIER_REVISIONS: Final = {
    "80M": "35baae5091e26211dbe628f1723448c146fafdf2",
    "160M": "9eb35007d12e8624e6bf3e9e35d2255b5269597f",
    "330M": "b0e8e19bdf603b9826422852572c0d18d482c414",
}
_PREVIEW_SIZES: Final = ("0.6B", "1.7B", "4B", "8B", "14B")
_TEACHERS: Final = {"80M": "0.6B", "160M": "0.6B", "330M": "0.6B", "0.6B": "1.7B", "1.7B": "4B"}


def _instruct(
    size: str, shape: tuple[int, int, int, int], parameters: int, safe_length: int, revision: str
) -> ModelSpec:
    """Fill a line of the table up with what the whole family shares."""
    hidden_size, layers, intermediate_size, attention_heads = shape
    base = f"{size}-Preview" if size in _PREVIEW_SIZES else f"0.6B-Preview-Pruned-{size}"
    return ModelSpec(
        name=f"F2LLM-v2-{size}",
        repo=f"{OWNER}/F2LLM-v2-{size}",
        revision=revision,
        hidden_size=hidden_size,
        layers=layers,
        intermediate_size=intermediate_size,
        attention_heads=attention_heads,
        key_value_heads=8,
        head_dim=128,
        vocab_size=VOCABULARY_SIZE,
        parameters=parameters,
        kind="instruct",
        mrl_dimensions=mrl_ladder(hidden_size),
        safe_length=safe_length,
        evaluated_length=EVALUATED_LENGTH,
        maximum_length=MAXIMUM_LENGTH,
        languages=LANGUAGES,
        licence="Apache-2.0",
        base=f"{OWNER}/F2LLM-v2-{base}",
        teacher=f"F2LLM-v2-{_TEACHERS[size]}" if size in _TEACHERS else None,
        earlier_revisions=(_EARLIER_REVISIONS[size],) if size in _EARLIER_REVISIONS else (),
    )


def _preview(instruct: ModelSpec) -> ModelSpec:
    """The stage-1 base of an instruct model: same shape, no instructions, 44 language tags (unlisted)."""
    return dataclasses.replace(
        instruct,
        name=f"{instruct.name}-Preview",
        repo=f"{instruct.repo}-Preview",
        revision=None,
        kind="preview",
        languages=44,
        base=f"Qwen/Qwen3-{instruct.short_name}",
        teacher=None,
    )


_INSTRUCT: Final = tuple(_instruct(*line) for line in _TABLE)
_PREVIEWS: Final = tuple(_preview(spec) for spec in _INSTRUCT if spec.short_name in _PREVIEW_SIZES)
_REAL: Final = (*_INSTRUCT, *_PREVIEWS)
_STAND_IN_NAMES: Final = ("stand-in", "standin")
# Field of a row -> key of config.json.
_SHAPE_KEYS: Final = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "intermediate_size": "intermediate_size",
    "attention_heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
}


@functools.cache
def _stand_in() -> ModelSpec:
    """Read the stand-in's row from its own config.

    While the checkpoint is not in the package only its width is known; the other fields are 0.
    """
    shape: dict[str, Any] = dict.fromkeys(_SHAPE_KEYS, 0) | {"hidden_size": 256}
    parameters, positions = 0, MAXIMUM_LENGTH
    file = STAND_IN_FOLDER / "config.json"
    if file.is_file():
        config = read_json(file)
        shape = {field: int(config[key]) for field, key in _SHAPE_KEYS.items()}
        parameters, positions = count_parameters(**shape), int(config["max_position_embeddings"])
    length = min(512, positions)  # trained to 256; figures were taken with up to 512
    return ModelSpec(
        name="stand-in",
        repo="",
        revision=None,
        parameters=parameters,
        kind="stand-in",
        mrl_dimensions=mrl_ladder(shape["hidden_size"]),
        safe_length=length,
        evaluated_length=length,
        maximum_length=positions,
        languages=0,
        licence="Apache-2.0",
        base="",
        **shape,
    )


def __getattr__(name: str) -> Any:
    """Read the stand-in's row only when somebody asks for it (PEP 562)."""
    if name == "STAND_IN":
        return _stand_in()
    if name == "MODELS":
        return (*_REAL, _stand_in())
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def resolve(model: str | os.PathLike[str]) -> ResolvedModel:
    """Find out what ``model`` stands for, without the network and without reading weights.

    In this order: a known name (``"80M"``, ``"F2LLM-v2-80M"``, ``"codefuse-ai/F2LLM-v2-80M"``,
    ``"0.6B-Preview"``, ``"stand-in"``; upper or lower case, ``-`` or ``_``), a local folder, any other
    ``owner/name`` on the model hub (a fine-tune, about which nothing is known). A folder that is named like a
    checkpoint is written with ``./``.

    Raises:
        UnknownModelError: If it is none of these, or a checkpoint of the first F2LLM family.
        ModelNotFoundError: If it is a path, but not a folder with a checkpoint in it.
        CorruptCheckpointError: If the folder's configuration is not readable JSON.
    """
    if isinstance(model, os.PathLike):
        return _resolve_folder(Path(model))
    if not isinstance(model, str):
        raise UnknownModelError(_unknown(model))
    name = _normalized(model)
    if name in _STAND_IN_NAMES:
        return _resolve_stand_in()
    if name in _BY_NAME:
        return _resolve_spec(_BY_NAME[name])
    version_one = _V1_NAME.fullmatch(model)
    if version_one:
        message = (
            f"{model!r} is a checkpoint of F2LLM v1, which is another family (English only, other training); "
            f"expected F2LLM-v2. Give 'F2LLM-v2-{version_one[1].upper()}' for the v2 model of that size."
        )
        raise UnknownModelError(message)
    if _looks_like_path(model) or (model and _is_folder(Path(model))):
        return _resolve_folder(Path(model))
    if _REPO_ID.fullmatch(model) and not _is_misspelt_family_member(model):
        return _resolve_repo(model)
    raise UnknownModelError(_unknown(model))


_V1_NAME: Final = re.compile(rf"(?:{OWNER}/)?F2LLM-(0\.6B|1\.7B|4B)", re.IGNORECASE)
_REPO_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def _resolve_spec(spec: ModelSpec, *, folder: Path | None = None) -> ResolvedModel:
    return ResolvedModel(
        name=spec.name,
        repo=spec.repo,
        revision=spec.revision,
        folder=folder,
        spec=spec,
        takes_instructions=spec.takes_instructions,
    )


def _resolve_repo(repo: str) -> ResolvedModel:
    instructed = not _is_preview_name(repo)
    return ResolvedModel(name=repo, repo=repo, revision=None, folder=None, spec=None, takes_instructions=instructed)


def _resolve_stand_in() -> ResolvedModel:
    if not (STAND_IN_FOLDER / "config.json").is_file():
        message = (
            f"The stand-in checkpoint is not in this installation; expected its files in {STAND_IN_FOLDER}. "
            f"Install f2rag from a wheel, or choose another model: {_valid_names()}."
        )
        raise ModelNotFoundError(message)
    return _resolve_spec(_stand_in(), folder=STAND_IN_FOLDER)


def _resolve_folder(given: Path) -> ResolvedModel:
    # Not Path.expanduser, which raises for unknown users.
    folder = Path(os.path.expanduser(given)).absolute()  # noqa: PTH111
    if not _is_folder(folder):
        found = "is a file" if os.path.isfile(folder) else "does not exist"  # noqa: PTH113
        message = (
            f"The model path {os.fspath(given)!r} {found}; expected a folder with config.json, "
            f"tokenizer.json and *.safetensors in it. Correct it, or give a model's name: {_valid_names()}."
        )
        raise ModelNotFoundError(message)
    if not os.path.isfile(folder / "config.json"):  # noqa: PTH113
        message = (
            f"The folder {os.fspath(given)!r} holds no config.json; expected config.json, tokenizer.json and "
            "*.safetensors. Give the folder with these files (in a hub cache: snapshots/<commit>)."
        )
        raise ModelNotFoundError(message)
    name = _folder_name(folder)
    return ResolvedModel(
        name=name,
        repo="",
        revision=None,
        folder=folder,
        spec=_by_shape(read_json(folder / "config.json"), preview=_is_preview_name(name)),
        takes_instructions=not _is_preview_name(name),
    )


def _is_folder(path: Path) -> bool:
    # Unlike Path.is_dir this is no error for a name that is too long or a folder that may not be read.
    return os.path.isdir(path)  # noqa: PTH112


def _folder_name(folder: Path) -> str:
    """The folder's name; inside the hub's cache, where folders are named by commit, the repository's name."""
    cached = [part for part in folder.parts if part.startswith("models--")]
    return cached[-1].rpartition("--")[2] if cached else folder.resolve().name


def _by_shape(config: Mapping[str, Any], *, preview: bool) -> ModelSpec | None:
    shape = (config.get("hidden_size"), config.get("num_hidden_layers"))
    candidates = _PREVIEWS if preview else (*_INSTRUCT, _stand_in())
    return next((spec for spec in candidates if (spec.hidden_size, spec.layers) == shape), None)


def read_json(file: Path) -> dict[str, Any]:
    """Read one of a checkpoint's configuration files.

    Raises:
        CorruptCheckpointError: If it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{file} is not readable JSON ({error}); expected a configuration. Copy the checkpoint again."
        raise CorruptCheckpointError(message) from error
    if not isinstance(content, dict):
        message = f"{file} holds a {type(content).__name__}; expected a JSON object. Copy the checkpoint again."
        raise CorruptCheckpointError(message)
    return content


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "~", "/")) or model.endswith("/") or "\\" in model or model.count("/") > 1


def _is_preview_name(name: str) -> bool:
    """Previews, and the pruned bases cut from them: trained without instructions."""
    return _normalized(name).endswith("-preview") or "-preview-pruned-" in _normalized(name)


def _is_misspelt_family_member(model: str) -> bool:
    """Whether the id claims to be one of the authors' v2 models without being one."""
    return _normalized(model).startswith(f"{OWNER}/f2llm-v2-") and not _is_preview_name(model)


def _normalized(name: str) -> str:
    return name.casefold().replace("_", "-")


_BY_NAME: Final = {_normalized(name): row for row in _REAL for name in (row.short_name, row.name, row.repo)}


def _valid_names() -> str:
    return ", ".join((*(spec.short_name for spec in _REAL), _STAND_IN_NAMES[0]))


def _unknown(model: object) -> str:
    written = {name: spec.name for name, spec in _BY_NAME.items()} | {"stand-in": "stand-in"}
    near = difflib.get_close_matches(_normalized(str(model)), written, n=3, cutoff=0.6)
    names = dict.fromkeys(written[match] for match in near)
    hint = f" Did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
    return (
        f"{model!r} is no model that f2rag knows; expected the name of a checkpoint or a path.{hint} "
        f"Give one of {_valid_names()}, a local folder such as './my-model', or the 'owner/name' of a "
        "fine-tune on the model hub."
    )
