"""EfficientTAM gives what its published code gives: trunk, both pooled attentions, prompts and tracked frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sam2edge import VideoTracker  # noqa: E402
from sam2edge.backends.torch import TorchBackend  # noqa: E402
from sam2edge.contract import MASKED_OUT  # noqa: E402
from sam2edge.datatypes import BackendReport  # noqa: E402
from sam2edge.errors import CheckpointError  # noqa: E402
from sam2edge.predictor import ImagePredictor  # noqa: E402
from sam2edge.torch_sam2.checkpoint import check_state, load_model, parameter_shapes  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.torch_sam2.pooled_attention import PooledAttention  # noqa: E402
from sam2edge.torch_sam2.position import rotary_axis, spread  # noqa: E402
from sam2edge.torch_sam2.rotary_attention import KeyGrids  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.data import tracked_inputs as given  # noqa: E402
from tests.golden.golden_weights import write_golden_checkpoint  # noqa: E402

REFERENCE = np.load(Path(__file__).parent.parent / "data" / "efficienttam_reference.npz")
NAMES = sorted({key.partition("/")[0] for key in REFERENCE.files})
BOUND = 5e-3


def _predictor(name: str) -> ImagePredictor:
    """The variant at 256 pixels with golden weights."""
    model = Sam2(find_variant(name), given.IMAGE_SIZE)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(given.tensor(name, shape)) for name, shape in shapes.items()})
    return ImagePredictor(TorchBackend(model.eval(), torch.device("cpu")), BackendReport("torch"))


@pytest.mark.parametrize("name", NAMES)
def test_a_clicked_and_tracked_object(name: str) -> None:
    predictor = _predictor(name)
    tracker = VideoTracker(predictor, num_frames=given.NUM_FRAMES)
    for number, frame in enumerate(given.frames_rgb()):
        bgr = np.ascontiguousarray(frame[..., ::-1])
        if number == 0:
            tracker.prompt(bgr, object_id=1, points=[given.CENTRE_XY], labels=[1])
        else:
            tracker.track(bgr)
        logits = tracker._objects[1].current.logits  # type: ignore[union-attr]
        assert np.abs(logits[::2, ::2] - REFERENCE[f"{name}/logits_{number}"]).max() < BOUND, number


def test_embedding_and_memory() -> None:
    predictor, bgr = _predictor("efficienttam_ti"), np.ascontiguousarray(given.frames_rgb()[0][..., ::-1])
    tensors = predictor.embed_images(bgr)[0].features.to_host().tensors
    assert set(tensors) == {"image_embed", "vision_features"}
    assert np.abs(tensors["vision_features"][0, ::4] - REFERENCE["efficienttam_ti/vision_features"]).max() < BOUND
    tracker = VideoTracker(predictor, num_frames=given.NUM_FRAMES)
    tracker.prompt(bgr, object_id=1, points=[given.CENTRE_XY], labels=[1])
    tracker.track(bgr)
    entry = next(entry for _, _, entry in tracker._objects[1].bank.items())
    assert entry.memory is not None
    memory = entry.memory.to_host().tensors["memory"]
    expected = REFERENCE["efficienttam_ti/memory"].reshape(16, 256).T
    assert np.abs(memory[0, :, ::4] - expected).max() < BOUND


def test_the_kinds_of_attention_differ() -> None:
    """By more than the bound above, and only once there are two memories: else it would prove nothing."""
    plain, scores, keys = (
        [REFERENCE[f"efficienttam_ti{suffix}/logits_{frame}"] for frame in range(given.NUM_FRAMES)]
        for suffix in ("", "_1", "_2")
    )
    for frame, (a, b, c) in enumerate(zip(plain, scores, keys, strict=True)):
        least = min(np.abs(x - y).max() for x, y in ((a, b), (a, c), (b, c)))
        assert least > 10 * BOUND if frame > 1 else least < BOUND, frame


@pytest.mark.parametrize("raises", ["scores", "keys"])
@pytest.mark.parametrize(("count", "slots"), [(1, 1), (1, 3), (2, 3), (1, 7), (2, 7), (7, 7)])
def test_slots_with_a_mask_give_what_the_memories_alone_give(raises: str, count: int, slots: int) -> None:
    side, pointers, width = 4, 3, 16
    torch.manual_seed(count)
    layer = PooledAttention(width, 8, raises)
    cos, sin = (spread(axis, x_first=True) for axis in rotary_axis(width // 2, side))
    q, memory = torch.randn(1, side * side, width), torch.randn(1, slots * side * side + pointers, 8)
    cells = side * side
    used = torch.cat((memory[:, : count * cells], memory[:, slots * cells :]), dim=1)
    mask = torch.zeros(1, 1, memory.shape[1])
    mask[..., count * cells : slots * cells] = MASKED_OUT
    for context in (torch.enable_grad(), torch.inference_mode()):
        with context:
            alone = layer(q, used + 1, used, cos, sin, KeyGrids(count, 0, cos, sin))
            in_slots = layer(q, memory + 1, memory, cos, sin, KeyGrids(slots, 0, cos, sin), mask)
        torch.testing.assert_close(alone.detach(), in_slots.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("file", "asked"), [("efficienttam_s", "tiny"), ("tiny", "efficienttam_ti_1")])
def test_a_file_of_another_model_is_told_by_name(file: str, asked: str) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in parameter_shapes(find_variant(file)).items()}
    variant = find_variant(asked)
    with pytest.raises(CheckpointError, match=rf"missing.*unexpected.*load it as {find_variant(file).model_id}"):
        check_state(state, parameter_shapes(variant), variant, "weights.pt")


def test_a_file_that_is_named_as_a_sibling_is_refused(tmp_path: Path) -> None:
    """The four files of a size have the same tensors; only the name tells the attention they were trained with."""
    write_golden_checkpoint("efficienttam_ti", tmp_path / "efficienttam_ti_2.pt")
    with pytest.raises(CheckpointError, match=r"efficienttam_ti_2\.pt.*load it as sam2/efficienttam_ti_2"):
        load_model(find_variant("efficienttam_ti_1"), tmp_path / "efficienttam_ti_2.pt")
    (tmp_path / "efficienttam_ti_2.pt").rename(tmp_path / "mine.pt")
    assert load_model(find_variant("efficienttam_ti_1"), tmp_path / "mine.pt", 64).variant.pooling == "scores"
