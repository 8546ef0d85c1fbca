"""All eight official variants against what Meta's release gives under the same weights (tests/data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from sam2edge.imaging.frame import image_to_input  # noqa: E402
from sam2edge.torch_sam2.checkpoint import load_model  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.data import meta_inputs as given  # noqa: E402
from tests.golden.golden_weights import write_golden_checkpoint  # noqa: E402

REFERENCE = Path(__file__).parent.parent / "data" / "meta_reference.npz"
LOGITS_WITHIN, SCORES_WITHIN, FEATURES_WITHIN = 2e-3, 1e-4, 1e-3


VARIANTS = [
    f"sam{release}_hiera_{size}" for size in ("tiny", "small", "base_plus", "large") for release in ("2.1", "2.0")
]
WITH_MEMORY = [name for name in VARIANTS if name.endswith("tiny")]


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sam2:
    """A variant at 512, loaded strictly from a golden checkpoint in the official format; one in memory at a time."""
    variant = find_variant(request.param)
    assert variant.checkpoint is not None
    path = tmp_path_factory.mktemp("checkpoint") / variant.checkpoint.file_name
    write_golden_checkpoint(request.param, path)
    loaded = load_model(variant, path, given.IMAGE_SIZE)
    path.unlink()
    return loaded


@torch.inference_mode()
def test_image_and_prompts(model: Sam2) -> None:
    image = torch.from_numpy(image_to_input(given.photo_rgb(), "rgb", given.IMAGE_SIZE))
    name = model.variant.name
    features = model.encode_image(image)
    for tensor in ("image_embed", "high_res_0", "high_res_1"):
        check(name, tensor, getattr(features, tensor), FEATURES_WITHIN)
    for prompt, (coords, labels) in prompts().items():
        out = model.decode(*features[:3], coords, labels)
        check(name, f"{prompt}_logits", out.low_res_masks[0, 1:], LOGITS_WITHIN)
        check(name, f"{prompt}_scores", out.iou_scores[0, 1:], SCORES_WITHIN)


@torch.inference_mode()
@pytest.mark.parametrize("model", WITH_MEMORY, indirect=True)
def test_memory(model: Sam2) -> None:
    name = model.variant.name
    side = given.GRID
    frame = torch.from_numpy(given.normal("frame", 1, 256, side, side))
    conditioned = attend(model, frame)
    check(name, "conditioned", conditioned, LOGITS_WITHIN)
    mask = torch.from_numpy(given.normal("mask", given.OBJECTS, 1, given.IMAGE_SIZE, given.IMAGE_SIZE))
    scores = torch.tensor(given.OBJECT_SCORES)[:, None]
    memory = model.encode_memory(frame, mask.sigmoid() * 20 - 10, scores)
    check(name, "memory", memory.transpose(1, 2).unflatten(-1, (side, side)), LOGITS_WITHIN)


@torch.inference_mode()
@pytest.mark.parametrize("model", WITH_MEMORY, indirect=True)
def test_object_pointers(model: Sam2) -> None:
    sides = (("embed", 256, given.GRID), ("fine", 32, 4 * given.GRID), ("coarse", 64, 2 * given.GRID))
    embed, fine, coarse = (torch.from_numpy(given.normal(n, given.OBJECTS, c, s, s)) for n, c, s in sides)
    coords, labels = (t.expand(given.OBJECTS, *t.shape[1:]) for t in prompts()["point"])
    name = model.variant.name
    out = model.decode(embed, fine, coarse, coords, labels)
    pointers = model.object_pointers(out.mask_tokens, out.object_score)
    best = 1 + out.iou_scores[:, 1:].argmax(dim=1)
    check(name, "object_score", out.object_score, LOGITS_WITHIN)
    check(name, "object_pointer", pointers[torch.arange(given.OBJECTS), best], LOGITS_WITHIN)


def attend(model: Sam2, frame: Tensor) -> Tensor:
    """The frame (1, 256, E, E) conditioned on the reference's memories and object pointers."""
    objects, cells = given.OBJECTS, given.GRID**2
    maps = [given.normal(f"memory {age}", objects, 64, given.GRID, given.GRID) for age in given.MEMORY_AGES]
    memory = torch.stack([torch.from_numpy(m).flatten(2).transpose(1, 2) for m in maps], dim=1)
    pointers = [torch.from_numpy(given.normal(f"pointer {age}", objects, 256)) for age in given.POINTER_AGES]
    furthest = min(given.NUM_FRAMES, 16) - 1
    pointer_ages = torch.tensor(given.POINTER_AGES, dtype=torch.float32) / furthest
    tokens = len(maps) * cells + len(pointers) * 4
    return model.attend_memory(
        frame,
        memory,
        torch.tensor(given.MEMORY_AGES).expand(objects, -1),
        torch.stack(pointers, dim=1),
        pointer_ages.expand(objects, -1),
        torch.zeros(objects, 1, tokens),
    )


def prompts() -> dict[str, tuple[Tensor, Tensor]]:
    """Coordinates (1, N, 2) and labels (1, N) of the reference's click and box."""
    return {
        "point": (torch.tensor([[given.POINT_XY]]), torch.tensor([[1]])),
        "box": (torch.tensor(given.BOX_XYXY).reshape(1, 2, 2), torch.tensor([[2, 3]])),
    }


def check(variant: str, name: str, value: Tensor, within: float) -> None:
    with np.load(REFERENCE) as reference:
        expected = reference[f"{variant}/{name}"]
    difference = float(np.abs(given.sample(name, value.numpy()) - expected).max())
    assert difference <= within, f"{variant}: {name} differs from Meta's release by {difference:.2g}"
