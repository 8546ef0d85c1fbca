"""Keeps damaged files from being used: each is compared with its recorded checksum when it is opened.

Each file is read once a process; large ones only again when their inode, size or times change, so that starting stays
quick. `sam2edge models verify` reads every byte.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from sam2edge.errors import CheckpointError, GraphError
from sam2edge.store import paths
from sam2edge.store.inventory import describe_stored, find_expected_sums, read_digest, suggest_remedy
from sam2edge.store.manifest import stated_sha256

_REMEMBERED_FROM_BYTES = 2**24  # reading smaller ones takes no longer than looking them up

_checked: dict[Path, list[int]] = {}
_lock = threading.Lock()


def check_unchanged(path: Path) -> None:
    """Raises GraphError or CheckpointError if the file has changed; a file without a checksum passes."""
    with _lock:
        try:
            wanted, remedy = _find_expected(path)
            if not wanted:
                return
            identity = _identify(path)
            if _checked.get(path) == identity:
                return
            digest = _recall(path, identity) or read_digest(path, wanted[0])
        except OSError:
            return  # missing or unreadable: opening it raises the error
        if digest not in wanted:
            error = CheckpointError if path.suffix in (".pt", ".safetensors") else GraphError
            raise error(
                f"{path.name} is damaged: it was not opened",
                expected=f"{wanted[0][:24]}...",
                got=f"{digest[:24]}... of {path}",
                remedy=remedy,
            )
        _checked[path] = identity
        _remember(path, identity, digest)


def _find_expected(path: Path) -> tuple[tuple[str, ...], str]:
    """The checksums that the file may have, and how to repair it."""
    if path.parent == paths.ASSETS:
        stated = stated_sha256(path)
        return (
            () if stated is None else (f"SHA-256 {stated}",)
        ), "reinstall sam2edge: pip install --force-reinstall sam2edge"
    if not path.is_relative_to(paths.root()):
        return (), ""
    file = describe_stored(path)
    return find_expected_sums(file), suggest_remedy(file)


def _identify(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _memory_path() -> Path:
    return paths.lock_path("checked.json")


def _recall(path: Path, identity: list[int]) -> str | None:
    if identity[2] < _REMEMBERED_FROM_BYTES:
        return None
    found = paths.read_json(_memory_path()).get(str(path))
    if isinstance(found, dict) and found.get("identity") == identity and isinstance(found.get("digest"), str):
        return str(found["digest"])
    return None


def _remember(path: Path, identity: list[int], digest: str) -> None:
    if identity[2] < _REMEMBERED_FROM_BYTES or not os.access(paths.root(), os.W_OK):
        return
    with suppress(OSError):  # in a store that cannot be written every file is read each time
        known = {name: entry for name, entry in paths.read_json(_memory_path()).items() if Path(name).exists()}
        paths.write_json(_memory_path(), {**known, str(path): {"identity": identity, "digest": digest}})
