"""Prompts lie where their labels say, and are a pure function of scene and seed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND
from training.pictures import picture_of_scene
from training.prompts import CORNER_HIGH, CORNER_LOW, SLOTS, box_of, deepest_point, draw_prompts, slots
from training.scenes import Scene, draw_scene


@pytest.mark.parametrize("seed", range(6))
def test_clicks_lie_on_and_off_their_objects(seed: int) -> None:
    prompts = draw_prompts(picture_of_scene(draw_scene(seed, 128)), 16, seed)
    for coords, labels, target, there in zip(
        prompts.coords, prompts.labels, prompts.targets, prompts.present, strict=True
    ):
        x, y = coords.astype(int).T
        if there:
            assert target[y[labels == FOREGROUND], x[labels == FOREGROUND]].all()
            assert not target[y[labels == BACKGROUND], x[labels == BACKGROUND]].any()
            assert (labels == FOREGROUND).any() or (labels == CORNER_LOW).any()
        else:
            assert not np.isin(labels, (FOREGROUND, CORNER_LOW)).any()


def test_anchors_say_which_prompts_share_an_object() -> None:
    prompts = draw_prompts(picture_of_scene(draw_scene(3, 128)), 12, 3)
    assert (prompts.same.diagonal() == 1).all()
    for row, target in zip(prompts.same, prompts.targets, strict=True):
        told = row >= 0
        assert np.array_equal(row[told], target[prompts.anchors[:, 1], prompts.anchors[:, 0]][told])


def test_a_click_on_a_part_may_mean_the_whole() -> None:
    labels = np.ones((64, 64), np.uint8)
    labels[10:50, 10:50], labels[20:30, 20:30], labels[52:62, 52:62] = 3, 4, 5
    picture = picture_of_scene(Scene(np.zeros((64, 64, 3), np.uint8), labels, (3, 5), (), ((4, 3),)))
    prompts = draw_prompts(picture, 60, 1)
    part, whole = labels == 4, np.isin(labels, (3, 4))
    seen = set()
    for row in range(60):
        x, y = prompts.anchors[row]
        single = (prompts.labels[row] != ABSENT).sum() == 1 and prompts.present[row]
        others = [other for other in prompts.others[row] if other.any()]
        if not (single and part[y, x]):
            assert not others
            continue
        meant = [prompts.targets[row], *others]
        assert len(meant) == 2
        assert any(np.array_equal(mask, part) for mask in meant) and any(np.array_equal(mask, whole) for mask in meant)
        seen.add(int(meant[0].sum()))
        on_the_rest = whole & ~part
        left_open = on_the_rest[prompts.anchors[:, 1], prompts.anchors[:, 0]]
        assert (prompts.same[row][left_open] == -1).all()
    assert seen == {100, 1600}  # either is what the click was drawn for


def test_prompts_depend_on_scene_and_seed_alone() -> None:
    scene = picture_of_scene(draw_scene(4, 128))
    first, again = draw_prompts(scene, 8, 1), draw_prompts(scene, 8, 1)
    assert np.array_equal(first.coords, again.coords)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.coords, draw_prompts(scene, 8, 2).coords)


def test_a_box_comes_before_its_clicks_and_spare_slots_are_absent() -> None:
    coords, labels = slots([(1.0, 2.0, CORNER_LOW), (8.0, 9.0, CORNER_HIGH), (4.0, 5.0, FOREGROUND)])
    assert labels.tolist() == [CORNER_LOW, CORNER_HIGH, FOREGROUND] + [ABSENT] * (SLOTS - 3)
    assert coords[1].tolist() == [8.0, 9.0]


def test_box_and_deepest_point() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:13, 6:17] = True
    assert box_of(mask) == (6, 4, 16, 12)
    assert deepest_point(mask)[1] == 8
