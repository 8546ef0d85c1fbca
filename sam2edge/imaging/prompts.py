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
_MOST_LOGIT = 1e4  # predictions give 32 at most; float16 ends at 65504


def read_prompts(
    image_sizes_hw: Sequence[tuple[int, int]],
    point_coordinates: Any = None,
    point_labels: Any = None,
    boxes: Any = None,
    mask_input: Any = None,
    low_res_hw: tuple[int, int] = (256, 256),
) -> list[ImagePrompt]:
    """One prompt for each image.

    A list holds one element an image (None: nothing of this kind there), or one for all; anything else goes to every
    image. For one
    image: points (N, 2) with labels (N,), boxes (4,) or (1, 4), for one object; points (K, N, 2), labels (K, N),
    boxes (K, 4) for K objects; a list of K point arrays of different lengths for K ragged ones. `mask_input` is what
    `Sam2Prediction.logits` gave, or the prediction itself. Points lie in photo pixels, inside the photo; boxes are
    [x_min, y_min, x_max, y_max], and what reaches over the edge is cut off.

    Raises InvalidInputError for anything else, naming the image and the part.
    """
    parts: dict[str, Any] = {
        "point_coordinates": point_coordinates,
        "point_labels": point_labels,
        "boxes": boxes,
        "mask_input": mask_input,
    }
    count = len(image_sizes_hw)
    for name, value in parts.items():
        if not isinstance(value, (list, tuple)):
            parts[name] = [value] * count
        elif len(value) == 1:
            parts[name] = list(value) * count
        elif len(value) != count:
            raise InvalidInputError(
                f"{name} is a list of the wrong length",
                expected=f"one element an image, {count} in all",
                got=f"{len(value)} elements",
                remedy="pass a numpy array for prompts that go to every image",
            )
    points, labels, corners, masks = parts.values()
    return [
        _read_one(i, size_hw, points[i], labels[i], corners[i], masks[i], low_res_hw)
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
        kinds = np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.int32), (len(coords), 1))
        coords, labels = np.concatenate((corners, coords), axis=1), np.concatenate((kinds, labels), axis=1)
    if coords.shape[1] == 0:
        coords = np.zeros((len(coords), 1, 2), np.float32)
        labels = np.full((len(coords), 1), ABSENT, np.int32)
    return coords.astype(np.float32), labels.astype(np.int32)


def _read_one(
    index: int, size_hw: tuple[int, int], points: Any, labels: Any, boxes: Any, mask: Any, low_res_hw: tuple[int, int]
) -> ImagePrompt:
    if points is None and labels is not None:
        raise _error(index, "point_labels without point_coordinates", "both or neither", "labels alone")
    if points is None and boxes is None and mask is None:
        raise _error(index, "no prompt", "points, a box or mask_input", "none of them", "say what to segment")
    coords, kinds, corners, logits, per_object = None, None, None, None, False
    num_objects: int | None = None
    if points is not None:
        coords, kinds, per_object = _read_points(index, points, labels)
        _check_inside(index, coords, kinds, size_hw)
        num_objects = len(coords)
    if boxes is not None:
        corners = _read_boxes(index, boxes, size_hw)
        per_object = per_object or len(corners) > 1
        if num_objects not in (None, len(corners)):
            problem = "points and boxes name different numbers of objects"
            raise _error(index, problem, f"{len(corners)} of each", f"{num_objects}")
        num_objects = len(corners)
    if mask is not None:
        logits, mask_per_object = _read_mask(index, mask, low_res_hw, num_objects if per_object else None)
        per_object = per_object or mask_per_object
        num_objects = num_objects or len(logits)
    if coords is None or kinds is None:
        assert num_objects is not None
        coords, kinds = np.zeros((num_objects, 0, 2), np.float32), np.zeros((num_objects, 0), np.int32)
    return ImagePrompt(coords, kinds, corners, logits, per_object)


def _read_points(index: int, points: Any, labels: Any) -> tuple[FloatArray, IntArray, bool]:
    if labels is None:
        raise _error(index, "point_labels missing", "one label a point: 1 foreground, 0 background", "none")
    if isinstance(points, (list, tuple)) and points and np.ndim(points[0]) == 2:
        return (*_pad_ragged(index, points, labels), True)
    coords = _read_numbers(index, "point_coordinates", points)
    kinds: NDArray[np.float32] = _read_numbers(index, "point_labels", labels)
    coords = coords[None] if coords.shape == (2,) else coords
    kinds = kinds[None] if kinds.ndim == 0 else kinds
    if coords.ndim not in (2, 3) or coords.shape[-1] != 2 or coords.shape[-2] == 0:
        raise _error(index, "point_coordinates have an unusable shape", "(N, 2) or (K, N, 2)", str(coords.shape))
    if kinds.shape != coords.shape[:-1]:
        raise _error(index, "point_labels do not match the points", str(coords.shape[:-1]), str(kinds.shape))
    if not np.isin(kinds, (FOREGROUND, BACKGROUND, PADDING)).all():
        raise _error(
            index, "unknown point label", "1 (foreground), 0 (background) or -1 (padding)", str(kinds.tolist())
        )
    per_object = coords.ndim == 3
    if not per_object:
        coords, kinds = coords[None], kinds[None]
    return coords, kinds.astype(np.int32), per_object


