"""Small regions of a mask: holes that are filled, specks that are removed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# What Meta's predictors put in place of the logits of such a region, relative to the threshold.
_VIDEO_HOLE_LOGIT = 0.1
_PHOTO_STEP = 10.0


def fill_holes(logits: FloatArray, max_area: int) -> FloatArray:
    """Logits (h, w) whose holes of at most `max_area` pixels are just above 0, as Meta's video predictor fills them."""
    return np.where(find_small(logits <= 0, max_area), np.float32(_VIDEO_HOLE_LOGIT), logits)


def clean_logits(logits: FloatArray, threshold: float, max_hole_area: float, max_sprinkle_area: float) -> FloatArray:
    """Logits (..., h, w) without holes and specks of at most so many pixels, as Meta's image predictor does it."""
    cleaned = logits.reshape(-1, *logits.shape[-2:]).copy()
    for plane in cleaned:
        if max_hole_area > 0:
            plane[find_small(plane <= threshold, max_hole_area)] = threshold + _PHOTO_STEP
        if max_sprinkle_area > 0:
            plane[find_small(plane > threshold, max_sprinkle_area)] = threshold - _PHOTO_STEP
    return cleaned.reshape(logits.shape)


def find_small(mask: NDArray[np.bool_], max_area: float, *, spare_largest: bool = False) -> NDArray[np.bool_]:
    """Pixels of the regions of `mask` (8 neighbours) of at most `max_area` pixels.

    `spare_largest`: where all regions are so small, the largest is left out.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    small[0] = False  # what is not in `mask`
    if spare_largest and len(small) > 1 and small[1:].all():
        small[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())] = False
    found: NDArray[np.bool_] = small[labels]
    return found
