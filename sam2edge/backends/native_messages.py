"""Keeps messages of native libraries off the user's terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def drop_cpuinfo_errors() -> Iterator[None]:
    """ONNX Runtime's cpuinfo prints errors where /sys is not there, as in a chroot; it goes on without.

    Only there, what the process writes to its standard error meanwhile is dropped.
    """
    if os.path.exists("/sys/devices/system/cpu/possible"):
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
