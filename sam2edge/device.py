"""What this machine is and what memory it can give. Standard library only, no device library is touched."""

from __future__ import annotations

from pathlib import Path

CACHE_SHARE = 0.1
"""Part of the memory available at start that a model's default embedding cache may fill."""


# Device nodes of NVIDIA's drivers: discrete GPUs, Jetson (nvgpu, nvmap), Windows' Linux subsystem.
_GPU_NODES = ("dev/nvidia0", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu", "dev/nvmap", "dev/dxg")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver has made its device nodes: enough to know that loading a CUDA library is no use."""
    return any((root / node).exists() for node in _GPU_NODES)


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
