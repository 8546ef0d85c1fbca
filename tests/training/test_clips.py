"""Drawn clips: a pure function of seed, size and length; objects move, hide and return as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.clip_batches import draw_clip_batch
from training.clips import Clip, Cover, draw_clip
from training.pictures import Material
from training.pixels import normalise
from training.scenes import MIN_AREA
from training.shots import STRANGERS_FROM

SIZE, FRAMES = 96, 6


def test_a_clip_depends_on_its_arguments_alone() -> None:
    first, again, other = (draw_clip(seed, SIZE, FRAMES) for seed in (5, 5, 6))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.labels, again.labels)
    assert first.objects == again.objects
    assert not np.array_equal(first.frames, other.frames)


def test_a_longer_clip_begins_alike() -> None:
    short, long = draw_clip(8, SIZE, 3, Cover(0, 50, 51)), draw_clip(8, SIZE, 6, Cover(0, 50, 51))
    assert np.array_equal(short.frames, long.frames[:3])


@pytest.mark.parametrize("seed", range(6))
def test_objects_to_ask_for_are_there_at_first(seed: int) -> None:
    clip = draw_clip(seed, SIZE, FRAMES)
    assert clip.frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.labels.shape == (FRAMES, SIZE, SIZE)
    assert clip.objects
    for label in clip.objects:
        assert (clip.labels[0] == label).sum() >= MIN_AREA * SIZE * SIZE


def test_objects_move() -> None:
    moved = []
    for seed in range(12):
        clip = draw_clip(seed, SIZE, FRAMES)
        first, last = (clip.labels[i] == clip.objects[0] for i in (0, -1))
        moved.append((first & last).sum() / max(1, (first | last).sum()))
    assert 0.2 < np.mean(moved) < 0.9


def test_a_covered_object_is_hidden_and_comes_back() -> None:
    found = 0
    for seed in range(6):
        clip = draw_clip(seed, SIZE, 32, Cover(0, 8, 14))
        areas = [int((labels == 2).sum()) for labels in clip.labels]
        if 2 not in clip.objects or min(areas[:2]) == 0:
            continue
        found += 1
        assert max(areas[8:14]) == 0, f"clip {seed} shows it"
        assert max(areas[24:]) > 0, f"clip {seed} never shows it again"
    assert found >= 3


def _steps(clip: Clip) -> list[float]:
    """How much the picture changes from frame to frame."""
    return [float(np.abs(np.diff(clip.frames[i : i + 2].astype(float), axis=0)).mean()) for i in range(FRAMES - 1)]


def test_some_clips_are_cut_and_objects_are_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.clips._CUT_SHARE", 0.0)
    whole = [draw_clip(seed, SIZE, FRAMES, Cover(0, 99, 100)) for seed in range(12)]
    monkeypatch.setattr("training.clips._CUT_SHARE", 1.0)
    cut = [draw_clip(seed, SIZE, FRAMES) for seed in range(12)]
    for before, after in zip(whole, cut, strict=True):
        assert np.array_equal(before.labels[0], after.labels[0])
    assert np.mean([max(_steps(clip)) for clip in cut]) > 2 * np.mean([max(_steps(clip)) for clip in whole])
    away = [(clip, time) for clip in cut for time in range(FRAMES) if clip.labels[time].max() >= STRANGERS_FROM]
    assert away
    assert not any(np.isin(clip.objects, clip.labels[time]).any() for clip, time in away)
    returned = [clip for clip, time in away if time < FRAMES - 1 and clip.labels[-1].max() < STRANGERS_FROM]
    assert any(np.isin(clip.objects, clip.labels[-1]).any() for clip in returned)


def test_a_batch_says_where_each_object_is_on_each_frame() -> None:
    batch = draw_clip_batch(Material(), 20, 2, 3, SIZE, FRAMES)
    wide = SIZE // 4
    assert batch.frames.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert batch.coords.shape[:2] == batch.labels.shape[:2] == (2, 3)
    assert len(batch.targets) == FRAMES
    shrunk = batch.given.unflatten(2, (wide, 4)).unflatten(4, (wide, 4)).mean((3, 5))
    assert np.allclose(batch.targets[0].masks, shrunk)
    for targets in batch.targets:
        for clip, one in np.ndindex(2, 3):
            if targets.present[clip, one]:
                assert targets.same[clip, one, one] == 1
                assert targets.masks[clip, one].flatten()[targets.cells[clip, one]] > 0


def test_an_object_that_is_hidden_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden_later(seed: int, size: int, frames: int, leap: int = 1) -> Clip:
        labels = np.ones((frames, size, size), np.uint8)
        labels[0, 20:60, 20:60] = 2
        return Clip(np.zeros((frames, size, size, 3), np.uint8), labels, (2,))

    monkeypatch.setattr("training.clip_batches.draw_clip", hidden_later)
    batch = draw_clip_batch(Material(), 0, 1, 1, SIZE, 3)
    assert [float(targets.present) for targets in batch.targets] == [1.0, 0.0, 0.0]


def test_a_leap_leaves_frames_out() -> None:
    whole, leapt = draw_clip(5, SIZE, 7), draw_clip(5, SIZE, 3, leap=3)
    assert np.array_equal(leapt.frames, whole.frames[::3])
    assert np.array_equal(leapt.labels, whole.labels[::3])
    assert leapt.objects == whole.objects


def test_each_clip_of_a_batch_has_one_of_the_leaps() -> None:
    batch = draw_clip_batch(Material(), 4, 2, 1, SIZE, 3, leaps=(1, 2))
    for clip, leap in zip(batch.frames, (1, 2), strict=True):
        seed = 3 + leap
        frames = draw_clip(seed, SIZE, 3, leap=leap).frames
        assert torch.equal(clip, torch.stack([normalise(frame) for frame in frames]))
