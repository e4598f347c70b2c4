"""The compose file and the image that it builds, read as files: no container engine is needed."""

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


@pytest.fixture(scope="module")
def app():
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["app"]


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


def test_ports_are_published_on_this_machine_only(app, dockerfile):
    assert app["ports"] == ["127.0.0.1:8501:8501"]
    assert instructions(dockerfile, "EXPOSE") == ["8501"]


def test_what_must_last_lies_in_declared_volumes(app, dockerfile):
    declared = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    mounts = dict(volume.split(":") for volume in app["volumes"])
    assert set(mounts) == set(declared)
    assert sorted(mounts.values()) == sorted(json.loads(instructions(dockerfile, "VOLUME")[0]))
    variables = "\n".join(instructions(dockerfile, "ENV"))
    assert app["environment"]["F2RAG_LOCATION"] == mounts["data"]
    assert f"F2RAG_LOCATION={mounts['data']}" in variables
    assert f"HF_HOME={mounts['models']}" in variables


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


def test_settings_are_settings(app):
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(app["environment"]) <= names
    for name, value in app["environment"].items():
        assert value in (f"${{{name}:-}}", "/data")


def test_the_image_has_two_stages_and_a_base_of_ones_choice(app, dockerfile):
    stages = instructions(dockerfile, "FROM")
    assert stages == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    assert "BASE_IMAGE=python:3.11-slim" in instructions(dockerfile, "ARG")
    for name, value in app["build"]["args"].items():
        default = next(line.partition("=")[2].strip('"') for line in instructions(dockerfile, "ARG") if name in line)
        assert value == f"${{{name}:-{default}}}"


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
    for text in (COMPOSE.read_text(encoding="utf-8"), dockerfile):
        assert not SECRET.search(text.replace("TOKEN_BUDGET: ", ""))
