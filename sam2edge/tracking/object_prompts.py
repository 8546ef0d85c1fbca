"""Prompts of one or several objects on one frame -> one checked prompt each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT
from sam2edge.datatypes import FloatArray, ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import as_numpy
from sam2edge.imaging.prompts import read_prompts

Prompt = ImagePrompt | NDArray[np.bool_]
"""Points and box of one object, or its mask (H, W)."""


def split_prompt(
    points: Any, labels: Any, box: Any, scale: FloatArray, size_hw: tuple[int, int], is_single: bool
) -> Sequence[ImagePrompt]:
    """One prompt an object: (N, 2), (N,) and (4,) where `is_single`, else all with a leading K.

    Several objects may have different numbers of points: a list of arrays then. `scale` (2,) turns x and y into pixels.
    Raises InvalidInputError.
    """
    if not is_single and isinstance(points, (list, tuple)):
        points = [_to_array(one, scale) for one in points]
        labels = [_to_array(one) for one in labels] if isinstance(labels, (list, tuple)) else labels
        (found,) = read_prompts([size_hw], [points], [labels], _to_array(box, np.tile(scale, 2)))
    else:
        (found,) = read_prompts(
            [size_hw], _to_array(points, scale), _to_array(labels), _to_array(box, np.tile(scale, 2))
        )
    prompts = []
    for k in range(found.num_objects):
        used = found.point_labels[k] > ABSENT
        boxes = None if found.boxes_xyxy is None else found.boxes_xyxy[k : k + 1]
        prompts.append(ImagePrompt(found.point_coords[k][used][None], found.point_labels[k][used][None], boxes))
    return prompts


def read_masks(mask: Any, size_hw: tuple[int, int], count: int, with_others: bool) -> Sequence[NDArray[np.bool_]]:
    """Masks (H, W), or (K, H, W), not 0 inside. Raises InvalidInputError."""
    if with_others:
        raise InvalidInputError("mask together with points or a box", expected="one of them", got="both")
    inside = as_numpy(mask) != 0
    if inside.shape not in (size_hw, (count, *size_hw)):
        raise InvalidInputError("mask does not fit the frame", expected=f"shape {size_hw}", got=inside.shape)
    masks = [np.asarray(one, np.bool_) for one in inside.reshape(-1, *size_hw)]
    if not all(one.any() for one in masks):
        raise InvalidInputError(
            "mask is empty", expected="at least one pixel inside", got="none", remedy="remove_object ends an object"
        )
    return masks


def _to_array(value: Any, scale: FloatArray | None = None) -> Any:
    """An array: a list would be read as one element an image. What cannot be scaled is left for `read_prompts`."""
    if value is None:
        return None
    array = np.asarray(as_numpy(value))
    if scale is None or (scale == 1).all() or array.dtype.kind not in "fiu" or array.shape[-1:] != scale.shape:
        return array
    return array * scale
