"""Undoes steps, also in a later process: each is written down before it is taken.

Standard library only. The store may belong to another user than the one who installs (root, into a service's folder).
So a journal is used only if nobody but the caller can have written it, and no path is followed through a link: every
folder on the way is opened by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

_FILE = "journal.jsonl"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class UnusableJournal(Exception):
    """A journal that may not be the caller's, or is damaged; the message says which. Its folder is kept."""


class Journal:
    """Steps that can be undone, kept in `folder` with the backups; the folder is removed at the end.

    `folder` is made by `tempfile.mkdtemp`: its owner alone can enter it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._backups = 0

    def will_make(self, path: Path) -> None:
        """`path`, which does not exist, is about to be made: undoing removes it, a folder with its contents."""
        self._write({"remove": str(_resolve_parent(path))})

    def make_parent(self, path: Path) -> None:
        """Makes the missing folders above `path`: undoing removes those that are empty."""
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):
            self._write({"remove_empty": str(_resolve_parent(folder))})
            folder.mkdir(exist_ok=True)

    def will_change(self, path: Path) -> None:
        """`path` is about to be changed or removed: a copy is kept, which undoing restores."""
        backup = self.folder / f"backup-{self._backups}"
        self._backups += 1
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, backup, symlinks=True)
        else:
            shutil.copy2(path, backup, follow_symlinks=False)
        self._write({"restore": str(_resolve_parent(path)), "from": backup.name})

    def undo(self) -> None:
        """Undoes all steps, the last one first, and removes the folder.

        Raises UnusableJournal if another user may have written it, before doing anything; and if it is damaged, after
        undoing the steps that can be read.
        """
        with _open_own(self.folder) as own:
            steps, is_whole = _read(own)
            for step in reversed(steps):
                _take_back(step, own)
        if not is_whole:
            raise UnusableJournal("it is damaged, as by a power cut; what could be read was undone")
        self._close()

    def commit(self) -> None:
        """Keeps the steps and removes the journal."""
        (self.folder / _FILE).unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, step: dict[str, str]) -> None:
        handle = os.open(self.folder / _FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(handle, "a", encoding="utf-8") as file:
            file.write(json.dumps(step) + "\n")
            file.flush()
            os.fsync(handle)


def _resolve_parent(path: Path) -> Path:
    """Without links on the way; a link at `path` itself stays one."""
    return path.parent.resolve() / path.name


@contextlib.contextmanager
def _open_own(folder: Path) -> Iterator[int]:
    """A descriptor of the folder. Raises UnusableJournal unless the caller made it and nobody else can write to it."""
    try:
        own = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        raise UnusableJournal(f"it cannot be opened ({error.strerror})") from error
    try:
        _require_own(os.fstat(own), 0o700)
        yield own
    finally:
        os.close(own)


def _require_own(found: os.stat_result, most: int) -> None:
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & ~most:
        raise UnusableJournal(f"user {found.st_uid} made it, or others may write to it")


def _read(own: int) -> tuple[list[dict[str, str]], bool]:
    """The steps, and whether all could be read; an unfinished last line was never acted on."""
    try:
        handle = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=own)
    except FileNotFoundError:
        return [], True
    except OSError as error:
        raise UnusableJournal(f"its list cannot be opened ({error.strerror})") from error
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        _require_own(found, 0o600)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise UnusableJournal("its list is not a plain file")
        lines = file.read().split(b"\n")
    steps: list[dict[str, str]] = []
    for line in lines[:-1]:
        try:
            step = json.loads(line)
        except ValueError:
            return steps, False
        if not _is_step(step):
            return steps, False
        steps.append(step)
    return steps, b"\0" not in lines[-1]


def _is_step(step: object) -> bool:
    if not isinstance(step, dict) or not all(isinstance(value, str) for value in step.values()):
        return False
    backup = step.get("from", "backup-0")
    is_named = set(step) in ({"remove"}, {"remove_empty"}, {"restore", "from"})
    return is_named and backup.startswith("backup-") and "/" not in backup


def _take_back(step: dict[str, str], own: int) -> None:
    kind = next(iter(step))
    path = Path(step[kind])
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _open_parent(path, kind == "restore") as parent:
        there = f"/proc/self/fd/{parent}/{path.name}"
        if kind == "remove_empty":
            with contextlib.suppress(OSError):
                os.rmdir(there)
        elif kind == "remove":
            _remove(there)
        else:
            saved = f"/proc/self/fd/{own}/{step['from']}"
            if os.path.lexists(saved):  # else an undo that was itself cut short has put it back
                _remove(there)
                shutil.move(saved, there)


@contextlib.contextmanager
def _open_parent(path: Path, make: bool) -> Iterator[int]:
    """A descriptor of the folder of `path`, opened from the root on, one folder at a time; a link among them is an
    error."""
    handle = os.open("/", _FOLDER_FLAGS)
    try:
        for name in path.parent.parts[1:]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=handle)
            try:
                inner = os.open(name, _FOLDER_FLAGS, dir_fd=handle)
            except NotADirectoryError as error:
                if stat.S_ISLNK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                    raise UnusableJournal(f"a folder on the way to {path} is a link now") from error
                raise
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
