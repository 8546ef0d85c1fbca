from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.overlay import distinct_color, draw_masks

GREY = np.full((120, 160, 3), 100, np.uint8)
BLUE = (255, 0, 0)


def _square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_the_inside_is_tinted_and_the_outside_is_not() -> None:
    mask = _square(30, 40, 50)
    drawn = draw_masks(GREY, mask[None], colors=[BLUE], alpha=0.5, outline=False)
    assert np.abs(drawn[mask].astype(int) - (178, 50, 50)).max() <= 1
    np.testing.assert_array_equal(drawn[~mask], GREY[~mask])


def test_the_outline_follows_the_edge_of_the_mask_and_of_its_hole() -> None:
    mask = _square(20, 20, 80) & ~_square(50, 50, 20)
    drawn = draw_masks(GREY, mask, colors=[BLUE], alpha=0.0)
    changed = (drawn != GREY).any(axis=2)
    assert drawn[20, 60].argmax() == 0
    assert changed[49, 60]  # the hole
    assert not changed[35, 35]
    assert not changed[10, 10]
    assert not changed[60, 60]


def test_the_image_is_left_as_it_is() -> None:
    image = GREY.copy()
    drawn = draw_masks(image, _square(0, 0, 9), points=np.array([[5, 5]]), boxes=np.array([1, 1, 50, 50]))
    np.testing.assert_array_equal(image, GREY)
    assert not np.shares_memory(drawn, image)
    image.setflags(write=False)
    draw_masks(image[::-1, ::-1], _square(0, 0, 9))  # neither writable nor contiguous


def test_prompts_are_drawn_green_and_red() -> None:
    points, labels = np.array([[30.4, 40.0], [100.0, 90.0]]), np.array([1, 0])
    drawn = draw_masks(GREY, np.zeros((0, 120, 160), bool), points=points, point_labels=labels)
    assert drawn[40, 30].argmax() == 1
    assert drawn[90, 100].argmax() == 2
    boxed = draw_masks(GREY, np.zeros((0, 120, 160), bool), boxes=np.array([[20, 30, 90, 80]]))
    assert boxed[30, 50].argmax() == boxed[80, 50].argmax() == boxed[50, 20].argmax() == boxed[50, 90].argmax() == 1
    np.testing.assert_array_equal(boxed[50, 50], GREY[50, 50])


def test_strokes_grow_with_the_picture() -> None:
    def share(scale: int) -> float:
        image = np.zeros((240 * scale, 320 * scale, 3), np.uint8)
        mask = np.zeros(image.shape[:2], bool)
        mask[60 * scale : 180 * scale, 80 * scale : 240 * scale] = True
        return float(draw_masks(image, mask, alpha=0.0).any(axis=2).mean())

    assert share(8) == pytest.approx(share(4), rel=0.2)


def test_each_mask_has_a_colour_of_its_own() -> None:
    colors = [np.array(distinct_color(index)) for index in range(8)]
    for index, color in enumerate(colors):
        for other in colors[:index]:
            assert np.abs(color - other).sum() > 60


def test_odd_but_right() -> None:
    np.testing.assert_array_equal(draw_masks(GREY, np.zeros((2, 120, 160), bool)), GREY)
    assert draw_masks(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 1), bool), points=np.array([[0, 0]])).any()
    by_numbers = draw_masks(GREY, _square(10, 10, 9).astype(np.float32) * 0.5)
    np.testing.assert_array_equal(by_numbers, draw_masks(GREY, _square(10, 10, 9)))
    draw_masks(GREY, _square(0, 0, 5), points=np.array([[1e30, -1e30]]))  # far outside: nothing to see, no overflow


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_bgr": GREY[..., 0]}, r"\(H, W, 3\) uint8"),
        ({"image_bgr": GREY.astype(float)}, r"\(H, W, 3\) uint8"),
        ({"masks": np.zeros((1, 120, 161), bool)}, r"\(N, 120, 160\).*got bool \(1, 120, 161\)"),
        ({"alpha": 1.5}, "0 to 1"),
        ({"alpha": float("nan")}, "0 to 1"),
        ({"points": np.array([1, 2, 3])}, r"\(P, 2\)"),
        ({"points": np.array([[np.nan, 2]])}, r"\(P, 2\) finite"),
        ({"points": np.zeros((2, 2)), "point_labels": np.array([1])}, "2 labels"),
        ({"boxes": np.zeros((2, 3))}, r"\(4,\) or \(B, 4\)"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], expected: str) -> None:
    arguments = {"image_bgr": GREY, "masks": _square(0, 0, 5)} | changes
    with pytest.raises(InvalidInputError, match=f"expected {expected}.*remedy"):
        draw_masks(**arguments)
