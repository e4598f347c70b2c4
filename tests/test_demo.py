"""The demo chooses its model in words, embeds once for two sizes, and judges its own hits."""

from __future__ import annotations

import dataclasses
import io
import sys
import threading
import types

import huggingface_hub
import pytest
from huggingface_hub import constants
from rich.console import Console

from f2rag import demo
from f2rag.corpus import UDHR_LANGUAGES, load_udhr
from f2rag.encoder import F2LLMEncoder
from f2rag.errors import ModelNotFoundError, UnknownModelError
from f2rag.store import QdrantStore, list_collections
from f2rag.testing import FakeEncoder
from f2rag.types import Hit


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100, highlight=False)


@pytest.fixture
def encoder():
    with FakeEncoder(dimensions=96, native_dimensions=96) as made:
        yield made


@pytest.fixture
def stores(encoder, tmp_path):
    with demo._open(tmp_path, encoder, 96) as large, demo._open(tmp_path, encoder, demo.SMALL) as small:
        yield large, small


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """A machine without the real model, whose hub is switched on."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


def test_questions_are_on_articles_that_exist_in_languages_that_are_indexed():
    assert len(demo.DEMO_LANGUAGES) >= 60
    assert {UDHR_LANGUAGES[tag].script for tag in demo.DEMO_LANGUAGES} >= {"Latin", "Arabic", "Han", "Devanagari"}
    for question in demo.QUESTIONS:
        assert question.language in demo.DEMO_LANGUAGES
        assert 1 <= question.article <= 30
        assert bool(question.english) == (question.language != "en")
    assert len({question.language for question in demo.QUESTIONS}) == 6


# -- which model


def test_a_named_model_is_taken():
    assert demo.choose_model("4B") == demo.Choice("4B", "you named it")


def test_a_cached_model_is_taken(no_cache, monkeypatch):
    known = demo.resolve(demo.REAL_MODEL)
    repository = no_cache / f"models--{known.repo.replace('/', '--')}"
    snapshot = repository / "snapshots" / known.revision
    snapshot.mkdir(parents=True)
    monkeypatch.setattr(demo, "_hub_answers", lambda: False)
    for name in ("config.json", "tokenizer.json"):
        (snapshot / name).touch()
    assert demo.choose_model(None, cache_folder=no_cache).model == "stand-in"
    (snapshot / "model.safetensors").touch()
    choice = demo.choose_model(None, cache_folder=no_cache, local_files_only=True)
    assert choice == demo.Choice("80M", "it is in the cache of this machine")


def test_the_hub_is_not_asked_when_it_is_switched_off(no_cache, monkeypatch):
    monkeypatch.setattr(demo, "_hub_answers", lambda: pytest.fail("asked the hub"))
    choice = demo.choose_model(None, cache_folder=no_cache, local_files_only=True)
    assert (choice.model, "switched off" in choice.reason) == ("stand-in", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert demo.choose_model(None, cache_folder=no_cache) == choice


def test_the_hub_decides_when_nothing_is_cached(no_cache, monkeypatch):
    asked = []

    def model_info(self, repo, *, revision, timeout):
        asked.append((repo, revision, timeout))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert demo.choose_model(None, cache_folder=no_cache).model == "80M"
    known = demo.resolve("80M")
    assert asked == [(known.repo, known.revision, demo.HUB_TIMEOUT)]

    def unreachable(self, repo, **_):
        raise OSError

    monkeypatch.setattr(demo, "HUB_TIMEOUT", -0.9)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    choice = demo.choose_model(None, cache_folder=no_cache)
    assert (choice.model, "does not answer" in choice.reason) == ("stand-in", True)


def test_a_hub_that_hangs_is_not_waited_for(no_cache, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(demo, "HUB_TIMEOUT", -0.9)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: release.wait())
    assert demo.choose_model(None, cache_folder=no_cache).model == "stand-in"
    release.set()


def test_a_failed_download_falls_back_to_the_stand_in(monkeypatch):
    def fetch(self):
        raise ModelNotFoundError("the line is cut\nand more")

    monkeypatch.setattr(F2LLMEncoder, "fetch", fetch)
    options = {"offline": False, "cache_folder": None}
    encoder, choice = demo._ready(demo.Choice("80M", "it answers"), given=False, **options)
    assert encoder.is_stand_in
    assert choice.reason == "80M could not be had: the line is cut"
    with pytest.raises(ModelNotFoundError):
        demo._ready(demo.Choice("80M", "you named it"), given=True, **options)
    with pytest.raises(UnknownModelError):
        demo._ready(demo.Choice("81M", "you named it"), given=True, **options)


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_the_introduction_cannot_be_mistaken(is_stand_in, console):
    encoder = types.SimpleNamespace(is_stand_in=is_stand_in, model_name="F2LLM-v2-80M")
    demo._introduce(console, encoder, demo.Choice("x", "it is so"))
    text = console.file.getvalue()
    assert ("This is the stand-in, not F2LLM-v2." in text) == is_stand_in
    assert ("F2LLM-v2-80M: it is so." in text) == (not is_stand_in)


# -- indexing


def test_articles_are_embedded_once_for_both_sizes(encoder, stores, console, capsys):
    large, small = stores
    assert demo.index_declaration(encoder, stores, languages=["en", "ar"], console=console) == 60
    assert sum(encoder.document_calls) == 60
    assert (large.count(), small.count()) == (60, 60)
    for article in load_udhr(["ar"])[:3]:
        for store in stores:
            vector = encoder.embed_documents([article.text], dimensions=store.dimensions)[0]
            (hit,) = store.search(vector, limit=1)
            assert (hit.id, round(hit.score, 4)) == (article.id, 1.0)
    assert "60 articles in 2 languages, at 96 and 64 dimensions: 60 embedded, 0 there already" in (
        console.file.getvalue()
    )
    assert capsys.readouterr().out == ""  # the bar is on stderr


def test_a_second_run_embeds_nothing(encoder, stores, console):
    demo.index_declaration(encoder, stores, languages=["en"], console=console)
    encoder.document_calls.clear()
    assert demo.index_declaration(encoder, stores, languages=["en"], console=console) == 0
    assert encoder.document_calls == []
    assert "0 embedded, 30 there already" in console.file.getvalue()


def test_an_interrupted_run_is_completed(encoder, stores, console):
    large, _ = stores
    articles = load_udhr(["en"])
    large.upsert(articles[:7], encoder.embed_documents([article.text for article in articles[:7]]))
    assert demo.index_declaration(encoder, stores, languages=["en"], console=console) == 30
    assert [store.count() for store in stores] == [30, 30]


def test_a_collection_of_another_copy_of_the_model_is_made_anew(encoder, tmp_path, monkeypatch):
    with demo._open(tmp_path, encoder, 64) as store:
        store.upsert(load_udhr(["en"])[:1], encoder.embed_documents(["a"], dimensions=64))
    contract = encoder.contract

    def changed(*, dimensions=None):
        return dataclasses.replace(contract(dimensions=dimensions), revision="fake-2")

    monkeypatch.setattr(encoder, "contract", changed)
    with demo._open(tmp_path, encoder, 64) as store:
        assert store.count() == 0
        assert store.contract.revision == "fake-2"


# -- asking


def test_a_question_is_answered_by_its_article_in_any_language():
    question = demo.QUESTIONS[0]
    assert question.is_answered_by(Hit(id="x", score=1, text="", language="zu", metadata={"article": 15}))
    assert not question.is_answered_by(Hit(id="x", score=1, text="", language="en", metadata={"article": 16}))


def test_hits_are_shown_side_by_side_and_judged(encoder, stores, console):
    demo.index_declaration(encoder, stores, languages=["en", "ar"], console=console)
    question = demo.Question("Everyone has the right to a nationality.", "en", 15, "in other words")
    hits, small_hits = demo.ask(question, encoder, large=stores[0], small=stores[1], console=console)
    assert len(hits) == len(small_hits) == demo.HITS
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    right = [sum(hit.metadata["article"] == 15 for hit in found) for found in (hits, small_hits)]
    assert text.count("15 ✓") == sum(right)
    assert f"right article: {right[0]} of 5 at 96, {right[1]} of 5 at 64 dimensions" in text
    assert f"overlap@5: {len({hit.id for hit in hits} & {hit.id for hit in small_hits})} hits" in text
    assert "in other words" in text
    assert "encode" in text


# -- all of it


def test_the_demo_runs_with_a_real_checkpoint(make_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "DEMO_LANGUAGES", ("en", "ar"))
    monkeypatch.setattr(demo.index_declaration, "__kwdefaults__", {"languages": ("en", "ar"), "console": None})
    monkeypatch.setattr(demo, "SMALL", 8)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    model = make_checkpoint(model="80M")
    demo.run_demo(model=str(model), location=tmp_path)
    text = capsys.readouterr().out
    assert "model: you named it." in text
    assert "60 articles in 2 languages" in text
    assert text.count("right article:") == 6
    assert f'f2rag search "May I change my religion?" --location {tmp_path} --collection udhr-model-40' in text
    assert [info.name for info in list_collections(tmp_path)] == ["udhr-model-40", "udhr-model-8"]
    with QdrantStore.open(tmp_path, collection="udhr-model-8") as store:
        assert store.count() == 60
