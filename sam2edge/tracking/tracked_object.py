"""One object in a stream: prompted, tracked, remembered, by the rules of SAM 2's video predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import NO_POINT_LABEL, NO_POINT_XY, Backend, DecodedPrompts
from sam2edge.datatypes import Features, FloatArray, ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import LOGIT_LIMIT, antialiased_resize, select_masks
from sam2edge.imaging.prompts import prompts_to_model
from sam2edge.imaging.refine import NONE
from sam2edge.tracking.click_rules import Clicks, merge_clicks
from sam2edge.tracking.memory_bank import MemoryBank, MemoryEntry
from sam2edge.tracking.memory_selection import Choice, FrameSelector, Judgement, make_selector

OBJECTS_AT_ONCE = 8
"""Objects that a backend is given at a time, so that many take no more memory at once than these."""

HIDDEN_LOGIT = -1024.0
"""SAM 2's logit for every pixel of an object that is not on the frame."""

# SAM 2's logits of a mask that the caller gave: 20 * mask - 10.
_GIVEN_LOGIT = 10.0


@dataclass(frozen=True, eq=False)
class ObjectOnFrame:
    """One object on one frame.

    logits (4E, 4E) float32; obj_ptr (D,); score the predicted IoU, 0..1; object_score a logit, not above 0: hidden;
    is_prompted: from a prompt; choice: what a selector of frames saw in the alternatives, None where none is used.
    """

    logits: FloatArray
    obj_ptr: FloatArray
    score: float
    object_score: float
    is_prompted: bool
    choice: Choice | None = None


class TrackedObject:
    """Its memories, and what was said and found of it on the frame at hand.

    That frame's memory is made when the next frame comes: by then it can no longer be corrected.
    """

    def __init__(self, memory_slots: int, memory_selection: str = "recent") -> None:
        self.selector = make_selector(memory_selection)
        self.bank = MemoryBank(memory_slots, selects=self.selector is not None)
        self.current: ObjectOnFrame | None = None
        self.tracked: ObjectOnFrame | None = None
        """What tracking found on the frame at hand, before any prompt there; None: the object is new on it."""
        self.prompt: ImagePrompt | None = None
        """Points and box given on the frame at hand so far, in frame pixels."""
        self.is_remembered = False
        """Whether `current` is in the bank."""

    def add_prompt(self, prompt: ImagePrompt) -> ImagePrompt:
        """This prompt after those given on the frame before; a new box takes the place of the old one."""
        if self.prompt is None:
            return prompt
        return ImagePrompt(
            np.concatenate((self.prompt.point_coords, prompt.point_coords), axis=1),
            np.concatenate((self.prompt.point_labels, prompt.point_labels), axis=1),
            self.prompt.boxes_xyxy if prompt.boxes_xyxy is None else prompt.boxes_xyxy,
        )

    def segment_prompt(
        self,
        backend: Backend,
        features: Features,
        frame: int,
        prompt: ImagePrompt,
        size_hw: tuple[int, int],
        max_obj_ptr_age: int,
        previous: ObjectOnFrame | None,
    ) -> ObjectOnFrame:
        """The object on this frame by points and box; the logits of `previous`, found there before, are fed back."""
        coords, labels = prompts_to_model(prompt, size_hw, backend.image_size)
        logits = None if previous is None else np.clip(previous.logits, -LOGIT_LIMIT, LOGIT_LIMIT)[None]
        if self.tracked is not None:
            features = backend.attend_memory(features, self.bank.recall(frame, max_obj_ptr_age, backend.memory_slots))
        out = backend.decode(features, coords, labels, logits)
        # One click can mean a part or the whole, so the best of three masks is taken.
        several = coords.shape[1] == 1
        if backend.variant.refine == NONE:
            return _choose_mask(out, several, is_prompted=True)
        known = 0 if self.prompt is None else self.prompt.point_labels.shape[1]
        clicks = Clicks.from_model_input(
            coords[0], labels[0], backend.image_size // 4, prompt.point_labels.shape[1] - known
        )
        found = _choose_mask(out, several, is_prompted=True, clicks=clicks)
        box_before = None if self.prompt is None else self.prompt.boxes_xyxy
        is_further = previous is not None and previous is self.current and prompt.boxes_xyxy is box_before
        if previous is None or not is_further or not previous.is_prompted or previous.object_score <= 0:
            return found
        if found.object_score <= 0:
            return previous
        logits = merge_clicks(previous.logits, found.logits, clicks)
        return replace(found, logits=logits, score=max(found.score, previous.score))

    def segment_mask(self, backend: Backend, features: Features, mask: NDArray[np.bool_]) -> ObjectOnFrame:
        """The object on this frame by its mask (H, W) bool, which is taken as it is."""
        size = backend.image_size
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
        out = backend.decode(without_memory, NO_POINT_XY, NO_POINT_LABEL, backend.mask_prompt(features, full)[None])
        return ObjectOnFrame(logits, out.object_pointers[0, 0], 1.0, _GIVEN_LOGIT, is_prompted=True)

    def commit_tracked(self, found: ObjectOnFrame) -> None:
        """A new frame is at hand, and tracking found this on it."""
        self.current = self.tracked = found
        self.prompt, self.is_remembered = None, False
        if self.selector is not None:
            self.selector.commit(found.logits, found.score, found.object_score > 0, found.choice)

    def commit_prompted(self, found: ObjectOnFrame, prompt: ImagePrompt | None) -> None:
        """A prompt on the frame at hand gave this; `prompt` is all that was said there (None: a mask)."""
        self.current, self.prompt, self.is_remembered = found, prompt, False
        if self.selector is not None:
            self.selector.commit(found.logits, found.score, found.object_score > 0, None)

    def remember(self, frame: int, memory: Any, corrections_are_cond: bool) -> None:
        """Puts what was found on the frame at hand into the bank."""
        found = self.current
        assert found is not None
        is_cond_frame = found.is_prompted and (self.tracked is None or corrections_are_cond)
        judged = Judgement(is_cond_frame, True, True)
        if self.selector is not None and not found.is_prompted:
            judged = self.selector.judge(frame, found.score, found.object_score, found.choice)
        entry = MemoryEntry(memory, found.obj_ptr, judged.is_accepted, judged.is_usable)
        self.bank.add(frame, judged.is_cond_frame, entry)
        self.is_remembered = True

    def clear_prompts(self) -> bool:
        """Forgets the prompts on the frame at hand; whether the object still has a past to be tracked by."""
        self.current, self.prompt, self.is_remembered = self.tracked, None, False
        return self.tracked is not None


