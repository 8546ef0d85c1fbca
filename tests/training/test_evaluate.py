"""The figures on models whose answer is known: one that knows the outlines, one that ignores its prompts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.variants import EMBEDDED, find_variant
from training.batches import HELD_OUT_SEED
from training.evaluate import _Tally, evaluate
from training.pixels import normalise
from training.prompts import deepest_point, slots
from training.publish import ASSETS
from training.scenes import draw_scene

SIZE, SCENES = 64, 4


class _KnowsTheOutlines:
    """Answers every prompt with the label under its first click (or its box's middle)."""

    def __init__(self) -> None:
        self.scene = HELD_OUT_SEED - 1

    def encode_image(self, image: Tensor) -> tuple[Tensor, ...]:
        self.scene += 1
        return tuple(image.new_zeros(1, 1, 1, 1) for _ in range(4))

    def decode(self, a: Tensor, b: Tensor, c: Tensor, coords: Tensor, labels: Tensor, *previous: Tensor) -> Any:
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
    def decode(self, a: Tensor, b: Tensor, c: Tensor, coords: Tensor, labels: Tensor, *previous: Tensor) -> Any:
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


def test_a_second_click_with_and_without_the_mask_handed_back() -> None:
    figures = evaluate(_KnowsTheOutlines(), SIZE, SCENES)
    assert {"by_score", "oracle"} <= figures["two_clicks"].keys()
    assert {"by_score", "oracle"} <= figures["two_clicks_refined"].keys()


def test_a_click_on_a_part_may_mean_the_part_or_the_whole() -> None:
    part, whole, wrong = (np.zeros((1, 8, 8), bool) for _ in range(3))
    part[0, 2:4, 2:4], whole[0, 1:7, 1:7], wrong[0, :1] = True, True, True
    pair = np.concatenate([part, whole])
    tally = _Tally()
    tally.add_ambiguous(np.stack([part, whole, wrong], axis=1), pair)
    tally.add_ambiguous(np.stack([whole, whole, whole], axis=1), pair)
    assert tally.lists["click_on_part.both_good"] == [1.0, 0.0]
    assert tally.lists["click_on_part.whole"] == [1.0, 1.0]
    assert tally.lists["click_on_part.part"] == [1.0, 4 / 36]
    assert tally.lists["click_on_part.masks_differ"][1] == 0.0


@torch.no_grad()
def test_an_empty_prompt_gives_finite_masks_and_a_low_score() -> None:
    """A background click alone, or no prompt at all: the object score of the weights that ship says so."""
    model = load_model(find_variant(EMBEDDED), ASSETS / "sam2.1_micro.safetensors", 256)
    empty: list[float] = []
    asked: list[float] = []
    absent: list[float] = []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 2):
        scene = draw_scene(seed, 256)
        features = model.encode_image(normalise(scene.image)[None])
        at = deepest_point(scene.mask(scene.objects[0]))
        for label, scores in ((BACKGROUND, empty), (FOREGROUND, asked), (ABSENT, absent)):
            coords, labels = slots([(*at, label)])
            out = model.decode(*features[:3], torch.from_numpy(coords)[None], torch.from_numpy(labels)[None])
            assert all(torch.isfinite(part).all() for part in (out.low_res_masks, out.iou_scores, out.object_score))
            scores.append(float(out.object_score))
    assert max(empty) < 0
    assert np.mean(absent) < 0.5 * np.mean(asked)
