"""Large photos and frames, and Meta's tracking options, against Meta's release as `make_meta_videos.py` recorded it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sam2edge import AutoModel, ImagePredictor, VideoTracker
from tests.conftest import BACKENDS
from tests.data import meta_inputs as given

DATA = Path(__file__).parent / "data"
LOGITS_WITHIN, AREA_WITHIN = 5e-3, 2e-3


@pytest.fixture(scope="module")
def model(golden_checkpoint: Callable[[str], Path]) -> ImagePredictor:
    """SAM 2.1 tiny with golden weights at 512."""
    pytest.importorskip("torch")
    checkpoint = golden_checkpoint("sam2/hiera_tiny")
    return AutoModel.from_pretrained(
        "sam2/hiera_tiny", backend="torch", checkpoint=checkpoint, image_size=given.IMAGE_SIZE
    )


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "meta_videos.npz"))


def _compare(recorded: dict[str, np.ndarray], step: str, logits: np.ndarray, masks: np.ndarray) -> None:
    found = given.sample(step, np.asarray(logits, np.float32))
    np.testing.assert_allclose(found, np.clip(recorded[f"{step}/logits"], -32, 32), atol=LOGITS_WITHIN, err_msg=step)
    np.testing.assert_allclose(
        masks.sum(axis=(1, 2)), recorded[f"{step}/area"], rtol=AREA_WITHIN, atol=20, err_msg=step
    )


def test_a_large_photo(model: ImagePredictor, recorded: dict[str, np.ndarray]) -> None:
    photo, box = given.large_photo_rgb(), np.array(given.LARGE_BOX_XYXY)
    found = model.segment_images(photo, boxes=box, input_color_format="rgb")[0]
    _compare(recorded, "large_photo/0", found.logits, found.masks)


@pytest.mark.parametrize(("case", "resize"), [("large_bilinear", "bilinear"), ("large_bicubic", "pillow-bicubic")])
def test_large_frames(model: ImagePredictor, recorded: dict[str, np.ndarray], case: str, resize: str) -> None:
    frames = given.large_frames_rgb()
    tracker = VideoTracker(model, input_color_format="rgb", num_frames=len(frames), resize=resize)
    results = [tracker.prompt(frames[0], 1, box=given.LARGE_BOX_XYXY), *map(tracker.track, frames[1:])]
    for index, result in enumerate(results):
        _compare(recorded, f"{case}/{index}", result.logits, result.masks)


@pytest.mark.parametrize("case", given.OPTIONS)
def test_options(model: ImagePredictor, recorded: dict[str, np.ndarray], case: str) -> None:
    frames, options = given.small_frames_rgb(), {"add_all_frames_to_correct_as_cond": False, **given.OPTIONS[case]}
    tracker = VideoTracker(model, input_color_format="rgb", num_frames=len(frames), **options)
    tracker.prompt(frames[0], 1, box=given.SMALL_BOX_XYXY)
    result = tracker.prompt(None, 2, points=[given.SMALL_POINT_XY], labels=[1])
    _compare(recorded, f"{case}/0", result.logits, result.masks)
    for index in range(1, len(frames)):
        result = tracker.track(frames[index])
        _compare(recorded, f"{case}/{index}", result.logits, result.masks)
        if index == given.CORRECTED:
            result = tracker.prompt(None, 1, points=[given.SMALL_CLICK_XY], labels=[0])
            _compare(recorded, f"{case}/corrected", result.logits, result.masks)


def test_a_clip_backwards(model: ImagePredictor, recorded: dict[str, np.ndarray]) -> None:
    frames = given.small_frames_rgb()
    tracker = VideoTracker(model, input_color_format="rgb", num_frames=len(frames))
    tracker.prompt(frames[-1], 1, box=given.SMALL_BOX_XYXY)
    for index in range(len(frames) - 2, -1, -1):
        result = tracker.track(frames[index])
        _compare(recorded, f"reverse/{index}", result.logits, result.masks)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_photos_and_frames_at_1024(
    backend: str,
    golden_checkpoint: Callable[[str], Path],
    golden_store: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    recorded = dict(np.load(DATA / "meta_videos_1024.npz"))
    if backend == "onnxruntime":
        monkeypatch.setenv("SAM2EDGE_HOME", str(golden_store("sam2/hiera_tiny")))
    checkpoint = golden_checkpoint("sam2/hiera_tiny")
    model = AutoModel.from_pretrained("sam2/hiera_tiny", backend=backend, checkpoint=checkpoint)
    assert model.image_size == 1024
    photo, box = given.large_photo_rgb(), np.array(given.LARGE_BOX_XYXY)
    found = model.segment_images(photo, boxes=box, input_color_format="rgb")[0]
    _compare(recorded, "large_photo/0", found.logits, found.masks)
    frames = given.large_frames_rgb()[: given.FRAMES_AT_1024]
    tracker = VideoTracker(model, input_color_format="rgb", num_frames=len(frames))
    results = [tracker.prompt(frames[0], 1, box=given.LARGE_BOX_XYXY), *map(tracker.track, frames[1:])]
    for index, result in enumerate(results):
        _compare(recorded, f"large_bilinear/{index}", result.logits, result.masks)
