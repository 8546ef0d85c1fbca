"""Segment everything: a grid of clicks on one photo, and of the masks found the good ones, each once.

The method and its defaults are those of SAM's automatic mask generator (Kirillov et al. 2023, "Segment Anything",
appendix B; the values are SAM 2's release, but those of the embedded model, whose scores are lower).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend
from sam2edge.contract import FOREGROUND
from sam2edge.datatypes import Sam2ImageEmbedding
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import logits_to_masks
from sam2edge.imaging.object_masks import ObjectMasks
from sam2edge.imaging.packed_mask import PackedMask, PackedMasks, pack_mask
from sam2edge.imaging.refine import CLEAN, NONE, refine_logits
from sam2edge.imaging.regions import find_small
from sam2edge.variants import Variant

Embed = Callable[[NDArray[np.uint8], str], Sam2ImageEmbedding]
"""Encodes an image (H, W, 3) uint8 of the colour order "bgr" or "rgb"."""

_EDGE_PIXELS = 20  # a mask that ends this near to a crop's inner edge is cut off there


@dataclass(frozen=True)
class EverythingOptions:
    """How `segment_everything` searches and what it keeps.

    points_per_side: clicks along each side of the grid, at least 1.
    points_per_batch: clicks decoded at a time; fewer take less memory.
    min_score: least predicted IoU, 0..1; for the embedded model 0.4 by default.
    min_stability: least IoU of a mask thresholded at +stability_offset with itself at -stability_offset, 0..1; for the
        embedded model 0.75 by default.
    max_overlap: of two masks whose boxes have a larger IoU than this the better one is kept.
    crop_layers: layers of crops to search besides the photo, 4 in the first, 16 in the second: finds smaller objects.
    crop_overlap: how much neighbouring crops of the first layer overlap, as a share of the photo's shorter side.
    crop_points_divisor: each layer of crops has this many times fewer points a side.
    min_area: pixels; smaller islands and holes of a mask are removed. 0: none are.
    refine: "clean" removes specks and small holes, as for the embedded model by default, "none" does not.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    min_score: float = 0.8
    min_stability: float = 0.95
    stability_offset: float = 1.0
    max_overlap: float = 0.7
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_divisor: int = 1
    min_area: int = 0
    refine: str = NONE

    def __post_init__(self) -> None:
        whole = {"points_per_side": 1, "points_per_batch": 1, "crop_layers": 0, "crop_points_divisor": 1, "min_area": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name} cannot be used", expected=f"an int, at least {least}", got=repr(value))
        for name in ("min_score", "min_stability", "max_overlap", "crop_overlap"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidInputError(f"{name} cannot be used", expected="0 to 1", got=repr(value))
        if not 0 <= self.stability_offset < math.inf:
            raise InvalidInputError("stability_offset cannot be used", expected="0 or more", got=self.stability_offset)
        if self.refine not in (NONE, CLEAN):
            raise InvalidInputError("refine cannot be used", expected=f"{NONE!r} or {CLEAN!r}", got=repr(self.refine))

    @classmethod
    def for_model(cls, variant: Variant, **options: Any) -> EverythingOptions:
        """These options, the others as they are best for the model."""
        score, stability = variant.everything
        return cls(**{"min_score": score, "min_stability": stability, "refine": variant.refine, **options})


@dataclass(frozen=True, eq=False)
class FoundMask:
    """One mask, what is known of it, and the click that found it.

    score: predicted IoU, 0..1; stability 0..1; point_xy in pixels; crop_xyxy: the part of the photo that it was found
    in.
    """

    score: float
    stability: float
    point_xy: tuple[float, float]
    crop_xyxy: tuple[int, int, int, int]
    packed: PackedMask

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool at the photo's size, unpacked anew at each call: hundreds of masks stay small."""
        return self.packed.unpack()

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.packed.area

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """In pixels, right and bottom exclusive."""
        return self.packed.box_xyxy


class FoundMasks(ObjectMasks, Sequence[FoundMask]):
    """What `segment_everything` found, the largest first; `draw`, `to_coco` and the rest work on all of it.

    They unpack one mask at a time, but for `to_supervision`, whose result holds all of them.
    """

    def __init__(self, found: Sequence[FoundMask], size_hw: tuple[int, int]) -> None:
        self._found = tuple(sorted(found, key=lambda one: -one.area))
        self._size_hw = size_hw

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> FoundMask: ...

    @overload
    def __getitem__(self, index: slice) -> FoundMasks: ...

    def __getitem__(self, index: int | slice) -> FoundMask | FoundMasks:
        return FoundMasks(self._found[index], self._size_hw) if isinstance(index, slice) else self._found[index]

    def __repr__(self) -> str:
        return f"FoundMasks({len(self)} masks, {self._size_hw[1]}x{self._size_hw[0]})"

    @property
    def areas(self) -> NDArray[np.int64]:
        return np.array([one.area for one in self], np.int64)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        return np.array([one.box_xyxy for one in self], np.float32).reshape(-1, 4)

    def _object_masks(self) -> PackedMasks:
        return PackedMasks([one.packed for one in self], self._size_hw)

    def _object_scores(self) -> NDArray[np.float32]:
        return np.array([one.score for one in self], np.float32)

    def _object_numbers(self) -> tuple[int, ...]:
        return tuple(range(1, len(self) + 1))


def segment_everything(
    embed: Embed, backend: Backend, pixels: NDArray[np.uint8], order: str, options: EverythingOptions
) -> FoundMasks:
    """The masks that a grid of clicks finds on one image (H, W, 3) of the colour order "bgr" or "rgb"."""
    size_hw = (pixels.shape[0], pixels.shape[1])
    found: list[FoundMask] = []
    crops = list(plan_crops(size_hw, options))
    for crop, points_per_side in crops:
        in_crop = list(_search_crop(embed, backend, pixels, order, crop, points_per_side, options))
        found += _drop_duplicates(in_crop, [one.score for one in in_crop], options.max_overlap)
    if len(crops) > 1:  # of two in different crops, the one of the smaller crop sees more detail
        found = _drop_duplicates(found, [1 / _area(one.crop_xyxy) for one in found], options.max_overlap)
    return FoundMasks(found, size_hw)


def plan_crops(size_hw: tuple[int, int], options: EverythingOptions) -> Iterator[tuple[tuple[int, int, int, int], int]]:
    """Crops as x1, y1, x2, y2, the whole photo first, and the points a side of each."""
    height, width = size_hw
    yield (0, 0, width, height), options.points_per_side
    for layer in range(1, options.crop_layers + 1):
        count = 2**layer
        overlap = int(options.crop_overlap * min(size_hw) * 2 / count)
        step_x, step_y = (math.ceil((overlap * (count - 1) + side) / count) - overlap for side in (width, height))
        points = max(1, options.points_per_side // options.crop_points_divisor**layer)
        for x in range(0, step_x * count, step_x):
            for y in range(0, step_y * count, step_y):
                yield (x, y, min(x + step_x + overlap, width), min(y + step_y + overlap, height)), points


def _search_crop(
    embed: Embed,
    backend: Backend,
    pixels: NDArray[np.uint8],
    order: str,
    crop_xyxy: tuple[int, int, int, int],
    points_per_side: int,
    options: EverythingOptions,
) -> Iterator[FoundMask]:
    x1, y1, x2, y2 = crop_xyxy
    size_wh = np.array([x2 - x1, y2 - y1])
    crop = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    embedding = embed(crop, order)
    grid = (np.arange(points_per_side) + 0.5) / points_per_side
    shares = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)  # rows of the photo, each from left to right
    for start in range(0, len(shares), options.points_per_batch):
        batch = shares[start : start + options.points_per_batch]
        coords = (batch[:, None] * backend.image_size).astype(np.float32)
        labels = np.full((len(batch), 1), FOREGROUND, np.int32)
        out = backend.decode(embedding.features, coords, labels)
        # The first of four masks is the single one; a click of the grid may mean a part or the whole.
        for k, plane in np.argwhere(out.iou_scores[:, 1:] > options.min_score):
            logits, score = out.low_res_masks[k, 1 + plane], float(out.iou_scores[k, 1 + plane])
            if options.refine == CLEAN:
                click_xy = coords[k : k + 1] * logits.shape[0] / backend.image_size
                logits = refine_logits(logits[None, None], click_xy, labels[k : k + 1], 0.0)[0, 0]
            judged = _judge_mask(logits, embedding.image_size_hw, options)
            if judged is None:
                continue
            mask, stability = judged
            packed = pack_mask(mask, (x1, y1), (pixels.shape[0], pixels.shape[1]))
            if packed is None or _is_cut_off(packed.box_xyxy, crop_xyxy, pixels.shape):
                continue
            point_xy = (float(x1 + batch[k, 0] * size_wh[0]), float(y1 + batch[k, 1] * size_wh[1]))
            yield FoundMask(score, stability, point_xy, crop_xyxy, packed)


def _judge_mask(
    logits: NDArray[np.float32], size_hw: tuple[int, int], options: EverythingOptions
) -> tuple[NDArray[np.bool_], float] | None:
    """The mask at the crop's size, and its stability; None where it is unstable."""
    large = logits_to_masks(logits, size_hw, 0.0, return_logits=True)
    outer = np.count_nonzero(large > -options.stability_offset)
    stability = float(np.count_nonzero(large > options.stability_offset) / outer) if outer else 0.0
    if stability < options.min_stability:
        return None
    mask = large > 0
    return (_remove_small_parts(mask, options.min_area) if options.min_area else mask), stability


def _is_cut_off(
    box_xyxy: tuple[int, int, int, int], crop_xyxy: tuple[int, int, int, int], shape: tuple[int, ...]
) -> bool:
    """Whether a box ends, by its last pixels, at an edge of the crop that is not the photo's."""
    box = np.subtract(box_xyxy, (0, 0, 1, 1))
    near_crop = np.abs(np.subtract(box, crop_xyxy)) <= _EDGE_PIXELS
    near_photo = np.abs(np.subtract(box, (0, 0, shape[1], shape[0]))) <= _EDGE_PIXELS
    return bool((near_crop & ~near_photo).any())


def _remove_small_parts(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """Fills holes, then removes islands, of fewer than `min_area` pixels (8-connected); the largest island stays."""
    filled = mask | find_small(~mask, min_area - 1)
    return filled & ~find_small(filled, min_area - 1, spare_largest=True)


def _drop_duplicates(found: Sequence[FoundMask], ranks: Sequence[float], max_overlap: float) -> list[FoundMask]:
    """Non-maximum suppression by boxes: goes from the highest rank down and keeps what overlaps no mask kept before."""
    kept: list[int] = []
    boxes = np.array([one.box_xyxy for one in found], np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-np.asarray(ranks), kind="stable"):
        low, high = np.maximum(boxes[kept, :2], boxes[index, :2]), np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        if not (shared / (areas[kept] + areas[index] - shared) > max_overlap).any():
            kept.append(int(index))
    return [found[index] for index in sorted(kept)]


def _area(box_xyxy: tuple[int, int, int, int]) -> int:
    return (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])
