"""Session files that are made to take more than they are."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError
from sam2edge.tracking import session_file
from sam2edge.tracking.session_file import read_session, write_session


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No member is read before all of them have been looked at."""

    def fail(*_: object) -> None:
        raise AssertionError("a member was read")

    monkeypatch.setattr(zipfile.ZipFile, "read", fail)


def test_parts_that_share_their_bytes(tmp_path: Path, no_reading: None) -> None:
    """Forty entries of the directory point at one megabyte."""
    path, data = tmp_path / "a.session", bytes(2**20)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "{}")
        archive.writestr("00", data)
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", content, end + 16)
    entry = content[content.rindex(b"PK\1\2") : end]
    names = [f"{number:02}".encode() for number in range(40)]
    directory = content[start : end - len(entry)] + b"".join(entry.replace(b"00", name) for name in names)
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 41, 41, len(directory), start, 0)
    path.write_bytes(content[:start] + directory + tail)
    with pytest.raises(InvalidInputError, match="share their bytes"):
        read_session(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_parts_of_one_name(tmp_path: Path, no_reading: None) -> None:
    with zipfile.ZipFile(tmp_path / "a.session", "w") as archive:
        for _ in range(2):
            archive.writestr("header.json", "{}")
    with pytest.raises(InvalidInputError, match="some of the same name"):
        read_session(tmp_path / "a.session")


def test_far_too_many_parts(tmp_path: Path, no_reading: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "_MOST_MEMBERS", 9)
    write_session(tmp_path / "a.session", {}, {str(number): np.zeros(1, np.uint8) for number in range(9)})
    with pytest.raises(InvalidInputError, match="10 parts"):
        read_session(tmp_path / "a.session")


def test_a_header_that_has_no_end(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.session", "w") as archive:
        archive.writestr("header.json", "[" * 100_000)
    with pytest.raises(InvalidInputError, match="damaged"):
        read_session(tmp_path / "a.session")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "pixels": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "0/logits": np.ones((4, 4), np.float32),
    }
    write_session(tmp_path / "a.session", {"frame_index": 3}, arrays)
    header, found = read_session(tmp_path / "a.session")
    assert header == json.loads('{"frame_index": 3}')
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
