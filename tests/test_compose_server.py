"""What docker-compose.yml says about the Qdrant server and the app, done to real ones outside containers.

Each runs its own command under its own environment: the settings, the health checks, and that they find each other.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from app_server import AppServer, variables_of_the_image, visit
from servers import CURRENT, UNPRIVILEGED, free_ports, until

yaml = pytest.importorskip("yaml", reason="PyYAML comes with huggingface-hub")
jwt = pytest.importorskip("jwt", reason="PyJWT comes with the extra dev")

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
KEY = "a key of thirty-two bytes at least"


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def service(services):
    return services["qdrant"]


def resolved(value, given):
    """A value of the file with the variables that somebody has set: ``${NAME:-default}`` or ``${NAME:?message}``."""

    def replace(found):
        name, kind, other = found.groups()
        assert given.get(name) or kind == "-", other
        return given.get(name) or other

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", replace, value)


class Composed:
    """The server under the environment of the compose file, in a folder that stands for the container's /qdrant.

    Only where the volumes are mounted may it write. Host and ports are the test's: the file publishes on loopback.
    """

    def __init__(self, service, binary, folder):
        self.folder = folder
        self.port, self.grpc_port = free_ports(2)
        environment = {
            name: resolved(value, {"QDRANT_API_KEY": KEY}).replace("/qdrant/", f"{folder}/")
            for name, value in service["environment"].items()
        }
        self.environment = {
            **environment,
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc_port),
        }
        self.mounts = [folder / Path(volume.split(":")[1]).relative_to("/qdrant") for volume in service["volumes"]]
        user = pwd.getpwnam(UNPRIVILEGED)
        folder.mkdir()
        for mount in self.mounts:
            mount.mkdir()
            if os.geteuid() == 0:
                os.chown(mount, user.pw_uid, user.pw_gid)
        demoted = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        folder.chmod(0o555)
        with (folder.parent / f"{folder.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [binary], cwd=folder, env=self.environment, stdout=log, stderr=log, **demoted
            )

    @property
    def log(self):
        return (self.folder.parent / f"{self.folder.name}.log").read_text(errors="replace")

    def collections(self):
        """The names of what it holds."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/collections", headers={"api-key": KEY})
        with urllib.request.urlopen(request, timeout=30) as response:
            return {each["name"] for each in json.load(response)["result"]["collections"]}

    def ask(self, path, *, key=None, body=None, method=None, headers=()):
        """Status and headers of an answer."""
        sent = dict(headers)
        if key:
            sent["api-key"] = key
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, dict(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers)

    def ready(self):
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self.ask("/readyz")[0] == 200


@pytest.fixture(scope="module")
def composed(service, server_binary, server_folder):
    folder = Path(server_folder) / f"composed-{os.getpid()}"
    server = Composed(service, server_binary(CURRENT), folder)
    try:
        until(server.ready)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=60)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_the_key_is_demanded(composed):
    assert composed.ask("/readyz")[0] == 200
    for path in ("/collections", "/telemetry", "/metrics"):
        assert composed.ask(path)[0] == 401
        assert composed.ask(path, key="another")[0] == 401
        assert composed.ask(path, key=KEY)[0] == 200


def test_a_token_signed_with_the_key_may_read_and_not_write(composed):
    token = jwt.encode({"access": "r"}, KEY, algorithm="HS256")
    assert composed.ask("/collections", key=token)[0] == 200
    assert composed.ask("/collections/x", key=token, body={"vectors": {}}, method="PUT")[0] == 403
    forged = jwt.encode({"access": "m"}, "b" + KEY, algorithm="HS256")
    assert composed.ask("/collections", key=forged)[0] == 403


def test_telemetry_is_off(composed):
    assert "Telemetry reporting disabled" in composed.log
    assert "Telemetry reporting enabled" not in composed.log


