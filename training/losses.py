"""What the masks, their scores and the object score are trained on.

Shapes: B images, P prompts each, M masks a prompt (0 the single mask, 1 to 3 the ones to choose from), T targets a
prompt, masks of h x w cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """masks (B, P, h, w) float share covered; cells (B, P) int64 flat cell of each anchor; same (B, P, P) float:
    whether the second's anchor lies on the first's target, -1 where that is left open; present (B, P) float; others
    (B, P, T - 1, h, w): what the prompt may mean as well, empty where there is no more, or None."""

    masks: Tensor
    cells: Tensor
    same: Tensor
    present: Tensor
    others: Tensor | None = None

    def choose(self, prompts: Tensor) -> Targets:
        """Those of some prompts (K,) of each picture, for which nothing else may be meant any more."""
        same = self.same[:, prompts][:, :, prompts]
        return Targets(self.masks[:, prompts], self.cells[:, prompts], same, self.present[:, prompts])


@dataclass(frozen=True)
class Weights:
    """How much each part counts."""

    dice: float = 1.0
    single: float = 0.5  # the single mask beside the best of three
    spare: float = 0.05  # each of three that no target fell to
    meant: float = 0.5  # what a click may mean as well, beside what it was drawn for
    contrast: float = 0.3
    score: float = 1.5
    present: float = 0.1


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """(B, P, M) IoU of logits (B, P, M, h, w) above 0 with masks (B, P, h, w) above a half."""
    found, wanted = (logits > 0).flatten(3).float(), (masks > 0.5).flatten(2).float()
    both = (found @ wanted[..., None])[..., 0]
    either = found.sum(3) + wanted.sum(2)[..., None] - both
    return both / either.clamp(min=1.0)


def mask_error(logits: Tensor, masks: Tensor, dice_weight: float) -> Tensor:
    """(B, P, M, T) cross-entropy plus dice of logits (B, P, M, h, w) against masks (B, P, T, h, w)."""
    found, wanted = logits.flatten(3), masks.flatten(3)
    # The entropy of a logit x and a share y is softplus(x) - x y: sums over cells are matrix products.
    entropy = F.softplus(found).mean(3)[..., None] - found @ wanted.transpose(2, 3) / found.shape[3]
    share = found.sigmoid()
    both = share @ wanted.transpose(2, 3)
    dice = 1.0 - (2.0 * both + 1.0) / (share.sum(3)[..., None] + wanted.sum(3)[:, :, None] + 1.0)
    return entropy + dice_weight * dice


def match(error: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P) the least sum of `error` (B, P, 3, T), weighted by `counts` (B, P, T), over all ways to give each target
    a mask of its own, and (B, P, 3) which masks got one that counts."""
    ways = torch.tensor(list(permutations(range(3), error.shape[3])), device=error.device)  # (ways, T)
    costs = torch.stack([error[:, :, ways[:, t], t] * counts[:, :, None, t] for t in range(error.shape[3])]).sum(0)
    least, best = costs.min(2)
    taken = F.one_hot(ways[best], 3) * (counts > 0)[..., None]
    return least, taken.sum(2)


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


def mask_loss(logits: Tensor, targets: Targets, weights: Weights) -> Tensor:
    """(B, P): the three masks against all that the prompt may mean, the single one against what it was drawn for."""
    wanted, counts = targets.masks[:, :, None], torch.ones_like(targets.masks[:, :, :1, 0])
    if targets.others is not None:
        wanted = torch.cat((wanted, targets.others), dim=2)
        counts = torch.cat((counts, weights.meant * (targets.others.amax((3, 4)) > 0.5)), dim=2)
    error = mask_error(logits, wanted, weights.dice)
    least, taken = match(error[:, :, 1:], counts)
    spare = ((taken == 0) * error[:, :, 1:, 0]).sum(2)
    return least + weights.spare * spare + weights.single * error[:, :, 0, 0]


def total_loss(
    logits: Tensor, scores: Tensor, object_score: Tensor, targets: Targets, weights: Weights
) -> tuple[Tensor, dict[str, float]]:
    """The loss and its parts by name, from logits (B, P, 4, h, w) ungated, scores (B, P, 4), object_score (B, P)."""
    logits, scores = logits.float(), scores.float()
    there = targets.present
    count = there.sum().clamp(min=1.0)
    apart = contrast(logits, targets.same, targets.cells)
    with torch.no_grad():
        iou = mask_iou(logits, targets.masks)
    score = (scores - iou).abs().mean(2)
    seen = F.binary_cross_entropy_with_logits(object_score.float(), there)
    each = {"mask": mask_loss(logits, targets, weights), "contrast": apart, "score": score}
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
    }
    return loss, figures
