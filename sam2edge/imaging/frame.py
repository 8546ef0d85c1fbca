"""An image as a caller has it (numpy, torch, PIL, a file) -> (H, W, 3) uint8 pixels and their colour order."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import InvalidInputError
from sam2edge.imaging.photo import read_photo

COLOR_FORMATS = ("bgr", "rgb")
# PIL's modes that numpy reads as grey, grey 16-bit, RGB or RGBA; PIL converts every other one to RGB first.
_PIL_PLAIN_MODES = ("L", "I;16", "RGB", "RGBA")


def is_torch_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def is_pil_image(value: object) -> bool:
    """Whether `value` is a PIL image, without importing PIL."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def as_numpy(value: Any) -> NDArray[Any]:
    """A numpy array of `value`; torch tensors are fetched to the host first."""
    return value.detach().cpu().numpy() if is_torch_tensor(value) else np.asarray(value)


def frame_to_uint8(image: Any, color_format: str | None = None) -> tuple[NDArray[np.uint8], str]:
    """(H, W, 3) uint8 pixels and their colour order ("bgr" or "rgb"), whatever form the image comes in.

    - numpy: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), BGR unless `color_format` says "rgb".
    - torch: (C, H, W) with C of 1, 3 or 4, RGB unless `color_format` says "bgr".
    - PIL: always RGB; its pixels are taken as they lie, `PIL.ImageOps.exif_transpose` turns them upright.
    - a path (str or Path): the photo in that file, upright, see `read_photo`.

    Grey is repeated, alpha is dropped. uint8 is taken as it is, uint16 is divided by 257, floating point lies in
    0..1, or, where a value is above 1, in 0..255. Raises InvalidInputError otherwise.
    """
    if color_format is not None and str(color_format).lower() not in COLOR_FORMATS:
        raise InvalidInputError("unknown input_color_format", expected="'bgr', 'rgb' or None", got=repr(color_format))
    if isinstance(image, (str, PathLike)):
        return read_photo(image), "bgr"
    if is_pil_image(image):
        plain = image if image.mode in _PIL_PLAIN_MODES else image.convert("RGB")
        return _to_three_channels(np.asarray(plain), "PIL image"), "rgb"
    pixels = as_numpy(image)
    if is_torch_tensor(image) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    order = "rgb" if is_torch_tensor(image) else "bgr"
    return _to_three_channels(pixels, type(image).__name__), order if color_format is None else color_format.lower()


def _to_three_channels(pixels: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise InvalidInputError(
            "image has an unusable shape",
            expected="numpy (H, W), (H, W, 3) or (H, W, 4), or torch (3, H, W), none of them empty",
            got=f"{kind} {tuple(np.shape(pixels))}",
            remedy="pass one image as cv2.imread gives it, or a list of images",
        )
    pixels = _to_uint8(pixels)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(pixels)


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind != "f":
        raise InvalidInputError(
            "image has an unusable type",
            expected="uint8 (0..255), uint16 (0..65535) or floating point (0..1 or 0..255)",
            got=str(pixels.dtype),
            remedy="convert it with astype",
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0.0 and high <= 255.0):  # also false for NaN
        raise InvalidInputError(
            "floating-point image is out of range",
            expected="values in 0..1 or 0..255",
            got=f"{low:g}..{high:g}",
            remedy="pass the image before it is normalised",
        )
    return np.rint(pixels if high > 1.0 else pixels * 255.0).astype(np.uint8)
