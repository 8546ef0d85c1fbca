"""A stand-in for the model, for tests of what `segment` asks and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sam2edge
from sam2edge.everything import FoundMask, FoundMasks
from sam2edge.imaging.packed_mask import pack_mask
from sam2edge.variants import EMBEDDED, Variant, find_variant

PHOTO = np.full((60, 80, 3), 90, np.uint8)


@dataclass
class _Prediction:
    masks: np.ndarray
    scores: np.ndarray


@dataclass
class Model:
    """Stands for the real model: three masks, a growing square each, the second the best; keeps what it was asked."""

    variant: Variant = field(default_factory=lambda: find_variant(EMBEDDED))
    backend_name: str = "onnxruntime"
    report: str = "onnxruntime: taken\ntorch: not installed"
    asked: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    prompts: list[dict[str, Any]] = field(default_factory=list)
    everything: list[FoundMask] = field(default_factory=list)

    def from_pretrained(self, model_id: str, **options: Any) -> Model:
        if model_id != "auto":
            self.variant = find_variant(model_id)
        self.asked = {"model_id": model_id, **options}
        return self

    def embed_images(self, image: np.ndarray) -> np.ndarray:
        return image

    def segment_images(
        self, images: np.ndarray | None = None, embeddings: np.ndarray | None = None, **prompts: Any
    ) -> list[_Prediction]:
        if self.error is not None:
            raise self.error
        image = images if embeddings is None else embeddings
        assert image is not None
        self.asked |= {"image": image, "images": images, **prompts}
        self.prompts.append(prompts)
        masks = np.zeros((3, *image.shape[:2]), bool)
        for index in range(3):
            masks[index, 10 : 20 + 10 * index, 5:25] = True
        scores = np.array([0.2, 0.9, 0.5], np.float32)
        return [_Prediction(masks, scores) if prompts["multi_mask_output"] else _Prediction(masks[:1], scores[:1])]

    def segment_everything(self, image: np.ndarray, **options: Any) -> FoundMasks:
        self.asked |= {"image": image, **options}
        return FoundMasks(self.everything, (image.shape[0], image.shape[1]))


def found_mask(left: int, score: float) -> FoundMask:
    """A mask of `segment_everything` on PHOTO: a rectangle from `left` to the right edge."""
    height, width = PHOTO.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[10:50, left:] = True
    packed = pack_mask(mask)
    assert packed is not None
    return FoundMask(score, 0.97, (left + 1.0, 20.0), (0, 0, width, height), packed)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    found = Model()
    monkeypatch.setattr(sam2edge, "AutoModel", found, raising=False)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("cup.png", PHOTO)
    return found
