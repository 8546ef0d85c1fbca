"""One object in a stream: prompted, tracked, remembered, by the rules of SAM 2's video predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend, DecodedPrompts
from sam2edge.contract import PADDING
from sam2edge.datatypes import Features, FloatArray, ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.postprocess import LOGIT_LIMIT, select_masks
from sam2edge.imaging.preprocess import antialiased_resize, prompts_to_model
from sam2edge.tracking.memory_bank import MemoryBank, MemoryEntry

GROUP = 8
"""Objects that a backend is given at a time, so that many take no more memory at once than these."""

HIDDEN_LOGIT = -1024.0
"""SAM 2's logit for every pixel of an object that is not on the frame."""

# The logits of a mask that the caller gave are these: 20 * mask - 10.
_GIVEN_LOGIT = 10.0


@dataclass(frozen=True, eq=False)
class ObjectOnFrame:
    """One object on one frame.

    logits (4E, 4E) float32; pointer (D,); score the predicted IoU, 0..1; object_score a logit, not above 0: hidden;
    prompted: from a prompt, so that this is a conditioning frame.
    """

    logits: FloatArray
    pointer: FloatArray
    score: float
    object_score: float
    prompted: bool


class TrackedObject:
    """Its memories, and what was found on the frame at hand.

    That frame's memory is made when the next frame comes: by then it can no longer be corrected.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.bank = MemoryBank(backend.variant.num_mask_slots)
        self.current: ObjectOnFrame | None = None
        self.was_tracked = False
        """Whether the frame at hand was tracked before it was prompted: then a prompt is a correction."""
        self.is_remembered = False
        """Whether `current` is in the bank."""

    def prompted(
        self, features: Features, frame: int, prompt: ImagePrompt, size_hw: tuple[int, int], max_pointer_age: int
    ) -> ObjectOnFrame:
        """The object on this frame by points and box; what was found there before is fed back."""
        coords, labels = prompts_to_model(prompt, size_hw, self.backend.image_size)
        previous = None if self.current is None else np.clip(self.current.logits, -LOGIT_LIMIT, LOGIT_LIMIT)[None]
        if self.was_tracked:
            features = self.backend.attend_memory(features, self.bank.recall(frame, max_pointer_age))
        out = self.backend.decode(features, coords, labels, previous)
        # One click can mean a part or the whole, so the best of three masks is taken.
        return _chosen(out, several=coords.shape[1] == 1, prompted=True)

    def given(self, features: Features, mask: NDArray[np.bool_]) -> ObjectOnFrame:
        """The object on this frame by its mask (H, W) bool, which is taken as it is."""
        size = self.backend.image_size
        inside = antialiased_resize(mask.astype(np.float32), (size, size)) >= 0.5
        if not inside.any():
            raise InvalidInputError(
                "mask is empty at the size of the model's input",
                expected=f"something that is left at {size}x{size} pixels",
                got=f"{np.count_nonzero(mask)} pixels of {mask.shape[1]}x{mask.shape[0]}",
                remedy="prompt with a larger mask, a box or points",
            )
        full = np.where(inside, _GIVEN_LOGIT, -_GIVEN_LOGIT).astype(np.float32)
        logits = antialiased_resize(full, (size // 4, size // 4))
        without_memory = features.with_image_embed(features.tensors["vision_features"])
        prompt = self.backend.mask_prompt(features, full)[None]
        out = self.backend.decode(without_memory, *_no_points(), prompt)
        return ObjectOnFrame(logits, out.object_pointers[0, 0], 1.0, _GIVEN_LOGIT, prompted=True)

    def take(self, found: ObjectOnFrame, was_tracked: bool) -> None:
        """Makes `found` what is known of the frame at hand."""
        self.current, self.was_tracked, self.is_remembered = found, was_tracked, False


def track_all(
    objects: Sequence[TrackedObject], features: Features, frame: int, max_pointer_age: int
) -> list[ObjectOnFrame]:
    """The objects on a new frame, each by what is remembered of it."""
    found: list[ObjectOnFrame] = []
    for group in _groups(objects):
        backend = group[0].backend
        conditioned = [backend.attend_memory(features, one.bank.recall(frame, max_pointer_age)) for one in group]
        decoded = backend.decode_each(conditioned, *_no_points())
        found += [_chosen(out, several=True, prompted=False) for out in decoded]
    return found


def remember_all(objects: Sequence[TrackedObject], features: Features, frame: int) -> None:
    """Puts what was found of each on the frame at hand into its bank, once."""
    for group in _groups([one for one in objects if one.current is not None and not one.is_remembered]):
        backend, found = group[0].backend, [one.current for one in group if one.current is not None]
        size = backend.image_size
        masks = [cv2.resize(one.logits, (size, size), interpolation=cv2.INTER_LINEAR) for one in found]
        memories = backend.encode_memories(
            features, np.stack(masks), [one.object_score for one in found], [one.prompted for one in found]
        )
        for tracked, on_frame, memory in zip(group, found, memories, strict=True):
            tracked.bank.add(frame, on_frame.prompted, MemoryEntry(memory, on_frame.pointer))
            tracked.is_remembered = True


def _groups(objects: Sequence[TrackedObject]) -> Iterator[Sequence[TrackedObject]]:
    return (objects[start : start + GROUP] for start in range(0, len(objects), GROUP))


def _no_points() -> tuple[FloatArray, Any]:
    """SAM 2 tracks with one point that is labelled as none."""
    return np.zeros((1, 1, 2), np.float32), np.full((1, 1), PADDING, np.int32)


def _chosen(out: DecodedPrompts, several: bool, prompted: bool) -> ObjectOnFrame:
    """Of the decoder's masks the best-scored alternative (`several`), or the single one while it is stable."""
    logits, scores = select_masks(out.low_res_masks, out.iou_scores, multi_mask_output=several)
    best = int(scores[0].argmax())
    pointer = out.object_pointers[0, 1 + best if several else 0]
    object_score = float(out.object_score[0, 0])
    chosen = logits[0, best] if object_score > 0 else np.full_like(logits[0, best], HIDDEN_LOGIT)
    return ObjectOnFrame(chosen.copy(), pointer.copy(), float(scores[0, best]), object_score, prompted)
