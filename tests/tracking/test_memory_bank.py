from __future__ import annotations

import numpy as np
import pytest

from sam2edge.backends.base import HostFeatures
from sam2edge.tracking.memory_bank import MAX_COND_FRAMES, MemoryBank, MemoryEntry

SLOTS, POINTERS = 7, 16


def _remembered(frame: int) -> MemoryEntry:
    return MemoryEntry(HostFeatures({"memory": np.full(8, frame, np.float32)}), np.full(4, frame, np.float32))


def _bank(last: int, cond_frames: tuple[int, ...] = (0,)) -> MemoryBank:
    bank = MemoryBank(SLOTS, POINTERS)
    for frame in range(last + 1):
        bank.add(frame, frame in cond_frames, _remembered(frame))
    return bank


def _frames(bank: MemoryBank, frame: int, max_age: int = 15) -> tuple[list[int], list[int], list[int]]:
    """Frames of the memories that are recalled, their ages, frames of the pointers."""
    recalled = bank.recall(frame, max_age)
    memories = [int(memory.tensors["memory"][0]) for memory in recalled.memories]
    return memories, recalled.memory_ages.tolist(), recalled.obj_ptrs[:, 0].astype(int).tolist()


def test_the_second_frame_recalls_the_first() -> None:
    assert _frames(_bank(0), 1) == ([0], [0], [0])


def test_six_frames_and_the_cond_frame() -> None:
    memories, ages, pointers = _frames(_bank(29), 30)
    assert memories == [0, 29, 28, 27, 26, 25, 24]
    assert ages == [0, 1, 2, 3, 4, 5, 6]
    assert pointers == [0, *range(29, 14, -1)]


def test_ages_of_pointers_are_shares_of_the_greatest() -> None:
    recalled = _bank(3).recall(4, 5)
    np.testing.assert_allclose(recalled.obj_ptr_ages, [4 / 5, 1 / 5, 2 / 5, 3 / 5])
    assert recalled.obj_ptr_ages.dtype == np.float32


def test_a_short_clip_recalls_fewer_pointers() -> None:
    assert _frames(_bank(9), 10, max_age=5)[2] == [0, 9, 8, 7, 6, 5]


def test_cond_frames_come_before_old_tracked_ones() -> None:
    memories, ages, pointers = _frames(_bank(29, (0, 10, 20)), 30)
    assert memories == [0, 10, 20, 29, 28, 27, 26]
    assert ages == [0, 0, 0, 1, 2, 3, 4]
    assert pointers == [0, 10, 20, *(f for f in range(29, 15, -1) if f != 20)][:POINTERS]


@pytest.mark.parametrize(
    ("most", "frames"), [(1, [20]), (2, [20, 29]), (3, [0, 20, 29]), (4, [0, 10, 20, 29]), (5, [0, 10, 20, 29, 28])]
)
def test_with_few_slots_the_newest_tracked_frame_keeps_one(most: int, frames: list[int]) -> None:
    recalled = _bank(29, (0, 10, 20)).recall(30, 15, most)
    assert [int(memory.tensors["memory"][0]) for memory in recalled.memories] == frames
    assert len(recalled.obj_ptrs) == POINTERS


def test_the_first_cond_frame_and_the_latest_three_are_kept() -> None:
    bank = _bank(60, (0, 10, 20, 30, 40, 50))
    assert [frame for frame, is_cond_frame, _ in bank.items() if is_cond_frame] == [0, 30, 40, 50]


def test_a_cond_frame_that_gives_way_counts_as_tracked_while_it_is_near() -> None:
    memories, ages, _ = _frames(_bank(5, (0, 1, 2, 3, 4)), 6)
    assert (memories, ages) == ([0, 2, 3, 4, 5, 1], [0, 0, 0, 0, 1, 5])


def test_a_corrected_frame_is_held_once() -> None:
    bank = _bank(5)
    bank.add(5, True, _remembered(5))
    assert sorted(frame for frame, _, _ in bank.items()) == [0, 1, 2, 3, 4, 5]
    assert _frames(bank, 6)[:2] == ([0, 5, 4, 3, 2, 1], [0, 0, 2, 3, 4, 5])


@pytest.mark.parametrize("every", [1, 3, 1000])
def test_it_does_not_grow(every: int) -> None:
    bank, sizes, frames = MemoryBank(SLOTS, POINTERS), [], []
    for frame in range(5000):
        bank.add(frame, frame % every == 0, _remembered(frame))
        sizes.append(bank.nbytes)
        frames.append(len(bank))
    assert max(frames) <= MAX_COND_FRAMES + POINTERS - 1
    assert max(sizes[500:]) <= max(sizes[:500]) + (MAX_COND_FRAMES * (32 + 16) if every == 1000 else 0)
    assert sum(r.memory is not None for _, _, r in bank.items()) <= MAX_COND_FRAMES + SLOTS - 1


def test_what_is_put_back_is_as_it_was() -> None:
    bank, restored = _bank(29, (0, 20)), MemoryBank(SLOTS, POINTERS)
    for frame, is_cond_frame, entry in bank.items():
        restored.restore(frame, is_cond_frame, entry)
    assert _frames(restored, 30) == _frames(bank, 30)
    assert restored.nbytes == bank.nbytes
