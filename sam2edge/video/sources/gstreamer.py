"""GStreamer pipelines (`gst://videotestsrc ! video/x-raw,width=640`), through `gi` or an OpenCV built with GStreamer.

The end of the pipeline, `appsink`, is added where it is missing. NV12 and I420, which cameras and decoders give, are
taken as they are.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import Frame, FrameSource, require_size, usable_fps
from sam2edge.video.sources.address import without_password
from sam2edge.video.sources.capture import LiveCapture, source_ended

TIMEOUT_SECONDS = 10.0
"""How long a pipeline may take to start, and to give a frame."""

_PLANES = {
    "NV12": (cv2.COLOR_YUV2BGR_NV12, 2),
    "NV21": (cv2.COLOR_YUV2BGR_NV21, 2),
    "I420": (cv2.COLOR_YUV2BGR_I420, 3),
}
_PACKED = {  # what turns it into BGR, and its bytes a pixel
    "BGR": (None, 3),
    "RGB": (cv2.COLOR_RGB2BGR, 3),
    "BGRx": (cv2.COLOR_BGRA2BGR, 4),
    "BGRA": (cv2.COLOR_BGRA2BGR, 4),
    "RGBx": (cv2.COLOR_RGBA2BGR, 4),
    "RGBA": (cv2.COLOR_RGBA2BGR, 4),
    "GRAY8": (cv2.COLOR_GRAY2BGR, 1),
    "YUY2": (cv2.COLOR_YUV2BGR_YUY2, 2),
    "UYVY": (cv2.COLOR_YUV2BGR_UYVY, 2),
}
_APPSINK = re.compile(r"!\s*appsink\b[^!]*$")


def open_pipeline(description: str) -> FrameSource:
    """The pipeline's frames. Raises InvalidInputError where it cannot be made or started, or nothing here can."""
    try:
        gst, video = _load_gst()
    except (ImportError, ValueError):
        return _open_with_opencv(description)
    return GstPipeline(gst, video, description)


class GstPipeline:
    """A running pipeline. A live one drops frames that are not fetched; another plays at its own rate."""

    live = True
    num_frames: int | None = None

    def __init__(self, gst: Any, video: Any, description: str) -> None:
        self._gst, self._video, self._shown = gst, video, without_password(description)
        body = _APPSINK.sub("", description.strip()).rstrip("! ")
        formats = ",".join([*_PLANES, *_PACKED])
        caps = f"video/x-raw,format=(string){{{formats}}}"
        try:
            self._pipeline = gst.parse_launch(f'{body} ! appsink name=sam2edge max-buffers=2 caps="{caps}"')
        except Exception as error:  # GLib.Error, whose class is there with gi alone
            raise _unusable_pipeline(self._shown, str(getattr(error, "message", error))) from error
        self._sink = self._pipeline.get_by_name("sam2edge")
        self._first: Any = None
        reason = self._start()
        if reason is not None:
            self.close()
            raise _unusable_pipeline(self._shown, reason)
        first: Any = self._first
        has_rate, frames, seconds = first.get_caps().get_structure(0).get_fraction("framerate")
        self.fps = usable_fps(frames / seconds if has_rate and seconds else 0.0, highest=240)

    def __iter__(self) -> Iterator[Frame]:
        index = -1
        size: tuple[int, ...] | None = None
        sample, self._first = self._first, None
        while sample is not None:
            time_ns = self._time_ns(sample.get_buffer().pts)
            pixels = self._read_pixels(sample)
            index += 1
            size = size or pixels.shape
            require_size(pixels, size, self._shown)
            yield Frame(index, pixels, time_ns)
            sample = self._pull()
        reason = self._error()
        if reason is not None:
            raise Sam2EdgeError(
                "GStreamer pipeline failed", got=f"{reason} in {self._shown}", remedy="check the camera"
            )
        raise source_ended(self._shown, index + 1)

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)

    def _start(self) -> str | None:
        """Plays, and waits for the first sample; what went wrong, if something did."""
        gst, error = self._gst, None
        self._pipeline.set_state(gst.State.PAUSED)
        change = gst.StateChangeReturn.ASYNC
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while change == gst.StateChangeReturn.ASYNC and error is None and time.monotonic() < deadline:
            change, _, _ = self._pipeline.get_state(10**8)
            error = self._error()
        if change == gst.StateChangeReturn.NO_PREROLL:
            self._sink.set_property("sync", False)  # no waiting: a camera's frame is due when it comes
            self._sink.set_property("drop", True)
        if error is None and change != gst.StateChangeReturn.ASYNC:
            self._pipeline.set_state(gst.State.PLAYING)
            self._first = self._pull()
        if self._first is not None:
            return None
        return error or self._error() or f"no frame within {TIMEOUT_SECONDS:g} s"

    def _pull(self) -> Any:
        """The next sample; None at the end, after an error, and where none comes in time."""
        return self._sink.emit("try-pull-sample", round(TIMEOUT_SECONDS * 1e9))

    def _time_ns(self, pts: int) -> int:
        """The buffer's time on the pipeline's clock as time since 1970."""
        now, clock = time.time_ns(), self._pipeline.get_clock()
        if clock is None or pts == self._gst.CLOCK_TIME_NONE:
            return now
        return now - (clock.get_time() - self._pipeline.get_base_time() - pts)

    def _read_pixels(self, sample: Any) -> np.ndarray:
        caps, buffer = sample.get_caps(), sample.get_buffer()
        info = self._video.VideoInfo.new_from_caps(caps)
        meta = self._video.buffer_get_video_meta(buffer)
        strides, offsets = (meta.stride, meta.offset) if meta is not None else (info.stride, info.offset)
        name = caps.get_structure(0).get_value("format")
        there, mapped = buffer.map(self._gst.MapFlags.READ)
        if not there:
            raise Sam2EdgeError(
                "frame cannot be read",
                got=f"memory of a device, from {self._shown}",
                remedy="add nvvidconv or videoconvert",
            )
        try:
            return to_bgr(np.frombuffer(mapped.data, np.uint8), name, (info.height, info.width), strides, offsets)
        finally:
            buffer.unmap(mapped)

    def _error(self) -> str | None:
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        return None if message is None else str(message.parse_error()[0].message)


