"""Files for results: tried before the work starts, never half-written, and nothing is written over without a word."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from sam2edge.errors import InvalidInputError, Sam2EdgeError

_OURS = ".sam2edge"
_ABANDONED_SECONDS = 600.0
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """A new hidden name in the folder of `path`, short whatever the length of that name."""
    return path.with_name(f".{secrets.token_hex(8)}{_OURS}{suffix}")


def try_output(path: Path, option: str = "--out", replace: bool = True) -> None:
    """Raises InvalidInputError where no result can be written to `path`, as far as that can be told before the work.

    The folder may still be missing; then the nearest one above it is tried. Without `replace` a file that is there
    already is an error too.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has this name")
        _probe(path)
    except OSError as error:
        raise InvalidInputError(
            f"{option} cannot be written",
            expected="a file in a folder with write permission and room",
            got=f"{path}: {error.strerror or error}",
            remedy=f"name another place with {option}",
        ) from error
    if not replace and os.path.lexists(path):
        raise InvalidInputError(
            f"{option} is there already", expected="a new name", got=path, remedy="give --force to write over it"
        )


def place(finished: Mapping[Path, Path], replace: bool = False) -> list[Path]:
    """Moves finished files, each beside its target, to their targets; returns where they lie now.

    Without `replace` nothing that is there is written over: where a name is taken, all of them get the first number
    that is free for all, as in `coins.mask-2.png`. Raises OSError; those moved before it stay then.
    """
    if replace:
        for temporary, target in finished.items():
            os.replace(temporary, target)
        return list(finished.values())
    number = 1
    while True:
        names = [number_path(target, number) for target in finished.values()]
        if not any(map(os.path.lexists, names)) and _link_all(list(finished), names):
            return names
        number += 1


def write_files(contents: Mapping[Path, bytes], replace: bool = False) -> list[Path]:
    """Writes several files, all or none: each whole under a temporary name beside its target, then all moved.

    A file that stands under a target's name is written over with `replace`; without, the new ones get a number. Returns
    where they lie. Raises Sam2EdgeError when one cannot be written (folder missing, no permission, disk full); nothing
    new is left behind then.
    """
    staged: dict[Path, Path] = {}
    current: Path | None = None
    try:
        for current, data in contents.items():
            if current.is_dir():
                raise IsADirectoryError(None, "a folder has this name")
            clear_abandoned(current.parent)
            temporary = temporary_beside(current)
            staged[temporary] = current
            # Not tempfile: its files are private, and this one becomes the result, with a new file's permissions.
            with open(temporary, "xb") as file:
                file.write(data)
        return place(staged, replace)
    except OSError as error:
        raise make_write_error(current, error) from error
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)


def make_write_error(path: Path | None, error: OSError) -> Sam2EdgeError:
    """The error for a file that cannot be written."""
    return Sam2EdgeError(
        f"cannot write {path}",
        got=error.strerror or str(error),
        remedy="choose a folder that can be written and has space left",
    )


def number_path(path: Path, number: int) -> Path:
    """`coins.mask.png` -> `coins.mask-2.png`; the path itself for 1."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def clear_abandoned(folder: Path, suffix: str = "") -> None:
    """Removes temporary files of runs that were killed: those that nothing was written to for ten minutes."""
    for path in folder.glob(f".*{_OURS}{suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _probe(path: Path) -> None:
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if len(os.fsencode(path.name)) > os.pathconf(folder, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    probe = temporary_beside(folder / "probe")
    try:
        probe.write_bytes(b"\0" * 4096)
    finally:
        probe.unlink(missing_ok=True)


def _link_all(temporaries: list[Path], names: list[Path]) -> bool:
    """Whether all could get their names; another process may have taken one since they were looked at."""
    done: list[Path] = []
    for temporary, name in zip(temporaries, names, strict=True):
        try:
            os.link(temporary, name)
        except FileExistsError:
            for other in done:
                other.unlink()
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _rename_all(temporaries, names)  # FAT32 has no links
        done.append(name)
    for temporary in temporaries:
        temporary.unlink()
    return True


def _rename_all(temporaries: list[Path], names: list[Path]) -> bool:
    for temporary, name in zip(temporaries, names, strict=True):
        os.replace(temporary, name)
    return True
