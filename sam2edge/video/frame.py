"""A frame and its source, as every reader in `sources/` gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sam2edge.errors import InvalidInputError

DEFAULT_FPS = 25.0
"""Of folders, and of sources that do not say."""

MAX_FRAME_PIXELS = 2**26
"""Largest frame in pixels (twice 8K: 192 MiB as BGR): a stream of small JPEGs that announce more takes no memory."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    `index` counts at the source from 0; numbers are missing where frames were dropped. `pixels` is (H, W, 3) uint8,
    BGR. `time_ns` is when the camera took it, in nanoseconds: since 1970 for live sources and recordings that carry the
    time (UTC), since the start of the video otherwise. It is what the source says, also where that goes back.
    """

    index: int
    pixels: np.ndarray = field(repr=False)
    time_ns: int

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]


class FrameSource(Protocol):
    """Frames of one size, in order; iterated once.

    `fps` is the rate that the source announces. `num_frames` is how many it announces, or None where that is not known
    or has no end. `live`: frames come on their own time and wait for nobody.
    """

    fps: float
    num_frames: int | None
    live: bool

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Gives the device, file or connection back; twice does no harm."""


def usable_fps(fps: float, highest: float) -> float:
    """The rate as the source announces it, if that can be true."""
    return fps if np.isfinite(fps) and 0 < fps <= highest else DEFAULT_FPS


def require_size(pixels: np.ndarray, expected: tuple[int, ...], name: str) -> None:
    """Raises InvalidInputError, naming the source, for a frame of another shape than `expected`."""
    if pixels.shape != expected:
        raise InvalidInputError(
            "frame is of another size than the first",
            expected=f"{expected[1]}x{expected[0]}",
            got=f"{pixels.shape[1]}x{pixels.shape[0]} in {name}",
            remedy="resize all frames to one size",
        )


def check_frame_size(width: float, height: float, name: str) -> None:
    """Raises InvalidInputError, naming the source, where its frames are too large to be decoded here."""
    if width * height > MAX_FRAME_PIXELS:
        raise InvalidInputError(
            "frames are too large",
            expected=f"at most {MAX_FRAME_PIXELS} pixels",
            got=f"{width:.0f}x{height:.0f} in {name}",
            remedy="choose a smaller size at the camera, or make the video smaller, as with ffmpeg -vf scale=1920:-2",
        )
