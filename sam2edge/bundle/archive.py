"""The bundle file: a zip archive with a manifest of every member's bytes and SHA-256. Standard library only.

Nothing is compressed: wheels and weights hardly shrink, and members no larger than the archive cannot fill the disk.
Python runs it (`python3 BUNDLE`) as a zip application.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2edge.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
WHEELS, STORE = "wheels/", "store/"
MOST_BYTES = (1 << 32) - (1 << 20)
"""Python before 3.13 cannot run a larger zip application, and FAT32 cannot hold a larger file."""

_BLOCK_BYTES = 1 << 20
_MOST_MANIFEST_BYTES = 4 << 20
_PART = r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*"  # no hidden names, so no ".."
_PATTERNS = (
    r"__main__\.py",
    rf"sam2edge/({_PART}/)?{_PART}\.py",
    rf"wheels/{_PART}\.whl",
    rf"store/checkpoints/{_PART}",
    rf"store/(graphs|engines)/{_PART}/{_PART}/{_PART}",
)
_MEMBER = re.compile("|".join(_PATTERNS))
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+")  # and no option of pip's
_NEW_DATE = (1980, 1, 1, 0, 0, 0)  # one for all, so that the same contents make the same bundle


@dataclass(frozen=True)
class Bundle:
    """The manifest of a bundle: `files` maps a member's name to (bytes, SHA-256 in hex)."""

    path: Path
    version: str
    target: str
    models: tuple[str, ...]
    requirements: tuple[str, ...]
    files: dict[str, tuple[int, str]]

    def names(self, folder: str) -> list[str]:
        return [name for name in self.files if name.startswith(folder)]

    def size_bytes(self, folder: str = "") -> int:
        return sum(self.files[name][0] for name in self.names(folder))


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle and checks everything but the bytes of its members. Raises BundleError."""
    with _open(path) as archive:
        entries = archive.infolist()
        _check_entries(path, entries)
        bundle = _read_manifest(path, archive)
    sizes = {entry.filename: entry.file_size for entry in entries if entry.filename != MANIFEST}
    if sizes != {name: size for name, (size, _) in bundle.files.items()}:
        wrong = sorted(set(sizes.items()) ^ {(name, size) for name, (size, _) in bundle.files.items()})
        raise _damage_error(path, "the members of its manifest", f"others or of other sizes, as {wrong[0][0]}")
    return bundle


def extract(bundle: Bundle, folder: Path | None) -> None:
    """Compares every member with its SHA-256, and unpacks wheels and models into `folder` if one is given.

    Raises BundleError for a changed member; the caller removes what has been unpacked by then.
    """
    with _open(bundle.path) as archive:
        for name, (size, wanted) in bundle.files.items():
            digest = hashlib.sha256()
            target = Path(os.devnull)
            if folder is not None and name.startswith((WHEELS, STORE)):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(name) as member, target.open("wb") as out:
                    while block := member.read(_BLOCK_BYTES):
                        digest.update(block)
                        out.write(block)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.EINVAL:
                    raise  # an error of the disk; EINVAL means an offset before the file
                raise _damage_error(bundle.path, f"{size} bytes of {name}", str(error)) from error
            if digest.hexdigest() != wanted:
                raise _damage_error(
                    bundle.path, f"{name} with SHA-256 {wanted[:16]}...", f"{digest.hexdigest()[:16]}..."
                )


def write_bundle(path: Path, facts: dict[str, Any], members: Iterable[tuple[str, Path]]) -> None:
    """Writes an archive of `members` (name, file), with `facts` and their checksums in the manifest.

    Raises BundleError where it would be too large.
    """
    listed = sorted(members)
    total = sum(file.stat().st_size for _, file in listed)
    if total > MOST_BYTES:
        raise BundleError(
            "the bundle would be too large",
            expected=f"at most {MOST_BYTES} bytes, which is what Python starts and FAT32 holds",
            got=total,
            remedy="make several, each with some of the models",
        )
    files = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, file in listed:
            assert _MEMBER.fullmatch(name), name
            digest = hashlib.sha256()
            with file.open("rb") as source, archive.open(_entry(name), "w", force_zip64=False) as out:
                while block := source.read(_BLOCK_BYTES):
                    digest.update(block)
                    out.write(block)
            files[name] = {"size_bytes": file.stat().st_size, "sha256": digest.hexdigest()}
        manifest = {"format": FORMAT, **facts, "files": files}
        archive.writestr(_entry(MANIFEST), json.dumps(manifest, indent=1) + "\n")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _NEW_DATE)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise BundleError("bundle not found", expected="a file", got=str(path), remedy="check the path") from error
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise BundleError(
            f"{path.name} is not a bundle, or is cut short",
            expected="a file made by `sam2edge bundle create`",
            got=getattr(error, "strerror", None) or str(error),
            remedy="copy it again and compare its SHA-256",
        ) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuses everything that a bundle never has: such an archive may be made to do harm."""
    seen: set[str] = set()
    for entry in entries:
        name, mode = entry.orig_filename, entry.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if name != MANIFEST and not _MEMBER.fullmatch(name):
            raise _refusal_error(path, name, "a name of a bundle's member")
        if kind not in (0, stat.S_IFREG):
            raise _refusal_error(path, name, "a plain file", stat.filemode(mode))
        if name.lower() in seen:
            raise _refusal_error(path, name, "every name once", "twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _refusal_error(path, name, "no compression and no encryption", f"method {entry.compress_type}")
        seen.add(name.lower())
    total, there = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > there:
        raise _refusal_error(path, "it", f"members of at most its own {there} bytes", f"{total}")


def _read_manifest(path: Path, archive: zipfile.ZipFile) -> Bundle:
    try:
        if archive.getinfo(MANIFEST).file_size > _MOST_MANIFEST_BYTES:
            raise ValueError("too long")
        content = json.loads(archive.read(MANIFEST))
        if content["format"] != FORMAT:
            raise BundleError(
                f"{path.name} is of another format",
                expected=FORMAT,
                got=repr(content["format"]),
                remedy="make it with the sam2edge that it is to install, or install it with `python3 BUNDLE install`",
            )
        files = {str(name): (int(f["size_bytes"]), str(f["sha256"])) for name, f in content["files"].items()}
        version, target = str(content["version"]), str(content["target"])
        requirements = tuple(content["requirements"])
        if not requirements or not all(_REQUIREMENT.fullmatch(requirement) for requirement in requirements):
            raise ValueError("requirements")
        return Bundle(path, version, target, tuple(content["models"]), requirements, files)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError, zipfile.BadZipFile) as error:
        raise _damage_error(path, "a manifest", f"{type(error).__name__} ({error})") from error


def _damage_error(path: Path, expected: str, got: str) -> BundleError:
    return BundleError(
        f"{path.name} is damaged; nothing was installed",
        expected=expected,
        got=got,
        remedy="copy it again and compare its SHA-256",
    )


def _refusal_error(path: Path, name: str, expected: str, got: str | None = None) -> BundleError:
    return BundleError(
        f"{path.name} was refused; nothing was unpacked",
        expected=expected,
        got=f"{name!r}" if got is None else f"{name!r}: {got}",
        remedy="take one that `sam2edge bundle create` made",
    )
