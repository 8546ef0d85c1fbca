"""Frames that come on their own time: cameras, network streams, GStreamer pipelines, files played at their rate."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.sources import FrameSource, captured, rate_of

TIMEOUT_SECONDS = 10.0
"""How long a stream may take to open, and to give a frame."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_live(source: str) -> bool:
    """Whether `source` names a camera ("0", "/dev/video0"), a URL, or a GStreamer pipeline ("... ! appsink").

    A file or folder of that name is taken for what it is.
    """
    if source.startswith("/dev/"):
        return True
    return not Path(source).exists() and (source.isdecimal() or "!" in source or _URL.match(source) is not None)


def open_live(source: str) -> FrameSource:
    """The frames of a live source, from now on. A URL that turns out to be a file is played at its rate.

    Raises InvalidInputError where it cannot be opened; that takes TIMEOUT_SECONDS at most.
    """
    live = LiveCapture(source)
    return live if live.num_frames is None else Paced(live)


class LiveCapture:
    """A camera, stream or pipeline, opened by OpenCV. Its end is an error, but for files behind a URL."""

    def __init__(self, source: str) -> None:
        self._shown = without_password(source)
        self._capture = _open(source)
        if not self._capture.isOpened():
            raise _cannot_open(source, self._shown)
        self.fps = rate_of(self._capture, highest=240)
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if _URL.match(source) else 0
        self.num_frames: int | None = int(announced) if 0 < announced < 2**31 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        empty = True
        for frame in captured(self._capture, self._shown):
            empty = False
            yield frame
        if empty or self.num_frames is None:
            raise Sam2EdgeError(
                "source gave no frame" if empty else "source stopped giving frames",
                got=f"the end of {self._shown}",
                remedy="check the camera or the connection",
            )

    def close(self) -> None:
        """Gives the camera or the connection back."""
        self._capture.release()


class Paced:
    """A source whose frames come no sooner than its rate says, counted from when the first was asked for."""

    def __init__(self, source: FrameSource) -> None:
        self.fps = source.fps
        self.num_frames = source.num_frames
        self._source = source

    def __iter__(self) -> Iterator[np.ndarray]:
        started = time.monotonic()
        for number, frame in enumerate(self._source):
            time.sleep(max(0.0, started + number / self.fps - time.monotonic()))
            yield frame

    def close(self) -> None:
        self._source.close()


def without_password(source: str) -> str:
    """`source` as it may stand in messages and reports: the user and password of a URL are left out."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", source)


def _open(source: str) -> cv2.VideoCapture:
    if source.isdecimal():
        return cv2.VideoCapture(int(source), cv2.CAP_V4L2)
    if source.startswith("/dev/"):
        return cv2.VideoCapture(source, cv2.CAP_V4L2)
    library = cv2.CAP_FFMPEG if _URL.match(source) else cv2.CAP_GSTREAMER
    milliseconds = round(TIMEOUT_SECONDS * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    return cv2.VideoCapture(source, library, limits)


def _cannot_open(source: str, shown: str) -> InvalidInputError:
    if _URL.match(source):
        return InvalidInputError(
            "stream cannot be opened",
            expected=f"a video stream that answers within {TIMEOUT_SECONDS:g} s",
            got=shown,
            remedy="check the address, the password and the connection",
        )
    if not source.isdecimal() and not source.startswith("/dev/"):
        has_gstreamer = bool(re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()))
        return InvalidInputError(
            "GStreamer pipeline cannot be opened",
            expected="a pipeline that ends in appsink, and an OpenCV with GStreamer",
            got=shown if has_gstreamer else "an OpenCV without GStreamer, as those from the package index are",
            remedy="try it with gst-launch-1.0" if has_gstreamer else "use JetPack's own OpenCV",
        )
    device = Path(f"/dev/video{source}" if source.isdecimal() else source)
    if not device.exists():
        found = f"no {device}"
    elif not os.access(device, os.R_OK | os.W_OK):
        found = f"no permission for {device}; its group is often 'video'"
    else:
        found = f"{device}, which does not open: in use, or no camera"
    return InvalidInputError(
        "camera cannot be opened",
        expected="a camera's number or device",
        got=found,
        remedy="v4l2-ctl --list-devices names them",
    )
