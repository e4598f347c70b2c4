"""What tests are made with, f2rag's own and its users': a fake encoder and random checkpoints.

``FakeEncoder`` needs neither torch nor weights and returns in microseconds. ``write_checkpoint`` writes a folder in
F2LLM-v2's exact layout with random weights, which goes through the real loading code. Neither knows anything about
meaning: for that there is the bundled "stand-in" model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from f2rag.batching import windows
from f2rag.contract import EmbeddingContract
from f2rag.errors import DimensionsError, EncoderClosedError
from f2rag.prompts import DEFAULT_INSTRUCTION, format_query
from f2rag.tokenizer import END_OF_TEXT, PADDING, append_end_of_text

if TYPE_CHECKING:
    import torch

    from f2rag.models import ModelSpec
    from f2rag.types import FloatMatrix, FloatVector

__all__ = ["FakeEncoder", "write_checkpoint"]


class FakeEncoder:
    """An encoder of unit vectors that are made from hashes of words.

    Texts that share words are close; a query differs from the same text as a document, and queries with different
    instructions differ from one another, as with the real model. A vector cut to fewer dimensions and normalised again
    equals the vector that is asked for at those dimensions.

    Args:
        dimensions: Output size when none is given per call.
        native_dimensions: The largest size; at least ``dimensions``.
        instruction: What queries get when none is given per call.
        model_name: The name that goes into the contract.

    Example:
        >>> encoder = FakeEncoder(dimensions=32)
        >>> encoder.embed_documents(["red house", "blue sea"]).shape
        (2, 32)
    """

    __test__ = False

    def __init__(
        self,
        *,
        dimensions: int = 64,
        native_dimensions: int | None = None,
        instruction: str = DEFAULT_INSTRUCTION,
        model_name: str = "fake",
    ) -> None:
        self.model_name = model_name
        self.native_dimensions = max(dimensions, native_dimensions or 64)
        self.dimensions = dimensions
        self.instruction = instruction
        self.truncated_count = 0
        self.document_calls: list[int] = []
        self._closed = False
        self._lock = threading.Lock()

    def contract(self, *, dimensions: int | None = None) -> EmbeddingContract:
        """The contract of the fake vectors."""
        return EmbeddingContract(
            model=self.model_name,
            revision="fake-1",
            native_dimensions=self.native_dimensions,
            dimensions=self._check(dimensions),
        )

    def embed_query(self, text: str, *, dimensions: int | None = None, instruction: str | None = None) -> FloatVector:
        """Embed one query; returns float32 of shape (dimensions,)."""
        row: FloatVector = self.embed_queries([text], dimensions=dimensions, instruction=instruction)[0]
        return row

    def embed_queries(
        self, texts: Sequence[str], *, dimensions: int | None = None, instruction: str | None = None
    ) -> FloatMatrix:
        """Embed queries; returns float32 of shape (n, dimensions)."""
        prompt = self.instruction if instruction is None else instruction
        return self._embed(texts, prompt=f"query\0{prompt}", dimensions=dimensions)

    def embed_documents(self, texts: Sequence[str], *, dimensions: int | None = None) -> FloatMatrix:
        """Embed documents; returns float32 of shape (n, dimensions)."""
        with self._lock:
            self.document_calls.append(len(texts))
        return self._embed(texts, prompt="document", dimensions=dimensions)

    def iter_documents(
        self, texts: Iterable[str], *, dimensions: int | None = None, window: int = 2048
    ) -> Iterator[FloatMatrix]:
        """Embed a stream; yields arrays of up to ``window`` rows, in order."""
        for part in windows(texts, size=window):
            yield self.embed_documents(part, dimensions=dimensions)

    def close(self) -> None:
        """Refuse further work, as the real encoder does."""
        self._closed = True

    def __enter__(self) -> FakeEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, dimensions: int | None) -> int:
        wanted = self.dimensions if dimensions is None else dimensions
        if not 1 <= wanted <= self.native_dimensions:
            message = f"dimensions={wanted} was given; {self.model_name} has 1..{self.native_dimensions}."
            raise DimensionsError(message)
        return wanted

    def _embed(self, texts: Sequence[str], *, prompt: str, dimensions: int | None) -> FloatMatrix:
        if self._closed:
            message = "This encoder is closed. Make a new one."
            raise EncoderClosedError(message)
        wanted = self._check(dimensions)
        rows = np.zeros((len(texts), self.native_dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row += self._direction(f"word\0{word}")
            row += 0.3 * np.linalg.norm(row) / np.sqrt(self.native_dimensions) * self._direction(prompt)
        rows = rows[:, :wanted]
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), dtype=np.float32)

    def _direction(self, key: str) -> FloatVector:
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.native_dimensions).astype(np.float32)


def write_checkpoint(
    folder: Path,
    *,
    model: str = "80M",
    scale: int | None = 8,
    layers: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    tokenizer_file: Path | None = None,
    append_eos: bool = True,
    bare: bool = False,
    config_changes: dict[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint in F2LLM-v2's file layout and one of its shapes.

    The layers are live: weights are large enough that every token, its order and the EOS move the embedding, so that a
    wrong pooling, a missing EOS or a shifted mask shows in the numbers.

    Args:
        folder: Where to write; made if need be.
        model: Which of the shapes, e.g. ``"80M"`` or ``"14B"``.
        scale: Divides widths (and head size) so that tests are quick; ``None`` writes the full shape and vocabulary.
        layers: Instead of the shape's own number; scaled checkpoints have at most 3.
        seed: Of the weights.
        dtype: Of the stored weights.
        tokenizer_file: A ``tokenizer.json`` to use; ``None`` writes a byte-level one of 282 tokens.
        append_eos: ``False`` leaves out the post-processor, as in a broken export.
        bare: ``True`` leaves out the sentence-transformers files, as in a plain ``Qwen3Model`` export.
        config_changes: Overrides of ``config.json`` as stored, e.g. a wrong ``layer_types``.

    Returns:
        ``folder``.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3Config, Qwen3Model

    from f2rag.models import resolve

    spec = resolve(model).spec
    if spec is None:
        message = f"model={model!r} has no known shape."
        raise ValueError(message)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_size = _write_tokenizer(folder, tokenizer_file, append_eos=append_eos)
    if scale is None:
        vocabulary_size = max(vocabulary_size, spec.vocab_size)
    config = _scaled_config(spec, scale=scale, layers=layers, vocabulary_size=vocabulary_size)
    network = Qwen3Model(Qwen3Config(**config))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _live_weight(name, tuple(tensor.shape), generator).to(getattr(torch, dtype))
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stored = {"architectures": ["Qwen3Model"], "dtype": dtype, **config, **(config_changes or {})}
    _write_json(folder / "config.json", stored)
    if not bare:
        _write_sentence_transformers_files(folder, hidden_size=config["hidden_size"])
    return folder


def _scaled_config(spec: ModelSpec, *, scale: int | None, layers: int | None, vocabulary_size: int) -> dict[str, Any]:
    divide = scale or 1
    count = layers or (spec.layers if scale is None else min(spec.layers, 3))
    return {
        "model_type": "qwen3",
        "vocab_size": vocabulary_size,
        "hidden_size": max(spec.hidden_size // divide, 16),
        "intermediate_size": max(spec.intermediate_size // divide, 32),
        "num_hidden_layers": count,
        # The ratio of query to key-value heads is kept: it is what grouped attention can get wrong.
        "num_attention_heads": spec.attention_heads if scale is None else spec.attention_heads // 4,
        "num_key_value_heads": spec.key_value_heads if scale is None else spec.key_value_heads // 4,
        "head_dim": max(spec.head_dim // divide, 16),
        "max_position_embeddings": spec.maximum_length,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "layer_types": ["full_attention"] * count,
        "tie_word_embeddings": False,
        "use_cache": False,
    }


def _live_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    import torch

    if len(shape) == 1:  # norms: near one, but not equal, so that a forgotten one shows
        return 1.0 + 0.1 * torch.randn(shape, generator=generator)
    spread = 1.0 if "embed_tokens" in name else 1.2 / shape[1] ** 0.5
    return spread * torch.randn(shape, generator=generator)


def _write_tokenizer(folder: Path, source: Path | None, *, append_eos: bool) -> int:
    plain = _byte_tokenizer() if source is None else source.read_text(encoding="utf-8")
    content = append_end_of_text(plain) if append_eos else plain
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TEXT,
            "pad_token": PADDING,
            "padding_side": "right",
            "model_max_length": 131072,
        },
    )
    loaded = json.loads(content)
    return 1 + int(max([*loaded["model"]["vocab"].values(), *(token["id"] for token in loaded["added_tokens"])]))


def _byte_tokenizer() -> str:
    """A ``tokenizer.json`` with Qwen3's normaliser and pre-tokeniser rules and one token per byte."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (PADDING, "<|im_start|>", END_OF_TEXT)])
    return str(tokenizer.to_str())


def _write_sentence_transformers_files(folder: Path, *, hidden_size: int) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
    pooling = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": hidden_size, **pooling, "include_prompt": True},
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": format_query("", DEFAULT_INSTRUCTION), "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
