"""Memory and GPU of captured machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2edge.device import available_memory_bytes, has_nvidia_gpu

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
