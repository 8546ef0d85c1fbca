"""CPU time of each model, as `bench/cpu_time.py` measured it: torch, one core, each at its own image size."""

from __future__ import annotations

from sam2edge.variants import Variant

CPU_MS: dict[str, tuple[int, int]] = {
    "sam2/micro": (81, 114),
    "sam2/edgetam": (655, 1440),
    "sam2/efficienttam_ti_512x512": (178, 524),
    "sam2/efficienttam_ti": (1039, 4148),
    "sam2/efficienttam_ti_1": (1110, 3071),
    "sam2/efficienttam_s_512x512": (476, 839),
    "sam2/efficienttam_s": (2571, 6120),
    "sam2/efficienttam_s_1": (2512, 4408),
    "sam2/hiera_tiny": (2340, 5786),
    "sam2/hiera_small": (2714, 6216),
    "sam2/hiera_b_plus": (4549, 8138),
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
