"""The picture with the masks drawn, sent to an RTSP server (MediaMTX and others) as H.264, by PyAV."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError, Sam2EdgeError
from sam2edge.video.frame import Frame
from sam2edge.video.result_sink import draw_result
from sam2edge.video.sources.address import without_password

_CLOCK = 90_000  # ticks a second, as RTP has for video
_TIMEOUT_SECONDS = 10.0


class RtspPush:
    """Sends each frame as it comes; what is sent carries the frames' own times."""

    def __init__(self, address: str, fps: float) -> None:
        self._shown = without_password(address)
        self._fps = fps
        self._first_ns: int | None = None
        self._last_ticks = -1
        self._stream: Any = None
        try:
            options = {"rtsp_transport": "tcp"}
            self._container: Any = av.open(address, "w", format="rtsp", options=options, timeout=_TIMEOUT_SECONDS)
        except (av.error.FFmpegError, ValueError) as error:
            raise InvalidInputError(
                "stream cannot be sent",
                expected="an RTSP server",
                got=self._explain(error),
                remedy="check it",
            ) from error

    def write(self, frame: Frame, result: TrackResult | None) -> None:
        pixels = draw_result(frame, result)
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2  # H.264 with 4:2:0 knows even sizes alone
        if self._first_ns is None:
            self._first_ns = frame.time_ns
        ticks = max(self._last_ticks + 1, (frame.time_ns - self._first_ns) * _CLOCK // 10**9)
        self._last_ticks = ticks
        try:
            if self._stream is None:
                self._stream = self._container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1000))
                self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
                self._stream.codec_context.time_base = Fraction(1, _CLOCK)
                self._stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "30"}
            picture = av.VideoFrame.from_ndarray(pixels[:height, :width].copy(), format="bgr24")
            picture.pts, picture.time_base = ticks, Fraction(1, _CLOCK)
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise Sam2EdgeError(
                "stream was cut off",
                got=self._explain(error),
                remedy="check the server and the connection",
            ) from error

    def close(self) -> Path | None:
        with contextlib.suppress(av.error.FFmpegError, ValueError):  # the server may have gone
            for packet in self._stream.encode() if self._stream is not None else ():
                self._container.mux(packet)
        self.discard()
        return None

    def discard(self) -> None:
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            self._container.close()

    def _explain(self, error: Exception) -> str:
        """What FFmpeg says, without its address, which may hold a password."""
        return f"{getattr(error, 'strerror', None) or type(error).__name__}: {self._shown}"
