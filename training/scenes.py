"""Draws scenes with known objects: the training data of the embedded model.

A scene is a pure function of (seed, size): nothing is read from disk, so its weights can be given away. Objects have
shading, texture, decoration and soft shadows, hide one another, and stand on backgrounds with gradients and texture;
lighting, blur, noise and JPEG come last.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.shapes import Outline, Points, draw_outline, superellipse

FloatImage = NDArray[np.float32]  # (H, W) or (H, W, 3), 0 to 1
MIN_AREA = 0.003  # visible share of the picture below which an object is not asked for
MIN_VISIBLE = 0.35  # visible share of an object's own area below which it is not asked for


@dataclass(frozen=True)
class Scene:
    """image (S, S, 3) uint8 RGB; labels (S, S) uint8: which object or background region each pixel shows.

    `objects` are the labels to ask for, `regions` the background's (wall, table). Objects that are too small or
    too hidden have a label in neither.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[int, ...]
    regions: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Where an outline goes: centre and radius as shares of the side, a 2x2 matrix for turn and stretch."""

    centre: Points
    radius: float
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Paint:
    """How an object looks; drawn once, so that clones share it."""

    seed: int
    colour: NDArray[np.float32]


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """An RGB colour (3,), greyish colours as common as in photographs."""
    hue, value = rng.uniform(0, 360), rng.beta(1.6, 1.3)
    saturation = rng.beta(1.2, 2.2)
    hsv = np.array([[[hue, saturation, 0.06 + 0.9 * value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cells: float, grain: float = 1.0) -> FloatImage:
    """Smooth noise (height, width), mean 0, deviation about 1, `cells` cells across, `grain` times as many down."""
    columns, rows = (max(2, min(round(count), 128)) for count in (cells, cells * grain))
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _pattern(rng: np.random.Generator, u: FloatImage, v: FloatImage, regular: float) -> FloatImage:
    """A texture over object coordinates u, v (h, w each), about -1 to 1.

    Stripes, checks or dots with probability `regular`; else noise, at times stretched to a grain as of wood or grass.
    """
    kind = int(rng.integers(0, 3)) if rng.random() < regular else 3
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
    height, width = u.shape
    grain = 1.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(-2.3, 2.3)))
    coarse = _noise(rng, height, width, rng.uniform(3, 12), grain)
    return np.asarray(0.7 * coarse + 0.5 * _noise(rng, height, width, rng.uniform(12, 60), grain), np.float32)


def _shading(rng: np.random.Generator, u: FloatImage, v: FloatImage, light: float) -> FloatImage:
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


def _fill(outline: Outline, shift: Points, scale: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The outline's coverage (h, w), 0 to 255, after `points @ scale.T + shift`."""
    coverage = np.zeros(shape, np.uint8)
    for polygons, value in ((outline.filled, 255), (outline.cut, 0)):
        for polygon in polygons:
            fixed = np.round((polygon @ scale.T + shift) * 16).astype(np.int32)
            cv2.fillPoly(coverage, [fixed.reshape(-1, 1, 2)], (value,), lineType=cv2.LINE_AA, shift=4)
    return coverage


class Canvas:
    """The picture while it is drawn: pixels (S, S, 3) float RGB and labels (S, S)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels: FloatImage = np.zeros((size, size, 3), np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((size, size), np.uint8)
        self.full_area: dict[int, int] = {}  # label: pixels of the object, were nothing in front of it

    def add(self, label: int, outline: Outline, place: Placement, paint: Paint, light: float, shadow: float) -> None:
        """Draws one object over what is there, its shadow first."""
        size = self.size
        scale = place.matrix * place.radius * size
        every = np.concatenate(outline.filled) @ scale.T + place.centre * size
        margin = 0.35 * place.radius * size + 3
        low = np.floor(np.clip(every.min(axis=0) - margin, 0, size)).astype(int)
        high = np.ceil(np.clip(every.max(axis=0) + margin, 0, size)).astype(int)
        if (high - low).min() < 2:
            return
        shape = (int(high[1] - low[1]), int(high[0] - low[0]))
        origin = place.centre * size - low
        coverage = _fill(outline, origin, scale, shape)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        view = self.pixels[window]
        if shadow > 0:
            view *= 1.0 - shadow * self._shadow(coverage, place.radius * size, light)[..., None]
        skin = self._skin(shape, origin, scale, paint, light)
        alpha = (coverage.astype(np.float32) / 255.0)[..., None]
        view += alpha * (skin - view)
        solid = coverage > 127
        self.labels[window][solid] = label
        self.full_area[label] = int(np.count_nonzero(solid))

    @staticmethod
    def _shadow(coverage: NDArray[np.uint8], radius: float, light: float) -> FloatImage:
        offset = np.array([-np.cos(light), -np.sin(light)]) * 0.15 * radius
        matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
        moved = cv2.warpAffine(coverage, matrix, (coverage.shape[1], coverage.shape[0]))
        blur = 2 * int(0.12 * radius) + 1
        return np.asarray(cv2.blur(cv2.blur(moved, (blur, blur)), (blur, blur)), np.float32) / 255.0

    @staticmethod
    def _skin(
        shape: tuple[int, int], origin: Points, scale: NDArray[np.float64], paint: Paint, light: float
    ) -> FloatImage:
        """The object's surface (h, w, 3) over its whole window: colour, texture, decoration, shading."""
        rng = np.random.default_rng(paint.seed)
        inverse = np.linalg.inv(scale)
        x = np.arange(shape[1], dtype=np.float32) - np.float32(origin[0])
        y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(origin[1])
        u = np.asarray(inverse[0, 0] * x + inverse[0, 1] * y, np.float32)
        v = np.asarray(inverse[1, 0] * x + inverse[1, 1] * y, np.float32)
        skin = np.empty((*shape, 3), np.float32)
        skin[:] = paint.colour
        if rng.random() < 0.6:
            strength = rng.uniform(0.03, 0.25) if rng.random() < 0.7 else rng.uniform(0.25, 0.6)
            other = _colour(rng) - paint.colour
            skin += (0.5 * strength * (_pattern(rng, u, v, 0.45) + 1.0))[..., None] * other
        for _ in range(int(rng.choice([0, 0, 1, 1, 2, 3]))):
            half = (float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.1, 0.5)))
            mark = superellipse(rng, half) + rng.uniform(-0.5, 0.5, 2)
            coverage = _fill(Outline((mark,)), origin, scale, shape)
            skin += (coverage.astype(np.float32) / 255.0 * rng.uniform(0.3, 1.0))[..., None] * (_colour(rng) - skin)
        return np.asarray(skin * _shading(rng, u, v, light)[..., None], np.float32)


