"""The picture while it is drawn: objects with their surface and shadow go onto it, pixels and labels at once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.lettering import draw_text, lay_text
from training.shapes import Outline, Points, superellipse
from training.surfaces import Colour, FloatImage, distinct_colour, draw_colour, draw_pattern, draw_shading

_GLASS_SHARE = 0.08
_TEXT_SHARE = 0.2


@dataclass(frozen=True)
class Placement:
    """Where an outline goes: centre and radius as shares of the side, a 2x2 matrix for turn and stretch."""

    centre: Points
    radius: float
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Paint:
    """How an object looks; drawn once, so that clones share it. `glass`: share of what lies behind that is seen."""

    seed: int
    colour: Colour
    glass: float = 0.0


def draw_paint(rng: np.random.Generator, behind: Colour) -> Paint:
    """Paint for an object that stands before the colour `behind`."""
    glass = float(rng.uniform(0.55, 0.92)) if rng.random() < _GLASS_SHARE else 0.0
    return Paint(int(rng.integers(1 << 31)), distinct_colour(rng, behind), glass)


def fill(outline: Outline, shift: Points, scale: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The outline's coverage (h, w), 0 to 255, after `points @ scale.T + shift`."""
    coverage = np.zeros(shape, np.uint8)
    for polygons, value in ((outline.filled, 255), (outline.cut, 0)):
        for polygon in polygons:
            fixed = np.round((polygon @ scale.T + shift) * 16).astype(np.int32)
            cv2.fillPoly(coverage, [fixed.reshape(-1, 1, 2)], (value,), lineType=cv2.LINE_AA, shift=4)
    return coverage


@dataclass(frozen=True)
class _Window:
    """The part of the picture that an object needs: its slices, its shape, object points at scale @ p + origin."""

    slices: tuple[slice, slice]
    shape: tuple[int, int]
    origin: Points
    scale: NDArray[np.float64]

    def coordinates(self) -> tuple[FloatImage, FloatImage]:
        """Each pixel's object coordinates u, v (h, w)."""
        inverse = np.linalg.inv(self.scale)
        x = np.arange(self.shape[1], dtype=np.float32) - np.float32(self.origin[0])
        y = np.arange(self.shape[0], dtype=np.float32)[:, None] - np.float32(self.origin[1])
        u, v = (np.asarray(row[0] * x + row[1] * y, np.float32) for row in inverse.astype(np.float32))
        return u, v