def test_no_page_of_another_origin_may_call_it(composed):
    status, headers = composed.ask(
        "/collections",
        method="OPTIONS",
        headers={"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "GET"},
    )
    assert "access-control-allow-origin" not in {name.lower() for name in headers}
    assert status >= 400


def test_it_writes_nowhere_but_in_the_volumes(composed):
    vectors = {"vectors": {"size": 4, "distance": "Cosine"}}
    assert composed.ask("/collections/kept", key=KEY, body=vectors, method="PUT")[0] == 200
    points = {"points": [{"id": 1, "vector": [1, 0, 0, 0]}]}
    assert composed.ask("/collections/kept/points?wait=true", key=KEY, body=points, method="PUT")[0] == 200
    assert composed.ask("/collections/kept/snapshots?wait=true", key=KEY, method="POST")[0] == 200
    storage, snapshots = composed.mounts
    assert {path.name for path in composed.folder.iterdir()} == {storage.name, snapshots.name}
    assert (storage / "collections" / "kept").is_dir()
    assert list((snapshots / "kept").glob("*.snapshot"))
    assert (storage / ".qdrant-initialized").is_file()
    assert "Read-only file system" not in composed.log
    assert "Permission denied" not in composed.log


# -- the health check


def health(service, port):
    """The health check's exit code, asked of another port."""
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    command = [part.replace("$$", "$").replace("/127.0.0.1/6333", f"/127.0.0.1/{port}") for part in command]
    assert str(port) in command[-1]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def test_a_server_that_is_ready_is_healthy(service, composed):
    assert health(service, composed.port) == 0


def test_a_port_where_nobody_listens_is_not_healthy(service):
    assert health(service, free_ports(1)[0]) == 1


def test_a_server_that_is_not_ready_is_not_healthy(service):
    class NotReady(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotReady) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert health(service, server.server_port) == 1
        finally:
            server.shutdown()


# -- the app


@pytest.fixture(scope="module")
def app(services, composed, tmp_path_factory):
    """The app with the file's command and environment, in a folder that holds what the image holds of it."""
    pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")
    service = services["app"]
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(ROOT / "apps" / "search", folder / "app" / "apps" / "search")
    given = {"QDRANT_API_KEY": KEY, "F2RAG_MODEL": "stand-in"}
    environment = variables_of_the_image()
    environment |= {name: resolved(value, given) for name, value in service["environment"].items()}
    assert environment["STREAMLIT_SERVER_PORT"] == "8501"
    assert environment["F2RAG_LOCATION"] == "http://qdrant:6333"
    assert environment["F2RAG_GRPC_PORT"] == "6334"
    here = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "HF_HOME": str(folder / "models"),
        "F2RAG_LOCATION": f"http://127.0.0.1:{composed.port}",
        "F2RAG_GRPC_PORT": str(composed.grpc_port),
    }
    command = service["command"]
    assert shutil.which(command[0], path=here["PATH"])
    running = AppServer(
        folder,
        environment={**environment, **here},
        command=[shutil.which(command[0], path=here["PATH"]), *command[1:]],
        working_directory=folder / "app",
    )
    try:
        yield running.start()
    finally:
        running.stop()


def app_health(service, port):
    """The exit code of the app's own health check, asked of another port."""
    kind, program, *arguments = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    arguments[-1] = arguments[-1].replace(":8501/", f":{port}/")
    return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=False).returncode


def test_the_app_is_healthy_when_it_answers(services, app):
    assert app_health(services["app"], app.port) == 0
    assert app_health(services["app"], free_ports(1)[0]) == 1


def test_the_app_stores_in_the_server_with_its_key(app, composed):
    before = composed.collections()
    drawn = visit(app.url, "", lambda drawn: composed.collections() - before)
    assert composed.collections() - before, app.log
    assert not [element.alert.body for element in drawn if element.HasField("alert") and element.alert.format == 1]
    assert not [element for element in drawn if element.HasField("exception")]
    assert not (app.folder / ".f2rag").exists()
    assert KEY not in app.log
