"""Engines built by `sam2edge build`, on TensorRT or TensorRT-RTX. No torch on this path.

Prompts and results pass through pinned memory; embeddings stay on the device between the graphs. All contexts share
one scratch buffer, so that a model runs one graph at a time.
"""

from __future__ import annotations

import importlib
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import BackendRequest, HostFeatures, MemoryInputs
from sam2edge.backends.graph_backend import GraphBackend
from sam2edge.backends.tensorrt import device_normalise
from sam2edge.backends.tensorrt.device_normalise import FrameNormaliser
from sam2edge.backends.tensorrt.engine import Engine
from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceTensor, num_bytes_of
from sam2edge.backends.tensorrt.memory_slots import MemorySlots
from sam2edge.backends.tensorrt.runtime import open_runtime
from sam2edge.contract import TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, Sam2EdgeError
from sam2edge.machine.device import Gpu, find_gpu, read_device_index
from sam2edge.machine.software import TENSORRT_INSTALL, TENSORRT_LIBRARIES
from sam2edge.store.engine_checks import check_machine
from sam2edge.store.manifest import Manifest

COMPARED_BYTES = 1 << 19
"""Inputs up to this size are compared with what was sent last: a mask prompt of a model input of 1024 takes 256 KiB."""

_logger = logging.getLogger("sam2edge")


class DeviceFeatures:
    """An encoded image, or a memory, on the device: tensors by contract name."""

    def __init__(self, device: CudaDevice, tensors: Mapping[str, DeviceTensor]) -> None:
        self._device = device
        self.tensors: Mapping[str, Any] = tensors

    @property
    def nbytes(self) -> int:
        buffers = {id(tensor.buffer): tensor.buffer.nbytes for tensor in self.tensors.values()}
        return sum(buffers.values())

    def to_host(self) -> HostFeatures:
        return HostFeatures(dict(zip(self.tensors, self._device.download(list(self.tensors.values())), strict=True)))

    def with_image_embed(self, image_embed: DeviceTensor) -> DeviceFeatures:
        """The same image with another embedding; the other tensors are shared."""
        # Engines take a tensor by its own name, and this one may be the image's `vision_features`.
        named = replace(image_embed, spec=replace(image_embed.spec, name="image_embed"))
        return DeviceFeatures(self._device, {**self.tensors, "image_embed": named})