def _grid(size: int) -> tuple[FloatImage, FloatImage]:
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def _surface(rng: np.random.Generator, size: int) -> FloatImage:
    """One background surface (S, S, 3): a colour that runs into another, texture over it."""
    u, v = _grid(size)
    first = _colour(rng)
    second = first + rng.normal(0, 0.12, 3).astype(np.float32)
    angle = rng.uniform(0, 6.28)
    ramp = (0.5 + 0.5 * (np.cos(angle) * u + np.sin(angle) * v))[..., None]
    surface = first + (second - first) * ramp
    if rng.random() < 0.75:
        strength = rng.uniform(0.02, 0.12) if rng.random() < 0.75 else rng.uniform(0.12, 0.35)
        zoom = float(rng.uniform(0.8, 2.5))
        surface = surface + (strength * _pattern(rng, zoom * u, zoom * v, 0.25))[..., None] * (0.4 + 0.6 * _colour(rng))
    return np.asarray(surface, np.float32)


def draw_background(rng: np.random.Generator, canvas: Canvas) -> tuple[int, ...]:
    """Paints one surface, or two that meet (wall and table, sky and ground); returns the labels used."""
    size = canvas.size
    canvas.pixels[:] = _surface(rng, size)
    canvas.labels[:] = 1
    regions: tuple[int, ...] = (1,)
    if rng.random() < 0.45:
        u, v = _grid(size)
        slope = rng.normal(0, 0.15)
        lower = v > rng.uniform(-0.6, 0.6) + slope * u
        soft = np.asarray(cv2.GaussianBlur(lower.astype(np.float32), (0, 0), rng.uniform(0.5, 6) * size / 512 + 0.3))
        canvas.pixels += soft[..., None] * (_surface(rng, size) - canvas.pixels)
        canvas.labels[lower] = 2
        regions = (1, 2)
    if rng.random() < 0.3:
        _clutter(rng, canvas)
    return regions


