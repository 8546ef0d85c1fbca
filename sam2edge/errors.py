"""The errors that sam2edge raises; each says what was expected, what it got, and how to fix it."""

from __future__ import annotations

import signal

EXIT_INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended: 128 and the number of SIGINT, as shells have it."""


def name_status(status: int) -> str:
    """How a process ended, by its return code: "exit status 1", or the name of the signal that killed it."""
    try:
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
    except ValueError:
        return f"signal {-status}"


class Sam2EdgeError(Exception):
    """Base of every error that sam2edge raises on purpose.

    `problem` says what went wrong; `expected`, `got` and `remedy` are joined to it in one line.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.got = got
        self.remedy = remedy
        parts = [problem]
        if expected is not None:
            parts.append(f"expected {expected}")
        if got is not None:
            parts.append(f"got {got}")
        if remedy is not None:
            parts.append(f"remedy: {remedy}")
        super().__init__("; ".join(parts))


class InvalidInputError(Sam2EdgeError, ValueError):
    """An image, prompt, option or file that the caller passed cannot be used."""


class UnknownModelError(Sam2EdgeError, LookupError):
    """A model id that no variant has."""


class CheckpointError(Sam2EdgeError):
    """Weights that are missing, damaged, unsafe to read, or of another variant."""


class GraphError(Sam2EdgeError):
    """An ONNX graph or engine that is missing, damaged, or breaks the tensor contract."""


class BackendUnavailableError(Sam2EdgeError):
    """A backend that cannot run on this machine; the message names the command that fixes it."""


class OutOfMemoryError(Sam2EdgeError):
    """The device has no memory left, even with an empty embedding cache; or no installed model fits."""


class StoreError(Sam2EdgeError):
    """Files that cannot be downloaded, or read from or written to the store."""


class BundleError(Sam2EdgeError):
    """An offline bundle that is damaged, unsafe, for another machine, or cannot be made or installed."""
