"""From an encoded photo and a prompt to masks at the photo's size: decoded, cleaned, enlarged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend
from sam2edge.datatypes import Features, FloatArray, ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import LOGIT_LIMIT, logits_to_masks, select_masks
from sam2edge.imaging.prompts import prompts_to_model
from sam2edge.imaging.refine import CROP, NONE, WAYS, crops_of, cut_at_boxes, paste_logits, refine_logits
from sam2edge.imaging.regions import clean_logits


class MaskOptions(NamedTuple):
    """How low-resolution logits become masks: three or one, as logits or bool, cleaned, refined in one of `WAYS`."""

    several: bool
    return_logits: bool
    threshold: float
    max_hole_area: float
    max_sprinkle_area: float
    refine: str


def read_mask_options(
    several: bool,
    return_logits: bool,
    threshold: Any,
    max_hole_area: float,
    max_sprinkle_area: float,
    refine: str,
    has_images: bool,
) -> MaskOptions:
    """Options as a caller gave them. Raises InvalidInputError for a threshold that is no number, and a `refine` that is
    unknown or, without images, cannot be done."""
    try:
        level = 0.0 if threshold is None else float(threshold)
    except (TypeError, ValueError, OverflowError):
        level = math.nan
    if not math.isfinite(level):
        got = repr(threshold)[:80]
        raise InvalidInputError("mask_threshold cannot be used", expected="a finite number, or None", got=got)
    if refine not in WAYS:
        raise InvalidInputError("unknown way to refine", expected=f"one of {', '.join(WAYS)}", got=repr(refine))
    if refine == CROP and not has_images:
        raise InvalidInputError(
            'refine="crop" looks at the image again',
            expected="images",
            got="embeddings",
            remedy='pass the image itself, or refine="clean"',
        )
    return MaskOptions(several, return_logits, level, float(max_hole_area), float(max_sprinkle_area), refine)


class PhotoMasks(NamedTuple):
    """masks (K, C, H, W) bool or float32, scores (K, C), logits (K, C, h, w) of K objects."""

    masks: NDArray[Any]
    scores: FloatArray
    logits: FloatArray


def find_masks(
    backend: Backend, features: Features, size_hw: tuple[int, int], prompt: ImagePrompt, options: MaskOptions
) -> PhotoMasks:
    """The masks of one prompt on the encoded photo of `size_hw` pixels."""
    coords, labels = prompts_to_model(prompt, size_hw, backend.image_size)
    out = backend.decode(features, coords, labels, prompt.mask_input)
    logits, scores = select_masks(out.low_res_masks, out.iou_scores, options.several)
    cleaned = logits
    if options.max_hole_area > 0 or options.max_sprinkle_area > 0:
        cleaned = clean_logits(logits, options.threshold, options.max_hole_area, options.max_sprinkle_area)
    is_refined = not (options.return_logits or options.refine == NONE)
    if is_refined:
        cells = coords * (logits.shape[-1] / backend.image_size)
        cleaned = refine_logits(cleaned, cells, labels, options.threshold)
    masks = logits_to_masks(cleaned, size_hw, options.threshold, options.return_logits)
    if is_refined and prompt.boxes_xyxy is not None:
        cut_at_boxes(masks, prompt.boxes_xyxy)
    return PhotoMasks(masks, scores, logits)


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
