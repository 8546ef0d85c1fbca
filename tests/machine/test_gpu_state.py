"""A discrete GPU as NVML and CUDA's driver tell it, by stand-ins for both."""

from __future__ import annotations

from typing import Any

import pytest

from sam2edge.machine.device import Gpu
from sam2edge.machine.gpu_state import GpuMonitor, GpuState, ask_driver_memory
from tests.trees import GIB

GPU = Gpu("NVIDIA RTX", "8.9", 12 * GIB, "12.8", False, "0000:01:00.0")


class _Nvml:
    """libnvidia-ml of a machine with one GPU; `failing` calls return an error, `missing` ones are not there."""

    def __init__(self, failing: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> None:
        self._failing, self._missing = failing, missing
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self._missing:
            raise AttributeError(name)
        if name in self._failing:
            return lambda *arguments: 3  # NVML_ERROR_NOT_SUPPORTED
        return getattr(self, f"_{name}", lambda *arguments: 0)

    def _nvmlInit_v2(self) -> int:
        self.opened += 1
        return 0

    def _nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj.total, memory._obj.free, memory._obj.used = 12 * GIB, 9 * GIB, 3 * GIB
        return 0

    def _nvmlDeviceGetTemperature(self, handle: Any, sensor: int, value: Any) -> int:
        value._obj.value = 71
        return 0

    def _nvmlDeviceGetClockInfo(self, handle: Any, which: int, value: Any) -> int:
        value._obj.value = 2610
        return 0

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, value: Any) -> int:
        value._obj.value = 0x01 | 0x04 | 0x40  # idle, power cap, heat
        return 0


class _Driver:
    """libcuda with 2 GiB free."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = 2 * GIB, 12 * GIB
        return 0


def _load(nvml: Any, driver: Any = None) -> Any:
    def load(name: str) -> Any:
        found = {"libnvidia-ml.so.1": nvml, "libcuda.so.1": driver}[name]
        if found is None:
            raise OSError(name)
        return found

    return load


def test_nvml_tells_everything_and_is_opened_once() -> None:
    nvml = _Nvml()
    monitor = GpuMonitor(GPU, _load(nvml))
    expected = GpuState(12 * GIB, 9 * GIB, 71.0, 2610, ("power cap", "heat (hardware)"), "NVML")
    assert monitor.read() == monitor.read() == expected
    assert nvml.opened == 1


def test_without_nvml_the_driver_tells_the_memory() -> None:
    state = GpuMonitor(GPU, _load(None, _Driver())).read()
    assert (state.free_bytes, state.total_bytes, state.source) == (2 * GIB, 12 * GIB, "CUDA driver")


def test_a_gpu_whose_memory_nvml_does_not_tell() -> None:
    state = GpuMonitor(GPU, _load(_Nvml(failing=("nvmlDeviceGetMemoryInfo",)), _Driver())).read()
    assert (state.free_bytes, state.temperature_c) == (2 * GIB, 71.0)


@pytest.mark.parametrize("nvml", [None, _Nvml(failing=("nvmlInit_v2",)), _Nvml(missing=("nvmlInit_v2",))])
def test_nothing_tells(nvml: Any) -> None:
    assert GpuMonitor(GPU, _load(nvml)).read() == GpuState()


def test_an_old_library_lacks_a_call() -> None:
    state = GpuMonitor(GPU, _load(_Nvml(missing=("nvmlDeviceGetCurrentClocksThrottleReasons",)))).read()
    assert state.free_bytes == 9 * GIB and state.slowed_by == ()


def test_a_gpu_that_the_bus_does_not_name_is_the_first() -> None:
    nvml = _Nvml(failing=("nvmlDeviceGetHandleByPciBusId_v2",))
    assert GpuMonitor(GPU, _load(nvml)).read().free_bytes == 9 * GIB


def test_a_driver_that_gives_no_context() -> None:
    driver = _Driver()
    driver.cuDevicePrimaryCtxRetain = lambda *arguments: 2  # type: ignore[attr-defined]
    assert ask_driver_memory(_load(None, driver)) == (None, None)
