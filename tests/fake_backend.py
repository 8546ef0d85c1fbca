"""A backend without a model, for what concerns bookkeeping alone: thousands of frames in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2edge.backends.base import Backend, BackendRequest, DecodedPrompts, HostFeatures, MemoryInputs
from sam2edge.datatypes import BackendReport
from sam2edge.predictor import ImagePredictor
from sam2edge.variants import find_variant


class FakeBackend(Backend):
    """Masks are the bright part of the frame; `calls` keeps what was asked, `fail_in` the method that raises next."""

    name = "fake"
    max_points = None

    def __init__(self, image_size: int = 64) -> None:
        self.variant = find_variant("sam2/micro")
        self.image_size = image_size
        self.calls: list[tuple] = []
        self.fail_in = ""
        self.error: Exception | None = None

    @classmethod
    def open(cls, request: BackendRequest) -> FakeBackend:
        return cls(request.image_size)

    def encode_impl(self, image: Any) -> Any:
        self._called("encode")
        embed = image[:, :1, ::16, ::16].copy()
        return HostFeatures({"image_embed": embed, "vision_features": embed - 1, "plane": image[0, 0, ::4, ::4].copy()})

    def decode_impl(self, features: Any, point_coords: Any, point_labels: Any, mask_input: Any) -> Any:
        conditioned = features.tensors["image_embed"]
        self._called("decode", point_labels.tolist(), None if mask_input is None else mask_input.copy(), conditioned)
        masks = np.repeat(features.tensors["plane"][None, None], 4, axis=1)
        scores = np.array([[0.9, 0.2, 0.8, 0.4]], np.float32)
        pointers = np.arange(4, dtype=np.float32)[None, :, None] * np.ones((1, 4, self.variant.d_model), np.float32)
        return DecodedPrompts(masks, scores, np.array([[masks.max()]], np.float32), pointers)

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> Any:
        self._called("attend", memory_inputs)
        return features.with_image_embed(features.tensors["vision_features"] + 7)

    def encode_memories_impl(self, features: Any, logits: Any, object_scores: Any, binarise: Any) -> Any:
        memories = []
        shape = (1, (self.image_size // 16) ** 2, self.variant.memory_dim)
        for plane, object_score, flag in zip(logits, object_scores, binarise, strict=True):
            self._called("encode_memory", object_score, flag)
            memories.append(HostFeatures({"memory": np.full(shape, plane.mean(), np.float32)}))
        return memories

    def mask_prompt_impl(self, features: Any, mask: Any) -> Any:
        self._called("mask_prompt")
        return mask[::4, ::4].copy()

    def of(self, method: str) -> list[tuple]:
        """The calls of one method, without its name."""
        return [call[1:] for call in self.calls if call[0] == method]

    def _called(self, method: str, *what: Any) -> None:
        if self.fail_in == method:
            self.fail_in = ""
            raise self.error or RuntimeError(f"{method} failed")
        self.calls.append((method, *what))


def fake_model(image_size: int = 64) -> ImagePredictor:
    return ImagePredictor(FakeBackend(image_size), BackendReport("fake"))


def bright_square(left: int, size: int = 30, size_hw: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A frame (H, W, 3) uint8, dark but for a square at (left, 10)."""
    frame = np.zeros((*size_hw, 3), np.uint8)
    frame[10 : 10 + size, left : left + size] = 255
    return frame
