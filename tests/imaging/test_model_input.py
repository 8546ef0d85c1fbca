"""Frame -> model input, against torch's antialiased resizing and Pillow's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from sam2edge.imaging.frame import MEAN_RGB, STD_RGB, image_to_input, resize_pixels


@pytest.mark.parametrize("size_hw", [(400, 600), (1080, 1920), (720, 300), (200, 1500), (37, 41), (256, 256)])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_resizing_equals_torchs_antialiased_bilinear(size_hw: tuple[int, int], order: str) -> None:
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    rgb = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1] if order == "bgr" else pixels)).permute(2, 0, 1)
    unit = rgb[None].float() / 255
    resized = torch.nn.functional.interpolate(unit, (256, 256), mode="bilinear", antialias=True)
    expected = (resized - torch.tensor(MEAN_RGB)[:, None, None]) / torch.tensor(STD_RGB)[:, None, None]
    np.testing.assert_allclose(image_to_input(pixels, order, 256), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size_hw", [(400, 600), (1080, 1920), (100, 900), (37, 41)])
def test_resizing_as_pillow_does_it(size_hw: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    expected = np.asarray(image.fromarray(pixels).resize((256, 256))).transpose(2, 0, 1)
    found = resize_pixels(pixels, "rgb", 256, "pillow-bicubic")
    np.testing.assert_array_equal(found, expected)


def test_a_photo_of_any_size_is_converted_in_bands() -> None:
    # 12 megapixels are 144 MB as float32; the first pass alone leaves (256, 3, 3000).
    pixels = np.zeros((3000, 4000, 3), np.uint8)
    image_to_input(pixels, "bgr", 256)
    tracemalloc.start()
    image_to_input(pixels, "bgr", 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_colour_order_and_normalisation() -> None:
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 0] = 255
    planes = image_to_input(blue, "bgr", 64)[0, :, 0, 0]
    zero, one = (0 - np.array(MEAN_RGB)) / STD_RGB, (1 - np.array(MEAN_RGB)) / STD_RGB
    np.testing.assert_allclose(planes, [zero[0], zero[1], one[2]], rtol=1e-5)
    np.testing.assert_allclose(image_to_input(blue, "rgb", 64)[0, :, 0, 0], [one[0], zero[1], zero[2]], rtol=1e-5)
