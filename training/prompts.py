"""Prompts on training pictures: clicks, boxes, boxes with clicks, and their targets.

Slots follow the official predictor: a box is two corners (labels 2 and 3) before any clicks. Slots that a prompt does
not use are absent (label -2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND
from training.pictures import Picture

SLOTS = 8
CORNER_LOW, CORNER_HIGH = 2, 3
_BOX_SHARE = 0.3
_EMPTY_SHARE = 0.02
_ALIKE = 0.8  # IoU from which on two objects are one to a person who clicks
OTHERS = 2  # further objects that one click may mean


@dataclass(frozen=True)
class Prompts:
    """P prompts on one picture of side S.

    coords (P, N, 2) float32 x, y in pixels of the picture; labels (P, N) int64; targets (P, S, S) bool; others
    (P, OTHERS, S, S) bool: what a single click may mean as well, empty where there is no more; anchors (P, 2) int64
    x, y of one pixel on each target; same (P, P) float32: whether the anchor of the second lies on the target of the
    first, -1 where that cannot be told; present (P,) float32, 0 where the prompt marks nothing.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int64]
    targets: NDArray[np.bool_]
    others: NDArray[np.bool_]
    anchors: NDArray[np.int64]
    same: NDArray[np.float32]
    present: NDArray[np.float32]


Click = tuple[float, float, int]  # x, y in pixels, label