class TensorRtBackend(GraphBackend):
    """One model's engines."""

    name = "tensorrt"

    def __init__(
        self, request: BackendRequest, manifests: Mapping[str, Manifest], library: ModuleType, gpu: Gpu
    ) -> None:
        assert request.engine_dir is not None
        decoder = manifests[contract.MASK_DECODER]
        super().__init__(request.variant, request.image_size, decoder.prompt_slots or contract.NUM_PROMPT_SLOTS)
        self.precision = str(decoder.precision)
        self.device = f"cuda:{gpu.index}"
        self._device = CudaDevice(gpu.index, gpu.integrated)
        self._engines: dict[str, Engine] = {}
        # A model that is dropped gives back what `close` does, in whatever thread that happens.
        self._free = weakref.finalize(self, _free_engines, self._device, self._engines)
        self._free.atexit = False  # the driver frees what a process leaves
        with self._device.active():
            runtime, log = open_runtime(library)
            for name, spec in self.specs.items():
                self._engines[name] = Engine(library, runtime, request.engine_dir, manifests[name], spec, log)
            self._share_scratch()
        self._normalise = self._make_normaliser()
        self.accepts_uint8 = self._normalise is not None
        attention = self.specs[contract.MEMORY_ATTENTION].inputs
        self._slots = MemorySlots(self._device, next(t for t in attention if t.name == "memory"))
        self._handle_oom: Callable[[], None] | None = None
        self._inputs: dict[str, DeviceTensor] = {}
        self._sent: dict[str, NDArray[Any]] = {}  # the small inputs that lie in their places now
        self._fetched: dict[str, dict[str, DeviceTensor]] = {}

    @classmethod
    def open(cls, request: BackendRequest) -> TensorRtBackend:
        manifests = request.engine_manifests
        assert manifests is not None, "the registry checks the files before it loads a library"
        index = read_device_index(request.device)
        gpu = find_gpu(index=index)
        if gpu is None:
            raise BackendUnavailableError(
                "no NVIDIA GPU answers its driver", expected=f"CUDA device {index}", got="none of that number"
            )
        library = _import_library(next(iter(manifests.values())).build.builder)
        for manifest in manifests.values():
            check_machine(manifest, library.__name__, library.__version__, gpu)
        return cls(request, manifests, library, gpu)

    @property
    def peak_bytes(self) -> int:
        """The most device memory that embeddings, inputs, outputs and scratch took together; engines not counted."""
        return self._device.peak_bytes

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:
        # Embeddings hold the device, and the handler is the model's own: neither may keep a dropped model alive.
        self._handle_oom = handle_oom
        owner = weakref.ref(self)

        def handle() -> None:
            backend = owner()
            if backend is not None and backend._handle_oom is not None:
                backend._handle_oom()

        self._device.handle_oom = handle

    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> DeviceFeatures:
        # New memory for every call, so that nothing that was given out changes with a later one.
        found = self._device.tensors(self.specs[graph].outputs)
        self._execute(graph, feed, found)
        # The outputs that were not asked for share the others' buffer, and are small.
        return DeviceFeatures(self._device, {name: found[name] for name in outputs or found})

    def fetch(self, graph: str, feed: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        with self._device.active():  # another thread would write into the same places
            if graph not in self._fetched:
                self._fetched[graph] = self._device.tensors(self.specs[graph].outputs)
            outputs = self._fetched[graph]
            self._execute(graph, feed, outputs)
            return dict(zip(outputs, self._device.download(list(outputs.values())), strict=True))

    def load(self, features: Any) -> DeviceFeatures:
        if isinstance(features, DeviceFeatures):
            return features
        arrays = features.to_host().tensors
        tensors = self._device.tensors([TensorSpec(name, a.shape, a.dtype.name) for name, a in arrays.items()])
        for name, tensor in tensors.items():
            self._device.upload(arrays[name], tensor)
        return DeviceFeatures(self._device, tensors)

    def stack_memories(self, memories: Sequence[Any]) -> DeviceTensor:
        """Side by side; a memory that already lies in its slot is not copied again."""
        return self._slots.place([self.load(memory) for memory in memories])

    def encode_impl(self, image: Any) -> DeviceFeatures:
        features: DeviceFeatures = super().encode_impl(image)
        self._device.synchronize()  # an error of this graph is to be told here and not with the next one
        return features

    def encode_frame_impl(self, frame: NDArray[np.uint8], color_order: str) -> DeviceFeatures:
        assert self._normalise is not None
        with self._device.active():  # another thread's frame would go into the same place
            image = self._find_place(contract.IMAGE_ENCODER, self.specs[contract.IMAGE_ENCODER].inputs[0])
            self._normalise(frame, color_order, image)
            self._sent.pop(f"{contract.IMAGE_ENCODER}/{image.spec.name}", None)
            return self.encode_impl(image)

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> DeviceFeatures:
        with self._device.active():  # another thread would stack its memories in the same place
            ordered = self._slots.order(memory_inputs)
            attended: DeviceFeatures = super().attend_memory_impl(features, ordered)
            return attended

    def close(self) -> None:
        """Frees engines, inputs and scratch; embeddings that someone still holds stay readable."""
        with self._device.active():
            self._inputs.clear()
            self._sent.clear()
            self._slots.clear()
            self._normalise = None
            self._fetched.clear()
            self._free()

    def _execute(self, graph: str, feed: Mapping[str, Any], outputs: Mapping[str, DeviceTensor]) -> None:
        """Starts one graph on arrays and device tensors by name; what it gives lies in `outputs` once it is done."""
        with self._device.active():
            engine = self._engines[graph]
            for spec in engine.spec.inputs:
                value = feed[spec.name]
                engine.bind(value if isinstance(value, DeviceTensor) else self._send(graph, spec, value))
            for tensor in outputs.values():
                engine.bind(tensor)
            engine.execute(self._device.stream_handle)

    def _send(self, graph: str, spec: TensorSpec, value: NDArray[Any]) -> DeviceTensor:
        """An array in its place on the device. What lies there already, such as an empty prompt, is not sent again."""
        place, key = self._find_place(graph, spec), f"{graph}/{spec.name}"
        if key in self._sent and np.array_equal(self._sent[key], value):
            return place
        self._device.upload(value, place)
        if num_bytes_of(spec) <= COMPARED_BYTES:
            self._sent[key] = np.array(value)
        return place

    def _find_place(self, graph: str, spec: TensorSpec) -> DeviceTensor:
        """Where an input of a graph lies on the device, the same in every call."""
        key = f"{graph}/{spec.name}"
        if key not in self._inputs:
            self._inputs[key] = self._device.tensors([spec])[spec.name]
        return self._inputs[key]

    def _make_normaliser(self) -> FrameNormaliser | None:
        if not device_normalise.wanted():
            return None
        try:
            return FrameNormaliser(self._device, self.image_size)
        except Sam2EdgeError as error:
            _logger.warning("frames are normalised on the CPU: %s", error)
            return None

    def _share_scratch(self) -> None:
        scratch = self._device.allocate(max(engine.scratch_bytes for engine in self._engines.values()))
        for engine in self._engines.values():
            engine.use_scratch(scratch)


def _free_engines(device: CudaDevice, engines: dict[str, Engine]) -> None:
    """TensorRT frees device memory where its objects are dropped, for which the context must be current."""
    with device.active():
        device.synchronize()
        device.release()
        while engines:
            engines.popitem()[1].close()


def _import_library(name: str) -> ModuleType:
    """The library that the engines were built with."""
    if name not in TENSORRT_LIBRARIES:
        raise GraphError(
            "engines of an unknown builder",
            expected=" or ".join(TENSORRT_LIBRARIES),
            got=repr(name),
            remedy="sam2edge build",
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = TENSORRT_INSTALL if name == "tensorrt" else "pip install 'sam2edge[rtx]'"
        raise BackendUnavailableError(f"{name} cannot be imported", got=str(error), remedy=remedy) from error
