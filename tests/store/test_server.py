"""A server's addresses, its keys, and what it refuses: one typed error for each, and no key in any text.

What fails for a while is in ``test_server_faults.py``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import dataclasses
import http.server
import json
import logging
import pickle
import threading
import traceback

import grpc
import httpx
import pytest
from calls import Counted, connected, create, over_grpc, put, search, ways
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from servers import CURRENT, QdrantServer, free_ports

from f2rag.errors import (
    CollectionNotFoundError,
    InputError,
    StorageFullError,
    StoreAccessError,
    StoreError,
    StorePermissionError,
    StoreUnavailableError,
    UnsupportedFeatureError,
)
from f2rag.store.endpoints import without_secrets
from f2rag.store.failures import translate
from f2rag.store.server import Server

KEY = "test-key-5f1c9d3b7a2e4f60-of-the-server"
READER = "reader-key-0a9b8c7d6e5f4321-of-the-server"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def guarded(server_binary, server_folder):
    """A server that asks for keys and takes tokens, with one collection."""
    server = QdrantServer(
        server_binary(CURRENT), server_folder / "guarded", api_key=KEY, read_only_api_key=READER, jwt=True
    ).start()
    with contextlib.closing(server.client()) as client:
        create(client)
        put(client, [1])
    yield server
    server.remove()


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "options", "address", "grpc_port"),
        [
            ("http://localhost", {}, "http://localhost:6333", 6334),
            ("http://localhost:6333/", {}, "http://localhost:6333", 6334),
            ("https://db.example", {}, "https://db.example:6333", 6334),
            ("https://db.example:443/qdrant", {}, "https://db.example:443/qdrant", None),
            ("http://db.example:6333/qdrant", {}, "http://db.example:6333/qdrant", None),
            ("http://[::1]:7000", {"grpc_port": 7001}, "http://[::1]:7000", 7001),
            ("http://localhost:6333", {"grpc_port": None}, "http://localhost:6333", None),
        ],
    )
    def test_an_address_gets_its_ports(self, url, options, address, grpc_port):
        (found,) = Server(url, **options).addresses
        assert (found.url, found.grpc_port) == (address, grpc_port)

    def test_each_node_may_have_its_own_grpc_port(self):
        nodes = Server(["http://a:6333", "http://b:6333", "http://c:1"], grpc_port=[1, None, 3]).addresses
        assert [node.grpc_port for node in nodes] == [1, None, 3]

    @pytest.mark.parametrize(
        ("url", "options", "says"),
        [
            ("localhost:6333", {}, "http://localhost:6333"),
            ("ftp://localhost", {}, "no address of a server"),
            ("http://", {}, "no address of a server"),
            ("http://host:port", {}, "no address"),
            ("http://host:70000", {}, "no address"),
            ([], {}, "No address is given"),
            ([5], {}, "not int"),
            (["http://a", "http://a:6333/"], {}, "twice"),
            ("http://a", {"grpc_port": 0}, "grpc_port=0"),
            ("http://a", {"grpc_port": True}, "grpc_port=True"),
            ("http://a", {"grpc_port": "6334"}, "grpc_port='6334'"),
            (["http://a", "http://b"], {"grpc_port": [1]}, "for each"),
            ("http://a", {"timeout": 0}, "timeout=0"),
            ("http://a", {"timeout": float("nan")}, "timeout=nan"),
            ("http://a", {"retry_seconds": -1}, "retry_seconds=-1"),
            ("http://a", {"ca_certificate": "/nowhere.pem"}, "/nowhere.pem"),
            ("http://a", {"ca_certificate": __file__}, "PEM"),
            ("http://a", {"api_key": 5}, "api_key is text"),
        ],
    )
    def test_what_no_server_can_have_is_refused(self, url, options, says):
        with pytest.raises(InputError, match=says):
            Server(url, **options)

    @pytest.mark.parametrize("url", [f"http://user:{KEY}@db:6333", f"http://{KEY}@db", f"https://db/?api_key={KEY}"])
    def test_an_address_with_a_secret_is_refused_without_repeating_it(self, url):
        with pytest.raises(InputError, match="api_key=") as caught:
            Server(url)
        assert KEY not in str(caught.value)
        assert "//db" in str(caught.value)

    @pytest.mark.parametrize("key", [f"{KEY}\nInjected: header", f" {KEY}", f"{KEY}é"])
    def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(self, key):
        with pytest.raises(InputError, match="cannot be sent") as caught:
            Server("http://db", api_key=key)
        assert KEY not in str(caught.value)

    def test_connecting_sends_nothing(self):
        with connected(Server(f"http://127.0.0.1:{free_ports(1)[0]}")) as connection:
            assert connection.kind == "server"
            assert not connection.local


class TestSecrets:
    def test_a_key_shows_in_no_form_of_a_server(self):
        described = Server("http://db", api_key=KEY)
        copies = [copy.copy(described), copy.deepcopy(described), dataclasses.replace(described, timeout=3)]
        for each in [described, *copies]:
            assert each.api_key.get_secret_value() == KEY
            for text in (repr(each), str(each), f"{each}", str(dataclasses.asdict(each)), str(vars(each))):
                assert KEY not in text
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(InputError, match="not pickled") as caught:
                pickle.dumps(described, protocol)
            assert KEY not in str(caught.value)

    def test_a_server_without_a_key_goes_to_other_processes(self):
        described = Server(["http://a", "http://b"], grpc_port=[1, 2], timeout=3)
        assert pickle.loads(pickle.dumps(described)) == described

    @ways
    def test_no_key_in_logs_errors_or_warnings(self, guarded, way, caplog, capfd, recwarn):
        caplog.set_level(logging.DEBUG)
        expired = guarded.token("r", expires_in=-100)
        reader = guarded.token("r")
        secrets = [KEY, READER, "wrong-key-99", expired, reader, expired.split(".")[2]]
        told = []
        for key in (KEY, READER, "wrong-key-99", expired, reader):
            with connected(guarded, way, api_key=key) as connection:
                told += [repr(connection), str(vars(connection)), connection.name, str(connection.version)]
                for call in (search, lambda client: put(client, [2]), lambda client: search(client, "absent")):
                    try:
                        connection.write(call)
                    except StoreError as error:
                        told += [repr(error), str(error), "".join(traceback.format_exception(error))]
                        told.append(repr(pickle.dumps(error)))
        dead = Server(f"http://127.0.0.1:{free_ports(1)[0]}", api_key=KEY, timeout=0.5)
        with connected(dead) as connection, pytest.raises(StoreUnavailableError) as caught:
            connection.read(search)
        told += [
            "".join(traceback.format_exception(caught.value)),
            caplog.text,
            *map(str, recwarn),
            *capfd.readouterr(),
        ]
        assert "does not accept the key" in "".join(told)
        for secret in secrets:
            assert not [text for text in told if secret in text]
        assert not list(recwarn), "qdrant-client's own warning about http is replaced"

    @pytest.mark.parametrize(
        ("url", "warned"),
        [
            ("http://127.0.0.1:1", False),
            ("http://[::1]:1", False),
            ("http://localhost", False),
            ("https://db.example", False),
            ("http://db.example", True),
        ],
    )
    def test_a_key_in_the_clear_is_warned_of_once_outside_this_machine(self, url, warned, caplog):
        with connected(Server(url, api_key=KEY)):
            assert ["unencrypted" in record.message for record in caplog.records] == [True] * warned
        assert KEY not in caplog.text

    def test_the_port_of_grpc_is_asked_without_the_key(self, guarded):
        """What listens there may be somebody else's."""
        heard = []

        class Stranger(grpc.GenericRpcHandler):
            def service(self, details):
                heard.extend(details.invocation_metadata)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            stranger = grpc.server(pool, handlers=[Stranger()])
            port = stranger.add_insecure_port("127.0.0.1:0")
            stranger.start()
            with connected(Server(guarded.url, grpc_port=port, api_key=KEY)) as connection:
                assert connection.read(search) == [1]
                assert not connection.read(over_grpc)
            stranger.stop(grace=None).wait()
        assert heard
        assert KEY not in str(heard)


