"""What "auto" promised, and what its process took.

    python -m bench.promises_worker photos|video CAP_BYTES

picks by `select`, loads the same by `from_pretrained`, and works: more photos than the cache holds, or a video with
four objects until every memory slot is in use. Prints one JSON object. Bytes count from the process as it was before.
"""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.memory_worker import FRAME_HW, prompt_objects, status_bytes
from sam2edge import AutoModel, VideoTracker
from sam2edge.selection.select import Constraints, select

FRAMES = 9
"""Of the video: the prompted one, six whose memories are kept, and two with all slots in use."""


def main(arguments: list[str]) -> None:
    tracking, cap = arguments[0] == "video", int(arguments[1])
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME_HW, 3), np.uint8)
    cv2.resize(frame, (64, 64))  # OpenCV's threads and buffers are there before the count starts
    before = status_bytes("VmRSS")
    choice = select(Constraints(tracking=tracking), cap)
    assert choice is not None
    assert choice.cache_bytes is not None
    embeddings = 0 if tracking else choice.cache_bytes // choice.picked.needs.embedding_bytes
    if tracking:
        _track(frame, cap)
    else:
        _segment(frame, cap, embeddings + 1)
    # A tracker keeps the frame at hand alone, which no cache holds.
    cached = choice.picked.needs.embedding_bytes if tracking else choice.cache_bytes
    print(
        json.dumps(
            {
                "pick": str(choice.picked),
                "source": choice.picked.needs.source,
                "cap_bytes": cap,
                "promised_bytes": choice.picked.needs.total_bytes + cached,
                "taken_bytes": status_bytes("VmHWM") - before - 2 * frame.nbytes,  # the program's own frames
                "embeddings_cached": embeddings,
            }
        )
    )


def _segment(frame: NDArray[np.uint8], cap: int, photos: int) -> None:
    model = AutoModel.from_pretrained(max_memory=cap)
    box = np.array([100, 100, 900, 900])
    for shift in range(photos):
        model.segment_images(np.roll(frame, shift, axis=1), boxes=box)


def _track(frame: NDArray[np.uint8], cap: int) -> None:
    tracker = VideoTracker.from_pretrained(max_memory=cap)
    prompt_objects(tracker, frame)
    for shift in range(1, FRAMES):
        tracker.track(np.roll(frame, shift, axis=1))


if __name__ == "__main__":
    main(sys.argv[1:])
