"""sam2edge on a GPU as a measured side: its engines, or its own model in torch.

    python -m bench.gpu_worker --model ID --backend tensorrt|torch --precision fp16|fp32 [--checkpoint FILE]
        --photo FILE --point X,Y --clip DIR --box X1,Y1,X2,Y2 [--device cuda]

serves "encode" and "decode" (the networks alone, by device events), "embed" (past the cache) and "prompt" (by the wall
clock), "frame" (the next frame of the clip, tracked), "memory" (bytes of device memory, the context left out), and
"photos" (photos that all differ, prompted: what grew, and the most that the embeddings cache held). torch in fp16 is
the encoder with half weights, and serves "encode" alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.worker import Timed, serve
from sam2edge import AutoModel, ImagePredictor, VideoTracker, contract
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache

VERSIONS = ("sam2edge", "numpy", "torch", "tensorrt", "tensorrt-rtx-cu12", "pycuda")
CACHE_BYTES = 64 << 20
Cases = dict[str, Callable[[], Any]]


def main() -> None:
    args = _arguments()
    if args.stand_ins:
        from tests.backends import fake_cuda

        fake_cuda.install()
    if args.backend == "torch" and args.precision == "fp16":
        serve(half_encoder(args), _installed())
        return
    used_before = used_bytes(args.backend)
    options: dict[str, Any] = {} if args.backend == "tensorrt" else {"device": args.device}
    model = AutoModel.from_pretrained(
        args.model, backend=args.backend, precision=args.precision, checkpoint=args.checkpoint, **options
    )
    networks = engine_cases(model) if args.backend == "tensorrt" else torch_cases(model, args.device)
    serve({**calls(model, args, used_before), **networks}, _installed(), backend=model.backend_name)


def calls(model: ImagePredictor, args: argparse.Namespace, used_before: int) -> Cases:
    """What a user calls, up to results on the host, and the device memory that it took."""
    photo = cv2.imread(args.photo)
    assert photo is not None, args.photo
    points = np.array([[float(v) for v in args.point.split(",")]])
    embeddings = model.embed_images(photo)
    frames = [cv2.imread(str(path)) for path in sorted(Path(args.clip).glob("*.jpg"))]
    tracker = VideoTracker(model)

    def prompt() -> list[float]:
        labels = np.ones(len(points))
        found = model.segment_images(embeddings=embeddings, point_coordinates=points, point_labels=labels)[0]
        return [round(float(score), 4) for score in found.scores]

    def frame() -> int:
        if tracker.frame_index + 1 in (0, len(frames)):
            tracker.reset()
            tracker.prompt(frames[0], box=[float(v) for v in args.box.split(",")])
        return int(tracker.track(frames[tracker.frame_index + 1]).masks.sum())

    def embed() -> None:
        model.embed_images(photo, use_embeddings_cache=False)

    def memory() -> dict[str, int]:
        for call in (embed, prompt, frame):
            call()
        return {"held_bytes": used_bytes(model.backend_name) - used_before}

    return {
        "embed": embed,
        "memory": memory,
        "prompt": prompt,
        "frame": frame,
        "photos": lambda: many_photos(model, photo, points, args.photos),
    }


def many_photos(model: ImagePredictor, photo: np.ndarray, points: np.ndarray, count: int) -> dict[str, int]:
    """`count` photos that differ in a pixel, after 50 that do not count."""
    cache = model.embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=None, max_bytes=CACHE_BYTES)
    most, before = 0, 0
    warm_up = min(50, count)
    for number in range(warm_up + count):
        changed = photo.copy()
        changed[0, 0] = number % 256, number // 256, 0
        model.segment_images(changed, point_coordinates=points, point_labels=np.ones(len(points)))
        most = max(most, cache.statistics.num_bytes)
        if number == warm_up - 1:
            before = used_bytes(model.backend_name)
    return {
        "grown_bytes": used_bytes(model.backend_name) - before,
        "cache_bytes": most,
        "cache_limit_bytes": CACHE_BYTES,
    }


def used_bytes(backend_name: str) -> int:
    """Device memory in use: of engines by all processes, of torch what it has reserved at most."""
    if backend_name == "torch":
        import torch

        return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    import pycuda.driver as cuda

    from sam2edge.backends.tensorrt.memory import CudaDevice

    with CudaDevice().active():
        free, total = cuda.mem_get_info()
    return int(total - free)


def engine_cases(model: ImagePredictor) -> Cases:
    """The engines alone, on inputs that are on the device."""
    import pycuda.driver as cuda

    backend: Any = model.backend
    device = backend._device
    specs = contract.graph_specs(backend.variant, backend.image_size, backend.max_points)
    given = {name: device.tensors(spec.inputs) for name, spec in specs.items()}
    given_out = {name: device.tensors(spec.outputs) for name, spec in specs.items()}
    with device.active():
        for tensors in given.values():
            for tensor in tensors.values():
                device.upload(np.ones((), tensor.spec.dtype), tensor)
        device.synchronize()
        begin, end = cuda.Event(), cuda.Event()

    def run(graph: str) -> Timed:
        with device.active():
            begin.record(device._stream)
            backend._run(graph, given[graph], given_out[graph])
            end.record(device._stream)
            end.synchronize()
            return Timed(begin.time_till(end))

    return {
        "encode": lambda: run(contract.IMAGE_ENCODER),
        "decode": lambda: run(contract.MASK_DECODER),
    }


def torch_cases(model: ImagePredictor, device: str) -> Cases:
    import torch

    from bench.gpu_clock import TorchClock

    clock, backend = TorchClock(device), model.backend
    network: Any = backend._model  # type: ignore[attr-defined]
    image = torch.zeros(1, 3, backend.image_size, backend.image_size, device=device)
    coords = torch.full((1, 1, 2), backend.image_size / 2, device=device)
    labels = torch.ones(1, 1, dtype=torch.int32, device=device)
    with torch.inference_mode():
        features = network.encode_image(image)
    embedded = (features.image_embed, features.high_res_0, features.high_res_1)
    return {
        "encode": lambda: clock.time(lambda: network.encode_image(image)),
        "decode": lambda: clock.time(lambda: network.decode(*embedded, coords, labels, None)),
    }


def half_encoder(args: argparse.Namespace) -> Cases:
    import torch

    from bench.gpu_clock import TorchClock
    from sam2edge.store import paths
    from sam2edge.torch_sam2.checkpoint import load_model
    from sam2edge.variants import find_variant

    clock, variant = TorchClock(args.device), find_variant(args.model)
    checkpoint = Path(args.checkpoint) if args.checkpoint else paths.find_checkpoint(variant)
    assert checkpoint is not None
    network = load_model(variant, checkpoint, variant.image_size).half().to(args.device).bake()
    image = torch.zeros(1, 3, variant.image_size, variant.image_size, device=args.device, dtype=torch.float16)
    return {"encode": lambda: clock.time(lambda: network.encode_image(image))}


def _installed() -> list[str]:
    found = []
    for name in VERSIONS:
        with suppress(PackageNotFoundError):  # not installed, or from a system package without a name
            version(name)
            found.append(name)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", choices=("tensorrt", "torch"), required=True)
    parser.add_argument("--precision", choices=("fp16", "fp32"), required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--photo", required=True)
    parser.add_argument("--point", required=True, help="X,Y in photo pixels")
    parser.add_argument("--clip", required=True, help="folder of frames, 00000.jpg and on")
    parser.add_argument("--box", required=True, help="X1,Y1,X2,Y2 on the first frame")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--stand-ins", action="store_true", help="no GPU: stand-ins of the tests compute in its place")
    return parser.parse_args()


if __name__ == "__main__":
    main()
