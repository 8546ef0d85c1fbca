"""Installs a bundle's wheels: into a new virtual environment, a folder, or the environment that runs it.

Standard library only. pip comes in the bundle, so that the system needs none and its version is known.
"""

from __future__ import annotations

import configparser
import ctypes
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sam2edge.bundle.journal import Journal
from sam2edge.errors import BundleError

VENV, TARGET, CURRENT = "venv", "target", "current"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_NEEDED = ("click", "cv2", "numpy", "onnxruntime", "platformdirs", "rich", "sam2edge.cli.main")


@dataclass(frozen=True)
class Place:
    """`kind` is "venv" (a new one, in `folder`), "target" (packages alone, in `folder`) or "current"."""

    kind: str
    folder: Path = Path(sys.prefix)
    isolated: bool = False

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python") if self.kind == VENV else sys.executable

    @property
    def command(self) -> str:
        """How to start sam2edge once it is installed."""
        if self.kind == TARGET:
            return f"PYTHONPATH={self.folder} {sys.executable} -m sam2edge.cli.main"
        return str(self.folder / "bin" / "sam2edge")

    def environment(self) -> dict[str, str]:
        """Variables for programs run there: without pip's, and without packages from elsewhere."""
        foreign = ("PIP_", "PYTHONPATH", "PYTHONHOME")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"PYTHONPATH": str(self.folder)} if self.kind == TARGET else {}
        return {**kept, **own, "PIP_CONFIG_FILE": os.devnull}


def check_place(place: Place, version: str, downgrade: bool) -> None:
    """Raises BundleError for a place that must not change: a folder that is not empty, or with a newer sam2edge."""
    if place.kind == CURRENT:
        if sys.prefix == sys.base_prefix:
            raise BundleError(
                "this is the system's own Python, which a bundle does not change",
                expected="a virtual environment",
                got=sys.prefix,
                remedy="give --venv DIR, which makes one; or run it with the Python of one",
            )
        there = find_installed_version()
        if there is not None and _parse_release(there) > _parse_release(version) and not downgrade:
            raise BundleError(
                "a newer sam2edge is installed", expected=f"at most {version}", got=there, remedy="give --downgrade"
            )
    elif place.folder.exists() and (not place.folder.is_dir() or any(place.folder.iterdir())):
        own = place.folder / "bin" / "python"
        raise BundleError(
            f"{place.folder} is there already",
            expected="a folder that is empty or yet to be made",
            got="something in it",
            remedy=f"run the bundle with {own}" if own.exists() else "choose another, or remove it",
        )


def find_installed_version() -> str | None:
    """The version of sam2edge that is installed in this environment."""
    found = _find_installed("sam2edge")
    return None if found is None else found.version


def install_wheels(place: Place, wheels: Path, requirements: tuple[str, ...], version: str, journal: Journal) -> None:
    """Installs from the folder of wheels only, and starts the result once.

    Raises BundleError; what was done by then is in the journal.
    """
    _require_room(place, wheels)
    if place.kind == CURRENT:
        _note_changes(_plan_wheels(place, wheels, requirements, journal.folder), journal)
    else:
        journal.make_parent(place.folder)
        journal.will_make(place.folder)
    if place.kind == VENV:
        venv.EnvBuilder(system_site_packages=not place.isolated, symlinks=True, with_pip=False).create(place.folder)
    where = ["--target", str(place.folder)] if place.kind == TARGET else []
    _pip(place, wheels, [*where, *requirements])
    _try(place, version, journal.folder)


