"""From texts in a file to a searchable collection, beside LangChain's and LlamaIndex's ways: ``make bench-ingest``.

    read ─► embed ─► upsert ─► the server counts every text ─► (clock stops) ─► vectors compared, queries asked

A random checkpoint in the true shape of F2LLM-v2-80M, the real Qwen3 tokenizer, paragraphs of the Universal Declaration
of Human Rights in all its languages, one Qdrant server. Contestants take turns; a time counts only if every text was
stored once, the vectors agree with stock transformers in float32, and queries find what they must. Models are loaded
before the clock starts: what loading takes is in ``startup.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.ingest_contestants import OURS, PEER, Entry, Place, Remote, entries, remotes, tuned
from benchmarks.machine import facts
from benchmarks.material import full_checkpoint, paragraphs, save_texts
from benchmarks.measuring import SILENCE, Aim, interleave, page, ratio_of_medians, require_quiet, write
from benchmarks.store_speed import SERVER, server
from f2rag.types import FloatMatrix

AIM = 5.0
LOWEST_COSINE = 0.98
"""Stored vectors may differ from float32 by what bf16 rounding makes of these random weights, not by more."""

COMPARED = 32
"""Texts whose stored vectors are compared with stock transformers."""

ASKED = 5
"""Texts of each round that are searched for by their own vector."""


class WrongResultError(Exception):
    """What was stored or found is wrong, so that no time counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured of one contestant.

    Attributes:
        seconds: Of each round.
        lowest_cosine: Of all compared vectors of all rounds to stock transformers' in float32.
    """

    name: str
    seconds: list[float]
    lowest_cosine: float

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is ingested.

    Attributes:
        file: The texts, one a line.
        texts: The same.
        reference: float32 unit vectors of the first ``COMPARED`` texts.
    """

    file: Path
    texts: list[str]
    reference: FloatMatrix


def make_corpus(folder: Path, model: Path, texts: list[str]) -> Corpus:
    """Write the texts and compute the reference, in a process of its own that ends with it."""
    file = save_texts(texts, folder / "texts.jsonl")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        reference = pool.apply(reference_vectors, (model, texts[:COMPARED]))
    return Corpus(file, texts, reference)


def reference_vectors(model: Path, texts: Sequence[str]) -> FloatMatrix:
    """Float32 unit vectors by stock transformers, one text at a time, without padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModel.from_pretrained(model, dtype=torch.float32)
    network.train(mode=False)
    rows = []
    with torch.inference_mode():
        for text in texts:
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state
            rows.append(torch.nn.functional.normalize(states[0, -1], dim=0).numpy())
    return np.stack(rows)


def check(place: Place, collection: str, corpus: Corpus, nearest: Callable[[str], str], *, seed: int) -> float:
    """Compare what is stored with what was given, and ask for some of it.

    Returns:
        The lowest cosine of the compared vectors to the reference.

    Raises:
        WrongResultError: A text is missing or there twice, a vector is another, or a query finds another text.
    """
    client = place.client()
    try:
        points, _ = client.scroll(collection, limit=len(corpus.texts) + 1, with_vectors=True, with_payload=True)
    finally:
        client.close()
    stored = [stored_text(point.payload) for point in points]
    if sorted(stored) != sorted(corpus.texts):
        raise WrongResultError(f"{collection} holds {len(stored)} texts, not exactly the {len(corpus.texts)} given.")
    vectors = {text: _plain_vector(point.vector) for text, point in zip(stored, points, strict=True)}
    rows = np.stack([vectors[text] for text in corpus.texts[: len(corpus.reference)]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lowest = float((rows * corpus.reference).sum(axis=1).min())
    if not lowest >= LOWEST_COSINE:
        raise WrongResultError(f"A vector in {collection} has a cosine of {lowest:.4f} to stock transformers.")
    for row in np.random.default_rng(seed).choice(len(corpus.texts), size=min(ASKED, len(stored)), replace=False):
        found = nearest(corpus.texts[row])
        if found != corpus.texts[row]:
            raise WrongResultError(f"In {collection}, {corpus.texts[row]!r} finds {found!r}.")
    return lowest


def stored_text(payload: Mapping[str, Any]) -> str:
    """The text of a point, wherever LangChain, LlamaIndex or f2rag put it."""
    if "page_content" in payload:
        return str(payload["page_content"])
    node = json.loads(payload["_node_content"])
    return str(node.get("text") or payload.get("text") or "")


def _plain_vector(stored: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The unnamed vector, which a collection with others beside it keeps under an empty name."""
    return np.asarray(stored[""] if isinstance(stored, dict) else stored, dtype=np.float32)


