"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

WORKS, BROKEN, MISSING, NOTE = "works", "broken", "missing", "note"


@dataclass(frozen=True)
class Finding:
    """What was checked, its state (`WORKS`, `BROKEN`, `MISSING` or `NOTE`), details, and how to fix it."""

    name: str
    state: str
    detail: str
    remedy: str | None = None
