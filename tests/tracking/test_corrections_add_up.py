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

SEEDS = range(900_000, 900_024)  # 71 objects


def _correct(
    tracker: VideoTracker, object_id: int, wanted: np.ndarray, first: dict[str, Any], clicks: int
) -> list[float]:
    """IoU after the first prompt and after each click in the middle of the largest error."""
    result, ious = tracker.prompt(None, object_id, **first), []
    for _ in range(clicks):
        found = result.masks[result.object_ids.index(object_id)]
        ious.append(overlap(found, wanted))
        x, y, label = next_click(found, wanted)
        result = tracker.prompt(None, object_id, points=[[x, y]], labels=[label])
    return [*ious, overlap(result.masks[result.object_ids.index(object_id)], wanted)]


def test_no_click_makes_masks_worse(micro_onnx: ImagePredictor) -> None:
    after_a_click, after_a_box = [], []
    for seed in SEEDS:
        scene = draw_scene(seed, 512)
        tracker = VideoTracker(micro_onnx, input_color_format="rgb")
        tracker.prompt(scene.image, 0, box=[1, 1, 511, 511])
        for number in scene.objects[:3]:
            wanted = scene.mask(number)
            click = {"points": [deepest_point(wanted)], "labels": [1]}
            after_a_click.append(_correct(tracker, number, wanted, click, 2))
            after_a_box.append(_correct(tracker, 1000 + number, wanted, {"box": box_of(wanted)}, 1))
    clicks, boxes = np.mean(after_a_click, axis=0), np.mean(after_a_box, axis=0)
    assert (np.diff(clicks) > 0).all(), clicks
    assert clicks[-1] > clicks[0] + 0.04, clicks
    assert (np.diff(boxes) > 0).all(), boxes
