"""H.264 by PyAV: into Matroska while it runs, then with the source's sound into an MP4 that browsers play."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FAILURES = (av.error.FFmpegError, ValueError)
"""What PyAV raises, also where its FFmpeg has no H.264 encoder."""

_SOUND_IN_MP4 = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")


class H264Writer:
    """Frames (H, W, 3) uint8, BGR, of one even size, into a Matroska file that plays up to where it was cut off."""

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        """Raises one of FAILURES where it cannot be written."""
        self._container: Any = av.open(
            str(path), "w", format="matroska", options={"cluster_time_limit": "500", "flush_packets": "1"}
        )
        rate = Fraction(fps).limit_denominator(65535)
        self._stream: Any = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = size_wh
        self._stream.pix_fmt = "yuv420p"
        # Without B-frames a packet has its time as soon as it is encoded, and Matroska keeps all of it.
        self._stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        self._stream.codec_context.open()  # here, so that an encoder that is missing is told before a frame is lost
        self._time_base = 1 / rate
        self._count = 0
        self._is_open = True

    def write(self, frame: np.ndarray) -> None:
        """Frames after one that could not be written (a full disk) are left out; who counts them tells."""
        if not self._is_open:
            return
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        picture.pts, picture.time_base = self._count, self._time_base
        self._count += 1
        try:
            self._container.mux(self._stream.encode(picture))
        except FAILURES:
            self.release()

    def release(self) -> None:
        """Finishes the file, as far as that is possible; twice does no harm."""
        if not self._is_open:
            return
        self._is_open = False
        with contextlib.suppress(*FAILURES):
            self._container.mux(self._stream.encode())
        with contextlib.suppress(*FAILURES):
            self._container.close()


def remux_h264(source: Path, target: Path, sound_from: Path | None = None) -> int:
    """Copies the packets of `source` into the MP4 `target`, and the sound of `sound_from` as far as the pictures go.

    Returns the number of frames. Sound that an MP4 cannot hold is left out. Raises OSError where `source` has no frame
    or `target` cannot be written.
    """
    try:
        return _copy_packets(source, target, sound_from)
    except FAILURES as error:
        raise OSError(None, getattr(error, "strerror", None) or str(error)) from error


def _copy_packets(source: Path, target: Path, sound_from: Path | None) -> int:
    count = 0
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"movflags": "faststart"}) as writer:
        video = writer.add_stream_from_template(reader.streams.video[0])
        sound = _Sound(sound_from, writer)
        packets: Any = reader.demux(video=0)
        for packet in packets:
            if packet.pts is None:  # the empty packet at the end
                continue
            if packet.dts is None:  # FFmpeg does not always derive it; without B-frames it is the same
                packet.dts = packet.pts
            sound.copy_until(float(packet.dts * packet.time_base))
            packet.stream = video
            writer.mux(packet)
            count += 1
        sound.close()
    return count


class _Sound:
    """The sound of a video, copied packet by packet; nothing where there is none."""

    def __init__(self, path: Path | None, writer: Any) -> None:
        self._writer = writer
        self._next: Any = None
        self._reader: Any = None
        if path is None:
            return
        try:
            self._reader = av.open(str(path), metadata_errors="replace")
            streams = [s for s in self._reader.streams.audio if s.codec_context.name in _SOUND_IN_MP4]
            if not streams:
                return
            self._stream = writer.add_stream_from_template(streams[0])
            self._packets = (packet for packet in self._reader.demux(streams[0]) if packet.dts is not None)
            self._next = next(self._packets, None)
        except FAILURES:
            self._next = None

    def copy_until(self, seconds: float) -> None:
        while self._next is not None and float(self._next.dts * self._next.time_base) <= seconds:
            self._next.stream = self._stream
            self._writer.mux(self._next)
            try:
                self._next = next(self._packets, None)
            except FAILURES:
                self._next = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