def _pad_ragged(index: int, points: Sequence[Any], labels: Sequence[Any]) -> tuple[FloatArray, IntArray]:
    if len(points) != len(labels):
        raise _error(index, "ragged points and labels differ in length", f"{len(points)} label lists", f"{len(labels)}")
    rows = [_read_points(index, as_numpy(p), as_numpy(li)) for p, li in zip(points, labels, strict=True)]
    longest = max(c.shape[1] for c, _, _ in rows)
    coords = np.zeros((len(rows), longest, 2), np.float32)
    # Absent, not SAM 2's padding label: a padding token would change the result of the shorter rows.
    kinds = np.full((len(rows), longest), ABSENT, np.int32)
    for k, (row_coords, row_kinds, _) in enumerate(rows):
        coords[k, : row_coords.shape[1]] = row_coords[0]
        kinds[k, : row_kinds.shape[1]] = row_kinds[0]
    return coords, kinds


def _read_boxes(index: int, boxes: Any, size_hw: tuple[int, int]) -> FloatArray:
    corners = _read_numbers(index, "boxes", boxes)
    if corners.shape != (4,) and not (corners.ndim == 2 and corners.shape[1] == 4 and len(corners) > 0):
        raise _error(
            index, "boxes have an unusable shape", "(4,) or (K, 4), x_min y_min x_max y_max", str(corners.shape)
        )
    corners = corners.reshape(-1, 4)
    height, width = size_hw
    for box in corners:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise _error(
                index,
                "box is turned round or empty",
                "[x_min, y_min, x_max, y_max] with x_min < x_max and y_min < y_max",
                str(box.tolist()),
            )
        if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
            raise _error(index, "box lies outside the photo", f"inside {width}x{height} pixels", str(box.tolist()))
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(corners, 0, limit)


def _read_mask(index: int, mask: Any, low_res_hw: tuple[int, int], objects: int | None) -> tuple[FloatArray, bool]:
    if isinstance(mask, Sam2Prediction):
        mask = mask.logits
    scores = mask.scores if isinstance(mask, ScoredLogits) else None
    logits = _read_numbers(index, "mask_input", mask)
    usable = logits.ndim in (2, 3, 4) and logits.shape[-2:] == low_res_hw and 0 not in logits.shape
    if not usable:
        h, w = low_res_hw
        raise _error(
            index,
            "mask_input has an unusable shape",
            f"low-resolution logits ({h}, {w}), (C, {h}, {w}) or (K, C, {h}, {w}) as a prediction of this model gave",
            str(logits.shape),
            "pass results[i].logits",
        )
    if np.abs(logits).max() > _MOST_LOGIT:
        raise _error(
            index, "mask_input is too large", f"logits of at most {_MOST_LOGIT:g}", f"{np.abs(logits).max():g}"
        )
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim == 4:
        chosen = np.stack([_choose_best(li, None if scores is None else scores[k]) for k, li in enumerate(logits)])
    elif objects is not None and len(logits) == objects:
        chosen = logits
    else:
        chosen = _choose_best(logits, scores)[None]
    if objects is not None and len(chosen) != objects:
        raise _error(index, "mask_input does not match the objects", f"{objects} masks", f"{len(chosen)}")
    return np.ascontiguousarray(chosen), logits.ndim == 4


def _choose_best(logits: FloatArray, scores: FloatArray | None) -> FloatArray:
    """The mask of (C, h, w) with the highest score; the most stable one where no scores are known."""
    ranking = stability(logits, _RANKING_DELTA) if scores is None else scores
    return np.asarray(logits[int(np.argmax(ranking))])


def _check_inside(index: int, coords: FloatArray, kinds: IntArray, size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    counted = coords[kinds >= BACKGROUND]
    outside = (counted < 0).any(axis=-1) | (counted[:, 0] > width) | (counted[:, 1] > height)
    if outside.any():
        raise _error(
            index,
            "point lies outside the photo",
            f"x in 0..{width}, y in 0..{height}",
            str(counted[outside][0].tolist()),
            "give photo pixels, x before y",
        )


def _read_numbers(index: int, name: str, value: Any) -> NDArray[np.float32]:
    try:
        array = value if isinstance(value, np.ndarray) else as_numpy(value)
        numbers = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise _error(index, f"{name} are not numbers", "a numeric array", type(value).__name__) from error
    if not np.isfinite(numbers).all():
        raise _error(index, f"{name} hold NaN or infinity", "finite numbers", "a value that is not")
    return numbers


def _error(index: int, problem: str, expected: str, got: str, remedy: str | None = None) -> InvalidInputError:
    return InvalidInputError(f"image {index}: {problem}", expected=expected, got=got, remedy=remedy)
