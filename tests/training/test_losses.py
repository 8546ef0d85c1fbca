"""Losses are finite, and least where the masks are right."""

from __future__ import annotations

import torch

from training.batches import draw_batch
from training.losses import Weights, contrast, mask_iou, prompt_spread, total_loss

SEED = 3  # without objects so thin that they fill no cell at 64 pixels


def _logits(masks: torch.Tensor, strength: float) -> torch.Tensor:
    return ((masks > 0.5).float() * 2 - 1)[:, :, None].repeat(1, 1, 4, 1, 1) * strength


def test_right_masks_cost_less_than_wrong_ones() -> None:
    targets = draw_batch(SEED, 2, 6, 64).targets
    scores, seen = torch.full((2, 6, 4), 0.9), torch.zeros(2, 6)
    right, figures = total_loss(_logits(targets.masks, 6.0), scores, seen, targets, Weights())
    wrong, _ = total_loss(_logits(targets.masks, -6.0), scores, seen, targets, Weights())
    assert torch.isfinite(right)
    assert torch.isfinite(wrong)
    assert float(right) < 0.3 * float(wrong)
    assert figures["iou_by_score"] > 0.95


def test_extreme_logits_stay_finite() -> None:
    targets = draw_batch(1, 1, 4, 64).targets
    loss, _ = total_loss(
        _logits(targets.masks, -1e4), torch.ones(1, 4, 4), torch.full((1, 4), -1e4), targets, Weights()
    )
    assert torch.isfinite(loss)


def test_contrast_punishes_masks_that_ignore_the_prompt() -> None:
    targets = draw_batch(2, 1, 8, 64).targets
    followed = contrast(_logits(targets.masks, 6.0), targets.same, targets.cells).mean()
    everything = targets.masks.amax(1, keepdim=True).expand_as(targets.masks)
    ignored = contrast(_logits(everything, 6.0), targets.same, targets.cells).mean()
    assert float(followed) < 0.3 * float(ignored)


def test_spread_is_zero_where_prompts_are_ignored() -> None:
    logits = torch.randn(1, 1, 4, 8, 8)
    assert float(prompt_spread(logits.expand(1, 5, 4, 8, 8))) < 1e-3
    assert float(prompt_spread(torch.randn(1, 5, 4, 8, 8))) > 0.5


def test_iou_by_hand() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1.0
    logits = torch.full((1, 1, 1, 4, 4), -1.0)
    logits[..., 1:3] = 1.0
    assert abs(float(mask_iou(logits, masks)) - 4 / 12) < 1e-6