class TestAccess:
    """A key is refused at once: the same key is refused again."""

    @ways
    @pytest.mark.parametrize(
        ("who", "says"),
        [
            ("wrong", "does not accept the key"),
            ("nobody", "does not accept the key"),
            ("no token", "does not accept the key"),
            ("expired", "ExpiredSignature.*has expired"),
            ("elsewhere", "collection c is required"),
        ],
    )
    def test_who_may_not_even_read(self, guarded, way, who, says):
        key = {
            "wrong": "wrong-key",
            "nobody": None,
            "no token": "a.b.c",
            "expired": guarded.token("r", expires_in=-100),
            "elsewhere": guarded.token([{"collection": "another", "access": "rw"}]),
        }[who]
        with connected(guarded, way, api_key=key) as connection:
            for method in (connection.read, connection.write):
                call = Counted(search)
                with pytest.raises(StoreAccessError, match=says):
                    method(call)
                assert call.times == 1

    @ways
    @pytest.mark.parametrize("who", ["reader", "reading token", "token of the collection"])
    def test_who_may_read_and_not_write(self, guarded, way, who):
        key = {
            "reader": READER,
            "reading token": guarded.token("r", expires_in=600),
            "token of the collection": guarded.token([{"collection": "c", "access": "r"}]),
        }[who]
        with connected(guarded, way, api_key=key) as connection:
            assert connection.read(search) == [1]
            call = Counted(lambda client: put(client, [9]))
            with pytest.raises(StoreAccessError, match="for reading only"):
                connection.write(call)
            assert call.times == 1
            with pytest.raises(StoreAccessError):
                connection.write(lambda client: client.delete_collection("c"))

    @ways
    def test_a_token_for_one_collection_writes_there_and_makes_none(self, guarded, way):
        with connected(guarded, way, api_key=guarded.token([{"collection": "c", "access": "rw"}])) as connection:
            connection.write(lambda client: put(client, [1]))
            with pytest.raises(StoreAccessError):
                connection.write(lambda client: create(client, "another"))


