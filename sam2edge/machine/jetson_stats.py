"""Asks jetson-stats for the power mode, if it is installed and its service runs.

jetson-stats (AGPL-3.0) is never required: the rest of what it knows is read from /proc and /sys.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam2edge.machine.power import PowerMode
from sam2edge.machine.sysfs import exists

TIMEOUT_S = 3.0
"""After this a service that hangs is given up."""

_SOCKET = "run/jtop.sock"


def ask_power_mode(
    root: Path = Path("/"),
    load: Callable[[], Any] = lambda: importlib.import_module("jtop"),
    timeout_s: float = TIMEOUT_S,
) -> PowerMode | None:
    """nvpmodel's mode from the service; None if it gives none within `timeout_s`, for whatever reason."""
    if not exists(root / _SOCKET):
        return None
    answers: list[PowerMode] = []
    # In a daemon thread: nothing else bounds the time of a call into the library.
    asking = threading.Thread(target=_ask, args=(load, answers), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else None


def _ask(load: Callable[[], Any], answers: list[PowerMode]) -> None:
    try:
        with load().jtop() as jetson:
            if jetson.ok() and jetson.nvpmodel:
                mode = jetson.nvpmodel
                answers.append(PowerMode(int(mode.id), str(mode.name), "jetson-stats"))
    except Exception:  # missing, another version, no right to the socket, a service that is starting
        return
