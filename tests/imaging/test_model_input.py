"""Frame -> model input, against torch's antialiased resizing."""

from __future__ import annotations

import numpy as np
import pytest

from sam2edge.imaging.frame import MEAN_RGB, STD_RGB, image_to_input


def test_enlarging_equals_torchs_bilinear(photo_bgr: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    rgb = torch.from_numpy(np.ascontiguousarray(photo_bgr[..., ::-1])).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(rgb, (640, 640), mode="bilinear", antialias=True)
    expected = (resized - torch.tensor(MEAN_RGB)[:, None, None]) / torch.tensor(STD_RGB)[:, None, None]
    np.testing.assert_allclose(image_to_input(photo_bgr, "bgr", 640), expected.numpy(), atol=1e-4)


def test_shrinking_stays_close_to_the_antialiased_filter(photo_bgr: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    rgb = torch.from_numpy(np.ascontiguousarray(photo_bgr[..., ::-1])).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(rgb, (128, 128), mode="bilinear", antialias=True)[0].numpy()
    mean, std = np.array(MEAN_RGB)[:, None, None], np.array(STD_RGB)[:, None, None]
    found = (image_to_input(photo_bgr, "bgr", 128)[0] * std + mean) * 255
    assert np.abs(found - resized).mean() < 1.5  # grey levels of 255


def test_colour_order_and_normalisation() -> None:
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 0] = 255
    planes = image_to_input(blue, "bgr", 64)[0, :, 0, 0]
    zero, one = (0 - np.array(MEAN_RGB)) / STD_RGB, (1 - np.array(MEAN_RGB)) / STD_RGB
    np.testing.assert_allclose(planes, [zero[0], zero[1], one[2]], rtol=1e-5)
    np.testing.assert_allclose(image_to_input(blue, "rgb", 64)[0, :, 0, 0], [one[0], zero[1], zero[2]], rtol=1e-5)
