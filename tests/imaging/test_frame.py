"""Images in every form that callers have them in: the same pixels come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2edge import ImagePredictor
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import frame_to_uint8

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4  # RGB


def test_pil_images_are_rgb_whatever_their_mode() -> None:
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.fromarray(PIXELS)
    for form in (image, image.convert("RGBA"), image.convert("RGB").copy()):
        pixels, order = frame_to_uint8(form)
        assert order == "rgb"
        np.testing.assert_array_equal(pixels, PIXELS)
    assert frame_to_uint8(image, "bgr")[1] == "rgb"  # PIL has one order alone
    grey, _ = frame_to_uint8(image.convert("L"))
    assert grey.shape == PIXELS.shape and (grey[..., 0] == grey[..., 2]).all()
    for mode in ("P", "CMYK", "1", "LA", "HSV"):
        assert frame_to_uint8(image.convert(mode))[0].shape == PIXELS.shape


def test_a_pil_image_gives_the_mask_that_opencv_gives(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    image_module = pytest.importorskip("PIL.Image")
    prompt: dict[str, Any] = {"boxes": np.array([225, 55, 425, 330]), "multi_mask_output": False}
    expected = micro_onnx.segment_images(photo_bgr, **prompt)[0].masks
    found = micro_onnx.segment_images(image_module.fromarray(photo_bgr[..., ::-1]), **prompt)[0].masks
    np.testing.assert_array_equal(found, expected)


def test_paths_are_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), PIXELS[..., ::-1])
    for form in (path, str(path)):
        pixels, order = frame_to_uint8(form)
        assert order == "bgr"
        np.testing.assert_array_equal(pixels, PIXELS[..., ::-1])
    with pytest.raises(InvalidInputError, match="photo not found"):
        frame_to_uint8(tmp_path / "none.png")


def test_floating_point_is_0_to_1_or_0_to_255() -> None:
    torch = pytest.importorskip("torch")
    planes = torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()).float()
    for form in (planes, planes / 255):
        pixels, order = frame_to_uint8(form)
        assert order == "rgb"
        np.testing.assert_array_equal(pixels, PIXELS)
    for bad in (PIXELS - 10.0, PIXELS + 100.0, np.full((4, 5, 3), np.nan)):
        with pytest.raises(InvalidInputError, match="out of range.*0..1 or 0..255"):
            frame_to_uint8(bad)
