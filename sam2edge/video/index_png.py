"""Masks of several objects as one picture of indices, coloured by a palette: the convention of the DAVIS data set."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_INDEX = 255


def index_picture(object_ids: Sequence[int], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """masks (N, H, W) bool -> (H, W) uint8: 0 outside, else the object's id; where objects overlap, the lowest."""
    picture = np.zeros(masks.shape[1:], np.uint8)
    for object_id, mask in sorted(zip(object_ids, masks, strict=True), key=lambda pair: -pair[0]):
        picture[mask] = object_id
    return picture


def encode_index_png(picture: NDArray[np.uint8]) -> bytes:
    """The PNG file of (H, W) uint8 indices with the DAVIS palette. OpenCV writes none with a palette."""
    height, width = picture.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = picture
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", davis_palette().tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 4)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))


def davis_palette() -> NDArray[np.uint8]:
    """(256, 3) RGB: the bits of an index dealt out to red, green and blue, from their highest bit down (PASCAL VOC)."""
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> channel) & 1) << (7 - bit)).astype(np.uint8)
        index >>= 3
    return palette


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
