"""Segment everything: the masks that Meta's generator keeps, crops, limits, and the embedded model on a photo."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge.backends.base import DecodedPrompts
from sam2edge.datatypes import BackendReport
from sam2edge.errors import InvalidInputError
from sam2edge.everything import EverythingOptions, FoundMask, FoundMasks, plan_crops
from sam2edge.imaging.packed_mask import pack_mask
from sam2edge.predictor import ImagePredictor
from tests.data import grid_masks
from tests.fake_backend import FakeBackend

OFFICIAL: dict[str, Any] = {"min_score": 0.8, "min_stability": 0.95, "refine": "none"}
"""What others than the embedded model have."""
REFERENCE = np.load(Path(__file__).parent / "data" / "everything_reference.npz")


class GridBackend(FakeBackend):
    """Decodes each click as `grid_masks` does."""

    def decode_impl(self, features: Any, point_coords: Any, point_labels: Any, mask_input: Any) -> DecodedPrompts:
        self._called("decode", len(point_coords))
        found = [grid_masks.decode_click(*xy) for xy in point_coords[:, 0].tolist()]
        logits = np.stack([np.concatenate((logits[:1], logits)) for logits, _ in found])
        scores = np.stack([np.concatenate(([1.0], scores)) for _, scores in found]).astype(np.float32)
        return DecodedPrompts(
            logits, scores, np.ones((len(found), 1), np.float32), np.zeros((len(found), 4, 8), np.float32)
        )


@pytest.fixture
def model() -> ImagePredictor:
    return ImagePredictor(GridBackend(grid_masks.IMAGE_SIZE), BackendReport("fake"))


def blank(size_hw: tuple[int, int] = grid_masks.PHOTO_HW) -> np.ndarray:
    return np.zeros((*size_hw, 3), np.uint8)


def test_the_masks_are_those_that_metas_generator_keeps(model: ImagePredictor) -> None:
    found = model.segment_everything(blank(), points_per_side=grid_masks.POINTS_PER_SIDE, **OFFICIAL)
    count = len(REFERENCE["scores"])
    pixels = count * int(np.prod(grid_masks.PHOTO_HW))
    masks = np.unpackbits(REFERENCE["masks"], count=pixels).reshape(count, *grid_masks.PHOTO_HW).astype(bool)
    by_point_and_score = {(*one.point_xy, round(one.score, 4)): one for one in found}
    assert len(found) == count > 5
    for mask, score, stability, point in zip(
        masks, REFERENCE["scores"], REFERENCE["stability"], REFERENCE["points_xy"].tolist(), strict=True
    ):
        key = (*point, round(float(score), 4))
        one = by_point_and_score[key]
        assert (one.mask & mask).sum() / (one.mask | mask).sum() >= 0.99
        assert one.stability == pytest.approx(stability, abs=1e-3)


def test_a_whole_model_finds_what_metas_finds(golden_checkpoint: Callable[[str], Path]) -> None:
    pytest.importorskip("torch")
    from sam2edge import AutoModel

    model = AutoModel.from_pretrained("tiny", backend="torch", image_size=512, checkpoint=golden_checkpoint("tiny"))
    photo = grid_masks.whole_photo_rgb()
    found = model.segment_everything(photo, input_color_format="rgb", **grid_masks.WHOLE)
    count = len(REFERENCE["whole_scores"])
    masks = np.unpackbits(REFERENCE["whole_masks"], count=count * photo[..., 0].size).reshape(count, *photo.shape[:2])
    assert len(found) == count > 10
    for mask, score, stability, point in zip(
        masks.astype(bool),
        REFERENCE["whole_scores"],
        REFERENCE["whole_stability"],
        REFERENCE["whole_points_xy"].tolist(),
        strict=True,
    ):
        here = [one for one in found if one.point_xy == tuple(point)]
        one = min(here, key=lambda one: abs(one.score - score))
        assert one.score == pytest.approx(score, abs=1e-3)
        assert one.stability == pytest.approx(stability, abs=2e-3)
        assert (one.mask & mask).sum() / (one.mask | mask).sum() >= 0.99


def test_hundreds_of_masks_of_a_large_photo_stay_small() -> None:
    """As many whole would take 1.2 GB; nothing but `to_supervision` unpacks more than one at a time."""
    size_hw, count = (2000, 3000), 200
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    disc = (rows - 1000) ** 2 + (columns - 1500) ** 2 < 700**2
    packed = pack_mask(disc)
    assert packed is not None
    found = FoundMasks([FoundMask(0.9, 0.97, (1500.0, 1000.0), (0, 0, 3000, 2000), packed)] * count, size_hw)
    assert sum(len(one.packed.bits) for one in found) < 4_000_000
    assert (found[7].mask == disc).all()
    photo = np.zeros((*size_hw, 3), np.uint8)
    tracemalloc.start()
    try:
        assert found.areas[3] == disc.sum() == found[3].area
        assert found[:2].to_rle()[0]["size"] == list(size_hw)
        assert (found.cutout(photo)[..., 3] > 0).sum() == disc.sum()
        found[:3].draw(photo)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 15 * disc.nbytes


def test_crops_are_those_of_metas_generator() -> None:
    crops = [crop for crop, _ in plan_crops((480, 641), EverythingOptions(crop_layers=2))]
    assert crops == [tuple(crop) for crop in REFERENCE["crops_xyxy"].tolist()]


def test_every_mask_says_what_it_is(model: ImagePredictor) -> None:
    found = model.segment_everything(blank(), points_per_side=6, **OFFICIAL)
    assert [one.area for one in found] == sorted((one.mask.sum() for one in found), reverse=True)
    for one in found:
        left, top, right, bottom = one.box_xyxy
        assert one.mask[top:bottom, left:right].sum() == one.area
        assert 0.8 < one.score <= 1 and 0.95 <= one.stability <= 1
    assert len(found.to_coco()) == len(found.boxes_xyxy) == len(found)
    assert found.draw(blank()).shape == blank().shape


def test_crops_find_what_is_cut_off_nowhere(model: ImagePredictor) -> None:
    found = model.segment_everything(blank((200, 260)), points_per_side=6, crop_layers=1, **OFFICIAL)
    assert {one.crop_xyxy for one in found} > {(0, 0, 260, 200)}
    for one in found:
        for side, (edge, border, photo) in enumerate(zip(one.box_xyxy, one.crop_xyxy, (0, 0, 260, 200), strict=True)):
            assert abs(edge - border) > 20 or abs(edge - photo) <= 20, (side, one)


def test_clicks_go_in_batches(model: ImagePredictor) -> None:
    model.segment_everything(blank(), points_per_side=5, points_per_batch=10)
    assert [count for (count,) in model.backend.of("decode")] == [10, 10, 5]  # type: ignore[attr-defined]


def test_small_islands_and_holes_go() -> None:
    class Specked(GridBackend):
        def decode_impl(self, features: Any, point_coords: Any, *rest: Any) -> DecodedPrompts:
            out = super().decode_impl(features, point_coords, *rest)
            out.low_res_masks[..., 2, 2] = 500.0  # an island in the corner
            out.low_res_masks[..., 32, 32] = -500.0  # a hole in the middle
            return out

    model = ImagePredictor(Specked(grid_masks.IMAGE_SIZE), BackendReport("fake"))
    kept = model.segment_everything(blank(), points_per_side=6, min_area=200, **{**OFFICIAL, "min_stability": 0.5})
    for one in kept:
        for value in (True, False):
            _, _, rows, _ = cv2.connectedComponentsWithStats((one.mask == value).astype(np.uint8))
            assert rows[1:, cv2.CC_STAT_AREA].min() >= 200


def test_nothing_found_is_an_empty_result(model: ImagePredictor) -> None:
    found = model.segment_everything(blank(), points_per_side=3, min_score=1.0)
    assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4)
    assert (found.draw(blank()) == 0).all()


BAD_OPTIONS = [
    {"points_per_side": 0},
    {"points_per_side": 2.5},
    {"min_score": 2},
    {"crop_layers": -1},
    {"refine": "crop"},
    {"rows": 3},
]


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_options_out_of_range_are_refused(model: ImagePredictor, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        model.segment_everything(blank(), **option)


def test_the_embedded_model_finds_the_coins(micro_onnx: ImagePredictor) -> None:
    photo = cv2.imread(str(Path(__file__).parent.parent / "examples" / "coins.png"))
    assert photo is not None
    found = micro_onnx.segment_everything(photo, points_per_side=12)  # its own thresholds
    coins = [one for one in found if 500 < one.area < photo[..., 0].size / 10]
    assert len(coins) >= 15  # of 24
    assert len({one.box_xyxy for one in found}) == len(found)
