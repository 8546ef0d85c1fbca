"""Drawn scenes: a pure function of seed and size, labels that fit the picture."""

from __future__ import annotations

import numpy as np
import pytest

from training.lettering import draw_text, lay_text
from training.scenes import MIN_AREA, draw_scene


def test_a_scene_depends_on_seed_and_size_alone() -> None:
    first, again, other = draw_scene(5, 128), draw_scene(5, 128), draw_scene(6, 128)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert first.objects == again.objects
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(8))
def test_objects_to_ask_for_are_visible(seed: int) -> None:
    scene = draw_scene(seed, 128)
    assert scene.image.shape == (128, 128, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.shape == (128, 128)
    assert scene.objects
    for label in scene.objects:
        assert scene.mask(label).sum() >= MIN_AREA * 128 * 128
    assert not set(scene.objects) & set(scene.regions)


@pytest.mark.parametrize("half_width", [0.02, 0.5, 30.0])
def test_text_of_any_size_is_laid(half_width: float) -> None:
    ink = draw_text(np.random.default_rng(3))
    laid = lay_text(ink, half_width, np.zeros(2), np.eye(2), np.array([32.0, 32.0]), (64, 64))
    assert laid.shape == (64, 64)
    assert 0 <= laid.min() <= laid.max() <= 1
    assert (laid.max() > 0.5) == (half_width == 30.0)


def test_parts_belong_to_objects_that_are_asked_for() -> None:
    with_parts = [scene for scene in (draw_scene(seed, 96) for seed in range(24)) if scene.parts]
    assert len(with_parts) >= 3
    for scene in with_parts:
        for part, whole in scene.parts:
            assert whole in scene.objects
            assert part not in scene.objects
            assert (scene.labels == part).sum() >= MIN_AREA * 96 * 96
            assert not (scene.mask(part) & ~scene.mask(whole)).any()
            assert (scene.labels == whole).any()


def test_the_same_content_at_every_size() -> None:
    differing = []
    for seed in range(11, 17):
        small, large = draw_scene(seed, 128), draw_scene(seed, 256)
        assert small.objects == large.objects
        differing.append((small.labels != large.labels[1::2, 1::2]).mean())
    assert np.mean(differing) < 0.03


def test_labels_lie_on_edges_of_the_picture() -> None:
    """Across an object's outline the picture changes more than elsewhere, averaged over many scenes."""
    across, inside = [], []
    for seed in range(20, 32):
        scene = draw_scene(seed, 128)
        step = np.abs(np.diff(scene.image.astype(float), axis=1)).mean(axis=2)
        border = scene.labels[:, 1:] != scene.labels[:, :-1]
        across.append(step[border].mean())
        inside.append(step[~border].mean())
    assert np.mean(across) > 2 * np.mean(inside)
