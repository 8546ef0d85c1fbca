"""Reads the machine's GPU and memory. Standard library only; CUDA's driver is asked by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2edge.errors import InvalidInputError
from sam2edge.machine.board import read_module_part
from sam2edge.machine.sysfs import exists, parse_int, read_fields_kb, read_int, read_text

# Device nodes of NVIDIA's drivers: discrete GPUs, Jetson (nvgpu, nvmap), Windows' Linux subsystem.
_GPU_NODES = ("dev/nvidia0", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu", "dev/nvmap", "dev/dxg")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver's device nodes exist; without them no CUDA library need be loaded."""
    return any(exists(root / node) for node in _GPU_NODES)


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: name, compute capability ("8.7"), its memory in bytes, the CUDA version of the driver.

    `integrated` devices share the CPU's memory, as on Jetson. `pci_bus_id` ("0000:01:00.0") is "" where it has none.
    `sm_count` is the number of its multiprocessors, 0 if unknown; `part` the part number of a
    Jetson's module ("p3767-0005"), "" elsewhere. AGX Orin, Orin NX and Orin Nano may all have the name "Orin".
    """

    name: str
    compute_capability: str
    total_bytes: int
    driver_cuda: str
    integrated: bool
    pci_bus_id: str = ""
    sm_count: int = 0
    part: str = ""
    index: int = 0
    """The number by which CUDA knows the device, as in "cuda:1"."""

    def __str__(self) -> str:
        facts = [f"compute capability {self.compute_capability}"]
        facts += [f"{self.sm_count} multiprocessors"] if self.sm_count else []
        facts += [f"{self.total_bytes / 2**30:.1f} GiB", *([self.part] if self.part else [])]
        return f"{self.name} ({', '.join(facts)})"


def read_device_index(device: str | None) -> int:
    """The number of the CUDA device that "cuda" or "cuda:1" names; 0 for None. Raises InvalidInputError for others."""
    name, colon, number = (device or "cuda").partition(":")
    index = parse_int(number) if colon else 0
    if name != "cuda" or index is None or index < 0:
        raise InvalidInputError(
            "device cannot be used", expected="'cuda', or 'cuda:1' for the second GPU", got=repr(device)
        )
    return index


# Attributes of cuDeviceGetAttribute, and the driver's libraries by the name that its ABI fixes.
_SM_COUNT, _INTEGRATED, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 18, 75, 76
_CUDA_DRIVER = "libcuda.so.1"


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL, index: int = 0) -> Gpu | None:
    """CUDA device number `index`, asked of the driver without making a context; None where there is none.

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
        cuda.cuDeviceGet(ctypes.byref(device), index),
    )
    if any(answers) or cuda.cuDeviceGetName(name, len(name), device):
        return None
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device):
        return None
    bus_id = ctypes.create_string_buffer(32)
    bus_known = cuda.cuDeviceGetPCIBusId(bus_id, len(bus_id), device) == 0
    integrated = bool(attribute(_INTEGRATED))
    return Gpu(
        name.value.decode(errors="replace"),
        f"{attribute(_CAPABILITY_MAJOR)}.{attribute(_CAPABILITY_MINOR)}",
        int(total.value),
        f"{number.value // 1000}.{number.value % 1000 // 10}",
        integrated,
        bus_id.value.decode(errors="replace") if bus_known else "",
        attribute(_SM_COUNT),
        read_module_part() or "" if integrated else "",
        index,
    )


@dataclass(frozen=True)
class HostMemory:
    """What this process can have of the machine's memory, in bytes; None if unknown.

    A cgroup's limit, also that of a group above, cuts `total_bytes` and `available_bytes`. CPU and GPU of a Jetson
    share this memory; `gpu_bytes` is what the GPU holds of it now, if the driver reports that (nvgpu does). Swap does
    not count as available: nothing on a GPU goes there. `zram_bytes` is how much of the swap is compressed memory.
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    in_cgroup: bool = False
    gpu_bytes: int | None = None
    swap_bytes: int = 0
    swap_used_bytes: int = 0
    zram_bytes: int = 0


def read_host_memory(root: Path = Path("/")) -> HostMemory:
    """The host's memory. `root` is where /proc and /sys are found (tests give captured trees)."""
    meminfo = read_fields_kb(root / "proc/meminfo")
    limit, rest = _read_cgroup(root)
    total, available = meminfo.get("MemTotal"), meminfo.get("MemAvailable")
    swap, swap_free = meminfo.get("SwapTotal", 0), meminfo.get("SwapFree", 0)
    return HostMemory(
        total_bytes=_find_least(total, limit),
        available_bytes=_find_least(available, rest),
        in_cgroup=limit is not None and (total is None or limit < total),
        gpu_bytes=meminfo.get("NvMapMemUsed"),
        swap_bytes=swap,
        swap_used_bytes=max(0, swap - swap_free),
        zram_bytes=_read_zram_bytes(root),
    )


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Bytes this process can still take: MemAvailable, or what its cgroups leave if that is less; None: unknown."""
    return read_host_memory(root).available_bytes


def peak_memory_bytes(root: Path = Path("/")) -> int:
    """The most memory that this process has held, in bytes; 0 where nothing tells.

    VmHWM, not ru_maxrss: that one starts at what the parent once held.
    """
    return read_fields_kb(root / "proc/self/status").get("VmHWM", 0)


# The limit's file, the usage's, and the field of memory.stat with file pages that were not used lately.
_CGROUP_2_FILES = ("memory.max", "memory.current", "inactive_file")
_CGROUP_1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _read_cgroup(root: Path) -> tuple[int | None, int | None]:
    """The least limit of this process's memory cgroups and those above, and the least that one of them leaves free."""
    limits, rests = [], []
    for folder, limit_file, used_file, idle_field in _list_cgroup_folders(root):
        limit, used = read_int(folder / limit_file), read_int(folder / used_file)
        # An unlimited version 1 group states a limit near 2**63; of version 2 it says "max", which is no number.
        if limit is None or not 0 <= limit < 1 << 60:
            continue
        limits.append(limit)
        if used is not None:
            # File pages that were not used lately count as used and are given back under pressure.
            rests.append(max(0, min(limit, limit - used + _read_idle_bytes(folder, idle_field))))
    return (min(limits) if limits else None), (min(rests) if rests else None)


def _list_cgroup_folders(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """This process's groups, from its own up to the hierarchy's root, with the names of their files.

    A container may see its group as the root, or a path that is not mounted there; missing files are passed over.
    """
    base = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines() or ["0::/", "0:memory:/"]:
        controllers, _, path = line.partition(":")[2].partition(":")
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        if not controllers:
            top, files = base, _CGROUP_2_FILES
        elif "memory" in controllers.split(","):
            top, files = base / "memory", _CGROUP_1_FILES
        else:
            continue
        for depth in range(len(parts), -1, -1):
            yield (top.joinpath(*parts[:depth]), *files)


def _read_idle_bytes(folder: Path, field: str) -> int:
    for line in read_text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == field:
            return parse_int(value) or 0
    return 0


def _read_zram_bytes(root: Path) -> int:
    rows = [line.split() for line in read_text(root / "proc/swaps").splitlines()]
    sizes = [parse_int(row[2]) for row in rows if len(row) > 2 and "/zram" in row[0]]
    return sum(size * 1024 for size in sizes if size is not None)


def _find_least(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
