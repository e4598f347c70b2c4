"""The template is exact to the byte, and every instruction is the authors' own."""

from __future__ import annotations

import collections
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f2rag.errors import InstructionError, TextTypeError
from f2rag.prompts import (
    DEFAULT_INSTRUCTION,
    TASKS,
    check_instruction,
    format_query,
    mteb_instructions,
    query_prefix,
    resolve_task,
)

AUTHORS = mteb_instructions()

# Task -> keys of the authors' data that have the same instruction.
SOURCES = {
    "retrieval": ["query"],
    "reranking": ["query"],
    "question-answering": ["NFCorpus", "Touche2020Retrieval.v3"],
    "sts": ["STS", "STSBenchmark"],
    "bitext-mining": ["BitextMining"],
    "classification": ["Classification", "MultilabelClassification"],
    "clustering": ["Clustering"],
    "pair-classification": ["PairClassification"],
    "paraphrase": ["PawsXPairClassification", "OpusparcusPC"],
    "sentiment": ["AfriSentiClassification"],
    "language-identification": ["NordicLangClassification"],
    "summarization": ["SummEvalSummarization.v2"],
    "duplicate-questions": ["CQADupstackRetrieval"],
    "fact-checking": ["FEVER"],
    "scientific-claims": ["SciFact"],
    "counter-argument": ["ArguAna"],
    "finance": ["FiQA2018"],
    "multi-hop": ["HotpotQA"],
    "entity-search": ["DBPedia"],
    "title-to-abstract": ["VABBRetrieval"],
    "citation": ["SCIDOCS"],
    "text-to-code": ["CosQA", "HumanEvalRetrieval"],
    "code-to-code": ["CodeTransOceanDL"],
    "code-qa": ["StackOverflowQA", "CodeFeedbackMT"],
    "text-to-sql": ["SyntheticText2SQL"],
    "code-to-summary": ["COIRCodeSearchNetRetrieval"],
    "code-edit": ["CodeEditSearchRetrieval"],
    "product-search": ["XMarket"],
    "news-title": ["DutchNewsArticlesRetrieval"],
}
SYMMETRIC = {
    *("sts", "bitext-mining", "classification", "clustering", "pair-classification", "paraphrase", "sentiment"),
    *("language-identification", "summarization"),
}

sentences = st.text(min_size=1).filter(lambda text: not _is_refused(text))


def _is_refused(text: str) -> bool:
    return (
        text != text.strip() or "\n" in text or "\r" in text or text.startswith("Instruct:") or text.endswith("Query:")
    )


def test_the_default_prompt_equals_the_card() -> None:
    assert query_prefix(DEFAULT_INSTRUCTION) == (
        "Instruct: Given a question, retrieve passages that can help answer the question.\nQuery: "
    )
    assert format_query("What is F2LLM used for?", DEFAULT_INSTRUCTION).encode() == (
        b"Instruct: Given a question, retrieve passages that can help answer the question.\n"
        b"Query: What is F2LLM used for?"
    )


def test_an_empty_instruction_leaves_the_text_alone() -> None:
    assert query_prefix("") == ""
    assert format_query("  text\n", "") == "  text\n"


@settings(deadline=None)
@given(text=st.text(), instruction=sentences)
def test_the_text_is_never_altered(text: str, instruction: str) -> None:
    prompt = format_query(text, instruction)
    assert prompt.removeprefix(f"Instruct: {instruction}\nQuery: ") == text
    assert len(prompt) == len("Instruct: ") + len(instruction) + len("\nQuery: ") + len(text)


@pytest.mark.parametrize("text", ["", " leading", "trailing ", "line\nbreak", "\ttab", "\u200b", "Ａ｜ﬁ", "Query: x"])
def test_awkward_texts_stay_whole(text: str) -> None:
    assert format_query(text, "Find it.") == "Instruct: Find it.\nQuery: " + text


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a", "b"]])
def test_a_query_that_is_no_string_is_refused(text: Any) -> None:
    with pytest.raises(TextTypeError, match=r"is of type .*; expected a string\. Give one text") as caught:
        format_query(text, DEFAULT_INSTRUCTION)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        ("Instruct: Find cats.\nQuery: ", "holds the prompt template already"),
        ("Instruct: Find cats.", "holds the prompt template already"),
        ("Find cats.\nQuery:", "holds the prompt template already"),
        (" Instruct: Find cats. ", "holds the prompt template already"),
        ("Find\ncats.", "spans several lines"),
        ("Find\rcats.", "spans several lines"),
        ("Find cats. ", "begins or ends with a blank"),
        ("\tFind cats.", "begins or ends with a blank"),
        (" ", "begins or ends with a blank"),
    ],
)
def test_an_instruction_is_one_bare_sentence(instruction: str, problem: str) -> None:
    with pytest.raises(InstructionError) as caught:
        format_query("text", instruction)
    message = str(caught.value)
    assert repr(instruction) in message
    assert problem in message
    assert "expected one bare sentence" in message
    assert message.partition("sentence. ")[2]


@pytest.mark.parametrize("instruction", [None, 1, b"Find cats.", ["Find cats."]])
def test_an_instruction_that_is_no_string_is_refused(instruction: Any) -> None:
    with pytest.raises(InstructionError, match=r"The instruction is of type .*; expected a string\. '' means none"):
        check_instruction(instruction)


