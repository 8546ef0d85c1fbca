"""Outlines of drawn objects, in object units: each outline fits roughly into the unit circle, y points down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2) x, y


@dataclass(frozen=True)
class Outline:
    """Polygons that are filled and polygons cut out of them, each (n, 2)."""

    filled: tuple[Points, ...]
    cut: tuple[Points, ...] = ()


def _turn(count: int) -> NDArray[np.float64]:
    return np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)


def superellipse(rng: np.random.Generator, half_wh: tuple[float, float] = (1.0, 1.0), power: float = 0.0) -> Points:
    """An ellipse (power 2) to a rounded box (power 8); power 0 draws one."""
    power = power or float(rng.choice([2.0, 2.0, 2.0, 3.0, 5.0, 10.0]))
    t = _turn(56)
    c, s = np.cos(t), np.sin(t)
    x = np.sign(c) * np.abs(c) ** (2.0 / power) * half_wh[0]
    y = np.sign(s) * np.abs(s) ** (2.0 / power) * half_wh[1]
    return np.stack([x, y], axis=1)


def _ellipse(rng: np.random.Generator) -> Outline:
    return Outline((superellipse(rng, power=2.0),))


def _box(rng: np.random.Generator) -> Outline:
    return Outline((superellipse(rng, (1.0, float(rng.uniform(0.4, 1.0)))),))


def _blob(rng: np.random.Generator) -> Outline:
    t = _turn(72)
    radius = np.ones_like(t)
    for k in range(1, int(rng.integers(3, 7))):
        radius += rng.normal(0.0, 0.28 / k) * np.cos(k * t + rng.uniform(0, 6.28))
    radius = np.clip(radius, 0.25, 1.6)
    radius /= radius.max()
    return Outline((np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1),))


def _polygon(rng: np.random.Generator) -> Outline:
    count = int(rng.integers(3, 9))
    t = _turn(count) + rng.uniform(-0.3, 0.3, count)
    radius = rng.uniform(0.6, 1.0, count)
    if rng.random() < 0.3:  # a star
        t, radius = _turn(2 * count), np.where(np.arange(2 * count) % 2 == 0, 1.0, rng.uniform(0.4, 0.8))
    return Outline((np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1),))


def stroke(path: Points, width: NDArray[np.float64]) -> Points:
    """The polygon around `path` (n, 2) with half-width `width` (n,) at each of its points."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * width[:, None]
    return np.concatenate([path + across, (path - across)[::-1]])


def _bezier(rng: np.random.Generator, start: Points, end: Points, bend: float) -> Points:
    t = np.linspace(0.0, 1.0, 16)[:, None]
    middle = (start + end) / 2 + rng.normal(0.0, bend, 2)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def _rod(rng: np.random.Generator) -> Outline:
    path = _bezier(rng, np.array([-0.95, 0.0]), np.array([0.95, 0.0]), 0.45)
    width = rng.uniform(0.08, 0.3) * np.linspace(1.0, rng.uniform(0.5, 1.0), len(path))
    return Outline((stroke(path, width),))


def _ring(rng: np.random.Generator) -> Outline:
    outer, hole = superellipse(rng), float(rng.uniform(0.35, 0.7))
    return Outline((outer,), (outer * hole,))


