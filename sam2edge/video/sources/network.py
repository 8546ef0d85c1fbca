"""Network cameras and files behind a URL (`rtsp://`, `http://` and what else FFmpeg knows), read by OpenCV's FFmpeg."""

from __future__ import annotations

import cv2

from sam2edge.errors import InvalidInputError
from sam2edge.video.sources.address import without_password
from sam2edge.video.sources.capture import LiveCapture

TIMEOUT_SECONDS = 10.0
"""How long a stream may take to open, and to give a frame."""


def open_stream(address: str) -> LiveCapture:
    """The stream's frames. Raises InvalidInputError where it does not open within TIMEOUT_SECONDS."""
    milliseconds = round(TIMEOUT_SECONDS * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise unusable_stream(address)
    return LiveCapture(capture, without_password(address), may_end=True)


def unusable_stream(address: str) -> InvalidInputError:
    """The error for an address that gives no stream."""
    return InvalidInputError(
        "stream cannot be opened",
        expected=f"a video stream that answers within {TIMEOUT_SECONDS:g} s",
        got=without_password(address),
        remedy="check the address, the password and the connection",
    )
