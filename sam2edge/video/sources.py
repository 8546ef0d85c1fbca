"""Frames from a video file or a folder of pictures, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import read_photo

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")

DEFAULT_FPS = 25.0
"""Of folders, and of videos that do not say."""


class FrameSource(Protocol):
    """Frames (H, W, 3) uint8, BGR, all of one size, in order; iterated once."""

    fps: float
    num_frames: int | None

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def close(self) -> None: ...


def open_source(path: str | Path) -> FrameSource:
    """The frames of a video file, or of a folder's pictures in the order of their names (2 before 10).

    Raises InvalidInputError where there is nothing, or nothing that can be read as frames.
    """
    path = Path(path)
    if path.is_dir():
        return PictureFolder(path)
    if not path.is_file():
        raise InvalidInputError(
            "source not found", expected="a video file or a folder of pictures", got=str(path), remedy="check the path"
        )
    return VideoFile(path)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names, 2 before 10; hidden files are left out."""
    names = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    return sorted(names, key=_natural)


class PictureFolder:
    """The pictures of a folder; all must be of one size."""

    def __init__(self, folder: Path) -> None:
        self.fps = DEFAULT_FPS
        self._paths = list_pictures(folder)
        if not self._paths:
            raise InvalidInputError(
                "folder has no pictures",
                expected=f"files ending in {', '.join(PICTURE_SUFFIXES)}",
                got=str(folder),
                remedy="name the folder that holds the frames",
            )
        self.num_frames: int | None = len(self._paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        size: tuple[int, ...] | None = None
        for path in self._paths:
            picture = read_photo(path)
            size = size or picture.shape
            _check_size(picture, size, str(path))
            yield picture

    def close(self) -> None:
        """Nothing is held."""


class VideoFile:
    """A video file. Every frame it holds comes once, whatever the times between them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            size = path.stat().st_size
            raise InvalidInputError(
                "video is empty" if size == 0 else "video cannot be opened: damaged, or of a format unknown here",
                expected="a video that OpenCV reads, such as MP4 with H.264",
                got=f"{size} bytes in {path}",
                remedy="play it to check, or convert it, as with ffmpeg -i IN OUT.mp4",
            )
        self.fps = rate_of(self._capture, highest=1000)
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(announced) if 0 < announced < 2**31 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        empty = True
        for frame in captured(self._capture, str(self._path)):
            empty = False
            yield frame
        if empty:
            raise InvalidInputError(
                "video has no frame that can be decoded",
                expected="at least one frame",
                got=f"none in {self._path}",
                remedy="play it to check, or convert it, as with ffmpeg -i IN OUT.mp4",
            )

    def close(self) -> None:
        """Gives the decoder back."""
        self._capture.release()


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def captured(capture: cv2.VideoCapture, name: str) -> Iterator[np.ndarray]:
    """The frames that OpenCV gives, all of one size; it does not tell the end from a failure."""
    size: tuple[int, ...] | None = None
    while True:
        there, frame = capture.read()
        if not there:
            return
        size = size or frame.shape
        _check_size(frame, size, name)
        yield frame


def rate_of(capture: cv2.VideoCapture, highest: float) -> float:
    """Frames a second as the source announces them, if that can be true."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if np.isfinite(fps) and 0 < fps <= highest else DEFAULT_FPS


def _check_size(frame: np.ndarray, expected: tuple[int, ...], name: str) -> None:
    """Raises InvalidInputError, naming the source, for a frame of another shape than `expected`."""
    if frame.shape != expected:
        raise InvalidInputError(
            "frame is of another size than the first",
            expected=f"{expected[1]}x{expected[0]}",
            got=f"{frame.shape[1]}x{frame.shape[0]} in {name}",
            remedy="bring all frames to one size",
        )
