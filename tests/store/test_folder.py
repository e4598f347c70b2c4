"""A folder on the embedded engine: its files, its lock, its space, its index."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from f2rag.errors import (
    CollectionNotFoundError,
    ContractMismatchError,
    InputError,
    StorageFullError,
    StoreError,
    StoreLockedError,
    StorePermissionError,
)
from f2rag.store import CollectionInfo, Layout, QdrantStore, drop_collection, edge, failures, list_collections
from f2rag.testing import FakeEncoder
from f2rag.types import Document

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]


def unit(axis, dimensions=DIMENSIONS):
    return np.eye(dimensions, dtype=np.float32)[axis]


def fill(store, encoder, documents):
    return store.upsert(documents, encoder.embed_documents([document.text for document in documents]))


SOME = [
    Document(id="a", text="a red house", language="en", source="en.txt", metadata={"year": 2001}),
    Document(id="b", text="une maison rouge", language="fr", source="fr.txt", metadata={"year": 2010}),
    Document(id="c", text="the blue sea", language="en", source="en.txt", metadata={"year": 2020}),
    Document(id="d", text="no language at all"),
]


class TestFolder:
    def test_layout(self, tmp_path, encoder):
        with QdrantStore.open(tmp_path / "not" / "yet", collection="faq", contract=encoder.contract()) as store:
            fill(store, encoder, SOME)
        folder = tmp_path / "not" / "yet"
        assert [path.name for path in folder.iterdir()] == ["faq"]
        stored = json.loads((folder / "faq" / "f2rag.json").read_text())
        assert encoder.contract().to_dict().items() < stored.items()
        assert (stored["layout"], stored["adopted"]) == (Layout().to_dict(), False)
        assert {"edge_config.json", "segments", "wal"} < {path.name for path in (folder / "faq").iterdir()}

    def test_looking_creates_nothing(self, tmp_path, encoder):
        folder = tmp_path / "absent"
        assert list_collections(folder) == []
        with pytest.raises(CollectionNotFoundError):
            QdrantStore.open(folder)
        with pytest.raises(CollectionNotFoundError):
            QdrantStore.open(folder, contract=encoder.contract(), create=False)
        with pytest.raises(CollectionNotFoundError):
            drop_collection(folder, "documents")
        assert not folder.exists()

    def test_home_folder_and_path_objects(self, tmp_path, encoder, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        QdrantStore.open("~/store", contract=encoder.contract()).close()
        assert (tmp_path / "store" / "documents").is_dir()

    @pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
    def test_a_collection_has_the_users_usual_mode(self, in_folder, tmp_path):
        (tmp_path / "usual").mkdir()
        assert (tmp_path / "home" / "documents").stat().st_mode == (tmp_path / "usual").stat().st_mode

    def test_a_file_where_a_folder_is_expected(self, tmp_path, encoder):
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="is a file"):
            QdrantStore.open(tmp_path / "file", contract=encoder.contract())
        with pytest.raises(StoreError, match="file"):
            QdrantStore.open(tmp_path / "file" / "below", contract=encoder.contract())

    def test_a_second_opening_is_refused_naming_the_folder_and_the_way_out(self, in_folder, tmp_path, encoder):
        with pytest.raises(StoreLockedError) as caught:
            QdrantStore.open(tmp_path / "home", contract=encoder.contract())
        assert str(tmp_path / "home" / "documents") in str(caught.value)
        assert "Close the other one" in str(caught.value)
        assert "Qdrant server" in str(caught.value)
        (info,) = list_collections(tmp_path / "home")
        assert info == CollectionInfo(name="documents", contract=encoder.contract(), layout=Layout(), points=None)
        with pytest.raises(StoreLockedError):
            drop_collection(tmp_path / "home", "documents")
        QdrantStore.open(tmp_path / "home", collection="other", contract=encoder.contract()).close()
        assert in_folder.count() == 0

    def test_a_folder_that_may_not_be_written(self, tmp_path, encoder, monkeypatch):
        QdrantStore.open(tmp_path, contract=encoder.contract()).close()
        monkeypatch.setattr(edge.os, "access", lambda *_: False)
        with pytest.raises(StorePermissionError, match="right to write"):
            QdrantStore.open(tmp_path, contract=encoder.contract())

    def test_a_forgotten_store_lets_go(self, tmp_path, encoder):
        store = QdrantStore.open(tmp_path, contract=encoder.contract())
        del store
        QdrantStore.open(tmp_path, contract=encoder.contract()).close()

    @pytest.mark.parametrize("text", ["{half", "[]", "\udcff"])
    def test_a_contract_file_that_is_no_contract(self, tmp_path, encoder, text):
        QdrantStore.open(tmp_path, contract=encoder.contract()).close()
        file = tmp_path / "documents" / "f2rag.json"
        file.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(StoreError, match=r"damaged.*f2rag\.json"):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert list_collections(tmp_path) == [CollectionInfo(name="documents", contract=None, layout=None, points=0)]
        drop_collection(tmp_path, "documents")
        QdrantStore.open(tmp_path, contract=encoder.contract()).close()

    @pytest.mark.parametrize("part", ["segments", "edge_config.json"])
    def test_a_damaged_shard(self, tmp_path, encoder, part):
        with QdrantStore.open(tmp_path, contract=encoder.contract()) as store:
            fill(store, encoder, SOME)
        target = tmp_path / "documents" / part
        if target.is_dir():
            for path in sorted(target.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        else:
            target.write_text("{half")
        with pytest.raises(StoreError, match=r"damaged|storage engine failed"):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert list_collections(tmp_path) == [
            CollectionInfo(name="documents", contract=encoder.contract(), layout=Layout(), points=None)
        ]
        drop_collection(tmp_path, "documents")
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_while_creating_leaves_nothing(self, tmp_path, encoder, monkeypatch):
        def fail(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(edge.os, "fsync", fail)
        with pytest.raises(StorageFullError):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert list(tmp_path.iterdir()) == []

    def test_somebody_else_makes_the_collection_at_the_same_moment(self, tmp_path, encoder, monkeypatch):
        give_name = edge.EdgeHome._give_name
        other = FakeEncoder(dimensions=DIMENSIONS, model_name="another")

        def late(home, hidden, collection):
            monkeypatch.setattr(edge.EdgeHome, "_give_name", give_name)
            QdrantStore.open(tmp_path, contract=other.contract()).close()
            give_name(home, hidden, collection)

        monkeypatch.setattr(edge.EdgeHome, "_give_name", late)
        with pytest.raises(ContractMismatchError, match="stored 'another', given 'fake'"):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert [path.name for path in tmp_path.iterdir()] == ["documents"]

    def test_a_collection_that_cannot_be_given_its_name(self, tmp_path, encoder):
        (tmp_path / "documents").write_text("in the way")
        with pytest.raises(StoreError, match=r"the storage engine failed|exists|Not a directory"):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert [path.name for path in tmp_path.iterdir()] == ["documents"]

    def test_leftovers_of_a_killed_process_are_swept_after_an_hour(self, tmp_path, encoder):
        old, young = tmp_path / ".f2rag-creating-old", tmp_path / ".f2rag-dropping-young"
        for folder in (old, young):
            folder.mkdir()
            (folder / "edge_config.json").write_text("{}")
        os.utime(old, (0, 0))
        QdrantStore.open(tmp_path, contract=encoder.contract()).close()
        assert not old.exists()
        assert young.exists()
        assert [info.name for info in list_collections(tmp_path)] == ["documents"]

    def test_a_text_larger_than_a_log_segment(self, in_folder, encoder):
        fill(in_folder, encoder, [Document(id="a", text="x" * 40 * 2**20), SOME[1]])
        assert len(in_folder.get(["a"])[0].text) == 40 * 2**20
        assert in_folder.count() == 2


class TestSpace:
    """The engine dies of a full disk (SIGBUS), so it must not come to that."""

    @pytest.fixture
    def free(self, monkeypatch):
        """Set the free bytes."""
        usage = edge.shutil.disk_usage

        def set_free(count):
            monkeypatch.setattr(edge.shutil, "disk_usage", lambda path: usage(path)._replace(free=count))

        return set_free

    def test_creating(self, tmp_path, encoder, free):
        free(edge.WRITE_RESERVE - 1)
        with pytest.raises(StorageFullError, match="MiB free, and this step needs 96 MiB"):
            QdrantStore.open(tmp_path, contract=encoder.contract())
        assert list(tmp_path.iterdir()) == []

    def test_opening_and_writing(self, tmp_path, encoder, free):
        with QdrantStore.open(tmp_path, contract=encoder.contract()) as store:
            fill(store, encoder, SOME[:2])
        free(edge.OPEN_RESERVE - 1)
        with pytest.raises(OSError, match="needs 48 MiB"):
            QdrantStore.open(tmp_path)
        free(edge.OPEN_RESERVE)
        with QdrantStore.open(tmp_path) as store:
            with pytest.raises(StorageFullError, match="What was stored stays"):
                fill(store, encoder, SOME)
            assert store.count() == 2
            assert store.delete(["a"]) == 1
            free(10**12)
            fill(store, encoder, SOME)
            assert store.count() == 4

    def test_no_index_without_space(self, in_folder, encoder, free, monkeypatch, caplog):
        monkeypatch.setattr(edge, "OPTIMIZE_FROM", 1)
        monkeypatch.setattr(edge, "INDEX_BYTES", 1)
        fill(in_folder, encoder, SOME)
        free(edge.WRITE_RESERVE)
        with caplog.at_level(logging.WARNING, logger="f2rag"):
            assert in_folder.optimize() is False
        assert "No index is built" in caplog.text
        assert len(in_folder.search(unit(0))) == 4


def test_the_index_finds_what_an_exact_search_finds(tmp_path, monkeypatch):
    encoder = FakeEncoder(dimensions=768, native_dimensions=768)
    random = np.random.default_rng(7)
    # Clustered, as texts are; in pure noise every neighbour is as far as the next.
    vectors = np.repeat(random.standard_normal((60, 768)), 60, axis=0) + 0.7 * random.standard_normal((3600, 768))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with QdrantStore.open(tmp_path, contract=encoder.contract(), layout=Layout()) as store:
        store.upsert([Document(id=str(number), text="t") for number in range(3600)], vectors)
        assert store.optimize() is False  # too few to pay
        monkeypatch.setattr(edge, "OPTIMIZE_FROM", 3000)
        assert store.optimize() is True
        assert store._backend._shard.info().indexed_vectors_count > 0
        found = total = 0
        for row in range(0, 3600, 120):
            exact = {str(number) for number in np.argsort(-(vectors @ vectors[row]))[:10]}
            found += len(exact & {hit.id for hit in store.search(vectors[row], mode="hnsw")})
            total += 10
            assert {hit.id for hit in store.search(vectors[row], mode="exact")} == exact
        assert found / total > 0.95
    with QdrantStore.open(tmp_path) as store:
        assert store.count() == 3600


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (Exception("failed to open WAL x: Can't init WAL: Kind(WouldBlock)"), "StoreLockedError"),
            (Exception("x: No space left on device (os error 28)"), "StorageFullError"),
            (OSError(28, "full"), "StorageFullError"),
            (OSError(122, "quota"), "StorageFullError"),
            (RuntimeError("database or disk is full"), "StorageFullError"),
            (Exception("x: Read-only file system (os error 30)"), "StorePermissionError"),
            (PermissionError(13, "denied"), "StorePermissionError"),
            (RuntimeError("attempt to write a readonly database"), "StorePermissionError"),
            (Exception("Service runtime error: Shard is not initialized"), "StoreError"),
            (ValueError("Invalid path"), "InputError"),
            (Exception(""), "StoreError"),
        ],
    )
    def test_kinds(self, error, kind):
        with pytest.raises(Exception, match="here") as caught, failures.translated("here"):
            raise error
        assert type(caught.value).__name__ == kind
        assert caught.value.__cause__ is error

    def test_a_panic_of_the_engine_is_an_error(self):
        class PanicException(BaseException):
            pass

        with pytest.raises(StoreError, match="here: the storage engine failed: boom"), failures.translated("here"):
            raise PanicException("boom\nwith a backtrace")

    def test_ours_and_the_users_pass(self):
        with pytest.raises(InputError, match=r"^mine$"), failures.translated("here"):
            raise InputError("mine")
        with pytest.raises(KeyboardInterrupt), failures.translated("here"):
            raise KeyboardInterrupt


def test_searching_a_folder_does_not_import_the_client(tmp_path):
    """Importing it takes longer than everything else that a search in a folder does."""
    script = (
        "import sys\n"
        "from f2rag.store import QdrantStore\n"
        "from f2rag.testing import FakeEncoder\n"
        "encoder = FakeEncoder()\n"
        "with QdrantStore.open(sys.argv[1], contract=encoder.contract()) as store:\n"
        "    store.search(encoder.embed_query('q'), language='en')\n"
        "assert 'qdrant_edge' in sys.modules\n"
        "assert not {'qdrant_client', 'torch', 'grpc'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=ROOT)
