"""Clips whose objects are cut-outs, moving over photographs that the camera pans over: a pure function of its seed.

The photograph's own regions are objects too, which move with the camera alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.actors import Camera, Motion, draw_camera, draw_motion, turned
from training.canvas import Placement
from training.clips import Clip
from training.photography import photograph
from training.pictures import Layers, Material, blend, draw_photo, draw_tint, pick_cutout, place_cutout
from training.scenes import MIN_AREA, MIN_VISIBLE, draw_matrix
from training.shots import BACKGROUND_SCALE, background_view
from training.surfaces import FloatImage

_MOST_REGIONS = 2
_FIRST_REGION = 100  # labels from here on are regions of the photograph
_COVERED_SHARE = 0.35  # clips in which one object is covered for a while
_ALIKE_SHARE = 0.35  # clips in which several objects are the same cut-out


@dataclass(frozen=True)
class _Performer:
    """A cut-out (h, w, 4), where it stands on the first frame, how it moves, the colour of its light."""

    cutout: NDArray[np.uint8]
    place: Placement
    motion: Motion
    tint: FloatImage
    seed: int

    def placed(self, time: float) -> Placement:
        turn = turned(self.motion.spin * time)
        squeeze = np.diag([1.0 + self.motion.bend * np.sin(self.motion.bend_rate * time), 1.0])
        radius = self.place.radius * self.motion.size(time)
        return Placement(self.place.centre + self.motion.shift(time), radius, turn @ self.place.matrix @ squeeze)


def draw_photo_clip(material: Material, seed: int, size: int, frames: int, leap: int) -> Clip | None:
    """The clip number `seed`; None where nothing in it can be asked for."""
    rng = np.random.default_rng((seed, 5))
    pace = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    world = draw_photo(material, rng, int(BACKGROUND_SCALE * size))
    regions = _label_regions(rng, world)
    performers, camera = _draw_performers(rng, material, pace), draw_camera(rng, pace)
    if rng.random() < _COVERED_SHARE:
        performers.append(_draw_cover(rng, material, performers, frames * leap))
    pictures, labels = [], []
    areas: dict[int, float] = {}
    for time in range(0, frames * leap, leap):
        pixels, seen, areas_now = _draw_frame(world.pixels, regions, performers, camera, time, size)
        areas = areas or areas_now
        noise_rng = np.random.default_rng((seed, time, 1))
        pictures.append(photograph(np.random.default_rng((seed, 6)), pixels, noise_rng))
        labels.append(seen)
    visible = np.bincount(labels[0].ravel(), minlength=256)
    least = MIN_AREA * size * size
    objects = tuple(n for n, area in areas.items() if visible[n] >= max(least, MIN_VISIBLE * area))
    return Clip(np.stack(pictures), np.stack(labels), objects) if objects else None


def _label_regions(rng: np.random.Generator, world: Layers) -> NDArray[np.uint8]:
    """(S', S') uint8: some regions of the photograph that do not overlap, 1 elsewhere."""
    found = np.ones(world.labels.shape, np.uint8)
    likely = world.chances / world.chances.sum() if len(world.chances) else world.chances
    many = min(4, len(likely))
    taken = 0
    for index in rng.choice(len(likely), many, replace=False, p=likely) if many else ():
        mask = world.members[index][world.labels]
        if taken < _MOST_REGIONS and not (found[mask] > 1).any() and mask.mean() < 0.5:
            found[mask] = _FIRST_REGION + taken
            taken += 1
    return found


def _draw_performers(rng: np.random.Generator, material: Material, pace: float) -> list[_Performer]:
    """Largest first, so that small ones pass in front; at times several of the same cut-out."""
    alike = pick_cutout(material, rng) if rng.random() < _ALIKE_SHARE else None
    found = []
    for radius in sorted(np.exp(rng.uniform(np.log(0.06), np.log(0.35), int(rng.integers(1, 6)))), reverse=True):
        cutout = alike if alike is not None and rng.random() < 0.7 else pick_cutout(material, rng)
        place = Placement(rng.uniform(0.1, 0.9, 2), float(radius), draw_matrix(rng))
        tint = draw_tint(rng)
        found.append(_Performer(cutout, place, draw_motion(rng, pace), tint, int(rng.integers(1 << 31))))
    return found


def _draw_cover(rng: np.random.Generator, material: Material, performers: list[_Performer], length: int) -> _Performer:
    """Something that comes from outside, passes before one of the others and goes on."""
    target, meets = performers[int(rng.integers(len(performers)))], float(rng.uniform(1, max(length - 1, 2)))
    angle, at = rng.uniform(0, 6.28), target.placed(meets)
    # At the first frame it is still outside, however soon they meet.
    speed = max(float(rng.uniform(0.03, 0.2)), 1.0 / meets)
    drift = speed * np.array([np.cos(angle), np.sin(angle)])
    radius = float(np.clip(at.radius * rng.uniform(0.9, 1.8), 0.1, 0.5))
    place = Placement(at.centre - drift * meets, radius, draw_matrix(rng))
    motion = Motion(drift, np.zeros(2), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return _Performer(pick_cutout(material, rng), place, motion, draw_tint(rng), int(rng.integers(1 << 31)))


def _draw_frame(
    world: FloatImage, regions: NDArray[np.uint8], performers: list[_Performer], camera: Camera, time: int, size: int
) -> tuple[FloatImage, NDArray[np.uint8], dict[int, float]]:
    """Pixels (S, S, 3), labels (S, S), and the whole area of each label in pixels."""
    pixels = background_view(world, camera, time, size, cv2.INTER_LINEAR)
    labels = background_view(regions, camera, time, size, cv2.INTER_NEAREST).astype(np.uint8)
    areas = {int(n): float((labels == n).sum()) for n in np.unique(labels) if n >= _FIRST_REGION}
    for label, performer in enumerate(performers, start=2):
        at, after = (camera.seen(performer.placed(t), t) for t in (time, time + 0.3))
        colour, alpha = place_cutout(performer.cutout, at.centre, at.radius, at.matrix, size)
        colour, alpha = _smear((after.centre - at.centre) * size, colour * performer.tint, alpha)
        mask = alpha > 0.5
        blend(np.random.default_rng(performer.seed), pixels, np.minimum(colour, 1.0), alpha)
        labels[mask] = label
        areas[label] = float(mask.sum())
    return pixels, labels, areas


def _smear(
    way: NDArray[np.float64], colour: FloatImage, alpha: NDArray[np.float32]
) -> tuple[FloatImage, NDArray[np.float32]]:
    """Motion blur along `way`, x and y in pixels, where that is more than one."""
    steps = int(np.ceil(np.abs(way).max()))
    if not 1 < steps < 24:
        return colour, alpha
    kernel = np.zeros((steps | 1, steps | 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 2 * steps):
        x, y = np.round(share * way + (steps | 1) // 2).astype(int)
        kernel[np.clip(y, 0, steps | 1), np.clip(x, 0, steps | 1)] += 1.0 / (2 * steps)
    blurred = (np.asarray(cv2.filter2D(x, -1, kernel), np.float32) for x in (colour, alpha))
    return tuple(blurred)  # type: ignore[return-value]