def run_once(contestant: Remote, place: Place, corpus: Corpus, *, collection: str, seed: int) -> tuple[float, float]:
    """Ingest into a new collection, check it and delete it; returns seconds and the lowest cosine."""
    seconds = contestant.timed(collection, corpus.file, len(corpus.texts))
    lowest = check(place, collection, corpus, contestant.nearest, seed=seed)
    contestant.close()
    client = place.client()
    client.delete_collection(collection)
    client.close()
    return seconds, lowest


def tune(place: Place, corpus: Corpus, console: Console) -> tuple[Entry, list[dict[str, Any]]]:
    """The settings at which langchain-qdrant is fastest here, and every try: dtype and batch, then the store's."""
    tries: list[dict[str, Any]] = []

    def attempt(**settings: Any) -> float:
        entry = tuned(**settings)
        with remotes([entry], place) as running:
            seconds, _ = run_once(running[entry.name], place, corpus, collection="tuning", seed=0)
        console.print(f"tuning {settings}: {seconds:.2f} s")
        tries.append({**settings, "texts": len(corpus.texts), "seconds": round(seconds, 3)})
        return seconds

    grid = [(dtype, batch) for dtype in ("float32", "bfloat16") for batch in (8, 32)]
    dtype, batch = min(grid, key=lambda each: attempt(dtype=each[0], batch_size=each[1], store_batch=64))
    kept = tries[grid.index((dtype, batch))]["seconds"]
    larger = attempt(dtype=dtype, batch_size=batch, store_batch=1024)
    return tuned(dtype=dtype, batch_size=batch, store_batch=1024 if larger < kept else 64), tries


def measure(listed: list[Entry], place: Place, corpus: Corpus, *, rounds: int, seed: int) -> list[Outcome]:
    """All contestants ``rounds`` times in turn, after one uncounted round that warms everything up."""
    lowest: dict[str, float] = {}
    with (
        remotes(listed, place) as running,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("measuring", total=(rounds + 1) * len(listed))
        number = 0

        def once(name: str) -> float:
            nonlocal number
            number += 1
            found = run_once(running[name], place, corpus, collection=f"round-{number}", seed=seed + number)
            lowest[name] = min(found[1], lowest.get(name, 1.0))
            progress.advance(task)
            return found[0]

        names = [entry.name for entry in listed]
        interleave(names, 1, once)
        taken = interleave(names, rounds, once)
    return [Outcome(name=name, seconds=taken[name], lowest_cosine=lowest[name]) for name in names]


def report(outcomes: list[Outcome], *, texts: int, machine: dict[str, Any], tuning: Any) -> dict[str, Any]:
    """All figures as they are stored."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    ours = by_name[OURS].seconds
    rows = []
    for outcome in outcomes:
        slower = ratio_of_medians(outcome.seconds, ours)
        rows.append(
            {
                "name": outcome.name,
                "seconds": [round(value, 3) for value in outcome.seconds],
                "texts_per_second": round(texts / outcome.median, 2),
                "times_as_long": round(slower.value, 3),
                "interval": [round(slower.low, 3), round(slower.high, 3)],
                "lowest_cosine": round(outcome.lowest_cosine, 6),
            }
        )
    aims = [
        Aim(what=f"{name} faster than {PEER}", value=value, bound=AIM, kind="at least", unit="x")
        for name in by_name
        if name.startswith("f2rag")
        for value in [ratio_of_medians(by_name[PEER].seconds, by_name[name].seconds).value]
    ]
    return {
        "rows": rows,
        "tuning": tuning,
        "aims": [aim.as_json() for aim in aims],
        "aims_in_words": [str(aim) for aim in aims],
        "machine": machine,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The result as a page."""
    machine = content["machine"]
    lines = [
        f"Made by `make bench-ingest`: {machine['texts']:,} paragraphs of the Universal Declaration of Human Rights in",
        f"all its languages, F2LLM-v2-{machine['model']}'s shape with random weights, Qdrant {machine['qdrant']}. The",
        "clock runs from the file of texts until the server counts every point; models are loaded before. Before a",
        f"time counts, all texts are there once, {COMPARED} vectors agree with stock transformers in float32 and",
        f"queries find their text. Medians of {machine['rounds']} interleaved rounds. Ratios are of this run, times of",
        "this machine only.",
        "",
        "| contestant | texts/s | time, f2rag = 1 | 95 % interval | lowest cosine to float32 |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| {row['name']} | {row['texts_per_second']:,} | {row['times_as_long']:.2f} | "
        f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f} | {row['lowest_cosine']:.4f} |"
        for row in content["rows"]
    ]
    if content["tuning"]:
        settings = machine["tuned"]
        lines += [
            "",
            f"Best tuned: {json.dumps(settings)}. Tried, on {content['tuning'][0]['texts']} of the texts:",
            "",
            "| dtype | texts of a forward | texts of a call | seconds |",
            "| --- | ---: | ---: | ---: |",
            *(
                f"| {each['dtype']} | {each['batch_size']} | {each['store_batch']} | {each['seconds']:.2f} |"
                for each in content["tuning"]
            ),
        ]
    return page("Ingestion into Qdrant, end to end", lines, content)


