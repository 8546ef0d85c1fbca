"""The frames that people may still be looking at: a click comes some frames after the one that it is about."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2edge.datatypes import TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.video.frame import Frame


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """A frame and the masks found on it, a bit a pixel."""

    frame: Frame
    packed_masks: dict[int, NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        return self.frame.pixels.nbytes + sum(packed.nbytes for packed in self.packed_masks.values())

    def mask_of(self, object_id: int) -> NDArray[np.bool_] | None:
        """(H, W) bool; None where the object was not there or not seen."""
        packed = self.packed_masks.get(object_id)
        if packed is None:
            return None
        height, width = self.frame.size_hw
        mask = np.unpackbits(packed, count=height * width).reshape(height, width).view(np.bool_)
        return mask if mask.any() else None


class RecentFrames:
    """The last frames, as many as fit into `max_bytes` and `max_frames`; always the newest one."""

    def __init__(self, max_bytes: int = 128 * 2**20, max_frames: int = 120) -> None:
        self._max_bytes, self._max_frames = max_bytes, max_frames
        self._frames: OrderedDict[int, SeenFrame] = OrderedDict()
        self.nbytes = 0

    def add(self, frame: Frame, result: TrackResult | None) -> None:
        """Keeps a frame; the same index again takes the place of what was kept."""
        rows = zip(result.object_ids, result.masks, strict=True) if result is not None else ()
        seen = SeenFrame(frame, {object_id: np.packbits(mask) for object_id, mask in rows})
        earlier = self._frames.pop(frame.index, None)
        self._frames[frame.index] = seen
        self.nbytes += seen.nbytes - (earlier.nbytes if earlier else 0)
        while len(self._frames) > 1 and (self.nbytes > self._max_bytes or len(self._frames) > self._max_frames):
            self.nbytes -= self._frames.popitem(last=False)[1].nbytes

    def get(self, index: int | None) -> SeenFrame:
        """The frame of that index, or the newest. Raises InvalidInputError where it is no longer kept, or none came."""
        if not self._frames:
            raise InvalidInputError("no frame yet", remedy="wait for the camera's first frame")
        newest = next(reversed(self._frames))
        found = self._frames.get(newest if index is None else index)
        if found is None:
            oldest = next(iter(self._frames))
            raise InvalidInputError(
                "frame is not kept",
                expected=f"one of {oldest}..{newest}",
                got=index,
                remedy="click again",
            )
        return found

    def clear(self) -> None:
        self._frames.clear()
        self.nbytes = 0
