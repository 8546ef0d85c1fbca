"""Masks without specks and small holes, cut at their box; crops and the way back from them."""

from __future__ import annotations

import numpy as np
import pytest

from sam2edge.contract import BACKGROUND, FOREGROUND
from sam2edge.datatypes import ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import LOGIT_LIMIT
from sam2edge.imaging.refine import (
    crop_window,
    crops_of,
    cut_at_boxes,
    paste_logits,
    refine_logits,
)
from sam2edge.predictor import ImagePredictor, read_mask_options


def _logits(*filled: tuple[int, int, int, int]) -> np.ndarray:
    """(1, 1, 32, 32): 4 in the boxes, the last of them -4 again, -4 elsewhere."""
    plane = np.full((32, 32), -4.0, np.float32)
    for x1, y1, x2, y2 in filled:
        plane[y1:y2, x1:x2] *= -1
    return plane[None, None]


def _clean(logits: np.ndarray, *clicks: tuple[int, int, int]) -> np.ndarray:
    coords = np.array([[click[:2] for click in clicks]], np.float32).reshape(1, -1, 2)
    labels = np.array([[click[2] for click in clicks]], np.int32).reshape(1, -1)
    return refine_logits(logits, coords, labels, 0.0)[0, 0] > 0


WHOLE, SPECK, HOLE = (4, 4, 20, 20), (26, 26, 29, 29), (10, 10, 12, 12)


def test_specks_and_small_holes_go() -> None:
    assert np.array_equal(_clean(_logits(WHOLE, SPECK, HOLE)), _logits(WHOLE)[0, 0] > 0)


def test_what_is_clicked_stays() -> None:
    with_speck = _clean(_logits(WHOLE, SPECK), (27, 27, FOREGROUND), (8, 8, FOREGROUND))
    assert np.array_equal(with_speck, _logits(WHOLE, SPECK)[0, 0] > 0)
    with_hole = _clean(_logits(WHOLE, HOLE), (8, 8, FOREGROUND), (11, 11, BACKGROUND))
    assert np.array_equal(with_hole, _logits(WHOLE, HOLE)[0, 0] > 0)


def test_large_pieces_and_large_holes_stay() -> None:
    pieces = _logits(WHOLE, (22, 22, 30, 30))
    ring = _logits(WHOLE, (8, 8, 16, 16))
    open_notch = _logits(WHOLE, (10, 4, 11, 6))  # reaches the outside
    for logits in (pieces, ring, open_notch):
        assert np.array_equal(_clean(logits), logits[0, 0] > 0)


@pytest.mark.parametrize("fill", [-4.0, 4.0])
def test_nothing_and_everything_stay_as_they_are(fill: float) -> None:
    logits = np.full((1, 1, 32, 32), fill, np.float32)
    assert np.array_equal(_clean(logits), logits[0, 0] > 0)


def test_a_mask_ends_at_its_box() -> None:
    masks = np.ones((2, 3, 20, 30), bool)
    cut_at_boxes(masks, np.array([[3.2, 4.0, 9.5, 11.0], [0, 0, 30, 20]], np.float32))
    assert masks[0, 0].sum() == (10 - 3) * (11 - 4) and masks[0, :, 4:11, 3:10].all()
    assert masks[1].all()


def test_crops_lie_around_small_boxes() -> None:
    assert crop_window(np.array([100, 100, 150, 140], np.float32), (400, 600)) == (90, 85, 160, 155)
    assert crop_window(np.array([0, 370, 40, 399], np.float32), (400, 600)) == (0, 344, 56, 400)
    assert crop_window(np.array([20, 20, 500, 300], np.float32), (400, 600)) is None
    box = np.array([[100, 100, 150, 140]], np.float32)
    points, labels = np.array([[[120, 110], [300, 300]]], np.float32), np.array([[FOREGROUND, BACKGROUND]], np.int32)
    ((window, inner),) = crops_of(ImagePrompt(points, labels, box), (400, 600)).values()
    assert window == (90, 85, 160, 155)
    assert inner.boxes_xyxy is not None and inner.boxes_xyxy.tolist() == [[10, 15, 60, 55]]
    assert inner.point_coords.tolist() == [[[30, 25]]]  # a background click elsewhere says nothing here
    outside = ImagePrompt(points, np.full((1, 2), FOREGROUND, np.int32), box)
    assert not crops_of(outside, (400, 600))


def test_logits_of_a_crop_come_to_lie_in_the_whole_picture() -> None:
    pasted = paste_logits(np.full((1, 32, 32), 5.0, np.float32), (100, 40, 300, 240), (320, 320))
    inside = pasted[0] > 0
    assert np.isclose(inside.mean(), (200 / 320) ** 2, atol=0.03)
    ys, xs = np.nonzero(inside)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (10, 29, 4, 23)
    assert pasted[0, 0, 0] == -LOGIT_LIMIT


@pytest.mark.parametrize(
    ("way", "message"),
    [("sharp", "none, clean, crop; got 'sharp'"), ("crop", r"looks at the image again.*pass the image itself")],
)
def test_ways_that_cannot_be_taken_are_refused(way: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_mask_options(True, False, 0.0, 0.0, 0.0, way, has_images=False)


def test_the_predictor_refines(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    box = np.array([250, 150, 330, 220])
    plain, clean, crop = (
        micro_onnx.segment_images(photo_bgr, boxes=box, refine=way)[0] for way in ("none", "clean", "crop")
    )
    by_default = micro_onnx.segment_images(photo_bgr, boxes=box)[0]
    assert np.array_equal(by_default.masks, clean.masks)
    assert np.array_equal(plain.logits, clean.logits)
    for found in (clean, crop):
        outside = found.masks.copy()
        outside[:, 150:220, 250:330] = False
        assert not outside.any()
    assert not np.array_equal(crop.masks, clean.masks)
    assert crop.masks.shape == plain.masks.shape and crop.logits.shape == plain.logits.shape
    several = micro_onnx.segment_images(photo_bgr, boxes=np.stack([box, box + 40]), refine="crop")[0]
    np.testing.assert_array_equal(several.masks[0], crop.masks)
    logits = micro_onnx.segment_images(photo_bgr, boxes=box, refine="crop", return_logits=True)[0].masks
    assert logits.dtype == np.float32 and logits[0, 0, 0] == -LOGIT_LIMIT
