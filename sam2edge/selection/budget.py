"""How much memory a model and its cache may take, and whether it is still free later."""

from __future__ import annotations

import operator
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sam2edge.errors import InvalidInputError
from sam2edge.machine.device import HostMemory, available_memory_bytes, read_host_memory
from sam2edge.machine.gpu_state import GpuMonitor, GpuState

VARIABLE = "SAM2EDGE_MAX_MEMORY"

CACHE_SHARE = 0.1
"""Part of the memory available at start that a model's default embedding cache may fill."""

# Left free for the rest of the system (cameras, desktop, page cache): a tenth of the memory, within bounds.
RESERVE_SHARE = 0.1
LEAST_RESERVE_BYTES, GREATEST_RESERVE_BYTES = 64 << 20, 1 << 30

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DECIMAL_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_AMOUNT = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([kmgt]?)(ib|b)?", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """One memory: its total and available bytes now, a reserve, and the caller's cap; None: unknown.

    `kind` is "host", "gpu" (a discrete one), or "shared" (CPU and GPU of a Jetson have one memory).
    """

    kind: str
    total_bytes: int | None
    available_bytes: int | None
    cap_bytes: int | None = None

    @property
    def reserve_bytes(self) -> int:
        return reserve_bytes(self.total_bytes)

    @property
    def usable_bytes(self) -> int | None:
        """What a model and its cache may take; None where it is unknown and there is no cap."""
        rest = None if self.available_bytes is None else max(0, self.available_bytes - self.reserve_bytes)
        known = [value for value in (rest, self.cap_bytes) if value is not None]
        return min(known) if known else None


def reserve_bytes(total_bytes: int | None) -> int:
    """What is left free for the rest of the system: a tenth of the memory, at least 64 MiB, at most 1 GiB."""
    share = int(RESERVE_SHARE * (total_bytes or 0))
    return min(max(share, LEAST_RESERVE_BYTES), GREATEST_RESERVE_BYTES)


def host_budget(memory: HostMemory, cap_bytes: int | None, shared: bool = False) -> Budget:
    return Budget("shared" if shared else "host", memory.total_bytes, memory.available_bytes, cap_bytes)


def gpu_budget(state: GpuState, cap_bytes: int | None) -> Budget:
    return Budget("gpu", state.total_bytes, state.free_bytes, cap_bytes)


def read_memory_cap(max_memory: int | str | None) -> int | None:
    """The least of `max_memory` and $SAM2EDGE_MAX_MEMORY in bytes, both as `parse_bytes` takes them; None: no cap."""
    stated = os.environ.get(VARIABLE, "").strip()
    caps = [] if max_memory is None else [parse_bytes(max_memory, "max_memory")]
    if stated:
        caps.append(parse_bytes(stated, VARIABLE))
    return min(caps) if caps else None


def parse_bytes(amount: int | str, name: str) -> int:
    """Bytes: a whole number above 0, or text such as "4GiB", "512M" (both of 1024), "500MB" (of 1000).

    Raises InvalidInputError, naming `name`.
    """
    value: float = 0
    if isinstance(amount, str):
        found = _AMOUNT.fullmatch(amount.strip())
        if found:
            unit = found[2].lower()
            decimal = (found[3] or "").lower() == "b" and unit
            value = float(found[1]) * (_DECIMAL_UNITS[f"{unit}b"] if decimal else _UNITS[unit])
    elif hasattr(amount, "__index__") and not isinstance(amount, bool):
        value = operator.index(amount)
    if value < 1:
        raise InvalidInputError(
            f"{name} is not an amount of memory", expected='bytes, or text such as "4GiB" or "512M"', got=repr(amount)
        )
    return int(value)


class MemoryWatch:
    """Tells how far the available memory is below the reserve; reads it at most once every `interval_s` seconds."""

    def __init__(
        self,
        available: Callable[[], int | None],
        reserve: int,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        gpu: GpuMonitor | None = None,
    ) -> None:
        self.gpu = gpu
        """The discrete GPU whose memory is watched; None: the host's is."""
        self._available, self._reserve = available, reserve
        self._interval_s, self._clock = interval_s, clock
        self._lock = threading.Lock()
        self._next = 0.0

    @classmethod
    def of_host(cls, root: Path = Path("/")) -> MemoryWatch:
        reserve = reserve_bytes(read_host_memory(root).total_bytes)
        return cls(lambda: available_memory_bytes(root), reserve)

    @classmethod
    def of_gpu(cls, monitor: GpuMonitor) -> MemoryWatch:
        return cls(lambda: monitor.read().free_bytes, reserve_bytes(monitor.read().total_bytes), gpu=monitor)

    def shortfall_bytes(self) -> int:
        """Bytes missing to the reserve; 0 if there are enough, if it is unknown, and within the interval."""
        now = self._clock()
        with self._lock:
            if now < self._next:
                return 0
            self._next = now + self._interval_s
        available = self._available()
        return 0 if available is None else max(0, self._reserve - available)
