"""Queries, judgements and corpora as BEIR and TREC write them, and what is said of mistakes in them."""

from __future__ import annotations

import pytest

from f2rag.errors import DocumentError
from f2rag.evaluation import Query, read_corpus, read_judgements, read_queries
from f2rag.types import Document


def write(folder, name, text):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_queries_are_read(tmp_path):
    file = write(
        tmp_path,
        "queries.jsonl",
        '{"_id": "q1", "text": "wo?", "language": "de"}\n\n'
        '{"id": 7, "text": "où ?", "metadata": {"language": "fr", "more": 1}}\n'
        '{"_id": "q3", "text": "where?", "metadata": {}}\n',
    )
    assert read_queries(file) == [
        Query(id="q1", text="wo?", language="de"),
        Query(id="7", text="où ?", language="fr"),
        Query(id="q3", text="where?"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beir.tsv", "query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td 2\t0\nq2\td1\t1\n"),
        ("bare.tsv", "q 1\td1\t2\nq 1\td 2\t0\nq2\td1\t1"),
        ("trec.tsv", "q 1\t0\td1\t2\nq 1\t0\td 2\t0\n\nq2\tQ0\td1\t1\n"),
        (
            "some.jsonl",
            '{"query-id": "q 1", "corpus-id": "d1", "score": 2}\n{"query_id": "q 1", "doc_id": "d 2", "score": 0.0}\n'
            '{"qid": "q2", "docid": "d1", "relevance": 1}',
        ),
    ],
)
def test_judgements_are_read_in_every_form(tmp_path, name, text):
    assert read_judgements(write(tmp_path, name, text)) == {"q 1": {"d1": 2, "d 2": 0}, "q2": {"d1": 1}}


def test_judgements_of_trec_are_separated_by_spaces(tmp_path):
    text = "1 0 d1 2\n1   0   d2 -1\n2 Q0 d1 1\n"
    assert read_judgements(write(tmp_path, "qrels.txt", text)) == {"1": {"d1": 2, "d2": -1}, "2": {"d1": 1}}


def test_a_corpus_is_read_with_its_titles(tmp_path):
    file = write(
        tmp_path,
        "corpus.jsonl",
        '{"_id": "d1", "title": "House", "text": "red", "metadata": {}}\n{"_id": "d2", "title": "", "text": "blue"}\n'
        '{"_id": "d3", "text": " "}\n{"_id": "d4", "text": "grün", "language": "de"}\n',
    )
    assert list(read_corpus(file)) == [
        Document(id="d1", text="House red", source="corpus.jsonl", metadata={"title": "House"}),
        Document(id="d2", text="blue", source="corpus.jsonl"),
        Document(id="d4", text="grün", source="corpus.jsonl", language="de"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', r"queries\.jsonl:2 holds query 'a' a second.*line 1"),
        ('{"_id": "a", "text": "x"}\nnothing', r"queries\.jsonl:2 is not valid JSON"),
        ('["a"]', r"queries\.jsonl:1 holds a JSON list"),
        ('{"text": "x"}', r"queries\.jsonl:1 has 'text'; expected '_id' or 'id'"),
        ('{"_id": "a"}', r"queries\.jsonl:1 has '_id'; expected 'text' or 'query'"),
        ('{"_id": "a", "text": ["x"]}', r"queries\.jsonl:1 has \['x'\] in 'text'"),
        ('{"_id": true, "text": "x"}', r"queries\.jsonl:1 has True in '_id'"),
        ('{"_id": "a", "text": " "}', r"queries\.jsonl:1 has no words"),
        ('{"_id": "a", "text": "\\ud800"}', r"queries\.jsonl:1 is not valid JSON"),
        ("\n", r"queries\.jsonl holds no query"),
    ],
)
def test_queries_with_mistakes(tmp_path, text, message):
    with pytest.raises(DocumentError, match=message):
        read_queries(write(tmp_path, "queries.jsonl", text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.tsv", "query-id\tcorpus-id\tscore\na\tb\n", r"q\.tsv:2 has 2 columns; expected query id"),
        ("q.tsv", "a\tb\t1\na b c d e", r"q\.tsv:2 has 5 columns"),
        ("q.tsv", "a\t\t1", r"q\.tsv:1 has 3 columns"),
        ("q.tsv", "a\tb\thigh", r"q\.tsv:1 has the grade 'high'; expected a whole number"),
        ("q.tsv", "a\tb\t0.5", r"q\.tsv:1 has the grade '0\.5'"),
        ("q.tsv", "a\tb\tinf", r"q\.tsv:1 has the grade 'inf'"),
        ("q.tsv", "a\tb\t1\nc\td\t1\na\tb\t1", r"q\.tsv:3 judges document 'b' for query 'a' a second.*line 1"),
        ("q.tsv", "query-id\tcorpus-id\tscore\n", r"q\.tsv holds no judgement"),
        ("q.jsonl", '{"query-id": "a", "corpus-id": "b"}', r"q\.jsonl:1 has the grade None"),
        ("q.jsonl", '{"query-id": "a", "score": 1}', r"q\.jsonl:1 has 'query-id', 'score'; expected 'corpus-id'"),
        ("q.jsonl", '{"query-id": "a", "corpus-id": "b", "score": true}', r"q\.jsonl:1 has the grade True"),
    ],
)
def test_judgements_with_mistakes(tmp_path, name, text, message):
    with pytest.raises(DocumentError, match=message):
        read_judgements(write(tmp_path, name, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', r"c\.jsonl:2 holds document 'a' a second.*line 1"),
        ('{"_id": "a", "text": "x", "title": 7}', r"c\.jsonl:1 has int in 'title'"),
        ('{"_id": "a"}', r"c\.jsonl:1 has '_id'; expected 'text'"),
    ],
)
def test_a_corpus_with_mistakes(tmp_path, text, message):
    with pytest.raises(DocumentError, match=message):
        list(read_corpus(write(tmp_path, "c.jsonl", text)))


def test_a_missing_file_is_named(tmp_path):
    for read in (read_queries, read_judgements):
        with pytest.raises(DocumentError, match=r"nothing\.jsonl does not exist"):
            read(tmp_path / "nothing.jsonl")
