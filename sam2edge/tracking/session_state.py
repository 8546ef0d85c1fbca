"""A tracker's objects as a header and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend, HostFeatures
from sam2edge.contract import NUM_POINTER_SLOTS
from sam2edge.errors import InvalidInputError
from sam2edge.tracking.memory_bank import MAX_COND_FRAMES, MemoryEntry
from sam2edge.tracking.tracked_object import ObjectOnFrame, TrackedObject

_FORMAT = 1
_MAX_FRAMES = MAX_COND_FRAMES + NUM_POINTER_SLOTS


def dump_objects(
    backend: Backend, objects: Mapping[int, TrackedObject]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `load_objects` takes, without the parts that the tracker adds itself."""
    arrays: dict[str, NDArray[Any]] = {}
    stored = []
    for number, (object_id, tracked) in enumerate(objects.items()):
        assert tracked.current is not None
        found, frames = tracked.current, []
        arrays[f"{number}/logits"], arrays[f"{number}/pointer"] = found.logits, found.obj_ptr
        for frame, is_cond_frame, entry in tracked.bank.items():
            arrays[f"{number}/{frame}/pointer"] = entry.obj_ptr
            if entry.memory is not None:
                arrays[f"{number}/{frame}/memory"] = entry.memory.to_host().tensors["memory"]
            frames.append([frame, is_cond_frame, entry.memory is not None])
        stored.append(
            {
                "id": object_id,
                "was_tracked": tracked.was_tracked,
                "is_remembered": tracked.is_remembered,
                "score": found.score,
                "object_score": found.object_score,
                "prompted": found.is_prompted,
                "frames": frames,
            }
        )
    made_by = {"format": _FORMAT, "model": backend.variant.name, "image_size": backend.image_size}
    return {**made_by, "objects": stored}, arrays


def load_objects(
    backend: Backend, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], source: str
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
            objects[stored["id"]] = _load_object(backend, number, stored, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            "session file is incomplete, or not as save writes it",
            expected="all parts of the session, each of its shape",
            got=f"{source}: {error}",
            remedy="save the session again",
        ) from error
    return frame_index, order, obj_ptr_age, objects


def _load_object(
    backend: Backend, number: int, stored: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> TrackedObject:
    side, d = backend.image_size // 4, backend.variant.d_model
    memory_shape = (1, (backend.image_size // 16) ** 2, backend.variant.memory_dim)
    tracked = TrackedObject(backend.variant.num_mask_slots)
    _require(len(stored["frames"]) <= _MAX_FRAMES, "more frames than a bank keeps")
    for frame, is_cond_frame, has_memory in stored["frames"]:
        _require(type(frame) is int and (has_memory or not is_cond_frame), "remembered frame")
        obj_ptr = _float_array(arrays, f"{number}/{frame}/pointer", (d,))
        memory = None
        if has_memory:
            memory = HostFeatures({"memory": _float_array(arrays, f"{number}/{frame}/memory", memory_shape)})
        tracked.bank.restore(frame, bool(is_cond_frame), MemoryEntry(memory, obj_ptr))
    tracked.current = ObjectOnFrame(
        _float_array(arrays, f"{number}/logits", (side, side)),
        _float_array(arrays, f"{number}/pointer", (d,)),
        float(stored["score"]),
        float(stored["object_score"]),
        bool(stored["prompted"]),
    )
    tracked.was_tracked, tracked.is_remembered = bool(stored["was_tracked"]), bool(stored["is_remembered"])
    _require(bool(len(tracked.bank)) or not (tracked.was_tracked or tracked.is_remembered), "object without memory")
    return tracked


def _float_array(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = arrays[name]
    _require(array.dtype == np.float32 and array.shape == shape, name)
    return array


def _require(condition: bool, part: str) -> None:
    if not condition:
        raise ValueError(f"{part} is not usable")
