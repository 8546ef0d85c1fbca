"""What surfaces look like: colours, textures, shading. Used by objects and backgrounds alike."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]  # (H, W) or (H, W, 3), 0 to 1
Colour = NDArray[np.float32]  # (3,) RGB, 0 to 1
_FAINT_SHARE = 0.08  # objects of nearly the colour behind them
_TILE = 16  # cells of a repeated motif's side


def draw_colour(rng: np.random.Generator) -> Colour:
    """An RGB colour (3,), greyish colours as common as in photographs."""
    hue, value = rng.uniform(0, 360), rng.beta(1.6, 1.3)
    saturation = rng.beta(1.2, 2.2)
    hsv = np.array([[[hue, saturation, 0.06 + 0.9 * value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def distinct_colour(rng: np.random.Generator, behind: Colour) -> Colour:
    """A colour that mostly differs from the one behind it; at times it hardly does."""
    rng = np.random.default_rng(int(rng.integers(1 << 62)))  # however many tries, the caller's goes on alike
    if rng.random() < _FAINT_SHARE:
        step = rng.uniform(0.04, 0.12) * rng.choice([-1.0, 1.0]) + rng.normal(0, 0.02, 3)
        faint = np.clip(behind + step, 0.02, 0.98)
        return np.asarray(faint, np.float32)
    wanted = rng.uniform(0.1, 0.45)
    for _ in range(6):
        colour = draw_colour(rng)
        if float(np.abs(colour - behind).max()) > wanted:
            break
    return colour


def _noise(rng: np.random.Generator, height: int, width: int, cells: float, grain: float = 1.0) -> FloatImage:
    """Smooth noise (height, width), mean 0, deviation about 1, `cells` cells across, `grain` times as many down."""
    columns, rows = (max(2, min(round(count), 128)) for count in (cells, cells * grain))
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def draw_pattern(rng: np.random.Generator, u: FloatImage, v: FloatImage, regular: float) -> FloatImage:
    """A texture over object coordinates u, v (h, w each), about -1 to 1.

    One that repeats with probability `regular`: stripes, checks, dots, bricks or a motif; else noise, at times
    stretched to a grain as of wood or grass.
    """
    kind = int(rng.integers(0, 5)) if rng.random() < regular else -1
    frequency = rng.uniform(4, 22)
    angle = rng.uniform(0, 3.14)
    along = np.cos(angle) * u + np.sin(angle) * v
    across = np.cos(angle) * v - np.sin(angle) * u
    if kind == 0:
        return np.asarray(np.clip(3 * np.sin(frequency * along), -1, 1), np.float32)
    if kind == 1:
        return np.asarray(np.clip(4 * np.sin(frequency * along) * np.sin(frequency * across), -1, 1), np.float32)
    if kind == 2:
        dots = np.sin(frequency * along) * np.sin(frequency * across) - 0.4
        return np.asarray(np.clip(6 * dots, -1, 1), np.float32)
    if kind == 3:
        return _tiled(_bricks(rng), 0.12 * frequency * u, 0.12 * frequency * v)
    if kind == 4:
        return _tiled(_motif(rng), 0.16 * frequency * along, 0.16 * frequency * across)
    height, width = u.shape
    grain = 1.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(-2.3, 2.3)))
    coarse = _noise(rng, height, width, rng.uniform(3, 12), grain)
    return np.asarray(0.7 * coarse + 0.5 * _noise(rng, height, width, rng.uniform(12, 60), grain), np.float32)


def _tiled(tile: FloatImage, across: FloatImage, down: FloatImage) -> FloatImage:
    """`tile` once a unit of `across` and `down` (h, w each)."""
    x, y = (np.ascontiguousarray(line * np.float32(tile.shape[0]), np.float32) for line in (across, down))
    return np.asarray(cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _bricks(rng: np.random.Generator) -> FloatImage:
    """Two rows of bricks, half a brick apart, each of its own brightness; the mortar is brightest."""
    tile = np.empty((_TILE, _TILE), np.float32)
    tile[:8, :], tile[8:, :8], tile[8:, 8:] = rng.uniform(-1, 0.2, 3)
    tile[[0, 8]] = 1.0
    tile[:8, 4] = tile[8:, 12] = 1.0
    return tile


def _motif(rng: np.random.Generator) -> FloatImage:
    """A random figure, mirrored both ways as on cloth and wallpaper."""
    quarter = rng.standard_normal((_TILE // 2, _TILE // 2), dtype=np.float32)
    quarter = np.clip(3 * np.asarray(cv2.GaussianBlur(quarter, (0, 0), 0.9), np.float32), -1, 1)
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return np.ascontiguousarray(np.concatenate([half, half[::-1]]))


def draw_shading(rng: np.random.Generator, u: FloatImage, v: FloatImage, light: float) -> FloatImage:
    """Brightness (h, w) around 1: flat, cylinder or ball, lit from angle `light`, at times with a highlight."""
    along = np.cos(light) * u + np.sin(light) * v
    strength = rng.uniform(0.05, 0.4)
    shade = 1.0 + strength * along
    if rng.random() < 0.5:
        shade -= rng.uniform(0.1, 0.45) * np.clip(u * u + (v * v if rng.random() < 0.6 else 0.0), 0, 1.2)
    if rng.random() < 0.25:
        x, y = 0.4 * np.cos(light), 0.4 * np.sin(light)
        shade += rng.uniform(0.2, 0.7) * np.exp(-((u - x) ** 2 + (v - y) ** 2) / rng.uniform(0.01, 0.08))
    return np.asarray(shade, np.float32)
