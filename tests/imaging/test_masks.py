"""Decoder output -> masks, against torch's interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from sam2edge.imaging.frame import logits_to_masks, select_masks, stability


def test_masks_equal_torchs_bilinear_interpolation() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    for size_hw in ((400, 600), (31, 50), (64, 64)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(logits), size_hw, mode="bilinear").numpy()
        found = logits_to_masks(logits, size_hw, 0.0, return_logits=True)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.array_equal(logits_to_masks(logits, size_hw, 0.25, return_logits=False), found > 0.25)


def _decoded(single_edge: float) -> tuple[np.ndarray, np.ndarray]:
    masks = np.full((1, 4, 16, 16), -9.0, np.float32)
    masks[:, :, :8] = 9.0
    masks[:, 0, 8:12] = single_edge
    return masks, np.array([[0.5, 0.2, 0.8, 0.4]], np.float32)


def test_a_stable_single_mask_is_kept() -> None:
    masks, scores = _decoded(-9.0)
    chosen, score = select_masks(masks, scores, multi_mask_output=False)
    np.testing.assert_array_equal(chosen, masks[:, :1])
    assert score.tolist() == [[0.5]]


def test_an_unstable_single_mask_gives_way_to_the_best_of_three() -> None:
    masks, scores = _decoded(0.0)
    chosen, score = select_masks(masks, scores, multi_mask_output=False)
    np.testing.assert_array_equal(chosen, masks[:, 2:3])
    assert score[0, 0] == np.float32(0.8)


def test_stability_of_an_empty_mask_is_one() -> None:
    assert stability(np.full((1, 4, 4), -5.0, np.float32), 0.05).tolist() == [1.0]
