"""Video files and streams read by PyAV, where it is installed (extra `[video]`): frames carry the times in the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from sam2edge.video.frame import MAX_FRAME_PIXELS, Frame, check_frame_size, usable_fps
from sam2edge.video.sources.address import without_password
from sam2edge.video.sources.capture import source_ended
from sam2edge.video.sources.files import unreadable_video, video_without_frames
from sam2edge.video.sources.network import TIMEOUT_SECONDS, unusable_stream

_MOST_DRIFT_NS = 2 * 10**9  # between a stream's own times and ours, before its times are tied to ours anew


class AvFile:
    """A video file. Damaged packets are left out, as players do; frames are turned upright as the file asks."""

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path), metadata_errors="replace")
            self._stream = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError) as error:
            raise unreadable_video(path) from error
        self._stream.thread_type = "AUTO"
        self.fps, self.num_frames = _rate_and_length(self._container, self._stream, highest=1000)

    def __iter__(self) -> Iterator[Frame]:
        index = -1
        for index, (frame, pixels) in enumerate(_decode(self._container, self._stream, str(self._path))):
            yield Frame(index, pixels, round((frame.time or 0.0) * 1e9) if frame.pts else round(index * 1e9 / self.fps))
        if index < 0:
            raise video_without_frames(self._path)

    def close(self) -> None:
        self._container.close()


class AvStream:
    """A network stream; a frame's time is when it came, evened out by the stream's own times.

    The end is an error, but for a URL that turns out to be a file.
    """

    live = True

    def __init__(self, address: str) -> None:
        self._shown = without_password(address)
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer"}
        try:
            timeouts = (TIMEOUT_SECONDS, TIMEOUT_SECONDS)
            self._container = av.open(address, options=options, timeout=timeouts, metadata_errors="replace")
            self._stream = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError, ValueError) as error:
            raise unusable_stream(address) from error
        self._stream.thread_type = "SLICE"  # frame threads hold back a frame each
        self.fps, self.num_frames = _rate_and_length(self._container, self._stream, highest=240)

    def __iter__(self) -> Iterator[Frame]:
        index = -1
        offset_ns: int | None = None
        for index, (frame, pixels) in enumerate(_decode(self._container, self._stream, self._shown)):
            now = time.time_ns()
            own = None if frame.time is None else round(frame.time * 1e9)
            if own is not None and (offset_ns is None or not 0 <= now - own - offset_ns < _MOST_DRIFT_NS):
                offset_ns = now - own
            yield Frame(index, pixels, now if own is None or offset_ns is None else own + offset_ns)
        if index < 0 or self.num_frames is None:
            raise source_ended(self._shown, index + 1)

    def close(self) -> None:
        self._container.close()


def _rate_and_length(container: Any, stream: Any, highest: float) -> tuple[float, int | None]:
    fps = usable_fps(float(stream.average_rate or 0), highest)
    seconds = (container.duration or 0) / av.time_base
    announced = stream.frames or round(seconds * fps)
    return fps, announced if 0 < announced < 2**31 else None


def _decode(container: Any, stream: Any, shown: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Frames of the first one's size: those of another are scaled, as OpenCV does."""
    check_frame_size(stream.codec_context.width or 0, stream.codec_context.height or 0, shown)
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # of later frames
    size: tuple[int, int] | None = None
    packets = container.demux(stream)
    while True:
        try:
            frames = next(packets).decode()
        except StopIteration:
            return
        except av.error.FFmpegError:  # a damaged packet; after an error of the source itself there is no next one
            continue
        for frame in frames:
            size = size or (frame.width, frame.height)
            pixels = frame.to_ndarray(format="bgr24", width=size[0], height=size[1])
            turns = round(frame.rotation / 90) % 4
            yield frame, np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
