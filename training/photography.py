"""From a drawn picture to a photograph of it: light, colour cast, blur, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.backgrounds import grid
from training.canvas import fill
from training.shapes import draw_outline
from training.surfaces import FloatImage


def photograph(
    rng: np.random.Generator, pixels: FloatImage, noise_rng: np.random.Generator | None = None
) -> NDArray[np.uint8]:
    """Lighting, a shadow cast from outside, colour cast, blur, noise and JPEG: (S, S, 3) float to uint8.

    Frames of a clip share `rng`'s seed and have a `noise_rng` each.
    """
    pixels = pixels * _lighting(rng, pixels.shape[0])
    if rng.random() < 0.08:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    pixels = _blurred(rng, pixels)
    np.clip(pixels, 0.0, 1.0, out=pixels)
    if rng.random() < 0.4:
        pixels = pixels ** np.float32(rng.uniform(0.7, 1.4))
    noise = (noise_rng or rng).standard_normal(pixels.shape[:2], dtype=np.float32)
    pixels = pixels + (np.float32(rng.uniform(0.0, 0.03)) * noise)[..., None]
    image = np.asarray(np.clip(pixels * 255.0 + 0.5, 0, 255), np.uint8)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 92))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image


def _lighting(rng: np.random.Generator, size: int) -> FloatImage:
    """Brightness (S, S, 3) by which the picture is multiplied."""
    u, v = grid(size)
    angle = rng.uniform(0, 6.28)
    light = 1.0 + rng.uniform(0, 0.35) * (np.cos(angle) * u + np.sin(angle) * v)
    if rng.random() < 0.4:
        light = light - rng.uniform(0.05, 0.3) * (u * u + v * v) / 2
    cast = rng.normal(1.0, 0.06, 3).astype(np.float32) * np.float32(rng.uniform(0.75, 1.2))
    if rng.random() < 0.15:
        light = light * (1.0 - np.float32(rng.uniform(0.2, 0.55)) * _cast_shadow(rng, size))
    return np.asarray(light, np.float32)[..., None] * cast


def _cast_shadow(rng: np.random.Generator, size: int) -> FloatImage:
    """The shadow (S, S), 0 to 1, of something outside the picture: across objects and ground alike."""
    small = max(32, size // 4)
    scale = np.eye(2) * rng.uniform(0.3, 0.8) * small
    dark = fill(draw_outline(rng), rng.uniform(0, small, 2), scale, (small, small)).astype(np.float32) / 255.0
    soft = cv2.GaussianBlur(dark, (0, 0), rng.uniform(0.004, 0.05) * small)
    return np.asarray(cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _blurred(rng: np.random.Generator, pixels: FloatImage) -> FloatImage:
    """Out of focus more often than not; at times shaken in one direction."""
    size = pixels.shape[0]
    if rng.random() < 0.7:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.8) * size / 512 + 0.2), np.float32)
    if rng.random() < 0.06:
        half = rng.uniform(2, 5) * size / 512 * np.exp(1j * rng.uniform(0, 3.14))
        side = 2 * int(np.ceil(abs(half))) + 1
        kernel, middle = np.zeros((side, side), np.float32), side // 2
        for share in np.linspace(-1, 1, side):
            kernel[middle + round(float(share * half.imag)), middle + round(float(share * half.real))] += 1.0 / side
        pixels = np.asarray(cv2.filter2D(pixels, -1, kernel), np.float32)
    return pixels
