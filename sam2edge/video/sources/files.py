"""Frames from a video file or a folder of pictures, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import read_photo
from sam2edge.video.frame import DEFAULT_FPS, Frame, require_size, usable_fps
from sam2edge.video.sources.capture import read_frames

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names, 2 before 10; hidden files are left out."""
    names = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    return sorted(names, key=_natural_order)


class PictureFolder:
    """The pictures of a folder in the order of their names (2 before 10); all must be of one size."""

    live = False

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

    def __iter__(self) -> Iterator[Frame]:
        size: tuple[int, ...] | None = None
        for index, path in enumerate(self._paths):
            pixels = read_photo(path)
            size = size or pixels.shape
            require_size(pixels, size, str(path))
            yield Frame(index, pixels, round(index * 1e9 / self.fps))

    def close(self) -> None:
        """Nothing is held."""


class VideoFile:
    """A video file, read by OpenCV. Every frame it holds comes once, whatever the times between them."""

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise unreadable_video(path)
        self.fps = usable_fps(float(self._capture.get(cv2.CAP_PROP_FPS)), highest=1000)
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(announced) if 0 < announced < 2**31 else None

    def __iter__(self) -> Iterator[Frame]:
        is_empty = True
        for frame in read_frames(self._capture, str(self._path), self._time_ns):
            is_empty = False
            yield frame
        if is_empty:
            raise video_without_frames(self._path)

    def _time_ns(self) -> int:
        return round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)

    def close(self) -> None:
        self._capture.release()


def unreadable_video(path: Path) -> InvalidInputError:
    """The error for a file that no decoder opens."""
    size = path.stat().st_size
    return InvalidInputError(
        "video is empty" if size == 0 else "video cannot be opened: damaged, or of a format unknown here",
        expected="a video such as MP4 with H.264",
        got=f"{size} bytes in {path}",
        remedy="play it to check, or convert it, as with ffmpeg -i IN OUT.mp4",
    )


def video_without_frames(path: Path) -> InvalidInputError:
    """The error for a file that opens and gives nothing."""
    return InvalidInputError(
        "video has no frame that can be decoded",
        expected="at least one frame",
        got=f"none in {path}",
        remedy="play it to check, or convert it, as with ffmpeg -i IN OUT.mp4",
    )


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]
