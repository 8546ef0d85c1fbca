"""A Matroska file of MPEG-4 video, as OpenCV writes it, into an MP4: packets are copied, nothing is encoded again.

A Matroska file whose writer was killed plays up to there; an MP4 without its end does not play at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

# The boxes from `moov` to the decoder's configuration (ISO/IEC 14496-12 and 14496-14), each with the bytes of its own
# that come before its first child.
_TO_CONFIG = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8, b"mp4v": 78, b"esds": 0}
_ES, _DECODER, _SPECIFIC = 3, 4, 5  # descriptors inside `esds`, ISO/IEC 14496-1


def remux(source: Path, target: Path, fps: float) -> int:
    """Copies the packets of `source` into the MP4 `target`; returns how many frames that are, 0 where none is there.

    Raises OSError where `target` cannot be written.
    """
    reader = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    size_wh = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    # An interval as long as can be: each packet says itself whether it can be decoded without those before it.
    options = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_KEY_INTERVAL, 2**31 - 1]
    writer = cv2.VideoWriter(str(target), cv2.CAP_FFMPEG, fourcc, fps, size_wh, options)
    count = 0
    config = b""
    while reader.isOpened() and writer.isOpened():
        there, packet = reader.read()
        if not there:
            break
        if not count:
            config = _decoder_config(reader)
        writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, reader.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
        writer.write(packet)
        count += 1
    reader.release()
    writer.release()
    if count:
        _add_decoder_config(target, config)
    return count


def _decoder_config(reader: cv2.VideoCapture) -> bytes:
    """What the decoder has to know before the first packet: MPEG-4's headers, the picture's size among them."""
    there, config = reader.retrieve(flag=int(reader.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
    return np.asarray(config, np.uint8).tobytes() if there else b""


def _add_decoder_config(path: Path, config: bytes) -> None:
    """OpenCV's writer of finished packets leaves the configuration out. `moov` is the last box, so it may grow."""
    with path.open("r+b") as file:
        at, end = 0, path.stat().st_size
        while at + 8 <= end:
            file.seek(at)
            size, name, long_size = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            size = long_size if size == 1 else size
            if name == b"moov" and at + size == end:
                file.seek(at)
                moov = _with_config(file.read(), list(_TO_CONFIG.items()), config)
                file.seek(at)
                file.write(moov)
                return
            at += max(size, 8)
    raise OSError(None, "the video has no index at its end; is the disk full?")


def _with_config(box: bytes, path: list[tuple[bytes, int]], config: bytes) -> bytes:
    """`box`, the first of `path`, with the configuration added to the last of it."""
    if len(path) == 1:
        grown = _with_descriptor(box, config)
    else:
        start = 8 + path[0][1]
        at, end = next((at, end) for at, end, name in _children(box, start) if name == path[1][0])
        grown = box[:at] + _with_config(box[at:end], path[1:], config) + box[end:]
    return struct.pack(">I", len(grown)) + grown[4:]


def _children(box: bytes, start: int) -> Iterator[tuple[int, int, bytes]]:
    while start + 8 <= len(box):
        size, name = struct.unpack_from(">I4s", box, start)
        yield start, start + size, name
        start += max(size, 8)


def _with_descriptor(esds: bytes, config: bytes) -> bytes:
    """A descriptor is its tag, length and content: of the stream 3 bytes and the decoder's, of the decoder 13 bytes."""
    stream, decoder = 12, 20
    if esds[stream] != _ES or esds[decoder] != _DECODER:
        raise OSError(None, "the video's index is of another kind than expected")
    specific = bytes([_SPECIFIC]) + _length(len(config)) + config
    after = decoder + 5 + 13
    stream_length = len(esds) - stream - 5 + len(specific)
    return (
        esds[: stream + 1]
        + _length(stream_length)
        + esds[stream + 5 : decoder + 1]
        + _length(13 + len(specific))
        + esds[decoder + 5 : after]
        + specific
        + esds[after:]
    )


def _length(count: int) -> bytes:
    """Seven bits a byte, in four bytes, of which all but the last have the highest bit set."""
    return bytes([0x80 | (count >> 21) & 0x7F, 0x80 | (count >> 14) & 0x7F, 0x80 | (count >> 7) & 0x7F, count & 0x7F])
