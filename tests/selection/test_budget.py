"""Amounts of memory as users write them, the reserve, and what is noticed when memory shrinks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.machine.gpu_state import GpuMonitor, GpuState
from sam2edge.selection.budget import (
    GREATEST_RESERVE_BYTES,
    LEAST_RESERVE_BYTES,
    VARIABLE,
    Budget,
    MemoryWatch,
    parse_bytes,
    read_memory_cap,
    reserve_bytes,
)
from tests.trees import GIB, ORIN_NANO_8GB, write_tree


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (123, 123),
        (np.int64(5), 5),
        ("123", 123),
        ("4GiB", 4 * GIB),
        ("4g", 4 * GIB),
        ("512M", 512 << 20),
        (" 1.5 GiB ", 3 * GIB // 2),
        ("500MB", 500_000_000),
        ("64 kib", 65536),
        ("7b", 7),
    ],
)
def test_amounts(amount: int | str, expected: int) -> None:
    assert parse_bytes(amount, "max_memory") == expected


@pytest.mark.parametrize("amount", ["", "much", "-1", "4 GiB free", "0", "0.1", "1e9", "4XB", 0, -5, 1.5, True, None])
def test_amounts_that_are_none(amount: object) -> None:
    with pytest.raises(InvalidInputError, match=r"max_memory is not an amount of memory.*4GiB"):
        parse_bytes(amount, "max_memory")  # type: ignore[arg-type]


def test_the_lesser_cap_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_memory_cap(None) is None
    monkeypatch.setenv(VARIABLE, "1GiB")
    assert read_memory_cap(None) == read_memory_cap("2GiB") == GIB
    assert read_memory_cap(5) == 5
    monkeypatch.setenv(VARIABLE, "  ")
    assert read_memory_cap(None) is None
    monkeypatch.setenv(VARIABLE, "lots")
    with pytest.raises(InvalidInputError, match=f"{VARIABLE} is not an amount"):
        read_memory_cap(5)


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(None, LEAST_RESERVE_BYTES), (GIB // 4, LEAST_RESERVE_BYTES), (8 * GIB, int(0.8 * GIB)), (64 * GIB, GIB)],
)
def test_the_reserve_is_a_tenth_within_bounds(total: int | None, reserve: int) -> None:
    assert reserve_bytes(total) == pytest.approx(reserve, abs=1)
    assert LEAST_RESERVE_BYTES <= reserve_bytes(total) <= GREATEST_RESERVE_BYTES


@pytest.mark.parametrize(
    ("total", "available", "cap", "usable"),
    [
        (10 * GIB, 4 * GIB, None, 3 * GIB),
        (10 * GIB, 4 * GIB, GIB, GIB),
        (10 * GIB, GIB // 2, None, 0),
        (None, None, GIB, GIB),
        (None, None, None, None),
    ],
)
def test_what_is_usable(total: int | None, available: int | None, cap: int | None, usable: int | None) -> None:
    assert Budget("host", total, available, cap).usable_bytes == usable


def test_a_shortfall_is_looked_for_once_a_second() -> None:
    now, available = [100.0], [50]
    looks = []

    def look() -> int:
        looks.append(now[0])
        return available[0]

    watch = MemoryWatch(look, reserve=80, clock=lambda: now[0])
    assert [watch.shortfall_bytes(), watch.shortfall_bytes()] == [30, 0]
    now[0] += 1.0
    assert watch.shortfall_bytes() == 30
    now[0], available[0] = 200.0, 90
    assert watch.shortfall_bytes() == 0
    assert looks == [100.0, 101.0, 200.0]


def test_a_watch_on_a_machine_and_on_a_gpu(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**ORIN_NANO_8GB, "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 500000 kB\n"})
    assert MemoryWatch.of_host(root).shortfall_bytes() == 300_000 * 1024
    assert MemoryWatch.of_host(tmp_path / "none").shortfall_bytes() == 0

    class Monitor(GpuMonitor):
        def __init__(self) -> None:
            pass

        def read(self) -> GpuState:
            return GpuState(8 * GIB, GIB // 2)

    watch = MemoryWatch.of_gpu(Monitor())
    assert watch.gpu is not None
    assert watch.shortfall_bytes() == pytest.approx(0.3 * GIB, rel=0.01)
