"""The tracker's bookkeeping on a fake backend, then the embedded model on each real one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import VideoTracker
from sam2edge.contract import MASKED_OUT
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.predictor import ImagePredictor
from tests.fake_backend import FakeBackend, bright_square, fake_model

BOX = [5, 5, 45, 45]
CLICK: dict[str, Any] = {"points": [[20, 20]], "labels": [1]}


@pytest.fixture
def tracker() -> VideoTracker:
    return VideoTracker(fake_model())


@pytest.fixture
def backend(tracker: VideoTracker) -> FakeBackend:
    assert isinstance(tracker.model.backend, FakeBackend)
    return tracker.model.backend


def _same(left: Any, right: Any) -> bool:
    arrays = ("masks", "scores", "object_scores", "logits")
    return left.object_ids == right.object_ids and all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in arrays
    )


def test_a_prompt_then_frames(tracker: VideoTracker) -> None:
    first = tracker.prompt(bright_square(8), object_id=5, box=BOX)
    assert (first.frame_index, first.object_ids, first.masks.shape) == (0, (5,), (1, 60, 80))
    second = tracker.track(bright_square(20))
    assert second.frame_index == tracker.frame_index == 1
    assert second.masks.dtype == np.bool_
    assert second.masks[0, 25, 45] and not second.masks[0, 25, 12]
    assert second.scores.tolist() == pytest.approx([0.8])


def test_what_the_decoder_is_asked(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), box=BOX)
    tracker.prompt(None, **CLICK)
    tracker.track(bright_square(9))
    tracker.prompt(None, points=[[20, 20], [3, 3]], labels=[1, 0])
    labels, fed_back, embeds = zip(*backend.of("decode"), strict=True)
    assert labels == ([[2, 3]], [[2, 3, 1]], [[-1]], [[1, 0]])
    assert [mask is None for mask in fed_back] == [True, False, True, False]
    # A first prompt looks at the frame without memories, also where it refines; a tracked frame's at those before.
    assert len(backend.of("attend")) == 2
    assert np.array_equal(embeds[2], embeds[3]) and np.array_equal(embeds[0], embeds[1])


def test_prompts_of_one_frame_add_up(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), **CLICK)
    tracker.prompt(None, points=[[3, 3]], labels=[0])
    tracker.prompt(None, box=BOX)
    tracker.prompt(None, box=[4, 4, 46, 46])
    tracker.prompt(None, **CLICK, clear_old_points=True)
    tracker.prompt(None, mask=bright_square(8)[..., 0] > 0)
    tracker.prompt(None, **CLICK)
    tracker.track(bright_square(9))
    tracker.prompt(None, **CLICK)
    labels, fed_back, _ = zip(*backend.of("decode"), strict=True)
    assert labels == ([[1]], [[1, 0]], [[2, 3, 1, 0]], [[2, 3, 1, 0]], [[1]], [[-1]], [[1]], [[-1]], [[1]])
    # What was found is fed back, and with clear_old_points only what tracking found.
    assert [mask is not None for mask in fed_back] == [False, True, True, True, False, True, True, False, True]


def test_a_prompt_that_fails_is_not_remembered(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), **CLICK)
    backend.fail_in = "decode"
    with pytest.raises(RuntimeError):
        tracker.prompt(None, points=[[3, 3]], labels=[0])
    tracker.prompt(None, box=BOX)
    assert backend.of("decode")[-1][0] == [[2, 3, 1]]


def test_one_click_and_tracking_take_the_best_of_three_and_its_pointer(tracker: VideoTracker) -> None:
    def pointer() -> float:
        found = tracker._objects[1].current
        assert found is not None
        return float(found.obj_ptr[0])

    assert tracker.prompt(bright_square(8), **CLICK).scores[0] == pytest.approx(0.8)
    assert pointer() == 2
    tracker.prompt(None, box=BOX)
    assert pointer() == 0  # of the single mask, also where an alternative replaces it
    tracker.track(bright_square(9))
    assert pointer() == 2


def test_memory_is_made_once_a_frame_of_what_was_said_last(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), box=BOX)
    tracker.prompt(None, **CLICK)
    assert backend.of("encode_memory") == []
    tracker.track(bright_square(9))
    tracker.track(bright_square(10))
    tracker.prompt(None, **CLICK)  # a correction: its frame becomes a conditioning one
    tracker.track(bright_square(11))
    assert [binarise for _, binarise in backend.of("encode_memory")] == [True, False, True]
    assert backend.of("attend")[-1][0].memory_ages.tolist() == [0, 0, 2]


def test_image_features_are_computed_once_a_frame(tracker: VideoTracker, backend: FakeBackend) -> None:
    for object_id in range(4):
        tracker.prompt(bright_square(8), object_id, box=BOX)
    tracker.track(bright_square(9))
    tracker.prompt(bright_square(9), 2, **CLICK)
    assert len(backend.of("encode")) == 2


def test_a_prompt_on_an_unseen_frame_tracks_it_first(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), 1, box=BOX)
    result = tracker.prompt(bright_square(9), 2, box=BOX)
    assert (result.frame_index, result.object_ids) == (1, (1, 2))
    assert len(backend.of("attend")) == 1  # the new object has no memories to look at
    tracker.track(bright_square(10))
    assert [call[0].memory_ages.tolist() for call in backend.of("attend")[1:]] == [[0, 1], [0]]


def test_the_frame_buffer_may_be_reused(tracker: VideoTracker) -> None:
    buffer = bright_square(8)
    tracker.prompt(buffer, box=BOX)
    buffer[:] = bright_square(20)
    assert tracker.track(buffer).masks[0, 25, 45]
    assert tracker.frame_index == 1


def test_an_object_that_is_hidden_has_no_mask_and_comes_back(tracker: VideoTracker, backend: FakeBackend) -> None:
    tracker.prompt(bright_square(8), box=BOX)
    gone = tracker.track(np.zeros((60, 80, 3), np.uint8))
    assert gone.object_scores[0] <= 0 and not gone.masks.any()
    assert gone.logits.min() == -32
    back = tracker.track(bright_square(12))
    assert back.object_scores[0] > 0 and back.masks.any()
    assert [score > 0 for score, _ in backend.of("encode_memory")] == [True, False]


def test_a_mask_is_taken_as_it_is(tracker: VideoTracker, backend: FakeBackend) -> None:
    mask = np.zeros((60, 80), bool)
    mask[20:50, 30:70] = True
    result = tracker.prompt(bright_square(8), mask=mask)
    assert np.count_nonzero(result.masks[0] != mask) < 100  # of 1200; logits have a cell for 5x4 pixels here
    assert (result.scores[0], result.object_scores[0]) == (1.0, 10.0)
    labels, prompt, embed = backend.of("decode")[0]
    assert labels == [[-1]] and prompt.shape == (1, 16, 16)
    assert embed.max() < 2  # the frame without its "no memory" embedding
    tracker.track(bright_square(9))
    assert backend.of("encode_memory") == [(10.0, True)]


def test_objects_come_and_go(tracker: VideoTracker) -> None:
    tracker.prompt(bright_square(8), 1, box=BOX)
    tracker.prompt(None, 2, **CLICK)
    tracker.remove_object(1)
    assert tracker.track(bright_square(9)).object_ids == tracker.object_ids == (2,)
    tracker.prompt(None, 1, box=BOX)
    assert tracker.track(bright_square(10)).object_ids == (2, 1)


def test_reset_starts_anew(tracker: VideoTracker) -> None:
    tracker.prompt(bright_square(8), box=BOX)
    tracker.track(bright_square(9))
    tracker.reset()
    assert (tracker.frame_index, tracker.object_ids, tracker.memory_nbytes) == (-1, (), 0)
    wide = bright_square(8, size_hw=(60, 120))
    assert tracker.prompt(wide, box=BOX).frame_index == 0


@pytest.mark.parametrize(("selection", "memories", "obj_ptrs"), [("recent", 10, 19), ("samurai", 10, 25)])
def test_ten_thousand_frames_take_no_more_memory(selection: str, memories: int, obj_ptrs: int) -> None:
    """Objects come, go, are corrected, hidden, found again and dropped."""
    tracker = VideoTracker(fake_model(), memory_selection=selection, drop_after=40)
    assert isinstance(tracker.model.backend, FakeBackend)
    tracker.prompt(bright_square(0), 0, box=BOX)
    held, kinds = [], set()
    for frame in range(1, 10_000):
        is_dark = frame % 500 > 480 or frame % 1000 < 45
        result = tracker.track(np.zeros((60, 80, 3), np.uint8) if is_dark else bright_square(frame % 40))
        kinds |= {event.kind for event in result.events}
        if not tracker.object_ids or frame % 50 == 0:
            tracker.prompt(bright_square(frame % 40), frame, **CLICK)
        if len(tracker.object_ids) > 2:
            tracker.remove_object(tracker.object_ids[0])
        if frame % 70 == 0:
            tracker.prompt(None, tracker.object_ids[0], **CLICK)
        tracker.model.backend.calls.clear()
        held.append(tracker.memory_nbytes / len(tracker.object_ids))
        assert len(tracker._watch.last_seen) + len(tracker._watch.hidden_frames) <= 2 * len(tracker.object_ids)
    assert kinds == {"lost", "left", "found", "merged", "dropped"}
    variant = tracker.model.variant
    most = 4 * (memories * variant.memory_tokens(64) * variant.memory_dim + obj_ptrs * variant.d_model)
    assert max(held[500:]) <= 1.02 * most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no prompt"),
        ({"box": [45, 5, 5, 45]}, "turned round"),
        ({"box": [[1, 1, 9, 9], [2, 2, 8, 8]]}, "several objects"),
        ({"points": [[20, 20]]}, "point_labels missing"),
        ({"points": [[200, 20]], "labels": [1]}, "outside"),
        ({"points": [[float("nan"), 20]], "labels": [1]}, "NaN"),
        ({"mask": np.zeros((60, 80), bool)}, "mask is empty"),
        ({"mask": np.ones((6, 8), bool)}, "does not fit the frame"),
        ({"mask": np.ones((60, 80), bool), "box": BOX}, "together"),
        ({"object_id": "cat", "box": BOX}, "whole number"),
        ({"object_id": True, "box": BOX}, "whole number"),
    ],
)
def test_prompts_that_cannot_be_used(tracker: VideoTracker, arguments: dict, message: str) -> None:
    for _ in range(2):  # as the first prompt, and with an object there
        with pytest.raises(InvalidInputError, match=message):
            tracker.prompt(bright_square(8), **arguments)
        tracker.prompt(bright_square(8), 77, box=BOX)
    assert tracker.object_ids == (77,)
    assert tracker.track(bright_square(9)).frame_index == 1


def test_a_mask_that_vanishes_at_model_size() -> None:
    tracker = VideoTracker(fake_model())
    frame = np.zeros((600, 800, 3), np.uint8)
    dot = np.zeros((600, 800), bool)
    dot[300, 300] = True
    with pytest.raises(InvalidInputError, match="empty at the size of the model"):
        tracker.prompt(frame, mask=dot)
    tracker.prompt(bright_square(8), box=BOX)


def test_calls_in_the_wrong_order(tracker: VideoTracker, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing to track.*prompt"):
        tracker.track(bright_square(8))
    with pytest.raises(InvalidInputError, match="no frame yet"):
        tracker.prompt(None, box=BOX)
    with pytest.raises(InvalidInputError, match="nothing to save"):
        tracker.save(tmp_path / "session.npz")
    with pytest.raises(InvalidInputError, match="no such object"):
        tracker.remove_object(1)
    tracker.prompt(bright_square(8), 1, box=BOX)
    tracker.remove_object(1)
    with pytest.raises(InvalidInputError, match=r"no such object.*removed already"):
        tracker.remove_object(1)
    with pytest.raises(InvalidInputError, match="nothing to track"):
        tracker.track(bright_square(8))
    assert tracker.prompt(bright_square(9), 1, box=BOX).object_ids == (1,)


@pytest.mark.parametrize(
    "frame",
    [
        bright_square(8, size_hw=(60, 90)),
        np.zeros((60, 80, 3), np.int64),
        np.full((60, 80, 3), 700.0),
        "frame.jpg",
        None,
    ],
    ids=["size", "type", "range", "path", "none"],
)
def test_frames_that_cannot_be_used(tracker: VideoTracker, frame: Any) -> None:
    tracker.prompt(bright_square(8), box=BOX)
    before = tracker.track(bright_square(9))
    with pytest.raises(InvalidInputError):
        tracker.track(frame)
    assert tracker.frame_index == before.frame_index
    assert tracker.track(bright_square(10)).frame_index == 2


@pytest.mark.parametrize("method", ["encode", "attend", "decode", "encode_memory"])
def test_a_backend_that_fails_once_leaves_the_tracker_usable(
    tracker: VideoTracker, backend: FakeBackend, method: str
) -> None:
    undisturbed = VideoTracker(fake_model())
    for one in (tracker, undisturbed):
        one.prompt(bright_square(8), 1, box=BOX)
        one.prompt(None, 2, **CLICK)
        one.track(bright_square(9))
    backend.fail_in = method
    with pytest.raises(RuntimeError, match="failed"):
        tracker.track(bright_square(10))
    for left in (10, 11, 12):
        assert _same(tracker.track(bright_square(left)), undisturbed.track(bright_square(left)))
    assert tracker.memory_nbytes == undisturbed.memory_nbytes


def _running(model: ImagePredictor) -> VideoTracker:
    tracker = VideoTracker(model)
    tracker.prompt(bright_square(8), 1, box=BOX)
    tracker.prompt(None, 2, **CLICK)
    for left in range(9, 29):
        tracker.track(bright_square(left))
    tracker.prompt(None, 1, **CLICK)
    tracker.prompt(None, 1, box=BOX)
    return tracker


def test_a_saved_session_goes_on_elsewhere(tmp_path: Path) -> None:
    model = fake_model()
    tracker, other = _running(model), VideoTracker(model)
    path = tracker.save(tmp_path / "session.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["session.npz"]
    other.load(path)
    assert (other.frame_index, other.object_ids) == (20, (1, 2))
    assert other.memory_nbytes == tracker.memory_nbytes
    for arguments in ({"object_id": 2, **CLICK}, {"object_id": 1, **CLICK}, {"object_id": 1, "clear_old_points": True}):
        given = arguments if "points" in arguments else {**arguments, "box": BOX}
        assert _same(other.prompt(None, **given), tracker.prompt(None, **given))
    asked = [labels for labels, _, _ in model.backend.of("decode")][-6:]  # type: ignore[attr-defined]
    assert asked == [[[1]], [[1]], [[2, 3, 1, 1]], [[2, 3, 1, 1]], [[2, 3]], [[2, 3]]]
    for left in (30, 31):
        assert _same(other.track(bright_square(left)), tracker.track(bright_square(left)))


def _rewritten(path: Path, change: Any) -> Path:
    """The session file with its header, and its arrays as bytes, changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    change(header, parts)
    parts["header.json"] = json.dumps(header).encode()
    changed = path.with_name("changed.npz")
    with zipfile.ZipFile(changed, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda header, parts: header.update(format=2),
        lambda header, parts: header.update(frame_index="x"),
        lambda header, parts: header.update(objects=[{}]),
        lambda header, parts: header.update(pointer_age=0),
        lambda header, parts: header["objects"][0].update(frames=[["x", True, True]]),
        lambda header, parts: header["objects"][0].update(frames=[[i, False, False] for i in range(1000)]),
        lambda header, parts: header["objects"][0].update(labels=[7]),
        lambda header, parts: header["objects"][0].update(box=[1, 2]),
        lambda header, parts: parts.pop("0/tracked/logits.npy"),
        lambda header, parts: parts.pop("pixels.npy"),
        lambda header, parts: parts.update({"0/logits.npy": parts["0/pointer.npy"]}),
        lambda header, parts: parts.update({"0/logits.npy": b"\x93NUMPY"}),
        lambda header, parts: parts.update({"0/logits.npy": parts["0/logits.npy"][:-4] + b"\x00\x00\xc0\x7f"}),
    ],
)
def test_session_files_that_are_not_as_save_writes_them(tmp_path: Path, change: Any) -> None:
    tracker = _running(fake_model())
    changed = _rewritten(tracker.save(tmp_path / "session.npz"), change)
    with pytest.raises(InvalidInputError, match="session"):
        tracker.load(changed)
    assert tracker.track(bright_square(30)).object_ids == (1, 2)


