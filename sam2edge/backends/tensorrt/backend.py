"""Engines built by `sam2edge build`, on TensorRT or TensorRT-RTX. No torch on this path.

Prompts and results pass through pinned memory; embeddings stay on the device between the graphs. All contexts share
one scratch buffer, so that a model runs one graph at a time.
"""

from __future__ import annotations

import importlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import (
    Backend,
    BackendRequest,
    DecodedPrompts,
    FloatArray,
    HostFeatures,
    IntArray,
    MemoryInputs,
)
from sam2edge.backends.slots import memory_attention_feed, memory_encoder_feed, prompt_slots
from sam2edge.backends.tensorrt import device_normalise
from sam2edge.backends.tensorrt.device_normalise import FrameNormaliser
from sam2edge.backends.tensorrt.engine import Engine, make_logger
from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceBuffer, DeviceTensor, num_bytes_of
from sam2edge.contract import TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, Sam2EdgeError
from sam2edge.machine.device import find_gpu
from sam2edge.store.manifest import EngineManifest, check_files, check_machine

LIBRARIES = ("tensorrt", "tensorrt_rtx")
_LOG_LINES = 4
_logger = logging.getLogger("sam2edge")


class DeviceFeatures:
    """An encoded image on the device: tensors by contract name, in one buffer of its own."""

    def __init__(self, device: CudaDevice, tensors: Mapping[str, DeviceTensor]) -> None:
        self._device = device
        self.tensors: Mapping[str, Any] = dict(tensors)

    @property
    def nbytes(self) -> int:
        buffers = {id(tensor.buffer): tensor.buffer.nbytes for tensor in self.tensors.values()}
        return sum(buffers.values())

    def to_host(self) -> HostFeatures:
        return HostFeatures(dict(zip(self.tensors, self._device.download(list(self.tensors.values())), strict=True)))


