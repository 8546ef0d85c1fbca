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
"""Conditioning frames that are kept of an object: its first and its latest three."""


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """One object on one frame: its memory in the backend's own memory (None once too old) and its obj_ptr (D,).

    Where frames are selected: whether a tracked frame is attended to, and whether it is while it is the newest one.
    """

    memory: Any | None
    obj_ptr: FloatArray
    is_accepted: bool = True
    is_usable: bool = True


class MemoryBank:
    """Conditioning frames (those that were prompted) and the frames just before the one at hand.

    A frame attends to every conditioning frame kept here, then to tracked frames, the nearest first, as long as slots
    are free: `memory_slots` in all, memories of at most `memory_slots - 1` frames ago. Object pointers likewise, of at
    most `obj_ptr_slots - 1` frames ago. SAM 2 itself keeps every conditioning frame and has no limit of slots; the two
    differ from an object's second conditioning frame on, once its oldest tracked frames find no slot.

    With `selects`, tracked frames are attended to however old they are: the newest of those accepted, and the newest
    usable one. Their rank stands for their age then.
    """

    def __init__(self, memory_slots: int, obj_ptr_slots: int = NUM_POINTER_SLOTS, selects: bool = False) -> None:
        self._memory_slots = memory_slots
        self._selects = selects
        self._obj_ptr_slots = obj_ptr_slots
        self._cond_frames: dict[int, MemoryEntry] = {}
        self._tracked_frames: dict[int, MemoryEntry] = {}

    def __len__(self) -> int:
        return len(self._cond_frames) + len(self._tracked_frames)

    @property
    def nbytes(self) -> int:
        """Bytes of the memories and object pointers held."""
        held = [entry for _, _, entry in self.items()]
        return sum(e.obj_ptr.nbytes + (0 if e.memory is None else e.memory.nbytes) for e in held)

    def items(self) -> Iterator[tuple[int, bool, MemoryEntry]]:
        """(frame, whether it is a conditioning frame, its entry), conditioning frames first."""
        for frames, is_cond_frame in ((self._cond_frames, True), (self._tracked_frames, False)):
            for frame, entry in frames.items():
                yield frame, is_cond_frame, entry

    def add(self, frame: int, is_cond_frame: bool, entry: MemoryEntry) -> None:
        """Remembers `frame`, which is not before the newest one; forgets what has become too old."""
        self._tracked_frames.pop(frame, None)
        if is_cond_frame or frame in self._cond_frames:
            self._cond_frames[frame] = entry
        else:
            self._tracked_frames[frame] = entry
        if len(self._cond_frames) > MAX_COND_FRAMES:
            second = sorted(self._cond_frames)[1]
            self._tracked_frames[second] = self._cond_frames.pop(second)
        kept = self._select(frame + 1) if self._selects else ()
        for old in [f for f in self._tracked_frames if self._selects or frame + 1 - f >= self._memory_slots]:
            if old in kept:
                continue
            if frame + 1 - old >= self._obj_ptr_slots:
                del self._tracked_frames[old]
            elif self._tracked_frames[old].memory is not None:
                self._tracked_frames[old] = replace(self._tracked_frames[old], memory=None)

    def clear_tracked_near(self, frame: int) -> None:
        """Forgets the tracked frames that are at most `memory_slots` away from this one."""
        for near in [f for f in self._tracked_frames if abs(frame - f) <= self._memory_slots]:
            del self._tracked_frames[near]

    def _select(self, frame: int) -> list[int]:
        """The tracked frames before `frame` that it attends to, the newest first."""
        before = sorted(
            (f for f, e in self._tracked_frames.items() if f < frame and e.memory is not None), reverse=True
        )
        newest = next((f for f in before if self._tracked_frames[f].is_usable), None)
        return [f for f in before if f == newest or self._tracked_frames[f].is_accepted][: self._memory_slots - 1]

    def restore(self, frame: int, is_cond_frame: bool, entry: MemoryEntry) -> None:
        """Puts back what `items` gave, as it was."""
        (self._cond_frames if is_cond_frame else self._tracked_frames)[frame] = entry

    def recall(self, frame: int, max_obj_ptr_age: int, most: int | None = None) -> MemoryInputs:
        """What `frame` attends to, at most `most` memories; pointers of at most `max_obj_ptr_age` frames ago, those of
        cond_frames apart."""
        slots = min(most or self._memory_slots, self._memory_slots)
        cond_frames = sorted(self._cond_frames)
        # With few slots some cond_frames give way, so that one is left for the newest tracked frame.
        kept = max(slots - 1, 1)
        attended = cond_frames
        if len(cond_frames) > kept:
            attended = [*cond_frames[: min(kept - 1, 1)], *cond_frames[-max(kept - 1, 1) :]]
        near = sorted((f for f in self._tracked_frames if f < frame), reverse=True)
        memories = [(self._cond_frames[f].memory, 0) for f in attended]
        obj_ptrs = [(self._cond_frames[f].obj_ptr, frame - f) for f in cond_frames]
        ranks = {f: rank for rank, f in enumerate(self._select(frame), 1)} if self._selects else {}
        for f in near:
            entry, age = self._tracked_frames[f], frame - f
            slot_age = ranks.get(f, self._memory_slots) if self._selects else age
            if entry.memory is not None and slot_age < self._memory_slots:
                memories.append((entry.memory, slot_age))
            if age <= max_obj_ptr_age:
                obj_ptrs.append((entry.obj_ptr, age))
        memories, obj_ptrs = memories[:slots], obj_ptrs[: self._obj_ptr_slots]
        return MemoryInputs(
            [memory for memory, _ in memories],
            np.array([age for _, age in memories], np.int32),
            np.stack([obj_ptr for obj_ptr, _ in obj_ptrs]),
            np.array([age / max_obj_ptr_age for _, age in obj_ptrs], np.float32),
        )
