"""Engines built by `sam2edge build`, on TensorRT or TensorRT-RTX. No torch on this path.

A picture and what is found on it are copied; embeddings and memories stay on the device, and a graph reads the small
inputs, such as prompts, from the host's memory. Nothing is waited for but what comes back to the host. All contexts
share one scratch buffer, so that a model runs one graph at a time.
"""

from __future__ import annotations

import importlib
import logging
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import BackendRequest, FloatArray, HostFeatures, MemoryInputs
from sam2edge.backends.graph_backend import GraphBackend
from sam2edge.backends.tensorrt.engine import Engine
from sam2edge.backends.tensorrt.inputs import AT_ONCE, InputPlaces
from sam2edge.backends.tensorrt.memory import CudaDevice, DeviceTensor
from sam2edge.backends.tensorrt.runtime import open_runtime
from sam2edge.contract import GraphSpec, TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, Sam2EdgeError
from sam2edge.imaging.frame import image_to_input
from sam2edge.machine.device import Gpu, find_gpu, read_device_index
from sam2edge.machine.software import TENSORRT_INSTALL, TENSORRT_LIBRARIES
from sam2edge.store.engine_checks import check_files, check_machine
from sam2edge.store.manifest import Manifest
from sam2edge.store.paths import ENGINE_SUFFIX

RESIZE_TOLERANCE = 0.02
"""By how much the normalised input of a frame, some -2 to 3, may differ: float16 rounds it by up to 0.002 twice."""

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
        return DeviceFeatures(self._device, {**self.tensors, "image_embed": image_embed})


