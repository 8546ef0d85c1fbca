"""Small recordings and sources that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from sam2edge.video.frame import Frame
from sam2edge.video.sinks import VideoSink


def write_video(path: Path, frames: int = 5, fps: float = 12.0) -> Path:
    """Frames of 64x48 whose grey is 40 times their number."""
    sink = VideoSink(path, fps)
    for value in range(frames):
        sink.write(np.full((48, 64, 3), 40 * value % 256, np.uint8))
    sink.close()
    return path


def write_picture(path: Path, value: int, size_hw: tuple[int, int] = (20, 30)) -> None:
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), value, np.uint8))


class CountingSource:
    """Frames 0, 1, 2, ... whose pixels are their number; `before` is called with each number ahead of it."""

    live = False

    def __init__(self, count: int, before: Callable[[int], object] = lambda number: None, fps: float = 30.0) -> None:
        self.count, self.before, self.fps, self.closed = count, before, fps, False
        self.num_frames: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.count):
            self.before(number)
            yield Frame(number, np.full((4, 4, 3), number % 256, np.uint8), number)

    def close(self) -> None:
        self.closed = True


def numbers(frames: Iterable[Frame]) -> list[int]:
    return [int(frame.pixels[0, 0, 0]) for frame in frames]
