"""The command line on servers, with search modes and layouts, and the commands that mend and renew a collection."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from pathlib import Path

import pytest
from qdrant_client import models
from servers import free_ports
from typer.testing import CliRunner

import f2rag.cli
from f2rag.cli import indexing
from f2rag.cli.output import Notes
from f2rag.settings import load_settings
from f2rag.store import Layout, Lexical, QdrantStore

KEY = "k3y-that-nobody-shall-see-in-any-text"
LAYOUT = ("--levels", "8,16", "--quantization", "int8", "--lexical", "--field", "year:integer", "--field", "author")


@pytest.fixture
def here(tmp_path, tiny, monkeypatch):
    """A folder of its own, with no settings but those of the test and the small random checkpoint as the model."""
    for name in list(os.environ):
        if name.upper().startswith(("F2RAG_", "QDRANT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("F2RAG_MODEL", str(tiny))
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": "1", "text": "das rote Haus am See", "language": "de", "year": 2001},
        {"id": "2", "text": "البيت الأحمر", "language": "ar", "year": 2002},
        {"id": "3", "text": "the blue sea boat", "language": "en", "year": 2003},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return tmp_path


@pytest.fixture
def locked(make_server):
    """A server that asks for a key."""
    return make_server(api_key=KEY)


@pytest.fixture
def served(here, locked, monkeypatch):
    """That server as the location, with the key set."""
    monkeypatch.setenv("F2RAG_QDRANT_API_KEY", KEY)
    monkeypatch.setenv("F2RAG_LOCATION", locked.url)
    monkeypatch.setenv("F2RAG_COLLECTION", "texts")
    return locked


def run(*arguments, code=0):
    """Run the command in this process and expect its exit code; the key is in nothing that it says."""
    result = CliRunner().invoke(f2rag.cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    assert KEY not in result.output
    return result


def answer(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code).stdout)


def checks(*arguments, code=0):
    return {check["name"]: check for check in answer("doctor", *arguments, code=code)}


# -- a server


def test_a_collection_on_a_server_is_filled_searched_and_listed(served):
    name = os.environ["F2RAG_COLLECTION"]
    result = run("index", "rows.jsonl", *LAYOUT)
    assert f"Stored in {served.url}, collection {name}" in result.stderr
    assert answer("index", "rows.jsonl")["unchanged"] == 3
    found = answer("search", "the blue sea boat", "--instruction", "")
    assert found["hits"][0]["text"] == "the blue sea boat"
    assert found["mode"] == "exact"
    (row,) = [row for row in answer("collections") if row["name"] == name]
    assert row["points"] == 3
    assert row["layout"]["levels"] == [8, 16]
    with contextlib.closing(served.client()) as client:
        assert client.count(name).count == 3


def test_the_conventional_variables_reach_the_server(here, locked, monkeypatch):
    monkeypatch.setenv("QDRANT_URL", locked.url)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    assert answer("index", "rows.jsonl", "-c", "conventional")["location"] == locked.url
    assert not Path(".f2rag").exists()


def test_verbose_tells_no_key(served):
    run("-v", "index", "rows.jsonl")
    run("-v", "search", "haus")


@pytest.mark.parametrize("key", ["not-the-k3y-of-this-server", None])
def test_a_wrong_key_is_told_and_not_shown(key, here, locked, monkeypatch):
    if key is not None:
        monkeypatch.setenv("F2RAG_QDRANT_API_KEY", key)
    result = run("search", "haus", "-l", locked.url, "--json", code=1)
    error = json.loads(result.stderr)["error"]
    assert error["type"] == "StoreAccessError"
    assert "not-the-k3y" not in result.output


def test_a_server_that_is_away_is_told_in_bounded_time(here, monkeypatch):
    monkeypatch.setenv("F2RAG_TIMEOUT", "1")
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = run("collections", "-l", address, "--json", code=1)
    error = json.loads(result.stderr)["error"]
    assert error["type"] == "StoreUnavailableError"
    assert address in error["message"]
    monkeypatch.setenv("F2RAG_TIMEOUT", "4")  # time for a second try, on a busy machine too
    notes = run("collections", "-l", address, code=1).stderr
    assert len(re.findall(rf"Note: .*{address}.*trying again", notes)) == 1
    assert not [handler for handler in logging.getLogger("f2rag").handlers if isinstance(handler, Notes)]


def test_the_next_address_answers_for_one_that_is_away(served, monkeypatch):
    run("index", "rows.jsonl")
    monkeypatch.setenv("F2RAG_LOCATION", f"http://127.0.0.1:{free_ports(1)[0]},{served.url}")
    assert len(answer("search", "haus")["hits"]) == 3


# -- modes


@pytest.mark.parametrize("mode", ["exact", "hnsw", "quantized", "funnel", "prefix", "hybrid", "diverse"])
def test_every_mode_finds_and_is_named(mode, here):
    # A graph over the full vectors, or over their levels.
    run("index", "rows.jsonl", *(LAYOUT[2:] if mode in ("hnsw", "quantized") else LAYOUT))
    found = answer("search", "blue boat", "--mode", mode)
    assert found["mode"] == mode
    assert found["mode_reason"] == "as asked"
    assert {hit["id"] for hit in found["hits"]} == {"1", "2", "3"}
    assert f"mode {mode}: as asked" in run("search", "blue boat", "--mode", mode).stdout


def test_words_find_what_vectors_do_not(here):
    """The model is random: only the words can put the document with the rare word first."""
    run("index", "rows.jsonl", "--lexical")
    assert answer("search", "boat", "--mode", "hybrid")["hits"][0]["id"] == "3"
    assert answer("search", "البيت", "--mode", "hybrid")["hits"][0]["id"] == "2"


def test_the_mode_that_auto_took_is_shown_with_its_reason(here, monkeypatch):
    run("index", "rows.jsonl")
    assert re.search(r"^mode exact: comparing all 3 vectors", run("search", "haus").stdout, re.MULTILINE)
    monkeypatch.setenv("F2RAG_MODE", "hnsw")
    assert answer("search", "haus")["mode"] == "hnsw"
    assert answer("search", "haus", "--mode", "auto")["mode"] == "exact"


def test_a_mode_that_the_collection_cannot_serve_is_told(here):
    run("index", "rows.jsonl")
    assert "F2RAG_MODE or --mode: 'quick' was given" in run("search", "haus", "--mode", "quick", code=1).stderr
    assert "hybrid" in run("search", "haus", "--mode", "hybrid", code=1).stderr.lower()
    assert "funnel" in run("search", "haus", "--mode", "funnel", code=1).stderr.lower()


# -- layouts


def test_a_collection_keeps_its_layout(here):
    run("index", "rows.jsonl", *LAYOUT)
    run("index", "rows.jsonl")
    stored = answer("collections")[0]["layout"]
    assert stored["levels"] == [8, 16]
    assert stored["quantization"] == "int8"
    assert stored["lexical"]["tokenizer"] == "multilingual"
    assert stored["fields"] == {"author": "keyword", "year": "integer"}
    run("index", "rows.jsonl", "--lexical")  # what is not named is as it is stored
    result = run("index", "rows.jsonl", "--levels", "8", code=1)
    assert "levels" in result.stderr
    assert "quantization" not in result.stderr
    assert "reindex" in result.stderr


def test_what_is_not_named_is_what_suits_a_new_collection(here):
    settings = load_settings(lexical=True)
    assert indexing.layout_for(settings, dimensions=1024) == Layout(levels=(128,), lexical=Lexical())
    assert indexing.layout_for(settings, dimensions=64) == Layout(lexical=Lexical())
    assert indexing.layout_for(load_settings(lexical=True, levels=""), dimensions=1024) == Layout(lexical=Lexical())
    assert indexing.layout_for(load_settings(), dimensions=1024) is None
    run("index", "rows.jsonl", *LAYOUT)
    run("reindex", "documents", "--into", "second", "--alias", "live")
    expected = Layout(levels=(8, 16), quantization="int8", fields={"year": "integer", "author": "keyword"})
    assert indexing.layout_for(load_settings(collection="live", lexical=False), dimensions=40) == expected


def test_a_level_that_is_no_prefix_is_refused(here):
    assert (
        "Level 40 is no prefix of 40-dimensional vectors" in run("index", "rows.jsonl", "--levels", "40", code=1).stderr
    )


def test_collections_shows_layouts_and_aliases(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run("index", "rows.jsonl", *LAYOUT)
    text = run("collections").stdout
    assert "levels 8, 16 · int8 · words · fields author:keyword, year:integer" in text
    assert "aliases" not in text
    run("reindex", "documents", "--into", "second", "--alias", "live")
    assert re.search(r"second .* live *$", run("collections").stdout, re.MULTILINE)
    assert {row["name"]: row["aliases"] for row in answer("collections")} == {"documents": [], "second": ["live"]}


# -- doctor


def test_doctor_explains_a_collection(here):
    run("index", "rows.jsonl", *LAYOUT)
    found = checks("-c", "documents")
    assert {check["verdict"] for check in found.values()} == {"ok"}
    text = run("doctor", "-c", "documents").stdout
    assert re.search(r"✓ +layout +besides the full vectors: levels 8, 16 · int8 · words", text)
    assert re.search(r"✓ +search +mode auto takes exact: comparing all 3 vectors", text)
    assert "Collection documents is ready." in text
    assert checks("-l", ".f2rag") == found


def test_doctor_compares_a_model_only_when_it_is_named(here, make_checkpoint, tiny):
    run("index", "rows.jsonl")
    other = make_checkpoint(model="80M", seed=1)
    assert checks("-c", "documents")["contract"]["verdict"] == "ok"
    assert "may go in" in checks("-c", "documents", "-m", tiny)["contract"]["detail"]
    contract = checks("-c", "documents", "-m", other, code=1)["contract"]
    assert contract["verdict"] == "failed"
    assert "revision" in contract["detail"]


def test_doctor_of_a_collection_that_is_absent(here):
    found = checks("-c", "nothing", code=1)
    assert found["home"]["verdict"] == "failed"
    assert "no collection 'nothing'" in found["home"]["detail"]
    assert {check["verdict"] for name, check in found.items() if name != "home"} == {"skipped"}
    assert "is ready" not in run("doctor", "-c", "nothing", code=1).stdout


def test_doctor_of_a_collection_that_is_in_use(here):
    run("index", "rows.jsonl")
    with QdrantStore.open(".f2rag"):
        found = checks("-c", "documents", code=1)
    assert found["home"]["verdict"] == "failed"
    assert "another process" in found["home"]["detail"]


def test_doctor_of_a_server(served):
    run("index", "rows.jsonl", *LAYOUT)
    found = checks("-c", os.environ["F2RAG_COLLECTION"])
    assert served.url in found["home"]["detail"]
    assert "1.17.0; it is too old for turbo quant (from 1.18.0)" in found["engine"]["detail"]


# -- backfill


def test_what_another_tool_wrote_without_levels_is_found_and_filled_in(served):
    name = os.environ["F2RAG_COLLECTION"]
    run("index", "rows.jsonl", *LAYOUT)
    assert "Nothing is missing" in run("backfill", name).stderr
    foreign = [
        models.PointStruct(id=number, vector=[1.0] * 40, payload={"page_content": f"a foreign text {number}"})
        for number in (1, 2)
    ]
    with contextlib.closing(served.client()) as client:
        client.upsert(name, foreign)
    completeness = checks("-c", name)["completeness"]
    assert completeness["verdict"] == "warning"
    assert "2 lack mrl8, 2 lack mrl16, 2 lack bm25" in completeness["detail"]
    assert f"f2rag backfill {name} --location {served.url}" in completeness["detail"]
    assert len(answer("search", "haus", "--mode", "funnel")["hits"]) == 3
    missing = {"mrl8": 2, "mrl16": 2, "bm25": 2}
    assert answer("backfill", name) == {"collection": name, "location": served.url, "missing": missing, "made": 6}
    assert answer("backfill", name)["made"] == 0
    assert checks("-c", name)["completeness"]["verdict"] == "ok"
    assert len(answer("search", "haus", "--mode", "funnel")["hits"]) == 5


def test_backfill_shows_what_it_made(served):
    name = os.environ["F2RAG_COLLECTION"]
    run("index", "rows.jsonl", "--levels", "8")
    with contextlib.closing(served.client()) as client:
        client.upsert(name, [models.PointStruct(id=1, vector=[1.0] * 40, payload={"page_content": "foreign"})])
    result = run("backfill", name)
    assert re.search(r"^ mrl8 +1 *$", result.stdout, re.MULTILINE)
    assert "1 vectors were made" in result.stderr
    assert "no collection 'nothing'" in run("backfill", "nothing", code=1).stderr


# -- reindex


def test_a_new_layout_copies_the_vectors_and_keeps_the_rest(here):
    run("index", "rows.jsonl", *LAYOUT)
    report = answer("reindex", "documents", "--into", "second", "--levels", "20", "--quantization", "none")
    expected = {"documents": 3, "embedded": False, "alias": None, "collection": "second", "location": ".f2rag"}
    assert report == expected
    first, second = (row["layout"] for row in answer("collections"))
    assert second == {**first, "levels": [20], "quantization": None}
    assert answer("search", "haus", "-c", "second")["hits"] == answer("search", "haus")["hits"]


def test_a_smaller_size_is_cut_and_drops_levels_that_do_not_fit(here):
    run("index", "rows.jsonl", *LAYOUT)
    result = run("reindex", "documents", "--into", "short", "-d", "16", "--alias", "live")
    assert "3 documents are in .f2rag, collection short: copied with their vectors." in result.stderr
    assert "live now stands for short." in result.stderr
    (short,) = [row for row in answer("collections") if row["name"] == "short"]
    assert (short["contract"]["dimensions"], short["layout"]["levels"]) == (16, [8])
    assert answer("search", "haus", "-c", "live")["dimensions"] == 16


def test_another_model_comes_at_its_own_size(here, make_checkpoint):
    run("index", "rows.jsonl", "-d", "16")
    other = make_checkpoint(model="80M", seed=1)
    assert answer("reindex", "documents", "--into", "renewed", "-m", other)["embedded"] is True
    found = {row["name"]: row["contract"]["dimensions"] for row in answer("collections")}
    assert found == {"documents": 16, "renewed": 40}


def test_a_folder_moves_to_a_server(here, locked, monkeypatch):
    monkeypatch.setenv("F2RAG_QDRANT_API_KEY", KEY)
    run("index", "rows.jsonl", *LAYOUT)
    report = answer("reindex", "documents", "--into", "moved", "--to", locked.url, "--alias", "from-folder")
    assert (report["location"], report["documents"], report["embedded"]) == (locked.url, 3, False)
    found = answer("search", "the blue sea boat", "--instruction", "", "-l", locked.url, "-c", "from-folder")
    assert found["hits"][0]["id"] == "3"


def test_reindex_into_itself_is_refused(here):
    run("index", "rows.jsonl")
    for to in ((), ("--to", ".f2rag")):
        result = run("reindex", "documents", "--into", "documents", *to, code=1)
        assert "'documents' is the collection that is read" in result.stderr
    assert "--into" in run("reindex", "documents", code=2).stderr
