"""Measures what rounded weights cost in quality, and what they give in memory and speed, on this machine's CPU.

    python -m benchmarks.quantization [--models 80M 0.6B] [--rounds 7] [--texts 48]

* **Quality**, with the stand-in's trained weights: cosine to float32 and overlap of the ten nearest over the paragraphs
  of the Declaration, nDCG@10 over the tests of `benchmarks/quality.py`, for queries and documents of the same kind and
  for queries that search documents of float32.
* **Memory and speed**, with random weights in the shapes of the published models: bytes of the loaded model, and how
  many times as fast as float32 it embeds, all kinds measured in turns.
* **Products**, the matrices of those models alone, beside torchao's where that is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.machine import facts, measure_load
from benchmarks.measuring import interleave, ratio_of_medians
from benchmarks.quality import Pool, System, declaration_pools, mean, measure, sentence_pools
from f2rag import F2LLMEncoder
from f2rag.corpus import load_udhr_paragraphs
from f2rag.memory import gigabytes
from f2rag.models import resolve
from f2rag.testing import write_checkpoint
from f2rag.types import FloatMatrix

if TYPE_CHECKING:
    import torch

    Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
    Way: TypeAlias = Callable[[torch.Tensor], Product]

RESULTS = Path(__file__).resolve().parent / "results"
KINDS = (None, "int8", "int4")
TIMED = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8": ("float32", "int8"),
    "int4": ("float32", "int4"),
}
"""What is timed: compute dtype, and what the matrices are held in."""

GATES = {"int8": {"cosine": 0.995, "points": 0.5}}
"""What a kind must hold: mean cosine to float32, and points of nDCG@10 that may be lost."""

_PACKAGES = ("torch", "transformers", "torchao", "numpy")


def encoder(model: str | Path, kind: str | None, *, dtype: str = "float32") -> F2LLMEncoder:
    """An encoder on the CPU, whose weights are held in ``kind``."""
    return F2LLMEncoder(model, device="cpu", dtype=dtype, weight_dtype=kind, on_overflow="truncate")


def quality(pools: Sequence[Pool], texts: Sequence[str]) -> dict[str, Any]:
    """Every kind beside float32, with the stand-in."""
    with contextlib.ExitStack() as opened:
        made = {kind: opened.enter_context(encoder("stand-in", kind)) for kind in KINDS}
        exact = made[None].embed_documents(texts)
        plain = _points(made[None], made[None], pools)
        found: dict[str, Any] = {"float32": {"points": plain}}
        for kind, one in made.items():
            if kind is None:
                continue
            rounded = one.embed_documents(texts)
            cosines = (rounded * exact).sum(axis=1)
            own, mixed = _points(one, one, pools), _points(one, made[None], pools)
            found[kind] = {
                "mean_cosine": float(cosines.mean()),
                "least_cosine": float(cosines.min()),
                "overlap": overlap(rounded, exact),
                "points": own,
                "lost": {name: plain[name] - value for name, value in own.items()},
                "lost_mixed": {name: plain[name] - value for name, value in mixed.items()},
            }
            found[kind]["passes"] = passes(kind, found[kind])
    return found


def passes(kind: str, found: dict[str, Any]) -> bool | None:
    """Whether a kind holds its gate; ``None`` where there is none."""
    if kind not in GATES:
        return None
    lost = float(np.mean(list(found["lost"].values())))
    return bool(found["mean_cosine"] >= GATES[kind]["cosine"] and lost <= GATES[kind]["points"])


def overlap(left: FloatMatrix, right: FloatMatrix, *, count: int = 10) -> float:
    """Share of each text's nearest others that two sets of vectors agree on."""
    both = []
    for vectors in (left, right):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -2)
        both.append(np.argsort(-scores, axis=1, kind="stable")[:, :count])
    return float(np.mean([len(set(one) & set(other)) / count for one, other in zip(*both, strict=True)]))


def _points(queries: F2LLMEncoder, documents: F2LLMEncoder, pools: Sequence[Pool]) -> dict[str, float]:
    """nDCG@10 in per cent, by test, at full width."""
    width = queries.native_dimensions
    measured = measure(System("", queries.embed_queries, documents.embed_documents, width), pools)
    return {name: 100 * mean(sizes[str(width)], 1) for name, sizes in measured["tests"].items()}


