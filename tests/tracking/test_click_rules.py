"""What a further click may change, on masks drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam2edge import VideoTracker
from sam2edge.backends.base import DecodedPrompts
from sam2edge.tracking.click_rules import Clicks, merge_clicks
from tests.fake_backend import FakeBackend, bright_square, fake_model


def _mask(*rows_and_columns: tuple[int, int, int, int]) -> np.ndarray:
    logits = np.full((20, 20), -5, np.float32)
    for top, bottom, left, right in rows_and_columns:
        logits[top:bottom, left:right] = 5
    return logits


def _clicks(*given: tuple[int, int, bool], new: int = 1) -> Clicks:
    return Clicks(np.array([g[:2] for g in given]), np.array([g[2] for g in given]), new)


OLD = _mask((4, 14, 4, 14))


def test_a_click_changes_the_region_around_it() -> None:
    new = _mask((4, 14, 5, 15), (0, 2, 0, 2))
    added = merge_clicks(OLD, new, _clicks((5, 5, True), (14, 6, True)))
    assert np.array_equal(added > 0, _mask((4, 14, 4, 15)) > 0), "nothing is removed, nothing is added far away"
    removed = merge_clicks(OLD, new, _clicks((13, 6, True), (4, 6, False)))
    assert np.array_equal(removed > 0, _mask((4, 14, 5, 14)) > 0)
    assert np.array_equal(merge_clicks(OLD, new, _clicks((17, 17, True))), OLD), "not followed"


def test_earlier_clicks_of_the_other_kind_keep_what_is_nearer_to_them() -> None:
    new = _mask((4, 14, 4, 14), (8, 10, 14, 18))
    merged = merge_clicks(OLD, new, _clicks((17, 9, False), (14, 9, True)))
    assert (merged[9, 14:16] > 0).all() and (merged[9, 16:] <= 0).all()


def test_a_large_change_is_cut_to_a_disc() -> None:
    merged = merge_clicks(OLD, _mask((0, 20, 0, 20)), _clicks((15, 9, True)))
    assert merged[9, 15] > 0 and 103 <= np.count_nonzero(merged > 0) <= 100 + 0.1 * 100 + 3


class _Contrary(FakeBackend):
    """Its best-rated masks are of everything but the bright square, the last one is the square."""

    def decode_impl(self, *given: Any) -> Any:
        out = super().decode_impl(*given)
        masks = out.low_res_masks * np.array([-1, -1, -1, 1], np.float32)[:, None, None]
        return DecodedPrompts(masks, out.iou_scores, out.object_score, out.object_pointers)


@pytest.mark.parametrize(("refine", "is_bright"), [("clean", True), ("none", False)])
def test_of_the_masks_one_that_holds_the_click_is_taken(refine: str, is_bright: bool) -> None:
    model = fake_model()
    model.backend = _Contrary()
    model.backend.variant = replace(model.backend.variant, refine=refine)
    result = VideoTracker(model).prompt(bright_square(8), points=[[20, 20]], labels=[1])
    assert bool(result.masks[0, 20, 20]) is is_bright
