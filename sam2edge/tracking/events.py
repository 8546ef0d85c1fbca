"""What happens to tracked objects: lost, left, found again, merged, dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2edge.datatypes import FloatArray, TrackEvent

MERGED_OVERLAP = 0.5
"""Share of the smaller of two masks that lies in the other: above it the two count as merged."""


@dataclass
class EventWatch:
    """What is known of the objects so far, to tell what changes."""

    last_seen: dict[int, FloatArray] = field(default_factory=dict)
    """Logits (h, w) of each object on the latest frame on which it was seen."""
    hidden_frames: dict[int, int] = field(default_factory=dict)
    """Tracked frames since then, of the objects that are hidden now."""
    merged: set[tuple[int, int]] = field(default_factory=set)

    def update(
        self, logits: Mapping[int, FloatArray], is_visible: Mapping[int, bool], frame_index: int, time_s: float
    ) -> list[TrackEvent]:
        """The events of one more frame; `logits` (h, w) of each object at low resolution."""
        events = []
        for object_id, visible in is_visible.items():
            was_hidden = object_id in self.hidden_frames
            if visible:
                if was_hidden:
                    del self.hidden_frames[object_id]
                    events.append(TrackEvent("found", object_id, frame_index, time_s))
                self.last_seen[object_id] = logits[object_id]
                continue
            self.hidden_frames[object_id] = self.hidden_frames.get(object_id, 0) + 1
            if not was_hidden and object_id in self.last_seen:
                kind = "left" if _touches_edge(self.last_seen[object_id] > 0) else "lost"
                events.append(TrackEvent(kind, object_id, frame_index, time_s))
        return events + self._find_merged(logits, is_visible, frame_index, time_s)

    def forget(self, object_id: int) -> None:
        """Forgets an object that is no longer followed."""
        self.last_seen.pop(object_id, None)
        self.hidden_frames.pop(object_id, None)
        self.merged = {pair for pair in self.merged if object_id not in pair}

    def _find_merged(
        self, logits: Mapping[int, FloatArray], is_visible: Mapping[int, bool], frame_index: int, time_s: float
    ) -> list[TrackEvent]:
        seen = [object_id for object_id, visible in is_visible.items() if visible]
        if len(seen) < 2:
            self.merged = set()
            return []
        masks = np.stack([logits[object_id].reshape(-1) > 0 for object_id in seen]).astype(np.float32)
        shared, areas = masks @ masks.T, masks.sum(axis=1)
        found = set()
        for i, j in zip(*np.triu_indices(len(seen), 1), strict=True):
            if shared[i, j] > MERGED_OVERLAP * max(min(areas[i], areas[j]), 1.0):
                found.add((seen[i], seen[j]))
        new = sorted(found - self.merged)
        self.merged = found
        return [TrackEvent("merged", one, frame_index, time_s, other) for one, other in new]


def _touches_edge(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
