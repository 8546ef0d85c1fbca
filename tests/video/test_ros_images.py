from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge.errors import InvalidInputError
from sam2edge.video.ros_images import decode_image, image_fields

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]]], np.uint8)


def _message(data: np.ndarray, encoding: str, padding: int = 0, **fields: Any) -> SimpleNamespace:
    height, width = fields.pop("size_hw", data.shape[:2])
    rows = np.ascontiguousarray(data).reshape(data.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, [(0, 0), (0, padding)], constant_values=99)
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        data=rows.tobytes(),
        is_bigendian=fields.pop("is_bigendian", 0),
    )


@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(padding: int) -> None:
    alpha = np.full((2, 2, 1), 7, np.uint8)
    for encoding, data in (
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, alpha], 2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], alpha], 2)),
    ):
        assert np.array_equal(decode_image(_message(data, encoding, padding)), RGB[..., ::-1]), encoding


def test_grey_and_16_bit_encodings() -> None:
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(decode_image(_message(grey, "mono8", 3)), expected)
    for byte_order, bigendian in (("<u2", 0), (">u2", 1)):
        deep = (grey.astype(np.uint16) * 256 + 17).astype(byte_order)
        assert np.array_equal(decode_image(_message(deep, "mono16", 2, is_bigendian=bigendian)), expected)
        deep = (RGB.astype(np.uint16) * 256 + 17).astype(byte_order)
        assert np.array_equal(decode_image(_message(deep, "rgb16", is_bigendian=bigendian)), RGB[..., ::-1])


def test_yuv_encodings() -> None:
    picture = cv2.resize(RGB[..., ::-1], (16, 8))
    i420 = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    u, v = i420[8:10].reshape(4, 8), i420[10:].reshape(4, 8)
    nv12 = np.concatenate([i420[:8], np.stack([u, v], -1).reshape(4, 16)])
    expected = cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)
    assert np.array_equal(decode_image(_message(nv12, "nv12", 4, size_hw=(8, 16))), expected)
    flat = np.full((4, 8, 2), 128, np.uint8)
    flat[..., 1] = 90  # UYVY: chroma first
    assert np.array_equal(
        decode_image(_message(flat, "yuv422")), decode_image(_message(flat[..., ::-1], "yuv422_yuy2"))
    )


@pytest.mark.parametrize(
    ("encoding", "pattern"),
    [("bayer_rggb8", "RGGB"), ("bayer_bggr8", "BGGR"), ("bayer_gbrg8", "GBRG"), ("bayer_grbg8", "GRBG")],
)
def test_bayer_patterns(encoding: str, pattern: str) -> None:
    colour = {"R": 200, "G": 120, "B": 40}
    raw = np.tile(np.array([[colour[c] for c in pattern[:2]], [colour[c] for c in pattern[2:]]], np.uint8), (4, 4))
    assert decode_image(_message(raw, encoding))[4, 4].tolist() == [40, 120, 200]


def test_messages_that_lie_about_their_size() -> None:
    message = _message(RGB, "rgb8")
    for change in ({"height": 3}, {"width": 3}, {"step": 5}, {"height": 0}, {"data": b""}, {"height": 2**31}):
        broken = SimpleNamespace(**{**vars(message), **change})
        with pytest.raises(InvalidInputError, match="smaller than it says"):
            decode_image(broken)
    message.data = message.data + b"more"  # more than it says does no harm
    assert decode_image(message).shape == (2, 2, 3)


def test_compressed_images_that_are_none() -> None:
    for data in (b"", b"no picture"):
        with pytest.raises(InvalidInputError, match="cannot be decoded"):
            decode_image(SimpleNamespace(data=data, format="jpeg"))


def test_pictures_as_messages() -> None:
    for picture in (RGB, RGB[..., 0], RGB[..., 0].astype(np.uint16) * 200, RGB[:, ::-1, 1]):
        message = SimpleNamespace(**image_fields(picture))
        decoded = decode_image(message)
        wide = picture.dtype == np.uint16
        assert np.array_equal(decoded if picture.ndim == 3 else decoded[..., 0], picture >> 8 if wide else picture)
    for wrong in (RGB.astype(np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(InvalidInputError, match="cannot be made an image message"):
            image_fields(wrong)