def _vessel(rng: np.random.Generator) -> Outline:
    """A turned profile: bottle, vase, glass, cup."""
    y = np.linspace(-1.0, 1.0, 24)
    knots = rng.uniform(0.25, 0.75, 5)
    half = np.interp(y, np.linspace(-1, 1, 5), knots)
    half = np.convolve(np.pad(half, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    side = np.stack([half, y], axis=1)
    body = np.concatenate([side, side[::-1] * (-1, 1)])
    if rng.random() < 0.5:
        return Outline((body,))
    reach = float(half[12])
    handle = superellipse(rng, (0.35, 0.45), 2.0) + (reach, 0.0)
    inside = (handle - (reach, 0.0)) * 0.6 + (reach, 0.0)
    inside = inside[inside[:, 0] > reach * 0.98]
    return Outline((body, handle), (inside,)) if len(inside) > 3 else Outline((body,))


def _creature(rng: np.random.Generator) -> Outline:
    """A body with a head and limbs."""
    body = superellipse(rng, (0.62, float(rng.uniform(0.28, 0.42))), 2.5)
    head_at = np.array([0.66, -float(rng.uniform(0.1, 0.45))])
    head = superellipse(rng, (0.26, 0.24), 2.0) + head_at
    limbs = [stroke(_bezier(rng, np.array([0.45, 0.0]), head_at, 0.05), np.full(16, 0.16))]
    for x in rng.uniform(-0.52, 0.5, int(rng.integers(2, 5))):
        foot = np.array([x + rng.normal(0, 0.12), rng.uniform(0.65, 0.95)])
        limbs.append(stroke(_bezier(rng, np.array([x, 0.15]), foot, 0.08), np.linspace(0.12, 0.07, 16)))
    return Outline((body, head, *limbs))


def _vehicle(rng: np.random.Generator) -> Outline:
    body = superellipse(rng, (1.0, 0.28), 8.0) + (0.0, 0.15)
    cabin = superellipse(rng, (float(rng.uniform(0.3, 0.7)), 0.32), 5.0) + (float(rng.uniform(-0.3, 0.3)), -0.2)
    wheels = [superellipse(rng, (0.2, 0.2), 2.0) + (x, 0.42) for x in (-0.58, float(rng.uniform(0.3, 0.62)))]
    return Outline((body, cabin, *wheels))


def _plant(rng: np.random.Generator) -> Outline:
    """Leaves or branches around one point."""
    parts: list[Points] = []
    for angle in rng.uniform(0, 6.28, int(rng.integers(3, 8))):
        tip = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.6, 1.0)
        path = _bezier(rng, np.zeros(2), tip, 0.2)
        parts.append(stroke(path, rng.uniform(0.1, 0.25) * np.sin(np.linspace(0.5, 3.0, len(path))) + 0.02))
    return Outline(tuple(parts))


def _tree(rng: np.random.Generator) -> Outline:
    """A stem that branches, and its branches again: twigs, antlers, cables."""
    parts: list[Points] = []

    def grow(start: Points, angle: float, length: float, half_width: float, left: int) -> None:
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        path = _bezier(rng, start, end, 0.12 * length)
        parts.append(stroke(path, half_width * np.linspace(1.0, 0.6, len(path))))
        for _ in range(int(rng.integers(2, 4)) if left else 0):
            at = path[int(rng.integers(7, 16))]
            aside = rng.uniform(0.3, 1.0) * rng.choice([-1.0, 1.0])
            grow(at, angle + aside, 0.65 * length, 0.65 * half_width, left - 1)

    grow(np.array([0.0, 1.0]), -np.pi / 2, float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.05, 0.13)), 2)
    return Outline(tuple(parts))


def _wire(rng: np.random.Generator) -> Outline:
    """A thin line, straight or winding: a cable, a pole, a stalk."""
    t = np.linspace(-1.0, 1.0, 40)
    winding = rng.uniform(0.0, 0.5) * np.sin(rng.uniform(0.5, 5.0) * t + rng.uniform(0, 6.28))
    return Outline((stroke(np.stack([t, winding], axis=1), np.full(len(t), rng.uniform(0.025, 0.07))),))


def _pierced(rng: np.random.Generator) -> Outline:
    """A body with a few holes, through which one sees what is behind."""
    body = superellipse(rng, (1.0, float(rng.uniform(0.5, 1.0))))
    count, reach = int(rng.integers(1, 7)), float(rng.uniform(0.3, 0.55))
    height = float(body[:, 1].max())
    angles = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False) + rng.uniform(0, 6.28)
    half = float(rng.uniform(0.1, 0.22))
    middles = reach * np.stack([np.cos(angles), height * np.sin(angles)], axis=1)
    return Outline((body,), tuple(superellipse(rng, (half, half * height)) + middle for middle in middles))


def _joined(rng: np.random.Generator) -> Outline:
    first, second = _blob(rng).filled[0], _box(rng).filled[0]
    at = rng.uniform(-0.5, 0.5, 2)
    return Outline((first * 0.7 - at * 0.6, second * rng.uniform(0.3, 0.6) + at))


_KINDS: tuple[tuple[Callable[[np.random.Generator], Outline], float], ...] = (
    (_ellipse, 0.14),
    (_box, 0.14),
    (_blob, 0.14),
    (_polygon, 0.08),
    (_rod, 0.06),
    (_ring, 0.05),
    (_vessel, 0.12),
    (_creature, 0.07),
    (_vehicle, 0.05),
    (_plant, 0.03),
    (_tree, 0.03),
    (_wire, 0.02),
    (_pierced, 0.04),
    (_joined, 0.03),
)
_WEIGHTS = [weight for _, weight in _KINDS]


def draw_outline(rng: np.random.Generator) -> Outline:
    """One outline of a kind drawn at random."""
    return _KINDS[int(rng.choice(len(_KINDS), p=_WEIGHTS))][0](rng)
