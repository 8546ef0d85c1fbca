"""Records which masks Meta's automatic generator keeps of those of `grid_masks`: everything_reference.npz.

Run by hand in the environment that make_meta_reference.py describes: python -m tests.data.make_everything_reference
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench import meta
from tests.data import grid_masks as given

TARGET = Path(__file__).with_name("everything_reference.npz")


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, _: Any, iou_threshold: float) -> torch.Tensor:
    """What torchvision's operator gives for one category."""
    kept: list[int] = []
    areas = box_area(boxes)
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        low, high = torch.maximum(boxes[kept, :2], boxes[index, :2]), torch.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        if not (shared / (areas[kept] + areas[index] - shared) > iou_threshold).any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


meta.install_torchvision()
boxes_module = ModuleType("torchvision.ops.boxes")
vars(boxes_module).update(batched_nms=batched_nms, box_area=box_area)
sys.modules.update({"torchvision.ops": ModuleType("torchvision.ops"), "torchvision.ops.boxes": boxes_module})

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


def main() -> None:
    generator = SAM2AutomaticMaskGenerator.__new__(SAM2AutomaticMaskGenerator)
    model = SimpleNamespace(image_size=given.IMAGE_SIZE, mask_threshold=0.0, device="cpu")
    generator.__init__(model, points_per_side=given.POINTS_PER_SIDE)  # type: ignore[misc]
    generator.predictor = GridPredictor()
    found = generator.generate(np.zeros((*given.PHOTO_HW, 3), np.uint8))
    crops, layers = generate_crop_boxes((480, 641), 2, 512 / 1500)
    np.savez_compressed(
        TARGET,
        masks=np.packbits(np.stack([one["segmentation"] for one in found])),
        scores=np.array([one["predicted_iou"] for one in found], np.float32),
        stability=np.array([one["stability_score"] for one in found], np.float32),
        points_xy=np.array([one["point_coords"][0] for one in found], np.float32),
        crops_xyxy=np.array(crops),
        crop_layers=np.array(layers),
    )
    print(f"{TARGET}: {len(found)} masks")


if __name__ == "__main__":
    main()