def speed(model: str, texts: Sequence[str], *, rounds: int) -> dict[str, Any]:
    """Memory and speed of every kind, random weights in the shape of a published model."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        path = write_checkpoint(Path(folder) / "model", model=model, scale=None, dtype="bfloat16")
        made = {name: opened.enter_context(encoder(path, kind, dtype=dtype)) for name, (dtype, kind) in TIMED.items()}
        for one in made.values():
            one.embed_documents(texts[:2])

        def seconds(name: str) -> float:
            started = time.perf_counter()
            made[name].embed_documents(texts)
            return time.perf_counter() - started

        taken = interleave(list(made), rounds, seconds)
        tokens = sum(made["float32"].count_tokens(text) for text in texts)
    spec = resolve(model).spec
    assert spec is not None
    return {
        "tokens": tokens,
        "kinds": {
            name: {
                "bytes": spec.memory_bytes(dtype, weight_dtype=kind),
                "seconds": taken[name],
                "times_float32": dataclasses.asdict(ratio_of_medians(taken["float32"], taken[name])),
            }
            for name, (dtype, kind) in TIMED.items()
        },
    }


def products(model: str, *, tokens: int, rounds: int) -> dict[str, Any]:
    """The matrices of one layer of a model, as often as they are multiplied, by each way to do it."""
    import torch

    spec = resolve(model).spec
    assert spec is not None
    heads, keys = spec.attention_heads * spec.head_dim, spec.key_value_heads * spec.head_dim
    shapes = [
        (heads + 2 * keys, spec.hidden_size),
        (spec.hidden_size, heads),
        (2 * spec.intermediate_size, spec.hidden_size),
        (spec.hidden_size, spec.intermediate_size),
    ]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) / shape[1] ** 0.5 for shape in shapes]
    hidden = [torch.randn(tokens, shape[1], generator=generator) for shape in shapes]
    ways = {name: [make(weight) for weight in weights] for name, make in _ways().items()}

    def seconds(name: str) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for way, rows in zip(ways[name], hidden, strict=True):
                way(rows)
        return time.perf_counter() - started

    for name in ways:
        seconds(name)
    taken = interleave(list(ways), rounds, seconds)
    with torch.inference_mode():
        exact = ways["float32"][2](hidden[2])
        errors = {name: float((way[2](hidden[2]) - exact).norm() / exact.norm()) for name, way in ways.items()}
    return {
        name: {
            "times_float32": dataclasses.asdict(ratio_of_medians(taken["float32"], taken[name])),
            "error": errors[name],
        }
        for name in ways
    }


def _ways() -> dict[str, Way]:
    from torch.nn import Linear, Sequential, functional

    from f2rag.quantization import Int8Linear, quantized_linear

    def float32(weight: torch.Tensor) -> Product:
        return lambda rows: functional.linear(rows, weight)

    def int8(weight: torch.Tensor) -> Product:
        made = quantized_linear(weight, weight_dtype="int8")
        assert isinstance(made, Int8Linear)
        return made.whole_product

    def int8_weights(weight: torch.Tensor) -> Product:
        return quantized_linear(weight, weight_dtype="int8")

    def int4(weight: torch.Tensor) -> Product:
        return quantized_linear(weight, weight_dtype="int4")

    ways: dict[str, Way] = {
        "float32": float32,
        "int8": int8,
        "int8, float32 activations": int8_weights,
        "int4": int4,
    }
    if importlib.util.find_spec("torchao") is None:
        return ways
    library: Any = importlib.import_module("torchao.quantization")

    def torchao(config: str) -> Way:
        def make(weight: torch.Tensor) -> Product:
            linear = Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight.data = weight.clone()
            one = Sequential(linear)
            library.quantize_(one, getattr(library, config)())
            return one

        return make

    ways["torchao int8"] = torchao("Int8DynamicActivationInt8WeightConfig")
    ways["torchao int8, float32 activations"] = torchao("Int8WeightOnlyConfig")
    return ways


def table(report: dict[str, Any]) -> str:
    """Renders the report as Markdown."""
    facts_of = report["facts"]
    lines = [
        "# Rounded weights: quality, memory, speed",
        "",
        f"Written by `python -m benchmarks.quantization` on {facts_of['processor']}, {facts_of['threads']} threads, "
        "activations in float32 but in the row bfloat16; other processes took "
        f"{facts_of['load_before']['others']:.0%} of the machine. Speeds are ratios of medians of runs in turns, with "
        "the interval that holds them in 95 of 100 repetitions.",
        "",
        "## Quality (the stand-in's trained weights)",
        "",
        "| weights | mean cosine | least cosine | overlap of 10 nearest | nDCG@10 points lost | the same, documents in "
        "float32 | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, found in report["quality"].items():
        if kind == "float32":
            continue
        verdict = {True: "holds", False: "missed", None: "none set"}[found["passes"]]
        lines.append(
            f"| {kind} | {found['mean_cosine']:.5f} | {found['least_cosine']:.5f} | {found['overlap']:.3f} "
            f"| {_lost(found['lost'])} | {_lost(found['lost_mixed'])} | {verdict} |"
        )
    tests = "; ".join(report["quality"]["float32"]["points"])
    lines += ["", f"Points lost: mean over the tests, in brackets each of them ({tests}). Negative: gained.", ""]
    for model, found in report["speed"].items():
        lines += [f"## {model}: memory and speed (random weights, {found['tokens']:,} tokens)", ""]
        lines += ["| weights | memory of the weights | times float32 |", "|---|---|---|"]
        for name, one in found["kinds"].items():
            lines.append(f"| {name} | {gigabytes(one['bytes'])} | {_interval(one['times_float32'])} |")
        lines += ["", f"The products of a layer alone, {report['product_tokens']:,} tokens:", ""]
        lines += ["| way | times float32 | error |", "|---|---|---|"]
        for name, one in report["products"][model].items():
            lines.append(f"| {name} | {_interval(one['times_float32'])} | {one['error']:.4f} |")
        lines.append("")
    return "\n".join(lines)


def _lost(points: dict[str, float]) -> str:
    each = ", ".join(f"{value:.2f}" for value in points.values())
    return f"{np.mean(list(points.values())):.2f} ({each})"


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def main() -> None:
    """Measures and writes ``results/quantization.md`` and ``.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["80M", "0.6B"], help="shapes to time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=48, help="texts to time")
    parser.add_argument("--languages", nargs="*", default=["en", "de", "zh", "ar", "ru", "hi", "sw", "ja"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    import torch

    load = measure_load()
    texts = [document.text for document in load_udhr_paragraphs(given.languages)]
    timed = texts[:: max(len(texts) // given.texts, 1)][: given.texts]
    tokens = 1024
    report = {
        "facts": facts(load=load, packages=_PACKAGES, threads=torch.get_num_threads()),
        "quality": quality([*declaration_pools(), *sentence_pools()], texts),
        "speed": {model: speed(model, timed, rounds=given.rounds) for model in given.models},
        "product_tokens": tokens,
        "products": {model: products(model, tokens=tokens, rounds=given.rounds) for model in given.models},
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "quantization.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (given.results / "quantization.md").write_text(table(report), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
