"""The store against real accidents: kill -9, a second process, no rights, a full disk. Each in a process of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from f2rag.engine import SearchEngine
from f2rag.errors import StoreLockedError
from f2rag.store import QdrantStore, homes, list_collections
from f2rag.testing import FakeEncoder
from f2rag.types import Document

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, users and mounts of POSIX")

PRELUDE = """
import itertools, os, sys
from pathlib import Path
from f2rag.engine import SearchEngine
from f2rag.errors import *
from f2rag.store import QdrantStore, homes, list_collections
from f2rag.testing import FakeEncoder
from f2rag.types import Document
folder = Path(sys.argv[1])
if sys.argv[2] == "client-local":
    homes.edge_installed = lambda: False
encoder = FakeEncoder(dimensions=64)
def documents(numbers):
    return [Document(id=str(n), text=f"text number {n}", language="en") for n in numbers]
def say(*words):
    print(*words, flush=True)
"""


def start(script, folder, kind="edge"):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(folder), kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(script, folder):
    """Lines that the script says; it must end by itself."""
    with start(script, folder) as process:
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, f"ended with {process.returncode}: {complained[-2000:]}"
    return said.splitlines()


def kill_after(process, lines):
    """Read so many lines, kill -9, and return every line that was said."""
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += process.stdout.readlines()
    assert process.wait(60) == -signal.SIGKILL, process.stderr.read()[-2000:]
    process.stdout.close()
    process.stderr.close()
    return [line.strip() for line in said]


def documents(numbers):
    return [Document(id=str(n), text=f"text number {n}", language="en") for n in numbers]


@pytest.fixture(params=["edge", "client-local"])
def kind(request, monkeypatch):
    if request.param == "client-local":
        monkeypatch.setattr(homes, "edge_installed", lambda: False)
    return request.param


class TestKill:
    UPSERTS = """
with QdrantStore.open(folder, contract=encoder.contract()) as store:
    first = store.count()
    for start in itertools.count(first, 25):
        batch = documents(range(start, start + 25))
        store.upsert(batch, encoder.embed_documents([each.text for each in batch]))
        say(start + 25)
"""
    # Without the flush that upsert ends with, the log alone has to bring the points back.
    UNFLUSHED = "from f2rag.store.edge import EdgeBackend\nEdgeBackend.flush = lambda self: None\n" + UPSERTS

    def test_the_log_alone_brings_everything_back(self, tmp_path):
        self.check_nothing_is_lost(self.UNFLUSHED, tmp_path, "edge", (17, 3, 40))

    def test_nothing_acknowledged_is_lost(self, tmp_path, kind):
        self.check_nothing_is_lost(self.UPSERTS, tmp_path, kind, (3, 17, 8) if kind == "edge" else (3, 2))

    def check_nothing_is_lost(self, script, tmp_path, kind, kills):
        encoder = FakeEncoder(dimensions=64)
        acknowledged = 0
        for lines in kills:
            *_, last = kill_after(start(script, tmp_path, kind), lines)
            assert int(last) >= acknowledged + 25 * lines
            acknowledged = int(last)
            with QdrantStore.open(tmp_path, contract=encoder.contract()) as store:
                wanted = documents(range(acknowledged))
                assert store.get([document.id for document in wanted]) == wanted
                assert all(store.unchanged(wanted))
                assert store.count() <= acknowledged + 25
                for document in wanted[:: max(1, acknowledged // 20)]:
                    (hit,) = store.search(encoder.embed_documents([document.text])[0], limit=1, language="en")
                    assert hit.score == pytest.approx(1, abs=1e-5)
                acknowledged = store.count()

    def test_a_killed_index_is_completed_by_the_next(self, tmp_path, kind):
        script = """
with SearchEngine.open(encoder, folder) as engine:
    engine.index(documents(range(100_000)), window=20, on_progress=say)
"""
        *_, last = kill_after(start(script, tmp_path, kind), 5)
        acknowledged = int(last)
        assert 100 <= acknowledged < 100_000
        total = acknowledged + 100
        encoder = FakeEncoder(dimensions=64)
        with SearchEngine.open(encoder, tmp_path) as engine:
            stored = engine.store.count()
            report = engine.index(documents(range(total)))
            assert report.unchanged == min(stored, total) >= acknowledged
            assert report.added == total - report.unchanged
            assert sum(encoder.document_calls) == report.added
            assert engine.store.count() == max(stored, total)
            assert engine.index(documents(range(total))).unchanged == total

    @pytest.mark.parametrize("step", ["create_indexes", "write_contract", "close"])
    def test_a_collection_that_was_being_made_is_not_there(self, tmp_path, step):
        script = f"""
from f2rag.store.edge import EdgeBackend
def stop(*arguments):
    say("now")
    import time
    time.sleep(60)
