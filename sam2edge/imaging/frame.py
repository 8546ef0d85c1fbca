"""The way in and out: numpy, torch, PIL or a file -> uint8 pixels -> model input; logits -> masks at frame size."""

from __future__ import annotations

from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import read_photo

FloatArray = NDArray[np.float32]

COLOR_FORMATS = ("bgr", "rgb")
# PIL's modes that numpy reads as grey, grey 16-bit, RGB or RGBA; PIL converts every other one to RGB first.
_PIL_PLAIN_MODES = ("L", "I;16", "RGB", "RGBA")

# ImageNet's mean and standard deviation of RGB in 0..1, which SAM 2 was trained with.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)

# SAM 2's published settings for falling back from the single mask to the best of three.
STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98

# Rows that one product makes, and about the rows of the source converted at a time: the quickest of those tried.
_BLOCK_ROWS = 8
_BAND_ROWS = 256

_PILLOW_ONE = 2.0**22

LOGIT_LIMIT = 32.0
"""Returned logits are clipped to this, as the official predictor does."""


def is_torch_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def is_pil_image(value: object) -> bool:
    """Whether `value` is a PIL image, without importing PIL."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def as_numpy(value: Any) -> NDArray[Any]:
    """A numpy array of `value`; torch tensors are fetched to the host first."""
    return value.detach().cpu().numpy() if is_torch_tensor(value) else np.asarray(value)


def frame_to_uint8(image: Any, color_format: str | None = None) -> tuple[NDArray[np.uint8], str]:
    """(H, W, 3) uint8 pixels and their colour order ("bgr" or "rgb"), whatever form the image comes in.

    - numpy: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), BGR unless `color_format` says "rgb".
    - torch: (C, H, W) with C of 1, 3 or 4, RGB unless `color_format` says "bgr".
    - PIL: always RGB; its pixels are taken as they lie, `PIL.ImageOps.exif_transpose` turns them upright.
    - a path (str or Path): the photo in that file, upright, see `read_photo`.

    Grey is repeated, alpha is dropped. uint8 is taken as it is, uint16 is divided by 257, floating point lies in
    0..1, or, where a value is above 1, in 0..255. Raises InvalidInputError otherwise.
    """
    if color_format is not None and str(color_format).lower() not in COLOR_FORMATS:
        raise InvalidInputError("unknown input_color_format", expected="'bgr', 'rgb' or None", got=repr(color_format))
    if isinstance(image, np.ndarray):
        return _to_three_channels(image, "ndarray"), "bgr" if color_format is None else color_format.lower()
    if isinstance(image, (str, PathLike)):
        return read_photo(image), "bgr"
    if is_pil_image(image):
        plain = image if image.mode in _PIL_PLAIN_MODES else image.convert("RGB")
        return _to_three_channels(np.asarray(plain), "PIL image"), "rgb"
    pixels = as_numpy(image)
    if is_torch_tensor(image) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    order = "rgb" if is_torch_tensor(image) else "bgr"
    return _to_three_channels(pixels, type(image).__name__), order if color_format is None else color_format.lower()


def image_to_input(
    pixels: NDArray[np.uint8], color_order: str, image_size: int, resize: str = "bilinear"
) -> FloatArray:
    """(H, W, 3) uint8 -> (1, 3, S, S) float32 RGB: (x / 255 - mean) / std; the aspect ratio is not kept (as in SAM 2).

    `resize` is "bilinear", antialiased, as SAM 2 does it for images (exact to its transform but for float rounding), or
    "pillow-bicubic", as its loader of videos does it, rounded to 8 bits.
    """
    image = resize_pixels(pixels, color_order, image_size, resize)[None]
    for channel, (mean, std) in enumerate(zip(MEAN_RGB, STD_RGB, strict=True)):
        plane = image[0, channel]
        np.multiply(plane, 1.0 / (255.0 * std), out=plane)
        np.subtract(plane, mean / std, out=plane)
    return image


def resize_pixels(pixels: NDArray[np.uint8], color_order: str, size: int, resize: str) -> FloatArray:
    """(H, W, 3) uint8 -> (3, size, size) float32 planes R, G, B in 0..255."""
    height, width = pixels.shape[:2]
    channels = (0, 1, 2) if color_order == "rgb" else (2, 1, 0)
    if height == width == size:
        return np.stack([pixels[..., channel] for channel in channels]).astype(np.float32)
    # Pillow rounds after each of the two passes, and has whole numbers as weights, whose sums float64 holds exactly.
    rounds = resize == "pillow-bicubic"
    number = np.float64 if rounds else np.float32
    # Two passes of products with the weights of a few rows. Columns first: of a camera's picture they shrink the most.
    narrow: NDArray[Any] = np.empty((size, 3, height), number)
    for band in _filter_bands(width, size, resize):
        part = pixels[:, band.start : band.stop]
        columns = np.empty((band.stop - band.start, 3, height), number)
        for plane, channel in enumerate(channels):
            columns[:, plane] = cv2.transpose(cv2.extractChannel(part, channel))
        flat = columns.reshape(len(columns), -1)
        for row, start, weights in band.blocks:
            target = narrow[row : row + len(weights)].reshape(len(weights), -1)
            np.dot(weights, flat[start : start + weights.shape[1]], out=target)
    if rounds:
        np.clip(np.floor(narrow / _PILLOW_ONE + 0.5), 0, 255, out=narrow)
    out: NDArray[Any] = np.empty((3, size, size), number)
    for band in _filter_bands(height, size, resize):
        for row, start, weights in band.blocks:
            first = band.start + start
            for plane in range(3):
                source = narrow[:, plane, first : first + weights.shape[1]]
                np.dot(weights, source.T, out=out[plane, row : row + len(weights)])
    if rounds:
        out = np.clip(np.floor(out / _PILLOW_ONE + 0.5), 0, 255).astype(np.float32)
    return out


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


def antialiased_resize(plane: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """(H, W) float32 resized as torch's antialiased bilinear interpolation does it, pixel centres at half.

    For masks that are given as prompts; OpenCV has no such filter.
    """
    height, width = size_hw
    rows, columns = make_triangle_filter(plane.shape[0], height), make_triangle_filter(plane.shape[1], width)
    return np.ascontiguousarray(rows @ plane @ columns.T, dtype=np.float32)


def _to_three_channels(pixels: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise InvalidInputError(
            "image has an unusable shape",
            expected="numpy (H, W), (H, W, 3) or (H, W, 4), or torch (3, H, W), none of them empty",
            got=f"{kind} {tuple(np.shape(pixels))}",
            remedy="pass one image as cv2.imread gives it, or a list of images",
        )
    pixels = pixels if pixels.dtype == np.uint8 else _to_uint8(pixels)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(pixels)


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind != "f":
        raise InvalidInputError(
            "image has an unusable type",
            expected="uint8 (0..255), uint16 (0..65535) or floating point (0..1 or 0..255)",
            got=str(pixels.dtype),
            remedy="convert it with astype",
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0.0 and high <= 255.0):  # also false for NaN
        raise InvalidInputError(
            "floating-point image is out of range",
            expected="values in 0..1 or 0..255",
            got=f"{low:g}..{high:g}",
            remedy="pass the image before it is normalised",
        )
    return np.rint(pixels if high > 1.0 else pixels * 255.0).astype(np.uint8)


class _Band(NamedTuple):
    """Rows start..stop of the source, and the rows that are made of them: (row, first in the band, weights (N, K))."""

    start: int
    stop: int
    blocks: list[tuple[int, int, NDArray[Any]]]


@lru_cache(maxsize=8)
def _filter_bands(source: int, target: int, resize: str) -> list[_Band]:
    """The filter of one axis in bands, so that only a band of the source is held as float32 at a time."""
    is_bicubic = resize == "pillow-bicubic"
    weights: NDArray[Any] = _bicubic_filter(source, target) if is_bicubic else make_triangle_filter(source, target)
    rows = max(_BAND_ROWS * target // source // _BLOCK_ROWS, 1) * _BLOCK_ROWS
    bands = []
    for first in range(0, target, rows):
        used = np.flatnonzero(weights[first : first + rows].any(axis=0))
        start, stop = int(used[0]), int(used[-1]) + 1
        blocks = []
        for row in range(first, min(first + rows, target), _BLOCK_ROWS):
            block = weights[row : row + _BLOCK_ROWS]
            used = np.flatnonzero(block.any(axis=0))
            kept = np.ascontiguousarray(block[:, used[0] : used[-1] + 1])
            blocks.append((row, int(used[0]) - start, kept))
        bands.append(_Band(start, stop, blocks))
    return bands


def _bicubic_filter(source: int, target: int) -> NDArray[np.float64]:
    """The matrix (target, source) of Pillow's antialiased bicubic filter, a = -0.5, in whole parts of `_PILLOW_ONE`."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centre) / support
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = -0.5 * (((distance - 5) * distance + 8) * distance - 4)
    weight = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    share = weight / weight.sum(axis=1, keepdims=True)
    return np.asarray(np.trunc(share * _PILLOW_ONE + np.copysign(0.5, share)))


def make_triangle_filter(source: int, target: int) -> FloatArray:
    """The matrix (target, source) of one axis: triangles as wide as the step, at least one source pixel."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centre) / support
    weight = np.maximum(0.0, 1.0 - distance)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
