"""What ``doctor --collection`` says: each finding for what is right, and for what is not."""

from __future__ import annotations

import dataclasses

import pytest

from f2rag.doctor_collection import layout_words, run_collection_checks
from f2rag.store import Layout, Lexical, QdrantStore
from f2rag.store.homes import Status
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DOCUMENTS = [Document(text=f"text {number}", language=tag) for number, tag in enumerate(("en", "en", "de", "fr"))]


@pytest.fixture
def encoder():
    with FakeEncoder(dimensions=32) as made:
        yield made


def filled(location, encoder, *, collection="documents", layout=None, documents=DOCUMENTS):
    contract = encoder.contract()
    with QdrantStore.open(location, collection=collection, contract=contract, layout=layout) as store:
        store.upsert(documents, encoder.embed_documents([document.text for document in documents]))
    return location


def found(location, *, collection="documents", encoder=None):
    return {check.name: check for check in run_collection_checks(location, collection, encoder=encoder)}


def test_a_sound_collection(tmp_path, encoder):
    checks = found(filled(tmp_path, encoder, layout=Layout(levels=(8,), fields={"year": "integer"})))
    assert {name: check for name, check in checks.items() if check.verdict != "ok"} == {}
    assert str(tmp_path) in checks["home"].detail
    assert "qdrant-edge" in checks["engine"].detail
    assert "32 of" in checks["contract"].detail
    assert checks["documents"].detail == "4: en 2, de 1, fr 1"
    assert checks["filters"].detail.startswith("indexed: language, source, year (integer);")
    assert checks["aliases"].detail == "none"


def test_looking_makes_nothing(tmp_path):
    checks = found(tmp_path / "nowhere")
    assert checks.pop("home").verdict == "failed"
    assert {check.verdict for check in checks.values()} == {"skipped"}
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_collection_is_a_warning(tmp_path, encoder):
    filled(tmp_path, encoder, documents=[])
    assert found(tmp_path)["documents"].verdict == "warning"


def test_more_languages_than_are_named_are_counted(tmp_path, encoder):
    tags = ("aa", "bb", "cc", "dd", "ee", "ff", "gg")
    filled(tmp_path, encoder, documents=[Document(text=tag, language=tag) for tag in tags])
    assert found(tmp_path)["documents"].detail == "7: aa 1, bb 1, cc 1, dd 1, ee 1 and 2 more languages"


def test_a_model_is_compared_with_the_contract(tmp_path, encoder):
    filled(tmp_path, encoder)
    assert "may go in" in found(tmp_path, encoder=encoder)["contract"].detail
    with FakeEncoder(dimensions=32, model_name="another") as other:
        check = found(tmp_path, encoder=other)["contract"]
    assert check.verdict == "failed"
    assert "another" in check.detail


@pytest.mark.parametrize(
    ("state", "verdict", "words"),
    [
        ("ready", "ok", "ready"),
        ("indexing", "warning", "searches work meanwhile"),
        ("waiting", "warning", "goes on at the next write"),
        ("failed", "failed", "disk on fire"),
    ],
)
def test_every_state_of_the_index_has_its_words(state, verdict, words, tmp_path, encoder, monkeypatch):
    filled(tmp_path, encoder)
    status = Status(points=4, state=state, detail="disk on fire" if state == "failed" else "", engine="Qdrant 1.17.0")
    monkeypatch.setattr(QdrantStore, "status", lambda _: status)
    check = found(tmp_path)["index"]
    assert check.verdict == verdict
    assert words in check.detail


@pytest.mark.parametrize(
    ("missing", "searches"),
    [
        ({"mrl8": 2}, "2 lack mrl8: the funnel may not find them"),
        ({"bm25": 1}, "1 lack bm25: hybrid search may not find them"),
        ({"mrl8": 2, "bm25": 1}, "2 lack mrl8, 1 lack bm25: the funnel and hybrid search may not find them"),
    ],
)
def test_what_is_missing_is_named_with_the_searches_that_suffer(missing, searches, tmp_path, encoder, monkeypatch):
    filled(tmp_path, encoder)
    monkeypatch.setattr(QdrantStore, "missing", lambda _: missing)
    check = found(tmp_path)["completeness"]
    assert check.verdict == "warning"
    assert check.detail == f"{searches}. Mend it with: f2rag backfill documents --location {tmp_path}"


def test_the_local_mode_has_no_indexes_and_is_slow(encoder):
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    filled(client, encoder)
    checks = found(client)
    assert checks["engine"].verdict == "warning"
    assert "no indexes" in checks["filters"].detail
    assert "compares every vector anyway" in checks["search"].detail
    client.close()


def test_a_server_says_what_it_is_too_old_for(qdrant_server, old_qdrant_server, encoder):
    for server, lacking, had in (
        (qdrant_server, ("turbo quant (from 1.18.0)", "memory tiers (from 1.19.0)"), "weighted rrf"),
        (old_qdrant_server, ("weighted rrf (from 1.17.0)", "turbo quant (from 1.18.0)"), "mmr"),
    ):
        location = filled(Server(server.url), encoder, collection="doctored", layout=Layout(levels=(8,)))
        checks = found(location, collection="doctored")
        assert {check.verdict for check in checks.values()} == {"ok"}
        for feature in lacking:
            assert feature in checks["engine"].detail
        assert had not in checks["engine"].detail


def test_an_alias_is_named_from_both_sides(tmp_path, encoder):
    from f2rag.store import switch_alias

    filled(tmp_path, encoder)
    switch_alias(tmp_path, "live", "documents")
    assert found(tmp_path)["aliases"].detail == "also called live"
    assert found(tmp_path, collection="live")["aliases"].detail == "live is an alias of documents"


def test_a_layout_in_words():
    assert layout_words(Layout()) == ""
    whole = Layout(levels=(8, 4), quantization="turbo4", lexical=Lexical(), fields={"b": "integer", "a": "keyword"})
    assert layout_words(whole) == "levels 4, 8 · turbo4 · words · fields a:keyword, b:integer"
    assert layout_words(dataclasses.replace(whole, levels=(), lexical=Lexical(tokenizer="word"))).endswith(
        "words (word) · fields a:keyword, b:integer"
    )
