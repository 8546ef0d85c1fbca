"""The tracker's options and events on the fake backend, whose masks are the bright part of the frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import VideoTracker
from sam2edge.datatypes import TrackEvent
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.regions import clean_logits, fill_holes
from tests.fake_backend import FakeBackend, bright_square, fake_model

BOX = [5, 5, 45, 45]
CLICK: dict[str, Any] = {"points": [[20, 20]], "labels": [1]}
DARK = np.zeros((60, 80, 3), np.uint8)


def _backend(tracker: VideoTracker) -> FakeBackend:
    assert isinstance(tracker.model.backend, FakeBackend)
    return tracker.model.backend


def _events(tracker: VideoTracker, frames: list[np.ndarray]) -> list[tuple[str, int, int]]:
    found = [event for time, frame in enumerate(frames) for event in tracker.track(frame, time_s=time).events]
    assert all(event.time_s == event.frame_index - 1 for event in found)
    return [(event.kind, event.object_id, event.frame_index) for event in found]


def test_lost_found_and_left() -> None:
    heard: list[TrackEvent] = []
    tracker = VideoTracker(fake_model(), on_event=heard.append)
    tracker.prompt(bright_square(8), 3, box=BOX)
    frames = [bright_square(9), DARK, DARK, bright_square(20), bright_square(50), DARK, DARK]
    # At 50 the square reaches the right edge, so that it has left when it is gone.
    assert _events(tracker, frames) == [("lost", 3, 2), ("found", 3, 4), ("left", 3, 6)]
    assert [(event.kind, event.frame_index) for event in heard] == [("lost", 2), ("found", 4), ("left", 6)]


def test_merged_is_told_once_until_they_part() -> None:
    tracker = VideoTracker(fake_model())
    tracker.prompt(bright_square(8), [1, 2], box=[BOX, BOX])
    frames = [bright_square(9), bright_square(10), DARK, bright_square(11)]
    merged = [event for frame in frames for event in tracker.track(frame).events if event.kind == "merged"]
    assert [(event.object_id, event.other_id, event.frame_index) for event in merged] == [(1, 2, 1), (1, 2, 4)]


def test_hidden_objects_are_dropped() -> None:
    tracker = VideoTracker(fake_model(), drop_after=3)
    tracker.prompt(bright_square(8), box=BOX)
    assert _events(tracker, [bright_square(9), DARK, DARK, bright_square(9), DARK, DARK, DARK])[-2:] == [
        ("lost", 1, 5),
        ("dropped", 1, 7),
    ]
    assert tracker.object_ids == ()
    with pytest.raises(InvalidInputError, match="nothing to track"):
        tracker.track(DARK)
    assert tracker.prompt(bright_square(8), 2, box=BOX).object_ids == (2,)


def test_frames_are_skipped_to_keep_to_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = VideoTracker(fake_model(), max_latency_ms=20)
    tracker.prompt(bright_square(8), box=BOX)
    clock = iter(np.arange(0, 1000, 0.01))  # 10 ms from each look at the clock to the next
    monkeypatch.setattr("sam2edge.tracker.time.perf_counter", lambda: next(clock))
    results = [tracker.track(bright_square(9 + i)) for i in range(12)]
    skipped = [result.is_skipped for result in results]
    assert not skipped[0] and 4 <= sum(skipped) <= 10
    # A skipped frame is the last result again, and the tracker does not see it.
    first = skipped.index(True)
    assert np.array_equal(results[first].masks, results[first - 1].masks)
    assert results[-1].frame_index == 12 - sum(skipped)


def test_several_objects_in_one_prompt() -> None:
    tracker = VideoTracker(fake_model())
    result = tracker.prompt(bright_square(8), [4, 7], box=[BOX, [1, 1, 50, 50]])
    assert result.object_ids == (4, 7)
    tracker.prompt(None, (4, 9), points=[[[20, 20]], [[9, 9], [30, 30]]], labels=[[1], [1, 0]])
    labels = [asked[0] for asked in _backend(tracker).of("decode")]
    assert labels == [[[2, 3]], [[2, 3]], [[2, 3, 1]], [[1, 0]]]
    masks = np.stack([bright_square(8)[..., 0] > 0] * 2)
    assert tracker.prompt(None, [4, 5], mask=masks).object_ids == (4, 7, 9, 5)
    for ids, boxes in (([1, 1], [BOX, BOX]), ([1, 2], [BOX]), ([], BOX)):
        with pytest.raises(InvalidInputError, match="object"):
            tracker.prompt(None, ids, box=boxes)
    with pytest.raises(InvalidInputError, match="does not fit"):
        tracker.prompt(None, [1, 2], mask=masks[:1, 1:])
    assert tracker.object_ids == (4, 7, 9, 5)


def test_coordinates_as_shares_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    tracker = VideoTracker(fake_model())
    decode = FakeBackend.decode_impl
    monkeypatch.setattr(FakeBackend, "decode_impl", lambda *given: asked.append(given[2]) or decode(*given))
    tracker.prompt(bright_square(8), 1, points=[[0.5, 0.25]], labels=[1], box=[0, 0, 1, 0.5], normalize_coords=False)
    assert asked[0].tolist() == [[[0, 0], [64, 32], [32, 16]]]
    with pytest.raises(InvalidInputError, match="outside"):
        tracker.prompt(None, 1, points=[[2, 2]], labels=[1], normalize_coords=False)


def test_clear_all_prompts_in_frame() -> None:
    tracker = VideoTracker(fake_model())
    tracker.prompt(bright_square(8), 1, box=BOX)
    tracker.prompt(None, 2, box=BOX)
    left = tracker.clear_all_prompts_in_frame(2)  # new on this frame: nothing is left of it
    assert left is not None and left.object_ids == (1,)
    tracked = tracker.track(bright_square(9))
    corrected = tracker.prompt(None, 1, mask=bright_square(20)[..., 0] > 0)
    assert corrected.scores[0] == 1 and tracked.scores[0] < 1
    cleared = tracker.clear_all_prompts_in_frame(1)
    assert cleared is not None and np.array_equal(cleared.scores, tracked.scores)
    tracker.track(bright_square(10))
    assert [flag for _, flag in _backend(tracker).of("encode_memory")] == [True, False]
    tracker.reset()
    tracker.prompt(bright_square(8), 1, box=BOX)
    assert tracker.clear_all_prompts_in_frame(1) is None
    with pytest.raises(InvalidInputError, match="no such object"):
        tracker.clear_all_prompts_in_frame(1)


@pytest.mark.parametrize(
    ("option", "ages"), [({}, [0, 0, 2]), ({"add_all_frames_to_correct_as_cond": False}, [0, 1, 2])]
)
def test_whether_a_corrected_frame_is_a_conditioning_frame(option: dict[str, bool], ages: list[int]) -> None:
    tracker = VideoTracker(fake_model(), **option)
    tracker.prompt(bright_square(8), box=BOX)
    tracker.track(bright_square(9))
    tracker.track(bright_square(10))
    tracker.prompt(None, **CLICK)
    tracker.track(bright_square(11))
    assert _backend(tracker).of("attend")[-1][0].memory_ages.tolist() == ages
    assert [flag for _, flag in _backend(tracker).of("encode_memory")] == [True, False, True]


def test_a_prompt_may_forget_the_frames_around_it() -> None:
    tracker = VideoTracker(fake_model(), clear_non_cond_mem_around_input=True)
    tracker.prompt(bright_square(8), box=BOX)
    for left in range(9, 14):
        tracker.track(bright_square(left))
    tracker.prompt(None, **CLICK)
    tracker.track(bright_square(14))
    assert _backend(tracker).of("attend")[-1][0].memory_ages.tolist() == [0, 0]


def test_masks_that_do_not_overlap() -> None:
    tracker = VideoTracker(fake_model(), non_overlap_masks=True)
    result = tracker.prompt(bright_square(8), [1, 2], box=[BOX, BOX])
    assert result.masks[0].any() and not (result.masks[0] & result.masks[1]).any()


def test_small_regions() -> None:
    logits = np.full((20, 20), -5, np.float32)
    logits[4:14, 4:14] = 5
    logits[6, 6] = logits[7, 7] = -1  # one hole of two pixels, by its corner
    logits[9:12, 9:12] = -2
    logits[17, 17] = 3
    filled = fill_holes(logits, 2)
    assert filled[6, 6] == filled[7, 7] == np.float32(0.1)
    assert filled[10, 10] == -2 and filled[17, 17] == 3 and filled[0, 0] == -5
    cleaned = clean_logits(logits[None], 0.0, 9, 1)[0]
    assert cleaned[6, 6] == cleaned[10, 10] == 10 and cleaned[17, 17] == -10 and cleaned[0, 0] == -5
    assert logits[6, 6] == -1, "the caller's array stays"
    tracker = VideoTracker(fake_model(), fill_hole_area=8)
    frame = bright_square(8)
    frame[22:31, 20:29] = 0
    masks = tracker.prompt(frame, box=BOX).masks
    assert masks[0, 26, 24], "filled"
    assert not VideoTracker(fake_model()).prompt(frame, box=BOX).masks[0, 26, 24]


@pytest.mark.parametrize("selection", ["samurai", "dam4sam"])
def test_selected_memories_are_bounded_and_saved(selection: str, tmp_path: Path) -> None:
    tracker = VideoTracker(fake_model(), memory_selection=selection)
    tracker.prompt(bright_square(8), box=BOX)
    held = []
    for index in range(200):
        tracker.track(DARK if index % 7 > 4 else bright_square(index % 40))
        held.append(tracker.memory_nbytes)
        ages = _backend(tracker).of("attend")[-1][0].memory_ages
        assert len(ages) <= 7 and ages.max() <= 6
        _backend(tracker).calls.clear()
    assert max(held[60:]) <= max(held[:60])
    other = VideoTracker(tracker.model, memory_selection=selection)
    other.load(tracker.save(tmp_path / "session.npz"))
    assert other.memory_nbytes == tracker.memory_nbytes
    assert np.array_equal(other.track(bright_square(9)).logits, tracker.track(bright_square(9)).logits)


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 0},
        {"drop_after": 0},
        {"fill_hole_area": -1},
        {"resize": "nearest"},
        {"memory_selection": "sam2long"},
        {"max_latency_ms": 0},
        {"colour": "red"},
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(options))}|unknown option"):
        VideoTracker(fake_model(), **options)
