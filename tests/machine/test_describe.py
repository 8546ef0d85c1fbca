"""Captured machines, read back; and the same files damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2edge.machine.describe import Machine, describe_machine
from tests.trees import CPU_CONTAINER, GIB, TREES, write_tree


def _machine(name: str, folder: Path) -> Machine:
    return describe_machine(write_tree(folder, TREES[name]))


@pytest.mark.parametrize(
    ("name", "module", "l4t", "jetpack", "capability", "cuda", "tensorrt"),
    [
        ("Orin Nano 8 GB", "Jetson Orin Nano 8 GB (developer kit)", "36.4.3", "6.2", "8.7", "12.6.11", "10.3.0.30"),
        ("Orin NX 16 GB", "Jetson Orin NX 16 GB", "39.2.0", "7.2", "8.7", "13.2.0", "10.16.0.20"),
        ("AGX Orin 64 GB", "Jetson AGX Orin 64 GB", "36.4.3", "6.2", "8.7", "12.6.11", "10.3.0.30"),
        ("Xavier", "Jetson AGX Xavier 32 GB", "35.4.1", "5.1.2", "7.2", "11.4.315", "8.5.2"),
        ("Thor", "Jetson T5000", "38.2.2", "7", "11.0", "13.0.0", "10.13.3.9"),
        ("desktop GPU", None, None, None, None, "12.8.0", None),
        ("CPU container", None, None, None, None, None, None),
    ],
)
def test_what_a_machine_is(
    name: str,
    module: str | None,
    l4t: str | None,
    jetpack: str | None,
    capability: str | None,
    cuda: str | None,
    tensorrt: str | None,
    tmp_path: Path,
) -> None:
    machine = _machine(name, tmp_path)
    board = machine.board
    assert (board.module, board.l4t, board.jetpack) == (module, l4t, jetpack)
    assert (machine.compute_capability, machine.cuda, machine.tensorrt) == (capability, cuda, tensorrt)
    assert machine.shares_memory == board.is_jetson == (l4t is not None)
    assert machine.has_gpu == (name != "CPU container")
    json.dumps(machine.to_json())


@pytest.mark.parametrize(
    ("name", "available_gib", "gpu_bytes", "swap_gib", "zram"),
    [
        ("Orin Nano 8 GB", 5, 151_552 * 1024, 3.72, True),
        ("Thor", 115, None, 0, False),
        ("desktop GPU", 48, None, 7.63, False),
        ("CPU container", 1.5, None, 0, False),  # limit less usage, plus the file pages that are not in use
    ],
)
def test_memory(
    name: str, available_gib: float, gpu_bytes: int | None, swap_gib: float, zram: bool, tmp_path: Path
) -> None:
    memory = _machine(name, tmp_path).memory
    assert memory.available_bytes == pytest.approx(available_gib * GIB, rel=0.01)
    assert memory.gpu_bytes == gpu_bytes
    assert memory.swap_bytes == pytest.approx(swap_gib * GIB, rel=0.01)
    assert memory.swap_used_bytes == pytest.approx(memory.swap_bytes / 4, rel=0.01)
    assert (memory.zram_bytes > 0) == zram
    assert memory.in_cgroup == (name == "CPU container")


@pytest.mark.parametrize(
    ("name", "mode", "clock", "pinned"),
    [
        ("Orin Nano 8 GB", (2, "MAXN_SUPER"), "GPU (17000000.gpu) 306 of 1020", False),
        ("Orin NX 16 GB", (0, "MAXN"), "GPU (17000000.gpu) 918 of 918", True),
        ("Xavier", (7, None), "GPU (17000000.gv11b) 114 of 1377", False),  # a mode that the file does not name
        ("Thor", (0, "MAXN"), "GPU (gpu-gpc-0) 1575 of 1575", False),
    ],
)
def test_power_and_clocks(name: str, mode: tuple[int, str | None], clock: str, pinned: bool, tmp_path: Path) -> None:
    machine = _machine(name, tmp_path)
    assert machine.power_mode is not None
    assert (machine.power_mode.number, machine.power_mode.name) == mode
    gpu, cpu = machine.clocks
    assert f"{gpu.name} {gpu.current_mhz} of {gpu.greatest_mhz}" == clock
    assert cpu.name == "CPU 0 1 2 3" and cpu.governor == "schedutil"
    assert machine.clocks_pinned is pinned


@pytest.mark.parametrize(
    ("name", "hottest_c", "slowed_by", "over_current"),
    [
        ("Orin Nano 8 GB", 49.25, (), {"oc3": 37}),
        ("Orin NX 16 GB", 61.0, ("devfreq-17000000.gpu",), {}),
        ("desktop GPU", 52.0, (), {}),
        ("CPU container", None, (), {}),
    ],
)
def test_heat(
    name: str, hottest_c: float | None, slowed_by: tuple[str, ...], over_current: dict[str, int], tmp_path: Path
) -> None:
    machine = _machine(name, tmp_path)
    assert (machine.heat.hottest_c, machine.slowed_by, machine.heat.over_current) == (
        hottest_c,
        slowed_by,
        over_current,
    )


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\xff\xfe\x80garbage", b"-", b"{" * 500, b"MemAvailable:\nMemTotal: x kB\n", b"9" * 400],
    ids=["empty", "NUL", "no text", "dash", "braces", "no numbers", "digits"],
)
def test_damaged_files_tell_nothing(name: str, garbage: bytes, tmp_path: Path) -> None:
    root = write_tree(tmp_path, TREES[name])
    for file in TREES[name]:
        (root / file).write_bytes(garbage)
    machine = describe_machine(root)
    assert machine.memory.available_bytes is None
    assert machine.power_mode is None and machine.heat.hottest_c is None
    json.dumps(machine.to_json())


def test_folders_in_place_of_files_and_a_bare_root(tmp_path: Path) -> None:
    for file in TREES["Orin Nano 8 GB"]:
        (tmp_path / "folders" / file).mkdir(parents=True, exist_ok=True)
    assert describe_machine(tmp_path / "folders").board.soc is None
    assert describe_machine(tmp_path / "nothing").memory.total_bytes is None


def test_this_machine() -> None:
    machine = describe_machine()
    assert machine.memory.total_bytes and machine.memory.available_bytes
    json.dumps(machine.to_json())


def test_a_jetson_seen_from_a_container(tmp_path: Path) -> None:
    files = {**CPU_CONTAINER, "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0"}
    machine = describe_machine(write_tree(tmp_path, files))
    assert machine.board.is_jetson and machine.board.l4t is None
    assert machine.compute_capability == "8.7" and machine.shares_memory
    package = "Package: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.3-20250107174145\n"
    write_tree(tmp_path, {"var/lib/dpkg/status": package})
    assert (describe_machine(tmp_path).board.l4t, describe_machine(tmp_path).board.jetpack) == ("36.4.3", "6.2")
