from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.video.sinks import VideoSink
from sam2edge.video.sources import DEFAULT_FPS, open_source


def _write_video(path: Path, frames: int = 5, fps: float = 12.0) -> Path:
    sink = VideoSink(path, fps)
    for value in range(frames):
        sink.write(np.full((48, 64, 3), 40 * value, np.uint8))
    sink.close()
    return path


def _write_picture(path: Path, value: int, size_hw: tuple[int, int] = (20, 30)) -> None:
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), value, np.uint8))


def test_a_video_file(tmp_path: Path) -> None:
    source = open_source(_write_video(tmp_path / "clip.mp4"))
    frames = list(source)
    source.close()
    assert (source.fps, source.num_frames) == (12.0, 5)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    assert [round(float(frame.mean()), -1) for frame in frames] == [0, 40, 80, 120, 160]


def test_a_folder_in_natural_order_without_other_files(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        _write_picture(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    source = open_source(tmp_path)
    assert (source.fps, source.num_frames) == (DEFAULT_FPS, 3)
    assert [int(frame[0, 0, 0]) for frame in source] == [1, 2, 10]


@pytest.mark.parametrize("content", [b"", b"no video at all", None], ids=["empty", "text", "cut"])
def test_videos_that_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(_write_video(tmp_path / "whole.mp4").read_bytes()[:300] if content is None else content)
    with pytest.raises(InvalidInputError, match=r"video (is empty|cannot be opened).*remedy"):
        open_source(path)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="source not found"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(InvalidInputError, match="folder has no pictures"):
        open_source(tmp_path)


def test_a_video_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(_write_video(tmp_path / "clip.mp4"))
    while source._capture.read()[0]:  # type: ignore[attr-defined]
        pass
    with pytest.raises(InvalidInputError, match="no frame that can be decoded"):
        list(source)


def test_pictures_of_several_sizes_and_damaged_ones(tmp_path: Path) -> None:
    _write_picture(tmp_path / "0.png", 1)
    _write_picture(tmp_path / "1.png", 1, (20, 31))
    with pytest.raises(InvalidInputError, match=r"another size.*30x20.*31x20 in .*1\.png"):
        list(open_source(tmp_path))
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="empty"):
        list(open_source(tmp_path))
