"""From a model id to a loaded model."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from sam2edge.backends.base import BackendRequest
from sam2edge.backends.registry import search_backends
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from sam2edge.engine_build.build import build_missing
from sam2edge.errors import CheckpointError, InvalidInputError
from sam2edge.files import file_sha256
from sam2edge.machine.device import available_memory_bytes, find_gpu, read_device_index
from sam2edge.machine.gpu_state import GpuMonitor
from sam2edge.predictor import ImagePredictor
from sam2edge.selection.budget import CACHE_SHARE, MemoryWatch, read_memory_cap
from sam2edge.selection.select import Constraints, Selection, select
from sam2edge.store.manifest import stated_sha256
from sam2edge.store.paths import GRAPH_PRECISIONS, find_checkpoint, find_engines, find_graphs
from sam2edge.variants import EMBEDDED, VARIANTS, Variant, find_variant

_log = logging.getLogger("sam2edge")


class AutoModel:
    """Loads models by id."""

    @staticmethod
    def from_pretrained(
        model_id: str = "auto",
        *,
        backend: str = "auto",
        device: str | None = None,
        precision: str = "auto",
        image_size: int | None = None,
        checkpoint: str | Path | None = None,
        api_key: str | None = None,
        sam2_image_embeddings_cache: Sam2ImageEmbeddingsInMemoryCache | None = None,
        sam2_low_resolution_masks_cache: Sam2LowResolutionMasksInMemoryCache | None = None,
        max_memory: int | str | None = None,
        tracking: bool = False,
        build_if_missing: bool = False,
        **unused: Any,
    ) -> ImagePredictor:
        """A model ready to segment.

        Args:
            model_id: "sam2/hiera_{micro,tiny,small,b_plus,large}" (the 2.1 weights), "sam2.0_hiera_..." or
                "sam2.1_hiera_..."; "auto" is the largest installed one that fits into the memory available now, by the
                rules of `sam2edge doctor --explain`.
            backend: "tensorrt", "openvino", "onnxruntime", "torch", or "auto", the fastest of them that works here:
                each must encode an image and answer a prompt while loading, and the next one takes over if the device
                runs out of memory later.
            device: "cpu" or "cuda" alone; None is any.
            precision: "fp32", "fp16" (of graphs and engines), "int8" (of graphs on onnxruntime), or "auto", the
                backend's own; torch computes in fp32.
            image_size: side of the square model input in pixels, a multiple of 32; None is the model's own.
            checkpoint: official `.pt` or `.safetensors` file; None looks in the store and in the package.
            api_key: accepted and unused; no account is needed.
            sam2_image_embeddings_cache: a cache of your own; None makes one that may fill a tenth of the memory
                available now. Either gives way when memory runs low later.
            sam2_low_resolution_masks_cache: where `use_mask_input_cache` keeps logits; None: no such cache.
            max_memory: bytes that "auto" and the default cache count as usable at most, or text such as "4GiB";
                $SAM2EDGE_MAX_MEMORY likewise, the lesser counts. A model asked for by name is loaded unchecked.
            tracking: count the memory of a tracked video too, and try tracking while loading, for "auto".
            build_if_missing: where there is a GPU and no engine of the model that it can use, builds one first, as
                `sam2edge build` does (minutes; progress on standard error), and goes on without where that fails.

        Raises:
            UnknownModelError, InvalidInputError, CheckpointError, GraphError, BackendUnavailableError; for "auto"
            OutOfMemoryError where no installed model fits.
        """
        del api_key
        if unused:
            raise InvalidInputError("unknown option", expected="those of from_pretrained", got=", ".join(unused))
        if precision not in ("auto", *GRAPH_PRECISIONS):
            raise InvalidInputError(
                "precision is not available", expected="'auto', 'fp32', 'fp16' or 'int8'", got=repr(precision)
            )
        if image_size is not None:
            check_image_size(image_size)
        cap = read_memory_cap(max_memory)
        choice = None
        if model_id == "auto" and checkpoint is None:
            choice = select(Constraints(backend, device, precision, image_size, tracking), cap)
        if choice is not None:
            _log.info("auto: %s", choice.picked)
            variant, image_size = choice.picked.variant, choice.picked.image_size
            device = device or ("cpu" if choice.leaves_gpu else None)
        else:
            variant = VARIANTS[EMBEDDED] if model_id == "auto" else find_variant(model_id)
        request = _request(variant, image_size or variant.image_size, device, checkpoint, precision)
        build = partial(build_missing, variant, request.image_size, precision, checkpoint)
        search = search_backends(backend, request, build if build_if_missing else None, tracking)
        opened, report = search.open_next(), search.report
        monitor = _find_discrete_gpu(opened.name, str(getattr(opened, "device", device)))
        if sam2_image_embeddings_cache is None:
            sam2_image_embeddings_cache = _default_cache(choice, monitor, cap)
        watch = MemoryWatch.of_host() if monitor is None else MemoryWatch.of_gpu(monitor)
        return ImagePredictor(
            opened,
            report,
            sam2_image_embeddings_cache,
            sam2_low_resolution_masks_cache,
            watch,
            search if backend == "auto" else None,
        )


def check_image_size(image_size: int) -> None:
    """Raises InvalidInputError for a side that no model input can have."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 64 or image_size % 32:
        raise InvalidInputError(
            "image size cannot be used", expected="a multiple of 32, at least 64", got=repr(image_size)
        )


def _request(
    variant: Variant, image_size: int, device: str | None, checkpoint: str | Path | None, precision: str
) -> BackendRequest:
    graphs = find_graphs(variant, image_size, precision)
    engines = find_engines(variant, image_size, precision)
    if checkpoint is None:
        stored = find_checkpoint(variant)
        return BackendRequest(variant, image_size, device, stored, graphs, stated_sha256(stored), precision, engines)
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(
            "checkpoint not found", expected="a .pt or .safetensors file", got=str(path), remedy="check the path"
        )
    digest = file_sha256(path) if graphs is not None or engines is not None else None
    return BackendRequest(variant, image_size, device, path, graphs, digest, precision, engines)


def _find_discrete_gpu(backend: str, device: str) -> GpuMonitor | None:
    """What watches the memory that embeddings lie in, where that is a GPU's own."""
    if backend != "tensorrt" and not device.startswith("cuda"):
        return None
    gpu = find_gpu(index=read_device_index(device if device.startswith("cuda") else None))
    return None if gpu is None or gpu.integrated else GpuMonitor(gpu)


def _default_cache(
    choice: Selection | None, monitor: GpuMonitor | None, cap: int | None
) -> Sam2ImageEmbeddingsInMemoryCache:
    """Of the size that was chosen; for a model asked for by name a share of what is available."""
    if choice is not None:
        max_bytes = choice.cache_bytes
    else:
        available = available_memory_bytes() if monitor is None else monitor.read().free_bytes
        known = [b for b in (available, cap) if b is not None]
        max_bytes = int(min(known) * CACHE_SHARE) if known else None
    # On the device: a hit sends nothing, and on a Jetson both memories are one.
    return Sam2ImageEmbeddingsInMemoryCache.init(
        size_limit=100 if max_bytes is None else None, send_to_cpu=False, max_bytes=max_bytes
    )
