"""Records what Meta's release of SAM 2 gives under golden weights, for all eight variants: meta_reference.npz.

Run by hand, in an environment of its own with Meta's release, from the root of the repository:

    python -m venv meta && source meta/bin/activate
    pip install torch==2.13.0 hydra-core iopath pillow tqdm setuptools wheel
    SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2==1.1.0
    python -m tests.data.make_meta_reference

The model input is 512x512, to keep the comparison quick. Keys are "<variant>/<what>"; each value is sampled at the
positions of `meta_inputs.sample`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import meta
from tests.data import meta_inputs as given
from tests.golden.golden_weights import golden_tensor

meta.install_torchvision()

from sam2.build_sam import build_sam2  # noqa: E402  # after the stand-in
from sam2.sam2_image_predictor import SAM2ImagePredictor  # noqa: E402

TARGET = Path(__file__).with_name("meta_reference.npz")
CONFIGS = {
    f"sam{release}_hiera_{size}": f"configs/{folder}/{folder}_hiera_{short}.yaml"
    for release, folder in (("2.0", "sam2"), ("2.1", "sam2.1"))
    for size, short in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l"))
}
MEMORY_VARIANTS = ("sam2.0_hiera_tiny", "sam2.1_hiera_tiny")

Recorded = Iterator[tuple[str, torch.Tensor | np.ndarray]]


def main() -> None:
    recorded: dict[str, Any] = {}
    for variant, config in CONFIGS.items():
        model = build(config)
        with torch.inference_mode():
            for name, value in [*image_outputs(model), *(memory_outputs(model) if variant in MEMORY_VARIANTS else [])]:
                recorded[f"{variant}/{name}"] = given.sample(name, np.asarray(value, np.float32))
        print(variant, flush=True)
    np.savez_compressed(TARGET, **recorded)
    print(f"{TARGET} ({TARGET.stat().st_size / 1e3:.0f} kB)")


def build(config: str) -> Any:
    """Meta's model at 512 with golden weights."""
    model = build_sam2(config, device="cpu", hydra_overrides_extra=[f"++model.image_size={given.IMAGE_SIZE}"])
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(golden_tensor(name, s)) for name, s in shapes.items()}, strict=True)
    return model


def image_outputs(model: Any) -> Recorded:
    """Embedding of the photo, and three masks for a click and for a box."""
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(given.GRID * n, given.GRID * n) for n in (4, 2, 1)]  # the release fixes those of 1024
    predictor.set_image(given.photo_rgb())
    yield "image_embed", predictor._features["image_embed"]
    for level, feature in enumerate(predictor._features["high_res_feats"]):
        yield f"high_res_{level}", feature
    prompts = {
        "point": {"point_coords": np.array([given.POINT_XY]), "point_labels": np.array([1])},
        "box": {"box": np.array(given.BOX_XYXY)},
    }
    for name, prompt in prompts.items():
        _, scores, logits = predictor.predict(**prompt, multimask_output=True)
        yield f"{name}_logits", logits
        yield f"{name}_scores", scores


def memory_outputs(model: Any) -> Recorded:
    """A frame conditioned on memories and pointers, a new memory of it, and the pointers of its objects."""
    frame = torch.from_numpy(given.normal("frame", 1, 256, given.GRID, given.GRID)).expand(given.OBJECTS, -1, -1, -1)
    position = model.image_encoder.neck.position_encoding(frame)
    flat, flat_position = ([t.flatten(2).permute(2, 0, 1)] for t in (frame, position))
    sizes = [(given.GRID, given.GRID)]
    yield (
        "conditioned",
        model._prepare_memory_conditioned_features(
            frame_idx=given.FRAME,
            is_init_cond_frame=False,
            current_vision_feats=flat,
            current_vision_pos_embeds=flat_position,
            feat_sizes=sizes,
            output_dict=_memory_bank(model),
            num_frames=given.NUM_FRAMES,
        ),
    )
    mask = torch.from_numpy(given.normal("mask", given.OBJECTS, 1, given.IMAGE_SIZE, given.IMAGE_SIZE))
    scores = torch.tensor(given.OBJECT_SCORES)[:, None]
    yield "memory", model._encode_new_memory(flat, sizes, mask, scores, is_mask_from_pts=False)[0]
    yield from _pointers(model)


def _memory_bank(model: Any) -> dict[str, dict[int, dict[str, Any]]]:
    """What the tracker would hold: memories of MEMORY_AGES, pointers of POINTER_AGES."""
    spatial = (given.OBJECTS, 64, given.GRID, given.GRID)
    bank: dict[str, dict[int, dict[str, Any]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for age in given.POINTER_AGES:
        entry: dict[str, Any] = {"obj_ptr": torch.from_numpy(given.normal(f"pointer {age}", given.OBJECTS, 256))}
        is_conditioning = age == given.FRAME
        if (0 if is_conditioning else age) in given.MEMORY_AGES:
            memory = torch.from_numpy(given.normal(f"memory {0 if is_conditioning else age}", *spatial))
            entry |= {"maskmem_features": memory, "maskmem_pos_enc": [model.memory_encoder.position_encoding(memory)]}
        bank["cond_frame_outputs" if is_conditioning else "non_cond_frame_outputs"][given.FRAME - age] = entry
    return bank


def _pointers(model: Any) -> Recorded:
    features = {
        name: torch.from_numpy(given.normal(name, given.OBJECTS, channels, side, side))
        for name, channels, side in (
            ("embed", 256, given.GRID),
            ("fine", 32, 4 * given.GRID),
            ("coarse", 64, 2 * given.GRID),
        )
    }
    points = {
        "point_coords": torch.tensor([[given.POINT_XY]]).expand(given.OBJECTS, -1, -1),
        "point_labels": torch.ones(given.OBJECTS, 1, dtype=torch.int32),
    }
    *_, pointers, object_score = model._forward_sam_heads(
        backbone_features=features["embed"],
        point_inputs=points,
        high_res_features=[features["fine"], features["coarse"]],
        multimask_output=True,
    )
    yield "object_score", object_score
    yield "object_pointer", pointers


if __name__ == "__main__":
    main()
