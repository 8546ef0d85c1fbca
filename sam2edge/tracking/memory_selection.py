"""Which tracked frames are attended to, and which of three masks is taken: rules without training or extra passes.

- "recent", SAM 2's own: the frames just before the one at hand, and the mask with the highest predicted IoU.
- "samurai" (Yang et al., 2024, arXiv 2411.11922): the newest frames whose mask was good and moved as expected, and the
  frame before in any case; of the masks the one that fits both the predicted IoU and a Kalman filter over boxes.
- "dam4sam" (Videnic et al., 2025, arXiv 2411.17576): the latest frame on which the object was seen and every fifth such
  frame, and frames on which a look-alike was told apart as further conditioning frames.

A frame keeps its rank among those that are attended to as its age, so that slots and memory stay what they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Box = NDArray[np.float64]
"""(4,) x_min, y_min, x_max, y_max, the last two exclusive."""

# SAMURAI's figures.
_MIN_IOU_SCORE = 0.5
_STEADY_IOU_SCORE = 0.3
_STEADY_FRAMES = 15
_MOTION_WEIGHT = 0.25
# DAM4SAM's figures.
_SPARSE_STEP = 5
_DISTRACTOR_IOU_SCORE = 0.8
_AREA_TOLERANCE = 0.2
_AREA_FRAMES = 10
_DISTRACTOR_GAP = 5
_SAME_BOX_IOU = 0.7


class Choice(NamedTuple):
    """Of the alternatives the number of the one to take, and what the rule saw in them.

    motion_score: IoU of its box with the expected one, None where nothing is expected yet; has_distractor: whether
    another alternative shows something else beside it.
    """

    number: int
    motion_score: float | None = None
    has_distractor: bool = False


class Judgement(NamedTuple):
    """What becomes of a tracked frame: a cond_frame; one to attend to; one to attend to while it is the newest."""

    is_cond_frame: bool
    is_accepted: bool
    is_usable: bool


class FrameSelector(ABC):
    """The rule for one object."""

    @abstractmethod
    def choose(self, logits: FloatArray, scores: FloatArray) -> Choice:
        """Of alternative masks, logits (3, h, w) with predicted IoU (3,), on the next frame; changes nothing."""

    @abstractmethod
    def commit(self, logits: FloatArray, score: float, is_visible: bool, choice: Choice | None) -> None:
        """The next frame's mask (h, w) is this; `choice` is None for a mask that was prompted."""

    @abstractmethod
    def judge(self, frame: int, score: float, object_score: float, choice: Choice | None) -> Judgement:
        """What becomes of a tracked frame, once, when its memory is made."""


def make_selector(name: str) -> FrameSelector | None:
    """The selector of that name for a new object; None for "recent"."""
    return {"samurai": MotionSelector, "dam4sam": DistractorSelector}[name]() if name != "recent" else None


class MotionSelector(FrameSelector):
    """SAMURAI's rule."""

    def __init__(self) -> None:
        self._filter: BoxFilter | None = None
        self._steady = 0

    def choose(self, logits: FloatArray, scores: FloatArray) -> Choice:
        best = int(scores.argmax())
        boxes = [find_box(plane > 0) for plane in logits]
        if self._filter is None:
            return Choice(best)
        expected = self._filter.predict()
        overlaps = np.array([0.0 if box is None else box_iou(expected, box) for box in boxes])
        if self._steady >= _STEADY_FRAMES:
            best = int((_MOTION_WEIGHT * overlaps + (1 - _MOTION_WEIGHT) * scores).argmax())
        return Choice(best, float(overlaps[best]))

    def commit(self, logits: FloatArray, score: float, is_visible: bool, choice: Choice | None) -> None:
        box = find_box(logits > 0)
        if choice is None:
            self._filter, self._steady = (None if box is None else BoxFilter(box)), 0
            return
        if box is None or not is_visible or score <= _STEADY_IOU_SCORE:
            self._steady = 0
            if self._filter is not None:
                self._filter.skip()
            return
        self._steady += 1
        if self._filter is None:
            self._filter = BoxFilter(box)
        else:
            self._filter.update(box)

    def judge(self, frame: int, score: float, object_score: float, choice: Choice | None) -> Judgement:
        moved_well = choice is None or choice.motion_score is None or choice.motion_score > 0
        return Judgement(False, score > _MIN_IOU_SCORE and object_score > 0 and moved_well, True)


