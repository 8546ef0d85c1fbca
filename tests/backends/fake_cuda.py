"""Stands for pycuda and for TensorRT's runtime where there is no GPU.

Device memory is bytes by address, every call wants the context current, and an "engine" is the path of an ONNX graph
that ONNX Runtime computes from and into that memory. Work is done when it is started: a host array that the device
reads may not change before it is waited for, which `FakeDriver.end_reading` finds out.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

from tests.boards import ORIN


class Error(Exception):
    pass


class OutOfMemory(Error):
    pass


class _Context:
    def __init__(self) -> None:
        self.of_thread = threading.local()

    @property
    def depth(self) -> int:
        return getattr(self.of_thread, "depth", 0)

    def push(self) -> None:
        self.of_thread.depth = self.depth + 1

    def pop(self) -> None:
        assert self.depth > 0
        self.of_thread.depth -= 1


class _Allocation:
    def __init__(self, driver: FakeDriver, address: int) -> None:
        self.driver, self.address = driver, address

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.driver.check()
        self.driver.calls.append("free")
        del self.driver.blocks[self.address]


class _Stream:
    handle = 4711

    def __init__(self, driver: FakeDriver, flags: int) -> None:
        driver.check()
        self.driver, self.flags = driver, flags
        weakref.finalize(self, driver.note_drop, "stream")

    def synchronize(self) -> None:
        self.driver.check()
        self.driver.calls.append("synchronize")
        self.driver.end_reading()


class Event:
    """A moment of the one clock that there is."""

    def record(self, stream: _Stream) -> None:
        self.moment = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def time_till(self, later: Event) -> float:
        return (later.moment - self.moment) * 1e3


class _Pinned:
    """What an array of pinned memory has as its base."""

    def __init__(self, driver: FakeDriver, shape: tuple[int, ...], dtype: Any) -> None:
        self.driver, self.memory = driver, np.full(shape, 77, dtype)
        self.__array_interface__ = self.memory.__array_interface__
        weakref.finalize(self, driver.note_drop, "pinned memory")

    def get_device_pointer(self) -> int:
        return next(address for address, array in self.driver.mapped.items() if array is self.memory)


class FakeDriver(ModuleType):
    """`pycuda.driver` of a device with `limit` bytes."""

    Error, MemoryError, Event = Error, OutOfMemory, Event
    host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)

    def __init__(self, limit: int = 1 << 30) -> None:
        super().__init__("pycuda.driver")
        self.limit = limit
        self.blocks: dict[int, bytearray] = {}
        self.calls: list[str] = []
        self.context = _Context()
        self.next_address = 4096
        self.leaked: list[str] = []
        self.recording: list[Any] | None = None
        self.mapped: dict[int, np.ndarray] = {}
        self.next_mapped = 1 << 40
        self.reading: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def used(self) -> int:
        return sum(map(len, self.blocks.values()))

    def check(self) -> None:
        assert self.context.depth == 1, "the context is current once, and only while the device is in use"

    def init(self) -> None:
        self.calls.append("init")

    def note_drop(self, what: str) -> None:
        """pycuda and TensorRT free nothing where their context is not current."""
        if self.context.depth != 1:
            self.leaked.append(what)

    def Device(self, index: int) -> Any:
        self.calls.append(f"device {index}")
        return SimpleNamespace(retain_primary_context=lambda: self.context)

    def Stream(self, flags: int = 0) -> _Stream:
        self.calls.append(f"stream {flags}")
        return _Stream(self, flags)

    def mem_alloc(self, size: int) -> _Allocation:
        self.check()
        self.calls.append("allocate")
        if self.used + size > self.limit:
            self.calls.append("refused")
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        address, self.next_address = self.next_address, self.next_address + size
        self.blocks[address] = bytearray(size)
        return _Allocation(self, address)

    def mem_get_info(self) -> tuple[int, int]:
        self.check()
        return self.limit - self.used, self.limit

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, mem_flags: int = 0) -> np.ndarray:
        self.check()
        pinned = _Pinned(self, shape, dtype)
        if mem_flags == self.host_alloc_flags.DEVICEMAP:
            self.calls.append("map")
            self.mapped[self.next_mapped] = pinned.memory
            self.next_mapped += pinned.memory.nbytes // 256 * 256 + 256
        return np.asarray(pinned)

    def memcpy_htod_async(self, address: int, source: np.ndarray, stream: _Stream) -> None:
        self.calls.append("upload")
        self.reading.append((source, source.copy()))
        self.view(address, source.nbytes)[:] = source.tobytes()

    def end_reading(self) -> None:
        """What the device may have read until now has not changed meanwhile."""
        for array, content in self.reading:
            np.testing.assert_array_equal(array, content, "written while the device may read it")
        self.reading.clear()

    def memcpy_dtoh_async(self, target: np.ndarray, address: int, stream: _Stream) -> None:
        self.calls.append("download")
        target[...] = np.frombuffer(self.view(address, target.nbytes), target.dtype).reshape(target.shape)

    def view(self, address: int, size: int) -> memoryview:
        self.check()
        start, block = next((a, b) for a, b in self.blocks.items() if a <= address < a + len(b))
        assert address + size <= start + len(block), "outside of its buffer"
        return memoryview(block)[address - start : address - start + size]


class _ExecutionContext:
    def __init__(self, engine: _FakeEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        assert size >= self.engine.device_memory_size_v2
        self.engine.driver.view(address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == _Stream.handle
        if self.engine.driver.recording is not None:
            addresses = dict(self.addresses)
            self.engine.driver.recording.append(lambda: self.compute(addresses))
            return True
        return self.compute(self.addresses)

    def compute(self, addresses: dict[str, int]) -> bool:
        engine = self.engine
        if engine.library.fails_to_run:
            engine.library.logger.log(ILogger.ERROR, "Cuda Runtime\n  (an illegal memory access)")
            return False
        feed = {name: engine.read(addresses[name], name) for name in engine.inputs}
        for name, value in zip(engine.outputs, engine.session.run(engine.outputs, feed), strict=True):
            engine.driver.view(addresses[name], value.nbytes)[:] = value.tobytes()
        return True


class _FakeEngine:
    device_memory_size_v2 = 1000

    def __init__(self, library: FakeTensorRt, path: str) -> None:
        self.library, self.driver = library, library.driver
        self.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = [t.name for t in self.session.get_inputs()]
        self.outputs = [t.name for t in self.session.get_outputs()]
        self.tensors = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.tensors)
        weakref.finalize(self, self.driver.note_drop, "engine")

    def read(self, address: int, name: str) -> np.ndarray:
        dtype = np.dtype(self.get_tensor_dtype(name))
        shape = self.get_tensor_shape(name)
        if address in self.driver.mapped:
            array = self.driver.mapped[address]
            assert (array.shape, array.dtype) == (shape, dtype)
            self.driver.reading.append((array, array.copy()))
            return array
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(bytes(self.driver.view(address, size)), dtype).reshape(shape)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return {"tensor(int32)": "i4", "tensor(uint8)": "u1"}.get(self.tensors[name].type, "f4")

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def create_execution_context(self, how: Any) -> _ExecutionContext:
        assert "user managed" in (how, getattr(how, "strategy", None))
        return _ExecutionContext(self)

    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig(self.library)


class _RuntimeConfig:
    """Of TensorRT-RTX: the library counts the kernels that it has to compile."""

    def __init__(self, library: FakeTensorRt) -> None:
        self.library, self.strategy, self.content = library, "", b""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(deserialize=self._deserialize, serialize=lambda: self.content)

    def set_runtime_cache(self, cache: Any) -> None:
        if not self.content:
            self.library.compiled += 1
            self.content = b"compiled kernels"

    def _deserialize(self, content: bytes) -> bool:
        self.content = content if content == b"compiled kernels" else b""
        return bool(self.content)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = "internal error", "error", "warning"


class FakeLibCuda:
    """`libcuda.so.1` as far as CUDA graphs go; `fails` names the call that returns an error."""

    def __init__(self, driver: FakeDriver, fails: str = "") -> None:
        self.driver, self.fails = driver, fails
        self.graphs: dict[int, list[Any]] = {}
        self.calls: list[str] = []

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        assert (stream.value, mode) == (_Stream.handle, 1)
        return self._called("begin") or self._recording([])

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        recorded = self.driver.recording
        assert recorded is not None
        self.graphs[len(self.calls) + 1] = recorded
        graph._obj.value = len(self.calls) + 1
        return self._recording(None) or self._called("end")

    def cuGraphInstantiateWithFlags(self, runnable: Any, graph: Any, flags: Any) -> int:
        runnable._obj.value = graph.value
        return self._called("instantiate")

    def cuGraphDestroy(self, graph: Any) -> int:
        return self._called("destroy")

    def cuGraphExecDestroy(self, runnable: Any) -> int:
        del self.graphs[runnable.value]
        return self._called("destroy runnable")

    def cuGraphLaunch(self, runnable: Any, stream: Any) -> int:
        return self._called("launch") or int(not all(step() for step in self.graphs[runnable.value]))

    def _recording(self, recording: list[Any] | None) -> int:
        self.driver.recording = recording
        return 0

    def _called(self, name: str) -> int:
        self.calls.append(name)
        return 900 if name == self.fails else 0


class FakeTensorRt(ModuleType):
    """`tensorrt`: engines are files whose first line is the path of an ONNX graph."""

    __version__ = "10.3.0"
    ILogger = ILogger
    float32, int32, uint8 = "f4", "i4", "u1"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    def __init__(self, driver: FakeDriver, name: str = "tensorrt") -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # torch asks for it when it looks around
        self.driver = driver
        self.fails_to_run = False
        self.old_driver = False
        self.compiled = 0
        self.logger: Any = None
        self.loggers: list[Any] = []

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        self.loggers.append(logger)
        if self.old_driver:
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, blob: bytes) -> _FakeEngine | None:
        self.driver.check()
        if blob == b"unreadable":
            self.logger.log(ILogger.ERROR, "Serialization assertion failed")
            return None
        return _FakeEngine(self, blob.decode().splitlines()[0])


def install(builder: str = "tensorrt_rtx") -> FakeTensorRt:
    """For a process of its own: the stand-ins in place of pycuda and of `builder`, on an Orin that is not there."""
    from sam2edge.backends import registry
    from sam2edge.machine import device

    driver, package = FakeDriver(limit=8 << 30), ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    library = FakeTensorRt(driver, builder)
    sys.modules.update({"pycuda": package, "pycuda.driver": driver, builder: library})
    device.find_gpu = lambda *_, **__: ORIN  # before the backend takes it
    vars(registry)["has_nvidia_gpu"] = lambda *_: True
    return library
