"""Arrays and a header in one file: written whole or not at all, read with nothing in it trusted."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError
from sam2edge.outputs import make_write_error
from sam2edge.store.paths import write_atomically

_HEADER = "header.json"
_MOST_MEMBERS = 1 + 256 * 42  # of 256 objects, each with the most memories and pointers that a bank keeps
_KINDS = {"float32": np.float32, "int32": np.int32, "uint8": np.uint8, "bool": np.bool_}


def write_session(path: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes an `.npz` of the arrays with a JSON header beside them; never pickled.

    Raises Sam2EdgeError when the file cannot be written; nothing new is left behind then.
    """
    try:
        write_atomically(path, lambda target: _write(target, header, arrays))
    except OSError as error:
        raise make_write_error(path, error) from error


def read_session(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays of a session file, float arrays finite.

    Nothing is unpickled, and nothing is compressed, so that no file takes more memory than its own size. Raises
    InvalidInputError for a missing, truncated or foreign file.
    """
    if not path.is_file():
        raise InvalidInputError(
            "session file not found", expected="a file that save wrote", got=str(path), remedy="check the path"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist(), path.stat().st_size)
            header = json.loads(archive.read(_HEADER))
            names = [name for name in archive.namelist() if name != _HEADER]
            arrays = {name.removesuffix(".npy"): _read_array(archive.read(name)) for name in names}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, RecursionError, zipfile.BadZipFile) as error:
        raise _damage_error(path, str(error) or type(error).__name__) from error
    if not isinstance(header, dict):
        raise _damage_error(path, "a header of another kind")
    return header, arrays


def _write(target: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_HEADER, json.dumps(header))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _check_members(members: list[zipfile.ZipInfo], file_bytes: int) -> None:
    """Raises ValueError for what `write_session` never writes: a name twice, parts that share bytes, far too many."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("compressed parts")
    if len(members) > _MOST_MEMBERS or len({member.filename for member in members}) != len(members):
        raise ValueError(f"{len(members)} parts, or some of the same name")
    if sum(member.file_size for member in members) > file_bytes:
        raise ValueError("parts that share their bytes")


def _read_array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"array format {version}")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype.name not in _KINDS:
        raise ValueError(f"array of {dtype}")
    array = np.frombuffer(data, dtype, offset=file.tell())  # no more than there is, whatever the header claims
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("NaN or infinity")
    return array.reshape(shape).copy()


def _damage_error(path: Path, reason: str) -> InvalidInputError:
    return InvalidInputError(
        "session file is damaged, or not a session",
        expected="a whole file that save wrote",
        got=f"{path}: {reason[:160]}",
        remedy="save the session again",
    )
