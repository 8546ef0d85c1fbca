"""Pixels -> model input, and prompts in photo pixels -> prompts in model pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2edge.datatypes import FloatArray, ImagePrompt, IntArray

# ImageNet's mean and standard deviation of RGB in 0..1, which SAM 2 was trained with.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


def image_to_input(pixels: NDArray[np.uint8], color_order: str, image_size: int) -> FloatArray:
    """(H, W, 3) uint8 -> (1, 3, S, S) float32 RGB, normalised; the aspect ratio is not kept (as SAM 2 does it).

    A side that shrinks is averaged over its area, which stands for the antialiased bilinear filter of the original.
    """
    return normalised(_resize(pixels, image_size), color_order)


def shrunk_frame(pixels: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8] | None:
    """(S, S, 3) uint8, to be normalised elsewhere; None where a side grows, whose fractions uint8 would round away."""
    return None if min(pixels.shape[:2]) < image_size else np.ascontiguousarray(_resize(pixels, image_size))


def normalised(resized: NDArray[Any], color_order: str) -> FloatArray:
    """(S, S, 3) in 0..255 -> (1, 3, S, S) float32 RGB: (x / 255 - mean) / std, ImageNet's."""
    out = np.empty((1, 3, *resized.shape[:2]), np.float32)
    for channel, (mean, std) in enumerate(zip(MEAN_RGB, STD_RGB, strict=True)):
        source = channel if color_order == "rgb" else 2 - channel
        np.multiply(resized[..., source], 1.0 / (255.0 * std), out=out[0, channel], dtype=np.float32)
        out[0, channel] -= mean / std
    return out


def _resize(pixels: NDArray[np.uint8], size: int) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    shrunk_wh = (min(width, size), min(height, size))
    if shrunk_wh != (width, height):
        pixels = cv2.resize(pixels, shrunk_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if shrunk_wh == (size, size):
        return pixels
    # Enlarging in float32 keeps the fractions that uint8 would round away.
    return cv2.resize(pixels.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def prompts_to_model(
    prompt: ImagePrompt, image_size_hw: tuple[int, int], image_size: int
) -> tuple[FloatArray, IntArray]:
    """The prompts as the mask decoder takes them: coords (K, N', 2) in model pixels, labels (K, N').

    A box becomes its two corners, placed before the clicks. At least one slot comes out: an absent one where the
    prompt is a mask alone.
    """
    height, width = image_size_hw
    scale = np.array([image_size / width, image_size / height], np.float32)
    coords, labels = prompt.point_coords * scale, prompt.point_labels
    if prompt.boxes_xyxy is not None:
        corners = prompt.boxes_xyxy.reshape(-1, 2, 2) * scale
        kinds = np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.int32), (prompt.num_objects, 1))
        coords, labels = np.concatenate((corners, coords), axis=1), np.concatenate((kinds, labels), axis=1)
    if coords.shape[1] == 0:
        coords = np.zeros((prompt.num_objects, 1, 2), np.float32)
        labels = np.full((prompt.num_objects, 1), ABSENT, np.int32)
    return coords.astype(np.float32), labels.astype(np.int32)


def antialiased_resize(plane: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """(H, W) float32 resized as torch's antialiased bilinear interpolation does it, pixel centres at half.

    For masks that are given as prompts; OpenCV has no such filter.
    """
    height, width = size_hw
    rows, columns = _triangle_filter(plane.shape[0], height), _triangle_filter(plane.shape[1], width)
    return np.ascontiguousarray(rows @ plane @ columns.T, dtype=np.float32)


def _triangle_filter(source: int, target: int) -> FloatArray:
    """The matrix (target, source) of one axis: triangles as wide as the step, at least one source pixel."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centre) / support
    weight = np.maximum(0.0, 1.0 - distance)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