def slots(points: list[Click]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """coords (SLOTS, 2) and labels (SLOTS,) of one prompt, unused slots absent."""
    coords, labels = np.zeros((SLOTS, 2), np.float32), np.full(SLOTS, ABSENT, np.int64)
    for slot, (x, y, label) in enumerate(points[:SLOTS]):
        coords[slot], labels[slot] = (x, y), label
    return coords, labels


def edge_distance(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(S, S) pixels from each pixel to the nearest one of another label or the picture's edge."""
    inner = np.zeros(labels.shape, np.uint8)
    centre = labels[1:-1, 1:-1]
    alike = (centre == labels[:-2, 1:-1]) & (centre == labels[2:, 1:-1])
    alike &= (centre == labels[1:-1, :-2]) & (centre == labels[1:-1, 2:])
    inner[1:-1, 1:-1] = alike
    return np.asarray(cv2.distanceTransform(inner, cv2.DIST_L2, 3), np.float32)


def depth_inside(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W) pixels from each one of `mask` to its edge, the picture's being one; 0 off it."""
    padded = np.pad(mask.astype(np.uint8), 1)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32)


def deepest_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """x, y of the pixel of `mask` (H, W) that is farthest from its edge."""
    return highest(depth_inside(mask))


def highest(values: NDArray[np.float32]) -> tuple[int, int]:
    """x, y of the largest of `values` (H, W)."""
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    return int(x), int(y)


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the pixels of `mask` (H, W)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def box_points(x1: float, y1: float, x2: float, y2: float) -> list[Click]:
    return [(x1, y1, CORNER_LOW), (x2, y2, CORNER_HIGH)]


def click_inside(rng: np.random.Generator, mask: NDArray[np.bool_], depth: NDArray[np.float32]) -> tuple[int, int]:
    """x, y of a random pixel of `mask`, rather off its edge."""
    found = np.flatnonzero(mask)
    tries = rng.choice(found, 2)
    best = int(tries[int(depth.ravel()[tries].argmax())])
    return best % mask.shape[1], best // mask.shape[1]


def click_outside(rng: np.random.Generator, mask: NDArray[np.bool_]) -> tuple[int, int] | None:
    """x, y of a random pixel off `mask`, near it; None where all is mask."""
    x1, y1, x2, y2 = box_of(mask)
    reach = 0.3 * max(x2 - x1, y2 - y1) + 2
    side = mask.shape[0]
    for _ in range(12):
        x = int(np.clip(rng.uniform(x1 - reach, x2 + reach), 0, side - 1))
        y = int(np.clip(rng.uniform(y1 - reach, y2 + reach), 0, side - 1))
        if not mask[y, x]:
            return x, y
    return None


def _clicks(
    rng: np.random.Generator, mask: NDArray[np.bool_], depth: NDArray[np.float32], first: tuple[int, int], count: int
) -> list[Click]:
    clicks: list[Click] = [(*first, FOREGROUND)]
    for _ in range(count - 1):
        outside = click_outside(rng, mask) if rng.random() < 0.5 else None
        clicks.append((*outside, BACKGROUND) if outside else (*click_inside(rng, mask, depth), FOREGROUND))
    return clicks


def _loose_box(rng: np.random.Generator, mask: NDArray[np.bool_]) -> list[Click]:
    """The box of `mask`, each side off by a few hundredths of its length, as a person draws it."""
    x1, y1, x2, y2 = box_of(mask)
    off = rng.normal(0.0, 0.03, 4) * (x2 - x1, y2 - y1, x2 - x1, y2 - y1)
    return box_points(*np.clip(np.array([x1, y1, x2, y2]) + off, 0, mask.shape[0] - 1))


def _one_prompt(
    rng: np.random.Generator, mask: NDArray[np.bool_], depth: NDArray[np.float32], anchor: tuple[int, int]
) -> list[Click]:
    if rng.random() < _BOX_SHARE:
        box = _loose_box(rng, mask)
        if rng.random() < 0.25:
            box += _clicks(rng, mask, depth, anchor, int(rng.integers(1, 4)))
        return box
    count = 1 if rng.random() < 0.5 else int(rng.integers(2, SLOTS))
    return _clicks(rng, mask, depth, anchor, count)


def draw_prompt(rng: np.random.Generator, mask: NDArray[np.bool_], depth: NDArray[np.float32]) -> list[Click]:
    """Clicks, a box, or both for one object (S, S); `depth` as `edge_distance` gives it."""
    return _one_prompt(rng, mask, depth, click_inside(rng, mask, depth))


def _find_others(picture: Picture, chosen: int, at: tuple[int, int]) -> list[int]:
    """Other objects that a click at x, y may mean, likely ones first, and no two nearly the same."""
    piece = picture.labels[at[1], at[0]]
    areas = np.bincount(picture.labels.ravel(), minlength=picture.members.shape[1])
    found: list[int] = []
    for index in np.flatnonzero(picture.members[:, piece])[np.argsort(-picture.chances[picture.members[:, piece]])]:
        members = picture.members[index]
        nested = (picture.members[[chosen, *found]] & members) @ areas
        joined = (picture.members[[chosen, *found]] | members) @ areas
        if (nested < _ALIKE * joined).all():
            found.append(int(index))
    return found


def draw_prompts(picture: Picture, count: int, seed: int) -> Prompts:
    """`count` prompts on `picture`, a pure function of the picture and `seed`.

    A single click on an object that lies within others is asked for the likelier of them more often.
    """
    rng = np.random.default_rng((seed, 1))
    chosen = _choose(rng, picture, count)
    present = (rng.random(count) >= _EMPTY_SHARE).astype(np.float32)
    coords, labels = np.zeros((count, SLOTS, 2), np.float32), np.full((count, SLOTS), ABSENT, np.int64)
    anchors = np.zeros((count, 2), np.int64)
    others: list[list[Any]] = [[] for _ in chosen]
    for row, there in enumerate(present):
        mask = picture.mask(chosen[row])
        depth = depth_inside(mask)
        at = anchors[row] = click_inside(rng, mask, depth)
        points: list[Click] = _one_prompt(rng, mask, depth, at) if there else [(*at, BACKGROUND)]
        coords[row], labels[row] = slots(points)
        if there and len(points) == 1:
            meant = [chosen[row], *_find_others(picture, chosen[row], at)]
            likely = picture.chances[meant]
            first = meant.pop(int(rng.choice(len(meant), p=likely / likely.sum())))
            chosen[row], others[row] = first, meant
    targets = np.stack([picture.mask(index) for index in chosen])
    same = targets[:, anchors[:, 1], anchors[:, 0]].astype(np.float32)
    shown = np.zeros((count, OTHERS, *picture.labels.shape), bool)
    for row, meant in enumerate(others):
        for place, index in enumerate(meant):
            other = picture.mask(index)
            if place < OTHERS:
                shown[row, place] = other
            same[row, other[anchors[:, 1], anchors[:, 0]] != targets[row, anchors[:, 1], anchors[:, 0]]] = -1.0
    return Prompts(coords, labels, targets, shown, anchors, same, present)


def _choose(rng: np.random.Generator, picture: Picture, count: int) -> list[int]:
    """Objects to ask for, all of them before one is asked for again."""
    chances = picture.chances / picture.chances.sum()
    chosen: list[int] = []
    while len(chosen) < count:
        many = min(count - len(chosen), len(chances))
        chosen += [int(index) for index in rng.choice(len(chances), many, replace=False, p=chances)]
    return chosen
