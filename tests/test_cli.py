"""The command line: what it prints and where, what it leaves with, what it says to wrong input."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from made_files import lines as pdf_lines
from made_files import pdf, word
from typer.testing import CliRunner

import f2rag.cli
import f2rag.demo
import f2rag.doctor
from f2rag import __version__
from f2rag.cli import indexing, output
from f2rag.contract import EmbeddingContract
from f2rag.doctor import Check
from f2rag.encoder import F2LLMEncoder
from f2rag.engine import SearchEngine
from f2rag.models import MODELS
from f2rag.settings import load_settings
from f2rag.store import QdrantStore


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own, with no settings but those of the test."""
    for name in list(os.environ):
        if name.upper().startswith(("F2RAG_", "QDRANT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(here, tiny, monkeypatch):
    """The small random checkpoint as the model that is set."""
    monkeypatch.setenv("F2RAG_MODEL", str(tiny))
    return str(tiny)


def run(*arguments, code=0, **options):
    """Run the command in this process and expect its exit code."""
    result = CliRunner().invoke(f2rag.cli.app, list(map(str, arguments)), **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# -- what there is


def test_help_names_the_commands(here):
    text = run("--help").stdout
    for command in ("models", "doctor", "embed", "index", "search", "collections", "backfill", "reindex", "demo"):
        assert re.search(rf"^│ {command}\b", text, re.MULTILINE)


def test_version(here):
    assert run("--version").stdout == f"f2rag {__version__}\n"


def test_models_table_fits_and_json_has_the_facts(here):
    text = run("models").stdout
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"0\.6B +instruct +596 M +1024 +8 … 512 +2\.4 GB +1\.2 GB +753 MB +587 MB +8,192", text)
    assert "is not F2LLM-v2" in text
    result = run("models", "--json")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [spec.name for spec in MODELS]
    assert rows[0]["memory_bytes"]["float32"] == 4 * rows[0]["parameters"]
    assert list(rows[0]["memory_bytes"]) == ["float32", "bfloat16", "int8", "int4"]
    assert result.stderr == ""


def test_doctor_prints_every_check(model):
    text = run("doctor").stdout
    assert re.search(r"✓ +tokenizer", text)
    assert re.search(r"✓ +self-test", text)
    assert "is ready" in text
    checks = json.loads(run("doctor", "--json", "--device", "cpu").stdout)
    assert {check["verdict"] for check in checks} <= {"ok", "warning"}


def test_doctor_leaves_with_1_when_a_check_failed(here, monkeypatch):
    given = {}

    def checks(name, **arguments):
        given.update(arguments, model=name)
        yield Check("files", "ok", "there")
        yield Check("weights", "failed", "cut off [at] byte 7")
        yield Check("self-test", "skipped", "needs the check that failed")

    monkeypatch.setattr(f2rag.doctor, "run_checks", checks)
    text = run("doctor", "-m", "80M", "--offline", "--dtype", "float32", code=1).stdout
    assert re.search(r"✗ +weights +cut off \[at\] byte 7", text)
    assert re.search(r"– +self-test", text)
    assert given["model"] == "80M"
    assert given["local_files_only"] is True
    assert given["dtype"] == "float32"
    assert [check["verdict"] for check in json.loads(run("doctor", "--json", code=1).stdout)] == [
        "ok",
        "failed",
        "skipped",
    ]


def test_doctor_of_a_missing_folder(here):
    assert re.search(r"✗ +model", run("doctor", "-m", "./nothing", code=1).stdout)


# -- embed


def test_embed_prints_the_vectors_of_the_library(model):
    encoder = F2LLMEncoder(model)
    rows = lines(run("embed", "--query", "Wo ist das?", "où").stdout)
    assert [row["text"] for row in rows] == ["Wo ist das?", "où"]
    assert {(row["role"], row["model"], row["dimensions"]) for row in rows} == {("query", encoder.model_name, 40)}
    assert np.array_equal(
        np.array(rows[0]["vector"], dtype=np.float32), encoder.embed_queries(["Wo ist das?", "où"])[0]
    )
    (row,) = lines(run("embed", "--document", "où", "-d", "8").stdout)
    assert row["role"] == "document"
    assert np.allclose(row["vector"], encoder.embed_documents(["où"], dimensions=8)[0], atol=1e-6)


def test_embed_uses_the_instruction(model):
    def vector(*options):
        return lines(run("embed", "--query", "text", *options).stdout)[0]["vector"]

    assert vector() != vector("--instruction", "Find the same.")
    assert vector("--task", "retrieval") == vector()
    assert vector("--instruction", "") == lines(run("embed", "--document", "text").stdout)[0]["vector"]


def test_embed_reads_lines_of_a_file_and_of_stdin(model, here):
    Path("texts.txt").write_text("eins\r\n\r\ndrei", encoding="utf-8")
    assert [row["text"] for row in lines(run("embed", "--document", "-f", "texts.txt").stdout)] == ["eins", "", "drei"]
    assert [row["text"] for row in lines(run("embed", "--document", input="één\ntwee\n").stdout)] == ["één", "twee"]
    assert run("embed", "--document", input="").stdout == ""


def test_embed_writes_an_array(model, here):
    result = run("embed", "--document", "a", "b", "--npy", "vectors.npy")
    assert result.stdout == ""
    assert "float32 (2, 40)" in result.stderr
    assert np.array_equal(np.load("vectors.npy"), F2LLMEncoder(model).embed_documents(["a", "b"]))
    run("embed", "--document", "--npy", "none.npy", input="")
    assert np.load("none.npy").shape == (0, 40)
    assert "cannot be written" in run("embed", "--document", "a", "--npy", "no/folder.npy", code=1).stderr


def test_embed_wants_to_know_the_side(model):
    assert "--query or --document" in run("embed", "text", code=2).stderr
    assert "not both" in run("embed", "--query", "text", "-f", "x.txt", code=2).stderr


# -- index and search


def write_texts():
    rows = [
        {"id": "1", "text": "das rote Haus am See", "language": "de"},
        {"id": "2", "text": "البيت الأحمر", "language": "ar"},
        {"id": "3", "text": "the blue [sea] boat", "language": "en"},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def test_index_and_search(model, here):
    write_texts()
    result = run("index", "rows.jsonl")
    assert re.search(r"added +updated +unchanged +truncated +seconds +removed +per second", result.stdout)
    assert re.search(r"^ +3 +0 +0 +0 ", result.stdout, re.MULTILINE)
    assert "collection documents" in result.stderr
    text = run("search", "the blue [sea] boat", "--instruction", "").stdout
    assert re.search(r"^ ?1 +1\.000 +en +rows\.jsonl · row 3 +the blue \[sea\] boat", text, re.MULTILINE)
    assert re.search(r"40 dimensions · encode \d+ ms · search [\d.]+ ms", text)
    assert f"{output.LEFT_TO_RIGHT_MARK}البيت الأحمر{output.LEFT_TO_RIGHT_MARK}" in text


def test_indexing_again_changes_nothing(model, here):
    write_texts()
    first = json.loads(run("index", "rows.jsonl", "--json").stdout)
    second = json.loads(run("index", "rows.jsonl", "--json").stdout)
    assert (first["added"], first["unchanged"]) == (3, 0)
    assert (second["added"], second["updated"], second["unchanged"], second["removed"]) == (0, 0, 3, 0)
    assert (second["collection"], second["location"]) == ("documents", ".f2rag")


def test_search_json_and_filters(model, here):
    write_texts()
    run("index", "rows.jsonl", "-l", "store", "-c", "texts", "-d", "16")
    result = run("search", "haus", "-l", "store", "-c", "texts", "--json", "-n", "2")
    found = json.loads(result.stdout)
    assert (found["query"], found["dimensions"], len(found["hits"])) == ("haus", 16, 2)
    assert found["encode_ms"] > 0
    assert result.stderr == ""
    arguments = ("search", "haus", "-l", "store", "-c", "texts", "--json", "--language", "ar", "--language", "de")
    assert {hit["id"] for hit in json.loads(run(*arguments).stdout)["hits"]} == {"1", "2"}
    assert "Nothing was found" in run("search", "haus", "-l", "store", "-c", "texts", "--language", "fr").stdout


def test_long_files_are_chunked_and_a_shorter_version_leaves_nothing_behind(model, here):
    Path("docs").mkdir()
    file = Path("docs/long.md")
    file.write_text("\n\n".join(f"Paragraph {number} of the text." for number in range(300)), encoding="utf-8")
    for number in range(7):
        Path(f"docs/picture{number}.png").touch()
    first = run("index", "docs", "--chunk-tokens", "60", "--overlap", "0", "--json", "--language", "en")
    count = json.loads(first.stdout)["added"]
    assert count > 140
    assert "Skipped" in first.stderr
    assert first.stderr.count(".png is not read") == 5
    assert "Skipped 2 more." in first.stderr
    hit = json.loads(run("search", "Paragraph 17", "--json", "-n", "1").stdout)["hits"][0]
    assert hit["source"] == "docs/long.md"
    assert hit["language"] == "en"
    assert hit["id"] == f"docs/long.md#{hit['metadata']['chunk']}"
    assert file.read_text("utf-8")[hit["metadata"]["start"] : hit["metadata"]["end"]] == hit["text"]
    file.write_text("Paragraph 0 of the text.", encoding="utf-8")
    again = json.loads(run("index", "docs", "--json").stdout)
    assert (again["added"], again["removed"]) == (1, count)
    file.write_text("\n\n".join(f"Paragraph {number}." for number in range(60)), encoding="utf-8")
    third = json.loads(run("index", "docs", "--chunk-tokens", "60", "--overlap", "0", "--json").stdout)
    assert third["removed"] == 1
    with QdrantStore.open(".f2rag") as store:
        assert store.count() == third["added"]


def test_pages_and_word_files_are_indexed_and_a_hit_names_its_page(model, here):
    Path("docs").mkdir()
    Path("docs/a.html").write_text("<html lang=de><title>T</title><p>das rote Haus", encoding="utf-8")
    Path("docs/b.docx").write_bytes(word(lambda file: file.add_paragraph("البيت الأحمر")))
    Path("docs/c.pdf").write_bytes(pdf(pdf_lines("the blue sea"), "", pdf_lines("the green boat")))
    Path("docs/d.pdf").write_bytes(pdf(""))
    result = run("index", "docs", "--json", "--language", "en")
    assert json.loads(result.stdout)["added"] == 4
    assert "Skipped docs/d.pdf: has no text on its 1 pages" in " ".join(result.stderr.split())
    text = run("search", "the green boat", "--instruction", "", "-n", "1").stdout
    assert re.search(r"^ ?1 +1\.000 +en +docs/c\.pdf · page 3 +the green boat", text, re.MULTILINE)
    hit = json.loads(run("search", "das rote Haus", "--instruction", "", "-n", "1", "--json").stdout)["hits"][0]
    assert (hit["id"], hit["language"], hit["metadata"]) == ("docs/a.html", "de", {"title": "T"})
    Path("docs/c.pdf").write_bytes(pdf(pdf_lines("the blue sea")))
    again = json.loads(run("index", "docs", "--json", "--language", "en").stdout)
    assert (again["unchanged"], again["removed"]) == (3, 1)


def test_a_named_file_that_cannot_be_read_is_told(model, here):
    Path("scan.pdf").write_bytes(pdf("", ""))
    error = " ".join(run("index", "scan.pdf", code=1).stderr.split())
    assert "scan.pdf has no text on its 2 pages; they are probably scanned." in error
    assert not Path(".f2rag").exists()


def test_rows_that_are_gone_are_removed(model, here):
    Path("rows.csv").write_text("text\none\ntwo\n", encoding="utf-8")
    run("index", "rows.csv")
    Path("rows.csv").write_text("text\ntwo\n", encoding="utf-8")
    facts = json.loads(run("index", "rows.csv", "--json").stdout)
    assert (facts["added"], facts["updated"], facts["unchanged"], facts["removed"]) == (0, 1, 0, 1)


def test_collections(model, here):
    assert "Nothing is stored" in run("collections").stderr
    assert json.loads(run("collections", "--json").stdout) == []
    write_texts()
    run("index", "rows.jsonl", "-c", "texts")
    assert re.search(r"texts +3 +40 +local:model", run("collections").stdout)
    (row,) = json.loads(run("collections", "--json").stdout)
    assert (row["name"], row["points"], row["contract"]["dimensions"]) == ("texts", 3, 40)


def test_search_takes_model_and_size_from_the_collection(here):
    contract = EmbeddingContract(model="codefuse-ai/F2LLM-v2-80M", revision="abc", native_dimensions=320, dimensions=64)
    settings = indexing.as_filled(load_settings(), contract)
    assert (settings.model, settings.revision, settings.dimensions) == ("codefuse-ai/F2LLM-v2-80M", "abc", 64)
    settings = indexing.as_filled(load_settings(model="4B", dimensions=128), contract)
    assert (settings.model, settings.revision, settings.dimensions) == ("4B", None, 128)
    elsewhere = EmbeddingContract(model="local:mine", revision="abc", native_dimensions=64, dimensions=64)
    assert indexing.as_filled(load_settings(), elsewhere).model == "0.6B"
    bundled = EmbeddingContract(model="stand-in", revision="abc", native_dimensions=256, dimensions=64)
    settings = indexing.as_filled(load_settings(), bundled)
    assert (settings.model, settings.revision) == ("stand-in", None)


# -- wrong input


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (None, "nothing.txt", "nothing.txt does not exist"),
        ("", "empty.txt", "No text was found in empty.txt"),
        ("a,b\n1,2\n", "rows.csv", "has no column 'text'"),
        ('{"text": "a"}\n{"text": \n', "rows.jsonl", "rows.jsonl:2 is not valid JSON"),
    ],
)
def test_index_names_what_is_wrong_before_anything_is_stored(content, name, problem, model, here):
    if content is not None:
        Path(name).write_text(content, encoding="utf-8")
    result = run("index", name, code=1)
    assert problem in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not Path(".f2rag").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("embed", "--query", "a", "-m", "90M"), 1, "90M"),
        (("embed", "--query", "a", "-m", "./nothing"), 1, "nothing"),
        (("embed", "--query", "a", "-d", "41"), 1, "41"),
        (("embed", "--query", "a", "-d", "0"), 1, "F2RAG_DIMENSIONS or --dimensions"),
        (("embed", "--query", "a", "-d", "many"), 2, "--dimensions"),
        (("embed", "--query", "a", "--task", "retreival"), 1, "retrieval"),
        (("embed", "--query", "a", "--dtype", "float8"), 1, "float8"),
        (("embed", "--query", "a", "--device", "abacus"), 1, "abacus"),
        (("embed", "--document", "-f", "nothing.txt"), 1, "does not exist"),
        (("search", " "), 2, "The query is empty"),
        (("search", "a", "-n", "0"), 2, "--limit"),
        (("search", "a"), 1, "no collection 'documents'"),
        (("search", "a", "-c", "../x"), 1, "cannot name a collection"),
        (("index", ".", "--overlap", "600"), 1, "overlap=600"),
        (("nonsense",), 2, "nonsense"),
        (("search",), 2, "query"),
    ],
)
def test_wrong_arguments(arguments, code, problem, model, here):
    result = run(*arguments, code=code)
    assert problem in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_another_model_is_refused_by_the_collection(model, here, make_checkpoint):
    write_texts()
    run("index", "rows.jsonl")
    assert "dimensions" in run("index", "rows.jsonl", "-d", "8", code=1).stderr
    other = make_checkpoint(model="80M", seed=1)
    assert "another" in run("search", "haus", "-m", other, code=1).stderr


