"""How a tracker behaves: Meta's options by Meta's names, and our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sam2edge.contract import NUM_POINTER_SLOTS
from sam2edge.datatypes import TrackEvent
from sam2edge.errors import InvalidInputError

RESIZES = ("bilinear", "pillow-bicubic")
MEMORY_SELECTIONS = ("recent", "samurai", "dam4sam")


@dataclass(frozen=True)
class TrackerOptions:
    """Options of a `VideoTracker`.

    - input_color_format: "bgr" or "rgb"; None is BGR for numpy frames and RGB for torch ones.
    - num_frames: length of the clip where it is known. It matters only for clips of fewer than 16 frames, on whose
      length SAM 2's object pointers depend.
    - resize: "bilinear", antialiased, as SAM 2 resizes photos; "pillow-bicubic", as Meta's loader of videos does it,
      for comparisons.
    - add_all_frames_to_correct_as_cond: a tracked frame that is corrected becomes a conditioning frame (Meta: False).
    - clear_non_cond_mem_around_input: a prompt forgets the tracked frames around its frame.
    - non_overlap_masks: a pixel belongs to at most one object, the one with the highest logit.
    - fill_hole_area: holes of at most so many pixels in the low-resolution mask are filled; 0: none.
    - memory_selection: which tracked frames are attended to, see `tracking/memory_selection.py`.
    - drop_after: an object that was hidden for so many tracked frames is no longer followed; None: never.
    - max_latency_ms: what a frame may take on average; frames are skipped to keep to it. None: no frame is skipped.
    - on_event: called with each `TrackEvent`.
    """

    input_color_format: str | None = None
    num_frames: int | None = None
    resize: str = "bilinear"
    add_all_frames_to_correct_as_cond: bool = True
    clear_non_cond_mem_around_input: bool = False
    non_overlap_masks: bool = False
    fill_hole_area: int = 0
    memory_selection: str = "recent"
    drop_after: int | None = None
    max_latency_ms: float | None = None
    on_event: Callable[[TrackEvent], None] | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_frames", 1), ("drop_after", 1), ("fill_hole_area", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise _error(name, f"a whole number of at least {least}", value)
        for name, known in (("resize", RESIZES), ("memory_selection", MEMORY_SELECTIONS)):
            if getattr(self, name) not in known:
                raise _error(name, " or ".join(map(repr, known)), getattr(self, name))
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise _error("max_latency_ms", "more than 0", self.max_latency_ms)

    @property
    def max_obj_ptr_age(self) -> int:
        """Frames ago that an object pointer may be."""
        return max(1, min(self.num_frames or NUM_POINTER_SLOTS, NUM_POINTER_SLOTS) - 1)


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a tracker, and the others."""
    known = {field.name for field in fields(TrackerOptions)}
    mine = {name: value for name, value in options.items() if name in known}
    return mine, {name: value for name, value in options.items() if name not in known}


def _error(name: str, expected: str, got: Any) -> InvalidInputError:
    return InvalidInputError(f"{name} cannot be used", expected=expected, got=repr(got))
