"""Bulk loads against accidents and company: kill -9 of either side, ten times; threads and processes at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from f2rag.engine import SearchEngine
from f2rag.store import Layout, Lexical, QdrantStore
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

ROOT = Path(__file__).parents[2]
KILLS = 10
COUNT = 6_000
LAYOUT = Layout(levels=(16,), lexical=Lexical())

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

SCRIPT = """
import json, sys
from f2rag.engine import SearchEngine
from f2rag.store import Layout, Lexical
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document
where, first, last = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
location = where if isinstance(where, str) else Server(where[0], grpc_port=where[1])
documents = [Document(id=str(n), text=f"text number {n}", language="en") for n in range(first, last)]
layout = Layout(levels=(16,), lexical=Lexical())
with SearchEngine.open(FakeEncoder(dimensions=64), location, layout=layout) as engine:
    report = engine.index(documents, window=100, on_progress=lambda done: print(done, flush=True))
    print("done", report.added, flush=True)
"""


def writer(where, first=0, last=COUNT):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(where), str(first), str(last)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_somewhere(process, random):
    """Let it store a few windows, kill it at any moment after, and return whether it had ended by itself."""
    for _ in range(random.randrange(1, 6)):
        process.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(random.uniform(0, 0.05))
    process.kill()
    said, complained = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), complained[-2000:]
    return "done" in said


def documents(count=COUNT):
    return [Document(id=str(number), text=f"text number {number}", language="en") for number in range(count)]


def check_everything(store, count=COUNT):
    """Exactly the expected ids, texts and vectors, and no vector missing."""
    expected = {document.key: document for document in documents(count)}
    assert {document.key: document for document in store.documents()} == expected
    assert store.count() == count
    assert store.missing() == {}
    encoder = FakeEncoder(dimensions=64)
    for keys, rows in store.iter_vectors(batch=500):
        wanted = encoder.embed_documents([expected[key].text for key in keys])
        assert np.abs(rows - wanted).max() < 1e-3


def engine_on(location):
    return SearchEngine.open(FakeEncoder(dimensions=64), location, layout=LAYOUT)


@pytest.fixture
def address(make_server):
    server = make_server()
    return server, [server.url, server.grpc_port]


def test_the_embedded_process_is_killed_ten_times(tmp_path):
    dice = random.Random(1)
    for _ in range(KILLS):
        kill_somewhere(writer(str(tmp_path)), dice)
        with QdrantStore.open(tmp_path) as store:  # never damaged, never half
            assert store.count() <= COUNT
    with engine_on(tmp_path) as engine:
        report = engine.index(documents())
        assert (report.total, report.updated) == (COUNT, 0)
        check_everything(engine.store)
        assert engine.index(documents()).unchanged == COUNT


def test_the_writer_to_a_server_is_killed_ten_times(address):
    server, where = address
    dice = random.Random(2)
    for _ in range(KILLS):
        kill_somewhere(writer(where), dice)
    with engine_on(Server(server.url, grpc_port=server.grpc_port)) as engine:
        report = engine.index(documents())
        assert (report.total, report.updated) == (COUNT, 0)
        check_everything(engine.store)


def test_the_server_is_killed_ten_times_under_a_bulk_load(address):
    """The load goes on by itself each time the server is back."""
    server, _ = address
    dice = random.Random(3)
    stored = threading.Condition()
    progress = [0]

    def on_progress(done):
        with stored:
            progress[0] = done
            stored.notify_all()

    with (
        engine_on(Server(server.url, grpc_port=server.grpc_port, retry_seconds=120)) as engine,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        load = pool.submit(engine.index, documents(), window=100, on_progress=on_progress)
        for kill in range(KILLS):
            with stored:
                stored.wait_for(lambda kill=kill: progress[0] >= kill * COUNT // 12 or load.done(), timeout=60)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                load.exception(timeout=dice.uniform(0, 0.2))
            server.kill()
            server.start()
        report = load.result(timeout=120)
        assert report.total == COUNT
        check_everything(engine.store)
        assert engine.index(documents()).unchanged == COUNT


def test_two_processes_write_one_collection_of_a_server(address):
    server, where = address
    half = COUNT // 2
    processes = [writer(where, 0, half + 500), writer(where, half - 500, COUNT)]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    with QdrantStore.open(Server(server.url, grpc_port=server.grpc_port)) as store:
        check_everything(store)


@pytest.mark.parametrize(("kind", "threads"), [("folder", 8), ("server", 32)])
def test_threads_share_a_store(kind, threads, tmp_path, request):
    if kind == "folder":
        location = tmp_path
    else:
        server = request.getfixturevalue("make_server")()
        location = Server(server.url, grpc_port=server.grpc_port)
    each = 40
    encoder = FakeEncoder(dimensions=64)
    with engine_on(location) as engine:
        store = engine.store

        def work(thread):
            """Half of them write, all of them read what they can rely on."""
            own = documents(threads * each)[thread * each : (thread + 1) * each]
            vectors = encoder.embed_documents([document.text for document in own])
            for start in range(0, each, 10):
                store.upsert(own[start : start + 10], vectors[start : start + 10])
                hits = store.search(vectors[start], limit=3, mode="funnel")
                assert hits[0].id == own[start].id
                assert store.get([own[start].id]) == [own[start]]
            assert all(store.unchanged(own))
            return len(own)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            assert sum(pool.map(work, range(threads))) == threads * each
        check_everything(store, threads * each)
