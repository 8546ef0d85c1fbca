"""Free memory, temperature and clock of a discrete NVIDIA GPU, from NVML by ctypes, else from CUDA's driver."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sam2edge.machine.device import Gpu

_NVML, _CUDA_DRIVER = "libnvidia-ml.so.1", "libcuda.so.1"
_SENSOR_GPU, _CLOCK_SM = 0, 1
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean slowed down, not merely idle (nvml.h).
_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuState:
    """Memory of a GPU in bytes, its temperature, its clock, and what slows it down; None if unknown."""

    total_bytes: int | None = None
    free_bytes: int | None = None
    temperature_c: float | None = None
    clock_mhz: int | None = None
    slowed_by: tuple[str, ...] = ()
    source: str = ""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuMonitor:
    """Reads the state of one GPU repeatedly; the library is opened once, at the first read."""

    def __init__(self, gpu: Gpu, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._gpu = gpu
        self._load = load
        self._lock = threading.Lock()
        self._asked = False
        self._nvml: Any = None
        self._handle = ctypes.c_void_p()

    def read(self) -> GpuState:
        """The state now. If NVML does not report the free memory, the driver does, in a context made for that."""
        with self._lock:
            if not self._asked:
                self._asked = True
                self._open()
            state = self._nvml_state() if self._nvml is not None else GpuState()
        if state.free_bytes is not None:
            return state
        free, total = ask_driver_memory(self._load, self._gpu.index)
        if free is None:
            return state
        return GpuState(total, free, state.temperature_c, state.clock_mhz, state.slowed_by, "CUDA driver")

    def _open(self) -> None:
        try:
            nvml = self._load(_NVML)
            if nvml.nvmlInit_v2() != 0:
                return
            # CUDA and NVML number GPUs differently; the bus identifies one.
            found = 1
            if self._gpu.pci_bus_id:
                bus_id = self._gpu.pci_bus_id.encode()
                found = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id, ctypes.byref(self._handle))
            if found != 0:
                found = nvml.nvmlDeviceGetHandleByIndex_v2(self._gpu.index, ctypes.byref(self._handle))
        except (OSError, AttributeError):  # no library, or one without these calls
            return
        self._nvml = nvml if found == 0 else None

    def _nvml_state(self) -> GpuState:
        memory, temperature, clock, reasons = _Memory(), ctypes.c_uint(), ctypes.c_uint(), ctypes.c_ulonglong()
        has_memory = self._ask("nvmlDeviceGetMemoryInfo", ctypes.byref(memory))
        has_heat = self._ask("nvmlDeviceGetTemperature", _SENSOR_GPU, ctypes.byref(temperature))
        has_clock = self._ask("nvmlDeviceGetClockInfo", _CLOCK_SM, ctypes.byref(clock))
        self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.byref(reasons))
        return GpuState(
            int(memory.total) if has_memory else None,
            int(memory.free) if has_memory else None,
            float(temperature.value) if has_heat else None,
            int(clock.value) if has_clock else None,
            tuple(name for bit, name in _REASONS.items() if reasons.value & bit),
            "NVML",
        )

    def _ask(self, call: str, *arguments: Any) -> bool:
        try:
            return bool(getattr(self._nvml, call)(self._handle, *arguments) == 0)
        except AttributeError:
            return False


def ask_driver_memory(load: Callable[[str], Any] = ctypes.CDLL, index: int = 0) -> tuple[int | None, int | None]:
    """Free and total bytes of CUDA device number `index`, by the driver; its context takes some 100 MB meanwhile."""
    try:
        cuda = load(_CUDA_DRIVER)
        device, context, old = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), index):
            return None, None
        if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
            return None, None
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        try:
            failed = cuda.cuCtxPushCurrent_v2(context)
            if not failed:
                failed = cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
                cuda.cuCtxPopCurrent_v2(ctypes.byref(old))
        finally:
            cuda.cuDevicePrimaryCtxRelease_v2(device)
    except (OSError, AttributeError):
        return None, None
    return (None, None) if failed else (int(free.value), int(total.value))
