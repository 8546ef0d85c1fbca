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
from training.train import Trainer


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


def test_half_of_the_prompts_are_clicked_once_more_on_what_is_wrong() -> None:
    trainer = Trainer(Sam2(SMALL, image_size=64).eval(), replace(OPTIONS, refine=1.0))
    batch = draw_batch(0, 8, 4, 64)
    encoded = trainer.model.encode_image(batch.images)[:3]  # type: ignore[operator]
    features = [f[:, None].expand(-1, 4, -1, -1, -1).flatten(0, 1) for f in encoded]
    coords, labels = batch.coords.flatten(0, 1), batch.labels.flatten(0, 1)
    wanted, draw = batch.targets.masks.flatten(0, 1), np.random.default_rng(0)
    new_coords, new_labels, masks, handed = trainer._improved(features, coords, labels, batch.targets, draw)
    changed = (new_labels != labels).sum(1)
    assert set(changed.tolist()) == {0, 1} and 8 <= int(changed.sum()) <= 24
    for row in torch.nonzero(changed)[:, 0]:
        slot = int((new_labels[row] != labels[row]).nonzero()[0, 0])
        x, y = (new_coords[row, slot] // 4).int().tolist()
        right, found = bool(wanted[row, y, x] > 0.5), bool(masks[row, 0, y, x] > 0)
        if bool(((masks[row, 0] > 0) != (wanted[row] > 0.5)).any()):
            assert right != found and int(new_labels[row, slot]) == (FOREGROUND if right else BACKGROUND)
    assert set(handed.tolist()) == {0.0, 1.0}
    assert batch.targets.present.flatten()[changed > 0].all()  # what is not there has no error to click on