def track_all(
    backend: Backend, objects: Sequence[TrackedObject], features: Features, frame: int, max_obj_ptr_age: int
) -> list[ObjectOnFrame]:
    """The objects on a new frame, each by what is remembered of it."""
    found: list[ObjectOnFrame] = []
    for start in range(0, len(objects), OBJECTS_AT_ONCE):
        group = objects[start : start + OBJECTS_AT_ONCE]
        slots = backend.memory_slots
        attended = [backend.attend_memory(features, one.bank.recall(frame, max_obj_ptr_age, slots)) for one in group]
        for one, out in zip(group, backend.decode_each(attended), strict=True):
            found.append(_choose_mask(out, several=True, is_prompted=False, selector=one.selector))
    return found


def remember_all(
    backend: Backend,
    objects: Sequence[TrackedObject],
    features: Features,
    frame: int,
    corrections_are_cond: bool = True,
) -> None:
    """Puts what was found of each on the frame at hand into its bank, once."""
    waiting = [(one, one.current) for one in objects if one.current is not None and not one.is_remembered]
    for start in range(0, len(waiting), OBJECTS_AT_ONCE):
        group = waiting[start : start + OBJECTS_AT_ONCE]
        memories = backend.encode_memories(
            features,
            np.stack([found.logits for _, found in group]),
            [found.object_score for _, found in group],
            [found.is_prompted for _, found in group],
        )
        for (tracked, _), memory in zip(group, memories, strict=True):
            tracked.remember(frame, memory, corrections_are_cond)


def _choose_mask(
    out: DecodedPrompts,
    several: bool,
    is_prompted: bool,
    selector: FrameSelector | None = None,
    clicks: Clicks | None = None,
) -> ObjectOnFrame:
    """Of the decoder's masks the best-scored alternative (`several`), or the single one while it is stable.

    With `clicks` another one where that has more of them on their right sides.
    """
    logits, scores = select_masks(out.low_res_masks, out.iou_scores, multi_mask_output=several)
    choice = None if selector is None else selector.choose(logits[0], scores[0])
    best = int(scores[0].argmax()) if choice is None else choice.number
    obj_ptr = out.object_pointers[0, 1 + best if several else 0]
    if clicks is not None:
        missed = [clicks.count_missed(plane) for plane in out.low_res_masks[0]]
        if min(missed) < clicks.count_missed(logits[0, best]):
            fewest = np.array(missed) == min(missed)
            best = int(np.where(fewest, out.iou_scores[0], -np.inf).argmax())
            logits, scores, obj_ptr = out.low_res_masks, out.iou_scores, out.object_pointers[0, best]
    object_score = float(out.object_score[0, 0])
    chosen = logits[0, best].copy() if object_score > 0 else np.full_like(logits[0, best], HIDDEN_LOGIT)
    return ObjectOnFrame(chosen, obj_ptr.copy(), float(scores[0, best]), object_score, is_prompted, choice)
