"""Video files, by OpenCV and by PyAV, and folders of pictures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.video.frame import DEFAULT_FPS, FrameSource
from sam2edge.video.sinks import VideoSink
from sam2edge.video.sources import choose
from sam2edge.video.sources.choose import open_source
from tests.conftest import ROOT
from tests.video.clips import numbers, write_picture, write_video


@pytest.fixture(params=["VideoFile", "AvFile"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "AvFile":
        pytest.importorskip("av")
    monkeypatch.setattr(choose, "_has_pyav", lambda: request.param == "AvFile")
    return request.param


def test_a_video_file(tmp_path: Path, decoder: str) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4"))
    frames = list(source)
    source.close()
    source.close()
    assert type(source).__name__ == decoder
    assert (source.num_frames, source.live) == (5, False)
    assert source.fps == pytest.approx(12, rel=0.005)  # as the container rounds times
    assert [frame.pixels.shape for frame in frames] == [(48, 64, 3)] * 5
    assert [round(float(frame.pixels.mean()), -1) for frame in frames] == [0, 40, 80, 120, 160]
    assert [frame.index for frame in frames] == list(range(5))
    assert [round(frame.time_ns / 1e6) for frame in frames] == [0, 83, 167, 250, 333]


def test_both_decoders_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    sources: list[FrameSource] = []
    for pyav in (True, False):
        monkeypatch.setattr(choose, "_has_pyav", lambda pyav=pyav: pyav)
        sources.append(open_source(ROOT / "examples" / "bunny.mp4"))
    for one, other in zip(*sources, strict=True):
        assert (one.index, one.time_ns) == (other.index, other.time_ns)
        assert np.array_equal(one.pixels, other.pixels)


def test_a_video_that_lies_on_its_side_is_turned(tmp_path: Path, decoder: str) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no ffmpeg to write the rotation")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:10] = 255  # bright above: on the right once it is turned with the clock
    sink = VideoSink(tmp_path / "flat.mp4", 10)
    for _ in range(3):
        sink.write(pixels)
    sink.close()
    command = [ffmpeg, "-v", "error", "-i", "flat.mp4", "-c", "copy", "-metadata:s:v:0", "rotate=270", "turned.mp4"]
    subprocess.run(command, cwd=tmp_path, check=True)
    frames = list(open_source(tmp_path / "turned.mp4"))
    assert frames[0].pixels.shape == (64, 48, 3)
    assert frames[0].pixels[:, -8:].mean() > 200 > 50 > frames[0].pixels[:, :-14].mean()


def test_a_damaged_middle_is_left_out(tmp_path: Path, decoder: str) -> None:
    data = bytearray((ROOT / "examples" / "bunny.mp4").read_bytes())
    start = data.index(b"mdat") + 60_000
    data[start : start + 3000] = bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert len(list(open_source(tmp_path / "damaged.mp4"))) > 60


def test_a_title_that_is_no_utf8_keeps_no_video_from_opening(tmp_path: Path, decoder: str) -> None:
    data = (ROOT / "examples" / "bunny.mp4").read_bytes()
    assert b"Lavf" in data
    (tmp_path / "titled.mp4").write_bytes(data.replace(b"Lavf", b"L\xe4vf"))
    source = open_source(tmp_path / "titled.mp4")
    assert next(iter(source)).index == 0
    source.close()


def test_a_folder_in_natural_order_without_other_files(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_picture(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    source = open_source(tmp_path)
    assert (source.fps, source.num_frames) == (DEFAULT_FPS, 3)
    frames = list(source)
    assert numbers(frames) == [1, 2, 10]
    assert [frame.time_ns for frame in frames] == [0, 40_000_000, 80_000_000]


@pytest.mark.parametrize("content", [b"", b"no video at all", None], ids=["empty", "text", "cut"])
def test_videos_that_cannot_be_opened(tmp_path: Path, decoder: str, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(write_video(tmp_path / "whole.mp4").read_bytes()[:300] if content is None else content)
    with pytest.raises(InvalidInputError, match=r"video (is empty|cannot be opened).*remedy"):
        open_source(path)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="source not found"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(InvalidInputError, match="folder has no pictures"):
        open_source(tmp_path)


def test_a_video_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_has_pyav", lambda: False)
    source = open_source(write_video(tmp_path / "clip.mp4"))
    while source._capture.read()[0]:  # type: ignore[attr-defined]
        pass
    with pytest.raises(InvalidInputError, match="no frame that can be decoded"):
        list(source)


def test_pictures_of_several_sizes_and_damaged_ones(tmp_path: Path) -> None:
    write_picture(tmp_path / "0.png", 1)
    write_picture(tmp_path / "1.png", 1, (20, 31))
    with pytest.raises(InvalidInputError, match=r"another size.*30x20.*31x20 in .*1\.png"):
        list(open_source(tmp_path))
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="empty"):
        list(open_source(tmp_path))
