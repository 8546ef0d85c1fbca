"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

WORKS, BROKEN, MISSING, NOTE = "works", "broken", "missing", "note"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands (`WORKS`, `BROKEN`, `MISSING`, or a mere `NOTE`), and what mends it."""

    name: str
    state: str
    detail: str
    remedy: str | None = None
