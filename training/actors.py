"""What moves in a clip: objects, each with a motion of its own, and the camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.canvas import Paint, Placement, draw_paint
from training.scenes import draw_matrix, draw_radii
from training.shapes import Outline, Points, draw_outline
from training.surfaces import FloatImage


@dataclass(frozen=True)
class Motion:
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
class Actor:
    """One object: how it looks, where it stands on the first frame, how it moves."""

    outline: Outline
    place: Placement
    paint: Paint
    motion: Motion

    def placed(self, time: float) -> Placement:
        turn = turned(self.motion.spin * time)
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
class Camera:
    """Moves over the world by sines: shift in sides of the picture, zoom and roll about the middle.

    It does so from where it stands: `place` in sides of the picture, `closer` (a logarithm), `turn` in radians.
    """

    reach: Points
    rate: float
    zoom: float
    roll: float
    place: Points
    closer: float = 0.0
    turn: float = 0.0

    def view(self, time: float) -> tuple[NDArray[np.float64], Points]:
        """matrix (2, 2) and shift (2,): a world point p is seen at matrix @ (p - 0.5) + 0.5 + shift."""
        wave = np.sin(self.rate * time)
        matrix = turned(self.turn + self.roll * wave) * np.exp(self.closer + self.zoom * wave)
        return matrix, self.place + self.reach * wave

    def seen(self, place: Placement, time: float) -> Placement:
        matrix, shift = self.view(time)
        zoom = float(np.sqrt(np.linalg.det(matrix)))
        centre = matrix @ (place.centre - 0.5) + 0.5 + shift
        return Placement(centre, place.radius * zoom, matrix / zoom @ place.matrix)


def turned(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def draw_motion(rng: np.random.Generator, pace: float) -> Motion:
    speed = pace * float(np.exp(rng.uniform(np.log(0.002), np.log(0.03))))
    reach = rng.uniform(0.04, 0.25)
    direction = rng.normal(size=2)
    direction /= np.linalg.norm(direction)
    drifts = rng.random() < 0.25
    return Motion(
        drift=direction * speed * 0.7 if drifts else np.zeros(2),
        swing=np.zeros(2) if drifts else direction * reach,
        swing_rate=speed / reach,
        phase=float(rng.uniform(0, 6.28)),
        spin=pace * float(rng.normal(0, 0.03)) if rng.random() < 0.5 else 0.0,
        growth=float(rng.normal(0, 0.25)) if rng.random() < 0.5 else 0.0,
        bend=float(rng.uniform(0.03, 0.14)) if rng.random() < 0.4 else 0.0,
        bend_rate=pace * float(rng.uniform(0.03, 0.3)),
    )


def draw_actors(rng: np.random.Generator, size: int, background: FloatImage, pace: float) -> list[Actor]:
    """Largest first, so that small ones pass in front; at times several alike."""
    actors: list[Actor] = []
    alike = rng.random() < 0.3
    for radius in draw_radii(rng)[:7]:
        centre = rng.uniform(0.05, 0.95, 2) if radius < 0.18 else rng.uniform(0.2, 0.8, 2)
        place = Placement(centre, radius, draw_matrix(rng))
        motion = draw_motion(rng, pace)
        if alike and actors and rng.random() < 0.7:
            model = actors[0]
            tint = model.paint.colour + rng.normal(0, 0.06, 3).astype(np.float32)
            twin = replace(model, place=replace(place, radius=model.place.radius * float(rng.uniform(0.7, 1.1))))
            actors.append(replace(twin, paint=replace(model.paint, colour=tint), motion=motion))
            continue
        row, column = np.clip(centre[::-1] * size, 0, size - 1).astype(int)
        paint = draw_paint(rng, background[row, column])
        actors.append(Actor(draw_outline(rng), place, paint, motion))
    return actors


def draw_camera(rng: np.random.Generator, pace: float) -> Camera:
    still = rng.random() < 0.4
    strength = 0.0 if still else 1.0
    rate = pace * float(np.exp(rng.uniform(np.log(0.02), np.log(0.2))))
    return Camera(
        strength * rng.uniform(-0.12, 0.12, 2),
        rate,
        strength * float(rng.normal(0, 0.08)),
        strength * rng.normal(0, 0.06),
        np.zeros(2),
    )
