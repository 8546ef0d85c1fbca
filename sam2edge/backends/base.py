"""What every backend does. Public methods check once; `*_impl` does the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, NUM_MASKS
from sam2edge.datatypes import BackendReport
from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.variants import Variant

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


class HostFeatures:
    """Encoded image in host memory: numpy arrays by contract name."""

    def __init__(self, tensors: Mapping[str, FloatArray]) -> None:
        self.tensors: Mapping[str, Any] = dict(tensors)

    @property
    def nbytes(self) -> int:
        return sum(int(t.nbytes) for t in self.tensors.values())

    def to_host(self) -> HostFeatures:
        return self


class DecodedPrompts(NamedTuple):
    """The decoder's answer for K prompts, on the host.

    low_res_masks (K, 4, 4E, 4E) float32 logits (the single mask first, then three alternatives), iou_scores (K, 4)
    in 0..1, object_score (K, 1) logit, object_pointers (K, 4, D).
    """

    low_res_masks: FloatArray
    iou_scores: FloatArray
    object_score: FloatArray
    object_pointers: FloatArray


@dataclass(frozen=True)
class BackendRequest:
    """What a backend is opened with.

    `image_size` in pixels; `device` as the framework names it (None: its best); `checkpoint` a weight file,
    `graph_dir` and `engine_dir` folders with exported graphs and with engines built of them, each None where there is
    none. `checkpoint_sha256` is set where the caller named the checkpoint: graphs and engines made of another one are
    then refused. `precision` is "fp32", "fp16" or "auto".
    """

    variant: Variant
    image_size: int
    device: str | None = None
    checkpoint: Path | None = None
    graph_dir: Path | None = None
    checkpoint_sha256: str | None = None
    precision: str = "auto"
    engine_dir: Path | None = None


class Backend(ABC):
    """Runs one model at one image size. Safe to call from several threads."""

    name: str
    variant: Variant
    image_size: int
    precision: str = "fp32"
    """Of the arithmetic: "fp32" or "fp16"."""
    report: BackendReport | None = None
    """Which backend "auto" took and why no better one; changes when one gives way to the next."""

    @classmethod
    @abstractmethod
    def open(cls, request: BackendRequest) -> Backend:
        """Loads the model. Raises BackendUnavailableError, GraphError or CheckpointError with the remedy."""

    @property
    @abstractmethod
    def max_points(self) -> int | None:
        """The most points (a box counts two) that one prompt may have; None: no limit."""

    def encode(self, image: FloatArray) -> Any:
        """image (1, 3, S, S) float32, normalised RGB -> features that hold their own memory."""
        expected = (1, 3, self.image_size, self.image_size)
        if image.shape != expected or image.dtype != np.float32:
            raise InvalidInputError(
                "model input has an unusable shape or type",
                expected=f"float32 {expected}",
                got=f"{image.dtype} {image.shape}",
            )
        return self.encode_impl(image)

    def decode(
        self,
        features: Any,
        point_coords: FloatArray,
        point_labels: IntArray,
        mask_input: FloatArray | None = None,
    ) -> DecodedPrompts:
        """Masks of K prompts on one encoded image.

        point_coords (K, N, 2) float32 in model pixels, point_labels (K, N) int32 as `sam2edge.contract` lists them,
        N at least 1; mask_input (K, h, w) float32 logits, h = w = S/4, or None.
        """
        self._check_prompt(point_coords, point_labels, mask_input)
        result = self.decode_impl(features, point_coords, point_labels, mask_input)
        self._check_result(result, len(point_coords))
        return result

    @abstractmethod
    def encode_impl(self, image: FloatArray) -> Any:
        """`encode` on a checked image."""

    @abstractmethod
    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        """`decode` on checked prompts."""

    def set_relief(self, relieve: Callable[[], None] | None) -> None:  # noqa: B027  # most have no memory to run out of
        """What to call where device memory runs out, before the one more try: it lets go of cached embeddings."""

    def close(self) -> None:  # noqa: B027  # a backend without memory of its own has nothing to give back
        """Gives the model's memory back; the backend is not used afterwards."""

    def _check_prompt(self, coords: FloatArray, labels: IntArray, mask: FloatArray | None) -> None:
        side = self.image_size // 4
        fits = (
            coords.ndim == 3
            and min(coords.shape) > 0
            and coords.shape[2] == 2
            and labels.shape == coords.shape[:2]
            and (mask is None or mask.shape == (len(coords), side, side))
        )
        if not fits:
            raise InvalidInputError(
                "prompt tensors have unusable shapes",
                expected=f"coords (K, N, 2), labels (K, N), mask (K, {side}, {side}) or None, none of them empty",
                got=f"{coords.shape}, {labels.shape}, {None if mask is None else mask.shape}",
            )
        used = int((labels > ABSENT).sum(axis=1).max())
        if self.max_points is not None and used > self.max_points:
            raise InvalidInputError(
                "prompt has too many points for the exported mask decoder",
                expected=f"at most {self.max_points} points an object (a box counts two)",
                got=used,
                remedy="use fewer points, the torch backend, or export with more prompt slots",
            )

    def _check_result(self, result: DecodedPrompts, prompts: int) -> None:
        side = self.image_size // 4
        expected = (prompts, NUM_MASKS, side, side)
        if result.low_res_masks.shape != expected:
            raise GraphError(
                f"{self.name} gave masks of another shape than the contract's",
                expected=expected,
                got=result.low_res_masks.shape,
                remedy="export the graphs again",
            )
