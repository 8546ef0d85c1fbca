"""H.264 with the source's sound, and MPEG-4 where PyAV is missing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.cli.main import main
from sam2edge.errors import Sam2EdgeError
from sam2edge.video import sinks
from sam2edge.video.sinks import VideoSink, rescue_videos
from tests.conftest import ROOT

av = pytest.importorskip("av")
FRAMES = [np.full((61, 80, 3), 8 * number, np.uint8) for number in range(30)]


def _write(path: Path, sound_from: Path | None = None) -> None:
    sink = VideoSink(path, 25.0, sound_from=sound_from)
    for frame in FRAMES:
        sink.write(frame)
    assert sink.close() == path


def _codecs(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {stream.type: stream.codec_context.name for stream in container.streams}


def _count(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.fixture
def with_sound(tmp_path: Path) -> Path:
    """Two seconds of grey pictures and a tone."""
    path = tmp_path / "source.mp4"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=44100)
        video.width, video.height, video.pix_fmt = 80, 60, "yuv420p"
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((60, 80, 3), 4 * number, np.uint8), format="bgr24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
        tone = np.sin(np.arange(88200) * 0.05).astype(np.float32)[None]
        for at in range(0, 87000, 1024):
            piece = av.AudioFrame.from_ndarray(tone[:, at : at + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 44100, at
            container.mux(sound.encode(piece))
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


def test_every_frame_and_the_sound(tmp_path: Path, with_sound: Path) -> None:
    _write(tmp_path / "out.mp4", with_sound)
    assert _codecs(tmp_path / "out.mp4") == {"video": "h264", "audio": "aac"}
    assert _count(tmp_path / "out.mp4") == 30
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound, video = container.streams.audio[0], container.streams.video[0]
        assert video.format.name == "yuv420p" and (video.width, video.height) == (80, 62)
        assert float(sound.duration * sound.time_base) == pytest.approx(30 / 25, abs=0.1)


def test_track_keeps_the_sound(tmp_path: Path, with_sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sam2edge.automodel import AutoModel
    from tests.fake_backend import fake_model

    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: fake_model())
    monkeypatch.chdir(tmp_path)
    assert main(["track", "source.mp4", "--box", "8,10,38,40"]) == 0
    assert _codecs(tmp_path / "source.tracked.mp4") == {"video": "h264", "audio": "aac"}
    assert _count(tmp_path / "source.tracked.mp4") == 50


def test_a_source_without_sound_or_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    _write(tmp_path / "a.mp4", tmp_path / "notes.txt")
    _write(tmp_path / "b.mp4", tmp_path / "a.mp4")
    assert _codecs(tmp_path / "b.mp4") == {"video": "h264"}


def test_without_pyav_it_is_mpeg_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_find_h264", lambda: None)
    _write(tmp_path / "out.mp4")
    assert _codecs(tmp_path / "out.mp4") == {"video": "mpeg4"} and _count(tmp_path / "out.mp4") == 30


def test_a_killed_run_leaves_what_was_written(tmp_path: Path) -> None:
    program = (
        "import os, numpy as np; from pathlib import Path; from sam2edge.video.sinks import VideoSink\n"
        f"sink = VideoSink(Path({str(tmp_path / 'out.mp4')!r}), 25.0)\n"
        "for n in range(200): sink.write(np.random.default_rng(n).integers(0, 255, (60, 80, 3), np.uint8))\n"
        "os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=120)
    (rescued,) = rescue_videos(tmp_path)
    assert _count(rescued) > 150


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    sink, noise = VideoSink(tmp_path / "out.mp4", 25.0), np.random.default_rng(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, limits[1]))  # Python ignores the signal; writes fail
    try:
        for _ in range(100):
            sink.write(noise.integers(0, 256, (96, 128, 3), np.uint8))
        with pytest.raises(Sam2EdgeError, match="cannot write .*space left"):
            sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sink.discard()
    (kept,) = tmp_path.iterdir()
    assert 1 <= _count(kept) < 100
