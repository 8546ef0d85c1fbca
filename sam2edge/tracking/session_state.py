"""A tracker's objects as a header and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend, HostFeatures
from sam2edge.contract import BACKGROUND, FOREGROUND, NUM_POINTER_SLOTS, PADDING
from sam2edge.datatypes import ImagePrompt
from sam2edge.errors import InvalidInputError
from sam2edge.tracking.memory_bank import MAX_COND_FRAMES, MemoryEntry
from sam2edge.tracking.tracked_object import ObjectOnFrame, TrackedObject

_FORMAT = 1


def dump_objects(
    backend: Backend, objects: Mapping[int, TrackedObject]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `load_objects` takes, without the parts that the tracker adds itself."""
    arrays: dict[str, NDArray[Any]] = {}
    stored = []
    for number, (object_id, tracked) in enumerate(objects.items()):
        assert tracked.current is not None
        frames = []
        for frame, is_cond_frame, entry in tracked.bank.items():
            arrays[f"{number}/{frame}/pointer"] = entry.obj_ptr
            if entry.memory is not None:
                arrays[f"{number}/{frame}/memory"] = entry.memory.to_host().tensors["memory"]
            frames.append([frame, is_cond_frame, entry.memory is not None, entry.is_accepted, entry.is_usable])
        row = {
            "id": object_id,
            "was_tracked": tracked.tracked is not None,
            "is_remembered": tracked.is_remembered,
            **_dump_found(tracked.current, f"{number}", arrays),
            "frames": frames,
        }
        if tracked.tracked is not None and tracked.tracked is not tracked.current:
            row["tracked"] = _dump_found(tracked.tracked, f"{number}/tracked", arrays)
        if tracked.prompt is not None:
            boxes = tracked.prompt.boxes_xyxy
            row["points"] = tracked.prompt.point_coords[0].tolist()
            row["labels"] = tracked.prompt.point_labels[0].tolist()
            row["box"] = None if boxes is None else boxes[0].tolist()
        stored.append(row)
    made_by = {"format": _FORMAT, "model": backend.variant.name, "image_size": backend.image_size}
    return {**made_by, "objects": stored}, arrays


def load_objects(
    backend: Backend,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    source: str,
    memory_selection: str = "recent",
) -> tuple[int, str, int, dict[int, TrackedObject]]:
    """Frame index, colour order, greatest age of pointers, objects.

    Raises InvalidInputError for the session of another model, and where a part is missing or of another shape.
    """
    made_by = (header.get("format"), header.get("model"), header.get("image_size"))
    wanted = (_FORMAT, backend.variant.name, backend.image_size)
    if made_by != wanted:
        raise InvalidInputError(
            "session was saved by another model",
            expected="format {}, {} at image size {}".format(*wanted),
            got="format {}, {} at image size {}".format(*made_by),
            remedy="load it with the model that saved it",
        )
    try:
        frame_index, order, obj_ptr_age = header["frame_index"], header["color_order"], header["pointer_age"]
        _require(type(frame_index) is int and frame_index >= 0 and order in ("bgr", "rgb"), "frame")
        _require(type(obj_ptr_age) is int and 1 <= obj_ptr_age < NUM_POINTER_SLOTS, "pointer_age")
        pixels = arrays["pixels"]
        _require(pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0, "pixels")
        objects = {}
        for number, stored in enumerate(header["objects"]):
            _require(type(stored["id"]) is int, "object id")
            objects[stored["id"]] = _load_object(backend, number, stored, arrays, memory_selection)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            "session file is incomplete, or not as save writes it",
            expected="all parts of the session, each of its shape",
            got=f"{source}: {error}",
            remedy="save the session again",
        ) from error
    return frame_index, order, obj_ptr_age, objects


def _load_object(
    backend: Backend,
    number: int,
    stored: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    memory_selection: str,
) -> TrackedObject:
    d = backend.variant.d_model
    memory_shape = (1, backend.variant.memory_tokens(backend.image_size), backend.variant.memory_dim)
    tracked = TrackedObject(backend.memory_slots, memory_selection)
    most = MAX_COND_FRAMES + NUM_POINTER_SLOTS + backend.variant.num_mask_slots
    _require(len(stored["frames"]) <= most, "more frames than a bank keeps")
    for frame, is_cond_frame, has_memory, *flags in stored["frames"]:
        _require(type(frame) is int and (has_memory or not is_cond_frame), "remembered frame")
        obj_ptr = _float_array(arrays, f"{number}/{frame}/pointer", (d,))
        memory = None
        if has_memory:
            stored_memory = {"memory": _float_array(arrays, f"{number}/{frame}/memory", memory_shape)}
            memory = backend.load(HostFeatures(stored_memory))
        tracked.bank.restore(frame, bool(is_cond_frame), MemoryEntry(memory, obj_ptr, *map(bool, flags)))
    tracked.current = _load_found(backend, stored, f"{number}", arrays)
    if stored["was_tracked"]:
        other = stored.get("tracked")  # where prompts have changed what was tracked
        tracked.tracked = tracked.current if other is None else _load_found(backend, other, f"{number}/tracked", arrays)
    if stored.get("points") is not None:
        tracked.prompt = _load_prompt(stored)
    tracked.is_remembered = bool(stored["is_remembered"])
    has_past = tracked.tracked is not None or tracked.is_remembered
    _require(bool(len(tracked.bank)) or not has_past, "object without memory")
    return tracked


def _dump_found(found: ObjectOnFrame, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    arrays[f"{prefix}/logits"], arrays[f"{prefix}/pointer"] = found.logits, found.obj_ptr
    return {"score": found.score, "object_score": found.object_score, "prompted": found.is_prompted}


def _load_found(
    backend: Backend, stored: Mapping[str, Any], prefix: str, arrays: Mapping[str, NDArray[Any]]
) -> ObjectOnFrame:
    side = backend.image_size // 4
    return ObjectOnFrame(
        _float_array(arrays, f"{prefix}/logits", (side, side)),
        _float_array(arrays, f"{prefix}/pointer", (backend.variant.d_model,)),
        float(stored["score"]),
        float(stored["object_score"]),
        bool(stored["prompted"]),
    )


def _load_prompt(stored: Mapping[str, Any]) -> ImagePrompt:
    points = np.asarray(stored["points"], np.float32).reshape(1, -1, 2)
    labels = np.asarray(stored["labels"], np.int32).reshape(1, -1)
    box = None if stored["box"] is None else np.asarray(stored["box"], np.float32).reshape(1, 4)
    _require(np.isin(labels, (FOREGROUND, BACKGROUND, PADDING)).all(), "label of a point")
    _require(np.isfinite(points).all() and (box is None or np.isfinite(box).all()), "point")
    return ImagePrompt(points, labels, box)


def _float_array(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = arrays[name]
    _require(array.dtype == np.float32 and array.shape == shape, name)
    return array


def _require(condition: Any, part: str) -> None:
    if not condition:
        raise ValueError(f"{part} is not usable")