EdgeBackend.{step} = stop
QdrantStore.open(folder, contract=encoder.contract())
"""
        assert kill_after(start(script, tmp_path), 1) == ["now"]
        assert list_collections(tmp_path) == []
        with QdrantStore.open(tmp_path, contract=FakeEncoder().contract()) as store:
            assert store.count() == 0


class TestTwoProcesses:
    def test_the_second_is_refused_until_the_first_ends(self, tmp_path):
        script = """
import time
with QdrantStore.open(folder, contract=encoder.contract()) as store:
    say("open")
    time.sleep(60)
"""
        holder = start(script, tmp_path)
        contract = FakeEncoder(dimensions=64).contract()
        try:
            assert holder.stdout.readline().strip() == "open"
            with pytest.raises(StoreLockedError) as caught:
                QdrantStore.open(tmp_path, contract=contract)
            assert str(tmp_path / "documents") in str(caught.value)
            assert "another process" in str(caught.value)
            (info,) = list_collections(tmp_path)
            assert (info.contract, info.points) == (contract, None)
        finally:
            holder.kill()
            holder.communicate()
        QdrantStore.open(tmp_path, contract=contract).close()

    def test_two_that_create_at_once(self, tmp_path):
        """One makes the collection; the other finds it made or locked, never half."""
        script = """
try:
    with QdrantStore.open(folder, contract=encoder.contract()) as store:
        say("open", store.count())
except StoreError as error:
    say(type(error).__name__)
"""
        processes = [start(script, tmp_path) for _ in range(3)]
        said = [process.communicate(timeout=120) for process in processes]
        assert all(process.returncode == 0 for process in processes), said
        lines = [out.strip() for out, _ in said]
        assert "open 0" in lines
        assert set(lines) <= {"open 0", "StoreLockedError"}
        assert [path.name for path in tmp_path.iterdir()] == ["documents"]


class TestRights:
    def test_a_folder_that_may_not_be_written(self):
        # Not pytest's own folder: nobody else may look into that.
        folder = Path(tempfile.mkdtemp())
        try:
            QdrantStore.open(folder, collection="there", contract=FakeEncoder(dimensions=64).contract()).close()
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            script = """
import qdrant_edge, f2rag.store.edge
if os.getuid() == 0:  # root may write everywhere
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for name in ("there", "new"):
    try:
        QdrantStore.open(folder, collection=name, contract=encoder.contract())
    except StorePermissionError as error:
        say(name, isinstance(error, PermissionError), str(folder) in str(error), "right to write" in str(error))
say(list_collections(folder)[0].points)
"""
            assert outcome(script, folder) == ["there True True True", "new True True True", "None"]
        finally:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)
            shutil.rmtree(folder)


@pytest.fixture
def small_device(tmp_path):
    """A file system of its own whose size can be set."""
    folder = tmp_path / "device"
    folder.mkdir()

    def resize(size, *, again=True):
        options = f"{'remount,' if again else ''}size={size}m"
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )

    if shutil.which("mount") is None or resize(20, again=False).returncode:
        pytest.skip("this machine does not let a test mount a small file system")
    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


class TestFullDisk:
    """The embedded engine is ended by the system (SIGBUS) when the disk is full; the store stops before."""

    def test_too_small_to_begin(self, small_device):
        folder, _ = small_device
        script = """
try:
    QdrantStore.open(folder / "home", contract=encoder.contract())
except StorageFullError as error:
    say("full", isinstance(error, OSError), list((folder / "home").iterdir()))
"""
        assert outcome(script, folder) == ["full True []"]

    def test_full_in_the_middle(self, small_device):
        folder, resize = small_device
        resize(160)
        script = """
encoder = FakeEncoder(dimensions=1024, native_dimensions=1024)
def fill(limit):
    with SearchEngine.open(encoder, folder / "home") as engine:
        try:
            engine.index(documents(range(limit)), window=500, on_progress=say)
        except StorageFullError as error:
            say("full", engine.store.count())
            say(engine.search("text number 7", limit=1).hits[0].id)
            return True
fill(100_000)
"""
        *progress, full, best = outcome(script, folder)
        assert full == f"full {progress[-1]}"
        assert best == "7"
        again = script.replace("fill(100_000)", f"fill({int(progress[-1]) + 1000})")
        assert outcome(again, folder)[-2:] == [full, "7"]
        resize(400)
        assert outcome(again, folder)[-1] == str(int(progress[-1]) + 1000)


def test_the_fake_documents_agree():
    """The script's and this file's are the same, or the tests above prove nothing."""
    space = {"__name__": "script"}
    source = PRELUDE[PRELUDE.index("def documents") : PRELUDE.index("def say")]
    exec(source, {**globals(), **space}, space)
    assert space["documents"](range(3)) == documents(itertools.islice(itertools.count(), 3))