def test_an_instruction_may_mention_the_words_of_the_template() -> None:
    sentence = "Given a Query: and what Instruct: means, find it."
    assert check_instruction(sentence) is sentence


def test_the_data_is_whole() -> None:
    assert len(AUTHORS) == 395
    assert len(set(AUTHORS.values())) == 141
    assert AUTHORS["query"] == DEFAULT_INSTRUCTION
    assert AUTHORS["document"] == ""
    # One string of the authors has no full stop; it stays as it is.
    without_full_stop = {text for text in AUTHORS.values() if text and not text.endswith(".")}
    assert without_full_stop == {"Classify the sentiment of a given tweet as either positive, negative, or neutral"}
    # Compared once with mteb 2.26.24; a change of one byte changes the digest.
    canonical = json.dumps(AUTHORS, sort_keys=True, ensure_ascii=False)
    assert (
        hashlib.sha256(canonical.encode()).hexdigest()
        == "fc51df7cbce9bfd45de5120e89446b78517ec6321b72f8b59841dc714189aa68"
    )


def test_every_instruction_of_the_authors_is_valid_as_it_is() -> None:
    for instruction in AUTHORS.values():
        assert check_instruction(instruction) == instruction


def test_callers_cannot_change_the_data() -> None:
    mine = mteb_instructions()
    mine["SciFact"] = "changed"
    assert mteb_instructions()["SciFact"] == AUTHORS["SciFact"]
    with pytest.raises(TypeError):
        TASKS["retrieval"] = TASKS["sts"]  # type: ignore[index]  # the point of the test


def test_the_sources_cover_every_task() -> None:
    assert list(TASKS) == list(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_a_named_task_has_the_words_of_the_authors(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.instruction
    assert task.description.endswith(".")
    assert {AUTHORS[key] for key in SOURCES[name]} == {task.instruction}
    assert task.applies_to == ("both" if name in SYMMETRIC else "query")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("retrieval", "retrieval"),
        ("Retrieval", "retrieval"),
        ("STS", "sts"),
        ("Bitext Mining", "bitext-mining"),
        ("BitextMining", "bitext-mining"),
        ("bitext_mining", "bitext-mining"),
        ("TEXT-TO-CODE", "text-to-code"),
        ("code", "text-to-code"),
        ("NLI", "pair-classification"),
        ("PairClassification", "pair-classification"),
        ("chat response", "code-qa"),
        ("summarisation", "summarization"),
        ("MultilabelClassification", "classification"),
    ],
)
def test_spellings_and_aliases(spelling: str, name: str) -> None:
    assert resolve_task(spelling) is TASKS[name]


def test_every_key_of_the_authors_resolves_to_its_instruction() -> None:
    for key, instruction in AUTHORS.items():
        assert resolve_task(key).instruction == instruction
        assert resolve_task(key.lower().replace("-", "_")).instruction == instruction


def test_which_side_gets_the_instruction() -> None:
    sides = collections.Counter(resolve_task(key).applies_to for key in AUTHORS)
    # The types that mteb 2.26.24 declares (retrieval and reranking against all others), and the generic keys.
    assert sides == {"both": 201, "query": 194}


@pytest.mark.parametrize(
    ("key", "side"),
    [
        ("SciFact", "query"),
        ("AILAStatutes", "query"),  # "Identify the most relevant statutes ...", a retrieval
        ("AskUbuntuDupQuestions", "query"),  # a reranking
        ("SprintDuplicateQuestions", "both"),  # a pair classification
        ("SynPerQAPC", "both"),  # a pair classification with a retrieval instruction
        ("StackOverflowQA", "query"),  # the same instruction in a retrieval
        ("MassiveIntentClassification", "both"),
        ("SAMSumFa", "both"),  # a bitext mining
        ("TwentyNewsgroupsClustering.v2", "both"),
        ("BIOSSES", "both"),
        ("query", "query"),
        ("document", "query"),
    ],
)
def test_the_side_of_a_benchmark_task(key: str, side: str) -> None:
    task = resolve_task(key)
    assert task.applies_to == side
    assert task.name == key
    assert key in task.description


@pytest.mark.parametrize(
    ("typo", "meant"), [("retreival", "retrieval"), ("SciFakt", "SciFact"), ("text-2-code", "text-to-code")]
)
def test_a_typo_lists_near_matches_and_all_tasks(typo: str, meant: str) -> None:
    with pytest.raises(InstructionError) as caught:
        resolve_task(typo)
    message = str(caught.value)
    assert repr(typo) in message
    assert "expected a named task or an MTEB task name" in message
    assert repr(meant) in message.partition("Did you mean ")[2].partition("?")[0]
    assert message.endswith(f"Give one of {', '.join(TASKS)}.")


def test_a_sentence_is_no_task() -> None:
    with pytest.raises(InstructionError, match=r"A sentence of your own goes into instruction=\."):
        resolve_task("Find pictures of my neighbour's cat.")


def test_nonsense_has_no_near_match() -> None:
    with pytest.raises(InstructionError) as caught:
        resolve_task("zzzzzzzzzz")
    assert "Did you mean" not in str(caught.value)
    assert "instruction=" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 1, TASKS["sts"]])
def test_a_task_that_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InstructionError, match=r"The task is of type .*; expected a string\. Give one of retrieval"):
        resolve_task(name)
