"""sam2edge: SAM 2 on small devices. Names are resolved on first use, so importing it stays light."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2edge.automodel import AutoModel
    from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
    from sam2edge.datatypes import (
        BackendReport,
        Sam2ImageEmbedding,
        SAM2ImageEmbeddings,
        SAM2Prediction,
        Sam2Prediction,
        TrackResult,
    )
    from sam2edge.errors import (
        BackendUnavailableError,
        BundleError,
        CheckpointError,
        GraphError,
        InvalidInputError,
        OutOfMemoryError,
        Sam2EdgeError,
        StoreError,
        UnknownModelError,
    )
    from sam2edge.imaging.overlay import draw_masks
    from sam2edge.imaging.photo import read_photo, write_png
    from sam2edge.predictor import ImagePredictor
    from sam2edge.tracker import VideoTracker
    from sam2edge.variants import VARIANTS, find_variant
    from sam2edge.video.latest import LatestFrames
    from sam2edge.video.sinks import MaskSink, VideoSink
    from sam2edge.video.sources.choose import open_source

__version__ = "0.1.0"

# From 1.24 or so on ONNX Runtime reports to its maker as it is imported; after that nothing stops it any more.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AutoModel": "automodel",
    "BackendReport": "datatypes",
    "BackendUnavailableError": "errors",
    "BundleError": "errors",
    "CheckpointError": "errors",
    "GraphError": "errors",
    "ImagePredictor": "predictor",
    "InvalidInputError": "errors",
    "LatestFrames": "video.latest",
    "MaskSink": "video.sinks",
    "OutOfMemoryError": "errors",
    "SAM2ImageEmbeddings": "datatypes",
    "SAM2Prediction": "datatypes",
    "Sam2EdgeError": "errors",
    "Sam2ImageEmbedding": "datatypes",
    "Sam2ImageEmbeddingsInMemoryCache": "cache",
    "Sam2LowResolutionMasksInMemoryCache": "cache",
    "Sam2Prediction": "datatypes",
    "StoreError": "errors",
    "TrackResult": "datatypes",
    "UnknownModelError": "errors",
    "VARIANTS": "variants",
    "VideoSink": "video.sinks",
    "VideoTracker": "tracker",
    "draw_masks": "imaging.overlay",
    "find_variant": "variants",
    "open_source": "video.sources.choose",
    "read_photo": "imaging.photo",
    "write_png": "imaging.photo",
}

__all__ = [
    "VARIANTS",
    "AutoModel",
    "BackendReport",
    "BackendUnavailableError",
    "BundleError",
    "CheckpointError",
    "GraphError",
    "ImagePredictor",
    "InvalidInputError",
    "LatestFrames",
    "MaskSink",
    "OutOfMemoryError",
    "SAM2ImageEmbeddings",
    "SAM2Prediction",
    "Sam2EdgeError",
    "Sam2ImageEmbedding",
    "Sam2ImageEmbeddingsInMemoryCache",
    "Sam2LowResolutionMasksInMemoryCache",
    "Sam2Prediction",
    "StoreError",
    "TrackResult",
    "UnknownModelError",
    "VideoSink",
    "VideoTracker",
    "draw_masks",
    "find_variant",
    "open_source",
    "read_photo",
    "write_png",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sam2edge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sam2edge.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
