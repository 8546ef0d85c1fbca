"""The figures on models whose answer is known: one that knows the outlines, one that ignores its prompts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.batches import HELD_OUT_SEED
from training.evaluate import evaluate, next_click
from training.scenes import draw_scene

SIZE, SCENES = 64, 4


class _KnowsTheOutlines:
    """Answers every prompt with the label under its first click (or its box's middle)."""

    def __init__(self) -> None:
        self.scene = HELD_OUT_SEED - 1

    def encode_image(self, image: Tensor) -> tuple[Tensor, ...]:
        self.scene += 1
        return tuple(image.new_zeros(1, 1, 1, 1) for _ in range(4))

    def decode(self, a: Tensor, b: Tensor, c: Tensor, coords: Tensor, labels: Tensor) -> Any:
        truth = torch.from_numpy(draw_scene(self.scene, SIZE).labels.astype(np.int64))
        rows = []
        for xy, kind in zip(coords, labels, strict=True):
            x, y = (xy[0] + xy[1]).long() // 2 if kind[0] == 2 else xy[0].long()
            rows.append((truth == truth[y, x]).float() * 2 - 1)
        masks = torch.stack(rows)[:, None].repeat(1, 4, 1, 1)
        masks[:, 1:3] = -1.0
        scores = torch.tensor([[0.0, 0.1, 0.2, 0.9]]).repeat(len(rows), 1)
        return SimpleNamespace(low_res_masks=masks, iou_scores=scores)


class _IgnoresThePrompt(_KnowsTheOutlines):
    def decode(self, a: Tensor, b: Tensor, c: Tensor, coords: Tensor, labels: Tensor) -> Any:
        masks = torch.full((len(coords), 4, SIZE, SIZE), -1.0)
        masks[..., :8, :8] = 1.0
        return SimpleNamespace(low_res_masks=masks, iou_scores=torch.full((len(coords), 4), 0.5))


def test_a_model_that_knows_the_outlines() -> None:
    figures = evaluate(_KnowsTheOutlines(), SIZE, SCENES)
    assert figures["one_click"]["by_score"] == 1.0
    assert figures["one_click"]["oracle"] == 1.0
    assert figures["random_click"]["by_score"] == 1.0
    assert figures["followed"] == 1.0
    assert figures["distinct"] == 1.0


def test_a_model_that_ignores_its_prompts() -> None:
    figures = evaluate(_IgnoresThePrompt(), SIZE, SCENES)
    assert figures["one_click"]["by_score"] < 0.3
    assert figures["followed"] < 0.5
    assert figures["distinct"] == 0.0


def test_the_next_click_goes_to_the_largest_error() -> None:
    wanted, found = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    wanted[5:25, 5:15] = True
    found[5:25, 5:9] = True
    found[2:4, 20:22] = True
    x, y, label = next_click(found, wanted)
    assert (wanted & ~found)[y, x]
    assert label == 1
