"""Photos from files, and pictures into files: every odd photo a clear error or the right pixels, no half-written file.

OpenCV decodes. What it leaves open is decided here: a truncated JPEG is an error (older versions fill it with grey),
16-bit and float photos are brought to 8 bits by a fixed rule, and the size is read before memory is taken for it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.image_header import (
    JPEG_END,
    PNG_SIGNATURE,
    ImageHeader,
    RefusedImage,
    first_picture,
    jpeg_markers,
    read_header,
)
from sam2edge.machine.device import available_memory_bytes
from sam2edge.outputs import write_files

MAX_PIXELS = 2**27
"""Largest photo in pixels (134 million: 384 MiB as BGR), so that a crafted header cannot take the memory."""

MAX_FILE_BYTES = 2**30

# Bytes that decoding and what follows take for a pixel, by the bytes of one of its values: the picture, its copy turned
# upright, the result; of float the sorted copy that white is found in as well.
_BYTES_PER_PIXEL = {1: 12, 2: 24, 4: 72, 8: 120}


def read_photo(path: str | os.PathLike[str]) -> np.ndarray:
    """The photo in a file, (H, W, 3) uint8, BGR, turned upright as its EXIF orientation says.

    JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, PNM, PFM or Radiance HDR. Grey photos get three equal channels; alpha is left
    out, as `cv2.imread` does, and the colours beneath it stay; of an animation it is the first picture. 16-bit photos
    go from 0..65535 to 0..255. In float photos 0..1 is black to white; where one goes beyond 1, its 99.5th percentile
    (at least 1) is white; negative values are black, NaN too.

    Raises:
        InvalidInputError: the file is missing, not readable, empty, truncated, not an image, of more than MAX_PIXELS
            pixels or more than fit in the memory available now, or of another depth (8-bit signed, 32-bit whole
            numbers).
    """
    path = Path(path)
    return decode_photo(_read_bytes(path), path)


def decode_photo(data: bytes, path: Path) -> np.ndarray:
    """As `read_photo`, of a file's bytes; `path` is what errors call it."""
    _check_whole(path, data)
    try:
        header = read_header(data)
        _check_size(path, header)
        image = _decode(path, first_picture(data))
    except RefusedImage as error:
        raise InvalidInputError(
            "not an image that is read here, or a damaged one",
            expected="a JPEG, PNG, WebP, TIFF or BMP file",
            got=f"{path} ({len(data)} bytes): {error}",
            remedy="open it in a viewer, save it as JPEG or PNG",
        ) from error
    _check_size(path, ImageHeader(header.format, (image.shape[0], image.shape[1]), image.itemsize))
    return _to_8_bit(path, image)


def write_png(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes (H, W) or (H, W, 3) uint8, the latter BGR, as a PNG; a file that is there is replaced at once.

    Raises Sam2EdgeError if the file cannot be written.
    """
    write_files({Path(path): cv2.imencode(".png", picture)[1].tobytes()}, replace=True)


def _read_bytes(path: Path) -> bytes:
    remedy = "check the path"
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(None, "a pipe or a device, not a file")
            if found.st_size > MAX_FILE_BYTES:
                raise OSError(None, f"{found.st_size} bytes, more than {MAX_FILE_BYTES}")
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        raise InvalidInputError("photo not found", expected="an image file", got=path, remedy=remedy) from None
    except IsADirectoryError:
        raise InvalidInputError("not a photo", expected="an image file", got=f"folder {path}", remedy=remedy) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(
            "photo cannot be read",
            expected="a readable image file",
            got=f"{path}: {reason}",
            remedy="check the path and its permissions",
        ) from error
    if not data:
        raise InvalidInputError("photo is empty", expected="an image file", got=f"0 bytes in {path}", remedy=remedy)
    return data


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # a FIFO that nobody writes to would be waited for


def _check_whole(path: Path, data: bytes) -> None:
    if data.startswith(b"\xff\xd8"):
        whole = JPEG_END in (marker for marker, _ in jpeg_markers(data))
    elif data.startswith(PNG_SIGNATURE):
        whole = _png_is_whole(data)
    else:
        return  # the other decoders notice themselves
    if not whole:
        raise InvalidInputError(
            "photo is truncated",
            expected="a whole image file",
            got=f"{len(data)} bytes without the end mark in {path}",
            remedy="copy or download it again",
        )


def _png_is_whole(data: bytes) -> bool:
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):  # length, name, contents, checksum
        length, name = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if name == b"IEND":
            return position <= len(data)
    return False


def _check_size(path: Path, header: ImageHeader) -> None:
    height, width = header.size_hw
    pixels, available = height * width, available_memory_bytes()
    fitting = MAX_PIXELS if available is None else available // _BYTES_PER_PIXEL[header.value_bytes]
    if pixels > min(MAX_PIXELS, fitting):
        limit = (
            f"at most {MAX_PIXELS} pixels" if fitting >= MAX_PIXELS else f"at most {fitting}, for the memory free now"
        )
        raise InvalidInputError(
            "photo is too large", expected=limit, got=f"{width}x{height} in {path}", remedy="make it smaller first"
        )
    if not pixels:
        raise RefusedImage("a size of 0 pixels")


def _decode(path: Path, data: bytes) -> np.ndarray:
    # COLOR with ANYDEPTH, not UNCHANGED: that one leaves the EXIF orientation out.
    try:
        with _quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except (cv2.error, MemoryError) as error:
        raise InvalidInputError(
            "photo cannot be decoded",
            expected=f"an image of at most {MAX_PIXELS} pixels",
            got=f"{path}: {getattr(error, 'err', None) or 'out of memory'}",
            remedy="make it smaller, or save it as JPEG or PNG",
        ) from error
    if image is None:
        raise RefusedImage("damaged")
    return image


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Without OpenCV's own log lines on standard error: the error raised says it."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _to_8_bit(path: Path, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.dtype in (np.float32, np.float64):
        image = image.astype(np.float32)
        np.nan_to_num(image, copy=False, nan=0.0, posinf=np.finfo(np.float32).max, neginf=0.0)
        # Not the maximum: one lamp in a high-dynamic-range photo would leave the rest black.
        white = max(1.0, float(np.percentile(image, 99.5))) if image.max() > 1 else 1.0
        return (np.clip(image / white, 0, 1) * 255).round().astype(np.uint8)
    raise InvalidInputError(
        "photo of a depth that has no fixed meaning",
        expected="8 bits, 16 bits or float",
        got=f"{image.dtype} in {path}",
        remedy="save it as an 8-bit JPEG or PNG",
    )
