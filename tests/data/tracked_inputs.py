"""Weights and frames of the references of EdgeTAM and EfficientTAM, made alike by who records and who compares."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from tests.golden.golden_weights import golden_tensor

IMAGE_SIZE = 256  # pixels
NUM_FRAMES = 4
POINT_XY = (120.0, 90.0)
CENTRE_XY = (128.0, 128.0)


def tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Golden weights."""
    return np.asarray(golden_tensor(name, shape), np.float32)


def frames_rgb() -> NDArray[np.uint8]:
    """(NUM_FRAMES, 256, 256, 3): blocks with fine noise, drifting to the right."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"edgetam")))
    blocks = rng.integers(0, 256, (16, 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    noisy = [np.roll(blocks, 5 * n, axis=1) + rng.integers(-40, 41, blocks.shape) for n in range(NUM_FRAMES)]
    return np.clip(np.stack(noisy), 0, 255).astype(np.uint8)
