"""Draws clips with known objects: what the memory modules of the embedded model are trained on.

A clip is a pure function of (seed, size, frames), made of the parts of `scenes`: objects move, turn, grow, bend, pass
before one another, leave and come back; look-alikes stand beside them; the camera moves too, and some clips are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.actors import Actor, draw_actors, draw_camera
from training.canvas import Canvas, Paint, Placement
from training.photography import photograph
from training.scenes import MIN_AREA, MIN_VISIBLE
from training.shapes import Outline
from training.shots import Shot, draw_cut, draw_world, middle_of
from training.surfaces import distinct_colour

_GONE = 1.6  # sides of the picture that an occluder stands off while it hides nothing
_CUT_SHARE = 0.2  # of the clips that no cover is asked for


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


class _Screen:
    """What stands before one object while it is covered."""

    def __init__(self, rng: np.random.Generator, cover: Cover, actors: list[Actor], pace: float) -> None:
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


def _random_cover(rng: np.random.Generator, frames: int) -> Cover | None:
    if frames < 3 or rng.random() >= 0.35:
        return None
    start = float(rng.uniform(1, frames - 1))
    return Cover(int(rng.integers(0, 3)), start, start + float(rng.uniform(0.5, max(1.0, frames / 3))))


def draw_clip(seed: int, size: int, frames: int, cover: Cover | None = None, leap: int = 1) -> Clip:
    """The clip number `seed` at `size` x `size` pixels.

    Without `cover` a fifth of the clips are cut, and of the others a third have a cover of their own. `leap`: the time
    from one frame to the next, so that few frames tell of a long clip.
    """
    length = 1 + (frames - 1) * leap
    rng = np.random.default_rng((seed, 2))
    pace = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    world = draw_world(rng, size)
    actors = draw_actors(rng, size, middle_of(world, size), pace)
    shots = [Shot(0, world, dict(enumerate(actors, start=2)), draw_camera(rng, pace))]
    light, shadow = float(rng.uniform(-3.0, 0.0)), float(rng.choice([0.0, rng.uniform(0.15, 0.6)]))
    screen = None
    if cover is None and length > 1 and rng.random() < _CUT_SHARE:
        shots = draw_cut(rng, shots[0], size, length, pace)
    else:
        cover = cover or _random_cover(rng, length)
        screen = None if cover is None else _Screen(rng, cover, actors, pace)
    screen_label = len(actors) + 2
    pictures, labels = [], []
    objects: tuple[int, ...] = ()
    for time in range(0, length, leap):
        shot, canvas = [s for s in shots if s.start <= time][-1], Canvas(size)
        canvas.pixels[:] = shot.background(time, size)
        canvas.labels[:] = 1
        for label, actor in shot.actors.items():
            place = shot.camera.seen(actor.placed(time), time)
            canvas.add(label, actor.bent(time), place, actor.paint, light, shadow)
        if screen is not None:
            outline, paint = screen.outline()
            canvas.add(screen_label, outline, shot.camera.seen(screen.placed(time), time), paint, light, shadow)
        look = (seed, 3, 0 if shot.world is world else 1)  # another place has other light
        noise_rng = np.random.default_rng((seed, time))
        pictures.append(photograph(np.random.default_rng(look), canvas.pixels, noise_rng))
        labels.append(canvas.labels)
        if time == 0:
            objects = _askable(canvas, screen_label)
    if not objects:
        return draw_clip(seed + (1 << 40), size, frames, cover, leap)
    return Clip(np.stack(pictures), np.stack(labels), objects)


def _askable(canvas: Canvas, screen_label: int) -> tuple[int, ...]:
    visible = np.bincount(canvas.labels.ravel(), minlength=256)
    least = MIN_AREA * canvas.size**2
    areas = canvas.full_area.items()
    return tuple(n for n, area in areas if n != screen_label and visible[n] >= max(least, MIN_VISIBLE * area))
