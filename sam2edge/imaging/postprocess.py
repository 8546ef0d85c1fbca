"""Decoder output -> masks at photo size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.datatypes import FloatArray

# SAM 2's published settings for falling back from the single mask to the best of three.
STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98

LOGIT_LIMIT = 32.0
"""Returned logits are clipped to this, as the official predictor does."""


def select_masks(
    low_res_masks: FloatArray, iou_scores: FloatArray, multi_mask_output: bool
) -> tuple[FloatArray, FloatArray]:
    """Of the decoder's four masks (K, 4, h, w) with scores (K, 4): the three alternatives, or one.

    The one is the single-mask output where that is stable, else the best-scored alternative ("dynamic multi-mask via
    stability" of the official code).
    """
    if multi_mask_output:
        return low_res_masks[:, 1:], iou_scores[:, 1:]
    stable = stability(low_res_masks[:, 0], STABILITY_DELTA) >= STABILITY_THRESHOLD
    chosen = np.where(stable, 0, 1 + iou_scores[:, 1:].argmax(axis=1))
    rows = np.arange(len(chosen))
    return low_res_masks[rows, chosen][:, None], iou_scores[rows, chosen][:, None]


def stability(logits: FloatArray, delta: float) -> NDArray[np.float64]:
    """IoU of each mask (..., h, w) thresholded at +delta with itself at -delta; 1 where both are empty."""
    inner = np.count_nonzero(logits > delta, axis=(-2, -1))
    outer = np.count_nonzero(logits > -delta, axis=(-2, -1))
    return np.where(outer > 0, inner / np.maximum(outer, 1), 1.0)


def logits_to_masks(
    logits: FloatArray, image_size_hw: tuple[int, int], mask_threshold: float, return_logits: bool
) -> NDArray[Any]:
    """Logits (..., h, w) -> masks (..., H, W) at photo size: bool (logit > threshold), or float32 logits.

    Bilinear, pixel centres at half: what torch's interpolate(align_corners=False) gives.
    """
    height, width = image_size_hw
    flat = logits.reshape(-1, *logits.shape[-2:])
    out = np.empty((len(flat), height, width), np.float32 if return_logits else np.bool_)
    for i, plane in enumerate(flat):
        enlarged = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        out[i] = enlarged if return_logits else enlarged > mask_threshold
    return out.reshape(*logits.shape[:-2], height, width)
