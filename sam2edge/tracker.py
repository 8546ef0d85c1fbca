"""Video: prompt objects on a frame, follow them through the next ones, one frame at a time, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.automodel import AutoModel
from sam2edge.datatypes import Features, FloatArray, ImagePrompt, TrackEvent, TrackResult
from sam2edge.errors import InvalidInputError
from sam2edge.imaging.frame import LOGIT_LIMIT, frame_to_uint8, logits_to_masks
from sam2edge.imaging.refine import NONE, refine_logits
from sam2edge.imaging.regions import fill_holes
from sam2edge.observe.stats import ModelStats
from sam2edge.predictor import ImagePredictor
from sam2edge.tracking.events import EventWatch
from sam2edge.tracking.object_prompts import Prompt, read_masks, split_prompt
from sam2edge.tracking.options import TrackerOptions, split_options
from sam2edge.tracking.session_file import read_session, write_session
from sam2edge.tracking.session_state import dump_objects, load_objects
from sam2edge.tracking.tracked_object import ObjectOnFrame, TrackedObject, remember_all, track_all


class VideoTracker:
    """Follows objects through a stream of frames. Several trackers can share one model; each is for one thread.

    A failed call changes nothing that a later one depends on: the tracker stays usable.
    """

    def __init__(self, model: ImagePredictor, **options: Any) -> None:
        """A tracker without objects, on what AutoModel.from_pretrained returned.

        Options are those of `TrackerOptions`: input_color_format, num_frames, resize, drop_after, max_latency_ms,
        memory_selection, on_event, fill_hole_area, non_overlap_masks, add_all_frames_to_correct_as_cond,
        clear_non_cond_mem_around_input.
        """
        mine, others = split_options(options)
        if others:
            raise InvalidInputError("unknown option", expected="those of TrackerOptions", got=", ".join(others))
        self.model = model
        self.options = TrackerOptions(**mine)
        self._max_obj_ptr_age = self.options.max_obj_ptr_age
        self._owns_model = False
        self._objects: dict[int, TrackedObject] = {}
        self._frame_index = -1
        self._pixels: NDArray[np.uint8] | None = None
        self._order = "bgr"
        self._features: Features | None = None
        self._watch = EventWatch()
        self._late_ms = 0.0
        """By how much the frames so far have gone over `max_latency_ms` each, less the frames skipped since."""

    @classmethod
    def from_pretrained(cls, model_id: str = "auto", **options: Any) -> VideoTracker:
        """A tracker on a model of its own; options of `TrackerOptions`, and those of AutoModel.from_pretrained."""
        mine, others = split_options(options)
        TrackerOptions(**mine)  # told before a model is loaded
        # Both have a colour format; that of the model is given with each call.
        tracker = cls(AutoModel.from_pretrained(model_id, **{"tracking": True, **others}), **mine)
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
        object_id: int | Sequence[int] = 1,
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        clear_old_points: bool = False,
        normalize_coords: bool = True,
    ) -> TrackResult:
        """Says where an object is on a frame: a new object, or a correction of one that is followed.

        Prompts of one object on one frame add up: give the new clicks, those before still count, and so does the box.
        A frame that was not seen yet is tracked first where there are objects already.

        Args:
            frame: as for `track`; None, or the very frame that came last, is the frame at hand.
            object_id: any whole number, or K of them; then every part below has a leading K.
            points, labels: (N, 2) x, y in frame pixels, and (N,): 1 foreground, 0 background.
            box: (4,) x_min, y_min, x_max, y_max in frame pixels; points may go with it.
            mask: (H, W) at frame size, not 0 inside, taken as the object's mask; nothing goes with it.
            clear_old_points: start anew on this frame: what was said and found there by prompts before is forgotten.
            normalize_coords: False where points and boxes are shares of the frame's width and height, 0..1.

        Returns:
            All objects on this frame.

        Raises:
            InvalidInputError: an unusable frame, id or prompt, no prompt at all, a frame of another size. Nothing has
                changed then.
        """
        object_ids = _read_ids(object_id)
        if frame is not None:
            pixels, order = self._read_frame(frame)
        elif self._pixels is not None:
            pixels, order = self._pixels, self._order
        else:
            raise InvalidInputError("no frame yet", expected="a frame", got="None", remedy="prompt(frame, ...)")
        size_hw = (pixels.shape[0], pixels.shape[1])
        is_single = isinstance(object_id, (int, np.integer))
        prompts: Sequence[Prompt]
        if mask is not None:
            prompts = read_masks(mask, size_hw, len(object_ids), points is not None or box is not None)
        else:
            scale = np.ones(2, np.float32) if normalize_coords else np.array(size_hw[::-1], np.float32)
            prompts = split_prompt(points, labels, box, scale, size_hw, is_single)
        if len(prompts) != len(object_ids):
            raise InvalidInputError(
                "prompt names several objects" if is_single else "prompt names another number of objects",
                expected=f"{len(object_ids)} object{'s' * (not is_single)}",
                got=len(prompts),
                remedy="pass object_id=[1, 2, ...], one for each",
            )
        if not self._is_current(pixels, order):
            self.model.retry_on_next_backend(self._advance, pixels, order)
        slots, selection = self.model.backend.memory_slots, self.options.memory_selection
        given = []
        for number, prompt in zip(object_ids, prompts, strict=True):
            tracked = self._objects.get(number) or TrackedObject(slots, selection)
            previous = tracked.tracked if clear_old_points else tracked.current
            if isinstance(prompt, ImagePrompt) and not clear_old_points:
                prompt = tracked.add_prompt(prompt)
            found = self.model.retry_on_next_backend(self._segment, tracked, prompt, previous)
            given.append((number, tracked, found, prompt if isinstance(prompt, ImagePrompt) else None))
        for number, tracked, found, kept in given:
            tracked.commit_prompted(found, kept)
            if self.options.clear_non_cond_mem_around_input:
                tracked.bank.clear_tracked_near(self._frame_index)
            self._objects[number] = tracked
        return self._make_result()

    def clear_all_prompts_in_frame(self, object_id: int) -> TrackResult | None:
        """Forgets what was said about an object on the frame at hand; what tracking found there counts again.

        An object that is new on this frame is no longer followed. Returns the objects that are left, None where there
        are none. Raises InvalidInputError for an object that is not followed.
        """
        (number,) = self._check_followed(object_id)
        if not self._objects[number].clear_prompts():
            self.remove_object(number)
        return self._make_result() if self._objects else None

    def track(self, frame: Any, *, time_s: float | None = None) -> TrackResult:
        """Follows every object onto the next frame.

        Args:
            frame: numpy (H, W, 3) as OpenCV gives it, or a torch tensor (3, H, W); of one size throughout.
            time_s: when it was taken, for events; None is now, in seconds since 1970.

        Returns:
            All objects on this frame, and the events since the last one. With `max_latency_ms`, while frames are behind
            it: the last result again, with `is_skipped`. With `drop_after`, objects may be gone from it.

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
        budget_ms = self.options.max_latency_ms
        if budget_ms is not None and self._late_ms >= budget_ms:
            self._read_frame(frame)
            self._late_ms -= budget_ms
            return self._make_result(is_skipped=True)
        started = time.perf_counter()
        self.model.retry_on_next_backend(self._advance, *self._read_frame(frame))
        events = self._find_events(time.time() if time_s is None else time_s)
        result = self._make_result(events)
        self.model.count_call("track", started)
        if budget_ms is not None:
            self._late_ms = max(0.0, self._late_ms + 1e3 * (time.perf_counter() - started) - budget_ms)
        for event in events:
            if self.options.on_event is not None:
                self.options.on_event(event)
        return result

    def stats(self) -> ModelStats:
        """As `ImagePredictor.stats`: of the model, so of all trackers that share it."""
        return self.model.stats()

    def remove_object(self, object_id: int) -> None:
        """Stops following an object and forgets it. Raises InvalidInputError for one that is not followed."""
        (number,) = self._check_followed(object_id)
        del self._objects[number]
        self._watch.forget(number)

    def reset(self) -> None:
        """Forgets all objects and frames; the next frame may be of another size."""
        self._objects.clear()
        self._frame_index, self._pixels, self._features = -1, None, None
        self._watch, self._late_ms = EventWatch(), 0.0

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
        frame_index, order, obj_ptr_age, objects = load_objects(
            self.model.backend, header, arrays, str(path), self.options.memory_selection
        )
        self._watch = EventWatch()
        self._objects, self._pixels, self._features = objects, arrays["pixels"], None
        self._frame_index, self._order, self._max_obj_ptr_age = frame_index, order, obj_ptr_age

    def _advance(self, pixels: NDArray[np.uint8], order: str) -> None:
        """Makes this the frame at hand and tracks the objects onto it; changes nothing that matters if it fails."""
        started = time.perf_counter()
        features = self.model.encode(pixels, order, self.options.resize, wait=False)
        self.model.count_call("frame", started)
        objects = list(self._objects.values())
        found: list[ObjectOnFrame] = []
        if objects:
            backend, previous = self.model.backend, self._current_features()
            all_cond = self.options.add_all_frames_to_correct_as_cond
            remember_all(backend, objects, previous, self._frame_index, all_cond)
            found = track_all(backend, objects, features, self._frame_index + 1, self._max_obj_ptr_age)
        # A copy: capture code often fills the same buffer again.
        self._pixels, self._order, self._features = pixels.copy(), order, features
        self._frame_index += 1
        for tracked, on_frame in zip(objects, found, strict=True):
            tracked.commit_tracked(on_frame)

    def _segment(self, tracked: TrackedObject, prompt: Prompt, previous: ObjectOnFrame | None) -> ObjectOnFrame:
        backend, features = self.model.backend, self._current_features()
        if isinstance(prompt, ImagePrompt):
            assert self._pixels is not None
            size_hw = (self._pixels.shape[0], self._pixels.shape[1])
            found = tracked.segment_prompt(
                backend, features, self._frame_index, prompt, size_hw, self._max_obj_ptr_age, previous
            )
        else:
            found = tracked.segment_mask(backend, features, prompt)
        area = self.options.fill_hole_area
        return replace(found, logits=fill_holes(found.logits, area)) if area else found

    def _find_events(self, time_s: float) -> tuple[TrackEvent, ...]:
        """What the frame that was just tracked changed; objects that were hidden for too long go."""
        current = {number: tracked.current for number, tracked in self._objects.items()}
        seen = {number: found.object_score > 0 for number, found in current.items() if found is not None}
        watch = self._watch
        if len(seen) == 1 and all(seen.values()) and not watch.hidden_frames and not watch.merged:
            for number, found in current.items():
                if found is not None:
                    watch.last_seen[number] = found.logits
            return ()
        logits = {number: found.logits for number, found in current.items() if found is not None}
        events = watch.update(logits, seen, self._frame_index, time_s)
        for number, hidden in list(watch.hidden_frames.items()):
            if self.options.drop_after is not None and hidden >= self.options.drop_after:
                events.append(TrackEvent("dropped", number, self._frame_index, time_s))
                self.remove_object(number)
        return tuple(events)

    def _check_followed(self, object_id: Any) -> tuple[int, ...]:
        found = _read_ids(object_id)
        if len(found) != 1 or found[0] not in self._objects:
            raise InvalidInputError(
                "no such object",
                expected=f"one of {list(self._objects)}" if self._objects else "an object that was prompted",
                got=object_id,
                remedy="it may have been removed already; object_ids lists those that are followed",
            )
        return found

    def _current_features(self) -> Features:
        if self._features is None:  # after `load`
            assert self._pixels is not None
            self._features = self.model.encode(self._pixels, self._order, self.options.resize)
        return self._features

    def _read_frame(self, frame: Any) -> tuple[NDArray[np.uint8], str]:
        pixels, order = frame_to_uint8(frame, self.options.input_color_format)
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

    def _make_result(self, events: tuple[TrackEvent, ...] = (), is_skipped: bool = False) -> TrackResult:
        assert self._pixels is not None
        found = [tracked.current for tracked in self._objects.values() if tracked.current is not None]
        side, options = self.model.backend.image_size // 4, self.options
        logits = np.stack([f.logits for f in found]) if found else np.zeros((0, side, side), np.float32)
        if options.fill_hole_area and found:
            logits = np.stack([fill_holes(plane, options.fill_hole_area) for plane in logits])
        size_hw = (self._pixels.shape[0], self._pixels.shape[1])
        shown = logits if self.model.backend.variant.refine == NONE else self._refine(logits, size_hw)
        masks = logits_to_masks(shown, size_hw, 0.0, return_logits=options.non_overlap_masks and len(found) > 1)
        if masks.dtype != np.bool_:
            highest = masks.argmax(axis=0)
            masks = (masks > 0) & (highest == np.arange(len(masks))[:, None, None])
        return TrackResult(
            self._frame_index,
            tuple(self._objects),
            masks,
            np.array([f.score for f in found], np.float32),
            np.array([f.object_score for f in found], np.float32),
            np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT),
            events,
            is_skipped,
        )

    def _refine(self, logits: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
        """Logits (N, h, w) without specks and small holes, but for those that the user clicked on in this frame."""
        refined, nothing = [], ImagePrompt(np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int32))
        cells = np.array([logits.shape[2] / size_hw[1], logits.shape[1] / size_hw[0]], np.float32)
        for plane, tracked in zip(logits, self._objects.values(), strict=True):
            said = tracked.prompt or nothing
            refined.append(refine_logits(plane[None, None], said.point_coords * cells, said.point_labels, 0.0)[0, 0])
        return np.stack(refined) if refined else logits


def _read_ids(object_id: Any) -> tuple[int, ...]:
    """One id or several."""
    several = isinstance(object_id, (list, tuple, np.ndarray))
    found = list(object_id) if several else [object_id]
    for one in found:
        if isinstance(one, (bool, np.bool_)) or not isinstance(one, (int, np.integer)):
            raise InvalidInputError("object id cannot be used", expected="a whole number", got=repr(one))
    if not found or len(set(found)) != len(found):
        raise InvalidInputError("object ids cannot be used", expected="different whole numbers", got=repr(object_id))
    return tuple(int(one) for one in found)
