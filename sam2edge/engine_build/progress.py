"""How far a build is: what a display of it is told, and the plainest display."""

from __future__ import annotations

import sys
from typing import Protocol


class Progress(Protocol):
    """A display of a build."""

    def note(self, line: str) -> None:
        """One line that stays."""

    def update(self, kind: str, name: str, steps: int = 0, step: int = 0) -> None:
        """An event of the builder: "phase" starts one of `steps` steps, "step" ends one, "phase_end" the phase."""


class LineProgress:
    """A line for each engine on standard error."""

    def note(self, line: str) -> None:
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)

    def update(self, kind: str, name: str, steps: int = 0, step: int = 0) -> None:
        """The builder's phases are not shown."""
