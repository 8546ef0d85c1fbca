"""Draws clips with known objects: what the memory modules of the embedded model are trained on.

A clip is a pure function of (seed, size, frames), made of the parts of `scenes`: objects move, turn, grow, bend, pass
before one another, leave and come back; look-alikes stand beside them; the camera moves too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.backgrounds import draw_background
from training.canvas import Canvas, Paint, Placement, draw_paint
from training.photography import photograph
from training.scenes import MIN_AREA, MIN_VISIBLE, draw_matrix, draw_radii
from training.shapes import Outline, Points, draw_outline
from training.surfaces import FloatImage, distinct_colour

_BACKGROUND_SCALE = 1.5  # the background is drawn this much wider than the picture, for the camera to move over
_GONE = 1.6  # sides of the picture that an occluder stands off while it hides nothing


@dataclass(frozen=True)
class Clip:
    """frames (T, S, S, 3) uint8 RGB; labels (T, S, S) uint8: which object each pixel shows.

    `objects` are the labels to ask for on the first frame.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[int, ...]


@dataclass(frozen=True)
class Cover:
    """The object `target` (an index, largest first) is hidden from frame `start` to before `stop`."""

    target: int
    start: float
    stop: float


@dataclass(frozen=True)
class _Motion:
    """Shares of the side a frame, radians a frame, and so on, all 0 at rest."""

    drift: Points
    swing: Points
    swing_rate: float
    phase: float
    spin: float
    growth: float
    bend: float
    bend_rate: float

    def shift(self, time: float) -> Points:
        return self.drift * time + self.swing * (np.sin(self.swing_rate * time + self.phase) - np.sin(self.phase))

    def size(self, time: float) -> float:
        return float(np.exp(self.growth * np.sin(self.swing_rate * time)))


@dataclass(frozen=True)
class _Actor:
    """One object: how it looks, where it stands on the first frame, how it moves."""

    outline: Outline
    place: Placement
    paint: Paint
    motion: _Motion

    def placed(self, time: float) -> Placement:
        turn = _turned(self.motion.spin * time)
        radius = self.place.radius * self.motion.size(time)
        return Placement(self.place.centre + self.motion.shift(time), radius, turn @ self.place.matrix)

    def bent(self, time: float) -> Outline:
        if self.motion.bend == 0:
            return self.outline
        return Outline(*(tuple(self._bent(p, time) for p in part) for part in (self.outline.filled, self.outline.cut)))

    def _bent(self, points: Points, time: float) -> Points:
        angle = self.motion.bend_rate * time
        waves = np.sin(2.0 * points[:, ::-1] + (angle, 0.7 * angle)) - np.sin(2.0 * points[:, ::-1])
        return points + self.motion.bend * waves


@dataclass(frozen=True)
class _Camera:
    """Moves over the world by sines: shift in sides of the picture, zoom and roll about the middle."""

    reach: Points
    rate: float
    zoom: float
    roll: float

    def view(self, time: float) -> tuple[NDArray[np.float64], Points]:
        """matrix (2, 2) and shift (2,): a world point p is seen at matrix @ (p - 0.5) + 0.5 + shift."""
        wave = np.sin(self.rate * time)
        return _turned(self.roll * wave) * np.exp(self.zoom * wave), self.reach * wave

    def seen(self, place: Placement, time: float) -> Placement:
        matrix, shift = self.view(time)
        zoom = float(np.sqrt(np.linalg.det(matrix)))
        centre = matrix @ (place.centre - 0.5) + 0.5 + shift
        return Placement(centre, place.radius * zoom, matrix / zoom @ place.matrix)


