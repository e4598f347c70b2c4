"""docker-compose.yml in containers, for real, with podman.

The images are made here, no registry is asked: the server's of the Qdrant program that the other tests run and of bash,
which the health check needs; the app's of its files and of what the last stage of its Dockerfile says, over this
machine's own Python and packages, which are mounted. Skipped where podman is not; ``make containers`` installs it, and
so does this test if ``F2RAG_TEST_INSTALL_CONTAINERS=1`` is set.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from app_server import DOCKERFILE, variables_of_the_image, visit
from own_network import own_network
from servers import CURRENT, free_ports, until

from f2rag.errors import CollectionNotFoundError
from f2rag.store import QdrantStore
from f2rag.store.server import Server
from f2rag.testing import FakeEncoder
from f2rag.types import Document

yaml = pytest.importorskip("yaml", reason="PyYAML comes with huggingface-hub")
pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[1]
INSTALL = "F2RAG_TEST_INSTALL_CONTAINERS"
IMAGE = f"localhost/f2rag-test-qdrant:v{CURRENT}"
APP_IMAGE = "localhost/f2rag-search:cpu"
KEY = "a key for the container of a test"

# Without systemd and without CAP_SYS_RESOURCE, as inside another container, podman's own defaults fail.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def program(name):
    """Where a program is; the one of podman-compose has an environment of its own."""
    own = ROOT / ".venv" / "containers" / "bin" / name
    return str(own) if own.exists() else shutil.which(name)


@pytest.fixture(scope="module")
def alone():
    """One of pytest's processes at a time installs, and lets podman choose a network."""
    with (Path(tempfile.gettempdir()) / "f2rag-containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_tools():
    if os.environ.get(INSTALL) == "1":
        subprocess.run(["bash", str(ROOT / "tests" / "containers.sh")], check=True)
    if absent := [name for name in ("podman", "runc", "catatonit", "podman-compose") if program(name) is None]:
        pytest.skip(f"{', '.join(absent)} cannot be found: run 'make containers' as root, or set {INSTALL}=1")
    if os.geteuid() != 0:
        pytest.skip("podman is used as root here")


class Composed:
    """The compose file under podman, with storage, network, ports and a project name of its own."""

    def __init__(self, folder, ports, inside_network):
        self.port, self.grpc_port, self.app_port, self.gpu_port = ports
        self.inside_network = inside_network
        self.project = f"f2rag-test-{os.getpid()}"
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(storage)
        beside = Path(program("podman")).parent
        self.environment = {
            "PATH": f"{beside}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "QDRANT_IMAGE": IMAGE,
            "QDRANT_API_KEY": KEY,
            "QDRANT_PORT": str(self.port),
            "QDRANT_GRPC_PORT": str(self.grpc_port),
            "APP_PORT": str(self.app_port),
            "APP_GPU_PORT": str(self.gpu_port),
            "F2RAG_MODEL": "stand-in",
        }
        self.mounted = folder / "mounted.yml"
        volumes = [f"{path}:{path}:ro" for path in folders_of_python()]
        self.mounted.write_text(yaml.safe_dump({"services": {"app": {"volumes": volumes}}}))

    @property
    def container(self):
        return f"{self.project}_qdrant_1"

    @property
    def app_container(self):
        return f"{self.project}_app_1"

    @property
    def server(self):
        return Server(f"http://127.0.0.1:{self.port}", api_key=KEY, grpc_port=self.grpc_port)

    def run(self, *command, code=0):
        done = subprocess.run(
            [*self.inside_network, *command],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def podman(self, *arguments, code=0):
        return self.run(program("podman"), *arguments, code=code)

    def compose(self, *arguments, code=0):
        files = ("--file", "docker-compose.yml", "--file", str(self.mounted))
        return self.run(program("podman-compose"), *files, "--project-name", self.project, *arguments, code=code)

    def inside(self, script, *, container=None, code=0):
        """Run a script with bash in a container, the server's unless told otherwise."""
        return self.podman("exec", container or self.container, "bash", "-c", script, code=code)

    def up(self):
        """All that a team types, the images being there."""
        self.compose("up", "--detach", "--no-build")
        until(lambda: self.status("/readyz") == 200)
        until(lambda: self.status("/_stcore/health", port=self.app_port) == 200)

    def status(self, path, *, key=None, port=None):
        headers = {"api-key": key} if key else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None


@pytest.fixture(scope="module")
def composed(alone, server_binary):
    check_tools()
    ports = free_ports(4)
    with (
        tempfile.TemporaryDirectory(prefix="f2rag-containers-", ignore_cleanup_errors=True) as name,
        own_network(*ports) as inside_network,
    ):
        folder = Path(name)
        made = Composed(folder, ports, inside_network)
        archive = write_image(folder, server_binary(CURRENT))
        change = ["--change", "WORKDIR /qdrant", "--change", 'CMD ["./qdrant"]']
        made.podman("import", *change, str(archive), IMAGE)
        changes = [part for line in settings_of_the_image() for part in ("--change", line)]
        made.podman("import", *changes, str(write_app_image(folder)), APP_IMAGE)
        try:
            made.up()
            yield made
        finally:
            made.compose("down", "--volumes", code=None)
            made.podman("rmi", "--all", "--force", code=None)


def write_image(folder, binary):
    """The files of an image like the official one: the program in /qdrant, folders that belong to user 1000, bash."""
    linked = subprocess.run(["ldd", "/bin/bash"], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    assert libraries
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("qdrant", "qdrant/storage", "qdrant/snapshots"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.uid = entry.gid = 1000 if "/" in name else 0
            tar.addfile(entry)
        for source, target in [
            ("/bin/bash", "/bin/bash"),
            (binary, "/qdrant/qdrant"),
            *zip(libraries, libraries, strict=True),
        ]:
            entry = tar.gettarinfo(Path(source).resolve(), target.lstrip("/"))
            entry.mode, entry.uid, entry.gid = 0o755, 0, 0
            with Path(source).open("rb") as content:
                tar.addfile(entry, content)
    return archive


def folders_of_python():
    """This machine's Python, its packages and its system libraries, which stand for those that the image holds."""
    system = [Path("/usr"), Path("/lib"), Path("/lib64"), Path("/bin")]
    wanted = [*system, Path(sys.base_prefix), Path(sys.prefix).resolve()]
    outside = [path for path in wanted if path.exists() and not any(each in path.parents for each in wanted)]
    return list(dict.fromkeys([*outside, ROOT / "f2rag"]))


def settings_of_the_image():
    """What the last stage of the Dockerfile says of how the image runs."""
    last = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").rpartition("\nFROM ")[2]
    told = [line for line in last.splitlines() if line.startswith(("WORKDIR ", "USER ", "EXPOSE ", "CMD "))]
    assert {line.split()[0] for line in told} == {"WORKDIR", "USER", "EXPOSE", "CMD"}
    path = f"{Path(sys.prefix).resolve()}/bin:/usr/bin:/bin"
    return [*told, *(f"ENV {name}={value}" for name, value in {**variables_of_the_image(), "PATH": path}.items())]


def write_app_image(folder):
    """The app's files as its Dockerfile copies them, and the folders that its volumes are mounted on."""
    archive = folder / "app.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("data", "models"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, 10001, 10001
            tar.addfile(entry)
        tar.add(ROOT / "apps" / "search", "app/apps/search")
    return archive


def test_the_server_answers_on_loopback_and_wants_its_key(composed):
    assert composed.status("/collections") == 401
    assert composed.status("/collections", key=KEY) == 200
    (described,) = json.loads(composed.podman("inspect", composed.container).stdout)
    bindings = described["HostConfig"]["PortBindings"]
    assert {port: [each["HostIp"] for each in hosts] for port, hosts in bindings.items()} == {
        "6333/tcp": ["127.0.0.1"],
        "6334/tcp": ["127.0.0.1"],
    }


def test_its_network_is_not_that_of_the_other_tests(composed):
    assert "podman" in composed.run("ip", "link").stdout
    assert not any("podman" in name for _, name in socket.if_nameindex())


def test_its_health_check_runs_inside(composed):
    composed.podman("healthcheck", "run", composed.container)
    (described,) = json.loads(composed.podman("inspect", composed.container).stdout)
    assert described["State"]["Health"]["Status"] == "healthy"


def test_it_may_do_little(composed):
    assert "Read-only file system" in composed.inside("echo x > /qdrant/x", code=1).stderr
    assert composed.inside("echo $UID").stdout.strip() == "1000"
    status = composed.inside("while read -r line; do echo $line; done < /proc/1/status").stdout
    assert set(re.findall(r"^Cap\w+: (\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert "NoNewPrivs: 1" in status
    assert "Telemetry reporting disabled" in composed.podman("logs", composed.container).stderr + (
        composed.podman("logs", composed.container).stdout
    )


def test_what_is_stored_outlasts_the_container_and_goes_with_its_volumes(composed):
    with FakeEncoder(dimensions=32) as encoder:
        documents = [Document(text=text) for text in ("a red house", "the blue sea")]
        with QdrantStore.open(composed.server, contract=encoder.contract()) as store:
            store.upsert(documents, encoder.embed_documents([document.text for document in documents]))
        composed.compose("down")
        assert composed.status("/readyz") is None
        composed.up()
        with QdrantStore.open(composed.server) as store:
            assert store.count() == 2
            assert store.search(encoder.embed_query("blue sea"), limit=1)[0].text == "the blue sea"
    composed.compose("down", "--volumes")
    composed.up()
    with pytest.raises(CollectionNotFoundError):
        QdrantStore.open(composed.server)


def test_without_a_key_nothing_starts(composed):
    without = Composed.__new__(Composed)
    without.__dict__ = {**composed.__dict__, "project": f"{composed.project}-keyless"}
    without.environment = {**composed.environment, "QDRANT_API_KEY": ""}
    done = without.compose("up", "--detach", "--no-build", "qdrant", code=None)
    assert done.returncode != 0
    assert "QDRANT_API_KEY" in done.stdout + done.stderr


def test_the_profile_adds_the_app_on_a_gpu(composed):
    plain = yaml.safe_load(composed.compose("config").stdout)["services"]
    with_gpu = yaml.safe_load(composed.compose("--profile", "gpu", "config").stdout)["services"]
    running = composed.podman("ps", "--format", "{{.Names}}").stdout.split()
    assert sorted(running) == sorted([composed.container, composed.app_container])
    (device,) = with_gpu["app-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert {name: service for name, service in with_gpu.items() if name != "app-gpu"} == {
        name: service for name, service in plain.items() if name != "app-gpu"
    }


# -- the app


def test_the_app_finds_the_server_by_its_name(composed):
    def names():
        request = urllib.request.Request(f"http://127.0.0.1:{composed.port}/collections", headers={"api-key": KEY})
        with urllib.request.urlopen(request, timeout=10) as response:
            return {each["name"] for each in json.load(response)["result"]["collections"]}

    before = names()
    drawn = visit(f"http://127.0.0.1:{composed.app_port}", "", lambda drawn: names() - before)
    log = composed.podman("logs", composed.app_container)
    assert names() - before, log.stdout + log.stderr
    assert not [element.alert.body for element in drawn if element.HasField("alert") and element.alert.format == 1]
    assert KEY not in log.stdout + log.stderr


def test_the_apps_health_check_runs_inside(composed):
    composed.podman("healthcheck", "run", composed.app_container)
    (described,) = json.loads(composed.podman("inspect", composed.app_container).stdout)
    assert described["State"]["Health"]["Status"] == "healthy"
    bindings = described["HostConfig"]["PortBindings"]
    assert {port: [each["HostIp"] for each in hosts] for port, hosts in bindings.items()} == {
        "8501/tcp": ["127.0.0.1"],
    }


def test_the_app_may_do_little_and_keeps_its_models(composed):
    def inside(script, code=0):
        return composed.inside(script, container=composed.app_container, code=code)

    assert "Read-only file system" in inside("echo x > /app/x", code=1).stderr
    assert inside("id -u").stdout.strip() == "10001"
    inside("echo x > /tmp/x && echo x > /models/x")
    status = inside("cat /proc/1/status").stdout
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd):\s*(\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert re.search(r"NoNewPrivs:\s*1", status)
