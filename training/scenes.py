"""Draws scenes with known objects: the training data of the embedded model.

A scene is a pure function of (seed, size): nothing is read from disk, so its weights can be given away. Objects have
shading, texture, decoration, text and soft shadows, some are of glass, some have parts; they hide one another, and
stand on backgrounds with gradients and texture; lighting, blur, noise and JPEG come last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.backgrounds import draw_background
from training.canvas import Canvas, Paint, Placement, draw_paint
from training.photography import photograph
from training.shapes import draw_outline
from training.surfaces import distinct_colour

MIN_AREA = 0.003  # visible share of the picture below which an object is not asked for
MIN_VISIBLE = 0.35  # visible share of an object's own area below which it is not asked for
_PART_SHARE = 0.2  # objects that have a part with an outline of its own


@dataclass(frozen=True)
class Scene:
    """image (S, S, 3) uint8 RGB; labels (S, S) uint8: which object, part or background region each pixel shows.

    `objects` are the labels to ask for, `regions` the background's (wall, table). Objects that are too small or
    too hidden have a label in neither. `parts` are pairs (part, whole) of labels to ask for: a whole's mask includes
    its part, so a click on the part may mean either.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[int, ...]
    regions: tuple[int, ...]
    parts: tuple[tuple[int, int], ...] = ()

    def mask(self, label: int) -> NDArray[np.bool_]:
        """(S, S): the object, its part with it."""
        found = self.labels == label
        for part, whole in self.parts:
            if whole == label:
                found |= self.labels == part
        return found


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


class _Builder:
    """A scene while its objects are placed."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.canvas = rng, Canvas(size)
        self.regions = draw_background(rng, self.canvas)
        self.light = float(rng.uniform(-3.0, 0.0))  # from above
        self.shadow = float(rng.uniform(0.15, 0.6)) if rng.random() < 0.6 else 0.0
        self.parts: dict[int, int] = {}  # part: whole
        self._last = 2

    def _next_label(self) -> int:
        self._last += 1
        return self._last

    def place_objects(self, large_share: float) -> None:
        rng, size = self.rng, self.canvas.size
        for radius in draw_radii(rng, large_share):
            centre = rng.uniform(0.02, 0.98, 2) if radius < 0.18 else rng.uniform(0.2, 0.8, 2)
            row, column = (np.clip(centre[::-1] * size, 0, size - 1)).astype(int)
            label, paint = self._next_label(), draw_paint(rng, self.canvas.pixels[row, column])
            place = Placement(centre, radius, draw_matrix(rng))
            self.canvas.add(label, draw_outline(rng), place, paint, self.light, self.shadow)
            if radius > 0.1 and rng.random() < _PART_SHARE:
                self._add_part(label, place, paint)

    def _add_part(self, whole: int, place: Placement, paint: Paint) -> None:
        """Within the object, or attached and standing out."""
        rng, canvas, label = self.rng, self.canvas, self._next_label()
        within = rng.random() < 0.6
        direction, reach = rng.uniform(0, 6.28), rng.uniform(0, 0.4) if within else rng.uniform(0.5, 0.9)
        offset = reach * np.array([np.cos(direction), np.sin(direction)])
        at = Placement(
            place.centre + place.radius * (place.matrix @ offset),
            place.radius * float(rng.uniform(0.3, 0.55)),
            place.matrix @ draw_matrix(rng),
        )
        own = Paint(int(rng.integers(1 << 31)), distinct_colour(rng, paint.colour))
        canvas.add(label, draw_outline(rng), at, own, self.light, 0.3 * self.shadow, whole if within else None)
        if canvas.full_area.get(label, 0):
            self.parts[label] = whole
            canvas.full_area[whole] = int(np.isin(canvas.labels, (whole, label)).sum())

    def place_clones(self) -> None:
        """Many alike on a loose grid, as coins, bottles or fruit lie; each a little different."""
        rng, size = self.rng, self.canvas.size
        side = int(rng.integers(2, 6))
        outline, base = draw_outline(rng), draw_matrix(rng)
        model = draw_paint(rng, self.canvas.pixels[size // 2, size // 2])
        same = rng.random() < 0.6
        for cell in range(side * side):
            if rng.random() < 0.2:
                continue
            centre = (np.array([cell % side, cell // side]) + 0.5 + rng.normal(0, 0.12, 2)) / side
            radius = float(rng.uniform(0.3, 0.52)) / side
            tint = model.colour + rng.normal(0, 0.05, 3).astype(np.float32)
            paint = Paint(model.seed if same else int(rng.integers(1 << 31)), tint, model.glass)
            matrix = base if rng.random() < 0.6 else draw_matrix(rng)
            place = Placement(centre, radius, matrix)
            self.canvas.add(self._next_label(), outline, place, paint, self.light, self.shadow)

    def finish(self) -> Scene | None:
        """The scene, or None where nothing in it can be asked for."""
        labels, areas = self.canvas.labels, self.canvas.full_area
        visible = np.bincount(labels.ravel(), minlength=256)
        least = MIN_AREA * labels.size
        parts = {p: w for p, w in self.parts.items() if visible[p] >= max(least, MIN_VISIBLE * areas[p])}
        for part, whole in self.parts.items():
            visible[whole] += visible[part]
        objects = tuple(
            label
            for label, area in areas.items()
            if label not in self.parts and visible[label] >= max(least, MIN_VISIBLE * area)
        )
        for part, whole in self.parts.items():
            if part not in parts or whole not in objects or visible[part] > 0.8 * visible[whole]:
                labels[labels == part] = whole  # no part to ask for
                parts.pop(part, None)
        regions = tuple(region for region in self.regions if visible[region] >= 0.05 * labels.size)
        pairs = tuple(parts.items())
        return Scene(photograph(self.rng, self.canvas.pixels), labels, objects, regions, pairs) if objects else None


def draw_scene(seed: int, size: int, large_share: float = 0.3) -> Scene:
    """The scene number `seed` at `size` x `size` pixels; the same content at every size.

    `large_share` of the scenes have one or two large objects, the others several of all sizes.
    """
    rng = np.random.default_rng(seed)
    builder = _Builder(rng, size)
    if rng.random() < 0.18:
        builder.place_clones()
    else:
        builder.place_objects(large_share)
    return builder.finish() or draw_scene(seed + (1 << 40), size, large_share)
