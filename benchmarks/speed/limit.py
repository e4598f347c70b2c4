"""The machine's limit for a model's shape: its own matrix products and its attention, and nothing else.

    tokens ─► 7 products a layer (or 4, fused), in the shape's sizes and the dtype of f2rag ─┐
    texts  ─► causal attention on their lengths, a layer ────────────────────────────────────┴► seconds

No norm, no rotation, no tokenizer, no padding; the last layer computes queries, output and MLP for one token a text. Of
several ways to call each, the fastest counts. Activations are random and independent of each other.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from benchmarks.speed.contestants import Made

_CPU_CHUNKS = (512, 1024, 2048, 4096)
_GPU_CHUNKS = (4096, 8192, 16384, 32768)
_TRIAL_LAYERS = 2
_TRIAL_TEXTS = 32
_QUERY_BLOCK = 64
_MOST_IN_BLOCKS = 512
"""Tokens of a text: of more keys, torch's kernel for CPUs leaves out blocks above the diagonal itself."""

_PADDED_BUDGET = {"cpu": 1024, "cuda": 16384}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the products of a Qwen3 decoder.

    Attributes:
        hidden: Width of the model.
        inner: Width inside the MLP.
        queries: Width of all query heads together.
        keys: Width of all key heads together, and of the values.
        head: Width of a head.
        layers: Number of decoder layers.
    """

    hidden: int
    inner: int
    queries: int
    keys: int
    head: int
    layers: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """From a checkpoint's ``config.json``."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            queries=config["num_attention_heads"] * config["head_dim"],
            keys=config["num_key_value_heads"] * config["head_dim"],
            head=config["head_dim"],
            layers=config["num_hidden_layers"],
        )

    @property
    def layer_weights(self) -> int:
        """Weights of a layer's seven matrices."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)

    def product_flops(self, *, tokens: int, texts: int) -> int:
        """Two for each weight and token; in the last layer all but keys and values for one token a text only."""
        spared = self.hidden * (2 * self.queries + 3 * self.inner) * (tokens - texts)
        return 2 * (self.layers * self.layer_weights * tokens - spared)

    def attention_flops(self, lengths: Sequence[int]) -> int:
        """Causal: each token meets half its text on average, in two products; one query a text in the last layer."""
        squares = sum(length * length for length in lengths)
        return 2 * self.queries * squares * (self.layers - 1) + 4 * self.queries * sum(lengths)

    def flops(self, lengths: Sequence[int]) -> int:
        """All of the above."""
        return self.product_flops(tokens=sum(lengths), texts=len(lengths)) + self.attention_flops(lengths)


def limit(*, folder: str, device: str, dtype: str, **_: Any) -> Made:
    """The limit as a contestant, so that it runs in the same rounds; runs in a worker and gives no vectors."""
    from benchmarks.speed.contestants import Made

    machine = Machine(Shape.read(Path(folder)), device=device, dtype=dtype)
    return Made(
        documents=lambda _texts, _size: machine.run(),
        queries=lambda _texts, _size: machine.run(),
        facts={"dtype": dtype, "square_flops_per_second": machine.square()},
        prepare=machine.prepare,
    )


class Machine:
    """Weights and activations of a shape, and the fastest known way through them.

    Args:
        shape: The model's.
        device: ``"cpu"``, ``"cuda:0"``...
        dtype: Name of the dtype to compute in.
    """

    def __init__(self, shape: Shape, *, device: str, dtype: str) -> None:
        import torch

        self.shape = shape
        self._device = device
        self._kind = torch.device(device).type
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._layers = [self._make_layer(seed) for seed in range(shape.layers)]
        self._linear: Linear = torch.nn.functional.linear
        self._fused = True
        self._chunk = (_CPU_CHUNKS if self._kind == "cpu" else _GPU_CHUNKS)[-1]
        self._attend: Callable[[Sequence[int]], None] = self._attend_padded
        self._inputs: dict[int, torch.Tensor] = {}
        self._lengths: list[int] = []
        self._chosen = False

    def prepare(self, lengths: list[int]) -> dict[str, Any]:
        """Take texts' lengths, and find the fastest way: for products once, for attention by these lengths."""
        self._lengths = lengths
        if not self._chosen:
            self._choose_products()
            self._chosen = True
        self._choose_attention(lengths[:_TRIAL_TEXTS])
        products = f"{'fused' if self._fused else 'separate'}, {self._linear_name}, {self._chunk} tokens"
        return {"products": products, "attention": self._attend.__name__.removeprefix("_attend_")}

    def run(self) -> list[float]:
        """Everything once, for all texts."""
        import torch

        with torch.inference_mode():
            self._run_products()
            for _ in range(self.shape.layers - 1):
                self._attend(self._lengths)
        self._wait()
        return []

    def square(self) -> float:
        """FLOP/s of a large square product: what the machine does at its best in this dtype."""
        import torch

        side = 2048 if self._kind == "cpu" else 8192
        left, right = self._random(side, side), self._random(side, side)
        with torch.inference_mode():
            best = min(self._timed(lambda: torch.mm(left, right)) for _ in range(6))
        return 2 * side**3 / best

    # -- products -----------------------------------------------------------------------------------------------

    def _make_layer(self, seed: int) -> dict[str, torch.Tensor]:
        shape = self.shape
        sizes = {
            "qkv": (shape.queries + 2 * shape.keys, shape.hidden),
            "o": (shape.hidden, shape.queries),
            "gate_up": (2 * shape.inner, shape.hidden),
            "down": (shape.hidden, shape.inner),
        }
        fused = {name: self._random(*size, seed=seed) for name, size in sizes.items()}
        q, kv = fused["qkv"][: shape.queries], fused["qkv"][shape.queries :]
        # Rows of a fused matrix are contiguous: the separate matrices are parts of it, not copies.
        parts = {"q": q, "kv": kv, "k": kv[: shape.keys], "v": kv[shape.keys :]}
        halves = {"gate": fused["gate_up"][: shape.inner], "up": fused["gate_up"][shape.inner :]}
        return {**fused, **parts, **halves}

    def _run_products(self) -> None:
        total, texts = sum(self._lengths), len(self._lengths)
        done = 0
        for first in range(0, total, self._chunk):
            rows = min(self._chunk, total - first)
            until = round(texts * (first + rows) / total)
            self._products(rows, last_rows=until - done, layers=self.shape.layers)
            done = until

    def _products(self, rows: int, *, last_rows: int, layers: int) -> None:
        """The products of a batch through the first ``layers``, of which the last is the model's last."""
        names = ("qkv", "o", "gate_up", "down") if self._fused else ("q", "k", "v", "o", "gate", "up", "down")
        for layer in self._layers[: layers - 1]:
            for name in names:
                self._product(layer, name, rows)
        last = self._layers[-1]
        for name in ("kv",) if self._fused else ("k", "v"):
            self._product(last, name, rows)
        for name in ("q", "o", "gate_up", "down") if self._fused else ("q", "o", "gate", "up", "down"):
            self._product(last, name, last_rows)

    def _product(self, layer: dict[str, torch.Tensor], name: str, rows: int) -> None:
        if rows:
            self._linear(self._input(layer[name].shape[1])[:rows], layer[name])

    def _input(self, width: int) -> torch.Tensor:
        if width not in self._inputs:
            self._inputs[width] = self._random(max(_CPU_CHUNKS if self._kind == "cpu" else _GPU_CHUNKS), width)
        return self._inputs[width]

    def _choose_products(self) -> None:
        """Of all ways to call them, the one that takes least for a token."""
        chunks = _CPU_CHUNKS if self._kind == "cpu" else _GPU_CHUNKS
        ways = list(itertools.product(linears(self._kind), (True, False), chunks))
        rates = []
        for linear, fused, chunk in ways:
            self._linear, self._fused = linear, fused
            rates.append(self._token_seconds(chunk))
        self._linear, self._fused, self._chunk = ways[rates.index(min(rates))]

    @property
    def _linear_name(self) -> str:
        return {Prepacked: "prepacked", ReusedOutputs: "reused outputs"}.get(type(self._linear), "plain")

    def _token_seconds(self, chunk: int) -> float:
        import torch

        layers = min(_TRIAL_LAYERS, self.shape.layers)
        with torch.inference_mode():
            times = [
                self._timed(lambda: self._products(chunk, last_rows=max(chunk // 256, 1), layers=layers))
                for _ in range(4)
            ]
        return min(times[1:]) / chunk

    # -- attention ----------------------------------------------------------------------------------------------

    def _choose_attention(self, lengths: Sequence[int]) -> None:
        import torch

        ways = [self._attend_singly, self._attend_padded]
        if self._kind == "cpu":
            ways.append(self._attend_in_blocks)
        if self._kind == "cuda" and varlen() is not None:
            ways.append(self._attend_packed)
        with torch.inference_mode():
            taken = [min(self._timed(functools.partial(way, lengths)) for _ in range(2)) for way in ways]
        self._attend = ways[taken.index(min(taken))]

    def _heads(self, rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values (rows, heads, tokens, head) out of one buffer each, laid out as layers do."""
        shape = self.shape
        widths = (shape.queries, shape.keys, shape.keys)
        flat = [self._input(width) for width in widths]
        needed = rows * tokens
        if len(flat[0]) < needed:
            flat = [self._random(needed, width) for width in widths]
        q, k, v = (buffer[:needed].view(rows, tokens, -1, shape.head).transpose(1, 2) for buffer in flat)
        return q, k, v

    def _attend_singly(self, lengths: Sequence[int]) -> None:
        for length in lengths:
            self._attention(1, length)

    def _attend_padded(self, lengths: Sequence[int]) -> None:
        for rows, tokens in padded_batches(lengths, budget=_PADDED_BUDGET["cpu" if self._kind == "cpu" else "cuda"]):
            self._attention(rows, tokens)

    def _attention(self, rows: int, tokens: int) -> None:
        import torch

        q, k, v = self._heads(rows, tokens)
        grouped = self.shape.queries != self.shape.keys
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def _attend_in_blocks(self, lengths: Sequence[int]) -> None:
        """Text by text, a few queries at a time with the keys that they see: fewer scores above the diagonal."""
        import torch

        hidden = torch.full((_MOST_IN_BLOCKS, _MOST_IN_BLOCKS), float("-inf"), dtype=self._dtype).triu(1)
        for length in lengths:
            if length > _MOST_IN_BLOCKS:
                self._attention(1, length)
                continue
            q, k, v = self._heads(1, length)
            for begin in range(0, length, _QUERY_BLOCK):
                end = min(begin + _QUERY_BLOCK, length)
                torch.nn.functional.scaled_dot_product_attention(
                    q[:, :, begin:end],
                    k[:, :, :end],
                    v[:, :, :end],
                    attn_mask=hidden[begin:end, :end],
                    enable_gqa=self.shape.queries != self.shape.keys,
                )

    def _attend_packed(self, lengths: Sequence[int]) -> None:
        import torch

        function = varlen()
        assert function is not None
        for part in _parts(lengths, budget=max(_GPU_CHUNKS)):
            ends = torch.tensor([0, *itertools.accumulate(part)], dtype=torch.int32, device=self._device)
            q, k, v = (each[0].transpose(0, 1) for each in self._heads(1, int(sum(part))))
            function(q, k, v, ends, max(part))

    # -- odds and ends ------------------------------------------------------------------------------------------

    def _random(self, *size: int, seed: int = 0) -> torch.Tensor:
        import torch

        generator = torch.Generator(self._device).manual_seed(seed)
        return torch.randn(size, generator=generator, device=self._device, dtype=self._dtype)

    def _timed(self, work: Callable[[], Any]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._kind == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


Linear = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class Prepacked:
    """oneDNN's product with weights that it laid out beforehand, which torch's compiler uses for frozen weights."""

    def __init__(self) -> None:
        self._packed: dict[tuple[int, int], Any] = {}

    def __call__(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """As ``torch.nn.functional.linear``."""
        import torch

        key = (weight.data_ptr(), len(weight))  # a part of a fused matrix begins where the whole does
        if key not in self._packed:
            self._packed[key] = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - the compiler's own operator
            inputs, self._packed[key], None, "none", [], ""
        )
        return found


class ReusedOutputs:
    """A product into memory that was used before: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self) -> None:
        self._outputs: dict[int, torch.Tensor] = {}

    def __call__(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """As ``torch.nn.functional.linear``; valid until the next product of that width."""
        import torch

        rows, width = len(inputs), len(weight)
        if width not in self._outputs or len(self._outputs[width]) < rows:
            self._outputs[width] = inputs.new_empty(rows, width)
        return torch.mm(inputs, weight.T, out=self._outputs[width][:rows])


def linears(kind: str) -> Iterator[Linear]:
    """Ways to multiply that work here and give what ``torch.nn.functional.linear`` gives."""
    import torch

    yield torch.nn.functional.linear
    yield ReusedOutputs()
    if kind != "cpu":
        return
    packed = Prepacked()
    inputs, weight = torch.ones(8, 64), torch.full((32, 64), 0.5)
    try:
        with torch.inference_mode():
            same = torch.allclose(packed(inputs, weight), torch.nn.functional.linear(inputs, weight))
    except (AttributeError, RuntimeError):  # no oneDNN in this build of torch, or other operators
        return
    if same:
        yield Prepacked()


def varlen() -> Callable[..., Any] | None:
    """Torch's attention over packed texts, causal, as ``(q, k, v, ends, longest)``; ``None`` where it lacks it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    names = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}
    if "enable_gqa" in names:
        options["enable_gqa"] = True
    return lambda q, k, v, ends, longest: varlen_attn(q, k, v, ends, ends, longest, longest, **options)


def padded_batches(lengths: Sequence[int], *, budget: int) -> Iterator[tuple[int, int]]:
    """Texts of alike lengths together: rows and tokens of each batch, longest first."""
    left = sorted(lengths, reverse=True)
    while left:
        rows = max(budget // left[0], 1)
        yield len(left[:rows]), left[0]
        left = left[rows:]


def _parts(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    part: list[int] = []
    for length in lengths:
        if part and sum(part) + length > budget:
            yield part
            part = []
        part.append(length)
    if part:
        yield part
