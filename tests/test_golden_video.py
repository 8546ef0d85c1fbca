"""The tracker on both backends against the recorded video of Meta's release: prompts, tracking, a correction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge import AutoModel, VideoTracker
from tests.conftest import BACKENDS, GOLDEN

LOGITS_WITHIN, AREA_WITHIN = 5e-3, 2e-3
RECORDED = GOLDEN / "sam2.1_hiera_tiny_video.npz"
FRAMES = [GOLDEN / "clip" / f"{index:05d}.jpg" for index in range(6)]


@pytest.fixture(scope="module", params=BACKENDS)
def results(
    request: pytest.FixtureRequest,
    golden_checkpoint: Callable[[str], Path],
    golden_store: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict:
    """Every recorded step's result, by its name in the recording."""
    pytest.importorskip("torch")
    store = golden_store("sam2/hiera_tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM2EDGE_HOME", str(store))
        checkpoint = golden_checkpoint("sam2/hiera_tiny")
        model = AutoModel.from_pretrained("sam2/hiera_tiny", backend=request.param, checkpoint=checkpoint)
    tracker = VideoTracker(model, num_frames=len(FRAMES))
    frames = [cv2.imread(str(path)) for path in FRAMES]
    return _run_steps(tracker, frames, tmp_path_factory.mktemp("session") / "frame3.npz")


def _run_steps(tracker: VideoTracker, frames: list, session: Any) -> dict:
    first, second, correction = json.loads(str(np.load(RECORDED)["steps_json"]))
    results = {"prompt0": tracker.prompt(frames[0], first[2], **first[3])}
    results["prompt1"] = results["frame0"] = tracker.prompt(frames[0], second[2], **second[3])
    for index in range(1, len(frames)):
        results[f"frame{index}"] = tracker.track(frames[index])
        if index == correction[1]:
            tracker.save(session)
    # A stream cannot go back: the recording's correction of an earlier frame is made on the session of that frame.
    tracker.load(session)
    results["correction"] = results["after_correction_frame3"] = tracker.prompt(None, correction[2], **correction[3])
    for index in range(correction[1] + 1, len(frames)):
        results[f"after_correction_frame{index}"] = tracker.track(frames[index])
    return results


def test_every_step_is_as_recorded(results: dict) -> None:
    recorded = np.load(RECORDED)
    steps = sorted(name.removesuffix("_ids") for name in recorded if name.endswith("_ids"))
    assert sorted(results) == steps
    for name in steps:
        found, objects = results[name], len(recorded[f"{name}_ids"])
        assert list(found.object_ids[:objects]) == recorded[f"{name}_ids"].tolist(), name
        logits = np.stack([_averaged(plane) for plane in found.logits[:objects]])
        np.testing.assert_allclose(logits, recorded[f"{name}_logits"], atol=LOGITS_WITHIN, err_msg=name)
        areas = found.masks[:objects].sum(axis=(1, 2))
        np.testing.assert_allclose(areas, recorded[f"{name}_area"], rtol=AREA_WITHIN, err_msg=name)


def _averaged(logits: np.ndarray) -> np.ndarray:
    """(256, 256) logits at frame size, averaged over the area of each of 128x128 cells, as they were recorded."""
    full = cv2.resize(logits, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    return full.reshape(128, 8, 128, 8).mean(axis=(1, 3))
