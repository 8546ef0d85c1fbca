"""ROS image messages to BGR pictures and back, without ROS: any object with the fields of the message will do.

Fields and encodings: https://docs.ros.org/en/api/sensor_msgs/html/msg/Image.html and image_encodings.h beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.image_header import RefusedImage, read_header
from sam2edge.video.frame import check_frame_size
from sam2edge.video.index_png import index_picture

# What turns an encoding into BGR (None: it is), its channels, and its bytes a channel.
_ENCODINGS: dict[str, tuple[int | None, int, int]] = {
    "bgr8": (None, 3, 1),
    "rgb8": (cv2.COLOR_RGB2BGR, 3, 1),
    "bgra8": (cv2.COLOR_BGRA2BGR, 4, 1),
    "rgba8": (cv2.COLOR_RGBA2BGR, 4, 1),
    "mono8": (cv2.COLOR_GRAY2BGR, 1, 1),
    "8UC1": (cv2.COLOR_GRAY2BGR, 1, 1),
    "8UC3": (None, 3, 1),
    "bgr16": (None, 3, 2),
    "rgb16": (cv2.COLOR_RGB2BGR, 3, 2),
    "mono16": (cv2.COLOR_GRAY2BGR, 1, 2),
    "16UC1": (cv2.COLOR_GRAY2BGR, 1, 2),
    "yuv422": (cv2.COLOR_YUV2BGR_UYVY, 2, 1),
    "uyvy": (cv2.COLOR_YUV2BGR_UYVY, 2, 1),
    "yuv422_yuy2": (cv2.COLOR_YUV2BGR_YUY2, 2, 1),
    "yuyv": (cv2.COLOR_YUV2BGR_YUY2, 2, 1),
    # ROS names a Bayer pattern by its first two pixels, OpenCV by the second row's second and third.
    "bayer_rggb8": (cv2.COLOR_BayerBG2BGR, 1, 1),
    "bayer_bggr8": (cv2.COLOR_BayerRG2BGR, 1, 1),
    "bayer_gbrg8": (cv2.COLOR_BayerGR2BGR, 1, 1),
    "bayer_grbg8": (cv2.COLOR_BayerGB2BGR, 1, 1),
}
_HALF_PLANES = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}


def decode_image(message: Any) -> np.ndarray:
    """sensor_msgs/Image or CompressedImage -> (H, W, 3) uint8, BGR, of its own memory.

    16-bit pictures lose their lower 8 bits. Raises InvalidInputError for an encoding that is not known, and for fewer
    bytes than the message's size asks for.
    """
    data = np.frombuffer(message.data, np.uint8)
    if not hasattr(message, "encoding"):
        with contextlib.suppress(RefusedImage):  # others are refused by the decoder
            height, width = read_header(data.tobytes()).size_hw
            check_frame_size(width, height, "a compressed image")
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is None:
            raise InvalidInputError(
                "compressed image cannot be decoded",
                expected="JPEG or PNG",
                got=f"{data.size} bytes, {message.format!r}",
            )
        return np.asarray(picture, np.uint8)
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding in _HALF_PLANES:
        rows = _rows(data, height * 3 // 2, width, step, encoding)
        return cv2.cvtColor(np.ascontiguousarray(rows), _HALF_PLANES[encoding])
    if encoding not in _ENCODINGS:
        raise InvalidInputError(
            "image encoding cannot be read",
            expected=f"one of {', '.join([*_ENCODINGS, *_HALF_PLANES])}",
            got=repr(encoding),
            remedy="convert it with image_proc, or publish rgb8",
        )
    code, channels, depth = _ENCODINGS[encoding]
    rows = _rows(data, height, width * channels * depth, step, encoding)
    if depth == 2:
        rows = rows[:, 0 if message.is_bigendian else 1 :: 2]  # the upper byte
    picture = np.ascontiguousarray(rows).reshape((height, width) if channels == 1 else (height, width, channels))
    return picture.copy() if code is None else cv2.cvtColor(picture, code)


def image_fields(picture: NDArray[Any]) -> dict[str, Any]:
    """The fields of sensor_msgs/Image but its header: (H, W, 3) uint8 as bgr8, (H, W) uint8 as mono8, uint16 as mono16.

    `data` is uint8, as rosbags wants it; `.tobytes()` of it is what rclpy takes.
    """
    kind = (picture.ndim, picture.dtype.name)
    encodings = {(3, "uint8"): "bgr8", (2, "uint8"): "mono8", (2, "uint16"): "mono16"}
    if kind not in encodings or 0 in picture.shape or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InvalidInputError(
            "picture cannot be made an image message",
            expected="(H, W, 3) uint8, (H, W) uint8 or (H, W) uint16",
            got=f"{picture.shape} {picture.dtype}",
        )
    little = np.ascontiguousarray(picture, picture.dtype.newbyteorder("<"))
    return {
        "height": picture.shape[0],
        "width": picture.shape[1],
        "encoding": encodings[kind],
        "is_bigendian": 0,
        "step": little.strides[0],
        "data": little.reshape(-1).view(np.uint8),
    }


def label_image(
    size_hw: tuple[int, int], object_ids: Sequence[int], masks: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """(H, W) uint8: a pixel's value is the object's id, 0 outside; where objects overlap, the lowest."""
    return np.zeros(size_hw, np.uint8) if masks is None else index_picture(object_ids, masks)


def stamp_ns(message: Any) -> int:
    """The time in the message's header, in nanoseconds; ROS 1 and 2 name its parts differently."""
    stamp = message.header.stamp
    return int(getattr(stamp, "sec", 0)) * 10**9 + int(getattr(stamp, "nanosec", 0))


def _rows(data: NDArray[np.uint8], height: int, row_bytes: int, step: int, encoding: str) -> np.ndarray:
    """(height, row_bytes): the picture's rows without what pads them."""
    step = step or row_bytes
    if height < 1 or row_bytes < 1 or step < row_bytes or data.size < step * (height - 1) + row_bytes:
        raise InvalidInputError(
            "image message is smaller than it says",
            expected=f"{height} rows of {row_bytes} bytes ({encoding}), {step} apart",
            got=f"{data.size} bytes",
        )
    if data.size < step * height:  # the last row need not be padded
        data = np.concatenate([data, np.zeros(step * height - data.size, np.uint8)])
    return data[: step * height].reshape(height, step)[:, :row_bytes]
