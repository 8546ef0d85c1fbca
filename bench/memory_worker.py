"""One combination of model, image size and backend in a process of its own: what memory each step took.

    python -m bench.memory_worker MODEL SIZE BACKEND [CHECKPOINT]

prints one JSON object on its last line; the store is $SAM2EDGE_HOME. All bytes count from the process as it was before
the backend's library was loaded, with numpy, OpenCV and sam2edge in it.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge import AutoModel, VideoTracker
from sam2edge.backends.base import MemoryInputs
from sam2edge.backends.registry import BACKENDS
from sam2edge.contract import NUM_POINTER_SLOTS
from sam2edge.predictor import ImagePredictor
from sam2edge.selection.memory_estimate import TRACKED_OBJECTS
from sam2edge.tracking.memory_bank import MAX_COND_FRAMES

FRAME_HW = (1080, 1920)


def main(arguments: list[str]) -> None:
    model_id, size, backend = arguments[0], int(arguments[1]), arguments[2]
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME_HW, 3), np.uint8)
    cv2.resize(frame, (64, 64))  # OpenCV's threads and buffers are there before the count starts
    before = status_bytes("VmRSS")
    importlib.import_module(BACKENDS[backend].location.partition(":")[0])
    library = status_bytes("VmRSS")
    model = AutoModel.from_pretrained(
        model_id, image_size=size, backend=backend, device="cpu", checkpoint=arguments[3] if arguments[3:] else None
    )
    loaded = status_bytes("VmRSS")
    embedding = model.embed_images(frame)[0]
    point = np.array([[FRAME_HW[1] / 2, FRAME_HW[0] / 2]])
    model.segment_images(embeddings=embedding, point_coordinates=point, point_labels=np.ones(1))
    images_peak = status_bytes("VmHWM")
    bank_bytes = _track(model, embedding.features, frame)
    facts = {
        "library_bytes": library - before,
        "weights_bytes": loaded - library,
        "embedding_bytes": embedding.nbytes,
        "bank_bytes": bank_bytes,
        "tracked_objects": TRACKED_OBJECTS,
        "images_peak_bytes": images_peak - before,
        "tracking_peak_bytes": status_bytes("VmHWM") - before,
        "process_before_bytes": before,
        "versions": {name: metadata.version(name) for name in ("sam2edge", "numpy", backend)},
    }
    print(json.dumps(facts))


def _track(model: ImagePredictor, features: object, frame: NDArray[np.uint8]) -> int:
    """Tracks four objects to a second frame, then attends to memory with every slot in use.

    Returns the bytes of what one object can remember. Tracking until the slots fill by themselves would take a large
    model minutes.
    """
    tracker = VideoTracker(model)
    prompt_objects(tracker, frame)
    tracker.track(frame)
    variant, backend = model.variant, model.backend
    slots = variant.num_mask_slots
    mask = np.ones((model.image_size, model.image_size), np.float32)
    memory = backend.encode_memory(features, mask, 1.0, True)
    recalled = MemoryInputs(
        [memory] * slots,
        np.arange(slots, dtype=np.int32),
        np.zeros((NUM_POINTER_SLOTS, variant.d_model), np.float32),
        np.linspace(0, 1, NUM_POINTER_SLOTS, dtype=np.float32),
    )
    conditioned = [backend.attend_memory(features, recalled) for _ in range(TRACKED_OBJECTS)]
    backend.decode_each(conditioned)
    # What sam2edge/tracking/memory_bank.py keeps at most: conditioning frames, and those before the one at hand.
    pointer_bytes = (MAX_COND_FRAMES + NUM_POINTER_SLOTS - 1) * variant.d_model * 4
    return int((MAX_COND_FRAMES + slots - 1) * memory.nbytes + pointer_bytes)


def prompt_objects(tracker: VideoTracker, frame: NDArray[np.uint8]) -> None:
    """Prompts as many objects on the frame as a video's memory is promised for, side by side."""
    for number in range(TRACKED_OBJECTS):
        left = 100 + 400 * number
        tracker.prompt(None if number else frame, object_id=number + 1, box=[left, 100, left + 300, 900])


def status_bytes(name: str) -> int:
    """A figure of this process: VmRSS now, VmHWM at its largest (unlike ru_maxrss without what a parent once had)."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
