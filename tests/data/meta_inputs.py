"""The inputs of the Meta reference, made from fixed seeds by whoever records it and by whoever compares with it."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 512  # pixels
GRID = IMAGE_SIZE // 16

POINT_XY = (200.0, 150.0)
BOX_XYXY = (90.0, 60.0, 400.0, 330.0)

FRAME = 10
"""Index of the frame that attends to memories."""
NUM_FRAMES = 20
MEMORY_AGES = (0, 3, 1)
"""Of the memories, in frames; 0 is the conditioning frame, which is frame 0."""
POINTER_AGES = (10, 1, 3, 8)
"""Of the object pointers, in frames; 10 is the conditioning frame's."""
OBJECTS = 2
OBJECT_SCORES = (3.0, -2.0)
"""Logits: the first object is visible, the second hidden."""

MOST_POSITIONS = 600


def photo_rgb() -> NDArray[np.uint8]:
    """Coarse blocks with fine noise, (512, 512, 3)."""
    rng = _rng("photo")
    blocks = rng.integers(0, 256, (32, 32, 3)).repeat(16, axis=0).repeat(16, axis=1)
    return np.clip(blocks + rng.integers(-40, 41, blocks.shape), 0, 255).astype(np.uint8)


def normal(name: str, *shape: int) -> NDArray[np.float32]:
    """Standard normal values that depend on name and shape alone."""
    return _rng(name).standard_normal(shape).astype(np.float32)


def sample(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values at fixed flat positions, at most MOST_POSITIONS of them."""
    count = min(values.size, MOST_POSITIONS)
    positions = _rng(f"{name} {values.shape}").choice(values.size, count, replace=False)
    return values.reshape(-1)[np.sort(positions)].astype(np.float32)


def _rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
