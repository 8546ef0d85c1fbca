from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video import sinks
from sam2edge.video.index_png import davis_palette
from sam2edge.video.sinks import MaskSink, VideoSink, rescue_videos
from tests.conftest import ROOT, read_picture, read_video

FRAME = np.full((48, 64, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def mpeg_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without PyAV; H.264 is in test_h264.py."""
    monkeypatch.setattr(sinks, "_find_h264", lambda: None)


def test_the_video_appears_when_it_is_whole(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME)
    assert not (tmp_path / "out.mp4").exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1].shape == FRAME.shape


def test_an_odd_frame_loses_nothing(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME[:47, :63])
    sink.close()
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1].shape == FRAME.shape


def test_a_discarded_video_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("earlier")
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME)
    sink.discard()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_no_frame_no_file(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.close()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME)
    assert sink._writer is not None
    sink._writer.release()
    next(tmp_path.iterdir()).write_bytes(b"")  # as a full disk leaves it
    with pytest.raises(Sam2EdgeError, match=r"cannot write.*space"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    sink, noise = VideoSink(tmp_path / "out.mp4", 25.0), np.random.default_rng(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # Python ignores the signal; writes fail
    try:
        for _ in range(60):
            sink.write(noise.integers(0, 256, (96, 128, 3), np.uint8))
        with pytest.raises(Sam2EdgeError, match="of 60 frames.*full.*space left"):
            sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sink.discard()
    (kept,) = tmp_path.iterdir()
    assert 1 <= len(read_video(kept)) < 60


def test_a_disk_too_small_for_a_frame_leaves_no_empty_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the long suite: an MP4 without a frame got the name of the result."""
    monkeypatch.setattr(sinks, "_find_h264", lambda: None)
    monkeypatch.setattr(sinks, "remux", lambda source, target, fps: target.write_bytes(b"empty") and 0)
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME)
    with pytest.raises(Sam2EdgeError, match="no frame could be read back"):
        sink.close()
    assert not (tmp_path / "out.mp4").exists()


def test_a_disk_that_is_nearly_full_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 10)
    sink.write(FRAME)
    with monkeypatch.context() as full:
        full.setattr(sinks, "_LEAST_FREE_BYTES", 2**62)
        with pytest.raises(Sam2EdgeError, match=r"the disk of .*out\.mp4 is full"):
            sink.write(FRAME)
        with pytest.raises(Sam2EdgeError, match="is full"):
            VideoSink(tmp_path / "other.mp4", 10)
    sink.close()
    assert len(read_video(tmp_path / "out.mp4")) == 1


def test_the_video_of_a_killed_process_is_rescued(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
import numpy as np
from sam2edge.video.sinks import VideoSink
sink, noise = VideoSink(Path(sys.argv[1]) / "out.mp4", 10), np.random.default_rng(0)
for _ in range(60):
    sink.write(noise.integers(0, 256, (192, 256, 3), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    running = VideoSink(tmp_path / "other.mp4", 10)  # of a process that is still there
    running.write(FRAME)
    (rescued,) = rescue_videos(tmp_path)
    assert rescued == tmp_path / "rescued.mkv" and len(read_video(rescued)) > 20
    assert rescue_videos(tmp_path) == []
    running.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.mp4", "rescued.mkv"]


def test_a_finished_video_has_its_frames_key_frames_and_headers(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    sink = VideoSink(tmp_path / "out.mp4", 29.97)
    for shift in range(30):
        sink.write(np.roll(noise, shift, axis=1))
    assert sink.close() == tmp_path / "out.mp4"
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(29.97)
    keys = []
    while capture.read()[0]:
        keys.append(bool(capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)))
    assert len(keys) == 30 and keys[0] and 2 <= sum(keys) < 10
    assert capture.retrieve(flag=int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))[0]


def test_a_video_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("earlier")
    for replace, expected in ((False, "out-2.mp4"), (False, "out-3.mp4"), (True, "out.mp4")):
        sink = VideoSink(tmp_path / "out.mp4", 10, replace)
        sink.write(FRAME)
        assert sink.close() == tmp_path / expected
    assert len(read_video(tmp_path / "out.mp4")) == 1


def test_masks_never_go_among_the_frames_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_text("")
    with pytest.raises(InvalidInputError, match="among the frames"):
        MaskSink(tmp_path / ".", tmp_path)
    MaskSink(tmp_path / "masks", tmp_path)


def test_places_that_cannot_take_a_video(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"\.mp4"):
        VideoSink(tmp_path / "out.avi", 10)
    with pytest.raises(InvalidInputError, match="folder that exists"):
        VideoSink(tmp_path / "none" / "out.mp4", 10)


def test_index_pngs(tmp_path: Path) -> None:
    sink = MaskSink(tmp_path / "masks")
    masks = np.zeros((2, 10, 20), bool)
    masks[0, :5], masks[1, 3:, :10] = True, True
    path = sink.write(7, (10, 20), (9, 2), masks)
    assert [p.name for p in path.parent.iterdir()] == ["00007.png"]
    expected = np.zeros((10, 20), np.uint8)
    expected[:5], expected[3:, :10] = 9, 2  # the lower id is on top
    colours = read_picture(path)[..., ::-1]
    assert np.array_equal(colours, davis_palette()[expected])
    assert path.read_bytes()[25] == 3  # colour type: palette
    sink.write(8, (10, 20), (), None)
    assert not read_picture(tmp_path / "masks" / "00008.png").any()


def test_the_palette_begins_as_that_of_davis() -> None:
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert davis_palette()[:6].tolist() == expected
    assert davis_palette()[[8, 255]].tolist() == [[64, 0, 0], [224, 224, 192]]


def test_masks_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="folder"):
        MaskSink(tmp_path / "file")
    (tmp_path / "00000.png").write_text("")
    with pytest.raises(InvalidInputError, match="earlier run"):
        MaskSink(tmp_path)
    with pytest.raises(InvalidInputError, match=r"1\.\.255"):
        MaskSink(tmp_path / "new").write(0, (4, 4), (256,), np.ones((1, 4, 4), bool))
    with pytest.raises(InvalidInputError, match="--masks cannot be written"):
        MaskSink(tmp_path / "file" / "masks")