def _pip(place: Place, wheels: Path, arguments: list[str]) -> None:
    pip = next(wheels.glob("pip-*.whl"), None)
    if pip is None:
        raise BundleError("the bundle has no pip", expected="wheels/pip-*.whl", remedy="make it again")
    options = ["--no-index", "--find-links", str(wheels), "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    quiet = ["--no-warn-script-location", "--root-user-action=ignore", "--quiet"]
    command = [place.python, str(pip / "pip"), "install", *options, *quiet, *arguments]
    result = subprocess.run(
        command, env=place.environment(), cwd=wheels, capture_output=True, text=True, preexec_fn=_end_with_parent
    )
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
        raise BundleError(
            "the wheels could not be installed; the installation was undone",
            got=" ".join(lines[-2:])[:400] or f"status {result.returncode} of pip",
            remedy="make room, or make the bundle for this Python and machine (--target)",
        )


def _end_with_parent() -> None:
    """Ends pip with a killed installer, or pip would change files that the next run restores."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _try(place: Place, version: str, folder: Path) -> None:
    program = f"import {', '.join(_NEEDED)}; print(sam2edge.__version__)"
    command = [place.python, "-c", program]
    result = subprocess.run(command, env=place.environment(), cwd=folder, capture_output=True, text=True)
    if result.stdout.strip() != version:
        words = result.stderr.strip().splitlines()
        raise BundleError(
            "the installed sam2edge does not start; the installation was undone",
            expected=f"sam2edge {version}",
            got=result.stdout.strip() or (words[-1] if words else f"status {result.returncode}"),
            remedy="check that the machine has what the wheels need: glibc, libgomp",
        )


def _require_room(place: Place, wheels: Path) -> None:
    needed = 0
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            needed += sum(entry.file_size for entry in archive.infolist())
    folder = next(parent for parent in (place.folder, *place.folder.parents) if parent.is_dir())
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise BundleError(
            "no room to install", expected=f"{needed} bytes free in {folder}", got=free, remedy="make room"
        )


def _plan_wheels(place: Place, wheels: Path, requirements: tuple[str, ...], folder: Path) -> list[Path]:
    """The wheels that pip would install into this environment now."""
    report = folder / "plan.json"
    _pip(place, wheels, ["--dry-run", "--report", str(report), *requirements])
    entries = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [Path(unquote(urlsplit(entry["download_info"]["url"]).path)) for entry in entries]


def _note_changes(planned: list[Path], journal: Journal) -> None:
    paths: set[Path] = set()
    for wheel in planned:
        paths.update(_list_wheel_places(wheel))
        there = _find_installed(wheel.name.partition("-")[0])
        if there is not None:
            paths.update(_list_installed_places(there))
    for path in sorted(paths):
        if os.path.lexists(path):
            journal.will_change(path)
            aside = path.with_name(f"~{path.name[1:]}")  # where pip keeps it until it is done
            if not os.path.lexists(aside):
                journal.will_make(aside)
        else:
            journal.make_parent(path)
            journal.will_make(path)


def _list_wheel_places(wheel: Path) -> Iterator[Path]:
    """The files and folders, directly below the environment's own folders, that a wheel installs."""
    folders = {name: Path(folder) for name, folder in sysconfig.get_paths().items()}
    site = folders["purelib"]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            first, _, rest = name.partition("/")
            if not first.endswith(".data"):
                yield site / first
                if name.endswith(".dist-info/entry_points.txt"):
                    yield from (folders["scripts"] / script for script in _list_scripts(archive.read(name).decode()))
                continue
            scheme, _, rest = rest.partition("/")
            yield folders[scheme] / (rest if scheme == "data" else rest.partition("/")[0])


def _list_scripts(entry_points: str) -> list[str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry_points)
    return [name for group in ("console_scripts", "gui_scripts") if parser.has_section(group) for name in parser[group]]


def _list_installed_places(distribution: importlib.metadata.Distribution) -> Iterator[Path]:
    site = Path(str(distribution.locate_file("")))
    for file in distribution.files or ():
        yield Path(os.path.normpath(site / file)) if file.parts[0] == ".." else site / file.parts[0]


def _find_installed(name: str) -> importlib.metadata.Distribution | None:
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    wanted = _normalise_name(name)
    found = importlib.metadata.distributions(path=list(dict.fromkeys(folders)))
    return next((d for d in found if _normalise_name(d.metadata["Name"] or "") == wanted), None)


def _normalise_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _parse_release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
