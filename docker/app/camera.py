"""What the service of compose.yaml runs: the thing in the middle of the camera's picture, outlined, again and again.

    python3 camera.py SOURCE PICTURE

SOURCE is a device such as /dev/video0, or a video file; PICTURE is written anew every second.
A place to start from: replace `look` by what the device is for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from sam2edge import AutoModel, ImagePredictor, draw_masks

SECONDS_BETWEEN = 1.0


def look(model: ImagePredictor, frame: np.ndarray) -> np.ndarray:
    """The frame (H, W, 3) BGR with the thing in its middle outlined."""
    height, width = frame.shape[:2]
    middle = np.array([[width / 2, height / 2]])
    result = model.segment_images(frame, point_coordinates=middle, point_labels=np.array([1]))[0]
    return draw_masks(frame, result.best_masks[None], points=middle)


def run(source: str, picture: Path) -> int:
    camera = cv2.VideoCapture(source)
    if not camera.isOpened():
        print(f"{source} cannot be opened", file=sys.stderr)
        return 1
    model = AutoModel.from_pretrained(os.environ.get("SAM2EDGE_MODEL", "auto"))
    unfinished = picture.with_name(f".{picture.name}")
    due = 0.0
    while camera.grab():  # every frame, or the driver hands out old ones
        if time.monotonic() < due:
            continue
        due = time.monotonic() + SECONDS_BETWEEN
        there, frame = camera.retrieve()
        if there:
            unfinished.write_bytes(cv2.imencode(".png", look(model, frame))[1].tobytes())
            unfinished.replace(picture)
    print(f"{source} gives no more frames", file=sys.stderr)
    return 1  # so that the service is started again


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(run(sys.argv[1], Path(sys.argv[2])))