class TestAnswers:
    @ways
    @pytest.mark.parametrize(
        ("call", "error", "says"),
        [
            (
                lambda client: search(client, "absent"),
                CollectionNotFoundError,
                "absent.*doesn't exist.*list_collections",
            ),
            (lambda client: put(client, [1], name="absent"), CollectionNotFoundError, "absent"),
            (
                lambda client: client.query_points("c", [1.0] * 8, query_filter=_on("a[")),
                InputError,
                "a\\[.*metadata.<key>",
            ),
            (lambda client: client.query_points("c", [1.0] * 3), StoreError, "dimension"),
            (lambda client: client.query_points("c", [1.0] * 8, using="absent"), StoreError, "absent"),
        ],
        ids=["search in none", "write to none", "filter", "dimensions", "vector name"],
    )
    def test_what_a_server_cannot_take_is_said_once(self, qdrant_server, way, call, error, says):
        with connected(qdrant_server, way) as connection:
            connection.write(create)
            counted = Counted(call)
            with pytest.raises(error, match=says) as caught:
                connection.write(counted)
            assert counted.times == 1
            assert "\n" not in str(caught.value)
            assert qdrant_server.url in str(caught.value)

    def test_a_server_that_asks_for_patience_gets_it(self, scripted):
        scripted.answers = [(429, {"Retry-After": "1"}, '{"status": {"error": "too many requests"}}'), scripted.found]
        with connected(Server(scripted.url, timeout=20)) as connection:
            assert connection.read(search) == [1]
        assert len(scripted.asked) == 2

    def test_patience_beyond_the_time_is_not_waited_for(self, scripted):
        scripted.answers = [(429, {"Retry-After": "1000"}, '{"status": {"error": "too many requests"}}')]
        refused = pytest.raises(StoreUnavailableError, match="too much to do: too many requests")
        with connected(Server(scripted.url, timeout=20)) as connection, refused:
            connection.read(search)
        assert len(scripted.asked) == 1

    def test_a_read_that_the_server_fails_at_is_given_up_a_write_is_not(self, scripted, monkeypatch):
        monkeypatch.setattr("f2rag.store.server._jittered", lambda _: 0.01)
        failed = (500, {}, '{"status": {"error": "Service internal error: panicked"}}')
        scripted.answers = [failed] * 3
        with connected(Server(scripted.url, timeout=60)) as connection:
            with pytest.raises(StoreUnavailableError, match="failed: Service internal error: panicked"):
                connection.read(search)
            assert len(scripted.asked) == 3
            scripted.answers = [failed] * 9 + [scripted.found]
            assert connection.write(search) == [1]

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (507, '{"status": {"error": "out of space"}}', StorageFullError),
            (500, '{"status": {"error": "Disk: No space left on device (os error 28)"}}', StorageFullError),
            (500, '{"status": {"error": "Read-only file system (os error 30)"}}', StorePermissionError),
            (404, "<html>nginx</html>", StoreError),
            (200, "<html>A shop</html>", StoreError),
            (405, "", UnsupportedFeatureError),
            (
                400,
                '{"status": {"error": "JSON payload (9 bytes) is larger than allowed (limit: 8 bytes)."}}',
                StoreError,
            ),
        ],
    )
    def test_what_would_not_change_is_not_repeated(self, scripted, status, body, error):
        scripted.answers = [(status, {}, body)]
        with connected(Server(scripted.url)) as connection, pytest.raises(error) as caught:
            connection.write(search)
        assert len(scripted.asked) == 1
        assert "html" not in str(caught.value)
        assert isinstance(caught.value, StoreError)

    def test_something_else_than_qdrant_is_called_so(self, scripted):
        scripted.root = "<html>A shop</html>"
        with connected(Server(scripted.url)) as connection, pytest.raises(StoreError, match="is no Qdrant server"):
            connection.read(search)

    @pytest.mark.parametrize(
        ("code", "words", "error"),
        [
            ("UNAVAILABLE", "Connection refused", StoreUnavailableError),
            ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", StoreUnavailableError),
            ("DEADLINE_EXCEEDED", "Deadline Exceeded", StoreUnavailableError),
            ("RESOURCE_EXHAUSTED", "rate limit", StoreUnavailableError),
            ("RESOURCE_EXHAUSTED", "Sent message larger than max (9 vs. 8)", StoreError),
            ("ABORTED", "try again", StoreUnavailableError),
            ("INTERNAL", "1 of 2 read operations failed", StoreUnavailableError),
            ("INTERNAL", "No space left on device: WAL buffer size", StorageFullError),
            ("INTERNAL", "Permission denied (os error 13)", StorePermissionError),
            ("UNAUTHENTICATED", "Invalid API key", StoreAccessError),
            ("PERMISSION_DENIED", "Forbidden", StoreAccessError),
            ("NOT_FOUND", "Not found: Collection `x`", CollectionNotFoundError),
            ("INVALID_ARGUMENT", "Invalid json path: 'a['", InputError),
            ("INVALID_ARGUMENT", "Vector dimension error", StoreError),
            ("UNIMPLEMENTED", "unknown method", UnsupportedFeatureError),
            ("ALREADY_EXISTS", "Collection `x` already exists", StoreError),
        ],
    )
    def test_grpc_codes_become_errors(self, code, words, error):
        class Call(grpc.RpcError, grpc.Call):
            def code(self):
                return grpc.StatusCode[code]

            def details(self):
                return f"{words}\nsecond line"

        Call.__abstractmethods__ = frozenset()
        found = translate(Call(), "Qdrant at http://db")
        assert type(found) is error
        assert words in str(found)
        assert "second line" not in str(found)

    def test_answers_are_read_to_their_first_line_and_without_headers(self):
        headers = httpx.Headers({"api-key": KEY})
        refused = UnexpectedResponse(500, "Error", b'{"status": {"error": "one\\ntwo"}}', headers)
        found = str(translate(refused, "Qdrant at http://db"))
        assert "one" in found
        assert "two" not in found
        assert KEY not in found
        request = httpx.Request("GET", "http://db", headers=headers)
        for source in (httpx.ReadTimeout("timed out", request=request), httpx.ConnectError("no way", request=request)):
            assert KEY not in str(translate(ResponseHandlingException(source), "Qdrant at http://db"))

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("http://user:secret@db:6333/a?key=secret#secret", "http://db:6333/a"),
            ("https://secret@db", "https://db"),
            ("secret@db:1/x?secret", "db:1/x"),
            ("db", "db"),
        ],
    )
    def test_addresses_are_shown_without_what_may_be_secret(self, url, shown):
        assert without_secrets(url) == shown


def _on(key):
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value="x"))])


class Scripted(http.server.ThreadingHTTPServer):
    """Answers searches with what a test wrote down."""

    found = (200, {}, json.dumps({"result": {"points": [{"id": 1, "version": 1, "score": 1.0}]}, "status": "ok"}))
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.root = json.dumps({"title": "qdrant - vector search engine", "version": "1.17.0"})
        self.answers = []
        self.asked = []


class ScriptedHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {}, self.server.root)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        self.answer(*self.server.answers.pop(0))

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted():
    with Scripted() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()
