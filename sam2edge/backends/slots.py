"""Prompts, and what is remembered of an object, laid out in the static slots of the graphs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2edge.backends.base import FloatArray, IntArray, MemoryInputs
from sam2edge.contract import ABSENT, MASKED_OUT, NUM_POINTER_SLOTS


def prompt_slots(coords: FloatArray, labels: IntArray, slots: int) -> tuple[FloatArray, IntArray]:
    """One prompt, (N, 2) and (N,), in the mask decoder's slots: (1, slots, 2) and (1, slots), the rest absent."""
    used = labels > ABSENT
    count = int(used.sum())
    slots_xy = np.zeros((1, slots, 2), np.float32)
    slots_label = np.full((1, slots), ABSENT, np.int32)
    slots_xy[0, :count], slots_label[0, :count] = coords[used], labels[used]
    return slots_xy, slots_label


def memory_attention_feed(recalled: MemoryInputs, slots: int) -> dict[str, Any]:
    """Inputs of the memory attention but for the memories themselves, by contract name."""
    return {
        "memory_age": in_slots(recalled.memory_ages, slots),
        "memory_mask": slot_mask(len(recalled.memories), slots),
        "pointers": in_slots(recalled.pointers, NUM_POINTER_SLOTS),
        "pointer_mask": slot_mask(len(recalled.pointers), NUM_POINTER_SLOTS),
        "pointer_age": in_slots(recalled.pointer_ages, NUM_POINTER_SLOTS),
    }


def in_slots(values: Any, slots: int) -> Any:
    """(N, ...) -> (1, slots, ...), the rest filled with zeros."""
    filled = np.zeros((1, slots, *values.shape[1:]), values.dtype)
    filled[0, : len(values)] = values
    return filled


def slot_mask(used: int, slots: int) -> FloatArray:
    return np.where(np.arange(slots) < used, 0, MASKED_OUT).astype(np.float32)[None]


def memory_encoder_feed(mask: FloatArray, object_score: float, binarise: bool) -> dict[str, FloatArray]:
    score, flag = np.array([[object_score]], np.float32), np.array([binarise], np.float32)
    return {"mask": mask[None, None], "object_score": score, "binarise": flag}