def to_bgr(data: np.ndarray, name: str, size_hw: tuple[int, int], strides: Any, offsets: Any) -> np.ndarray:
    """A frame of format `name` in GStreamer's memory layout, a stride and an offset in bytes a plane, as BGR."""
    height, width = size_hw

    def plane(index: int, rows: int, row_bytes: int) -> np.ndarray:
        start, stride = offsets[index], strides[index]
        view = np.lib.stride_tricks.as_strided(data[start:], (rows, row_bytes), (stride, 1))
        assert start + stride * (rows - 1) + row_bytes <= data.size
        return view

    if name in _PACKED:
        code, depth = _PACKED[name]
        picture = plane(0, height, width * depth).reshape(height, width, depth)
        return picture.copy() if code is None else cv2.cvtColor(picture, code)
    code, planes = _PLANES[name]
    even_h, even_w = height + height % 2, width + width % 2
    whole = np.empty((even_h * 3 // 2, even_w), np.uint8)  # planes one after another, which OpenCV wants
    whole[:height, :width] = plane(0, height, width)
    whole[height:even_h, :width] = whole[height - 1, :width]
    whole[:even_h, width:] = whole[:even_h, width - 1 : width]
    chroma = whole[even_h:].reshape(-1)
    if planes == 2:
        chroma[:] = plane(1, even_h // 2, even_w).reshape(-1)
    else:
        half = chroma.size // 2
        chroma[:half] = plane(1, even_h // 2, even_w // 2).reshape(-1)
        chroma[half:] = plane(2, even_h // 2, even_w // 2).reshape(-1)
    return cv2.cvtColor(whole, code)[:height, :width]


def _load_gst() -> tuple[Any, Any]:
    gi = importlib.import_module("gi")
    gi.require_version("Gst", "1.0")
    gi.require_version("GstVideo", "1.0")
    gst, video = importlib.import_module("gi.repository.Gst"), importlib.import_module("gi.repository.GstVideo")
    gst.init(None)
    return gst, video


def _open_with_opencv(description: str) -> LiveCapture:
    body = _APPSINK.sub("", description.strip()).rstrip("! ")
    capture = cv2.VideoCapture(f"{body} ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true", cv2.CAP_GSTREAMER)
    shown = without_password(description)
    if capture.isOpened():
        return LiveCapture(capture, shown)
    if re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise _unusable_pipeline(shown, "it does not start")
    raise InvalidInputError(
        "GStreamer pipeline cannot be opened",
        expected="GStreamer for Python, or an OpenCV with GStreamer",
        got="neither",
        remedy="sudo apt install python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 (a virtual environment "
        "needs --system-site-packages)",
    )


def _unusable_pipeline(shown: str, reason: str) -> InvalidInputError:
    return InvalidInputError(
        "GStreamer pipeline cannot be opened",
        expected="a pipeline that gives video frames",
        got=f"{reason.strip()} in {shown}",
        remedy="try it with gst-launch-1.0",
    )
