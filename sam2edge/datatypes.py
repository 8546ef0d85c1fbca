"""Frozen values that pass between the parts: prompts, embeddings, predictions. What a caller may make is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.imaging.frame import as_numpy, is_torch_tensor
from sam2edge.imaging.object_masks import ObjectMasks

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


class Features(Protocol):
    """An encoded image in a backend's own memory: named tensors, as `sam2edge.contract` lists them."""

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors occupy."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """The tensors by their contract name."""

    def to_host(self) -> Features:
        """The same features in host memory."""

    def with_image_embed(self, image_embed: Any) -> Features:
        """The same image with another embedding; the other tensors are shared."""


@dataclass(frozen=True)
class ImagePrompt:
    """The prompts of K objects on one image, in photo pixels (x right, y down).

    point_coords (K, N, 2) float32 and point_labels (K, N) int32 (1 foreground, 0 background, -1 "not a point",
    -2 absent); N may be 0. boxes_xyxy (K, 4) float32 or None. mask_input (K, h, w) float32 logits at the model's
    low resolution, or None. `per_object` says whether results carry the object axis.
    """

    point_coords: FloatArray
    point_labels: IntArray
    boxes_xyxy: FloatArray | None = None
    mask_input: FloatArray | None = None
    per_object: bool = False

    def __post_init__(self) -> None:
        objects = self.point_coords.shape[0]
        shapes_fit = (
            self.point_coords.ndim == 3
            and self.point_coords.shape[2] == 2
            and self.point_labels.shape == self.point_coords.shape[:2]
            and (self.boxes_xyxy is None or self.boxes_xyxy.shape == (objects, 4))
            and (self.mask_input is None or (self.mask_input.ndim == 3 and self.mask_input.shape[0] == objects))
        )
        if not shapes_fit:
            raise InvalidInputError(
                "prompt parts do not fit together",
                expected="points (K, N, 2), labels (K, N), boxes (K, 4), masks (K, h, w)",
                got=", ".join(
                    f"{name} {value.shape}"
                    for name, value in (
                        ("points", self.point_coords),
                        ("labels", self.point_labels),
                        ("boxes", self.boxes_xyxy),
                        ("masks", self.mask_input),
                    )
                    if value is not None
                ),
                remedy="give every object the same kinds of prompt",
            )
        if objects == 0:
            raise InvalidInputError("prompt names no object", expected="at least one object", got="none")

    @property
    def num_objects(self) -> int:
        return int(self.point_coords.shape[0])

    def items(self) -> frozenset[tuple[Any, ...]]:
        """The prompt as a set of hashable items, object by object, to compare it with earlier prompts."""
        found: set[tuple[Any, ...]] = set()
        for k in range(self.num_objects):
            for (x, y), label in zip(self.point_coords[k].tolist(), self.point_labels[k].tolist(), strict=True):
                if label >= 0:
                    found.add(("point", k, x, y, label))
            if self.boxes_xyxy is not None:
                found.add(("box", k, *self.boxes_xyxy[k].tolist()))
        return frozenset(found)


@dataclass(frozen=True, eq=False)
class Sam2ImageEmbedding:
    """One encoded image, reusable for any number of prompts.

    `features` lie in the backend's memory (E = S/16, D the model width: image_embed (1, D, E, E), high_res_0
    (1, D/8, 4E, 4E), high_res_1 (1, D/4, 2E, 2E)); `image_size_hw` is the photo's height and width in pixels;
    `key` identifies pixels, colour order, model, resolution and precision; `model_tag` is the model part of it.
    """

    features: Features
    image_size_hw: tuple[int, int]
    key: str
    model_tag: str

    @property
    def image_hash(self) -> str:
        """The key under which caches know this image."""
        return self.key

    @property
    def nbytes(self) -> int:
        """Bytes held on the device (or the host, after `to_host`)."""
        return self.features.nbytes

    def to_host(self) -> Sam2ImageEmbedding:
        """A copy whose features lie in host memory; backends take it back as it is."""
        return Sam2ImageEmbedding(self.features.to_host(), self.image_size_hw, self.key, self.model_tag)


class ScoredLogits(np.ndarray[Any, np.dtype[np.float32]]):
    """Low-resolution logits (..., C, h, w) float32 that remember the scores (..., C) of their C masks.

    They can be passed whole as `mask_input`: the best mask is taken. A slice forgets the scores.
    """

    scores: FloatArray | None

    def __new__(cls, logits: FloatArray, scores: FloatArray | None = None) -> ScoredLogits:
        view = np.asarray(logits, np.float32).view(cls)
        view.scores = scores
        return view

    def __array_finalize__(self, source: object) -> None:
        scores = getattr(source, "scores", None)
        fits = scores is not None and scores.shape == self.shape[:-2]
        self.scores = scores if fits else None


@dataclass(frozen=True, eq=False, repr=False)
class Sam2Prediction(ObjectMasks):
    """Masks of one image.

    masks (C, H, W) bool at photo size (float32 logits with `return_logits=True`), scores (C,) float32 predicted IoU
    in 0..1, logits (C, 4E, 4E) float32 in -32..32 at low resolution (256x256 at image size 1024), ready to be passed
    back as `mask_input`. With prompts for K objects each has a leading K. numpy arrays, or torch tensors where those
    were asked for. The methods are about the objects, one or K, with the best mask of each.
    """

    masks: Any
    scores: Any
    logits: Any

    def __post_init__(self) -> None:
        if not self.masks.shape[:-2] == self.scores.shape == self.logits.shape[:-2]:
            raise InvalidInputError(
                "prediction parts do not fit together",
                expected="masks (..., C, H, W), scores (..., C), logits (..., C, h, w)",
                got=f"{self.masks.shape}, {self.scores.shape}, {self.logits.shape}",
            )

    def __repr__(self) -> str:
        height, width = self.masks.shape[-2:]
        alternatives = self.scores.shape[-1]
        objects = f"{len(self.scores)} objects, " if self.scores.ndim == 2 else ""
        masks = f"{alternatives} mask{'s' * (alternatives > 1)}" + (" each" if objects else "")
        best = " ".join(f"{score:.2f}" for score in self._object_scores()[:8]) + " ..." * (len(self.scores) > 8)
        return f"Sam2Prediction({objects}{masks} of {width}x{height}, best score {best})"

    @property
    def best_masks(self) -> Any:
        """The mask with the highest score, (H, W), or (K, H, W) with K objects."""
        best = as_numpy(self.scores).argmax(axis=-1)
        return self.masks[best] if self.scores.ndim == 1 else self.masks[np.arange(len(best)), best]

    def to_torch(self, device: Any = None) -> tuple[Any, Any, Any]:
        """(masks, scores, logits) as torch tensors on `device` (the CPU when None).

        Raises BackendUnavailableError where torch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise BackendUnavailableError(
                "torch is not installed", remedy="pip install 'sam2edge[torch]', or use the numpy arrays"
            ) from error
        arrays = (as_numpy(part) for part in (self.masks, self.scores, self.logits))
        masks, scores, logits = (torch.from_numpy(np.array(a, order="C")).to(device or "cpu") for a in arrays)
        return masks, scores, logits

    def as_torch(self, device: Any = None) -> Sam2Prediction:
        """The same prediction with torch tensors on `device` (the CPU when None) in place of the arrays."""
        return self if is_torch_tensor(self.masks) else Sam2Prediction(*self.to_torch(device))

    def _object_masks(self) -> NDArray[np.bool_]:
        best = as_numpy(self.best_masks)
        inside = best if best.dtype == np.bool_ else best > 0
        return inside if inside.ndim == 3 else inside[None]

    def _object_scores(self) -> FloatArray:
        return np.atleast_1d(as_numpy(self.scores).max(axis=-1))

    def _object_numbers(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + (len(self.scores) if self.scores.ndim == 2 else 1)))