def test_sessions_of_another_model_truncated_or_missing(tmp_path: Path) -> None:
    tracker = _running(fake_model())
    path = tracker.save(tmp_path / "session.npz")
    with pytest.raises(InvalidInputError, match=r"another model.*128.*64"):
        VideoTracker(fake_model(128)).load(path)
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidInputError, match="damaged"):
            tracker.load(path)
    with pytest.raises(InvalidInputError, match="not found"):
        tracker.load(tmp_path / "none.npz")
    np.savez(path, evil=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidInputError, match="damaged"):
        tracker.load(path)
    assert tracker.track(bright_square(30)).frame_index == 21


def test_a_session_that_cannot_be_written(tmp_path: Path) -> None:
    tracker = _running(fake_model())
    (tmp_path / "file").write_text("")
    with pytest.raises(Sam2EdgeError, match="cannot write .*remedy"):
        tracker.save(tmp_path / "file" / "session.npz")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Sam2EdgeError, match="cannot write .*remedy"):
        tracker.save(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_several_trackers_share_the_embedded_model(
    micro: ImagePredictor, photo_bgr: np.ndarray, tmp_path: Path
) -> None:
    frames = [np.roll(photo_bgr, 4 * i, axis=1) for i in range(3)]
    one, two = VideoTracker(micro), VideoTracker(micro)
    first = one.prompt(frames[0], 1, box=[75, 20, 480, 385])
    two.prompt(frames[0], 1, points=[[300, 200]], labels=[1])
    assert first.masks.shape == (1, 400, 600)
    alone = VideoTracker(micro)
    alone.prompt(frames[0], 1, box=[75, 20, 480, 385])
    for frame in frames[1:]:
        found = one.track(frame)
        two.track(frame)
        assert _same(found, alone.track(frame))
    loaded = VideoTracker(micro)
    loaded.load(one.save(tmp_path / "session.npz"))
    assert _same(loaded.track(frames[0]), one.track(frames[0]))
    assert np.isfinite(found.logits).all()


def test_both_backends_track_alike(photo_bgr: np.ndarray) -> None:
    pytest.importorskip("torch")
    from tests.conftest import load_micro

    mask = np.zeros(photo_bgr.shape[:2], bool)
    mask[100:300, 150:400] = True
    found = []
    for name in ("onnxruntime", "torch"):
        tracker = VideoTracker(load_micro(name))
        tracker.prompt(photo_bgr, 1, mask=mask)
        tracker.prompt(None, 2, box=[75, 20, 480, 385])
        found.append([tracker.track(np.roll(photo_bgr, 6 * i, axis=1)) for i in (1, 2)])
    for onnx, torch in zip(*found, strict=True):
        np.testing.assert_allclose(onnx.logits, torch.logits, atol=2e-2)


def test_masked_out_scores_vanish_in_float32() -> None:
    assert np.exp(np.float32(MASKED_OUT)) == 0
