"""Device memory and copies on pycuda: who owns a buffer, what is in use, what happens when there is no more.

The device's primary context is retained, so that torch in the same process uses the same one, and it is current only
inside `CudaDevice.active()`. pycuda frees nothing that is dropped while no context is current (pycuda issue 305):
buffers are freed by name here, also those that Python collects somewhere else.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from sam2edge.contract import TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, OutOfMemoryError
from sam2edge.machine.device import available_memory_bytes

ALIGNMENT = 256
"""Bytes at whose multiples TensorRT wants its tensors and its scratch memory."""

POOLED_BUFFERS = 4
"""Freed buffers of one size that are kept for the next call: CUDA waits for the device where it frees memory."""

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

_contexts: dict[int, Any] = {}  # retained once a process and never given back: pycuda can only do that in its thread
_contexts_lock = threading.Lock()


class CudaDevice:
    """One model's use of one GPU: a stream, its buffers, its pinned staging memory.

    `handle_oom`, when set, is called once where memory runs out, and is to free what can be computed again. The GPU of
    a Jetson is `integrated`: it shares the CPU's memory.
    """

    def __init__(self, index: int = 0, integrated: bool = False) -> None:
        self.handle_oom: Callable[[], None] | None = None
        self.current_bytes = 0
        """Bytes of device memory in use now; freed buffers that are kept for the next call are not counted."""
        self.peak_bytes = 0
        """The most bytes held at any time."""
        self._lock = threading.RLock()
        self._dropped: deque[tuple[Any, int]] = deque()
        self._pool: defaultdict[int, list[Any]] = defaultdict(list)
        self._pooling = True
        self._staging: dict[str, NDArray[Any]] = {}
        self._being_read: set[int] = set()  # staging memory that a copy may still read
        self.waits = 0
        """How often all work was waited for: what was started before the last time is done."""
        self._integrated = integrated
        self._context = _primary_context(index)
        self._depth = 0
        with self.active():
            # Other streams, torch's default one among them, neither wait for this one nor are waited for.
            self._streams: list[Any] = [cuda.Stream(_NON_BLOCKING)]
        freeing = weakref.finalize(
            self, _free_in_context, self._context, self._streams, self._staging, self._pool, self._dropped
        )
        freeing.atexit = False  # the driver frees what a process leaves

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes the context current in this thread, for one thread at a time; CUDA's errors come out as GraphError."""
        with self._lock:
            if self._depth == 0:
                self._context.push()
            self._depth += 1
            try:
                self._free_dropped()
                yield
                if self._depth == 1:
                    self._free_dropped()
            except cuda.MemoryError as error:
                raise self._out_of_memory("a CUDA call") from error
            except cuda.Error as error:
                raise GraphError("a CUDA call failed", got=str(error), remedy="load the model again") from error
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._context.pop()

    @property
    def _stream(self) -> Any:
        return self._streams[0]

    @property
    def stream_handle(self) -> int:
        """The stream as TensorRT takes it."""
        return int(self._stream.handle)

    def allocate(self, num_bytes: int) -> DeviceBuffer:
        """A new buffer, owned by who holds it.

        When there is no memory, `handle_oom` is called and the allocation tried once more; OutOfMemoryError then.
        """
        size = -(-max(num_bytes, 1) // ALIGNMENT) * ALIGNMENT
        with self.active():
            if self._pool[size]:
                allocation = self._pool[size].pop()
            else:
                try:
                    allocation = cuda.mem_alloc(size)
                except cuda.MemoryError:
                    allocation = self._allocate_again(size)
            self.current_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.current_bytes)
            return DeviceBuffer(self, allocation, size)

    def tensors(self, specs: Sequence[TensorSpec]) -> dict[str, DeviceTensor]:
        """Tensors in one buffer that they share, by name; it lives as long as any of them."""
        offsets, end = [], 0
        for spec in specs:
            offsets.append(end)
            end += -(-num_bytes_of(spec) // ALIGNMENT) * ALIGNMENT
        buffer = self.allocate(end)
        return {spec.name: DeviceTensor(spec, buffer, offset) for spec, offset in zip(specs, offsets, strict=True)}

    def map_host(self, spec: TensorSpec) -> MappedTensor:
        """A tensor in pinned host memory that the device reads where it lies: a small input needs no copy."""
        with self.active():
            array = cuda.pagelocked_empty(spec.shape, np.dtype(spec.dtype), mem_flags=cuda.host_alloc_flags.DEVICEMAP)
            return MappedTensor(array, int(array.base.get_device_pointer()))

    def upload(self, values: NDArray[Any], tensor: DeviceTensor) -> None:
        """Copies an array of the tensor's shape to the device, by way of pinned memory; not waited for."""
        with self.active():
            staged = self._staged(tensor.spec)
            if id(staged) in self._being_read:
                self.synchronize()
            staged[...] = values
            self._being_read.add(id(staged))
            cuda.memcpy_htod_async(tensor.address, staged, self._stream)

    def download(self, tensors: Sequence[DeviceTensor]) -> list[NDArray[Any]]:
        """Copies tensors to the host once all work before is done: those that share a buffer at once."""
        with self.active():
            buffers = {tensor.buffer.address: tensor.buffer for tensor in tensors}
            staged = {}
            for number, (address, buffer) in enumerate(buffers.items()):
                staged[address] = self._staged(TensorSpec(f"from the device {number}", (buffer.nbytes,), "uint8"))
                cuda.memcpy_dtoh_async(staged[address], address, self._stream)
            self.synchronize()
            found = []
            for tensor in tensors:
                part = staged[tensor.buffer.address][tensor.offset : tensor.offset + num_bytes_of(tensor.spec)]
                found.append(part.view(tensor.spec.dtype).reshape(tensor.spec.shape).copy())
            return found

    def synchronize(self) -> None:
        """Waits until the stream is done."""
        with self.active():
            self._stream.synchronize()
            self._being_read.clear()
            self.waits += 1

    def release(self) -> None:
        """Gives pinned memory and freed buffers back, for a model that is not used any more."""
        with self.active():
            self.synchronize()
            self._staging.clear()
            self._pooling = False
            self._empty_pool()

    def _staged(self, spec: TensorSpec) -> NDArray[Any]:
        key = f"{spec.name}{spec.shape}{spec.dtype}"
        if key not in self._staging:
            self._staging[key] = cuda.pagelocked_empty(spec.shape, np.dtype(spec.dtype))
        return self._staging[key]

    def _allocate_again(self, size: int) -> Any:
        if self.handle_oom is not None:
            self.handle_oom()
        self._free_dropped()
        if self._pool[size]:
            return self._pool[size].pop()
        self._empty_pool()
        try:
            return cuda.mem_alloc(size)
        except cuda.MemoryError as error:
            raise self._out_of_memory(f"{size >> 20} MiB") from error

    def _out_of_memory(self, wanted: str) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"no device memory for {wanted}",
            got=f"{self._read_free()}, {self.current_bytes >> 20} MiB held by this model",
            remedy="use a smaller model or size, or hold fewer embeddings",
        )

    def _read_free(self) -> str:
        """What is free. CUDA's figure leaves out the page cache, which an integrated GPU can have too."""
        if self._integrated:
            available = available_memory_bytes()
            return "memory unknown" if available is None else f"{available >> 20} MiB of shared memory available"
        free, total = cuda.mem_get_info()
        return f"{free >> 20} of {total >> 20} MiB free"

    def _drop(self, allocation: Any, size: int) -> None:
        """Takes back a buffer, in whatever thread and state its owner let go of it."""
        self._dropped.append((allocation, size))
        if self._lock.acquire(blocking=False):
            try:
                if self._depth == 0:
                    with self.active():
                        pass
            finally:
                self._lock.release()

    def _free_dropped(self) -> None:
        while self._dropped:
            allocation, size = self._dropped.popleft()
            self.current_bytes -= size
            if self._pooling and len(self._pool[size]) < POOLED_BUFFERS:
                # All work is on one stream: what still uses the buffer is done before what gets it next.
                self._pool[size].append(allocation)
            else:
                allocation.free()

    def _empty_pool(self) -> None:
        while self._pool:
            for allocation in self._pool.popitem()[1]:
                allocation.free()


