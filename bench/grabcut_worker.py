"""The peer that needs no model: OpenCV's GrabCut in a box, five iterations.

python -m bench.grabcut_worker PHOTO X1,Y1,X2,Y2             serves the case "answer" to the harness
python -m bench.grabcut_worker PHOTO X1,Y1,X2,Y2 --out FILE  writes the mask once: the whole command
"""

from __future__ import annotations

import argparse
from typing import Any

import cv2
import numpy as np

from bench.worker import serve

ITERATIONS = 5


def grabcut(photo: np.ndarray, box_xyxy: list[int]) -> np.ndarray:
    """Mask (H, W) bool of what the box holds; photo (H, W, 3) uint8 BGR."""
    left, top, right, bottom = box_xyxy
    labels = np.zeros(photo.shape[:2], np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (left, top, right - left, bottom - top)
    cv2.grabCut(photo, labels, rectangle, background, foreground, ITERATIONS, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photo")
    parser.add_argument("box")
    parser.add_argument("--out")
    args = parser.parse_args()
    photo = cv2.imread(args.photo)
    assert photo is not None, args.photo
    box_xyxy = [int(v) for v in args.box.split(",")]
    if args.out:
        cv2.imwrite(args.out, grabcut(photo, box_xyxy).astype(np.uint8) * 255)
        return

    def answer() -> dict[str, Any]:
        return {"areas": [int(grabcut(photo, box_xyxy).sum())]}

    serve({"answer": answer}, ["numpy"], cv2=cv2.__version__)


if __name__ == "__main__":
    main()
