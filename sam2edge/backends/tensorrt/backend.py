"""Engines built by `sam2edge build`, on TensorRT or TensorRT-RTX. No torch on this path.

Prompts and results pass through pinned memory; embeddings stay on the device between the graphs. All contexts share
one scratch buffer, so that a model runs one graph at a time.
"""

from __future__ import annotations

import importlib
import logging
from collections import deque
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
from sam2edge.backends.tensorrt.engine import Engine, make_logger
from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceBuffer, DeviceTensor, num_bytes_of
from sam2edge.contract import TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, Sam2EdgeError
from sam2edge.machine.device import find_gpu
from sam2edge.store.engine_checks import check_machine
from sam2edge.store.manifest import Manifest

LIBRARIES = ("tensorrt", "tensorrt_rtx")
_LOG_LINES = 4
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

    def __init__(self, request: BackendRequest, manifests: Mapping[str, Manifest], library: ModuleType) -> None:
        assert request.engine_dir is not None
        decoder = manifests[contract.MASK_DECODER]
        super().__init__(request.variant, request.image_size, decoder.prompt_slots or contract.NUM_PROMPT_SLOTS)
        self.precision = str(decoder.precision)
        self._device = CudaDevice()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._scratch: DeviceBuffer | None = None
        with self._device.active():
            runtime = library.Runtime(make_logger(library, self._log))
            self._engines = {
                name: Engine(library, runtime, request.engine_dir, manifests[name], spec, self._log)
                for name, spec in self.specs.items()
            }
            self._runtime = runtime  # engines need it for as long as they live
            self._share_scratch()
        self._normalise = self._make_normaliser()
        self.accepts_uint8 = self._normalise is not None
        self._inputs: dict[str, DeviceTensor] = {}
        self._fetched: dict[str, dict[str, DeviceTensor]] = {}

    @classmethod
    def open(cls, request: BackendRequest) -> TensorRtBackend:
        manifests = request.engine_manifests
        assert manifests is not None, "the registry checks the files before it loads a library"
        gpu = find_gpu()
        if gpu is None:
            raise BackendUnavailableError("no NVIDIA GPU answers its driver", expected="a CUDA device", got="none")
        library = _import_library(next(iter(manifests.values())).build.builder)
        for manifest in manifests.values():
            check_machine(manifest, library.__name__, library.__version__, gpu)
        return cls(request, manifests, library)

    @property
    def peak_bytes(self) -> int:
        """The most device memory that embeddings, inputs, outputs and scratch took together; engines not counted."""
        return self._device.peak_bytes

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:
        self._device.handle_oom = handle_oom

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
        """Side by side in a place of their own; what a slot that is not used held before does not matter."""
        spec = next(t for t in self.specs[contract.MEMORY_ATTENTION].inputs if t.name == "memory")
        one = TensorSpec("memory", (1, *spec.shape[2:]))
        if spec.name not in self._inputs:
            self._inputs[spec.name] = self._device.tensors([spec])[spec.name]
            self._device.upload(np.float32(0), self._inputs[spec.name])  # anything finite, which new memory may not be
        stacked = self._inputs[spec.name]
        for slot, memory in enumerate(memories):
            place = DeviceTensor(one, stacked.buffer, stacked.offset + slot * num_bytes_of(one))
            self._device.copy(self.load(memory).tensors["memory"], place)
        return stacked

    def encode_impl(self, image: Any) -> DeviceFeatures:
        features: DeviceFeatures = super().encode_impl(image)
        self._device.synchronize()  # an error of this graph is to be told here and not with the next one
        return features

    def encode_frame_impl(self, frame: NDArray[np.uint8], color_order: str) -> DeviceFeatures:
        assert self._normalise is not None
        with self._device.active():  # another thread's frame would go into the same place
            image = self._find_place(contract.IMAGE_ENCODER, self.specs[contract.IMAGE_ENCODER].inputs[0])
            self._normalise(frame, color_order, image)
            return self.encode_impl(image)

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> DeviceFeatures:
        with self._device.active():  # another thread would stack its memories in the same place
            attended: DeviceFeatures = super().attend_memory_impl(features, memory_inputs)
            return attended

    def close(self) -> None:
        """Frees engines, inputs and scratch; embeddings that someone still holds stay readable."""
        with self._device.active():
            self._device.synchronize()
            self._device.free_staging()
            self._inputs.clear()
            self._normalise = None
            self._fetched.clear()
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
            self._runtime = None
            self._scratch = None

    def _execute(self, graph: str, feed: Mapping[str, Any], outputs: Mapping[str, DeviceTensor]) -> None:
        """Starts one graph on arrays and device tensors by name; what it gives lies in `outputs` once it is done."""
        with self._device.active():
            engine = self._engines[graph]
            for spec in engine.spec.inputs:
                value = feed[spec.name]
                if not isinstance(value, DeviceTensor):
                    place = self._find_place(graph, spec)
                    self._device.upload(value, place)
                    value = place
                engine.bind(value)
            for tensor in outputs.values():
                engine.bind(tensor)
            engine.execute(self._device.stream_handle)

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
        size = max(engine.scratch_bytes for engine in self._engines.values())
        self._scratch = self._device.allocate(size)
        for engine in self._engines.values():
            engine.use_scratch(self._scratch)


def _import_library(name: str) -> ModuleType:
    """The library that the engines were built with."""
    if name not in LIBRARIES:
        raise GraphError(
            "engines of an unknown builder", expected=" or ".join(LIBRARIES), got=repr(name), remedy="sam2edge build"
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = {
            "tensorrt": "sudo apt install python3-libnvinfer (Jetson) or pip install tensorrt",
            "tensorrt_rtx": "pip install 'sam2edge[rtx]'",
        }[name]
        raise BackendUnavailableError(f"{name} cannot be imported", got=str(error), remedy=remedy) from error
