"""Small files that claim, or make a decoder take, gigabytes: refused by their first bytes, with nothing decoded."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.imaging import photo
from sam2edge.imaging.image_header import RefusedImage, first_picture, read_header
from sam2edge.imaging.photo import decode_photo, read_photo

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def _tiff(width: int = 90, height: int = 60, samples: int = 3, bits: int = 8, order: str = "<", **tags: int) -> bytes:
    """The header and directory of a TIFF, with no pixels; `tags` are t<number>=value."""
    entries = {256: width, 257: height, 258: bits, 262: 2, 277: samples} | {int(k[1:]): v for k, v in tags.items()}
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in sorted(entries.items()):
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + directory + bytes(4)


def _webp_lossless(width: int, height: int) -> bytes:
    chunk = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(13)
    return b"RIFF" + struct.pack("<I", 12 + len(chunk)) + b"WEBPVP8L" + struct.pack("<I", len(chunk)) + chunk


def _webp_canvas(width: int, height: int, flags: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + sides


def _gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"\x2c" + bytes(20)


def _avif(width: int, height: int) -> bytes:
    encoded = cv2.imencode(".avif", PICTURE)[1].tobytes()
    at = encoded.index(b"ispe") + 8
    return encoded[:at] + struct.pack(">II", width, height) + encoded[at + 8 :]


@pytest.mark.parametrize(
    "data",
    [
        _webp_lossless(16383, 16383),
        _webp_canvas(2**24, 2**24, 0) + _webp_lossless(9, 9)[12:],
        _webp_canvas(2**14, 2**14, 2),
        _tiff(40000, 40000),
        _tiff(40000, 40000, order=">"),
        _gif(60000, 60000),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 30000, -30000) + bytes(20),
        b"P6 # a remark\n 99999\n 99999 255\n",
        b"PF\n99999 99999\n-1.0\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n",
        pytest.param(
            b"AVIF",
            marks=pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="this OpenCV has no AVIF"),
        ),
    ],
)
def test_too_large_in_every_format(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _avif(40000, 40000) if data == b"AVIF" else data
    monkeypatch.setattr(cv2, "imdecode", _not_to_be_called)
    with pytest.raises(InvalidInputError, match="too large; expected at most"):
        decode_photo(data, Path("crafted"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_tiff(t322=65536, t323=65536), "tiles of 4294967296 pixels"),
        (_tiff(t284=2), "planar"),
        (_tiff(t262=8), "colour kind 8"),
        (_tiff(samples=60000), "60000 values"),
        (_tiff(bits=4096), "4096 bits"),
        (_tiff()[:30], "without a size|ends too early"),
        (_tiff(0, 60), "0 pixels"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "not known"),
        (b"P7\nWIDTH 9\n", "not known"),
        (b"RIFF\0\0\0\0WEBPVP8X", "ends too early"),
        (b"GIF89a", "ends too early"),
        (b"\xff\xd8\xff\xd9", "without a frame"),
        (b"text", "not known"),
    ],
)
def test_what_no_camera_writes(data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", _not_to_be_called)
    with pytest.raises(InvalidInputError, match=f"({reason}).*remedy"):
        decode_photo(data, Path("crafted"))


def test_the_limit_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "available_memory_bytes", lambda: 90 * 60 * 72 - 1)
    as_bytes = cv2.imencode(".tiff", PICTURE)[1].tobytes()
    assert decode_photo(as_bytes, Path("a.tiff")).shape == PICTURE.shape
    as_floats = cv2.imencode(".tiff", PICTURE / np.float32(255))[1].tobytes()
    with pytest.raises(InvalidInputError, match="at most 5399, for the memory free now; got 90x60"):
        decode_photo(as_floats, Path("a.tiff"))


@pytest.mark.skipif(not cv2.haveImageWriter("a.gif"), reason="this OpenCV writes no GIF")
def test_of_an_animation_the_first_picture_alone_is_decoded() -> None:
    one = cv2.imencode(".gif", PICTURE)[1].tobytes()
    start = 13 + (3 * 2 ** ((one[10] & 7) + 1) if one[10] & 0x80 else 0)
    many = one[:-1] + one[start:-1] * 5000 + b";"
    assert first_picture(many) == one
    np.testing.assert_array_equal(decode_photo(many, Path("a.gif")), decode_photo(one, Path("a.gif")))


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".pfm", ".hdr", ".gif", ".avif"]
)
def test_the_size_is_read_as_it_is(suffix: str) -> None:
    if not cv2.haveImageWriter(f"a{suffix}"):
        pytest.skip(f"this OpenCV writes no {suffix}")
    picture = PICTURE[..., 0] if suffix == ".pgm" else PICTURE
    picture = picture / np.float32(255) if suffix in (".pfm", ".hdr") else picture
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert read_header(data).size_hw == (60, 90)
    for length in range(0, min(len(data), 300)):
        with contextlib.suppress(RefusedImage):
            read_header(data[:length])


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "fifo"])
def test_what_never_ends_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    with pytest.raises(InvalidInputError, match="pipe or a device"):
        read_photo(path)


def _not_to_be_called(*_: object) -> NoReturn:
    raise AssertionError("the decoder was called")
