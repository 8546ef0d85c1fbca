"""Memory and GPU of captured machines."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge.machine.device import (
    Gpu,
    available_memory_bytes,
    find_gpu,
    has_nvidia_gpu,
    peak_memory_bytes,
    read_host_memory,
)
from tests.trees import GIB, write_tree

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
    assert available_memory_bytes(write_tree(tmp_path, files)) == expected


@pytest.mark.parametrize("node", ["dev/nvidia0", "dev/nvmap"])
def test_a_gpu_shows_in_its_device_nodes(node: str, tmp_path: Path) -> None:
    assert not has_nvidia_gpu(tmp_path)
    assert has_nvidia_gpu(write_tree(tmp_path, {node: ""}))


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
        value._obj.value = {16: 8, 18: 1, 75: 8, 76: 7}[which]
        return 0


def test_the_gpu_as_the_driver_tells_it() -> None:
    gpu = find_gpu(lambda name: _Driver())
    assert gpu == Gpu("Orin", "8.7", 8 * GIB, "12.6", True, sm_count=8)
    assert str(gpu) == "Orin (compute capability 8.7, 8 multiprocessors, 8.0 GiB)"


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2"])
def test_a_driver_without_a_device(call: str) -> None:
    assert find_gpu(lambda name: _Driver(call)) is None


def test_no_driver() -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    assert find_gpu(load) is None


def _group(path: str, limit: str, used: int, idle: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup{path}"
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": str(used),
        f"{folder}/memory.stat": f"anon 1\ninactive_file {idle}\n",
    }


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/system.slice/app.service/worker\n",
        **_group("/system.slice", f"{2 * GIB}", GIB),
        **_group("/system.slice/app.service", f"{GIB}", GIB // 2, GIB // 4),
        **_group("/system.slice/app.service/worker", "max", GIB // 2),
    }
    memory = read_host_memory(write_tree(tmp_path, files))
    assert (memory.total_bytes, memory.available_bytes, memory.in_cgroup) == (GIB, 3 * GIB // 4, True)


def test_a_version_1_group_that_the_container_does_not_mount(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB // 2}\n",
        "sys/fs/cgroup/memory/memory.stat": f"cache 9\ntotal_inactive_file {GIB // 8}\n",
    }
    assert available_memory_bytes(write_tree(tmp_path, files)) == 5 * GIB // 8


@pytest.mark.parametrize(
    "group", ["0::/../../../etc\n", "0::\n", ":::::\n", "memory\n", "\0\0", "0::/" + "x/" * 3000], ids=range(6)
)
def test_odd_groups(group: str, tmp_path: Path) -> None:
    files = {**MEMINFO, "proc/self/cgroup": group, **_group("", f"{GIB}", 0)}
    assert available_memory_bytes(write_tree(tmp_path, files)) in (GIB, 4 * GIB)


@pytest.mark.parametrize("values", [("x", "5"), ("-1", "5"), (f"{GIB}", "x"), (f"{GIB}", f"{9 * GIB}")])
def test_odd_limits(values: tuple[str, str], tmp_path: Path) -> None:
    limit, used = values
    files = {**MEMINFO, "sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": used}
    available = available_memory_bytes(write_tree(tmp_path, files))
    assert available == (0 if used.isdigit() and int(used) > GIB else 4 * GIB)


def test_the_peak_is_this_processes_own_and_not_its_parents() -> None:
    held = np.ones(200_000_000, np.uint8)  # ru_maxrss of a child starts there
    code = "from sam2edge.machine.device import peak_memory_bytes; print(peak_memory_bytes())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < held.nbytes < peak_memory_bytes()
