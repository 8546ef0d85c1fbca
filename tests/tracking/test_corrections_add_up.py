"""Clicks on what is wrong, one after another, on drawn scenes with the embedded model: each makes masks better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2edge import ImagePredictor, VideoTracker

pytest.importorskip("torch")  # the drawn scenes are training's

from training.corrections import next_click
from training.evaluate_clips import overlap
from training.prompts import box_of, deepest_point
from training.scenes import draw_scene

SEEDS = range(900_000, 900_016)
CLICKS = 4


def _correct(tracker: VideoTracker, wanted: np.ndarray, first: dict[str, Any]) -> list[float]:
    """IoU after the first prompt and after each click in the middle of the largest error."""
    found, ious = tracker.prompt(None, 1, **first).masks[-1], []
    for _ in range(CLICKS):
        ious.append(overlap(found, wanted))
        x, y, label = next_click(found, wanted)
        found = tracker.prompt(None, 1, points=[[x, y]], labels=[label]).masks[-1]
    tracker.remove_object(1)
    return [*ious, overlap(found, wanted)]


def test_no_click_makes_masks_worse(micro_onnx: ImagePredictor) -> None:
    after_a_click, after_a_box = [], []
    for seed in SEEDS:
        scene = draw_scene(seed, 512)
        tracker = VideoTracker(micro_onnx, input_color_format="rgb")
        tracker.prompt(scene.image, 0, box=[1, 1, 511, 511])
        for number in scene.objects[:3]:
            wanted = scene.mask(number)
            click = {"points": [deepest_point(wanted)], "labels": [1]}
            after_a_click.append(_correct(tracker, wanted, click))
            after_a_box.append(_correct(tracker, wanted, {"box": box_of(wanted)}))
    clicks, boxes = np.mean(after_a_click, axis=0), np.mean(after_a_box, axis=0)
    assert (np.diff(clicks) >= 0).all(), clicks
    assert (np.diff(boxes) >= 0).all(), boxes
    assert clicks[-1] > clicks[0] + 0.03, clicks
    assert boxes[-1] > boxes[0] + 0.015, boxes