def test_a_locked_store_is_told(model, here):
    write_texts()
    run("index", "rows.jsonl")
    with QdrantStore.open(".f2rag"):
        result = run("search", "haus", "--json", code=1)
    (error,) = lines(result.stderr)
    assert error["error"]["type"] == "StoreLockedError"
    assert result.stdout == ""


def test_warnings_are_notes(model, here):
    result = run("embed", "--document", "word " * 50, "-d", "7", "--max-length", "16")
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note:")]
    assert any("dimensions=7" in note for note in notes)
    assert any("max_length=16" in note for note in notes)
    assert "Warning" not in result.stderr
    assert len(lines(result.stdout)) == 1


def test_an_interruption_keeps_what_is_stored(model, here, monkeypatch):
    write_texts()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchEngine, "index", interrupted)
    result = run("index", "rows.jsonl", code=130)
    assert "What is stored is kept" in result.stderr


def test_a_closed_pipe_ends_quietly(model, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("f2rag.cli.inspection.print_json", closed)
    run("models", "--json")


def test_bugs_keep_their_traceback(model, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("f2rag.cli.inspection.print_json", broken)
    with pytest.raises(ZeroDivisionError):
        run("models", "--json")


def test_verbose_logs_to_stderr(model, monkeypatch):
    import logging

    handlers = logging.getLogger().handlers
    before = list(handlers)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run("-v", "models")
    assert len(logging.getLogger().handlers) == 1
    monkeypatch.undo()
    assert logging.getLogger().handlers == before


# -- looks


def test_snippets_are_cut_to_their_width():
    assert output.snippet("one  two\nthree", width=20).plain == "one two three"
    assert output.snippet("one two three four", width=8).plain == "one two…"
    assert output.snippet("one two three four", width=8, lines=2).plain == "one two\nthree…"
    assert output.snippet("漢字漢字漢字", width=6).plain == "漢字…"
    assert output.snippet("", width=6).plain == ""


def test_right_to_left_lines_stand_between_marks():
    mark = output.LEFT_TO_RIGHT_MARK
    assert output.snippet("שלום עולם טוב", width=9, lines=2).plain == f"{mark}שלום עולם{mark}\n{mark}טוב{mark}"


def test_the_place_of_a_hit_is_shown(model, here):
    Path("long.txt").write_text("one two three four five six seven eight. " * 20, encoding="utf-8")
    run("index", "long.txt", "--chunk-tokens", "100")
    assert re.search(r"long\.txt · chunk \d", run("search", "one two").stdout)
    Path("short.txt").write_text("one two", encoding="utf-8")
    assert 'Try: f2rag search "…" --collection other' in run("index", "short.txt", "-c", "other").stderr
    assert re.search(r"short\.txt +one two", run("search", "one two", "-c", "other").stdout)


def test_warnings_of_other_libraries_are_for_verbose(here, capsys, caplog):
    output.show_warning("mind the gap", FutureWarning)
    assert capsys.readouterr().err == ""
    with caplog.at_level("INFO", logger="f2rag"):
        output.show_warning("mind the gap", FutureWarning)
    assert "FutureWarning: mind the gap" in caplog.text


def test_the_demo_is_called_with_what_was_set(here, monkeypatch):
    calls = []
    monkeypatch.setattr(f2rag.demo, "run_demo", lambda **arguments: calls.append(arguments))
    run("demo")
    run("demo", "-m", "80M", "--offline", "-l", "place")
    unset = {"model": None, "location": None, "local_files_only": False, "cache_folder": None}
    assert calls == [unset, {**unset, "model": "80M", "location": Path("place"), "local_files_only": True}]


class Keyboard(io.TextIOWrapper):
    """A terminal that somebody has typed at."""

    def __init__(self, typed):
        super().__init__(io.BytesIO(typed), encoding="utf-8")

    def isatty(self):
        return True


def test_stdin_from_a_keyboard_is_announced(model, monkeypatch):
    monkeypatch.setattr("f2rag.cli.vectors.sys", types.SimpleNamespace(stdin=Keyboard(b"hello\n")))
    assert "until Ctrl-D" in run("embed", "--document").stderr


def test_the_console_script(here, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "argv", ["f2rag", "--version"])
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as caught:
        f2rag.cli.main()
    assert caught.value.code == 0
    assert stream.encoding == "utf-8"


# -- as a process


def process(*arguments, **options):
    command = [sys.executable, "-m", "f2rag.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(f2rag.__file__).parent.parent), "PYTHONIOENCODING": "ascii"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False, **options)


def test_help_imports_nothing_heavy(here):
    code = (
        "import sys, f2rag.cli\n"
        "try: f2rag.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'transformers', 'numpy', 'qdrant_client', 'pydantic'} & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(f2rag.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_a_real_process_indexes_and_finds(model, here):
    write_texts()
    done = process("index", "rows.jsonl", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == 3
    done = process("search", "البيت الأحمر", "--instruction", "", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hits"][0]["text"] == "البيت الأحمر"


def test_a_real_process_fails_in_words(here):
    done = process("search", "x", "--location", "nowhere", cwd=here)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no collection 'documents'")
    assert process("search", cwd=here).returncode == 2


def test_a_missing_file_is_named_before_a_model_is_looked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "f2rag.cli", "index", "nowhere.txt", "--offline"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "nowhere.txt does not exist" in done.stderr