class TensorRtBackend(Backend):
    """One model's engines."""

    name = "tensorrt"

    def __init__(self, request: BackendRequest, manifests: Mapping[str, EngineManifest], library: ModuleType) -> None:
        assert request.engine_dir is not None
        self.variant = request.variant
        self.image_size = request.image_size
        decoder = manifests[contract.MASK_DECODER]
        self.precision = decoder.precision
        self._slots = decoder.prompt_slots
        self._specs = contract.graph_specs(self.variant, self.image_size, self._slots)
        self._device = CudaDevice()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._scratch: DeviceBuffer | None = None
        with self._device.active():
            runtime = library.Runtime(make_logger(library, self._log))
            self._engines = {
                name: Engine(library, runtime, request.engine_dir, manifests[name], spec, self._log)
                for name, spec in self._specs.items()
            }
            self._runtime = runtime  # engines need it for as long as they live
            self._share_scratch()
        self._normalise = self._normaliser()
        self.accepts_uint8 = self._normalise is not None
        self._inputs: dict[str, DeviceTensor] = {}
        self._decoded = self._device.tensors(self._specs[contract.MASK_DECODER].outputs)

    @classmethod
    def open(cls, request: BackendRequest) -> TensorRtBackend:
        if request.engine_dir is None:
            raise BackendUnavailableError(
                f"no engine of {request.variant.model_id} at image size {request.image_size} was built",
                remedy=f"sam2edge build {request.variant.model_id} --size {request.image_size}",
            )
        names = tuple(contract.graph_specs(request.variant, request.image_size))
        size, digest = request.image_size, request.checkpoint_sha256
        manifests = check_files(request.engine_dir, names, request.variant, size, digest)
        gpu = find_gpu()
        if gpu is None:
            raise BackendUnavailableError("no NVIDIA GPU on this machine", expected="a CUDA device", got="none")
        library = _library(next(iter(manifests.values())).builder)
        for manifest in manifests.values():
            check_machine(manifest, library.__name__, library.__version__, gpu)
        return cls(request, manifests, library)

    @property
    def max_points(self) -> int | None:
        return self._slots

    @property
    def peak_bytes(self) -> int:
        """The most device memory that embeddings, inputs, outputs and scratch took together; engines not counted."""
        return self._device.peak_bytes

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:
        self._device.handle_oom = handle_oom

    def encode_impl(self, image: FloatArray) -> DeviceFeatures:
        return self._encoded(image)

    def encode_frame_impl(self, frame: NDArray[np.uint8], color_order: str) -> DeviceFeatures:
        assert self._normalise is not None
        spec = self._specs[contract.IMAGE_ENCODER].inputs[0]
        with self._device.active():  # another thread's frame would go into the same place
            image = self._place(contract.IMAGE_ENCODER, spec)
            self._normalise(frame, color_order, image)
            return self._encoded(image)

    def _normaliser(self) -> FrameNormaliser | None:
        if not device_normalise.wanted():
            return None
        try:
            return FrameNormaliser(self._device, self.image_size)
        except Sam2EdgeError as error:
            _logger.warning("frames are normalised on the CPU: %s", error)
            return None

    def _encoded(self, image: FloatArray | DeviceTensor) -> DeviceFeatures:
        spec = self._specs[contract.IMAGE_ENCODER]
        # New memory for every embedding, so that none changes with a later call.
        outputs = self._device.tensors(spec.outputs)
        self._run(spec.name, {"image": image}, outputs)
        self._device.synchronize()  # an error of this graph is to be told here and not with the next one
        return DeviceFeatures(self._device, outputs)

    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        embedding = self._on_device(features, self._specs[contract.MASK_DECODER].inputs)
        outputs = self._decoded
        given = np.array([mask_input is not None], np.float32)
        rows = []
        for k in range(len(point_coords)):
            coords, labels = prompt_slots(point_coords[k], point_labels[k], self._slots)
            mask = np.float32(0) if mask_input is None else mask_input[k][None, None]
            prompt = {"point_coords": coords, "point_labels": labels, "mask_input": mask, "has_mask": given}
            with self._device.active():  # another thread's prompt would go into the same places
                self._run(contract.MASK_DECODER, {**embedding, **prompt}, outputs)
                rows.append(self._device.download([outputs[name] for name in DecodedPrompts._fields]))
        return DecodedPrompts(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))

    def attend_memory_impl(self, features: Any, recalled: MemoryInputs) -> DeviceFeatures:
        spec = self._specs[contract.MEMORY_ATTENTION]
        with self._device.active():
            embedding = self._on_device(features, self._specs[contract.IMAGE_ENCODER].outputs)
            memory = self._gathered(recalled)
            feed = {**embedding, "memory": memory, **memory_attention_feed(recalled, self.variant.num_mask_slots)}
            outputs = self._device.tensors(spec.outputs)
            self._run(spec.name, feed, outputs)
            return DeviceFeatures(self._device, {**embedding, **outputs})

    def encode_memory_impl(
        self, features: Any, mask: FloatArray, object_score: float, binarise: bool
    ) -> DeviceFeatures:
        memory = self._encoded_memory(features, memory_encoder_feed(mask, object_score, binarise))["memory"]
        # Beside it lies the mask prompt, small enough to live as long.
        return DeviceFeatures(self._device, {"memory": memory})

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        with self._device.active():
            outputs = self._encoded_memory(features, memory_encoder_feed(mask, 1.0, True))
            found: FloatArray = self._device.download([outputs["mask_prompt"]])[0][0, 0]
        return found

    def _encoded_memory(self, features: Any, feed: Mapping[str, Any]) -> dict[str, DeviceTensor]:
        spec = self._specs[contract.MEMORY_ENCODER]
        with self._device.active():
            outputs = self._device.tensors(spec.outputs)
            self._run(spec.name, {**self._on_device(features, spec.inputs), **feed}, outputs)
            return outputs

    def _gathered(self, recalled: MemoryInputs) -> DeviceTensor:
        """The memories side by side, as the attention takes them; what an empty slot held before does not matter."""
        spec = next(t for t in self._specs[contract.MEMORY_ATTENTION].inputs if t.name == "memory")
        one = TensorSpec("memory", (1, *spec.shape[2:]))
        if spec.name not in self._inputs:
            self._inputs[spec.name] = self._device.tensors([spec])[spec.name]
            self._device.upload(np.float32(0), self._inputs[spec.name])  # anything finite, which new memory may not be
        gathered = self._inputs[spec.name]
        for slot, remembered in enumerate(recalled.memories):
            place = DeviceTensor(one, gathered.buffer, gathered.offset + slot * num_bytes_of(one))
            self._device.copy(self._on_device(remembered, [one])["memory"], place)
        return gathered

    def run_graph(self, graph: str, feed: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs of one graph on host arrays by contract name: for comparing an engine with its model."""
        with self._device.active():
            outputs = self._device.tensors(self._specs[graph].outputs)
            self._run(graph, feed, outputs)
            return dict(zip(outputs, self._device.download(list(outputs.values())), strict=True))

    def close(self) -> None:
        """Frees engines, inputs and scratch; embeddings that someone still holds stay readable."""
        with self._device.active():
            self._device.synchronize()
            self._device.free_staging()
            self._inputs.clear()
            self._normalise = None
            self._decoded.clear()
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
            self._runtime = None
            self._scratch = None

    def _run(self, graph: str, feed: Mapping[str, Any], outputs: Mapping[str, DeviceTensor]) -> None:
        """Starts one graph on arrays and device tensors by name; what it gives lies in `outputs` once it is done."""
        with self._device.active():
            engine = self._engines[graph]
            for spec in engine.spec.inputs:
                value = feed[spec.name]
                engine.bind(value if isinstance(value, DeviceTensor) else self._uploaded(graph, spec, value))
            for tensor in outputs.values():
                engine.bind(tensor)
            engine.execute(self._device.stream_handle)

    def _uploaded(self, graph: str, spec: TensorSpec, value: Any) -> DeviceTensor:
        """An array in its own place on the device, the same in every call."""
        place = self._place(graph, spec)
        self._device.upload(value, place)
        return place

    def _place(self, graph: str, spec: TensorSpec) -> DeviceTensor:
        key = f"{graph}/{spec.name}"
        if key not in self._inputs:
            self._inputs[key] = self._device.tensors([spec])[spec.name]
        return self._inputs[key]

    def _on_device(self, features: Any, wanted: Sequence[TensorSpec]) -> dict[str, DeviceTensor]:
        """Those of the wanted tensors that the features have, here; what lies elsewhere is uploaded for this call."""
        specs = [spec for spec in wanted if spec.name in features.tensors]
        found = {spec.name: features.tensors[spec.name] for spec in specs}
        if all(isinstance(tensor, DeviceTensor) for tensor in found.values()):
            return found
        values = features.to_host().tensors
        tensors = self._device.tensors(specs)
        for name, tensor in tensors.items():
            self._device.upload(values[name], tensor)
        return tensors

    def _share_scratch(self) -> None:
        size = max(engine.scratch_bytes for engine in self._engines.values())
        self._scratch = self._device.allocate(size)
        for engine in self._engines.values():
            engine.use_scratch(self._scratch)


def _library(name: str) -> ModuleType:
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
