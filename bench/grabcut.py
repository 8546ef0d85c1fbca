"""The peer that needs no model: OpenCV's GrabCut in a box, five iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

ITERATIONS = 5


def segment_box(photo: np.ndarray, box_xyxy: Sequence[int]) -> np.ndarray:
    """Mask (H, W) bool of what the box holds; photo (H, W, 3) uint8 BGR."""
    left, top, right, bottom = box_xyxy
    labels = np.zeros(photo.shape[:2], np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (left, top, right - left, bottom - top)
    cv2.grabCut(photo, labels, rectangle, background, foreground, ITERATIONS, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def make_cases(photo: str, box: list[int]) -> dict[str, Callable[[], Any]]:
    picture = cv2.imread(photo)
    assert picture is not None, photo
    return {"answer": lambda: {"areas": [int(segment_box(picture, box).sum())]}}


def write_mask(photo: str, box: list[int], out: str) -> None:
    """The whole command."""
    picture = cv2.imread(photo)
    assert picture is not None, photo
    cv2.imwrite(out, segment_box(picture, box).astype(np.uint8) * 255)