class TensorRtBackend(GraphBackend):
    """One model's engines."""

    name = "tensorrt"

    def __init__(
        self, request: BackendRequest, manifests: Mapping[str, Manifest], library: ModuleType, gpu: Gpu
    ) -> None:
        assert request.engine_dir is not None
        decoder = manifests[contract.MASK_DECODER]
        slots = decoder.prompt_slots or contract.NUM_PROMPT_SLOTS
        super().__init__(request.variant, request.image_size, slots, decoder.memory_slots)
        self.precision = str(decoder.precision)
        self.device = f"cuda:{gpu.index}"
        self._device = CudaDevice(gpu.index, gpu.integrated)
        self._engines: dict[str, Engine] = {}
        self._inputs = InputPlaces(self._device, self._no_mask)
        # A model that is dropped gives back what `close` does, in whatever thread that happens.
        self._free = weakref.finalize(self, _free_engines, self._device, self._engines, self._inputs)
        self._free.atexit = False  # the driver frees what a process leaves
        with self._device.active():
            runtime, log = open_runtime(library)
            for name, spec in self.specs.items():
                self._engines[name] = Engine(library, runtime, request.engine_dir, manifests[name], spec, log)
            frames = self._load_frame_engines(library, runtime, request.engine_dir, gpu, log)
            self._share_scratch()
        self._handle_oom: Callable[[], None] | None = None
        self._fetched: dict[str, list[dict[str, DeviceTensor]]] = {}
        self.frame_sizes = {size_hw: spec for size_hw, spec in frames.items() if self._is_right(spec)}

    @classmethod
    def open(cls, request: BackendRequest) -> TensorRtBackend:
        manifests = request.engine_manifests
        assert manifests is not None, "the registry checks the files before it loads a library"
        index = read_device_index(request.device)
        gpu = find_gpu(index=index)
        if gpu is None:
            raise BackendUnavailableError(
                "the driver reports no NVIDIA GPU", expected=f"CUDA device {index}", got="none of that number"
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

    def encode(self, image: FloatArray, wait: bool = True) -> Any:
        features = super().encode(image)
        if wait:
            self._device.synchronize()
        return features

    def encode_frame(self, frame: NDArray[np.uint8], color_order: str, wait: bool = True) -> Any:
        spec = self.frame_sizes[frame.shape[:2]]
        with self._device.active():  # another thread's frame would go into the same place
            features = self.run(contract.IMAGE_ENCODER, {"image": self._resize(spec, frame, color_order)})
            if wait:
                self._device.synchronize()
            return features

    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> DeviceFeatures:
        # New memory for every call, so that nothing that was given out changes with a later one.
        specs = self.specs[graph].outputs
        wanted = self._device.tensors([spec for spec in specs if outputs is None or spec.name in outputs])
        others = {spec.name: self._inputs.find_place(graph, spec) for spec in specs if spec.name not in wanted}
        self._execute(graph, feed, {**wanted, **others})
        return DeviceFeatures(self._device, wanted)

    def fetch(self, graph: str, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, NDArray[Any]]]:
        if len(feeds) > AT_ONCE:
            return [*self.fetch(graph, feeds[:AT_ONCE]), *self.fetch(graph, feeds[AT_ONCE:])]
        with self._device.active():  # another thread would write into the same places
            places = self._fetched.setdefault(graph, [])
            while len(places) < len(feeds):
                places.append(self._device.tensors(self.specs[graph].outputs))
            for feed, outputs in zip(feeds, places, strict=False):
                self._execute(graph, feed, outputs)
            names = [spec.name for spec in self.specs[graph].outputs]
            arrays = iter(self._device.download([place[name] for place in places[: len(feeds)] for name in names]))
            return [{name: next(arrays) for name in names} for _ in feeds]

    def load(self, features: Any) -> DeviceFeatures:
        if isinstance(features, DeviceFeatures):
            return features
        arrays = features.to_host().tensors
        tensors = self._device.tensors([TensorSpec(name, a.shape, a.dtype.name) for name, a in arrays.items()])
        for name, tensor in tensors.items():
            self._device.upload(arrays[name], tensor)
        return DeviceFeatures(self._device, tensors)

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> DeviceFeatures:
        # The attention does not depend on the order of memories: by address, fewer different ones come up.
        memories = [self.load(memory) for memory in memory_inputs.memories]
        order = sorted(range(len(memories)), key=lambda k: memories[k].tensors["memory"].address)
        ordered = [memories[k] for k in order], memory_inputs.memory_ages[order]
        attended: DeviceFeatures = super().attend_memory_impl(
            features, memory_inputs._replace(memories=ordered[0], memory_ages=ordered[1])
        )
        return attended

    def close(self) -> None:
        """Frees engines, inputs and scratch; embeddings that someone still holds stay readable."""
        with self._device.active():
            self._fetched.clear()
            self._free()

    def _execute(self, graph: str, feed: Mapping[str, Any], outputs: Mapping[str, DeviceTensor]) -> None:
        """Starts one graph on arrays and device tensors by name; what it gives lies in `outputs` once it is done."""
        with self._device.active():
            engine = self._engines[graph]
            addresses = self._inputs.put(graph, engine.spec.inputs, feed)
            for name, address in (*addresses.items(), *((name, tensor.address) for name, tensor in outputs.items())):
                engine.bind(name, address)
            engine.execute(self._device.stream_handle)

    def _resize(self, spec: GraphSpec, frame: NDArray[np.uint8], color_order: str) -> DeviceTensor:
        """The model's input of a frame, by the engine that was built for its size."""
        channels = np.array([2, 1, 0] if color_order == "bgr" else [0, 1, 2], np.int32)
        image = self._inputs.find_place(spec.name, spec.outputs[0])
        self._execute(spec.name, {"frame": frame, "channels": channels}, {"image": image})
        return image

    def _load_frame_engines(
        self, library: ModuleType, runtime: Any, folder: Path, gpu: Gpu, log: deque[str]
    ) -> dict[tuple[int, ...], GraphSpec]:
        """Those in the model's folder, by the height and width of their frames; one that does not fit is left out."""
        found: dict[tuple[int, ...], GraphSpec] = {}
        for path in sorted(folder.glob(f"{contract.FRAME}*{ENGINE_SUFFIX}")):
            try:
                size_hw = contract.read_frame_size(path.stem.removeprefix(contract.FRAME))
                spec = contract.frame_spec(size_hw, self.image_size)
                (manifest,) = check_files(folder, (spec.name,), self.variant, self.image_size).values()
                check_machine(manifest, library.__name__, library.__version__, gpu)
                self._engines[spec.name] = Engine(library, runtime, folder, manifest, spec, log)
                found[size_hw] = spec
            except Sam2EdgeError as error:
                _logger.warning("frames are resized on the CPU: %s", error)
        return found

    def _is_right(self, spec: GraphSpec) -> bool:
        """Whether an engine for frames gives the CPU's result on noise, but for rounding to float16."""
        frame = np.random.default_rng(0).integers(0, 256, spec.inputs[0].shape, np.uint8)
        (found,) = self._device.download([self._resize(spec, frame, "bgr")])
        difference = float(np.abs(found - image_to_input(frame, "bgr", self.image_size)).max())
        if not difference <= RESIZE_TOLERANCE:
            _logger.warning("frames are resized on the CPU: engine %s is off by %.3g", spec.name, difference)
        return difference <= RESIZE_TOLERANCE

    def _share_scratch(self) -> None:
        scratch = self._device.allocate(max(engine.scratch_bytes for engine in self._engines.values()))
        for engine in self._engines.values():
            engine.use_scratch(scratch)


def _free_engines(device: CudaDevice, engines: dict[str, Engine], inputs: InputPlaces) -> None:
    """TensorRT and pycuda free memory where their objects are dropped, for which the context must be current."""
    with device.active():
        device.synchronize()
        inputs.clear()
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
