"""USB and other cameras of Linux: `0`, `/dev/video0`, `/dev/video0?width=1280&height=720&fps=30&format=MJPG`."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from sam2edge.errors import InvalidInputError
from sam2edge.video.sources.address import read_options
from sam2edge.video.sources.capture import LiveCapture


def open_camera(source: str) -> LiveCapture:
    """The camera's frames. It takes the nearest size and rate that it has; `format` is a FOURCC, such as MJPG or YUYV.

    Raises InvalidInputError for a device that is not there, not allowed or in use, and for options that cannot be used.
    """
    name, options = read_options(source, {"width": int, "height": int, "fps": float, "format": str})
    fourcc = str(options.pop("format", ""))
    if fourcc and len(fourcc) != 4:
        raise InvalidInputError("format cannot be used", expected="four letters, such as MJPG", got=repr(fourcc))
    device = Path(f"/dev/video{name}" if name.isdecimal() else name)
    capture = cv2.VideoCapture(int(name) if name.isdecimal() else name, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise _unusable_camera(device)
    if fourcc:  # before the size: sizes and rates differ from format to format
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
    for option, prop in (
        ("width", cv2.CAP_PROP_FRAME_WIDTH),
        ("height", cv2.CAP_PROP_FRAME_HEIGHT),
        ("fps", cv2.CAP_PROP_FPS),
    ):
        if option in options:
            capture.set(prop, float(str(options[option])))
    return LiveCapture(capture, source, has_clock=True)


def _unusable_camera(device: Path) -> InvalidInputError:
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
