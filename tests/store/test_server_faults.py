"""Servers that are gone, slow, silent or full: typed errors in bounded time, and a repeat mends what was half done.

Bounded time is the timeout of each test: a call that waits for ever ends the run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading

import grpc
import pytest
from calls import at, connected, count, create, impatient, over_grpc, put, search, ways
from servers import CURRENT, QdrantServer, free_ports, until

from f2rag.errors import (
    CollectionNotFoundError,
    InputError,
    StorageFullError,
    StoreAccessError,
    StoreError,
    StorePermissionError,
    StoreUnavailableError,
)
from f2rag.store import QdrantStore
from f2rag.store.connection import connection_of
from f2rag.store.endpoints import within
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def filled(qdrant_server):
    """The shared server with three points in a collection."""
    with contextlib.closing(qdrant_server.client()) as client:
        client.delete_collection("c")
        create(client)
        put(client, [1, 2, 3])
    return qdrant_server


@pytest.fixture
def two(make_server):
    """Two servers that do not know each other; they hold different numbers of points, so that it shows who answered."""
    servers = [make_server(), make_server()]
    for number, server in enumerate(servers, 1):
        with contextlib.closing(server.client()) as client:
            create(client)
            put(client, range(number))
    return servers


def both(servers, way="grpc", **options):
    ports = [server.grpc_port if way == "grpc" else None for server in servers]
    return Server([server.url for server in servers], grpc_port=ports, **options)


class TestGone:
    @ways
    def test_a_server_that_goes_in_the_middle_of_searching_and_comes_back(self, make_server, way):
        server = make_server()
        with connected(server, way) as connection:
            connection.write(create)
            connection.write(lambda client: put(client, [1]))
            found, failed = threading.Event(), []

            def go_on_searching():
                while True:
                    try:
                        assert connection.read(search) == [1]
                        found.set()
                    except StoreUnavailableError as error:
                        failed.append(error)
                        return

            with impatient(connection, seconds=3), concurrent.futures.ThreadPoolExecutor() as pool:
                searching = [pool.submit(go_on_searching) for _ in range(4)]
                assert found.wait(60)
                server.kill()
                for each in searching:
                    each.result(timeout=60)
            assert len(failed) == 4
            assert server.url in str(failed[0])
            assert "running" in str(failed[0])
            with impatient(connection), pytest.raises(StoreUnavailableError):
                connection.write(lambda client: put(client, [2]))
            server.start()
            assert connection.read(search) == [1]
            connection.write(lambda client: put(client, [2]))
            assert connection.read(count) == 2
            assert connection.read(over_grpc) == (way == "grpc")

    @ways
    def test_calls_wait_for_a_server_that_starts_again(self, make_server, way):
        server = make_server()
        with connected(server, way) as connection:
            connection.write(create)
            server.kill()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                written = pool.submit(connection.write, lambda client: put(client, [1]))
                searched = pool.submit(connection.read, search)
                server.start()
                written.result(timeout=60)
                searched.result(timeout=60)
            assert connection.read(count) == 1

    def test_a_store_says_that_its_server_is_gone_and_goes_on_when_it_is_back(self, make_server):
        server = make_server()
        encoder = FakeEncoder(dimensions=32)
        documents = [Document(text=text) for text in ("red house", "blue boat")]
        vectors = encoder.embed_documents(["red house", "blue boat"])
        with QdrantStore.open(at(server), contract=encoder.contract()) as store:
            store.upsert(documents[:1], vectors[:1])
            server.kill()
            with impatient(store._home.connection):
                with pytest.raises(StoreUnavailableError):
                    store.search(vectors[0])
                with pytest.raises(StoreUnavailableError):
                    store.upsert(documents, vectors)
            server.start()
            assert store.upsert(documents, vectors) == 2
            assert [hit.text for hit in store.search(vectors[1], limit=1)] == ["blue boat"]
            assert store.status().points == 2

    def test_nobody_there_from_the_beginning(self):
        with pytest.raises(StoreUnavailableError, match="Is it running"):
            QdrantStore.open(Server(f"http://127.0.0.1:{free_ports(1)[0]}", timeout=0.5))

    def test_closing_ends_the_waiting_of_others(self):
        connection = Server(f"http://127.0.0.1:{free_ports(1)[0]}", timeout=1000).connect()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(connection.read, search)
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.result(timeout=0.5)
            connection.close()
            connection.close()
            with pytest.raises(StoreError, match="is closed"):
                waiting.result(timeout=60)
        with pytest.raises(StoreError, match="is closed"):
            connection.read(search)


class TestSlow:
    @ways
    @pytest.mark.parametrize("how", ["slow", "silent"])
    @pytest.mark.parametrize("when", ["from the beginning", "later"])
    def test_no_answer_in_time(self, filled, make_proxy, way, how, when):
        rest, remote = make_proxy(filled.http_port), make_proxy(filled.grpc_port)
        # A client whose own limit ends no call here.
        described = Server(rest.url, grpc_port=remote.port if way == "grpc" else None, timeout=1000)

        def slow_down():
            for proxy in (rest, remote):
                proxy.delay, proxy.silent = (1000, False) if how == "slow" else (0, True)

        if when == "from the beginning":
            slow_down()
        with connected(described) as connection:
            if when == "later":
                assert connection.read(search) == [1]
                assert connection.read(over_grpc) == (way == "grpc")
            slow_down()
            for method in (connection.read, connection.write):
                for call in (search, count):
                    expected = pytest.raises(StoreUnavailableError, match=r"in time.*timeout")
                    with impatient(connection), expected as caught:
                        method(call)
                    assert rest.url in str(caught.value)

    @ways
    def test_a_little_slow_is_fast_enough(self, filled, make_proxy, way):
        rest, remote = make_proxy(filled.http_port), make_proxy(filled.grpc_port)
        rest.delay = remote.delay = 0.3
        with connected(Server(rest.url, grpc_port=remote.port if way == "grpc" else None)) as connection:
            for _ in range(5):  # gRPC has several channels, and each connects when it is first used
                assert connection.read(search) == [1]
                assert connection.read(over_grpc) == (way == "grpc")

    def test_a_port_that_takes_connections_and_says_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}"
            with connected(Server(url, timeout=0.5)) as connection, pytest.raises(StoreUnavailableError):
                connection.read(search)


class TestGrpc:
    def test_every_channel_ends_in_time(self, filled, make_proxy):
        proxy = make_proxy(filled.grpc_port)
        with connected(Server(filled.url, grpc_port=proxy.port, timeout=1000)) as connection:
            client = connection.read(lambda client: client)
            proxy.silent = True
            for _ in range(4):
                for call in (search, lambda client: client.get_collection("c")):
                    with within(0.2), pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
                        call(client)

    def test_it_is_used_where_it_answers(self, filled):
        for way in ("grpc", "rest"):
            with connected(filled, way) as connection:
                assert connection.read(search) == [1]
                assert connection.read(over_grpc) == (way == "grpc")

    def test_a_closed_port_means_rest_and_is_said_once(self, filled, caplog):
        port = free_ports(1)[0]
        with connected(Server(filled.url, grpc_port=port)) as connection:
            for _ in range(3):
                assert connection.read(search) == [1]
                assert not connection.read(over_grpc)
            assert connection.version == (1, 17, 0)
        told = [record.message for record in caplog.records if str(port) in record.message]
        assert len(told) == 1
        assert "REST is used" in told[0]

    def test_a_way_that_closes_later_is_replaced_and_looked_for_again(self, filled, make_proxy, monkeypatch):
        remote = make_proxy(filled.grpc_port)
        with connected(Server(filled.url, grpc_port=remote.port)) as connection:
            assert connection.read(over_grpc)
            remote.close()
            assert connection.read(search) == [1]
            assert not connection.read(over_grpc)
            again = make_proxy(filled.grpc_port, remote.port)
            assert not connection.read(over_grpc), "not asked at every call"
            monkeypatch.setattr(connection._endpoints[0], "_grpc_again", 0.0)
            assert connection.read(over_grpc)
            assert connection.read(search) == [1]
            again.close()

    def test_a_stranger_on_the_port_of_grpc(self, filled, make_proxy):
        with connected(Server(filled.url, grpc_port=make_proxy(filled.http_port).port)) as connection:
            assert connection.read(search) == [1]
            assert not connection.read(over_grpc)


class TestOrder:
    @ways
    def test_the_first_is_asked_while_it_answers_then_the_second(self, two, way, caplog, monkeypatch):
        first, second = two
        with connected(both(two, way)) as connection:
            assert [connection.read(count) for _ in range(5)] == [1] * 5
            assert "does not answer" not in caplog.text
            first.kill()
            assert [connection.read(count) for _ in range(5)] == [2] * 5
            connection.write(lambda client: put(client, [6, 7]))
            assert connection.read(count) == 4
            told = [record.message for record in caplog.records if "others are asked first" in record.message]
            assert len(told) == 1
            assert first.url in told[0]
            first.start()
            monkeypatch.setattr(connection, "_avoided", {})
            assert connection.read(count) == 1
            assert connection.name == f"Qdrant at {first.url}, {second.url}"

    @ways
    def test_a_silent_first_leaves_time_for_the_second(self, two, make_proxy, way):
        first, second = two
        rest, remote = make_proxy(first.http_port), make_proxy(first.grpc_port)
        rest.silent = remote.silent = True
        ports = [remote.port, second.grpc_port] if way == "grpc" else None
        with connected(Server([rest.url, second.url], grpc_port=ports, timeout=8)) as connection:
            assert connection.read(count) == 2
            connection.write(lambda client: put(client, [6]))
            assert connection.read(count) == 3

    def test_all_gone_names_all(self, two):
        with connected(both(two)) as connection:
            assert connection.read(count) == 1
            for server in two:
                server.kill()
            with impatient(connection), pytest.raises(StoreUnavailableError) as caught:
                connection.read(count)
            assert all(server.url in str(caught.value) for server in two)
            two[1].start()
            assert connection.read(count) == 2

    def test_a_refusal_is_not_carried_to_the_next(self, make_server, filled):
        guarded = make_server(api_key="another-key")
        with connected(both([guarded, filled])) as connection:
            with pytest.raises(StoreAccessError, match=guarded.url):
                connection.read(search)
            guarded.kill()
            with pytest.raises(CollectionNotFoundError, match=filled.url):
                connection.read(lambda client: search(client, "absent"))

    def test_of_different_versions_the_lowest_counts(self, qdrant_server, old_qdrant_server):
        with connected(both([qdrant_server, old_qdrant_server])) as connection:
            assert connection.version == (1, 17, 0)
            connection._endpoints[1].client()
            assert connection.version == (1, 16, 3)


class TestClientOfTheCaller:
    @ways
    def test_its_errors_are_ours_and_it_stays_open(self, make_server, way):
        server = make_server()
        client = server.client(prefer_grpc=way == "grpc")
        create(client)
        put(client, [1])
        connection = connection_of(client, owned=False)
        assert (connection.kind, connection.local, connection.version) == ("server", False, (1, 17, 0))
        assert connection.name == f"Qdrant at {server.url}"
        assert connection.read(search) == [1]
        with pytest.raises(CollectionNotFoundError):
            connection.read(lambda client: search(client, "absent"))
        server.kill()
        with impatient(connection), pytest.raises(StoreUnavailableError, match=server.url):
            connection.read(search)
        server.start()
        assert connection.read(search) == [1]
        connection.close()
        assert search(client) == [1]
        client.close()
        with pytest.raises(StoreError, match="closed"):
            connection_of(client, owned=False).read(search)

    def test_what_is_secret_in_its_address_is_not_shown(self):
        from qdrant_client import QdrantClient

        client = QdrantClient(url="http://user:secret@127.0.0.1:1/x?key=secret", check_compatibility=False)
        assert connection_of(client, owned=True).name == "Qdrant at http://127.0.0.1:1/x"
        client.close()
        client = QdrantClient(host="127.0.0.1", port=7, check_compatibility=False)
        connection = connection_of(client, owned=True)
        assert connection.name == "Qdrant at 127.0.0.1:7"
        connection.close()


class TestThreads:
    @ways
    def test_many_threads_share_a_connection(self, make_server, way):
        server = make_server()
        with connected(server, way) as connection:
            connection.write(create)
            start = threading.Barrier(32)

            def work(number):
                start.wait()
                for turn in range(8):
                    connection.write(functools.partial(put, ids=[100 * number + turn]))
                    assert len(connection.read(search)) == 1

            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                list(pool.map(work, range(32)))
            assert connection.read(count) == 32 * 8

    def test_many_threads_share_a_store(self, qdrant_server):
        encoder = FakeEncoder(dimensions=32)
        texts = [f"text {number}" for number in range(64)]
        vectors = encoder.embed_documents(texts)
        with QdrantStore.open(at(qdrant_server), collection="shared", contract=encoder.contract()) as store:

            def work(number):
                store.upsert([Document(text=texts[number], id=str(number))], vectors[number : number + 1])
                return store.search(vectors[number], limit=1, mode="exact")[0].text

            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                assert list(pool.map(work, range(64))) == texts


class TestStorage:
    """The server's disk, not ours."""

    @ways
    def test_a_full_disk_and_the_repeat_when_there_is_space(self, server_binary, server_folder, way):
        folder = server_folder / f"full-{way}"
        with contextlib.ExitStack() as held:
            resize = held.enter_context(small_disk(folder / "storage"))
            server = QdrantServer(server_binary(CURRENT), folder)
            held.callback(server.kill)
            server.start()
            connection = held.enter_context(connected(server, way, timeout=10, retry_seconds=10))
            connection.write(create)
            load = {"text": "x" * 300_000}
            stored = 0

            def write():
                connection.write(lambda client: put(client, range(stored, stored + 10), payload=load))

            def fill():
                nonlocal stored
                while stored < 1000:
                    write()
                    stored += 10

            with pytest.raises(StorageFullError, match="acknowledged is stored"):
                fill()
            assert stored
            assert connection.read(count) == stored
            resize("400m")
            write()
            assert connection.read(count) == stored + 10

    @ways
    def test_a_storage_that_may_not_be_written(self, make_server, way):
        server = make_server()
        collections = server.folder / "storage" / "collections"
        collections.chmod(0o555)
        if os.geteuid() == 0:
            os.chown(collections, 0, 0)
        with connected(server, way) as connection, pytest.raises(StorePermissionError, match="server's user"):
            connection.write(create)


