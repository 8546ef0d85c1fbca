"""What the masks, their scores and the object score are trained on.

Shapes: B images, P prompts each, M masks a prompt (0 the single mask, 1 to 3 the ones to choose from), masks of
h x w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """masks (B, P, h, w) float share covered; cells (B, P) int64 flat cell of each anchor; same (B, P, P) float:
    whether the second's anchor lies on the first's target, -1 where that is left open; present (B, P) float."""

    masks: Tensor
    cells: Tensor
    same: Tensor
    present: Tensor


@dataclass(frozen=True)
class Weights:
    """How much each part counts."""

    dice: float = 1.0
    single: float = 0.5  # the single mask beside the best of three
    others: float = 0.1  # the two of three that were not best
    contrast: float = 2.0
    score: float = 1.0
    present: float = 0.1


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """(B, P, M) IoU of logits (B, P, M, h, w) above 0 with masks (B, P, h, w) above a half."""
    found, wanted = logits > 0, masks[:, :, None] > 0.5
    both = (found & wanted).sum((-2, -1)).float()
    either = (found | wanted).sum((-2, -1)).float()
    return both / either.clamp(min=1.0)


def mask_error(logits: Tensor, masks: Tensor, dice_weight: float) -> Tensor:
    """(B, P, M) cross-entropy plus dice of logits (B, P, M, h, w) against masks (B, P, h, w)."""
    wanted = masks[:, :, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))
    share = torch.sigmoid(logits)
    both = (share * wanted).sum((-2, -1))
    dice = 1.0 - (2.0 * both + 1.0) / (share.sum((-2, -1)) + wanted.sum((-2, -1)) + 1.0)
    return entropy + dice_weight * dice


def contrast(logits: Tensor, targets: Tensor, cells: Tensor) -> Tensor:
    """(B, P) each prompt's masks read at the anchors of all prompts of its image, against `targets` (B, P, P).

    This is what makes a model trained from scratch follow its prompts: anchors on and off the object weigh alike.
    Those with a target below 0 count as neither.
    """
    batch, prompts, count = logits.shape[:3]
    at = cells[:, None, None, :].expand(batch, prompts, count, prompts)
    read = logits.flatten(3).gather(3, at)
    on, off = (targets == 1).to(logits.dtype), (targets == 0).to(logits.dtype)
    error = F.binary_cross_entropy_with_logits(read, on[:, :, None].expand_as(read), reduction="none").mean(2)
    mean_on = (error * on).sum(2) / on.sum(2).clamp(min=1.0)
    mean_off = (error * off).sum(2) / off.sum(2).clamp(min=1.0)
    return 0.5 * (mean_on + mean_off)


def prompt_spread(logits: Tensor) -> Tensor:
    """How much the masks (B, P, M, h, w) of one image differ between its prompts, as a share of all their variation.

    Near 0 the prompts are ignored; this is a young model's sign of life.
    """
    between = logits.float().std(dim=1).mean()
    return between / logits.float().std().clamp(min=1e-6)


def total_loss(
    logits: Tensor, scores: Tensor, object_score: Tensor, targets: Targets, weights: Weights
) -> tuple[Tensor, dict[str, float]]:
    """The loss and its parts by name, from logits (B, P, 4, h, w) ungated, scores (B, P, 4), object_score (B, P)."""
    logits, scores = logits.float(), scores.float()
    there = targets.present
    count = there.sum().clamp(min=1.0)
    error = mask_error(logits, targets.masks, weights.dice)
    several = error[:, :, 1:]
    best = several.min(dim=2).values
    mask = best + weights.single * error[:, :, 0] + weights.others * (several.sum(2) - best)
    apart = contrast(logits, targets.same, targets.cells)
    with torch.no_grad():
        iou = mask_iou(logits, targets.masks)
    score = (scores - iou).abs().mean(2)
    seen = F.binary_cross_entropy_with_logits(object_score.float(), there)
    each = {"mask": mask, "contrast": apart, "score": score}
    parts = {name: (value * there).sum() / count for name, value in each.items()}
    loss = parts["mask"] + weights.contrast * parts["contrast"] + weights.score * parts["score"]
    loss = loss + weights.present * seen
    figures = {name: float(value.detach()) for name, value in parts.items()}
    chosen = scores[:, :, 1:].argmax(2, keepdim=True)
    by_score = (iou[:, :, 1:].gather(2, chosen).squeeze(2) * there).sum() / count
    figures |= {
        "loss": float(loss.detach()),
        "present": float(seen.detach()),
        "iou_by_score": float(by_score),
        "iou_best": float((iou[:, :, 1:].max(2).values * there).sum() / count),
        "iou_single": float((iou[:, :, 0] * there).sum() / count),
        "spread": float(prompt_spread(logits.detach())),
    }
    return loss, figures
