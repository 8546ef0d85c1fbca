"""What this machine is and what memory it can give. Standard library only; CUDA's driver is asked by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE_SHARE = 0.1
"""Part of the memory available at start that a model's default embedding cache may fill."""


# Device nodes of NVIDIA's drivers: discrete GPUs, Jetson (nvgpu, nvmap), Windows' Linux subsystem.
_GPU_NODES = ("dev/nvidia0", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu", "dev/nvmap", "dev/dxg")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver has made its device nodes: enough to know that loading a CUDA library is no use."""
    return any((root / node).exists() for node in _GPU_NODES)


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device: name, compute capability ("8.7"), its memory in bytes, the CUDA version of the driver.

    `integrated` devices share the CPU's memory, as on Jetson.
    """

    name: str
    compute_capability: str
    total_bytes: int
    driver_cuda: str
    integrated: bool


# Attributes of cuDeviceGetAttribute, and the driver's libraries by the name that its ABI fixes.
_INTEGRATED, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 18, 75, 76
_CUDA_DRIVER = "libcuda.so.1"


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
    """The first CUDA device, asked of the driver without making a context; None where there is none.

    `load` opens the driver's library (tests give their own).
    """
    try:
        cuda = load(_CUDA_DRIVER)
    except OSError:
        return None
    device, number, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        return int(value.value) if cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device) == 0 else 0

    answers = (
        cuda.cuInit(0),
        cuda.cuDriverGetVersion(ctypes.byref(number)),
        cuda.cuDeviceGet(ctypes.byref(device), 0),
    )
    if any(answers) or cuda.cuDeviceGetName(name, len(name), device):
        return None
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device):
        return None
    return Gpu(
        name.value.decode(errors="replace"),
        f"{attribute(_CAPABILITY_MAJOR)}.{attribute(_CAPABILITY_MINOR)}",
        int(total.value),
        f"{number.value // 1000}.{number.value % 1000 // 10}",
        bool(attribute(_INTEGRATED)),
    )


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Bytes this process can still take: MemAvailable, or what its cgroup leaves if that is less.

    CPU and GPU of a Jetson share this memory. `root` is where /proc and /sys are found (tests give captured trees).
    None where neither says anything.
    """
    limits = [v for v in (_mem_available(root), _cgroup_rest(root)) if v is not None]
    return min(limits) if limits else None


def _mem_available(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _cgroup_rest(root: Path) -> int | None:
    pairs = (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    )
    for limit_file, used_file in pairs:
        limit, used = _read(root / limit_file).strip(), _read(root / used_file).strip()
        # An unlimited version 1 group states a limit near 2**63.
        if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
            return max(0, int(limit) - int(used))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