def _turned(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _draw_motion(rng: np.random.Generator, pace: float) -> _Motion:
    speed = pace * float(np.exp(rng.uniform(np.log(0.002), np.log(0.03))))
    reach = rng.uniform(0.04, 0.25)
    direction = rng.normal(size=2)
    direction /= np.linalg.norm(direction)
    drifts = rng.random() < 0.25
    return _Motion(
        drift=direction * speed * 0.7 if drifts else np.zeros(2),
        swing=np.zeros(2) if drifts else direction * reach,
        swing_rate=speed / reach,
        phase=float(rng.uniform(0, 6.28)),
        spin=pace * float(rng.normal(0, 0.03)) if rng.random() < 0.5 else 0.0,
        growth=float(rng.normal(0, 0.25)) if rng.random() < 0.5 else 0.0,
        bend=float(rng.uniform(0.03, 0.14)) if rng.random() < 0.4 else 0.0,
        bend_rate=pace * float(rng.uniform(0.03, 0.3)),
    )


def _draw_actors(rng: np.random.Generator, size: int, background: FloatImage, pace: float) -> list[_Actor]:
    """Largest first, so that small ones pass in front; at times several alike."""
    actors: list[_Actor] = []
    alike = rng.random() < 0.3
    for radius in draw_radii(rng)[:7]:
        centre = rng.uniform(0.05, 0.95, 2) if radius < 0.18 else rng.uniform(0.2, 0.8, 2)
        place = Placement(centre, radius, draw_matrix(rng))
        motion = _draw_motion(rng, pace)
        if alike and actors and rng.random() < 0.7:
            model = actors[0]
            tint = model.paint.colour + rng.normal(0, 0.06, 3).astype(np.float32)
            twin = replace(model, place=replace(place, radius=model.place.radius * float(rng.uniform(0.7, 1.1))))
            actors.append(replace(twin, paint=replace(model.paint, colour=tint), motion=motion))
            continue
        row, column = np.clip(centre[::-1] * size, 0, size - 1).astype(int)
        paint = draw_paint(rng, background[row, column])
        actors.append(_Actor(draw_outline(rng), place, paint, motion))
    return actors


def _draw_camera(rng: np.random.Generator, pace: float) -> _Camera:
    still = rng.random() < 0.4
    strength = 0.0 if still else 1.0
    rate = pace * float(np.exp(rng.uniform(np.log(0.02), np.log(0.2))))
    return _Camera(
        strength * rng.uniform(-0.12, 0.12, 2),
        rate,
        strength * float(rng.normal(0, 0.08)),
        strength * rng.normal(0, 0.06),
    )


class _Screen:
    """What stands before one object while it is covered."""

    def __init__(self, rng: np.random.Generator, cover: Cover, actors: list[_Actor], pace: float) -> None:
        self._cover = cover
        self._target = actors[cover.target % len(actors)]
        angle = rng.uniform(0, 6.28)
        self._from = np.array([np.cos(angle), np.sin(angle)])
        self._approach = float(rng.uniform(2, 7)) / pace
        half = (float(rng.uniform(1.0, 1.5)), float(rng.uniform(1.0, 1.5)))
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * half
        self._outline = Outline((corners,))
        colour = distinct_colour(rng, self._target.paint.colour)
        self._paint = Paint(int(rng.integers(1 << 31)), colour)

    def outline(self) -> tuple[Outline, Paint]:
        return self._outline, self._paint

    def placed(self, time: float) -> Placement:
        target = self._target.placed(time)
        late = max(self._cover.start - time, time - self._cover.stop + 1, 0.0)
        off = self._from * (np.sign(time - self._cover.start) or 1.0) * _GONE * late / self._approach
        return Placement(target.centre + off, 1.45 * target.radius, np.eye(2))


def _background_at(world: FloatImage, camera: _Camera, time: float, size: int) -> FloatImage:
    matrix, shift = camera.view(time)
    inverse = np.linalg.inv(matrix)
    # From a pixel of the picture to one of the wider background, both centred.
    wide = world.shape[0]
    offset = wide / 2 - inverse @ (np.array([size / 2, size / 2]) + shift * size)
    affine = np.column_stack((inverse, offset))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(world, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32
    )


def _random_cover(rng: np.random.Generator, frames: int) -> Cover | None:
    if frames < 3 or rng.random() >= 0.35:
        return None
    start = float(rng.uniform(1, frames - 1))
    return Cover(int(rng.integers(0, 3)), start, start + float(rng.uniform(0.5, max(1.0, frames / 3))))


def draw_clip(seed: int, size: int, frames: int, cover: Cover | None = None) -> Clip:
    """The clip number `seed` at `size` x `size` pixels; without `cover`, a third of the clips have one of their own."""
    rng = np.random.default_rng((seed, 2))
    pace = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    world = Canvas(int(_BACKGROUND_SCALE * size))
    draw_background(rng, world)
    middle = (world.size - size) // 2
    actors = _draw_actors(rng, size, world.pixels[middle:, middle:], pace)
    camera = _draw_camera(rng, pace)
    light, shadow = float(rng.uniform(-3.0, 0.0)), float(rng.choice([0.0, rng.uniform(0.15, 0.6)]))
    cover = cover or _random_cover(rng, frames)
    screen = None if cover is None else _Screen(rng, cover, actors, pace)
    pictures, labels, objects = [], [], ()
    for time in range(frames):
        canvas = Canvas(size)
        canvas.pixels[:] = _background_at(world.pixels, camera, time, size)
        canvas.labels[:] = 1
        for label, actor in enumerate(actors, start=2):
            place = camera.seen(actor.placed(time), time)
            canvas.add(label, actor.bent(time), place, actor.paint, light, shadow)
        if screen is not None:
            outline, paint = screen.outline()
            place = camera.seen(screen.placed(time), time)
            canvas.add(len(actors) + 2, outline, place, paint, light, shadow)
        pictures.append(
            photograph(np.random.default_rng((seed, 3)), canvas.pixels, np.random.default_rng((seed, time)))
        )
        labels.append(canvas.labels)
        if time == 0:
            objects = _askable(canvas, len(actors) + 2)
    if not objects:
        return draw_clip(seed + (1 << 40), size, frames, cover)
    return Clip(np.stack(pictures), np.stack(labels), objects)


def _askable(canvas: Canvas, screen_label: int) -> tuple[int, ...]:
    visible = np.bincount(canvas.labels.ravel(), minlength=256)
    least = MIN_AREA * canvas.size**2
    areas = canvas.full_area.items()
    return tuple(n for n, area in areas if n != screen_label and visible[n] >= max(least, MIN_VISIBLE * area))
