"""Clicks on the model's own errors: where they fall, and into which slot of a prompt."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND
from sam2edge.imaging.frame import LOGIT_LIMIT
from sam2edge.torch_sam2.model import Sam2
from tests.training.test_train import OPTIONS, SMALL
from training.batches import draw_batch
from training.corrections import error_clicks, masks_to_hand_back, next_click, with_click
from training.pictures import Material
from training.train import Trainer, spread


def _logits(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(1, 1, 16, 16): 5 in the boxes, -5 elsewhere."""
    logits = torch.full((1, 1, 16, 16), -5.0)
    for x0, y0, x1, y1 in boxes:
        logits[..., y0:y1, x0:x1] = 5.0
    return logits


def test_the_next_click_goes_to_the_largest_error() -> None:
    wanted, found = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    wanted[5:25, 5:15] = True
    found[5:25, 5:9] = True
    found[2:4, 20:22] = True
    x, y, label = next_click(found, wanted)
    assert (wanted & ~found)[int(y), int(x)]
    assert label == 1


def test_a_click_falls_in_the_middle_of_the_largest_error() -> None:
    wanted = (_logits((0, 0, 5, 5), (10, 10, 13, 13))[:, 0] > 0).float()
    clicks, labels = error_clicks(_logits((0, 0, 5, 5)), wanted)
    assert clicks.tolist() == [[46.0, 46.0]]  # the cell (11, 11), of four pixels
    assert labels.tolist() == [FOREGROUND]
    clicks, labels = error_clicks(_logits((0, 0, 5, 5), (8, 2, 15, 9)), (_logits((0, 0, 5, 5))[:, 0] > 0).float())
    assert clicks.tolist() == [[46.0, 22.0]]  # (11, 5), the middle of what should not be there
    assert labels.tolist() == [BACKGROUND]


def test_a_click_takes_the_first_absent_slot() -> None:
    coords = torch.arange(12.0).reshape(3, 2, 2)
    labels = torch.tensor([[FOREGROUND, ABSENT], [FOREGROUND, BACKGROUND], [FOREGROUND, ABSENT]])
    clicks = (torch.full((3, 2), 99.0), torch.full((3,), BACKGROUND))
    new_coords, new_labels = with_click(coords, labels, clicks, torch.tensor([True, True, False]))
    assert new_labels.tolist() == [[FOREGROUND, BACKGROUND], [FOREGROUND, BACKGROUND], [FOREGROUND, ABSENT]]
    assert new_coords[0].tolist() == [[0.0, 1.0], [99.0, 99.0]]
    assert torch.equal(new_coords[1:], coords[1:])  # one prompt is full, the other was not asked


def test_the_best_scored_of_the_three_masks_is_handed_back() -> None:
    masks = torch.arange(4.0)[None, :, None, None].expand(1, 4, 2, 2) * 20.0
    answer = SimpleNamespace(iou_scores=torch.tensor([[0.9, 0.1, 0.5, 0.2]]), low_res_masks=masks)
    assert masks_to_hand_back(answer).unique().tolist() == [min(40.0, LOGIT_LIMIT)]


def test_corrections_add_up_on_the_same_prompts() -> None:
    trainer = Trainer(Sam2(SMALL, image_size=64).eval(), replace(OPTIONS, corrected=3, rounds=1))
    batch = draw_batch(Material(), 0, 4, 5, 64)
    features = trainer.model.encode_image(batch.images)[:3]  # type: ignore[operator]
    asked: list[tuple[torch.Tensor, ...]] = []
    decode = trainer.model.decode

    def noted(*parts: torch.Tensor) -> object:
        asked.append(parts[3:])
        return decode(*parts)  # type: ignore[operator]

    first = noted(*spread(features, 5), batch.coords.flatten(0, 1), batch.labels.flatten(0, 1))
    trainer.model.decode = noted  # type: ignore[assignment]
    loss, _ = trainer._correct(features, batch, first, np.random.default_rng(0))
    assert loss.requires_grad
    (before, after) = asked
    chosen = np.random.default_rng(0).permutation(5)[:3]
    old_labels = before[1].unflatten(0, (4, 5))[:, chosen].flatten(0, 1)
    added = (after[1] != old_labels).sum(1)
    there = batch.targets.present[:, chosen].flatten() > 0
    full = (old_labels != ABSENT).all(1)
    assert (added[there & ~full] == 1).all()
    assert (added[~there | full] == 0).all()
    kept = old_labels != ABSENT
    assert torch.equal(after[1][kept], old_labels[kept])  # what was asked before stays
    assert set(after[3].tolist()) <= {0.0, 1.0}
