"""Pixels as the model takes them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, H, W) float, ImageNet mean and deviation."""
    scaled = (image.astype(np.float32) / 255.0 - _MEAN) / _DEVIATION
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
