"""What every backend does. Public methods check once; `*_impl` does the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, NUM_POINTER_SLOTS, PADDING
from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError
from sam2edge.store.manifest import Manifest
from sam2edge.variants import Variant

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


class HostFeatures:
    """Encoded image, or a memory, in host memory: numpy arrays by contract name."""

    def __init__(self, tensors: Mapping[str, FloatArray]) -> None:
        self.tensors: Mapping[str, Any] = tensors

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


NO_POINT_XY: FloatArray = np.zeros((1, 1, 2), np.float32)
NO_POINT_LABEL: IntArray = np.full((1, 1), PADDING, np.int32)
"""SAM 2 tracks with one point that is labelled as none."""


def _require_finite(found: DecodedPrompts) -> DecodedPrompts:
    """NaN anywhere in a model reaches the decoder's answer, where it is small and on the host."""
    if not all(np.isfinite(part).all() for part in found):
        raise GraphError(
            "the model's output is not finite",
            expected="finite logits and scores",
            got="NaN or infinity",
            remedy="compare its files: sam2edge models verify; try another precision or backend",
        )
    return found


class MemoryInputs(NamedTuple):
    """What a frame remembers of one object: T memories and P object pointers, T and P at least 1.

    memories as `encode_memories` gave them; memory_ages (T,) int32: 0 for a conditioning frame, else 1..6 frames ago;
    obj_ptrs (P, D) float32; obj_ptr_ages (P,) float32, the distance in frames over the greatest in use.
    """

    memories: Sequence[Any]
    memory_ages: IntArray
    obj_ptrs: FloatArray
    obj_ptr_ages: FloatArray


@dataclass(frozen=True)
class BackendRequest:
    """What a backend is opened with.

    `image_size` in pixels; `device` as the framework names it (None: its best); `checkpoint` a weight file,
    `graph_dir` and `engine_dir` folders with exported graphs and with engines built of them, each None where there is
    none. `checkpoint_sha256` is set where it is known which weights graphs and engines must have been made of: those of
    another checkpoint are then refused. `precision` is "fp32", "fp16" or "auto". `engine_manifests` describe the
    engines in `engine_dir`, by graph, once their files were checked.
    """

    variant: Variant
    image_size: int
    device: str | None = None
    checkpoint: Path | None = None
    graph_dir: Path | None = None
    checkpoint_sha256: str | None = None
    precision: str = "auto"
    engine_dir: Path | None = None
    engine_manifests: Mapping[str, Manifest] | None = None