class DeviceBuffer:
    """Device memory that is freed with its last holder."""

    def __init__(self, device: CudaDevice, allocation: Any, num_bytes: int) -> None:
        self.address = int(allocation)
        self.nbytes = num_bytes
        self._device = device
        self._allocation: Any = allocation

    def free(self) -> None:
        """Frees the memory now; nothing may use it any more."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            self._device._drop(allocation, self.nbytes)

    def __del__(self) -> None:
        # Not all there where the constructor failed; nothing can be told at this point.
        if getattr(self, "_allocation", None) is not None:
            self.free()


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor of the contract at a place in a buffer, which it keeps alive."""

    spec: TensorSpec
    buffer: DeviceBuffer
    offset: int = 0

    @property
    def address(self) -> int:
        return self.buffer.address + self.offset


class MappedTensor(NamedTuple):
    """A host array, and where the device finds it."""

    array: NDArray[Any]
    address: int


def num_bytes_of(spec: TensorSpec) -> int:
    """Bytes that a tensor takes."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _free_in_context(
    context: Any,
    streams: list[Any],
    staging: dict[str, Any],
    pool: dict[int, list[Any]],
    dropped: deque[tuple[Any, int]],
) -> None:
    """Frees what a dropped device owned: pycuda frees nothing where its context is not current."""
    context.push()
    try:
        streams.clear()
        staging.clear()
        for allocation in (*(one for kept in pool.values() for one in kept), *(one for one, _ in dropped)):
            allocation.free()
    finally:
        context.pop()


def _primary_context(index: int) -> Any:
    with _contexts_lock:
        if index not in _contexts:
            try:
                cuda.init()
                _contexts[index] = cuda.Device(index).retain_primary_context()
            except cuda.Error as error:
                raise BackendUnavailableError(
                    "CUDA cannot be used", expected=f"device {index}", got=str(error)
                ) from error
        return _contexts[index]
