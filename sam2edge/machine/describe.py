"""Collects everything about the machine, as `sam2edge doctor` shows it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2edge.machine.board import Board, read_board
from sam2edge.machine.device import Gpu, HostMemory, find_gpu, has_nvidia_gpu, read_host_memory
from sam2edge.machine.gpu_state import GpuMonitor, GpuState
from sam2edge.machine.jetson_stats import ask_power_mode
from sam2edge.machine.power import Clock, PowerMode, read_clocks, read_power_mode
from sam2edge.machine.software import read_cuda_version, read_tensorrt_version
from sam2edge.machine.sysfs import read_text
from sam2edge.machine.thermal import Heat, read_heat

_HERE = Path("/")


@dataclass(frozen=True)
class Machine:
    """A machine. `gpu` and `gpu_state` come from drivers: None for a captured tree and without a GPU.

    `cuda` and `tensorrt` are the system's versions; `has_gpu` is whether a driver's device nodes exist.
    """

    board: Board
    system: str
    architecture: str
    cuda: str | None
    tensorrt: str | None
    has_gpu: bool
    gpu: Gpu | None
    gpu_state: GpuState | None
    memory: HostMemory
    power_mode: PowerMode | None
    clocks: tuple[Clock, ...]
    heat: Heat

    @property
    def shares_memory(self) -> bool:
        """Whether GPU and CPU share one memory, as on Jetson."""
        return self.board.soc is not None or (self.gpu is not None and self.gpu.integrated)

    @property
    def compute_capability(self) -> str | None:
        """Of the GPU ("8.7"), from the driver, else from the board's Tegra."""
        return self.gpu.compute_capability if self.gpu else self.board.compute_capability

    @property
    def clocks_pinned(self) -> bool | None:
        """Whether every clock is held at one value, as jetson_clocks does; None where no clock is known."""
        return all(clock.is_pinned for clock in self.clocks) if self.clocks else None

    @property
    def slowed_by(self) -> tuple[str, ...]:
        """What slows clocks down now."""
        return self.heat.slowed_by + (self.gpu_state.slowed_by if self.gpu_state else ())

    def to_json(self) -> dict[str, Any]:
        derived = ("compute_capability", "shares_memory", "clocks_pinned", "slowed_by")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


def describe_machine(root: Path = _HERE, load: Callable[[str], Any] = ctypes.CDLL) -> Machine:
    """The machine below `root`. Drivers are asked only if `root` is this machine, or `load` replaces them."""
    live = root == _HERE or load is not ctypes.CDLL
    has_gpu = has_nvidia_gpu(root)
    gpu = find_gpu(load) if live and has_gpu else None
    return Machine(
        board=read_board(root),
        system=_read_system_name(root),
        architecture=platform.machine() if root == _HERE else "",
        cuda=read_cuda_version(root),
        tensorrt=read_tensorrt_version(root),
        has_gpu=has_gpu,
        gpu=gpu,
        gpu_state=None if gpu is None or gpu.integrated else GpuMonitor(gpu, load).read(),
        memory=read_host_memory(root),
        power_mode=(ask_power_mode(root) if live else None) or read_power_mode(root),
        clocks=tuple(read_clocks(root)),
        heat=read_heat(root),
    )


def _read_system_name(root: Path) -> str:
    """The system's name ("Ubuntu 22.04.5 LTS"), or "unknown"."""
    for line in read_text(root / "etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return "unknown"
