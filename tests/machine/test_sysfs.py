"""Small files that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2edge.machine.sysfs import exists, list_children, parse_int, read_fields_kb, read_int, read_strings, read_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42\n", 42),
        (" -7 ", -7),
        ("", None),
        ("max", None),
        ("1.5", None),
        ("--3", None),
        ("٣", None),
        ("9" * 21, None),
        ("0x10", None),
        ("1_000", None),
    ],
)
def test_whole_numbers(text: str, expected: int | None) -> None:
    assert parse_int(text) == expected


@given(st.binary(max_size=300))
def test_no_content_raises(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        for read in (read_text, read_strings, read_int, read_fields_kb):
            read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b", tmp_path / ("x" * 5000)):
        assert (read_text(path), read_strings(path), read_int(path), read_fields_kb(path)) == ("", [], None, {})
    assert not exists(tmp_path / "none")
    assert list(list_children(tmp_path / "none")) == []


def test_strings_of_a_device_tree(tmp_path: Path) -> None:
    (tmp_path / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    assert read_strings(tmp_path / "compatible") == ["nvidia,p3768-0000+p3767-0005", "nvidia,tegra234"]


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 1000)
    assert len(read_text(tmp_path / "long", 10)) == 10
