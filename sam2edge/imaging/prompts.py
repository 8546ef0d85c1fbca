"""Points, boxes and masks of a caller -> one checked `ImagePrompt` an image -> what the mask decoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, PADDING
from sam2edge.datatypes import FloatArray, ImagePrompt, IntArray, Sam2Prediction, ScoredLogits
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import as_numpy, stability

# Segment Anything's published offset for ranking masks by stability.
_RANKING_DELTA = 1.0


def read_prompts(
    image_sizes_hw: Sequence[tuple[int, int]],
    point_coordinates: Any = None,
    point_labels: Any = None,
    boxes: Any = None,
    mask_input: Any = None,
    low_res_hw: tuple[int, int] = (256, 256),
) -> list[ImagePrompt]:
    """One prompt for each image.

    A list holds one element an image (None: nothing of this kind there); anything else goes to every image. For one
    image: points (N, 2) with labels (N,), boxes (4,) or (1, 4), for one object; points (K, N, 2), labels (K, N),
    boxes (K, 4) for K objects; a list of K point arrays of different lengths for K ragged ones. `mask_input` is what
    `Sam2Prediction.logits` gave, or the prediction itself. Points lie in photo pixels, inside the photo; boxes are
    [x_min, y_min, x_max, y_max], and what reaches over the edge is cut off.

    Raises InvalidInputError for anything else, naming the image and the part.
    """
    count = len(image_sizes_hw)
    parts = {
        "point_coordinates": _per_image("point_coordinates", point_coordinates, count),
        "point_labels": _per_image("point_labels", point_labels, count),
        "boxes": _per_image("boxes", boxes, count),
        "mask_input": _per_image("mask_input", mask_input, count),
    }
    return [
        _read_one(
            i,
            size_hw,
            parts["point_coordinates"][i],
            parts["point_labels"][i],
            parts["boxes"][i],
            parts["mask_input"][i],
            low_res_hw,
        )
        for i, size_hw in enumerate(image_sizes_hw)
    ]


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


def _per_image(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise InvalidInputError(
            f"{name} is a list of the wrong length",
            expected=f"one element an image, {count} in all",
            got=f"{len(value)} elements",
            remedy="pass a numpy array for prompts that go to every image",
        )
    return list(value)


def _read_one(
    index: int, size_hw: tuple[int, int], points: Any, labels: Any, boxes: Any, mask: Any, low_res_hw: tuple[int, int]
) -> ImagePrompt:
    if points is None and labels is not None:
        raise _bad(index, "point_labels without point_coordinates", "both or neither", "labels alone")
    if points is None and boxes is None and mask is None:
        raise _bad(index, "no prompt", "points, a box or mask_input", "none of them", "say what to segment")
    coords, kinds, points_per_object = _read_points(index, points, labels)
    corners, boxes_per_object = _read_boxes(index, boxes, size_hw)
    objects = _num_objects(index, coords, corners)
    per_object = points_per_object or boxes_per_object
    logits, mask_per_object = _read_mask(index, mask, low_res_hw, objects if per_object else None)
    objects = objects if objects is not None else len(logits) if logits is not None else 1
    if coords is None or kinds is None:
        coords, kinds = np.zeros((objects, 0, 2), np.float32), np.zeros((objects, 0), np.int32)
    _check_inside(index, coords, kinds, size_hw)
    return ImagePrompt(coords, kinds, corners, logits, per_object or mask_per_object)


def _read_points(index: int, points: Any, labels: Any) -> tuple[FloatArray | None, IntArray | None, bool]:
    if points is None:
        return None, None, False
    if labels is None:
        raise _bad(index, "point_labels missing", "one label a point: 1 foreground, 0 background", "none")
    if isinstance(points, (list, tuple)) and points and np.ndim(points[0]) == 2:
        return (*_pad_ragged(index, points, labels), True)
    coords = _numbers(index, "point_coordinates", points)
    kinds: NDArray[np.float32] = _numbers(index, "point_labels", labels)
    coords = coords[None] if coords.shape == (2,) else coords
    kinds = kinds[None] if kinds.ndim == 0 else kinds
    if coords.ndim not in (2, 3) or coords.shape[-1] != 2 or coords.shape[-2] == 0:
        raise _bad(index, "point_coordinates have an unusable shape", "(N, 2) or (K, N, 2)", str(coords.shape))
    if kinds.shape != coords.shape[:-1]:
        raise _bad(index, "point_labels do not match the points", str(coords.shape[:-1]), str(kinds.shape))
    if not np.isin(kinds, (FOREGROUND, BACKGROUND, PADDING)).all():
        raise _bad(index, "unknown point label", "1 (foreground), 0 (background) or -1 (padding)", str(kinds.tolist()))
    per_object = coords.ndim == 3
    if not per_object:
        coords, kinds = coords[None], kinds[None]
    return coords, kinds.astype(np.int32), per_object


def _pad_ragged(index: int, points: Sequence[Any], labels: Sequence[Any]) -> tuple[FloatArray, IntArray]:
    if len(points) != len(labels):
        raise _bad(index, "ragged points and labels differ in length", f"{len(points)} label lists", f"{len(labels)}")
    rows = [_read_points(index, as_numpy(p), as_numpy(li)) for p, li in zip(points, labels, strict=True)]
    longest = max(c.shape[1] for c, _, _ in rows if c is not None)
    coords = np.zeros((len(rows), longest, 2), np.float32)
    # Absent, not SAM 2's padding label: a padding token would change the result of the shorter rows.
    kinds = np.full((len(rows), longest), ABSENT, np.int32)
    for k, (row_coords, row_kinds, _) in enumerate(rows):
        assert row_coords is not None and row_kinds is not None
        coords[k, : row_coords.shape[1]] = row_coords[0]
        kinds[k, : row_kinds.shape[1]] = row_kinds[0]
    return coords, kinds


def _read_boxes(index: int, boxes: Any, size_hw: tuple[int, int]) -> tuple[FloatArray | None, bool]:
    if boxes is None:
        return None, False
    corners = _numbers(index, "boxes", boxes)
    if corners.shape != (4,) and not (corners.ndim == 2 and corners.shape[1] == 4 and len(corners) > 0):
        raise _bad(index, "boxes have an unusable shape", "(4,) or (K, 4), x_min y_min x_max y_max", str(corners.shape))
    corners = corners.reshape(-1, 4)
    height, width = size_hw
    for box in corners:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise _bad(
                index,
                "box is turned round or empty",
                "[x_min, y_min, x_max, y_max] with x_min < x_max and y_min < y_max",
                str(box.tolist()),
            )
        if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
            raise _bad(index, "box lies outside the photo", f"inside {width}x{height} pixels", str(box.tolist()))
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(corners, 0, limit), len(corners) > 1


def _num_objects(index: int, coords: FloatArray | None, corners: FloatArray | None) -> int | None:
    counts = {len(part) for part in (coords, corners) if part is not None}
    if len(counts) > 1:
        assert coords is not None and corners is not None
        raise _bad(
            index, "points and boxes name different numbers of objects", f"{len(corners)} of each", f"{len(coords)}"
        )
    return counts.pop() if counts else None


def _read_mask(
    index: int, mask: Any, low_res_hw: tuple[int, int], objects: int | None
) -> tuple[FloatArray | None, bool]:
    if mask is None:
        return None, False
    if isinstance(mask, Sam2Prediction):
        mask = mask.logits
    scores = mask.scores if isinstance(mask, ScoredLogits) else None
    logits = _numbers(index, "mask_input", mask)
    usable = logits.ndim in (2, 3, 4) and logits.shape[-2:] == low_res_hw and 0 not in logits.shape
    if not usable:
        h, w = low_res_hw
        raise _bad(
            index,
            "mask_input has an unusable shape",
            f"low-resolution logits ({h}, {w}), (C, {h}, {w}) or (K, C, {h}, {w}) as a prediction of this model gave",
            str(logits.shape),
            "pass results[i].logits",
        )
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim == 4:
        chosen = np.stack([_best(li, None if scores is None else scores[k]) for k, li in enumerate(logits)])
    elif objects is not None and len(logits) == objects:
        chosen = logits
    else:
        chosen = _best(logits, scores)[None]
    if objects is not None and len(chosen) != objects:
        raise _bad(index, "mask_input does not match the objects", f"{objects} masks", f"{len(chosen)}")
    return np.ascontiguousarray(chosen), logits.ndim == 4


def _best(logits: FloatArray, scores: FloatArray | None) -> FloatArray:
    """The mask of (C, h, w) with the highest score; the most stable one where no scores are known."""
    ranking = stability(logits, _RANKING_DELTA) if scores is None else scores
    return np.asarray(logits[int(np.argmax(ranking))])


def _check_inside(index: int, coords: FloatArray, kinds: IntArray, size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    counted = coords[kinds >= BACKGROUND]
    outside = (counted < 0).any(axis=-1) | (counted[:, 0] > width) | (counted[:, 1] > height)
    if outside.any():
        raise _bad(
            index,
            "point lies outside the photo",
            f"x in 0..{width}, y in 0..{height}",
            str(counted[outside][0].tolist()),
            "give photo pixels, x before y",
        )


def _numbers(index: int, name: str, value: Any) -> NDArray[np.float32]:
    try:
        numbers = np.asarray(as_numpy(value), dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad(index, f"{name} are not numbers", "a numeric array", type(value).__name__) from error
    if not np.isfinite(numbers).all():
        raise _bad(index, f"{name} hold NaN or infinity", "finite numbers", "a value that is not")
    return numbers


def _bad(index: int, problem: str, expected: str, got: str, remedy: str | None = None) -> InvalidInputError:
    return InvalidInputError(f"image {index}: {problem}", expected=expected, got=got, remedy=remedy)
