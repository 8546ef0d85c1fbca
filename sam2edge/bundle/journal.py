"""Undoing what was done, also in a later process: steps are written down before they are taken.

Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

_FILE = "journal.jsonl"


class Journal:
    """Steps that can be taken back, kept in `folder` beside the backups; the folder goes when the journal closes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._backups = 0

    def will_make(self, path: Path) -> None:
        """`path`, which is not there, is about to be made: undoing removes it, a folder with all in it."""
        self._write({"remove": str(path)})

    def make_parent(self, path: Path) -> None:
        """Makes the folder of `path`, with those above it that are missing."""
        missing = [folder for folder in path.parents if not folder.exists()]
        if missing:
            self.will_make(missing[-1])
            path.parent.mkdir(parents=True, exist_ok=True)

    def will_change(self, path: Path) -> None:
        """A file or folder is about to be changed or removed: a copy is kept, undoing puts it back."""
        backup = self.folder / f"backup-{self._backups}"
        self._backups += 1
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, backup, symlinks=True)
        else:
            shutil.copy2(path, backup, follow_symlinks=False)
        self._write({"restore": str(path), "from": str(backup)})

    def undo(self) -> None:
        """Takes all steps back, the last one first, and removes the folder."""
        for step in reversed(_read(self.folder / _FILE)):
            if "remove" in step:
                _remove(Path(step["remove"]))
            elif os.path.lexists(step["from"]):  # else an undo that was itself cut short has put it back
                _remove(Path(step["restore"]))
                Path(step["restore"]).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(step["from"], step["restore"])
        self._close()

    def commit(self) -> None:
        """Nothing is to be undone any more."""
        (self.folder / _FILE).unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, step: dict[str, str]) -> None:
        with (self.folder / _FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(step) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # a last line without its end was never acted on


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