class Backend(ABC):
    """Runs one model at one image size. Safe to call from several threads.

    Features (encoded images and memories) may come from any backend: those of another one are read by way of the
    host, so that a model may change its backend while embeddings and memories are held.
    """

    name: str
    variant: Variant
    image_size: int
    precision: str = "fp32"
    """Of the arithmetic: "fp32" or "fp16"."""
    frame_sizes: Mapping[tuple[int, ...], Any] = MappingProxyType({})
    """Heights and widths of the frames that `encode_frame` takes."""
    memory_slots: int = 7
    """The most memories that a frame attends to: SAM 2's number, unless graphs were exported for fewer."""

    @classmethod
    @abstractmethod
    def open(cls, request: BackendRequest) -> Backend:
        """Loads the model. Raises BackendUnavailableError, GraphError or CheckpointError with the remedy."""

    @property
    @abstractmethod
    def max_points(self) -> int | None:
        """The most points (a box counts two) that one prompt may have; None: no limit."""

    def encode(self, image: FloatArray, wait: bool = True) -> Any:
        """image (1, 3, S, S) float32, normalised RGB -> features that hold their own memory.

        Without `wait` a GPU may still be at work on them, and an error is told with what is asked of them next.
        """
        expected = (1, 3, self.image_size, self.image_size)
        if image.shape != expected or image.dtype != np.float32:
            raise InvalidInputError(
                "model input has an unusable shape or type",
                expected=f"float32 {expected}",
                got=f"{image.dtype} {image.shape}",
            )
        return self.encode_impl(image)

    def encode_frame(self, frame: NDArray[np.uint8], color_order: str, wait: bool = True) -> Any:
        """frame (H, W, 3) uint8, "bgr" or "rgb", of a size in `frame_sizes` -> what `encode` gives for it, resized and
        normalised where the model runs."""
        raise NotImplementedError(f"{self.name} takes no frames")

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
        side = self.image_size // 4
        fits = (
            point_coords.ndim == 3
            and min(point_coords.shape) > 0
            and point_coords.shape[2] == 2
            and point_labels.shape == point_coords.shape[:2]
            and (mask_input is None or mask_input.shape == (len(point_coords), side, side))
        )
        if not fits:
            raise InvalidInputError(
                "prompt tensors have unusable shapes",
                expected=f"coords (K, N, 2), labels (K, N), mask (K, {side}, {side}) or None, none of them empty",
                got=f"{point_coords.shape}, {point_labels.shape}, {None if mask_input is None else mask_input.shape}",
            )
        if self.max_points is not None:
            used = int((point_labels > ABSENT).sum(axis=1).max())
            if used > self.max_points:
                raise InvalidInputError(
                    "prompt has too many points for the exported mask decoder",
                    expected=f"at most {self.max_points} points an object (a box counts two)",
                    got=used,
                    remedy="use fewer points (those of one frame add up), the torch backend, or more slots at export",
                )
        return _require_finite(self.decode_impl(features, point_coords, point_labels, mask_input))

    def decode_each(self, features: Sequence[Any]) -> list[DecodedPrompts]:
        """Without a prompt, on a frame conditioned on each of several objects, as `attend_memory` gave it.

        An answer each, K = 1, as `decode` gives it: backends may compute them together.
        """
        return [_require_finite(found) for found in self.decode_each_impl(features)]

    def attend_memory(self, features: Any, memory_inputs: MemoryInputs) -> Any:
        """The features of a frame with its embedding conditioned on what is remembered of one object."""
        count, pointers = len(memory_inputs.memories), memory_inputs.obj_ptrs
        fits = (
            1 <= count <= self.memory_slots
            and memory_inputs.memory_ages.shape == (count,)
            and pointers.ndim == 2
            and 1 <= len(pointers) <= NUM_POINTER_SLOTS
            and memory_inputs.obj_ptr_ages.shape == (len(pointers),)
        )
        if not fits:
            raise InvalidInputError(
                "memories do not fit the model's slots",
                expected=f"1..{self.memory_slots} memories, 1..{NUM_POINTER_SLOTS} object pointers (P, D), an age each",
                got=f"{count} memories, ages {memory_inputs.memory_ages.shape}, pointers {pointers.shape}, "
                f"ages {memory_inputs.obj_ptr_ages.shape}",
            )
        return self.attend_memory_impl(features, memory_inputs)

    def encode_memory(self, features: Any, logits: FloatArray, object_score: float, binarise: bool) -> Any:
        """`encode_memories` of one object, logits (S/4, S/4)."""
        return self.encode_memories(features, logits[None], [object_score], [binarise])[0]

    def encode_memories(
        self, features: Any, logits: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        """The memory of each of N objects on one frame, in the backend's own memory.

        logits (N, S/4, S/4) float32, as `decode` gives them; object_scores logits (not above 0: hidden); binarise: the
        object was prompted on this frame. Backends may compute them together.
        """
        side = self.image_size // 4
        if logits.ndim != 3 or logits.shape[1:] != (side, side) or logits.dtype != np.float32:
            raise _wrong_mask(logits, f"(N, {side}, {side})")
        return self.encode_memories_impl(features, logits, object_scores, binarise)

    def mask_prompt(self, features: Any, mask: FloatArray) -> FloatArray:
        """A given mask (S, S), positive inside, as (4E, 4E) float32: what `decode` takes to find its pointer."""
        size = self.image_size
        if mask.shape != (size, size) or mask.dtype != np.float32:
            raise _wrong_mask(mask, f"({size}, {size})")
        return self.mask_prompt_impl(features, mask)

    def load(self, features: Any) -> Any:
        """Features of any backend as this backend's own, for those that are used again and again."""
        return features

    @abstractmethod
    def encode_impl(self, image: FloatArray) -> Any:
        """`encode` on a checked image."""

    @abstractmethod
    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        """`decode` on checked prompts."""

    def decode_each_impl(self, features: Sequence[Any]) -> list[DecodedPrompts]:
        """`decode_each`; here one after another."""
        return [self.decode_impl(one, NO_POINT_XY, NO_POINT_LABEL, None) for one in features]

    def attend_memory_impl(self, features: Any, memory_inputs: MemoryInputs) -> Any:
        """`attend_memory` on checked memories."""
        raise self._cannot_track()

    def encode_memories_impl(
        self, features: Any, logits: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        """`encode_memories` on checked logits."""
        raise self._cannot_track()

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        """`mask_prompt` on a checked mask."""
        raise self._cannot_track()

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:  # noqa: B027  # most have no memory to run out of
        """What to call where device memory runs out, before the one more try: it lets go of cached embeddings."""

    def close(self) -> None:  # noqa: B027  # a backend without memory of its own has nothing to give back
        """Gives the model's memory back; the backend is not used afterwards."""

    def _cannot_track(self) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"backend {self.name} segments images alone",
            expected="a backend with the memory modules",
            got=self.name,
            remedy="use backend='onnxruntime' or 'torch' to track",
        )


def _wrong_mask(mask: NDArray[Any], shape: str) -> InvalidInputError:
    return InvalidInputError(
        "mask for the memory has an unusable shape or type",
        expected=f"float32 {shape}",
        got=f"{mask.dtype} {mask.shape}",
    )
