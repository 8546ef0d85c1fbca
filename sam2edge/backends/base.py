"""What every backend does. Public methods check once; `*_impl` does the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, NUM_MASKS, NUM_POINTER_SLOTS
from sam2edge.datatypes import BackendReport
from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError
from sam2edge.store.weights_version import check_weights_version
from sam2edge.variants import Variant

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


class HostFeatures:
    """Encoded image, or a memory, in host memory: numpy arrays by contract name."""

    def __init__(self, tensors: Mapping[str, FloatArray]) -> None:
        self.tensors: Mapping[str, Any] = dict(tensors)

    @property
    def nbytes(self) -> int:
        return sum(int(t.nbytes) for t in self.tensors.values())

    def to_host(self) -> HostFeatures:
        return self

    def with_image_embed(self, image_embed: Any) -> HostFeatures:
        """The same image with another embedding; the other tensors are shared."""
        return HostFeatures({**self.tensors, "image_embed": image_embed})


class DecodedPrompts(NamedTuple):
    """The decoder's answer for K prompts, on the host.

    low_res_masks (K, 4, 4E, 4E) float32 logits (the single mask first, then three alternatives), iou_scores (K, 4)
    in 0..1, object_score (K, 1) logit, object_pointers (K, 4, D).
    """

    low_res_masks: FloatArray
    iou_scores: FloatArray
    object_score: FloatArray
    object_pointers: FloatArray


class MemoryInputs(NamedTuple):
    """What a frame remembers of one object: T memories and P object pointers, T and P at least 1.

    memories as `encode_memory` gave them; memory_ages (T,) int32: 0 for a conditioning frame, else 1..6 frames ago;
    pointers (P, D) float32; pointer_ages (P,) float32, the distance in frames over the greatest in use.
    """

    memories: Sequence[Any]
    memory_ages: IntArray
    pointers: FloatArray
    pointer_ages: FloatArray


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

    def check_versions(self) -> None:
        """Raises GraphError where the embedded weights and the graphs found beside them are of different versions.

        A checkpoint that the caller named is not the embedded one: its graphs are known by its SHA-256.
        """
        if self.checkpoint_sha256 is None:
            check_weights_version(self.variant, self.checkpoint, self.graph_dir)


class Backend(ABC):
    """Runs one model at one image size. Safe to call from several threads."""

    name: str
    variant: Variant
    image_size: int
    precision: str = "fp32"
    """Of the arithmetic: "fp32" or "fp16"."""
    accepts_uint8: bool = False
    """Whether `encode_frame` works: normalises where the model runs. `encode` does in any case."""
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

    def encode_frame(self, frame: NDArray[np.uint8], color_order: str) -> Any:
        """frame (S, S, 3) uint8, "bgr" or "rgb" -> what `encode` gives for it, normalised."""
        expected = (self.image_size, self.image_size, 3)
        if frame.shape != expected or frame.dtype != np.uint8 or not self.accepts_uint8:
            raise InvalidInputError(
                "frame cannot be normalised by the backend",
                expected=f"uint8 {expected}, and a backend that takes frames",
                got=f"{frame.dtype} {frame.shape}, {self.name}",
            )
        return self.encode_frame_impl(frame, color_order)

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

    def decode_each(
        self, features: Sequence[Any], point_coords: FloatArray, point_labels: IntArray
    ) -> list[DecodedPrompts]:
        """One prompt, (1, N, 2) and (1, N), on several conditionings of one frame, as `attend_memory` gave them.

        An answer each, K = 1, as `decode` gives it: backends may compute them together.
        """
        self._check_prompt(point_coords, point_labels, None)
        results = self.decode_each_impl(features, point_coords, point_labels)
        for result in results:
            self._check_result(result, 1)
        return results

    def attend_memory(self, features: Any, recalled: MemoryInputs) -> Any:
        """The features of a frame with its embedding conditioned on what is remembered of one object."""
        self._check_recalled(recalled)
        return self.attend_memory_impl(features, recalled)

    def encode_memory(self, features: Any, mask: FloatArray, object_score: float, binarise: bool) -> Any:
        """The memory of one object on a frame, in the backend's own memory.

        mask (S, S) float32 logits; object_score a logit (not above 0: hidden); binarise: the frame was prompted.
        """
        self._check_mask(mask)
        return self.encode_memory_impl(features, mask, object_score, binarise)

    def encode_memories(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        """`encode_memory` of N objects on one frame, masks (N, S, S): backends may compute them together."""
        for mask in masks:
            self._check_mask(mask)
        return self.encode_memories_impl(features, masks, object_scores, binarise)

    def mask_prompt(self, features: Any, mask: FloatArray) -> FloatArray:
        """A given mask (S, S), positive inside, as (4E, 4E) float32: what `decode` takes to find its pointer."""
        self._check_mask(mask)
        return self.mask_prompt_impl(features, mask)

    @abstractmethod
    def encode_impl(self, image: FloatArray) -> Any:
        """`encode` on a checked image."""

    def encode_frame_impl(self, frame: NDArray[np.uint8], color_order: str) -> Any:
        """`encode_frame` on a checked frame."""
        raise NotImplementedError(f"{self.name} takes no frames")

    @abstractmethod
    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        """`decode` on checked prompts."""

    def decode_each_impl(
        self, features: Sequence[Any], point_coords: FloatArray, point_labels: IntArray
    ) -> list[DecodedPrompts]:
        """`decode_each` on a checked prompt; here one after another."""
        return [self.decode_impl(one, point_coords, point_labels, None) for one in features]

    def attend_memory_impl(self, features: Any, recalled: MemoryInputs) -> Any:
        """`attend_memory` on checked memories."""
        raise self._cannot_track()

    def encode_memory_impl(self, features: Any, mask: FloatArray, object_score: float, binarise: bool) -> Any:
        """`encode_memory` on a checked mask."""
        raise self._cannot_track()

    def encode_memories_impl(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        """`encode_memories` on checked masks; here one after another."""
        rows = zip(masks, object_scores, binarise, strict=True)
        return [self.encode_memory_impl(features, mask, score, flag) for mask, score, flag in rows]

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        """`mask_prompt` on a checked mask."""
        raise self._cannot_track()

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:  # noqa: B027  # most have no memory to run out of
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

    def _cannot_track(self) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"backend {self.name} segments images alone",
            expected="a backend with the memory modules",
            got=self.name,
            remedy="use backend='onnxruntime' or 'torch' to track",
        )

    def _check_recalled(self, recalled: MemoryInputs) -> None:
        count, pointers = len(recalled.memories), recalled.pointers
        fits = (
            1 <= count <= self.variant.num_mask_slots
            and recalled.memory_ages.shape == (count,)
            and pointers.ndim == 2
            and 1 <= len(pointers) <= NUM_POINTER_SLOTS
            and recalled.pointer_ages.shape == (len(pointers),)
        )
        if not fits:
            raise InvalidInputError(
                "memories do not fit the model's slots",
                expected=f"1..{self.variant.num_mask_slots} memories, 1..{NUM_POINTER_SLOTS} pointers (P, D), ages",
                got=f"{count} memories, ages {recalled.memory_ages.shape}, pointers {pointers.shape}, "
                f"ages {recalled.pointer_ages.shape}",
            )

    def _check_mask(self, mask: FloatArray) -> None:
        expected = (self.image_size, self.image_size)
        if mask.shape != expected or mask.dtype != np.float32:
            raise InvalidInputError(
                "mask for the memory has an unusable shape or type",
                expected=f"float32 {expected}",
                got=f"{mask.dtype} {mask.shape}",
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
