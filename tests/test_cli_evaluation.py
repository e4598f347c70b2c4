"""``f2rag evaluate`` and ``f2rag advise``, end to end on a small collection."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import f2rag.cli
from f2rag.advice import Choice
from f2rag.cli.evaluation import reindex_options
from f2rag.corpus import load_udhr
from f2rag.errors import MissingExtraError
from f2rag.evaluation import Estimate, measures
from f2rag.models import STAND_IN_FOLDER
from f2rag.store import Layout

ARTICLES = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The first articles in English as the corpus; in German and French as queries."""
    folder = tmp_path_factory.mktemp("files")
    rows = [
        {"_id": f"en{each.metadata['article']}", "title": each.metadata["title"], "text": each.text, "language": "en"}
        for each in load_udhr(["en"])[:ARTICLES]
    ]
    asked = [each for tag in ("de", "fr") for each in load_udhr([tag])[:ARTICLES]]
    queries = [{"_id": each.key, "text": each.text, "metadata": {"language": each.language}} for each in asked]
    grades = [f"{each.key}\ten{each.metadata['article']}\t1" for each in asked]
    for name, lines in {
        "corpus.jsonl": map(json.dumps, rows),
        "queries.jsonl": map(json.dumps, queries),
        "qrels.tsv": ["query-id\tcorpus-id\tscore", *grades],
    }.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(files, tiny, tmp_path, monkeypatch):
    """A folder of its own with the small random checkpoint as the model, and no other settings."""
    for name in list(os.environ):
        if name.upper().startswith("F2RAG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("F2RAG_MODEL", str(tiny))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(f2rag.cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def evaluated(files, *more, code=0):
    return run("evaluate", files / "queries.jsonl", files / "qrels.tsv", "-c", "articles", *more, code=code)


@pytest.fixture
def indexed(here, files):
    evaluated(files, "--corpus", files / "corpus.jsonl", "--json")
    return files


def test_a_corpus_is_indexed_and_measured(here, files):
    result = evaluated(
        files, "--corpus", files / "corpus.jsonl", "--mode", "exact", "-d", "40", "-d", "8", "-k", "1", "--json"
    )
    found = json.loads(result.stdout)
    assert (found["queries"], found["documents"], found["missing"], found["dimensions"]) == (24, 12, 0, 40)
    exact, full, short = found["runs"]
    assert [(each["mode"], each["dimensions"]) for each in (exact, full, short)] == [
        ("exact", 40),
        ("numpy", 40),
        ("numpy", 8),
    ]
    assert exact["overall"] == full["overall"]
    assert exact["overall"] != short["overall"]
    assert list(exact["overall"]) == ["nDCG@10", "recall@1", "MRR@10"]
    assert {tag: each["nDCG@10"]["queries"] for tag, each in exact["by_language"].items()} == {"de": 12, "fr": 12}
    assert exact["search_ms"] > 0
    assert short["search_ms"] is None
    one = exact["overall"]["MRR@10"]
    assert 0 < one["low"] <= one["mean"] <= one["high"] < 1


def test_the_table_and_the_file(indexed, here):
    result = evaluated(indexed, "-d", "8", "--output", "found.json")
    stored = json.loads((here / "found.json").read_text(encoding="utf-8"))
    mean = stored["runs"][0]["overall"]["nDCG@10"]["mean"]
    assert re.search(r"mode +size +nDCG@10 +recall@10 +recall@100 +MRR@10 +search", result.stdout)
    assert re.search(rf"auto: exact +40 +{mean:.3f} \.\d{{3}}–\.\d{{3}} .* ms", result.stdout)
    assert re.search(r"numpy +8 .* – *$", result.stdout, re.MULTILINE)
    assert "nDCG@10 by language of the query" in result.stdout
    assert re.search(r"^ de +12 +0\.", result.stdout, re.MULTILINE)
    assert "24 queries over 12 documents" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_a_corpus_is_not_mixed_with_other_documents(here, files):
    result = run("evaluate", files / "queries.jsonl", files / "qrels.tsv", "--corpus", files / "corpus.jsonl", code=2)
    assert "Name a collection" in result.stderr
    assert not (here / ".f2rag").exists()


def test_mistakes_are_told_in_one_message(indexed, here):
    (here / "wrong.tsv").write_text("a\tb\n", encoding="utf-8")
    result = run("evaluate", indexed / "queries.jsonl", "wrong.tsv", "-c", "articles", code=1)
    assert "wrong.tsv:1 has 2 columns" in result.stderr
    assert "Traceback" not in result.stderr
    stated = json.loads(evaluated(indexed, "--mode", "fast", "--json", code=1).stderr.splitlines()[-1])
    assert stated["error"]["type"] == "InputError"
    assert "hybrid" in evaluated(indexed, "--mode", "hybrid", code=1).stderr
    assert "no folder" in evaluated(indexed, "--output", "no/file.json", code=2).stderr
    (here / "folder").mkdir()
    assert "cannot be written" in evaluated(indexed, "--output", "folder", code=1).stderr


def test_missing_documents_and_unjudged_queries_are_told(indexed, here):
    lines = (indexed / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    (here / "some.tsv").write_text("\n".join([*lines[:5], "udhr:fr:1\tgone\t1"]), encoding="utf-8")
    result = run("evaluate", indexed / "queries.jsonl", "some.tsv", "-c", "articles")
    assert "Note: 1 of 5 relevant documents are not in collection 'articles'" in result.stderr
    assert "19 queries have no relevant document" in result.stderr


def test_a_missing_extra_is_told_before_anything_is_loaded(here, files, monkeypatch):
    def missing(module):
        raise MissingExtraError(module, extra="evaluate")

    monkeypatch.setattr(measures, "optional", missing)
    for result in (evaluated(files, code=1), run("advise", "articles", code=1)):
        assert "pip install 'f2rag[evaluate]'" in result.stderr


def test_advice_in_a_table_with_a_plot(indexed, here):
    result = run("advise", "articles", "--plot", "advice.png")
    assert re.search(r"compared +in memory +on disk +recall@10 +overlap@10 +search", result.stdout)
    assert re.search(r"▶ +40 +160 MB +1\.000 +1\.000 +–", result.stdout)
    assert re.search(r"^ +8 → full +32 MB +80 MB .* –", result.stdout, re.MULTILINE)
    assert re.search(r"as it is: exact +1\.000 +1\.000 +[\d.]+ ms", result.stdout)
    assert "Keep all 40 dimensions as they are: 160 MB in memory per million vectors." in result.stdout
    assert "With only 12 documents" in result.stderr
    assert "stored like that already" in result.stderr
    assert (here / "advice.png").read_bytes().startswith(b"\x89PNG")


def test_advice_in_json_on_given_queries(indexed):
    found = json.loads(run("advise", "articles", "--queries", indexed / "queries.jsonl", "-k", "3", "--json").stdout)
    assert (found["queries"], found["given"], found["limit"]) == (24, True, 3)
    assert found["recommended"]["dimensions"] == 40
    assert found["measured"][0]["mode"] == "exact"


def test_advice_that_cannot_be_given(indexed):
    assert "no collection 'nothing'" in run("advise", "nothing", code=1).stderr
    assert "ends in .png or" in run("advise", "articles", "--plot", "advice.words", code=2).stderr
    assert "target=2.0 was given" in run("advise", "articles", "--target", "2", code=1).stderr


@pytest.mark.parametrize(
    ("kind", "dimensions", "layout", "expected"),
    [
        ("prefix", 64, Layout(), ""),
        ("prefix", 16, Layout(), "--dimensions 16"),
        ("prefix", 16, Layout(levels=(8,)), "--dimensions 16 --levels ''"),
        ("funnel", 16, Layout(), "--levels 16"),
        ("funnel", 16, Layout(levels=(16,)), ""),
        ("funnel", 16, Layout(levels=(8,), quantization="int8"), "--levels 16 --quantization none"),
        ("int8", 64, Layout(), "--quantization int8"),
        ("binary", 64, Layout(levels=(8,)), "--levels '' --quantization binary"),
    ],
)
def test_the_command_that_makes_what_is_recommended(kind, dimensions, layout, expected):
    estimate = Estimate(1.0, 1.0, 1.0, 10)
    choice = Choice(kind=kind, dimensions=dimensions, memory=1, disk=0, candidates=0, recall=estimate, overlap=estimate)
    assert reindex_options(choice, layout, width=64) == expected


def test_what_is_recommended_can_be_made(indexed):
    half = Estimate(1.0, 1.0, 1.0, 10)
    choice = Choice(kind="prefix", dimensions=16, memory=1, disk=0, candidates=0, recall=half, overlap=half)
    options = shlex.split(reindex_options(choice, Layout(levels=(8,)), width=40))
    run("reindex", "articles", "--into", "short", *options)
    found = json.loads(run("advise", "short", "--json").stdout)
    assert (found["dimensions"], found["documents"]) == (16, 12)


# -- the page

PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
SNIPPET = re.compile(r"<!-- runs: ([^>]+) -->\n```(python|shell)\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
SNIPPETS = SNIPPET.findall(PAGE.read_text(encoding="utf-8"))
FIGURE = re.compile(r"\d*\.\d+|\d+")


def assert_alike(printed, stated):
    """Equal words, and figures that differ by no more than another processor makes them; times and intervals aside."""
    left, right = (
        [re.sub(r"[\d.]+ ms|[\d.]+–[\d.]+", "", line).split() for line in text.splitlines() if line.strip()]
        for text in (printed, stated)
    )
    for mine, theirs in itertools.zip_longest(left, right, fillvalue=[]):
        mine_line, their_line = " ".join(mine), " ".join(theirs)
        assert FIGURE.sub("0", mine_line) == FIGURE.sub("0", their_line)
        figures = [[float(figure) for figure in FIGURE.findall(line)] for line in (mine_line, their_line)]
        assert figures[0] == pytest.approx(figures[1], abs=0.05)


def test_the_page_runs_and_prints_what_stands_beside_it(here, monkeypatch):
    monkeypatch.delenv("F2RAG_MODEL")
    if not (STAND_IN_FOLDER / "model.safetensors").is_file():
        pytest.skip("the stand-in checkpoint is not in this checkout")
    assert [name for name, *_ in SNIPPETS] == ["files", "evaluate", "python", "advise"]
    for name, kind, code, stated in SNIPPETS:
        if kind == "shell":
            printed = run(*shlex.split(code)[1:]).stdout
        else:
            with contextlib.redirect_stdout(io.StringIO()) as caught:
                exec(compile(code, f"{PAGE.name}: {name}", "exec"), {"__name__": "page"})
            printed = caught.getvalue()
        assert_alike(printed, stated)


def test_figures_and_words_that_differ_are_noticed():
    assert_alike("a 0.71 .5–.8 3.2 ms", "\na 0.72 9.9 ms  ")
    for other in ("a 0.81 3 ms", "b 0.71 3 ms", "a 0.71 3 ms\nmore"):
        with pytest.raises(AssertionError):
            assert_alike("a 0.71 3 ms", other)
