"""Collects the wheels of a bundle: sam2edge's own, and those it needs on the target."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from sam2edge import errors
from sam2edge.errors import BundleError, InvalidInputError

MACHINES = ("aarch64", "x86_64")
_SOURCES = ("sam2edge", "export", "pyproject.toml", "README.md", "LICENSE")
_ROUNDS = 5


@dataclass(frozen=True)
class Target:
    """The machine that a bundle is for: processor ("aarch64") and CPython version (3, 10), on Linux with glibc 2.28."""

    machine: str
    python: tuple[int, int]

    @property
    def name(self) -> str:
        return f"linux-{self.machine}-{self.tag}"

    @property
    def tag(self) -> str:
        return f"cp{self.python[0]}{self.python[1]}"

    @property
    def pip_options(self) -> list[str]:
        """glibc 2.28 is the oldest that onnxruntime's wheels run on; pip wants every tag below it by name."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(28, 16, -1)]
        platforms += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        options = ["--python-version", self.tag[2:], "--implementation", "cp", "--abi", self.tag]
        return [*options, *(word for name in platforms for word in ("--platform", name))]

    @property
    def markers(self) -> dict[str, str]:
        """The values of requirements' markers (PEP 508) on that machine."""
        version = ".".join(map(str, self.python))
        names = {"implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}
        system = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}
        versions = {"python_version": version, "python_full_version": f"{version}.0", "implementation_version": version}
        return {**names, **system, **versions, "platform_machine": self.machine}


def read_target(name: str) -> Target:
    """ "linux-aarch64-cp310" and the like. Raises InvalidInputError."""
    match = re.fullmatch(r"linux-(\w+?)-cp3(\d\d)", name)
    if match is None or match[1] not in MACHINES or int(match[2]) < 10:
        raise InvalidInputError(
            "no such target",
            expected=f"linux-MACHINE-cp3NN with MACHINE {' or '.join(MACHINES)} and NN 10 or more",
            got=repr(name),
        )
    return Target(match[1], (3, int(match[2])))


def gather_wheels(folder: Path, target: Target, extra: tuple[Path, ...] = ()) -> list[str]:
    """Fills `folder` with wheels of sam2edge, of `extra` files, of all they need on the target, and of pip.

    Returns the requirements to install. Raises BundleError if a wheel cannot be downloaded.
    """
    own = make_own_wheel(folder)
    roots = [own]
    for wheel in extra:
        if wheel.suffix != ".whl" or not zipfile.is_zipfile(wheel):
            raise InvalidInputError("not a wheel", expected="a .whl file", got=str(wheel))
        roots.append(Path(shutil.copy(wheel, folder)))
    wanted = [str(wheel) for wheel in roots]
    # pip evaluates markers such as `python_version < "3.11"` for the Python that runs it, not for the target.
    for _ in range(_ROUNDS):
        _pip("download", "--dest", str(folder), "--find-links", str(folder), *_list_pip_options(target), *wanted)
        missing = _find_unmet(folder, roots, target)
        if not missing:
            break
        wanted += sorted(missing)
    else:
        raise BundleError("no set of wheels is complete", expected=f"all for {target.name}", got=", ".join(missing))
    _drop_others(folder, roots, target)
    _pip("download", "--dest", str(folder), "--no-deps", *_list_pip_options(target), "pip")
    return [_pin(wheel) for wheel in roots]


def make_own_wheel(folder: Path) -> Path:
    """sam2edge's wheel: built from this source tree, or packed again from the installed files."""
    source = Path(errors.__file__).parent.parent
    if (source / "pyproject.toml").is_file() and (source / "export").is_dir():
        return _build(source, folder)
    return _pack_installed(folder)


def _build(source: Path, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as copy:  # setuptools leaves a build folder, whose old files would be packed
        for name in _SOURCES:
            path = source / name
            if path.is_dir():
                shutil.copytree(path, Path(copy) / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy)
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), copy)
    return next(folder.glob("sam2edge-*.whl"))


def _pack_installed(folder: Path) -> Path:
    """The installed wheel: its record lists the files with their hashes; pip has added a few of its own."""
    try:
        distribution = importlib.metadata.distribution("sam2edge")
    except importlib.metadata.PackageNotFoundError as error:
        raise _no_wheel_error("neither a source tree nor an installed package") from error
    files = [file for file in distribution.files or () if file.hash is not None and file.parts[0] != ".."]
    info = f"sam2edge-{distribution.version}.dist-info"
    if not any(str(file) == f"{info}/WHEEL" for file in files):
        raise _no_wheel_error("an installation without a list of its files")
    rows: list[tuple[str, str, str]] = []
    wheel = folder / f"sam2edge-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            if str(file) in (f"{info}/INSTALLER", f"{info}/REQUESTED", f"{info}/direct_url.json"):
                continue
            content = file.read_binary()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if file.hash is None or (file.hash.mode, file.hash.value) != ("sha256", digest):
                raise _no_wheel_error(f"{file}, which was changed after it was installed")
            archive.writestr(str(file), content)
            rows.append((str(file), f"sha256={digest}", str(len(content))))
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        archive.writestr(f"{info}/RECORD", record.getvalue())
    return wheel


def _no_wheel_error(got: str) -> BundleError:
    return BundleError(
        "sam2edge's own wheel cannot be made here",
        expected="a source tree, or an installation that is as it was installed",
        got=got,
        remedy="run it from a checkout with `pip install -e .`, or install sam2edge again",
    )


def _find_unmet(folder: Path, roots: list[Path], target: Target) -> set[str]:
    """Requirements, without their markers, that no wheel in the folder meets."""
    wheels = _map_by_name(folder)
    unmet = set()
    for wheel in _collect_needed(wheels, roots, target):
        for requirement in _read_requirements(wheel, target):
            found = wheels.get(canonicalize_name(requirement.name))
            if found is None or not requirement.specifier.contains(_read_version(found), prereleases=True):
                unmet.add(f"{requirement.name}{requirement.specifier}")
    return unmet


def _drop_others(folder: Path, roots: list[Path], target: Target) -> None:
    needed = _collect_needed(_map_by_name(folder), roots, target)
    for wheel in folder.glob("*.whl"):
        if wheel not in needed:
            wheel.unlink()


def _collect_needed(wheels: dict[str, Path], roots: list[Path], target: Target) -> set[Path]:
    """The roots and everything that they need, as far as it is in the folder."""
    needed, ahead = set(), list(roots)
    while ahead:
        wheel = ahead.pop()
        if wheel not in needed:
            needed.add(wheel)
            names = (canonicalize_name(requirement.name) for requirement in _read_requirements(wheel, target))
            ahead += [wheels[name] for name in names if name in wheels]
    return needed


def _read_requirements(wheel: Path, target: Target) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    listed = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    environment: dict[str, str] = target.markers
    return [r for r in listed if r.marker is None or r.marker.evaluate(environment)]


def _map_by_name(folder: Path) -> dict[str, Path]:
    return {str(parse_wheel_filename(path.name)[0]): path for path in sorted(folder.glob("*.whl"))}


def _read_version(wheel: Path) -> str:
    return str(parse_wheel_filename(wheel.name)[1])


def _pin(wheel: Path) -> str:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version}"


def _list_pip_options(target: Target) -> list[str]:
    return ["--only-binary=:all:", *target.pip_options]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
        raise BundleError(
            f"pip {arguments[0]} failed",
            got=" ".join(lines[-2:])[:400] or f"status {result.returncode}",
            remedy="check the network; if pip is missing, run python -m ensurepip",
        )
