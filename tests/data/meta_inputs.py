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

LARGE_BOX_XYXY = (300.0, 200.0, 1400.0, 900.0)
SMALL_BOX_XYXY = (60.0, 40.0, 230.0, 190.0)
SMALL_POINT_XY = (250.0, 120.0)
SMALL_CLICK_XY = (120.0, 100.0)
CORRECTED = 4
"""Frame of the small clip on which the first object is corrected by SMALL_CLICK_XY, which marks background."""
OPTIONS = {
    "defaults": {},
    "all_cond": {"add_all_frames_to_correct_as_cond": True},
    "cleared": {"add_all_frames_to_correct_as_cond": True, "clear_non_cond_mem_around_input": True},
    "apart": {"add_all_frames_to_correct_as_cond": True, "non_overlap_masks": True},
}
"""Meta's options, by the case that records them."""

FRAMES_AT_1024 = 3
"""Of the large clip, as many as are compared at an input of 1024."""

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


def large_photo_rgb() -> NDArray[np.uint8]:
    """(1500, 2250, 3): larger than any model's input, with detail that is lost in it."""
    return _draw_blocks("large photo", (1500, 2250))


def large_frames_rgb() -> list[NDArray[np.uint8]]:
    """Four frames (1080, 1920, 3) that drift."""
    frame = _draw_blocks("large frames", (1080, 1920))
    return [np.roll(frame, (9 * i, 14 * i), axis=(0, 1)) for i in range(4)]


def small_frames_rgb() -> list[NDArray[np.uint8]]:
    """Eight frames (270, 360, 3) that drift."""
    frame = _draw_blocks("small frames", (270, 360))
    return [np.roll(frame, (3 * i, 5 * i), axis=(0, 1)) for i in range(8)]


def _draw_blocks(name: str, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    rng, (height, width) = _rng(name), size_hw
    side = max(height // 24, 1)
    blocks = rng.integers(0, 256, (height // side + 1, width // side + 1, 3)).repeat(side, axis=0).repeat(side, axis=1)
    blocks = blocks[:height, :width]
    return np.clip(blocks + rng.integers(-40, 41, blocks.shape), 0, 255).astype(np.uint8)