class Canvas:
    """Pixels (S, S, 3) float RGB and labels (S, S)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels: FloatImage = np.zeros((size, size, 3), np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((size, size), np.uint8)
        self.full_area: dict[int, int] = {}  # label: pixels of the object, were nothing in front of it

    def add(
        self, label: int, outline: Outline, place: Placement, paint: Paint, light: float, shadow: float,
        inlaid_in: int | None = None,
    ) -> None:  # fmt: skip
        """Draws one object over what is there, its shadow first; `inlaid_in`: only where that label is seen."""
        window = self._window(outline, place)
        if window is None:
            return
        coverage = fill(outline, window.origin, window.scale, window.shape)
        labels, view = self.labels[window.slices], self.pixels[window.slices]
        if inlaid_in is not None:
            coverage[labels != inlaid_in] = 0
        if shadow > 0:
            strength = shadow * (1.0 - 0.7 * paint.glass)
            view *= 1.0 - strength * _shadow(coverage, place.radius * self.size, light)[..., None]
        skin = _skin(window, paint, light)
        if paint.glass:
            skin = _glass(view, skin, coverage, window, paint, place.radius * self.size)
        alpha = (coverage.astype(np.float32) / 255.0)[..., None]
        view += alpha * (skin - view)
        solid = coverage > 127
        labels[solid] = label
        self.full_area[label] = int(np.count_nonzero(solid))

    def _window(self, outline: Outline, place: Placement) -> _Window | None:
        size = self.size
        scale = place.matrix * place.radius * size
        every = np.concatenate(outline.filled) @ scale.T + place.centre * size
        margin = 0.35 * place.radius * size + 3
        low = np.floor(np.clip(every.min(axis=0) - margin, 0, size)).astype(int)
        high = np.ceil(np.clip(every.max(axis=0) + margin, 0, size)).astype(int)
        if (high - low).min() < 2:
            return None
        shape = (int(high[1] - low[1]), int(high[0] - low[0]))
        slices = (slice(low[1], high[1]), slice(low[0], high[0]))
        return _Window(slices, shape, place.centre * size - low, scale)


def _shadow(coverage: NDArray[np.uint8], radius: float, light: float) -> FloatImage:
    offset = np.array([-np.cos(light), -np.sin(light)]) * 0.15 * radius
    matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
    moved = cv2.warpAffine(coverage, matrix, (coverage.shape[1], coverage.shape[0]))
    blur = 2 * int(0.12 * radius) + 1
    return np.asarray(cv2.blur(cv2.blur(moved, (blur, blur)), (blur, blur)), np.float32) / 255.0


def _skin(window: _Window, paint: Paint, light: float) -> FloatImage:
    """The object's surface (h, w, 3) over its whole window: colour, texture, decoration, shading."""
    rng = np.random.default_rng(paint.seed)
    u, v = window.coordinates()
    skin = np.empty((*window.shape, 3), np.float32)
    skin[:] = paint.colour
    if rng.random() < 0.6:
        strength = rng.uniform(0.03, 0.25) if rng.random() < 0.7 else rng.uniform(0.25, 0.6)
        other = draw_colour(rng) - paint.colour
        skin += (0.5 * strength * (draw_pattern(rng, u, v, 0.45) + 1.0))[..., None] * other
    for _ in range(int(rng.choice([0, 0, 1, 1, 2, 3]))):
        half = (float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.1, 0.5)))
        mark = superellipse(rng, half) + rng.uniform(-0.5, 0.5, 2)
        coverage = fill(Outline((mark,)), window.origin, window.scale, window.shape)
        skin += (coverage.astype(np.float32) / 255.0 * rng.uniform(0.3, 1.0))[..., None] * (draw_colour(rng) - skin)
    if rng.random() < _TEXT_SHARE:
        ink, half_width, centre = draw_text(rng), float(rng.uniform(0.3, 0.9)), rng.uniform(-0.3, 0.3, 2)
        matrix = window.scale * (np.sign(window.scale[0, 0] or 1.0), 1.0)  # mirrored objects have readable letters too
        laid = lay_text(ink, half_width, centre, matrix, window.origin, window.shape)
        skin += (np.float32(rng.uniform(0.5, 1.0)) * laid)[..., None] * (draw_colour(rng) - skin)
    return np.asarray(skin * draw_shading(rng, u, v, light)[..., None], np.float32)


def _glass(
    view: FloatImage, skin: FloatImage, coverage: NDArray[np.uint8], window: _Window, paint: Paint, radius: float
) -> FloatImage:
    """What is seen in place of `skin` (h, w, 3): what lies behind, bent and tinted, a rim and a highlight."""
    rng = np.random.default_rng((paint.seed, 1))
    height, width = window.shape
    zoom = float(rng.uniform(0.85, 1.15))
    bend = np.column_stack((zoom * np.eye(2), (1 - zoom) * window.origin))
    behind = cv2.warpAffine(view, bend, (width, height), borderMode=cv2.BORDER_REPLICATE)
    tint = np.float32(rng.uniform(0.7, 1.0)) * (0.6 + 0.4 * paint.colour)
    clear = np.float32(paint.glass) * tint * behind + np.float32(1 - paint.glass) * skin
    blur = 2 * max(1, int(rng.uniform(0.03, 0.1) * radius)) + 1
    inner = cv2.blur(coverage, (blur, blur)).astype(np.float32) / 255.0
    rim = np.clip(1.8 * (1.0 - inner), 0, 1) * np.float32(rng.uniform(0.4, 0.9))
    clear += rim[..., None] * (np.float32(rng.choice([0.1, 0.95])) - clear)
    spot = superellipse(rng, (float(rng.uniform(0.05, 0.15)), float(rng.uniform(0.1, 0.4))), 2.0)
    bright = fill(Outline((spot + rng.uniform(-0.45, 0.0, 2),)), window.origin, window.scale, window.shape)
    shine = cv2.blur(bright, (blur, blur)).astype(np.float32) / 255.0 * np.float32(rng.uniform(0.4, 0.9))
    clear += shine[..., None] * (1.0 - clear)
    return np.asarray(clear, np.float32)
