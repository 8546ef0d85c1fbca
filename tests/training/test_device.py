"""Training on another device than the CPU: no tensor is left behind. torch's device without values stands in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam2edge.torch_sam2.model import Sam2
from tests.training.test_train import OPTIONS, SMALL
from tests.training.test_train_clips import OPTIONS as CLIP_OPTIONS
from training.batches import draw_batch, on_device
from training.clip_batches import draw_clip_batch
from training.losses import Weights, contrast, mask_iou, mask_loss
from training.pictures import Material
from training.train import Trainer, by_image, spread
from training.train_clips import ClipTrainer, Memories


def test_a_batch_is_moved_whole() -> None:
    batch = on_device(draw_clip_batch(Material(), 0, 1, 2, 64, 2), "meta")
    assert {t.device.type for t in (batch.frames, batch.coords, batch.labels, batch.given)} == {"meta"}
    assert {t.masks.device.type for t in batch.targets} | {t.cells.device.type for t in batch.targets} == {"meta"}


def test_images() -> None:
    moved = on_device(draw_batch(Material(), 0, 2, 3, 64), "meta")
    with torch.no_grad():
        trainer = Trainer(Sam2(SMALL, image_size=64), replace(OPTIONS, device="meta"))
        features = trainer.model.encode_image(moved.images)[:3]  # type: ignore[operator]
        coords, labels = moved.coords.flatten(0, 1), moved.labels.flatten(0, 1)
        logits, scores, seen = by_image(trainer.model.decode(*spread(features, 3), coords, labels), (2, 3))  # type: ignore[operator]
        parts = (
            mask_loss(logits, moved.targets, Weights()),
            contrast(logits, moved.targets.same, moved.targets.cells),
            mask_iou(logits, moved.targets.masks),
        )
    assert {part.device.type for part in (logits, scores, seen, *parts)} == {"meta"}


@pytest.mark.parametrize("given", [False, True])
def test_clips(given: bool) -> None:
    batch = draw_clip_batch(Material(), 0, 2, 2, 64, 4)
    with torch.no_grad():
        trainer = ClipTrainer(Sam2(SMALL, image_size=64), replace(CLIP_OPTIONS, device="meta"))
        moved, known = on_device(batch, "meta"), Memories()
        for time, features in enumerate(trainer.encode(moved.frames)):
            embed = trainer.attend(features, known)
            out, masks = trainer.decode(moved, features, embed, given)
            trainer.remember(out, features, known, moved, time, masks, told=time == 1, prompted=time in (0, 2))
    assert {tensor.device.type for tensor in (*known.memories, *known.pointers)} == {"meta"}
