"""The texts that are embedded: real, multilingual, of known lengths in tokens, and the same for every contestant.

Lengths follow a low-discrepancy sequence and not independent draws, so that the first 24 texts of a workload are as
mixed as the first 20,000: a slow machine measures fewer of the same texts. Nothing here knows a model.
"""

from __future__ import annotations

import bisect
import dataclasses
import fractions
import heapq
import inspect
import json.decoder
import shlex
import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks import material
from f2rag.corpus import load_udhr_paragraphs
from f2rag.prompts import DEFAULT_INSTRUCTION, query_prefix

MAXIMUM = 2048
"""Tokens at which every contestant would cut; no text is longer."""

HEADER = (
    "Universal Declaration of Human Rights. Adopted and proclaimed by the General Assembly of the United Nations in "
    "Paris on 10 December 1948, by resolution 217 A, with forty-eight votes in favour, none against and eight "
    "abstentions. This copy is from the collected translations. Collection: declarations. Section: "
)
"""About 64 tokens that all documents of workload H begin with."""

SLICE_LANGUAGES = ("zh", "zh-Hant", "ja", "ko", "ar", "fa", "he", "th", "hi", "am")
"""Scripts that take other ways through a tokenizer than Latin."""

_GOLDEN = 0.6180339887498949


@dataclasses.dataclass(frozen=True)
class Workload:
    """Texts with one role.

    Attributes:
        key: One letter, as in the plan.
        title: What it is, for people.
        role: ``"query"`` texts get the instruction from each contestant, ``"document"`` texts stay bare.
        texts: Without any prompt.
        lengths: Tokens of each as the model sees it, prompt and EOS included.
    """

    key: str
    title: str
    role: Literal["query", "document"]
    texts: list[str]
    lengths: list[int]

    @property
    def tokens(self) -> int:
        """Real tokens of all texts: no padding, the prompt once."""
        return sum(self.lengths)

    def first(self, count: int) -> Workload:
        """The first texts only."""
        return dataclasses.replace(self, texts=self.texts[:count], lengths=self.lengths[:count])

    def up_to(self, tokens: int, *, least: int) -> Workload:
        """As many of the first texts as stay within a number of tokens, but at least so many."""
        within = int(np.searchsorted(np.cumsum(self.lengths), tokens, side="right"))
        return self.first(max(within, least))

    def distinct_lengths(self) -> list[int]:
        """Lengths with exact duplicates counted once: what has to be computed."""
        return list(dict(zip(self.texts, self.lengths, strict=True)).values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a workload is made and how large it is.

    Attributes:
        floor: Texts below which it would not be the same workload any more, e.g. less than a batch.
        on_cpu: Most texts on a CPU.
        on_gpu: Most texts on a GPU.
        share: Of the time budget.
    """

    title: str
    role: Literal["query", "document"]
    floor: int
    on_cpu: int
    on_gpu: int
    share: float
    make: Callable[[int, Path, int], list[str]]


def spread(count: int, *, seed: int) -> list[float]:
    """Numbers in (0, 1) whose every prefix is evenly spread; the seed turns the circle."""
    start = float(np.random.default_rng(seed).random())
    return [min(max((start + number * _GOLDEN) % 1.0, 1e-6), 1 - 1e-6) for number in range(count)]


def lognormal_lengths(count: int, *, median: float, sigma: float, least: int, most: int, seed: int) -> list[int]:
    """Lengths in tokens with this median, evenly spread over the distribution's quantiles and cut at both ends."""
    normal = statistics.NormalDist()
    exact = [median * float(np.exp(sigma * normal.inv_cdf(share))) for share in spread(count, seed=seed)]
    return [int(min(max(round(length), least), most)) for length in exact]


def _queries(count: int, tokenizer: Path, seed: int) -> list[str]:
    lengths = [8 + int(share * 25) for share in spread(count, seed=seed)]
    return material.texts_of_lengths(lengths, tokenizer, seed=seed)


def _passages(count: int, tokenizer: Path, seed: int) -> list[str]:
    lengths = lognormal_lengths(count, median=185, sigma=0.4, least=32, most=512, seed=seed)
    return material.texts_of_lengths(lengths, tokenizer, seed=seed)


def _mixed(count: int, tokenizer: Path, seed: int) -> list[str]:
    lengths = lognormal_lengths(count, median=300, sigma=1.1, least=8, most=MAXIMUM - 8, seed=seed)
    return material.texts_of_lengths(lengths, tokenizer, seed=seed)


def _long(count: int, tokenizer: Path, seed: int) -> list[str]:
    # A cut inside a word may cost a token or two: the last few are left free, so that nobody has to truncate.
    return material.texts_of_lengths([MAXIMUM - 8] * count, tokenizer, seed=seed)


def _headed(count: int, tokenizer: Path, seed: int) -> list[str]:
    lengths = lognormal_lengths(count, median=120, sigma=0.4, least=32, most=512, seed=seed)
    return [HEADER + text for text in material.texts_of_lengths(lengths, tokenizer, seed=seed)]


def _repeated(count: int, tokenizer: Path, seed: int) -> list[str]:
    """Every fifth text equals one of the four before it."""
    fresh = iter(_passages(count, tokenizer, seed))
    generator = np.random.default_rng(seed)
    texts: list[str] = []
    for number in range(count):
        texts.append(texts[number - 1 - int(generator.integers(4))] if number % 5 == 4 else next(fresh))
    return texts


def _scripts_and_code(count: int, tokenizer: Path, seed: int) -> list[str]:  # noqa: ARG001 - whole paragraphs as they are
    """Paragraphs in CJK, right-to-left and other scripts, and every fourth text a function's source code."""
    paragraphs = [each.text for each in load_udhr_paragraphs(SLICE_LANGUAGES)]
    sources = _functions()
    generator = np.random.default_rng(seed)
    texts: list[str] = []
    rounds = 0
    while len(texts) < count:
        prose, code = generator.permutation(len(paragraphs)), iter(generator.permutation(len(sources)).tolist())
        mark = f" ({rounds})" if rounds else ""
        for number, row in enumerate(prose, start=1):
            texts.append(paragraphs[row] + mark)
            if number % 3 == 0 and (found := next(code, None)) is not None:
                texts.append(sources[found] + mark)
        rounds += 1
    return list(dict.fromkeys(texts))[:count]


def _functions() -> list[str]:
    """Source code of functions of the standard library."""
    modules = (bisect, fractions, heapq, json.decoder, shlex, statistics, textwrap)
    found = [
        inspect.getsource(each) for module in modules for _, each in inspect.getmembers(module, inspect.isfunction)
    ]
    return [source for source in dict.fromkeys(found) if 100 < len(source) < 3000]


PLANS: dict[str, Plan] = {
    "Q": Plan(
        title="queries of 8 to 32 tokens, with the instruction",
        role="query",
        floor=32,
        on_cpu=512,
        on_gpu=10_000,
        share=0.06,
        make=_queries,
    ),
    "P": Plan(
        title="passages, lognormal around 200 tokens",
        role="document",
        floor=16,
        on_cpu=256,
        on_gpu=20_000,
        share=0.28,
        make=_passages,
    ),
    "M": Plan(
        title="mixed lengths, lognormal, median 300, up to 2,040 tokens",
        role="document",
        floor=16,
        on_cpu=192,
        on_gpu=8_000,
        share=0.36,
        make=_mixed,
    ),
    "D": Plan(
        title="documents of 2,040 tokens each",
        role="document",
        floor=2,
        on_cpu=16,
        on_gpu=2_000,
        share=0.08,
        make=_long,
    ),
    "H": Plan(
        title="passages behind a common header of 64 tokens",
        role="document",
        floor=16,
        on_cpu=128,
        on_gpu=10_000,
        share=0.07,
        make=_headed,
    ),
    "U": Plan(
        title="passages, one in five an exact duplicate",
        role="document",
        floor=20,
        on_cpu=160,
        on_gpu=10_000,
        share=0.08,
        make=_repeated,
    ),
    "L": Plan(
        title="CJK, right-to-left and other scripts, and source code",
        role="document",
        floor=16,
        on_cpu=256,
        on_gpu=5_000,
        share=0.07,
        make=_scripts_and_code,
    ),
}
"""By letter; the plan's letters, and L for the multilingual slice."""


def make_workload(key: str, tokenizer_file: Path, *, count: int, seed: int) -> Workload:
    """Make a workload of up to ``count`` texts and count its tokens with the model's own tokenizer.

    Args:
        key: One of ``PLANS``.
        tokenizer_file: The checkpoint's ``tokenizer.json``, which appends the EOS.
        count: Texts.
        seed: Of texts and lengths. A smaller count gives the first texts of a larger one.
    """
    plan = PLANS[key]
    # Letters differ in their seed, so that P and U, say, do not hold the same texts.
    made = plan.make(count, tokenizer_file, seed * len(PLANS) + list(PLANS).index(key))
    # Some versions of sentence-transformers strip texts; a blank at an end would be another text to them.
    texts = [text.strip() for text in made]
    return Workload(key, plan.title, plan.role, texts, count_tokens(texts, tokenizer_file, role=plan.role))


def count_tokens(texts: Sequence[str], tokenizer_file: Path, *, role: Literal["query", "document"]) -> list[int]:
    """Tokens of each text as the model sees it: with the instruction if it is a query, and with the EOS."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prefix = query_prefix(DEFAULT_INSTRUCTION) if role == "query" else ""
    return [
        len(found.ids) for part in _parts(texts) for found in tokenizer.encode_batch_fast([prefix + t for t in part])
    ]


def _parts(texts: Sequence[str], size: int = 4096) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts), size):
        yield texts[first : first + size]
