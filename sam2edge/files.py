"""Locks and checksums. Standard library only: bundles carry this file for machines that have nothing else."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock that the file `path` stands for; while another process or thread has it, waits.

    `on_wait` is called once before waiting. The system drops the lock with the process, however that ends, so none is
    ever stale; the empty file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def git_blob_id(path: Path) -> str:
    """The id that git gives a file: SHA-1, in hex, of "blob", a space, its length, a zero byte and its content."""
    return _digest_file(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return _digest_file(path, hashlib.sha256())


def _digest_file(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
