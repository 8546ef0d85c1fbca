"""Losses are finite, and least where the masks are right."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from training.batches import draw_batch
from training.losses import Targets, Weights, contrast, mask_error, mask_iou, mask_loss, match, total_loss
from training.pictures import Material

SEED = 3  # without objects so thin that they fill no cell at 64 pixels


def _logits(masks: torch.Tensor, strength: float) -> torch.Tensor:
    return ((masks > 0.5).float() * 2 - 1)[:, :, None].repeat(1, 1, 4, 1, 1) * strength


def test_right_masks_cost_less_than_wrong_ones() -> None:
    targets = draw_batch(Material(), SEED, 2, 6, 64).targets
    scores, seen = torch.full((2, 6, 4), 0.9), torch.zeros(2, 6)
    right, figures = total_loss(_logits(targets.masks, 6.0), scores, seen, targets, Weights())
    wrong, _ = total_loss(_logits(targets.masks, -6.0), scores, seen, targets, Weights())
    assert torch.isfinite(right)
    assert torch.isfinite(wrong)
    assert float(right) < 0.3 * float(wrong)
    assert figures["iou_by_score"] > 0.95


def test_extreme_logits_stay_finite() -> None:
    targets = draw_batch(Material(), 1, 1, 4, 64).targets
    loss, _ = total_loss(
        _logits(targets.masks, -1e4), torch.ones(1, 4, 4), torch.full((1, 4), -1e4), targets, Weights()
    )
    assert torch.isfinite(loss)


def test_contrast_punishes_masks_that_ignore_the_prompt() -> None:
    targets = draw_batch(Material(), 2, 1, 8, 64).targets
    followed = contrast(_logits(targets.masks, 6.0), targets.same, targets.cells).mean()
    everything = targets.masks.amax(1, keepdim=True).expand_as(targets.masks)
    ignored = contrast(_logits(everything, 6.0), targets.same, targets.cells).mean()
    assert float(followed) < 0.3 * float(ignored)


def test_a_click_may_mean_two_objects_and_each_gets_a_mask() -> None:
    part, whole = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    part[..., :2, :2], whole[..., :6, :6] = 1.0, 1.0
    nothing = torch.zeros_like(part)
    logits = 8 * (torch.stack((part, whole, part, nothing), dim=2) * 2 - 1)
    both = Targets(part, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 1), torch.ones(1, 1), whole[:, :, None])
    alone = replace(both, others=nothing[:, :, None])
    swapped = replace(both, others=torch.roll(whole, 2, -1)[:, :, None])
    weights = Weights(spare=0.0)
    assert float(mask_loss(logits, both, weights)) < 0.05
    assert float(mask_loss(logits, alone, weights)) < 0.05
    assert float(mask_loss(logits, swapped, weights)) > 0.2


def test_a_mask_serves_one_target_alone() -> None:
    error = torch.tensor([[[[0.0, 0.0], [1.0, 0.5], [1.0, 1.0]]]])  # mask 0 fits both
    least, taken = match(error, torch.ones(1, 1, 2))
    assert least.item() == 0.5
    assert taken.tolist() == [[[1, 1, 0]]]
    least, taken = match(error, torch.tensor([[[1.0, 0.0]]]))
    assert least.item() == 0.0
    assert taken.tolist() == [[[1, 0, 0]]]


def test_errors_are_the_entropy_and_the_dice() -> None:
    logits, masks = torch.randn(1, 2, 3, 8, 8), torch.rand(1, 2, 2, 8, 8)
    entropy = F.binary_cross_entropy_with_logits(logits[0, 1, 2], masks[0, 1, 0])
    share = logits[0, 1, 2].sigmoid()
    dice = 1 - (2 * (share * masks[0, 1, 0]).sum() + 1) / (share.sum() + masks[0, 1, 0].sum() + 1)
    torch.testing.assert_close(mask_error(logits, masks, 1.0)[0, 1, 2, 0], entropy + dice)


def test_iou_by_hand() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1.0
    logits = torch.full((1, 1, 1, 4, 4), -1.0)
    logits[..., 1:3] = 1.0
    assert abs(float(mask_iou(logits, masks)) - 4 / 12) < 1e-6