def show(content: dict[str, Any]) -> None:
    """The table on the screen."""
    table = Table(title="From texts to a searchable collection")
    for name in ("contestant", "texts/s", "time, f2rag = 1", "95 % interval", "lowest cosine"):
        table.add_column(name, justify="left" if name == "contestant" else "right")
    for row in content["rows"]:
        table.add_row(
            row["name"],
            f"{row['texts_per_second']:,}",
            f"{row['times_as_long']:.2f}",
            f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f}",
            f"{row['lowest_cosine']:.4f}",
        )
    console = Console()
    console.print(table)
    for aim in content["aims_in_words"]:
        console.print(aim)


@contextlib.contextmanager
def place_for(model: Path) -> Iterator[Place]:
    """A fresh server for a checkpoint."""
    with server() as running:
        yield Place(model, running.url, running.grpc_port)


def main(
    texts: Annotated[int, typer.Option(help="Paragraphs to ingest in each round.")] = 600,
    rounds: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    tuning_texts: Annotated[int, typer.Option(help="Paragraphs of each try at tuning the peer; 0 skips it.")] = 200,
    seed: Annotated[int, typer.Option(help="Of paragraphs, weights and queries.")] = 0,
    only: Annotated[str, typer.Option(help="Beside f2rag's engine and the peer, only names that hold this.")] = "",
    even_if_busy: Annotated[bool, typer.Option("--even-if-busy", help="Measure though others compute.")] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure ingestion into Qdrant end to end, and write the table."""
    console = Console(stderr=True)
    os.environ |= SILENCE
    load = require_quiet(console, even_if_busy=even_if_busy)
    passages = paragraphs(texts, seed=seed)
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as temporary:
        folder = Path(temporary)
        model = full_checkpoint(folder / "model", seed=seed)
        corpus = make_corpus(folder, model, passages)
        with place_for(model) as place:
            best: Entry | None = None
            tries: list[dict[str, Any]] = []
            if tuning_texts:
                (folder / "tuning").mkdir()
                few = Corpus(
                    save_texts(passages[:tuning_texts], folder / "tuning" / "texts.jsonl"),
                    passages[:tuning_texts],
                    corpus.reference[:tuning_texts],
                )
                best, tries = tune(place, few, console)
            listed = [entry for entry in entries() if only in entry.name or entry.name in (OURS, PEER)]
            listed += [best] if best else []
            outcomes = measure(listed, place, corpus, rounds=rounds, seed=seed)
    content = report(
        outcomes,
        texts=len(passages),
        tuning=tries,
        machine=facts(
            load=load,
            qdrant=SERVER,
            model="80M",
            texts=len(passages),
            rounds=rounds,
            seed=seed,
            tuned=best.settings if best else None,
        ),
    )
    if json_only:
        print(json.dumps(content))
        return
    write("ingest_speed", content, as_markdown(content))
    show(content)


if __name__ == "__main__":
    typer.run(main)
