"""What is remembered of one object: a fixed number of frames, however long the stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sam2edge.backends.base import MemoryInputs
from sam2edge.contract import NUM_POINTER_SLOTS
from sam2edge.datatypes import FloatArray

MAX_COND_FRAMES = 4
"""Conditioning frames that are kept: the object's first and its latest three."""


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """One object on one frame: its memory in the backend's own memory (None once too old) and its pointer (D,)."""

    memory: Any | None
    pointer: FloatArray


class MemoryBank:
    """Conditioning frames (those that were prompted) and the frames just before the one at hand.

    A frame attends to every conditioning frame kept here, then to tracked frames, the nearest first, as long as slots
    are free: `memory_slots` in all, memories of at most `memory_slots - 1` frames ago. Pointers likewise, of at most
    `pointer_slots - 1` frames ago. SAM 2 itself keeps every conditioning frame and has no limit of slots; the two
    differ from an object's second conditioning frame on, once its oldest tracked frames find no slot.
    """

    def __init__(self, memory_slots: int, pointer_slots: int = NUM_POINTER_SLOTS) -> None:
        self._memory_slots = memory_slots
        self._pointer_slots = pointer_slots
        self._conditioning: dict[int, MemoryEntry] = {}
        self._tracked: dict[int, MemoryEntry] = {}

    def __len__(self) -> int:
        return len(self._conditioning) + len(self._tracked)

    @property
    def nbytes(self) -> int:
        """Bytes of the memories and pointers held."""
        held = [remembered for _, _, remembered in self.items()]
        return sum(r.pointer.nbytes + (0 if r.memory is None else r.memory.nbytes) for r in held)

    def items(self) -> Iterator[tuple[int, bool, MemoryEntry]]:
        """(frame, whether it is a conditioning one, what is remembered), conditioning frames first."""
        for frames, conditioning in ((self._conditioning, True), (self._tracked, False)):
            for frame, remembered in frames.items():
                yield frame, conditioning, remembered

    def add(self, frame: int, conditioning: bool, remembered: MemoryEntry) -> None:
        """Remembers `frame`, which is not before the newest one; forgets what has become too old."""
        self._tracked.pop(frame, None)
        if conditioning or frame in self._conditioning:
            self._conditioning[frame] = remembered
        else:
            self._tracked[frame] = remembered
        if len(self._conditioning) > MAX_COND_FRAMES:
            second = sorted(self._conditioning)[1]
            self._tracked[second] = self._conditioning.pop(second)
        self._forget(frame + 1)

    def restore(self, frame: int, conditioning: bool, remembered: MemoryEntry) -> None:
        """Puts back what `items` gave, as it was."""
        (self._conditioning if conditioning else self._tracked)[frame] = remembered

    def recall(self, frame: int, max_pointer_age: int) -> MemoryInputs:
        """What `frame` attends to; pointers of at most `max_pointer_age` frames ago, conditioning frames apart."""
        conditioning = sorted(self._conditioning.items())
        near = sorted(((f, r) for f, r in self._tracked.items() if f < frame), reverse=True)
        with_memory = [(f, r) for f, r in near if r.memory is not None and frame - f < self._memory_slots]
        memories = [(0, r) for _, r in conditioning] + [(frame - f, r) for f, r in with_memory]
        pointers = conditioning + [(f, r) for f, r in near if frame - f <= max_pointer_age]
        memories, pointers = memories[: self._memory_slots], pointers[: self._pointer_slots]
        return MemoryInputs(
            [r.memory for _, r in memories],
            np.array([age for age, _ in memories], np.int32),
            np.stack([r.pointer for _, r in pointers]),
            np.array([(frame - f) / max_pointer_age for f, _ in pointers], np.float32),
        )

    def _forget(self, next_frame: int) -> None:
        for frame in list(self._tracked):
            age = next_frame - frame
            if age >= self._pointer_slots:
                del self._tracked[frame]
            elif age >= self._memory_slots and self._tracked[frame].memory is not None:
                self._tracked[frame] = replace(self._tracked[frame], memory=None)