def _clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """Shapes far out of focus behind everything; they belong to the background."""
    size = canvas.size
    small = max(16, size // 8)
    layer, alpha = np.zeros((small, small, 3), np.float32), np.zeros((small, small), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        scale = np.eye(2) * rng.uniform(0.08, 0.3) * small
        coverage = _fill(draw_outline(rng), rng.uniform(0, small, 2), scale, (small, small)) > 127
        layer[coverage], alpha[coverage] = _colour(rng), rng.uniform(0.3, 0.8)
    blur = 0.04 * small + 0.8
    layer = np.asarray(cv2.GaussianBlur(layer * alpha[..., None], (0, 0), blur), np.float32)
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), blur), np.float32)
    layer = np.asarray(cv2.resize(layer, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    alpha = np.asarray(cv2.resize(alpha, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    canvas.pixels *= 1.0 - alpha[..., None]
    canvas.pixels += layer


def draw_matrix(rng: np.random.Generator) -> NDArray[np.float64]:
    """A turn and a stretch; upright more often than not."""
    angle = rng.normal(0, 0.15) if rng.random() < 0.55 else rng.uniform(0, 6.28)
    stretch = np.diag([1.0, rng.uniform(0.5, 1.0)])
    if rng.random() < 0.3:
        stretch = stretch[::-1, ::-1]
    if rng.random() < 0.5:
        stretch = stretch * np.array([[-1.0], [1.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ stretch, np.float64)


def draw_radii(rng: np.random.Generator, large_share: float = 0.3) -> list[float]:
    """Object radii as shares of the side, largest first: one or two large, or several of all sizes."""
    if rng.random() < large_share:
        radii = list(rng.uniform(0.18, 0.45, int(rng.integers(1, 3))))
        radii += list(rng.uniform(0.05, 0.15, int(rng.integers(0, 4))))
    else:
        radii = list(np.exp(rng.uniform(np.log(0.06), np.log(0.3), int(rng.integers(3, 9)))))
    return sorted((float(r) for r in radii), reverse=True)


def distinct_colour(rng: np.random.Generator, behind: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour that mostly differs from the one behind it; low contrast stays possible."""
    wanted = rng.uniform(0.1, 0.45)
    for _ in range(6):
        colour = _colour(rng)
        if float(np.abs(colour - behind).max()) > wanted:
            break
    return colour


def _place_objects(rng: np.random.Generator, canvas: Canvas, light: float, shadow: float, large_share: float) -> None:
    label, size = 2, canvas.size
    for radius in draw_radii(rng, large_share):
        centre = rng.uniform(0.02, 0.98, 2) if radius < 0.18 else rng.uniform(0.2, 0.8, 2)
        row, column = (np.clip(centre[::-1] * size, 0, size - 1)).astype(int)
        label += 1
        colour = distinct_colour(rng, canvas.pixels[row, column])
        paint = Paint(int(rng.integers(1 << 31)), colour)
        canvas.add(label, draw_outline(rng), Placement(centre, radius, draw_matrix(rng)), paint, light, shadow)


def _place_clones(rng: np.random.Generator, canvas: Canvas, light: float, shadow: float) -> None:
    """Many alike on a loose grid, as coins, bottles or fruit lie; each a little different."""
    label, size = 2, canvas.size
    side = int(rng.integers(2, 6))
    outline, base = draw_outline(rng), draw_matrix(rng)
    colour = distinct_colour(rng, canvas.pixels[size // 2, size // 2])
    seed, same = int(rng.integers(1 << 31)), rng.random() < 0.6
    for cell in range(side * side):
        if rng.random() < 0.2:
            continue
        label += 1
        centre = (np.array([cell % side, cell // side]) + 0.5 + rng.normal(0, 0.12, 2)) / side
        radius = float(rng.uniform(0.3, 0.52)) / side
        tint = colour + rng.normal(0, 0.05, 3).astype(np.float32)
        paint = Paint(seed if same else int(rng.integers(1 << 31)), tint)
        matrix = base if rng.random() < 0.6 else draw_matrix(rng)
        canvas.add(label, outline, Placement(centre, radius, matrix), paint, light, shadow)


def photograph(
    rng: np.random.Generator, pixels: FloatImage, noise_rng: np.random.Generator | None = None
) -> NDArray[np.uint8]:
    """Lighting, colour cast, blur, noise and JPEG: (S, S, 3) float to uint8.

    Frames of a clip share `rng`'s seed and have a `noise_rng` each.
    """
    size = pixels.shape[0]
    u, v = _grid(size)
    angle = rng.uniform(0, 6.28)
    light = 1.0 + rng.uniform(0, 0.35) * (np.cos(angle) * u + np.sin(angle) * v)
    if rng.random() < 0.4:
        light = light - rng.uniform(0.05, 0.3) * (u * u + v * v) / 2
    cast = rng.normal(1.0, 0.06, 3).astype(np.float32) * np.float32(rng.uniform(0.75, 1.2))
    pixels = pixels * (np.asarray(light, np.float32)[..., None] * cast)
    if rng.random() < 0.08:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.7:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.8) * size / 512 + 0.2), np.float32)
    np.clip(pixels, 0.0, 1.0, out=pixels)
    if rng.random() < 0.4:
        pixels = pixels ** np.float32(rng.uniform(0.7, 1.4))
    noise = (noise_rng or rng).standard_normal((size, size), dtype=np.float32)
    pixels = pixels + (np.float32(rng.uniform(0.0, 0.03)) * noise)[..., None]
    image = np.asarray(np.clip(pixels * 255.0 + 0.5, 0, 255), np.uint8)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 92))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image


def draw_scene(seed: int, size: int, large_share: float = 0.3) -> Scene:
    """The scene number `seed` at `size` x `size` pixels; the same content at every size.

    `large_share` of the scenes have one or two large objects, the others several of all sizes.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(size)
    regions = draw_background(rng, canvas)
    light = float(rng.uniform(-3.0, 0.0))  # from above
    shadow = float(rng.uniform(0.15, 0.6)) if rng.random() < 0.6 else 0.0
    if rng.random() < 0.18:
        _place_clones(rng, canvas, light, shadow)
    else:
        _place_objects(rng, canvas, light, shadow, large_share)
    visible = np.bincount(canvas.labels.ravel(), minlength=256)
    least = MIN_AREA * size * size
    objects = tuple(
        label for label, area in canvas.full_area.items() if visible[label] >= max(least, MIN_VISIBLE * area)
    )
    if not objects:
        return draw_scene(seed + (1 << 40), size, large_share)
    regions = tuple(region for region in regions if visible[region] >= 0.05 * size * size)
    return Scene(photograph(rng, canvas.pixels), canvas.labels, objects, regions)
