"""Records what Meta's automatic generator finds: everything_reference.npz.

Of the masks of `grid_masks` those that it keeps; and all of it, with SAM 2.1 tiny under golden weights ("whole_...").

Run by hand in the environment that make_meta_reference.py describes: python -m tests.data.make_everything_reference
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench import meta
from tests.data import grid_masks as given
from tests.data import meta_inputs
from tests.data.make_meta_reference import CONFIGS, build

TARGET = Path(__file__).with_name("everything_reference.npz")


meta.install_torchvision()

from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator  # noqa: E402  # after the stand-in
from sam2.utils.amg import generate_crop_boxes  # noqa: E402
from sam2.utils.transforms import SAM2Transforms  # noqa: E402


class GridPredictor:
    """Meta's predictor as far as the generator calls it, with the decoder of `grid_masks`."""

    device = "cpu"
    model = SimpleNamespace(image_size=given.IMAGE_SIZE)

    def __init__(self) -> None:
        self._transforms = SAM2Transforms(given.IMAGE_SIZE, 0.0)
        self.size_hw = (0, 0)

    def set_image(self, image: np.ndarray) -> None:
        self.size_hw = image.shape[:2]

    def reset_predictor(self) -> None:
        pass

    def _predict(self, points: torch.Tensor, labels: torch.Tensor, **_: Any) -> tuple[torch.Tensor, ...]:
        found = [given.decode_click(*xy) for xy in points[:, 0].tolist()]
        low_res = torch.from_numpy(np.stack([logits for logits, _ in found]))
        scores = torch.from_numpy(np.stack([scores for _, scores in found]))
        return self._transforms.postprocess_masks(low_res, self.size_hw), scores, low_res


def run_whole() -> dict[str, Any]:
    """Golden weights give masks of the whole photo, whose boxes overlap: so none is dropped for that."""
    generator = SAM2AutomaticMaskGenerator(
        build(CONFIGS["sam2.1_hiera_tiny"]),
        points_per_side=given.WHOLE["points_per_side"],
        pred_iou_thresh=given.WHOLE["min_score"],
        stability_score_thresh=given.WHOLE["min_stability"],
        box_nms_thresh=given.WHOLE["max_overlap"],
    )
    grid = meta_inputs.GRID  # the release fixes those of 1024
    generator.predictor._bb_feat_sizes = [(grid * n, grid * n) for n in (4, 2, 1)]
    found = generator.generate(given.whole_photo_rgb())
    return {
        "whole_masks": np.packbits(np.stack([one["segmentation"] for one in found])),
        "whole_scores": np.array([one["predicted_iou"] for one in found], np.float32),
        "whole_stability": np.array([one["stability_score"] for one in found], np.float32),
        "whole_points_xy": np.array([one["point_coords"][0] for one in found], np.float32),
    }


def main() -> None:
    generator = SAM2AutomaticMaskGenerator.__new__(SAM2AutomaticMaskGenerator)
    model = SimpleNamespace(image_size=given.IMAGE_SIZE, mask_threshold=0.0, device="cpu")
    generator.__init__(model, points_per_side=given.POINTS_PER_SIDE)  # type: ignore[misc]
    generator.predictor = GridPredictor()
    found = generator.generate(np.zeros((*given.PHOTO_HW, 3), np.uint8))
    whole = run_whole()
    crops, layers = generate_crop_boxes((480, 641), 2, 512 / 1500)
    np.savez_compressed(
        TARGET,
        masks=np.packbits(np.stack([one["segmentation"] for one in found])),
        scores=np.array([one["predicted_iou"] for one in found], np.float32),
        stability=np.array([one["stability_score"] for one in found], np.float32),
        points_xy=np.array([one["point_coords"][0] for one in found], np.float32),
        crops_xyxy=np.array(crops),
        crop_layers=np.array(layers),
        **whole,
    )
    print(f"{TARGET}: {len(found)} masks, {len(whole['whole_scores'])} by the whole model")


if __name__ == "__main__":
    main()
