r"""What is put before a text: the template, the default instruction, and the instructions by task.

F2LLM-v2 is asymmetric: a query gets ``Instruct: <instruction>\nQuery: `` in front, a document gets nothing.
Symmetric tasks (similarity, translation pairs, classification, clustering) give both sides the same
instruction. One wrong byte here changes every query vector and nobody sees it, so settings hold the
*instruction*, never the whole prompt, and the text itself is never stripped or altered.

This file knows no tokenizer and no model. Sources: the model cards for the template, mteb 2.26.24 for the
authors' evaluation instructions (``data/instructions.json``).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.resources
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from f2rag.errors import InstructionError, TextTypeError

DEFAULT_INSTRUCTION: Final = "Given a question, retrieve passages that can help answer the question."
"""The retrieval instruction on the model cards."""

Side: TypeAlias = Literal["query", "both"]
"""Which texts get the instruction: only queries, or queries and documents alike."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named use of the model with the instruction that it was trained or evaluated with.

    Attributes:
        name: How the task is called here, or its MTEB name.
        instruction: The sentence between ``Instruct: `` and the line break; empty for none.
        applies_to: ``"query"`` leaves documents bare; ``"both"`` is for symmetric tasks.
        description: What the task does, for people.
    """

    name: str
    instruction: str
    applies_to: Side
    description: str


def query_prefix(instruction: str) -> str:
    r"""Everything that goes before a query: ``"Instruct: <instruction>\nQuery: "``, or nothing for ``""``.

    Raises:
        InstructionError: If ``instruction`` is not one bare sentence, see ``check_instruction``.
    """
    return f"Instruct: {instruction}\nQuery: " if check_instruction(instruction) else ""


def format_query(text: str, instruction: str) -> str:
    """Put the instruction before ``text``, which itself stays as it is, to the byte.

    Raises:
        TextTypeError: If ``text`` is not a string.
        InstructionError: If ``instruction`` is not one bare sentence, see ``check_instruction``.
    """
    if not isinstance(text, str):
        raise TextTypeError(_WRONG_TYPE.format("query", type(text).__name__, "Give one text at a time."))
    return query_prefix(instruction) + text


def check_instruction(instruction: str) -> str:
    """Return ``instruction`` as it is, if it is one bare sentence or empty.

    Raises:
        InstructionError: If it is no string, holds the template already, spans lines (the template is line
            based), or has blanks at an end (they would change every vector).
    """
    if not isinstance(instruction, str):
        raise InstructionError(_WRONG_TYPE.format("instruction", type(instruction).__name__, "'' means none."))
    if instruction.lstrip().startswith("Instruct:") or instruction.rstrip().endswith("Query:"):
        problem = "holds the prompt template already"
        remedy = "Give only the sentence between 'Instruct: ' and the line break; f2rag adds the rest."
    elif "\n" in instruction or "\r" in instruction:
        problem, remedy = "spans several lines", "Give it without line breaks; the template is line based."
    elif instruction != instruction.strip():
        problem, remedy = "begins or ends with a blank", "Remove it; it would change every query vector."
    else:
        return instruction
    message = f"The instruction {instruction!r} {problem}; expected one bare sentence. {remedy}"
    raise InstructionError(message)


_WRONG_TYPE: Final = "The {} is of type {}; expected a string. {}"


def _tasks(*tasks: tuple[str, Side, str, str]) -> Mapping[str, Task]:
    return MappingProxyType(
        {
            name: Task(name=name, instruction=instruction, applies_to=side, description=description)
            for name, side, instruction, description in tasks
        }
    )


TASKS: Final[Mapping[str, Task]] = _tasks(
    ("retrieval", "query", DEFAULT_INSTRUCTION, "Questions find passages; the default."),
    ("reranking", "query", DEFAULT_INSTRUCTION, "Questions order passages; the same as retrieval."),
    (
        "question-answering",
        "query",
        "Given a question, retrieve passages that answer the question.",
        "Questions find passages that hold the answer itself.",
    ),
    ("sts", "both", "Retrieve semantically similar text.", "How close two texts are in meaning."),
    ("bitext-mining", "both", "Retrieve translations of the following text.", "Texts find translations."),
    ("classification", "both", "Classify the topic of the given text.", "Vectors for a topic classifier."),
    ("clustering", "both", "Classify the topic of the given text.", "Vectors for grouping texts by topic."),
    ("pair-classification", "both", "Retrieve semantically entailed text.", "Whether a text entails another."),
    ("paraphrase", "both", "Retrieve paraphrases of the given sentence.", "Sentences find paraphrases."),
    ("sentiment", "both", "Classify the sentiment of the given text.", "Vectors for a sentiment classifier."),
    ("language-identification", "both", "Classify the text into its language.", "Vectors that tell languages."),
    (
        "summarization",
        "both",
        "Given a news summary, retrieve other semantically similar summaries.",
        "How close two summaries are in meaning.",
    ),
    (
        "duplicate-questions",
        "query",
        "Given a question, retrieve questions that are semantically equivalent.",
        "Questions find the same question asked before.",
    ),
    (
        "fact-checking",
        "query",
        "Given a claim, retrieve documents that support or refute the claim.",
        "Claims find their evidence.",
    ),
    (
        "scientific-claims",
        "query",
        "Given a scientific claim, retrieve passages that support or refute the claim.",
        "Scientific claims find their evidence.",
    ),
    (
        "counter-argument",
        "query",
        "Given a claim, find documents that refute the claim.",
        "Claims find arguments against them.",
    ),
    (
        "finance",
        "query",
        "Given a financial question, retrieve passages that answer the question.",
        "Financial questions find answers.",
    ),
    (
        "multi-hop",
        "query",
        "Given a multi-hop question, retrieve passages that answer the question.",
        "Questions find the several passages that answer them together.",
    ),
    (
        "entity-search",
        "query",
        "Given a query, retrieve relevant entity descriptions.",
        "Queries find descriptions of people, places and things.",
    ),
    (
        "title-to-abstract",
        "query",
        "Given a paper's title, retrieve the corresponding abstract.",
        "Titles of papers find their abstracts.",
    ),
    (
        "citation",
        "query",
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper.",
        "Titles of papers find what the papers cite.",
    ),
    (
        "text-to-code",
        "query",
        "Retrieve the most relevant code snippet for the given query.",
        "Descriptions find code.",
    ),
    ("code-to-code", "query", "Retrieve similar code to the given source code.", "Code finds similar code."),
    (
        "code-qa",
        "query",
        "Retrieve the most relevant response for the given query.",
        "Questions about code, or turns of a chat, find the response.",
    ),
    (
        "text-to-sql",
        "query",
        "Retrieve the most relevant sql code snippet for the given query.",
        "Questions find SQL statements.",
    ),
    (
        "code-to-summary",
        "query",
        "Retrieve the most relevant code summary for the given code snippet.",
        "Code finds its summary.",
    ),
    ("code-edit", "query", "Retrieve the most relevant code edit.", "Change requests find code edits."),
    (
        "product-search",
        "query",
        "Given a product name search, retrieve the corresponding product description.",
        "Product names find product descriptions.",
    ),
    (
        "news-title",
        "query",
        "Given a news title, retrieve the original article.",
        "Headlines find their articles.",
    ),
)
"""The named tasks, by name. All strings are the authors' own."""