class DistractorSelector(FrameSelector):
    """DAM4SAM's rule."""

    def __init__(self) -> None:
        self._areas: deque[int] = deque(maxlen=_AREA_FRAMES)
        self._last_anchor: int | None = None

    def choose(self, logits: FloatArray, scores: FloatArray) -> Choice:
        best = int(scores.argmax())
        chosen = logits[best] > 0
        box = find_box(chosen)
        others = [_join_largest(plane > 0, chosen) for number, plane in enumerate(logits) if number != best]
        united = [find_box(mask) for mask in others]
        differs = box is not None and any(o is not None and box_iou(box, o) <= _SAME_BOX_IOU for o in united)
        return Choice(best, has_distractor=differs)

    def commit(self, logits: FloatArray, score: float, is_visible: bool, choice: Choice | None) -> None:
        if is_visible:
            self._areas.append(int(np.count_nonzero(logits > 0)))

    def judge(self, frame: int, score: float, object_score: float, choice: Choice | None) -> Judgement:
        is_visible = object_score > 0
        median = float(np.median(self._areas)) if self._areas else 0.0
        is_steady = bool(self._areas) and abs(self._areas[-1] - median) <= _AREA_TOLERANCE * median
        is_late = self._last_anchor is None or frame - self._last_anchor > _DISTRACTOR_GAP
        has_distractor = choice is not None and choice.has_distractor
        is_anchor = is_visible and has_distractor and score > _DISTRACTOR_IOU_SCORE and is_steady and is_late
        if is_anchor:
            self._last_anchor = frame
        return Judgement(is_anchor, is_visible and frame % _SPARSE_STEP == 0, is_visible)


class BoxFilter:
    """A Kalman filter of a box: centre, aspect ratio and height with their velocities, a step a frame.

    Standard deviations are shares of the height, 1/20 for places and 1/160 for velocities, as trackers by detection
    have them (Wojke et al., 2017, arXiv 1703.07402).
    """

    _PLACE, _SPEED = 1 / 20, 1 / 160

    def __init__(self, box: Box) -> None:
        self._mean = np.concatenate((_to_state(box), np.zeros(4)))
        place, speed = 2 * self._PLACE, 10 * self._SPEED
        self._covariance = np.diag(self._deviations(place, speed, 1e-2, 1e-5) ** 2)
        self._step = np.eye(8) + np.eye(8, k=4)

    def predict(self) -> Box:
        """The box on the next frame; changes nothing."""
        return _to_box((self._step @ self._mean)[:4])

    def skip(self) -> None:
        """A frame without the object."""
        self._advance()

    def update(self, box: Box) -> None:
        """A frame with this box."""
        self._advance()
        noise = np.diag(self._deviations(self._PLACE, 0, 1e-1, 0)[:4] ** 2)
        gain = np.linalg.solve(self._covariance[:4, :4] + noise, self._covariance[:4]).T
        self._mean = self._mean + gain @ (_to_state(box) - self._mean[:4])
        self._covariance = self._covariance - gain @ self._covariance[:4]

    def _advance(self) -> None:
        noise = np.diag(self._deviations(self._PLACE, self._SPEED, 1e-2, 1e-5) ** 2)
        self._mean = self._step @ self._mean
        self._covariance = self._step @ self._covariance @ self._step.T + noise

    def _deviations(self, place: float, speed: float, aspect: float, aspect_speed: float) -> NDArray[np.float64]:
        height = max(float(self._mean[3]), 1.0)
        place, speed = place * height, speed * height
        return np.array([place, place, aspect, place, speed, speed, aspect_speed, speed])


def find_box(mask: NDArray[np.bool_]) -> Box | None:
    """The box around a mask (h, w); None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def box_iou(one: Box, other: Box) -> float:
    """IoU of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return shared / max(areas - shared, 1e-9)


def _join_largest(mask: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`chosen` and the largest part of `mask` that lies outside it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask & ~chosen).astype(np.uint8))
    if count < 2:
        return chosen
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return chosen | np.asarray(labels == largest)


def _to_state(box: Box) -> NDArray[np.float64]:
    width, height = box[2:] - box[:2]
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])


def _to_box(state: NDArray[np.float64]) -> Box:
    x, y, aspect, height = state
    width, height = max(aspect * height, 1e-6), max(height, 1e-6)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
