"""Clicks on the model's own errors: what a person does who is not content with a mask yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND
from sam2edge.imaging.frame import LOGIT_LIMIT
from training.batches import MASK_STRIDE
from training.prompts import Click, deepest_point, depth_inside, highest


def next_click(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Click:
    """A click in the middle of the largest error of `found` (S, S): foreground on what it missed, else background.

    Without an error, in the middle of `wanted`; background where that is empty.
    """
    errors = {FOREGROUND: depth_inside(wanted & ~found), BACKGROUND: depth_inside(found & ~wanted)}
    label = max(errors, key=lambda label: float(errors[label].max()))
    if errors[label].max() > 0:
        return (*highest(errors[label]), label)
    return (*deepest_point(wanted), FOREGROUND if wanted.any() else BACKGROUND)


def best_of_three(out: Any) -> tuple[Tensor, Tensor]:
    """Rows (K,) and, for each, the number of its best-scored mask of three."""
    best = out.iou_scores[:, 1:].argmax(1) + 1
    return torch.arange(len(best), device=best.device), best


def masks_to_hand_back(out: Any) -> Tensor:
    """Logits (K, 1, h, w) of each answer's best-scored mask of three, limited as the runtime limits them."""
    return out.low_res_masks[best_of_three(out)][:, None].detach().float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def error_clicks(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """A click on the largest error of each mask: x, y (K, 2) in pixels of the input, labels (K,).

    logits (K, 1, h, w) of the masks so far; wanted (K, h, w): share of each cell that is covered.
    """
    found, right = ((mask.cpu().numpy() for mask in masks) for masks in (logits[:, 0] > 0, wanted > 0.5))
    clicks = [next_click(*pair) for pair in zip(found, right, strict=True)]
    middles = [((x + 0.5) * MASK_STRIDE, (y + 0.5) * MASK_STRIDE) for x, y, _ in clicks]
    labels = torch.tensor([label for _, _, label in clicks], device=logits.device)
    return logits.new_tensor(middles), labels


def with_click(coords: Tensor, labels: Tensor, clicks: tuple[Tensor, Tensor], asked: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts (K, N, 2), (K, N) with each one's click in its first absent slot, where `asked` (K,) and one is free."""
    absent = labels == ABSENT
    first = absent & (absent.cumsum(1) == 1) & asked[:, None]
    points, point_labels = clicks
    return torch.where(first[..., None], points[:, None], coords), torch.where(first, point_labels[:, None], labels)
