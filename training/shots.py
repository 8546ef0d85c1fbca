"""Shots: what a clip shows from one cut to the next.

At a cut the camera stands elsewhere, or the same objects are met in another place, or the picture turns away to
strangers and comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.actors import Actor, Camera, draw_actors, turned
from training.backgrounds import draw_background
from training.canvas import Canvas, Placement
from training.surfaces import FloatImage

BACKGROUND_SCALE = 1.5  # the background is drawn this much wider than the picture, for the camera to move over
STRANGERS_FROM = 64  # labels of objects that are seen in a shot without those of the first frame


@dataclass(frozen=True)
class Shot:
    """From frame `start` on: objects by label, in the order in which they are drawn, before a background."""

    start: int
    world: FloatImage
    actors: Mapping[int, Actor]
    camera: Camera

    def background(self, time: float, size: int) -> FloatImage:
        """What the camera sees of the world (size, size, 3), the objects left out."""
        return background_view(self.world, self.camera, time, size, cv2.INTER_LINEAR)


def background_view(world: NDArray[Any], camera: Camera, time: float, size: int, interpolation: int) -> FloatImage:
    """What `camera` sees of `world` (S', S') or (S', S', 3), BACKGROUND_SCALE as wide as the picture of side `size`."""
    matrix, shift = camera.view(time)
    inverse = np.linalg.inv(matrix)
    # From a pixel of the picture to one of the wider background, both centred.
    offset = world.shape[0] / 2 - inverse @ (np.array([size / 2, size / 2]) + shift * size)
    affine, flags = np.column_stack((inverse, offset)), interpolation | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(world, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen, np.float32)


def draw_world(rng: np.random.Generator, size: int) -> FloatImage:
    """A background for a picture of `size`, wider than that."""
    world = Canvas(int(BACKGROUND_SCALE * size))
    draw_background(rng, world)
    return world.pixels


def middle_of(world: FloatImage, size: int) -> FloatImage:
    """What of the world (size, size, 3) a camera sees that has not moved."""
    low = (world.shape[0] - size) // 2
    return world[low : low + size, low : low + size]


def draw_cut(rng: np.random.Generator, first: Shot, size: int, frames: int, pace: float) -> list[Shot]:
    """The shots of a clip that begins with `first` and is cut once, or cut away from and back to."""
    start = int(rng.integers(1, frames))
    kind = int(rng.integers(0, 3))
    if kind == 0:
        return [first, _other_view(rng, first, start)]
    if kind == 1:
        return [first, _other_place(rng, first, size, start)]
    world = draw_world(rng, size)
    strangers = draw_actors(rng, size, middle_of(world, size), pace)
    away = Shot(start, world, dict(enumerate(strangers, STRANGERS_FROM)), first.camera)
    back = start + int(rng.integers(1, max(2, frames // 3) + 1))
    again = replace(first, start=back) if rng.random() < 0.5 else _other_view(rng, first, back)
    return [first, away, again]


def _other_view(rng: np.random.Generator, shot: Shot, start: int) -> Shot:
    """The same place and objects, the camera nearer, farther, beside, turned."""
    camera = replace(
        shot.camera,
        place=rng.uniform(-0.25, 0.25, 2),
        closer=float(rng.uniform(-0.3, 0.45)),
        turn=float(rng.normal(0, 0.12)),
    )
    return replace(shot, start=start, camera=camera)


def _other_place(rng: np.random.Generator, shot: Shot, size: int, start: int) -> Shot:
    """Most of the objects before another background, each elsewhere, of another size, turned a little."""
    actors = {}
    for label, actor in shot.actors.items():
        centre = rng.uniform(0.15, 0.85, 2) - actor.motion.shift(start)
        radius = float(np.clip(actor.place.radius * np.exp(rng.normal(0, 0.25)), 0.05, 0.5))
        place = Placement(centre, radius, turned(rng.normal(0, 0.25)) @ actor.place.matrix)
        if rng.random() < 0.85:
            actors[label] = replace(actor, place=place)
    return Shot(start, draw_world(rng, size), actors, shot.camera)
