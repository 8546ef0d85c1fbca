"""How far a picture goes through the runtime before its mask comes out: files and calls, so that both stay few."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import sam2edge
from sam2edge import ImagePredictor, VideoTracker
from tests.fake_backend import bright_square, fake_model

PACKAGE = str(Path(sam2edge.__file__).parent)
BOX = np.array([5, 5, 45, 45])


def _walk(call: Callable[[], object]) -> Counter[str]:
    """Calls of the package's functions by file. Comprehensions do not count: Python 3.12 makes no calls of them."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE) and not frame.f_code.co_name.startswith("<"):
            found[file] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def _plain_model() -> ImagePredictor:
    """A model whose masks are not refined, as Meta's are not."""
    model = fake_model()
    model.backend.variant = replace(model.backend.variant, refine="none")
    return model


def test_from_a_photo_to_its_mask() -> None:
    model = _plain_model()
    model.segment_images(bright_square(9), boxes=BOX)
    walk = _walk(lambda: model.segment_images(bright_square(8), boxes=BOX))
    assert len(walk) <= 6, walk
    assert walk.total() <= 32, walk


def test_from_a_frame_to_its_masks() -> None:
    tracker = VideoTracker(_plain_model())
    tracker.prompt(bright_square(8), box=BOX)
    for left in range(9, 29):
        tracker.track(bright_square(left))
    walk = _walk(lambda: tracker.track(bright_square(29)))
    assert len(walk) <= 6, walk
    assert walk.total() <= 35, walk
