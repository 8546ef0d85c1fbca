"""What OpenCV reads on its own time: cameras, network streams, GStreamer pipelines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count as count_up

import cv2

from sam2edge.errors import Sam2EdgeError
from sam2edge.video.frame import Frame, check_frame_size, require_size, usable_fps


def read_frames(capture: cv2.VideoCapture, shown: str, time_ns: Callable[[], int]) -> Iterator[Frame]:
    """Frames of an open capture, numbered from 0, until it gives none; `time_ns` is asked after each is read.

    Raises InvalidInputError for frames that are too large, before one is decoded, and for a frame of another size than
    the first; `shown` names the source in it.
    """
    check_frame_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT), shown)
    size: tuple[int, ...] | None = None
    for index in count_up():
        there, pixels = capture.read()
        if not there:
            return
        size = size or pixels.shape
        require_size(pixels, size, shown)
        yield Frame(index, pixels, time_ns())


class LiveCapture:
    """Frames of an open `cv2.VideoCapture`. The end is an error, but for a URL that turns out to be a file.

    Where `has_clock`, the capture's position is the system's monotonic clock at the exposure, as with V4L2; otherwise a
    frame's time is that of its arrival.
    """

    live = True

    def __init__(
        self, capture: cv2.VideoCapture, shown: str, *, may_end: bool = False, has_clock: bool = False
    ) -> None:
        self._capture = capture
        self._shown = shown
        self._has_clock = has_clock
        self.fps = usable_fps(float(capture.get(cv2.CAP_PROP_FPS)), highest=240)
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) if may_end else 0
        self.num_frames: int | None = int(announced) if 0 < announced < 2**31 else None

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        for frame in read_frames(self._capture, self._shown, self._time_ns):
            count += 1
            yield frame
        if count == 0 or self.num_frames is None:
            raise source_ended(self._shown, count)

    def close(self) -> None:
        self._capture.release()

    def _time_ns(self) -> int:
        now = time.time_ns()
        if not self._has_clock:
            return now
        age_ns = time.monotonic_ns() - round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return now - age_ns if 0 <= age_ns < 10**10 else now  # some drivers stamp with another clock, or not at all


def source_ended(shown: str, num_frames: int) -> Sam2EdgeError:
    """The error for a live source that ends."""
    return Sam2EdgeError(
        "source stopped giving frames" if num_frames else "source gave no frame",
        got=f"the end of {shown}",
        remedy="check the camera or the connection",
    )
