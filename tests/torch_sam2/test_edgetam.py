"""EdgeTAM gives what transformers' EdgeTAM gives: trunk, perceiver, prompts and tracked frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sam2edge import VideoTracker  # noqa: E402
from sam2edge.backends.torch import TorchBackend  # noqa: E402
from sam2edge.cli.main import main  # noqa: E402
from sam2edge.datatypes import BackendReport  # noqa: E402
from sam2edge.errors import CheckpointError, InvalidInputError  # noqa: E402
from sam2edge.predictor import ImagePredictor  # noqa: E402
from sam2edge.torch_sam2.checkpoint import check_state, parameter_shapes  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.torch_sam2.repvit import RepVit  # noqa: E402
from sam2edge.variants import find_variant, recognise_shapes  # noqa: E402
from tests.conftest import write_clip  # noqa: E402
from tests.data import tracked_inputs as given  # noqa: E402
from tests.golden.golden_weights import write_golden_checkpoint  # noqa: E402

EDGETAM = find_variant("sam2/edgetam")
REFERENCE = np.load(Path(__file__).parent.parent / "data" / "edgetam_reference.npz")
BOUND = 5e-3


@pytest.fixture(scope="module")
def model() -> Sam2:
    """EdgeTAM at 256 pixels with golden weights."""
    model = Sam2(EDGETAM, given.IMAGE_SIZE)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert recognise_shapes(shapes) is EDGETAM
    model.load_state_dict({name: torch.from_numpy(given.tensor(name, shape)) for name, shape in shapes.items()})
    return model.eval()


@pytest.fixture(scope="module")
def predictor(model: Sam2) -> ImagePredictor:
    return ImagePredictor(TorchBackend(model, torch.device("cpu")), BackendReport("torch"))


def test_fused_trunk_gives_what_its_branches_give(model: Sam2) -> None:
    trunk = RepVit().eval()
    trunk.load_state_dict(
        {name: torch.from_numpy(given.tensor(name, tuple(v.shape))) for name, v in trunk.state_dict().items()}
    )
    image = torch.from_numpy(given.frames_rgb()[:1]).permute(0, 3, 1, 2) / 128 - 1
    with torch.inference_mode():
        branches = trunk(image)
        trunk.bake_position()
        fused = trunk(image)
    assert [tuple(part.shape[1:]) for part in fused] == [(48, 64, 64), (96, 32, 32), (192, 16, 16), (384, 8, 8)]
    for one, other in zip(branches, fused, strict=True):
        assert (one - other).abs().max() < 1e-3 * one.abs().max()


def test_a_clicked_and_tracked_object(predictor: ImagePredictor) -> None:
    tracker, frames = VideoTracker(predictor, num_frames=given.NUM_FRAMES), given.frames_rgb()
    embedding = predictor.embed_images(frames[0], input_color_format="rgb")[0]
    found = embedding.features.to_host().tensors["vision_features"]
    expected = REFERENCE["vision_features"].reshape(16, 16, 256).transpose(2, 0, 1)
    assert np.abs(found[0] - expected).max() < BOUND

    for number, frame in enumerate(frames):
        bgr = np.ascontiguousarray(frame[..., ::-1])
        if number == 0:
            result = tracker.prompt(bgr, object_id=1, points=[given.POINT_XY], labels=[1])
        else:
            result = tracker.track(bgr)
        logits = tracker._objects[1].current.logits  # type: ignore[union-attr]
        assert np.abs(logits - REFERENCE[f"logits_{number}"]).max() < BOUND, number
        assert abs(result.object_scores[0] - REFERENCE[f"object_score_{number}"][0]) < BOUND, number


def test_a_memory_is_512_tokens(predictor: ImagePredictor) -> None:
    backend, frame = predictor.backend, given.frames_rgb()[0]
    tracker = VideoTracker(predictor, num_frames=given.NUM_FRAMES)
    tracker.prompt(np.ascontiguousarray(frame[..., ::-1]), object_id=1, points=[given.POINT_XY], labels=[1])
    tracker.track(np.ascontiguousarray(frame[..., ::-1]))
    entry = next(entry for _, _, entry in tracker._objects[1].bank.items())
    assert entry.memory is not None
    memory = entry.memory.to_host().tensors["memory"]
    assert memory.shape == (1, EDGETAM.memory_tokens(backend.image_size), 64) == (1, 512, 64)
    assert np.abs(memory - REFERENCE["memory"]).max() < BOUND


def test_an_image_size_that_the_windows_do_not_divide_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="multiple of 256"):
        Sam2(EDGETAM, 672)


@pytest.mark.parametrize(("file", "asked"), [("sam2/edgetam", "tiny"), ("tiny", "sam2/edgetam")])
def test_a_file_of_the_other_model_is_told_by_name(file: str, asked: str) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in parameter_shapes(find_variant(file)).items()}
    variant = find_variant(asked)
    with pytest.raises(CheckpointError, match=rf"missing.*unexpected.*load it as {find_variant(file).model_id}"):
        check_state(state, parameter_shapes(variant), variant, "weights.pt")


def test_track_with_weights_in_the_official_layout(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_golden_checkpoint("sam2/edgetam", tmp_path / "edgetam.pt")
    write_clip(tmp_path / "clip", 3)
    options = "--model edgetam --size 256 --checkpoint edgetam.pt --backend torch --box 8,10,38,40 --json"
    assert main(["track", "clip", *options.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "sam2/edgetam"
    assert len(report["frames"]) == 3