@contextlib.contextmanager
def small_disk(folder, size="120m"):
    """A file system of its own at ``folder``; yields what changes its size."""
    folder.mkdir(parents=True)
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small disk needs root and mount")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount a small disk")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    finally:
        until(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and its key, readable by the server."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext"
    names = ["subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return folder


class TestTls:
    @ways
    def test_a_certificate_of_ones_own(self, certificate, server_folder, make_server, way):
        held = server_folder / f"tls-{way}"
        shutil.copytree(certificate, held)
        for file in held.iterdir():
            file.chmod(0o644)
        held.chmod(0o755)
        settings = {
            "SERVICE__ENABLE_TLS": "true",
            "TLS__CERT": str(held / "certificate.pem"),
            "TLS__KEY": str(held / "key.pem"),
        }
        server = make_server(settings=settings, api_key="a-key", certificate=held / "certificate.pem")
        assert server.url.startswith("https:")
        key = {"api_key": "a-key", "timeout": 5}
        with connected(server, way, ca_certificate=held / "certificate.pem", **key) as connection:
            connection.write(create)
            connection.write(lambda client: put(client, [1]))
            assert connection.read(search) == [1]
            assert connection.read(over_grpc) == (way == "grpc")
        for described in (at(server, way, **key), Server(server.url.replace("https", "http"), timeout=2)):
            with connected(described) as connection, pytest.raises(StoreUnavailableError) as caught:
                connection.read(search)
            if described.url.startswith("https"):
                assert "ca_certificate" in str(caught.value)


def test_the_log_of_a_failing_connection_is_short(caplog):
    """One line for a call that waits, not one for each attempt."""
    caplog.set_level(logging.INFO, "f2rag")
    described = Server(f"http://127.0.0.1:{free_ports(1)[0]}", timeout=2)
    with connected(described) as connection, pytest.raises(StoreUnavailableError):
        connection.read(search)
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == ["trying again"]


WRITER = """
import sys
from f2rag.store import QdrantStore
from f2rag.store.endpoints import within
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

url, port, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
encoder = FakeEncoder(dimensions=32)
print("ready", flush=True)
sys.stdin.readline()
with QdrantStore.open(Server(url, grpc_port=port), collection="together", contract=encoder.contract()) as store:
    for start in range(first, first + 200, 20):
        texts = [f"text {number}" for number in range(start, start + 20)]
        store.upsert([Document(text=text, id=text) for text in texts], encoder.embed_documents(texts))
"""


def test_two_processes_make_and_fill_one_collection(make_server):
    server = make_server()
    command = [sys.executable, "-c", WRITER, server.url, str(server.grpc_port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(first)], **pipes) for first in (0, 100)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, said = writer.communicate(timeout=100)
        assert writer.returncode == 0, said
    encoder = FakeEncoder(dimensions=32)
    with QdrantStore.open(at(server), collection="together", contract=encoder.contract()) as store:
        assert store.status().points == 300
        assert store.search(encoder.embed_documents(["text 7"])[0], limit=1, mode="exact")[0].id == "text 7"


def test_a_connection_goes_through_a_client():
    with pytest.raises(InputError, match="QdrantClient is expected, not str"):
        connection_of("http://localhost", owned=True)