@dataclass(frozen=True)
class TrackEvent:
    """Something that happened to an object on a frame.

    kind is "lost" (no longer seen, or its mask has a predicted IoU below 0.2), "left" (the same, and last seen at the
    frame's edge), "found" (seen again),
    "merged" (its mask and that of `other_id` overlap by more than half of the smaller) or "dropped" (hidden for
    `drop_after` frames, no longer followed). time_s is when, in seconds since 1970, or as `track` was told.
    """

    kind: str
    object_id: int
    frame_index: int
    time_s: float
    other_id: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TrackResult(ObjectMasks):
    """The N objects on one frame, in the order in which they were added.

    masks (N, H, W) bool at frame size; scores (N,) float32 predicted IoU in 0..1; object_scores (N,) float32 logits,
    not above 0 where the object is hidden or gone (its mask is empty then); logits (N, 4E, 4E) float32 in -32..32;
    events on this frame; is_skipped: the frame was skipped to keep to `max_latency_ms`, and this is the last result.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    masks: NDArray[np.bool_]
    scores: FloatArray
    object_scores: FloatArray
    logits: FloatArray
    events: tuple[TrackEvent, ...] = ()
    is_skipped: bool = False

    def __repr__(self) -> str:
        height, width = self.masks.shape[1:]
        objects = ", ".join(
            f"{number} {'hidden' if visible <= 0 else f'{score:.2f}'}"
            for number, score, visible in zip(self.object_ids, self.scores, self.object_scores, strict=True)
        )
        return f"TrackResult(frame {self.frame_index}, {width}x{height}, objects {objects or 'none'})"

    def _object_masks(self) -> NDArray[np.bool_]:
        return self.masks

    def _object_scores(self) -> FloatArray:
        return self.scores

    def _object_numbers(self) -> tuple[int, ...]:
        return self.object_ids


@dataclass(frozen=True)
class BackendReport:
    """Which backend was taken, and for each better one why it was not."""

    chosen: str
    skipped: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.chosen}: in use"] + [f"{name}: {reason}" for name, reason in self.skipped]
        return "\n".join(lines)


# As `inference-models` spells them.
SAM2Prediction = Sam2Prediction
SAM2ImageEmbeddings = Sam2ImageEmbedding
