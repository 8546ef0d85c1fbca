"""CPU time of each model, as `bench/cpu_time.py` measured it: torch, one core, each at its own image size."""

from __future__ import annotations

from sam2edge.variants import Variant

CPU_MS: dict[str, tuple[int, int]] = {
    "sam2/micro": (81, 114),
    "sam2/edgetam": (829, 1365),
    "sam2/efficienttam_ti_512x512": (210, 553),
    "sam2/efficienttam_ti": (1126, 4334),
    "sam2/efficienttam_ti_1": (1094, 2697),
    "sam2/efficienttam_s_512x512": (498, 849),
    "sam2/efficienttam_s": (2633, 5952),
    "sam2/efficienttam_s_1": (2590, 4339),
    "sam2/hiera_tiny": (2383, 5967),
    "sam2/hiera_small": (2736, 5728),
    "sam2/hiera_b_plus": (4448, 7611),
    "sam2/hiera_large": (11254, 15936),
}
"""Milliseconds of a photo (its embedding and a click) and of a tracked frame (one object, seven memories), by model."""

# These do the same work: SAM 2.0 as 2.1, averaged memories in either way.
_AS = {"sam2.0_hiera": "sam2/hiera", "efficienttam_ti_2": "efficienttam_ti_1", "efficienttam_s_2": "efficienttam_s_1"}


def find_cpu_ms(variant: Variant) -> tuple[int, int]:
    """Milliseconds of CPU time of a photo and of a tracked frame."""
    name = variant.model_id.replace("base_plus", "b_plus")
    for other, measured in _AS.items():
        name = name.replace(other, measured)
    return CPU_MS[name]