_ALIASES: Final = {
    "chat-response": "code-qa",
    "code": "text-to-code",
    "entailment": "pair-classification",
    "language-id": "language-identification",
    "multilabel-classification": "classification",
    "nli": "pair-classification",
    "scientific-claim": "scientific-claims",
    "semantic-similarity": "sts",
    "summarisation": "summarization",
    "translation": "bitext-mining",
}

# How the instructions of symmetric MTEB tasks begin; see _applies_to.
_SYMMETRIC_OPENINGS: Final = (
    "Classify ",
    "Given a news summary, retrieve other semantically similar summaries.",
    "Identify ",
    "Retrieve duplicate questions from Sprint forum.",
    "Retrieve paragraphs describing the same chemical.",
    "Retrieve paraphrases ",
    "Retrieve semantically ",
    "Retrieve the most relevant chemical.",
    "Retrieve the most relevant summary for the given conversation.",
    "Retrieve translations ",
    "Retrieve tweets ",
)


def resolve_task(name: str) -> Task:
    """Find a task by our name for it, or else by its MTEB name.

    Upper and lower case, ``-``, ``_`` and blanks make no difference: ``"STS"``, ``"Bitext Mining"``,
    ``"text_to_code"``.

    Raises:
        InstructionError: If there is no such task; the message lists near matches.
    """
    if not isinstance(name, str):
        raise InstructionError(_WRONG_TYPE.format("task", type(name).__name__, _give_one()))
    key = _normalized(name)
    own = _own_names().get(key)
    if own is not None:
        return TASKS[own]
    benchmark = _benchmark_names().get(key)
    if benchmark is not None:
        instruction = _data()[benchmark]
        return Task(
            name=benchmark,
            instruction=instruction,
            applies_to=_applies_to(benchmark, instruction),
            description=f"The authors' evaluation instruction for the MTEB task {benchmark}.",
        )
    raise InstructionError(_unknown(name))


def mteb_instructions() -> dict[str, str]:
    """The authors' evaluation instructions: 395 MTEB task names and generic keys, 141 distinct strings."""
    return dict(_data())


def _applies_to(benchmark: str, instruction: str) -> Side:
    """Decide which side of an MTEB task gets its instruction.

    mteb gives it to every input of the symmetric task types (STS, bitext mining, classification, clustering,
    pair classification, summarisation) and never to the documents of retrieval and reranking. The data names
    no types, so they are read off the ending of the name ("...Classification", "...PC") and off the wording.
    "Identify the most relevant statutes ..." alone begins like a classification and is a retrieval. The rule
    agrees with the type that mteb 2.26.24 declares for every one of the 374 keys that it declares one for.
    """
    if "Classification" in benchmark or benchmark.endswith("PC"):
        return "both"
    if instruction.startswith("Identify the most relevant "):
        return "query"
    return "both" if instruction.startswith(_SYMMETRIC_OPENINGS) else "query"


def _normalized(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


@functools.cache
def _data() -> Mapping[str, str]:
    file = importlib.resources.files("f2rag").joinpath("data/instructions.json")
    content: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return MappingProxyType(content)


@functools.cache
def _own_names() -> Mapping[str, str]:
    """Normalised name or alias -> name in ``TASKS``."""
    return {_normalized(name): own for name, own in ({name: name for name in TASKS} | _ALIASES).items()}


@functools.cache
def _benchmark_names() -> Mapping[str, str]:
    """Normalised name -> key of the data file."""
    return {_normalized(name): name for name in _data()}


def _unknown(name: str) -> str:
    written = {**_benchmark_names(), **_own_names()}
    near = difflib.get_close_matches(_normalized(name), written, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(repr(written[match]) for match in near)}?" if near else ""
    sentence = " A sentence of your own goes into instruction=." if " " in name.strip() else ""
    return (
        f"{name!r} is no task that f2rag knows; expected a named task or an MTEB task name."
        f"{hint}{sentence} {_give_one()}"
    )


def _give_one() -> str:
    return f"Give one of {', '.join(TASKS)}."
