"""sam2edge on a GPU as a measured side of bench/gpu.py: its engines, or its own model in torch."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import photo, video
from bench.worker import Timed
from sam2edge import AutoModel, ImagePredictor, contract
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache
from sam2edge.machine.device import find_gpu

CACHE_BYTES = 64 << 20
Cases = dict[str, Callable[[], Any]]


def make_cases(
    model: str,
    backend: str,
    precision: str,
    device: str,
    photo_path: str,
    point: list[float],
    clip: str,
    box: list[float],
    photos: int,
    checkpoint: str | None = None,
    stand_ins: bool = False,
) -> Cases:
    """The networks alone, by device events: "encode", "decode". By the wall clock, up to results on the host: "embed"
    (past the cache), "prompt", "frame" (the next of the clip, tracked). "memory": bytes of device memory, the context
    left out. "photos": that many photos that all differ, prompted: what grew, and the most that the cache held.
    """
    if stand_ins:
        from tests.backends import fake_cuda

        fake_cuda.install()
    before = read_used_bytes(backend)
    options: dict[str, Any] = {} if backend == "tensorrt" else {"device": device}
    loaded = AutoModel.from_pretrained(model, backend=backend, precision=precision, checkpoint=checkpoint, **options)
    picture = cv2.imread(photo_path)
    assert picture is not None, photo_path
    cases = photo.make_model_cases(loaded, picture, point) | video.make_model_cases(loaded, clip, box)

    def memory() -> dict[str, int]:
        for name in ("embed", "prompt", "frame"):
            cases[name]()
        return {"held_bytes": read_used_bytes(backend) - before}

    networks = _make_engine_cases(loaded) if backend == "tensorrt" else _make_torch_cases(loaded, device)
    many = {"photos": lambda: _segment_many(loaded, picture, point, photos)}
    return {**cases, "memory": memory, **many, **networks}


def _segment_many(model: ImagePredictor, picture: np.ndarray, point: list[float], count: int) -> dict[str, int]:
    """`count` photos that differ in a pixel, after 50 that do not count."""
    cache = model.embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=None, max_bytes=CACHE_BYTES)
    most, before = 0, 0
    warm_up = min(50, count)
    for number in range(warm_up + count):
        changed = picture.copy()
        changed[0, 0] = number % 256, number // 256, 0
        model.segment_images(changed, point_coordinates=np.array([point]), point_labels=np.ones(1))
        most = max(most, cache.statistics.num_bytes)
        if number == warm_up - 1:
            before = read_used_bytes(model.backend_name)
    grown = read_used_bytes(model.backend_name) - before
    return {"grown_bytes": grown, "cache_bytes": most, "cache_limit_bytes": CACHE_BYTES}


def read_used_bytes(backend_name: str) -> int:
    """Device memory in use: of engines by all processes, of torch what it has reserved at most.

    Where the GPU shares the CPU's memory, CUDA's figure is a mirror of the page cache: there it is what this process
    holds, and the board's own counter of GPU buffers (NvMapMemUsed in /proc/meminfo, where its driver has one).
    """
    if backend_name == "torch":
        import torch

        return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    gpu = find_gpu()
    if gpu is not None and gpu.integrated:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        return resident + sum(int(words[1]) * 1024 for words in lines if words[0] == "NvMapMemUsed:")
    import pycuda.driver as cuda

    from sam2edge.backends.tensorrt.memory import CudaDevice

    with CudaDevice().active():
        free, total = cuda.mem_get_info()
    return int(total - free)


def _make_engine_cases(model: ImagePredictor) -> Cases:
    """The engines alone, on inputs that are on the device."""
    import pycuda.driver as cuda

    backend: Any = model.backend
    device = backend._device
    specs = contract.graph_specs(backend.variant, backend.image_size, backend.max_points)
    inputs = {name: device.tensors(spec.inputs) for name, spec in specs.items()}
    outputs = {name: device.tensors(spec.outputs) for name, spec in specs.items()}
    with device.active():
        for tensors in inputs.values():
            for tensor in tensors.values():
                device.upload(np.ones((), tensor.spec.dtype), tensor)
        device.synchronize()
        begin, end = cuda.Event(), cuda.Event()

    def run(graph: str) -> Timed:
        with device.active():
            begin.record(device._stream)
            backend._execute(graph, inputs[graph], outputs[graph])
            end.record(device._stream)
            end.synchronize()
            return Timed(begin.time_till(end))

    return {"encode": lambda: run(contract.IMAGE_ENCODER), "decode": lambda: run(contract.MASK_DECODER)}


def _make_torch_cases(model: ImagePredictor, device: str) -> Cases:
    import torch

    from bench.meta import time_on_device

    backend: Any = model.backend
    network = backend._model
    image = torch.zeros(1, 3, backend.image_size, backend.image_size, device=device)
    coords = torch.full((1, 1, 2), backend.image_size / 2, device=device)
    labels = torch.ones(1, 1, dtype=torch.int32, device=device)
    with torch.inference_mode():
        features = network.encode_image(image)
    embedded = (features.image_embed, features.high_res_0, features.high_res_1)
    return {
        "encode": lambda: time_on_device(lambda: network.encode_image(image), device),
        "decode": lambda: time_on_device(lambda: network.decode(*embedded, coords, labels, None), device),
    }


def make_half_cases(model: str, device: str, checkpoint: str | None = None, **_: Any) -> Cases:
    """torch with half weights: "encode" alone."""
    import torch

    from bench.meta import time_on_device
    from sam2edge.store import paths
    from sam2edge.torch_sam2.checkpoint import load_model
    from sam2edge.variants import find_variant

    variant = find_variant(model)
    path = Path(checkpoint) if checkpoint else paths.find_checkpoint(variant)
    assert path is not None
    network = load_model(variant, path, variant.image_size).half().to(device).bake()
    image = torch.zeros(1, 3, variant.image_size, variant.image_size, device=device, dtype=torch.float16)
    return {"encode": lambda: time_on_device(lambda: network.encode_image(image), device)}
