"""The runtime of a TensorRT library, and what it logs."""

from __future__ import annotations

from collections import deque
from types import ModuleType
from typing import Any

from sam2edge.errors import BackendUnavailableError

LOG_LINES = 4
"""Errors and warnings that are kept, to be reported with what fails."""

# One logger for a library in a process: its plugin registry keeps the first one that it gets, for as long as it lives.
_loggers: dict[ModuleType, tuple[Any, deque[str]]] = {}


def open_runtime(library: ModuleType) -> tuple[Any, deque[str]]:
    """A runtime, and the last lines of the library's log. Raises BackendUnavailableError where the driver is too old.

    Engines need the runtime for as long as they live.
    """
    if library not in _loggers:
        log: deque[str] = deque(maxlen=LOG_LINES)
        _loggers[library] = _make_logger(library, log), log
    logger, log = _loggers[library]
    log.clear()  # what an earlier model caused
    try:
        return library.Runtime(logger), log
    except TypeError as error:  # what a constructor that gives nothing becomes
        raise BackendUnavailableError(
            f"{library.__name__} {library.__version__} does not start",
            expected="an NVIDIA driver that is new enough for it",
            got=" | ".join(log) or str(error),
            remedy="update the driver (on a Jetson: JetPack), or install the TensorRT that came with it",
        ) from error


def _make_logger(library: ModuleType, lines: deque[str]) -> Any:
    class Log(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR, library.ILogger.WARNING):
                lines.append(" ".join(message.split()))

    return Log()
