"""What callers hand in as prompts: every accepted form, every refused one."""

from __future__ import annotations

import numpy as np
import pytest

from sam2edge.contract import ABSENT
from sam2edge.datatypes import ImagePrompt, ScoredLogits
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.prompts import prompts_to_model, read_prompts

SIZE_HW = (400, 600)
POINT, LABEL = np.array([[300, 200]]), np.array([1])


def read(**parts: object) -> ImagePrompt:
    return read_prompts([SIZE_HW], **parts, low_res_hw=(8, 8))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "objects", "points", "per_object"),
    [
        ({"point_coordinates": POINT, "point_labels": LABEL}, 1, 1, False),
        ({"point_coordinates": np.array([3, 4]), "point_labels": np.array(1)}, 1, 1, False),
        ({"point_coordinates": POINT[None], "point_labels": LABEL[None]}, 1, 1, True),
        ({"point_coordinates": np.zeros((5, 2, 2)), "point_labels": np.ones((5, 2))}, 5, 2, True),
        ({"boxes": np.array([1, 2, 3, 4])}, 1, 0, False),
        ({"boxes": np.array([[1, 2, 3, 4]])}, 1, 0, False),
        ({"boxes": np.array([[1, 2, 3, 4], [5, 6, 7, 8]])}, 2, 0, True),
        ({"boxes": [[1, 2, 3, 4]]}, 1, 0, False),
        ({"point_coordinates": POINT, "point_labels": LABEL, "boxes": np.array([1, 2, 3, 4])}, 1, 1, False),
        ({"mask_input": np.zeros((8, 8))}, 1, 0, False),
        ({"mask_input": np.zeros((3, 8, 8))}, 1, 0, False),
        ({"mask_input": np.zeros((2, 3, 8, 8))}, 2, 0, True),
    ],
)
def test_accepted_forms(parts: dict[str, object], objects: int, points: int, per_object: bool) -> None:
    prompt = read(**parts)
    assert prompt.point_coords.shape == (objects, points, 2)
    assert prompt.per_object == per_object


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "no prompt"),
        ({"point_coordinates": POINT}, "point_labels missing"),
        ({"point_labels": LABEL}, "point_labels without point_coordinates"),
        ({"point_coordinates": POINT, "point_labels": np.array([1, 0])}, r"expected \(1,\); got \(2,\)"),
        ({"point_coordinates": POINT, "point_labels": np.array([7])}, "unknown point label"),
        ({"point_coordinates": POINT, "point_labels": np.array([2])}, "unknown point label"),
        ({"point_coordinates": np.zeros((3, 3)), "point_labels": np.ones(3)}, "unusable shape"),
        ({"point_coordinates": np.zeros((0, 2)), "point_labels": np.ones(0)}, "unusable shape"),
        ({"point_coordinates": np.array([[np.nan, 1]]), "point_labels": LABEL}, "NaN or infinity"),
        ({"point_coordinates": np.array([["a", "b"]]), "point_labels": LABEL}, "not numbers"),
        ({"point_coordinates": np.array([[601, 10]]), "point_labels": LABEL}, "outside the photo.*0..600.*601"),
        ({"point_coordinates": np.array([[-1, 10]]), "point_labels": LABEL}, "outside the photo"),
        ({"boxes": np.array([30, 2, 3, 4])}, "turned round or empty"),
        ({"boxes": np.array([3, 2, 3, 4])}, "turned round or empty"),
        ({"boxes": np.array([700, 2, 800, 4])}, "outside the photo"),
        ({"boxes": np.array([1, 2, 3])}, "unusable shape"),
        ({"boxes": np.zeros((0, 4))}, "unusable shape"),
        ({"boxes": np.array([1, 2, np.inf, 4])}, "NaN or infinity"),
        ({"mask_input": np.zeros((9, 9))}, r"\(8, 8\).*results\[i\].logits"),
        ({"mask_input": np.zeros((0, 8, 8))}, "unusable shape"),
        ({"point_coordinates": [POINT, POINT], "point_labels": LABEL}, "list of the wrong length.*numpy array"),
        ({"boxes": [np.array([1, 2, 3, 4])] * 3}, "one element an image, 1 in all; got 3"),
        (
            {"point_coordinates": np.zeros((2, 1, 2)), "point_labels": np.ones((2, 1)), "boxes": np.ones((3, 4))},
            "turned round",
        ),
        (
            {
                "point_coordinates": np.zeros((2, 1, 2)),
                "point_labels": np.ones((2, 1)),
                "boxes": np.array([[1, 2, 3, 4]] * 3),
            },
            "different numbers of objects",
        ),
        (
            {
                "point_coordinates": np.zeros((2, 1, 2)),
                "point_labels": np.ones((2, 1)),
                "mask_input": np.zeros((5, 1, 8, 8)),
            },
            "mask_input does not match",
        ),
    ],
)
def test_refused_forms(parts: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(**parts)


def test_the_image_at_fault_is_named() -> None:
    with pytest.raises(InvalidInputError, match="image 1: point lies outside"):
        read_prompts([(400, 600), (40, 60)], POINT, LABEL)


def test_boxes_are_cut_at_the_edge() -> None:
    boxes = read(boxes=np.array([-5, 10, 900, 500])).boxes_xyxy
    assert boxes is not None
    assert boxes.tolist() == [[0, 10, 600, 400]]


def test_ragged_rows_are_filled_with_absent_slots() -> None:
    prompt = read(point_coordinates=[[POINT, np.zeros((3, 2))]], point_labels=[[LABEL, np.ones(3)]])
    assert prompt.point_labels.tolist() == [[1, ABSENT, ABSENT], [1, 1, 1]]


def test_of_several_masks_the_best_scored_is_taken() -> None:
    logits = np.stack([np.full((8, 8), float(c)) for c in range(3)])
    scored = ScoredLogits(logits, np.array([0.1, 0.9, 0.3], np.float32))
    mask = read(mask_input=scored).mask_input
    assert mask is not None
    assert mask[0, 0, 0] == 1.0
    assert getattr(scored[1:], "scores") is None  # noqa: B009  # numpy's type has none


def test_without_scores_the_most_stable_is_taken() -> None:
    fuzzy, clear = np.zeros((8, 8)), np.full((8, 8), -5.0)
    clear[2:6, 2:6] = 5.0
    mask = read(mask_input=np.stack([fuzzy, clear])).mask_input
    assert mask is not None
    np.testing.assert_array_equal(mask[0], clear)


def test_a_box_comes_before_the_clicks_in_model_pixels() -> None:
    prompt = read(point_coordinates=POINT, point_labels=np.array([0]), boxes=np.array([0, 0, 600, 400]))
    coords, labels = prompts_to_model(prompt, SIZE_HW, 512)
    assert labels.tolist() == [[2, 3, 0]]
    np.testing.assert_allclose(coords, [[[0, 0], [512, 512], [256, 256]]])


def test_a_mask_alone_gives_one_absent_slot() -> None:
    _, labels = prompts_to_model(read(mask_input=np.zeros((8, 8))), SIZE_HW, 512)
    assert labels.tolist() == [[ABSENT]]
