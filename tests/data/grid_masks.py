"""A decoder without weights, for the golden of "segment everything": logits that depend on the click alone.

Whoever records Meta's generator and whoever compares with it calls `decode_click`, so that only the choice among masks
is compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.data.meta_inputs import photo_rgb

IMAGE_SIZE = 256  # pixels of the model's input
SIDE = IMAGE_SIZE // 4
PHOTO_HW = (180, 240)
POINTS_PER_SIDE = 12
WHOLE: dict[str, Any] = {"points_per_side": 4, "min_score": 0.0, "min_stability": 0.5, "max_overlap": 1.0}
"""Options of the golden that a whole model finds, on `whole_photo_rgb`."""


def whole_photo_rgb() -> NDArray[np.uint8]:
    """(200, 300, 3)."""
    return np.ascontiguousarray(photo_rgb()[:200, :300])


def decode_click(x: float, y: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (3, SIDE, SIDE) and scores (3,) for a click at x, y in pixels of the model's input.

    Nine discs on a lattice: the disc nearest to the click, a blurred pair of it and its neighbour, and a noisy patch.
    """
    rng = np.random.default_rng((int(x * 8), int(y * 8)))
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    lattice = SIDE * (np.arange(3) + 0.5) / 3
    column, row = (int(np.abs(lattice - v / 4).argmin()) for v in (x, y))
    radius = 4.0 + row + 2 * column
    disc = 15 * (radius - np.hypot(columns - lattice[column], rows - lattice[row]))
    other = 15 * (radius - np.hypot(columns - lattice[(column + 1) % 3], rows - lattice[row]))
    pair = np.maximum(disc, other) / (1 + 2 * row)
    noise = rng.normal(0, 3, (SIDE, SIDE)) + disc
    far = np.hypot(x / 4 - lattice[column], y / 4 - lattice[row]) / SIDE
    scores = np.array([0.97 - far, 0.9 - far, 0.93 - far])
    return np.stack([disc, pair, noise]).astype(np.float32), scores.astype(np.float32)
