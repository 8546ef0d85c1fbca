"""Reads small files of /proc, /sys and /etc. Never raises, even if they are missing, forbidden or garbage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 1 << 16
"""More than any of these files has; the rest is not read."""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A file's text without NULs and blanks around it; "" where it cannot be read."""
    return _read(path, max_bytes).strip("\0 \t\r\n")


def read_strings(path: Path) -> list[str]:
    """The NUL-terminated strings of a device tree property; none where it cannot be read."""
    return [part.strip() for part in _read(path, MAX_BYTES).split("\0") if part.strip()]


def read_int(path: Path) -> int | None:
    """The whole number that a file holds; None where it holds none."""
    return parse_int(read_text(path))


def parse_int(text: str) -> int | None:
    """A decimal whole number of at most 20 characters, blanks around it allowed; else None."""
    digits = text.strip()
    negative = digits.startswith("-")
    bare = digits[negative:]
    if not (0 < len(bare) <= 20 and bare.isascii() and bare.isdigit()):
        return None
    return -int(bare) if negative else int(bare)


def read_fields_kb(path: Path) -> dict[str, int]:
    """The `Name:  123 kB` lines of /proc/meminfo and its like, in bytes."""
    found = {}
    for line in read_text(path).splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        value = parse_int(words[0]) if colon and words else None
        if value is not None and value >= 0:
            found[name.strip()] = value * 1024
    return found


def exists(path: Path) -> bool:
    """Whether a path exists; False also where Path.exists raises because access is forbidden."""
    return os.path.exists(path)


def list_children(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """What a folder holds, sorted by name; nothing if it cannot be read."""
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return


def _read(path: Path, max_bytes: int) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(max_bytes).decode("utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ""
