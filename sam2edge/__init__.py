"""sam2edge: SAM 2 on small devices. Names are resolved on first use, so importing it stays light."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2edge.automodel import AutoModel
    from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
    from sam2edge.datatypes import Sam2ImageEmbedding, Sam2Prediction
    from sam2edge.errors import Sam2EdgeError
    from sam2edge.imaging.overlay import draw_masks
    from sam2edge.predictor import ImagePredictor
    from sam2edge.tracker import VideoTracker
    from sam2edge.variants import VARIANTS

__version__ = "0.1.0"

# From 1.24 or so on ONNX Runtime reports to its maker as it is imported; after that nothing stops it any more.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AutoModel": "automodel",
    "ImagePredictor": "predictor",
    "Sam2EdgeError": "errors",
    "Sam2ImageEmbedding": "datatypes",
    "Sam2ImageEmbeddingsInMemoryCache": "cache",
    "Sam2LowResolutionMasksInMemoryCache": "cache",
    "Sam2Prediction": "datatypes",
    "VARIANTS": "variants",
    "VideoTracker": "tracker",
    "draw_masks": "imaging.overlay",
}

__all__ = [
    "VARIANTS",
    "AutoModel",
    "ImagePredictor",
    "Sam2EdgeError",
    "Sam2ImageEmbedding",
    "Sam2ImageEmbeddingsInMemoryCache",
    "Sam2LowResolutionMasksInMemoryCache",
    "Sam2Prediction",
    "VideoTracker",
    "draw_masks",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sam2edge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sam2edge.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
