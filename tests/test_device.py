"""Memory and GPU of captured machines."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from sam2edge.device import Gpu, available_memory_bytes, find_gpu, has_nvidia_gpu

GIB = 1 << 30


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:        7802892 kB\nMemFree:  100 kB\nMemAvailable:    4194304 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MEMINFO, 4 * GIB),
        ({**MEMINFO, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}, 4 * GIB),
        (
            {**MEMINFO, "sys/fs/cgroup/memory.max": f"{GIB}\n", "sys/fs/cgroup/memory.current": f"{GIB // 4}\n"},
            3 * GIB // 4,
        ),
        (
            {
                **MEMINFO,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            },
            4 * GIB,
        ),
        ({}, None),
    ],
    ids=["plain", "unlimited group", "limited group", "unlimited old group", "nothing to read"],
)
def test_available_memory(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    assert available_memory_bytes(_write(tmp_path, files)) == expected


@pytest.mark.parametrize("node", ["dev/nvidia0", "dev/nvmap"])
def test_a_gpu_shows_in_its_device_nodes(node: str, tmp_path: Path) -> None:
    assert not has_nvidia_gpu(tmp_path)
    assert has_nvidia_gpu(_write(tmp_path, {node: ""}))


class _Driver:
    """CUDA's driver library of a machine with one device; `failing` calls return an error."""

    def __init__(self, *failing: str) -> None:
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name in self._failing:
            return lambda *arguments: 100
        return getattr(type(self), f"_{name}", type(self)._done).__get__(self)

    def _done(self, *arguments: Any) -> int:
        return 0

    def _cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12060
        return 0

    def _cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = b"Orin"
        return 0

    def _cuDeviceTotalMem_v2(self, total: Any, device: ctypes.c_int) -> int:
        total._obj.value = 8 * GIB
        return 0

    def _cuDeviceGetAttribute(self, value: Any, which: int, device: ctypes.c_int) -> int:
        value._obj.value = {18: 1, 75: 8, 76: 7}[which]
        return 0


def test_the_gpu_as_the_driver_tells_it() -> None:
    assert find_gpu(lambda name: _Driver()) == Gpu("Orin", "8.7", 8 * GIB, "12.6", True)


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2"])
def test_a_driver_without_a_device(call: str) -> None:
    assert find_gpu(lambda name: _Driver(call)) is None


def test_no_driver() -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    assert find_gpu(load) is None
