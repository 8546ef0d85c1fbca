"""Video: prompt objects on a frame, follow them through the next ones, one frame at a time, in bounded memory."""

from __future__ import annotations

import time
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.automodel import AutoModel
from sam2edge.contract import NUM_POINTER_SLOTS
from sam2edge.datatypes import Features, ImagePrompt, TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import LOGIT_LIMIT, as_numpy, frame_to_uint8, logits_to_masks
from sam2edge.imaging.prompts import read_prompts
from sam2edge.observe.stats import ModelStats
from sam2edge.predictor import ImagePredictor
from sam2edge.tracking.session_file import read_session, write_session
from sam2edge.tracking.session_state import dump_objects, load_objects
from sam2edge.tracking.tracked_object import ObjectOnFrame, TrackedObject, remember_all, track_all


class VideoTracker:
    """Follows objects through a stream of frames. Several trackers can share one model; each is for one thread.

    A failed call changes nothing that a later one depends on: the tracker stays usable.
    """

    def __init__(
        self, model: ImagePredictor, *, input_color_format: str | None = None, num_frames: int | None = None
    ) -> None:
        """A tracker without objects.

        Args:
            model: what AutoModel.from_pretrained returned.
            input_color_format: "bgr" or "rgb"; None is BGR for numpy frames and RGB for torch ones.
            num_frames: length of the clip where it is known. It matters for clips of fewer than 16 frames alone, on
                whose length SAM 2's object pointers depend.
        """
        self.model = model
        self._color_format = input_color_format
        if num_frames is not None and num_frames < 1:
            raise InvalidInputError("num_frames cannot be used", expected="at least 1, or None", got=num_frames)
        self._max_obj_ptr_age = max(1, min(num_frames or NUM_POINTER_SLOTS, NUM_POINTER_SLOTS) - 1)
        self._owns_model = False
        self._objects: dict[int, TrackedObject] = {}
        self._frame_index = -1
        self._pixels: NDArray[np.uint8] | None = None
        self._order = "bgr"
        self._features: Features | None = None

    @classmethod
    def from_pretrained(cls, model_id: str = "auto", **options: Any) -> VideoTracker:
        """A tracker on a model of its own; options as for AutoModel.from_pretrained."""
        tracker = cls(AutoModel.from_pretrained(model_id, **{"tracking": True, **options}))
        tracker._owns_model = True
        return tracker

    def __repr__(self) -> str:
        return f"VideoTracker({self.model!r}, frame {self._frame_index}, objects {list(self._objects)})"

    def __enter__(self) -> VideoTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forgets everything, and gives the model's memory back where `from_pretrained` loaded it for this tracker."""
        self.reset()
        if self._owns_model:
            self.model.close()

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order in which they were added."""
        return tuple(self._objects)

    @property
    def frame_index(self) -> int:
        """Number of the frame at hand: 0 is the first that was prompted, -1 none yet."""
        return self._frame_index

    @property
    def memory_nbytes(self) -> int:
        """Bytes that all objects' memories and pointers take."""
        return sum(tracked.bank.nbytes for tracked in self._objects.values())

    def prompt(
        self,
        frame: Any = None,
        object_id: int = 1,
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        clear_old_points: bool = False,
    ) -> TrackResult:
        """Says where an object is on a frame: a new object, or a correction of one that is followed.

        Prompts of one object on one frame add up: give the new clicks, those before still count, and so does the box.
        A frame that was not seen yet is tracked first where there are objects already.

        Args:
            frame: as for `track`; None, or the very frame that came last, is the frame at hand.
            object_id: any whole number.
            points, labels: (N, 2) x, y in frame pixels, and (N,): 1 foreground, 0 background.
            box: (4,) x_min, y_min, x_max, y_max in frame pixels; points may go with it.
            mask: (H, W) at frame size, not 0 inside, taken as the object's mask; nothing goes with it.
            clear_old_points: start anew on this frame: what was said and found there by prompts before is forgotten.

        Returns:
            All objects on this frame.

        Raises:
            InvalidInputError: an unusable frame, id or prompt, no prompt at all, a frame of another size.
        """
        object_id = _read_id(object_id)
        if frame is not None:
            pixels, order = self._read_frame(frame)
        elif self._pixels is not None:
            pixels, order = self._pixels, self._order
        else:
            raise InvalidInputError("no frame yet", expected="a frame", got="None", remedy="prompt(frame, ...)")
        size_hw = (pixels.shape[0], pixels.shape[1])
        given: NDArray[np.bool_] | ImagePrompt
        if mask is not None:
            given = _read_mask(mask, size_hw, points is not None or box is not None)
        else:
            given = read_prompts([size_hw], _to_array(points), _to_array(labels), _to_array(box))[0]
            if given.num_objects != 1:
                raise InvalidInputError(
                    "prompt names several objects", expected="one object a call", got=given.num_objects
                )
        if not self._is_current(pixels, order):
            self.model.retry_on_next_backend(self._advance, pixels, order)
        tracked = self._objects.get(object_id) or TrackedObject(self.model.variant.num_mask_slots)
        prompt = None
        if isinstance(given, ImagePrompt):
            prompt = given if clear_old_points else tracked.add_prompt(given)
        previous = tracked.tracked if clear_old_points else tracked.current
        found = self.model.retry_on_next_backend(self._segment, tracked, given if prompt is None else prompt, previous)
        tracked.commit_prompted(found, prompt)
        self._objects[object_id] = tracked
        return self._make_result()

    def track(self, frame: Any) -> TrackResult:
        """Follows every object onto the next frame.

        Args:
            frame: numpy (H, W, 3) as OpenCV gives it, or a torch tensor (3, H, W); of one size throughout.

        Raises:
            InvalidInputError: no object yet, an unusable frame, a frame of another size.
        """
        if not self._objects:
            raise InvalidInputError(
                "nothing to track",
                expected="an object that was prompted",
                got="none",
                remedy="call prompt(frame, object_id=1, box=...) first",
            )
        started = time.perf_counter()
        self.model.retry_on_next_backend(self._advance, *self._read_frame(frame))
        result = self._make_result()
        self.model.count_call("track", started)
        return result

    def stats(self) -> ModelStats:
        """As `ImagePredictor.stats`: of the model, so of all trackers that share it."""
        return self.model.stats()

    def remove_object(self, object_id: int) -> None:
        """Stops following an object and forgets it. Raises InvalidInputError for one that is not followed."""
        if _read_id(object_id) not in self._objects:
            raise InvalidInputError(
                "no such object",
                expected=f"one of {list(self._objects)}" if self._objects else "an object that was prompted",
                got=object_id,
                remedy="it may have been removed already; object_ids lists those that are followed",
            )
        del self._objects[object_id]

    def reset(self) -> None:
        """Forgets all objects and frames; the next frame may be of another size."""
        self._objects.clear()
        self._frame_index, self._pixels, self._features = -1, None, None

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the running session to one file, whole or not at all; returns its path.

        It holds the frame at hand, each object's memories and what was found of it, no weights.
        """
        if self._pixels is None:
            raise InvalidInputError("nothing to save", expected="a session with a frame", got="none yet")
        settings = {"frame_index": self._frame_index, "color_order": self._order, "pointer_age": self._max_obj_ptr_age}
        header, arrays = dump_objects(self.model.backend, self._objects)
        path = Path(path)
        write_session(path, {**settings, **header}, {**arrays, "pixels": self._pixels})
        return path

    def load(self, path: str | PathLike[str]) -> None:
        """Goes on with a saved session, in place of this tracker's own.

        Raises InvalidInputError for a damaged file, or a session of another model or image size; the tracker is left
        as it was then. Weights are not compared: load with the checkpoint that the session was made with.
        """
        header, arrays = read_session(Path(path))
        frame_index, order, obj_ptr_age, objects = load_objects(self.model.backend, header, arrays, str(path))
        self._objects, self._pixels, self._features = objects, arrays["pixels"], None
        self._frame_index, self._order, self._max_obj_ptr_age = frame_index, order, obj_ptr_age

    def _advance(self, pixels: NDArray[np.uint8], order: str) -> None:
        """Makes this the frame at hand and tracks the objects onto it; changes nothing that matters if it fails."""
        started = time.perf_counter()
        features = self.model.encode(pixels, order)
        self.model.count_call("frame", started)
        objects = list(self._objects.values())
        found: list[ObjectOnFrame] = []
        if objects:
            backend, previous = self.model.backend, self._current_features()
            remember_all(backend, objects, previous, self._frame_index)
            found = track_all(backend, objects, features, self._frame_index + 1, self._max_obj_ptr_age)
        # A copy: capture code often fills the same buffer again.
        self._pixels, self._order, self._features = pixels.copy(), order, features
        self._frame_index += 1
        for tracked, on_frame in zip(objects, found, strict=True):
            tracked.commit_tracked(on_frame)

    def _segment(
        self, tracked: TrackedObject, given: NDArray[np.bool_] | ImagePrompt, previous: ObjectOnFrame | None
    ) -> ObjectOnFrame:
        backend, features = self.model.backend, self._current_features()
        if not isinstance(given, ImagePrompt):
            return tracked.segment_mask(backend, features, given)
        assert self._pixels is not None
        size_hw = (self._pixels.shape[0], self._pixels.shape[1])
        return tracked.segment_prompt(
            backend, features, self._frame_index, given, size_hw, self._max_obj_ptr_age, previous
        )

    def _current_features(self) -> Features:
        if self._features is None:  # after `load`
            assert self._pixels is not None
            self._features = self.model.encode(self._pixels, self._order)
        return self._features

    def _read_frame(self, frame: Any) -> tuple[NDArray[np.uint8], str]:
        pixels, order = frame_to_uint8(frame, self._color_format)
        if self._objects and self._pixels is not None and pixels.shape != self._pixels.shape:
            (height, width), (new_height, new_width) = self._pixels.shape[:2], pixels.shape[:2]
            raise InvalidInputError(
                "frame is of another size than the stream",
                expected=f"{width}x{height}",
                got=f"{new_width}x{new_height}",
                remedy="resize it, or reset() and prompt again",
            )
        return pixels, order

    def _is_current(self, pixels: NDArray[np.uint8], order: str) -> bool:
        if self._pixels is None:
            return False
        return pixels is self._pixels or (order == self._order and np.array_equal(pixels, self._pixels))

    def _make_result(self) -> TrackResult:
        assert self._pixels is not None
        found = [tracked.current for tracked in self._objects.values()]
        logits = np.stack([f.logits for f in found if f is not None])
        size_hw = (self._pixels.shape[0], self._pixels.shape[1])
        return TrackResult(
            self._frame_index,
            tuple(self._objects),
            logits_to_masks(logits, size_hw, 0.0, return_logits=False),
            np.array([f.score for f in found if f is not None], np.float32),
            np.array([f.object_score for f in found if f is not None], np.float32),
            np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT),
        )


def _read_id(object_id: Any) -> int:
    if isinstance(object_id, (bool, np.bool_)) or not isinstance(object_id, (int, np.integer)):
        raise InvalidInputError("object id cannot be used", expected="a whole number", got=repr(object_id))
    return int(object_id)


def _to_array(value: Any) -> Any:
    """A list would be read as one element an image."""
    return None if value is None else np.asarray(as_numpy(value))


def _read_mask(mask: Any, size_hw: tuple[int, int], with_others: bool) -> NDArray[np.bool_]:
    if with_others:
        raise InvalidInputError("mask together with points or a box", expected="one of them", got="both")
    inside = as_numpy(mask) != 0
    if inside.shape != size_hw:
        raise InvalidInputError("mask does not fit the frame", expected=f"shape {size_hw}", got=inside.shape)
    if not inside.any():
        raise InvalidInputError(
            "mask is empty", expected="at least one pixel inside", got="none", remedy="remove_object ends an object"
        )
    return np.asarray(inside, np.bool_)
