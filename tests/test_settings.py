"""Explicit wins over the environment, that over .env, that over the default; mistakes are told in words."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from pathlib import Path

import pytest

from f2rag.encoder import F2LLMEncoder
from f2rag.errors import SettingsError
from f2rag.settings import Settings, load_settings
from f2rag.store.layout import Layout, Lexical
from f2rag.store.server import Server

KEY = "k3y-of-the-server"


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """No settings but those of the test."""
    for name in list(os.environ):
        if name.upper().startswith(("F2RAG_", "QDRANT_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults():
    settings = load_settings()
    assert settings.model == "0.6B"
    assert settings.location == ".f2rag"
    assert settings.collection == "documents"
    assert settings.instruction is None
    assert settings.model_fields_set == set()


def test_precedence(monkeypatch):
    assert load_settings().limit == 10
    Path(".env").write_text("F2RAG_LIMIT=1\nF2RAG_MODEL=80M\n", encoding="utf-8")
    assert load_settings().limit == 1
    monkeypatch.setenv("F2RAG_LIMIT", "2")
    assert load_settings().limit == 2
    assert load_settings(limit=3).limit == 3
    assert load_settings(limit=None).limit == 2
    assert load_settings().model == "80M"
    assert load_settings().model_fields_set == {"limit", "model"}


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    Path(".env").write_text("F2RAG_DIMENSIONS=64\nF2RAG_TASK=\n", encoding="utf-8")
    monkeypatch.setenv("F2RAG_DIMENSIONS", "")
    monkeypatch.setenv("F2RAG_INSTRUCTION", "")
    settings = load_settings()
    assert (settings.dimensions, settings.task, settings.instruction) == (64, None, None)


def test_values_are_read_as_what_they_are(monkeypatch):
    for name, value in {"LOCAL_FILES_ONLY": "true", "CACHE_FOLDER": "/models", "DTYPE": "bfloat16"}.items():
        monkeypatch.setenv(f"F2RAG_{name}", value)
    settings = load_settings()
    assert (settings.local_files_only, settings.cache_folder, settings.dtype) == (True, Path("/models"), "bfloat16")
    assert settings.encoder_arguments()["weight_dtype"] is None
    monkeypatch.setenv("F2RAG_WEIGHT_DTYPE", "int8")
    assert load_settings().encoder_arguments()["weight_dtype"] == "int8"
    assert load_settings(weight_dtype="int4").encoder_arguments()["weight_dtype"] == "int4"
    with pytest.raises(SettingsError, match="F2RAG_WEIGHT_DTYPE or --weight-dtype: 'int3' was given"):
        load_settings(weight_dtype="int3")


def test_an_instruction_is_never_stripped(monkeypatch):
    monkeypatch.setenv("F2RAG_INSTRUCTION", " Find it: ")
    assert load_settings().instruction == " Find it: "
    monkeypatch.delenv("F2RAG_INSTRUCTION")
    Path(".env").write_text('F2RAG_INSTRUCTION=" Trouve-le : "\n', encoding="utf-8")
    assert load_settings().instruction == " Trouve-le : "


def test_an_explicit_empty_instruction_means_none_for_queries(monkeypatch):
    monkeypatch.setenv("F2RAG_INSTRUCTION", "Find it.")
    assert load_settings(instruction="").instruction == ""


def test_an_explicit_task_displaces_an_instruction_and_the_other_way_round(monkeypatch):
    monkeypatch.setenv("F2RAG_INSTRUCTION", "Find it.")
    settings = load_settings(task="sts")
    assert (settings.task, settings.instruction) == ("sts", None)
    monkeypatch.setenv("F2RAG_TASK", "sts")
    settings = load_settings(instruction="Look.")
    assert (settings.task, settings.instruction) == (None, "Look.")
    with pytest.raises(SettingsError, match="Both a task and an instruction"):
        load_settings()
    with pytest.raises(SettingsError, match="Both a task and an instruction"):
        load_settings(task="sts", instruction="Look.")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DIMENSIONS", "many", "F2RAG_DIMENSIONS or --dimensions: 'many' was given; it should be a valid integer"),
        ("DIMENSIONS", "0", "greater than or equal to 1"),
        ("DTYPE", "float8", "'float32', 'bfloat16' or 'float16'"),
        ("ON_OVERFLOW", "ignore", "'truncate', 'warn' or 'error'"),
        ("CHUNK_TOKENS", "4", "F2RAG_CHUNK_TOKENS or --chunk-tokens: '4' was given"),
        ("LOCAL_FILES_ONLY", "perhaps", "valid boolean"),
    ],
)
def test_a_wrong_value_is_one_line_without_a_traceback(name, value, problem, monkeypatch):
    monkeypatch.setenv(f"F2RAG_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert problem in message
    assert "pydantic" not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None


def test_all_wrong_values_are_told_at_once(monkeypatch):
    monkeypatch.setenv("F2RAG_LIMIT", "-1")
    with pytest.raises(SettingsError) as caught:
        load_settings(overlap=-3)
    assert set(re.findall(r"F2RAG_\w+", str(caught.value))) == {"F2RAG_OVERLAP", "F2RAG_LIMIT"}


def test_a_value_as_long_as_a_secret_is_not_repeated(monkeypatch):
    monkeypatch.setenv("F2RAG_LIMIT", "hf_abcdefghijklmnopqrstuvwxyz0123")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize("name", ["F2RAG_DIMENSION", "F2RAG_COLECTION", "F2RAG_MODELS", "f2rag_dimension"])
def test_a_misspelt_variable_is_refused(name, monkeypatch):
    monkeypatch.setenv(name, "secret-value")
    with pytest.raises(SettingsError, match=rf"{name} is no setting of f2rag\. Did you mean F2RAG_") as caught:
        load_settings()
    assert "secret-value" not in str(caught.value)


def test_a_misspelt_line_of_the_file_is_refused():
    Path(".env").write_text("F2RAG_OVERLAPS=3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="Did you mean F2RAG_OVERLAP"):
        load_settings()


def test_other_variables_are_left_alone(monkeypatch):
    monkeypatch.setenv("F2RAG_TEST_REAL_WEIGHTS", "1")
    Path(".env").write_text("HF_TOKEN=x\n", encoding="utf-8")
    assert load_settings() == Settings()


def test_a_file_that_is_no_text_is_refused():
    Path(".env").write_bytes(b"F2RAG_MODEL=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()


def test_the_encoder_takes_what_the_settings_give():
    arguments = load_settings(model="80M").encoder_arguments()
    assert set(arguments) == set(inspect.signature(F2LLMEncoder).parameters)
    assert F2LLMEncoder(**arguments).model_name == "F2LLM-v2-80M"


def test_the_example_file_names_every_setting_and_loads():
    example = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8")
    named = re.findall(r"^# F2RAG_(\w+)=", example, re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)
    Path(".env").write_text(re.sub(r"^# (F2RAG_(?!TASK))", r"\1", example, flags=re.MULTILINE), encoding="utf-8")
    settings = load_settings()
    assert settings.chunk_tokens == 512
    assert settings.layout().levels == (128, 256)


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().limit = 3


# -- the server


@pytest.mark.parametrize("location", [".f2rag", ":memory:", "/a/folder, with a comma", "C:\\vectors", "http", "a:b:1"])
def test_a_folder_or_memory_goes_to_the_store_as_it_is(location, monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    settings = load_settings(location=location)
    assert settings.addresses == ()
    assert settings.location_for_store() == location


def test_a_server_goes_to_the_store_with_its_options(monkeypatch):
    monkeypatch.setenv("F2RAG_QDRANT_API_KEY", KEY)
    server = load_settings(location="https://qdrant.example.com:6333", grpc_port=7001, timeout=2.5).location_for_store()
    assert isinstance(server, Server)
    assert server.grpc_port == 7001
    assert server.timeout == 2.5
    assert revealed(server) == KEY
    assert load_settings(location="HTTP://host").location_for_store().timeout == Server("http://host").timeout


def test_the_nodes_of_a_cluster_keep_their_order():
    settings = load_settings(location="http://b:6333, http://a:6333,")
    assert settings.addresses == ("http://b:6333", "http://a:6333")
    assert tuple(settings.location_for_store().url) == settings.addresses


def test_the_conventional_variables_stand_in(monkeypatch):
    monkeypatch.setenv("QDRANT_URL", "http://convention:6333")
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    settings = load_settings()
    assert settings.location == "http://convention:6333"
    assert revealed(settings.location_for_store()) == KEY
    assert load_settings(location="folder").location == "folder"
    Path(".env").write_text("F2RAG_LOCATION=other\nF2RAG_QDRANT_API_KEY=second\n", encoding="utf-8")
    settings = load_settings()
    assert settings.location == "other"
    assert settings.qdrant_api_key.get_secret_value() == "second"


def test_the_conventional_variables_are_read_from_the_file_too(monkeypatch):
    Path(".env").write_text(f"QDRANT_URL=http://file:6333\nQDRANT_API_KEY={KEY}\n", encoding="utf-8")
    assert load_settings().location == "http://file:6333"
    assert load_settings().qdrant_api_key.get_secret_value() == KEY
    monkeypatch.setenv("QDRANT_URL", "http://environment:6333")
    assert load_settings().location == "http://environment:6333"
    monkeypatch.setenv("QDRANT_URL", "")
    assert load_settings().location == "http://file:6333"


def test_a_conventional_address_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("QDRANT_URL", "qdrant")
    with pytest.raises(SettingsError, match="QDRANT_URL is no address of a server"):
        load_settings()
    monkeypatch.setenv("QDRANT_URL", "http://host:port")
    with pytest.raises(SettingsError, match=r"F2RAG_LOCATION or QDRANT_URL or --location: .* whole number"):
        load_settings()


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        (f"http://user:{KEY}@host", "should hold no key or password: set F2RAG_QDRANT_API_KEY instead"),
        (f"http://a,http://{KEY}@b", "should hold no key"),
        (f"http://host?api_key={KEY}", "should hold no key"),
        (f"http://host:{KEY}", "should have a whole number after the colon"),
        (f"ftp://{KEY}", "should be a folder, ':memory:', or an address"),
        ("http://", "should be a folder, ':memory:', or an address"),
        ("http://a,b", "should be a folder, ':memory:', or an address"),
        ("localhost:6333", "an address that begins with http:// or https://"),
    ],
)
def test_a_location_that_is_no_address_is_refused_and_never_shown_whole(location, problem, monkeypatch):
    monkeypatch.setenv("F2RAG_LOCATION", location)
    with pytest.raises(SettingsError, match=re.escape(problem)) as caught:
        load_settings()
    assert KEY not in str(caught.value)


def test_the_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    settings = load_settings(location="http://host:6333")
    server = settings.location_for_store()
    for shown in (settings, settings.model_dump(), settings.model_dump_json(), server, vars(settings), vars(server)):
        assert KEY not in f"{shown} {shown!r}"
    monkeypatch.setenv("F2RAG_LIMIT", "none")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert KEY not in f"{caught.value} {caught.value!r}"


def revealed(server):
    key = server.api_key
    return key if isinstance(key, str) else key.get_secret_value()


# -- the layout of new collections


def test_a_layout_that_is_not_set_is_none():
    assert load_settings().layout() is None


def test_what_is_not_set_is_taken_from_another_layout():
    base = Layout(levels=(64,), quantization="int8", lexical=Lexical(b=0.5), fields={"year": "integer"})
    assert load_settings().layout(base=base) is base
    assert load_settings(levels="").layout(base=base) == dataclasses.replace(base, levels=())
    assert load_settings(quantization="none").layout(base=base) == dataclasses.replace(base, quantization=None)
    assert load_settings(lexical=True).layout(base=base) == base
    assert load_settings(lexical=False).layout(base=base) == dataclasses.replace(base, lexical=None)
    assert load_settings(fields="author").layout(base=base) == dataclasses.replace(base, fields={"author": "keyword"})


@pytest.mark.parametrize(
    ("given", "layout"),
    [
        ({"levels": "256, 128"}, Layout(levels=(128, 256))),
        ({"quantization": "int8"}, Layout(quantization="int8")),
        ({"lexical": True}, Layout(lexical=Lexical())),
        ({"lexical": False}, Layout()),
        (
            {"fields": "year:integer, author,seen:datetime"},
            {"year": "integer", "author": "keyword", "seen": "datetime"},
        ),
        ({"levels": "64", "lexical": True}, Layout(levels=(64,), lexical=Lexical())),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_set_makes_the_layout(given, layout):
    expected = Layout(fields=layout) if isinstance(layout, dict) else layout
    assert load_settings(**given).layout() == expected


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LEVELS", "wide", "F2RAG_LEVELS or --levels: 'wide' was given; it should be sizes separated by commas"),
        ("LEVELS", "0,128", "expected whole numbers from 1"),
        ("LEVELS", "128,128", "names one twice"),
        (
            "FIELDS",
            "year:number",
            "F2RAG_FIELDS or --field: 'year:number' was given; it should be fields with their kinds",
        ),
        ("FIELDS", ":integer", "no metadata field"),
        ("QUANTIZATION", "int4", "'int8', 'turbo4', 'turbo2', 'turbo1', 'binary' or 'none'"),
        ("LEXICAL", "bm25", "valid boolean"),
        ("MODE", "quick", "'auto', 'exact', 'hnsw', 'quantized', 'funnel', 'prefix', 'hybrid' or 'diverse'"),
        ("GRPC_PORT", "0", "F2RAG_GRPC_PORT: '0' was given; it should be greater than or equal to 1"),
        ("TIMEOUT", "-1", "F2RAG_TIMEOUT: '-1' was given; it should be greater than 0"),
    ],
)
def test_a_layout_or_server_option_that_is_wrong_is_one_line(name, value, problem, monkeypatch):
    monkeypatch.setenv(f"F2RAG_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
