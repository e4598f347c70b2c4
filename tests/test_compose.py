"""The compose file and the images that it builds, read as files: no container engine is needed.

``test_compose_server.py`` runs what the file says about the server and the app, ``test_compose_up.py`` the containers
themselves.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from f2rag.settings import PREFIX, Settings

yaml = pytest.importorskip("yaml", reason="PyYAML comes with huggingface-hub")

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
IGNORE = ROOT / ".dockerignore"
SECRET = re.compile(r"(?i)(hf_[a-z0-9]{8}|token\s*[:=]\s*\S|password|secret|api_?key|://[^/\s]+:[^/\s]+@)")
KEY = "${QDRANT_API_KEY:?write a key of your own into .env, see .env.example}"
APPS = ("app", "app-gpu")

# Settings that say where the server and the models are, which the file decides itself.
DECIDED = {
    "F2RAG_LOCATION": "http://qdrant:6333",
    "F2RAG_GRPC_PORT": "6334",
    "F2RAG_QDRANT_API_KEY": KEY,
}
# Of a folder and a file of the host, which the container does not see.
NOT_TAKEN = {"F2RAG_CACHE_FOLDER", "F2RAG_CA_CERTIFICATE"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=APPS)
def app(compose, request):
    return compose["services"][request.param]


@pytest.fixture(scope="module")
def qdrant(compose):
    return compose["services"]["qdrant"]


@pytest.fixture(scope="module")
def dockerfile(app):
    build = app["build"]
    return (ROOT / build["context"] / build["dockerfile"]).read_text(encoding="utf-8").replace("\\\n", "")


def instructions(dockerfile, name):
    return [line.partition(" ")[2].strip() for line in dockerfile.splitlines() if line.startswith(f"{name} ")]


def test_the_file_keeps_to_the_compose_specification():
    beside = Path(sys.executable).with_name("check-jsonschema")
    tool = str(beside) if beside.exists() else shutil.which("check-jsonschema")
    if tool is None:
        pytest.skip("check-jsonschema is not installed: pip install check-jsonschema")
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ports_are_published_on_this_machine_only(compose, dockerfile):
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert [compose["services"][name]["ports"] for name in APPS] == [
        ["127.0.0.1:${APP_PORT:-8501}:8501"],
        ["127.0.0.1:${APP_GPU_PORT:-8502}:8501"],
    ]
    outside = [re.search(r":-(\d+)\}", port)[1] for port in ports]
    assert len(set(outside)) == len(outside)  # everything may run at the same time
    assert instructions(dockerfile, "EXPOSE") == ["8501"]


def test_what_must_last_lies_in_declared_volumes(compose, app, dockerfile):
    used = {volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]}
    assert used == set(compose["volumes"])
    assert app["volumes"] == ["models:/models"]
    variables = "\n".join(instructions(dockerfile, "ENV"))
    assert "HF_HOME=/models" in variables
    assert "F2RAG_LOCATION=/data" in variables  # where the image runs without a server
    (folders,) = [line for line in instructions(dockerfile, "RUN") if line.startswith("install --directory")]
    assert folders.endswith(" /data /models")
    assert "--owner=10001 --group=10001" in folders


def test_the_service_runs_what_the_image_and_a_person_run(app, dockerfile):
    command = app["command"]
    assert command == json.loads(instructions(dockerfile, "CMD")[-1])
    assert (ROOT / command[-1]).is_file()
    line = " ".join(command)
    assert line in (ROOT / "apps" / "search" / "streamlit_app.py").read_text(encoding="utf-8")
    makefile = ROOT / "Makefile"
    if makefile.exists():
        assert line in makefile.read_text(encoding="utf-8")


def test_health_is_asked_in_the_same_way_everywhere(app, dockerfile):
    test = app["healthcheck"]["test"]
    assert test[0] == "CMD"
    assert "http://127.0.0.1:8501/_stcore/health" in test[-1]
    compile(test[-1], "healthcheck", "exec")
    written = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert written is not None
    assert json.loads(written[1]) == test[1:]


def test_the_service_may_do_little(app, dockerfile):
    assert app["read_only"] is True
    assert app["tmpfs"] == ["/tmp"]
    assert "HOME=/tmp" in "\n".join(instructions(dockerfile, "ENV"))
    assert app["cap_drop"] == ["ALL"]
    assert app["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in app
    assert instructions(dockerfile, "USER") == ["10001:10001"]


def test_every_setting_can_be_set_from_outside_but_where_things_are(app):
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(app["environment"]) == names - NOT_TAKEN
    for name, value in app["environment"].items():
        assert value == DECIDED.get(name, f"${{{name}:-}}")


def test_the_app_waits_for_the_server_and_shares_its_key(app, qdrant):
    assert app["depends_on"] == {"qdrant": {"condition": "service_healthy"}}
    assert app["environment"]["F2RAG_QDRANT_API_KEY"] == qdrant["environment"]["QDRANT__SERVICE__API_KEY"] == KEY
    assert {port.split(":")[-1] for port in qdrant["ports"]} == {"6333", "6334"}


def test_the_image_has_two_stages_and_a_base_of_ones_choice(app, dockerfile):
    stages = instructions(dockerfile, "FROM")
    assert stages == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    assert "BASE_IMAGE=python:3.11-slim" in instructions(dockerfile, "ARG")
    assert app["build"]["args"]["BASE_IMAGE"] == "${BASE_IMAGE:-python:3.11-slim}"


def test_there_is_an_image_for_the_processor_and_one_with_cuda(compose, dockerfile):
    processor, cuda = (compose["services"][name] for name in APPS)
    assert [processor["image"], cuda["image"]] == ["f2rag-search:cpu", "f2rag-search:cuda"]
    index = next(line.partition("=")[2].strip('"') for line in instructions(dockerfile, "ARG") if "TORCH_INDEX" in line)
    assert processor["build"]["args"]["TORCH_INDEX"] == f"${{TORCH_CPU_INDEX:-{index}}}"
    assert cuda["build"]["args"]["TORCH_INDEX"] == "${TORCH_CUDA_INDEX:-}"
    (torch, *_) = [line for line in instructions(dockerfile, "RUN") if line.startswith("pip install")]
    assert shell(f"echo {torch}", TORCH_INDEX=index).split()[-4:] == ["--no-deps", "--index-url", index, "torch"]
    assert shell(f"echo {torch}", TORCH_INDEX="") == "pip install --constraint constraints.txt torch"


def shell(command, **environment):
    return subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_only_the_profile_gpu_asks_for_a_gpu(compose):
    services = compose["services"]
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "app": None,
        "app-gpu": ["gpu"],
        "qdrant": None,
    }
    assert [name for name, service in services.items() if "deploy" in service] == ["app-gpu"]
    (device,) = services["app-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    own = {"profiles", "image", "build", "ports", "deploy"}
    processor, gpu = ({key: service[key] for key in set(service) - own} for service in map(services.get, APPS))
    assert processor == gpu


def test_torch_comes_first_and_everything_is_pinned(dockerfile):
    installs = [line for line in instructions(dockerfile, "RUN") if line.startswith("pip install")]
    assert installs[0].endswith(" torch")
    for line in installs:
        assert "--constraint constraints.txt" in line or "--no-deps" in line


def test_the_build_sees_all_that_it_copies_and_little_else(dockerfile):
    copied = [
        source
        for line in instructions(dockerfile, "COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert not ignored(source), source
        assert (ROOT / source).exists() or source == "constraints.txt", source
    for unwanted in (".git", ".env", ".venv", "tests", "training", "apps/other", "f2rag/__pycache__", "home.txt"):
        assert ignored(unwanted), unwanted


def ignored(path):
    """Whether .dockerignore keeps a path out: of the lines that match it or a folder above it, the last decides."""
    verdict = False
    for line in IGNORE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if any(matches(pattern, folder) for folder in above):
            verdict = not line.startswith("!")
    return verdict


def matches(pattern, path):
    if pattern.startswith("**/"):
        return path == pattern[3:] or path.endswith(pattern[2:])
    return pattern.count("/") == path.count("/") and fnmatch.fnmatchcase(path, pattern)


def test_no_file_holds_a_secret(dockerfile):
    text = COMPOSE.read_text(encoding="utf-8")
    for code in (text, dockerfile):
        code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("#"))
        known = re.compile(r"^ +\w+_API_KEY: \*key$|^x-key: &key \$\{QDRANT_API_KEY:\?[^}]+\}$", re.MULTILINE)
        assert not SECRET.search(known.sub("", code).replace("TOKEN_BUDGET: ", "").replace("CHUNK_TOKENS: ", ""))
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert re.findall(r"^# (\w*(?:KEY|TOKEN|SECRET))=(.*)$", example, re.MULTILINE) == [
        ("F2RAG_QDRANT_API_KEY", ""),
        ("QDRANT_API_KEY", ""),
    ]


# -- the server


def test_the_server_is_a_pinned_version_without_root(qdrant):
    default = re.fullmatch(r"\$\{QDRANT_IMAGE:-(.+)\}", qdrant["image"])
    assert default is not None
    assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+-unprivileged", default[1])
    assert qdrant["user"] == "1000:1000"


def test_the_server_is_published_on_this_machine_only(qdrant):
    assert qdrant["ports"] == [
        "127.0.0.1:${QDRANT_PORT:-6333}:6333",
        "127.0.0.1:${QDRANT_GRPC_PORT:-6334}:6334",
    ]
    assert "network_mode" not in qdrant


def test_the_server_may_do_little(qdrant):
    assert qdrant["read_only"] is True
    assert qdrant["cap_drop"] == ["ALL"]
    assert qdrant["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "env_file"} & set(qdrant)


def test_the_server_wants_a_key_and_tells_nobody(qdrant):
    environment = qdrant["environment"]
    assert environment["QDRANT__SERVICE__API_KEY"].startswith("${QDRANT_API_KEY:?")
    assert environment["QDRANT__TELEMETRY_DISABLED"] == "true"
    assert environment["QDRANT__SERVICE__ENABLE_CORS"] == "false"


def test_what_the_server_keeps_outlasts_it(qdrant):
    assert qdrant["volumes"] == ["qdrant_storage:/qdrant/storage", "qdrant_snapshots:/qdrant/snapshots"]
    assert qdrant["environment"]["QDRANT_INIT_FILE_PATH"].startswith("/qdrant/storage/")
    assert int(qdrant["stop_grace_period"].removesuffix("s")) >= 30
    assert qdrant["restart"] == "unless-stopped"


def test_the_example_names_every_variable(compose):
    text = json.dumps(compose)
    wanted = set(re.findall(r"\$\{(\w+)", text)) - {PREFIX + name.upper() for name in Settings.model_fields}
    assert wanted == {
        *("QDRANT_IMAGE", "QDRANT_PORT", "QDRANT_GRPC_PORT", "QDRANT_API_KEY"),
        *("APP_PORT", "APP_GPU_PORT", "BASE_IMAGE", "TORCH_CPU_INDEX", "TORCH_CUDA_INDEX"),
    }
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^# (\w+)=(.*)$", example, re.MULTILINE))
    assert wanted <= set(lines)
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text):
        if name in wanted:
            assert lines[name] == default
