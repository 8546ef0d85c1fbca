"""Masks made clean: specks and small holes go, a box's mask ends at its box; and a second look at a crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import BACKGROUND, FOREGROUND
from sam2edge.datatypes import FloatArray, ImagePrompt
from sam2edge.imaging.frame import LOGIT_LIMIT

NONE, CLEAN, CROP = "none", "clean", "crop"
WAYS = (NONE, CLEAN, CROP)

SPECK_SHARE = 0.1
"""Pieces below this share of a mask's largest one are specks, unless a foreground click lies on them."""

HOLE_SHARE = 0.02
"""Holes below this share of the whole mask are filled, unless a background click lies in them."""

CROP_MARGIN = 1.4
"""Side of the crop over the longer side of the box; measured on photographs."""

_SMALLEST_BOX = 16.0  # pixels; a crop of fewer shows nothing but its enlargement

CROP_WORTH = 0.6
"""No second look where the crop is more than this share of the picture's longer side: it would show little more."""


def refine_logits(logits: FloatArray, coords: FloatArray, labels: NDArray[np.int32], threshold: float) -> FloatArray:
    """Logits (K, C, h, w) without specks and small holes: there they change their sign about `threshold`.

    coords (K, N, 2) and labels (K, N): the prompts, in cells of the logits; clicks keep what they lie on.
    """
    cleaned = logits.copy()
    for k in range(len(logits)):
        kept_on, kept_off = (coords[k][labels[k] == label] for label in (FOREGROUND, BACKGROUND))
        for plane in cleaned[k]:
            for find, clicks in ((_specks, kept_on), (_holes, kept_off)):
                cells = find(plane > threshold, clicks)
                plane[cells] = 2.0 * threshold - plane[cells]
    return cleaned


def _specks(inside: NDArray[np.bool_], clicks: FloatArray) -> NDArray[np.bool_]:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    if count < 3:
        return np.zeros_like(inside)
    small = areas < SPECK_SHARE * areas[1:].max()
    small[0] = False
    small[_under(pieces, clicks)] = False
    return np.asarray(small[pieces], bool)


def _holes(inside: NDArray[np.bool_], clicks: FloatArray) -> NDArray[np.bool_]:
    """Pieces of the background, the one that reaches the picture's edge never being a hole."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((~inside).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < HOLE_SHARE * inside.sum()
    small[0] = False
    small[np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))] = False
    small[_under(pieces, clicks)] = False
    return np.asarray(small[pieces], bool)


def _under(pieces: NDArray[Any], clicks: FloatArray) -> NDArray[np.int32]:
    """Numbers of the pieces that the clicks (N, 2) lie on."""
    at = np.clip(clicks.astype(int), 0, np.array(pieces.shape[::-1]) - 1)
    return pieces[at[:, 1], at[:, 0]]


def cut_at_boxes(masks: NDArray[np.bool_], boxes_xyxy: FloatArray) -> None:
    """Empties masks (K, C, H, W) bool where they reach over their box (K, 4), in place."""
    for of_object, (x1, y1, x2, y2) in zip(masks, boxes_xyxy, strict=True):
        left, top, right, bottom = int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2))
        of_object[:, :top] = False
        of_object[:, bottom:] = False
        of_object[:, :, :left] = False
        of_object[:, :, right:] = False


Window = tuple[int, int, int, int]


def crops_of(prompt: ImagePrompt, size_hw: tuple[int, int]) -> dict[int, tuple[Window, ImagePrompt]]:
    """For each object that is worth a second look: x1, y1, x2, y2 of its crop, and its prompt as the crop shows it."""
    found: dict[int, tuple[Window, ImagePrompt]] = {}
    for k, box in enumerate(() if prompt.boxes_xyxy is None else prompt.boxes_xyxy):
        window = crop_window(box, size_hw)
        inner = None if window is None else _prompt_in_window(prompt, k, window)
        if window is not None and inner is not None:
            found[k] = (window, inner)
    return found


def crop_window(box_xyxy: FloatArray, size_hw: tuple[int, int]) -> Window | None:
    """The part of the picture to look at again, as square as the picture allows; None where that is most of it."""
    height, width = size_hw
    x1, y1, x2, y2 = (float(v) for v in box_xyxy)
    side = CROP_MARGIN * max(x2 - x1, y2 - y1, _SMALLEST_BOX)
    if side > CROP_WORTH * max(height, width):
        return None
    spans = []
    for low, high, length in ((x1, x2, width), (y1, y2, height)):
        span = min(round(side), length)
        start = min(max(round((low + high - span) / 2), 0), length - span)
        spans.append((start, start + span))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _prompt_in_window(prompt: ImagePrompt, index: int, window: Window) -> ImagePrompt | None:
    """One object's prompt as the crop shows it, or None where a foreground click lies outside."""
    x1, y1, x2, y2 = window
    coords, labels = prompt.point_coords[index], prompt.point_labels[index]
    shifted = coords - np.array([x1, y1], np.float32)
    inside = ((shifted >= 0) & (shifted < (x2 - x1, y2 - y1))).all(axis=1)
    if ((labels == FOREGROUND) & ~inside).any():
        return None
    assert prompt.boxes_xyxy is not None
    box = prompt.boxes_xyxy[index] - np.array([x1, y1, x1, y1], np.float32)
    return ImagePrompt(shifted[inside][None], labels[inside][None], box[None], per_object=True)


def paste_logits(logits: FloatArray, window: Window, size_hw: tuple[int, int]) -> FloatArray:
    """Logits (C, h, w) of a window of a picture -> those of the whole picture, of the same shape, low outside."""
    height, width = size_hw
    x1, y1, x2, y2 = window
    rows, columns = logits.shape[-2:]
    scale_x, scale_y = (x2 - x1) / width, (y2 - y1) / height
    shift_x = (x1 / width) * columns + 0.5 * scale_x - 0.5
    shift_y = (y1 / height) * rows + 0.5 * scale_y - 0.5
    place = np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y]])
    pasted = [
        cv2.warpAffine(plane, place, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=-LOGIT_LIMIT)
        for plane in logits
    ]
    return np.stack(pasted)


class PhotoMasks(NamedTuple):
    """masks (K, C, H, W) bool or float32, scores (K, C), logits (K, C, h, w) of K objects."""

    masks: NDArray[Any]
    scores: FloatArray
    logits: FloatArray


def look_again(
    found: PhotoMasks,
    pixels: NDArray[np.uint8],
    prompt: ImagePrompt,
    find_in_crop: Callable[[NDArray[np.uint8], ImagePrompt], PhotoMasks],
) -> None:
    """Replaces, in place, what was found by what a crop around each box shows, where the box is small enough."""
    size_hw = (pixels.shape[0], pixels.shape[1])
    for k, (window, inner_prompt) in crops_of(prompt, size_hw).items():
        x1, y1, x2, y2 = window
        inner = find_in_crop(np.ascontiguousarray(pixels[y1:y2, x1:x2]), inner_prompt)
        found.masks[k] = False if found.masks.dtype == np.bool_ else -LOGIT_LIMIT
        found.masks[k, :, y1:y2, x1:x2] = inner.masks[0]
        found.scores[k], found.logits[k] = inner.scores[0], paste_logits(inner.logits[0], window, size_hw)
