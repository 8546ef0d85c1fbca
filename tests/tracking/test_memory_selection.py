"""The rules that choose frames and masks, on drawn boxes."""

from __future__ import annotations

import numpy as np

from sam2edge.backends.base import HostFeatures
from sam2edge.tracking.memory_bank import MemoryBank, MemoryEntry
from sam2edge.tracking.memory_selection import BoxFilter, Choice, DistractorSelector, MotionSelector, box_iou, find_box


def _square(left: int, top: int = 20, side: int = 16) -> np.ndarray:
    """Logits (64, 96) of one square."""
    logits = np.full((64, 96), -8, np.float32)
    logits[top : top + side, left : left + side] = 8
    return logits


def _entry(is_accepted: bool, is_usable: bool) -> MemoryEntry:
    return MemoryEntry(
        HostFeatures({"memory": np.zeros(8, np.float32)}), np.zeros(4, np.float32), is_accepted, is_usable
    )


def test_boxes() -> None:
    box = find_box(_square(10) > 0)
    assert box is not None and box.tolist() == [10, 20, 26, 36]
    assert find_box(np.zeros((4, 4), bool)) is None
    assert box_iou(box, box) == 1 and box_iou(box, box + 100) == 0
    assert np.isclose(box_iou(box, box + [8, 0, 8, 0]), 1 / 3)


def test_the_filter_learns_a_speed() -> None:
    box = np.array([0.0, 0.0, 20.0, 40.0])
    motion = BoxFilter(box)
    for step in range(1, 30):
        motion.update(box + 3 * step * np.array([1, 0, 1, 0]))
    np.testing.assert_allclose(motion.predict(), box + 90 * np.array([1, 0, 1, 0]), atol=0.5)
    motion.skip()
    np.testing.assert_allclose(motion.predict(), box + 93 * np.array([1, 0, 1, 0]), atol=1)


def test_motion_decides_between_look_alikes() -> None:
    selector = MotionSelector()
    selector.commit(_square(0), 0.9, True, None)
    scores = np.array([0.8, 0.85, 0.1], np.float32)
    for step in range(1, 25):
        right, other = _square(2 * step), _square(80, 40)
        choice = selector.choose(np.stack([right, other, other]), scores if step > 20 else scores[[1, 0, 2]])
        assert choice.number == 0, step  # from frame 16 on although the other has the higher score
        selector.commit(right, 0.8, True, choice)
    assert selector.judge(25, 0.8, 3.0, choice) == (False, True, True)
    assert selector.judge(25, 0.4, 3.0, choice) == (False, False, True)
    assert selector.judge(25, 0.8, -1.0, choice) == (False, False, True)
    assert selector.judge(25, 0.8, 3.0, Choice(0, 0.0)) == (False, False, True)
    selector.commit(right, 0.1, True, choice)  # unsteady: scores alone decide again
    assert selector.choose(np.stack([_square(50), _square(80, 40), _square(0)]), scores).number == 1


def test_a_distractor_makes_a_conditioning_frame() -> None:
    selector = DistractorSelector()
    alone, two = _square(20), np.maximum(_square(20), _square(70))
    scores = np.array([0.9, 0.8, 0.2], np.float32)
    for frame in range(1, 12):
        choice = selector.choose(np.stack([alone, alone, alone]), scores)
        selector.commit(alone, 0.9, True, choice)
        assert selector.judge(frame, 0.9, 5.0, choice) == (False, frame % 5 == 0, True)
    choice = selector.choose(np.stack([alone, two, alone]), scores)
    assert choice.number == 0 and choice.has_distractor
    assert selector.judge(12, 0.9, 5.0, choice).is_cond_frame
    assert not selector.judge(15, 0.9, 5.0, choice).is_cond_frame, "too soon after the last one"
    assert selector.judge(18, 0.9, 5.0, choice).is_cond_frame
    assert not selector.judge(30, 0.7, 5.0, choice).is_cond_frame, "not sure enough"
    assert selector.judge(30, 0.9, -2.0, choice) == (False, False, False)
    selector.commit(_square(20, side=30), 0.9, True, choice)
    assert not selector.judge(40, 0.9, 5.0, choice).is_cond_frame, "its size has leapt"


def test_the_bank_recalls_accepted_frames_by_rank() -> None:
    bank = MemoryBank(7, 16, selects=True)
    bank.add(0, True, _entry(True, True))
    for frame in range(1, 60):
        bank.add(frame, False, _entry(frame % 10 == 0, True))
    inputs = bank.recall(60, 15)
    assert inputs.memory_ages.tolist() == [0, 1, 2, 3, 4, 5, 6]  # frames 0, 59, 50, 40, 30, 20, 10
    assert len(inputs.obj_ptrs) == 16
    assert sum(entry.memory is not None for _, _, entry in bank.items()) == 7
    for frame in range(60, 90):
        bank.add(frame, False, _entry(False, False))
    assert bank.recall(90, 15).memory_ages.tolist() == [0, 1, 2, 3, 4, 5, 6]  # 59 while nothing newer is usable
    assert len(bank) <= 1 + 15 + 6
