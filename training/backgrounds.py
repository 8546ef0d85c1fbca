"""What stands behind all objects: surfaces that meet, texture, print, shapes out of focus."""

from __future__ import annotations

import cv2
import numpy as np

from training.canvas import Canvas, fill
from training.lettering import draw_text, lay_text
from training.shapes import draw_outline
from training.surfaces import FloatImage, draw_colour, draw_pattern

_TEXT_SHARE = 0.12


def grid(size: int) -> tuple[FloatImage, FloatImage]:
    """u, v (size, size) from -1 to 1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def _surface(rng: np.random.Generator, size: int) -> FloatImage:
    """One background surface (S, S, 3): a colour that runs into another, texture over it."""
    u, v = grid(size)
    first = draw_colour(rng)
    second = first + rng.normal(0, 0.12, 3).astype(np.float32)
    angle = rng.uniform(0, 6.28)
    ramp = (0.5 + 0.5 * (np.cos(angle) * u + np.sin(angle) * v))[..., None]
    surface = first + (second - first) * ramp
    if rng.random() < 0.75:
        strength = rng.uniform(0.02, 0.12) if rng.random() < 0.75 else rng.uniform(0.12, 0.35)
        zoom = float(rng.uniform(0.8, 2.5))
        pattern = draw_pattern(rng, zoom * u, zoom * v, 0.3)
        surface = surface + (strength * pattern)[..., None] * (0.4 + 0.6 * draw_colour(rng))
    return np.asarray(surface, np.float32)


def draw_background(rng: np.random.Generator, canvas: Canvas) -> tuple[int, ...]:
    """Paints one surface, or two that meet (wall and table, sky and ground); returns the labels used."""
    size = canvas.size
    canvas.pixels[:] = _surface(rng, size)
    canvas.labels[:] = 1
    regions: tuple[int, ...] = (1,)
    if rng.random() < 0.45:
        u, v = grid(size)
        slope = rng.normal(0, 0.15)
        lower = v > rng.uniform(-0.6, 0.6) + slope * u
        soft = np.asarray(cv2.GaussianBlur(lower.astype(np.float32), (0, 0), rng.uniform(0.5, 6) * size / 512 + 0.3))
        canvas.pixels += soft[..., None] * (_surface(rng, size) - canvas.pixels)
        canvas.labels[lower] = 2
        regions = (1, 2)
    if rng.random() < _TEXT_SHARE:
        _print(rng, canvas)
    if rng.random() < 0.3:
        _clutter(rng, canvas)
    return regions


def _print(rng: np.random.Generator, canvas: Canvas) -> None:
    """Words on the wall, the table, a page; they belong to the background."""
    size = canvas.size
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.normal(0, 0.08) if rng.random() < 0.6 else rng.uniform(0, 6.28)
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        ink, half_width = draw_text(rng), float(np.exp(rng.uniform(np.log(0.05), np.log(0.4))))
        laid = lay_text(ink, half_width, np.zeros(2), turn, rng.uniform(0.1, 0.9, 2) * size, (size, size))
        canvas.pixels += (np.float32(rng.uniform(0.3, 1.0)) * laid)[..., None] * (draw_colour(rng) - canvas.pixels)


def _clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """Shapes far out of focus behind everything; they belong to the background."""
    size = canvas.size
    small = max(16, size // 8)
    layer, alpha = np.zeros((small, small, 3), np.float32), np.zeros((small, small), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        scale = np.eye(2) * rng.uniform(0.08, 0.3) * small
        coverage = fill(draw_outline(rng), rng.uniform(0, small, 2), scale, (small, small)) > 127
        layer[coverage], alpha[coverage] = draw_colour(rng), rng.uniform(0.3, 0.8)
    blur = 0.04 * small + 0.8
    layer = np.asarray(cv2.GaussianBlur(layer * alpha[..., None], (0, 0), blur), np.float32)
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), blur), np.float32)
    layer = np.asarray(cv2.resize(layer, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    alpha = np.asarray(cv2.resize(alpha, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    canvas.pixels *= 1.0 - alpha[..., None]
    canvas.pixels += layer
