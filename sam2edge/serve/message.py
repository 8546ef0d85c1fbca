"""A frame as clients get it: one binary message.

The length of a JSON text (4 bytes, little-endian), the text, a JPEG.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import cv2
import numpy as np

from sam2edge.imaging.mask_formats import mask_box, mask_rle
from sam2edge.imaging.overlay import distinct_color, draw_masks
from sam2edge.serve.session import Step


def color_of(object_id: int) -> str:
    """The colour in which an object is shown, as CSS has it."""
    blue, green, red = distinct_color(object_id - 1)
    return f"#{red:02x}{green:02x}{blue:02x}"


def picture_size_wh(size_hw: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height of the picture that is sent: the frame's, but no side longer than `max_side` pixels."""
    height, width = size_hw
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def describe_step(step: Step, max_side: int) -> dict[str, Any]:
    """The JSON of a message. Masks are COCO run-length encodings at the size of the picture, boxes in frame pixels."""
    picture_wh = picture_size_wh(step.frame.size_hw, max_side)
    objects = []
    if step.result is not None:
        found = step.result
        rows = zip(found.object_ids, found.masks, found.scores.tolist(), found.object_scores.tolist(), strict=True)
        for object_id, mask, score, visible in rows:
            box = mask_box(mask)
            objects.append(
                {
                    "object": object_id,
                    "name": step.names.get(object_id, ""),
                    "color": color_of(object_id),
                    "state": "seen" if visible > 0 and box else "hidden",
                    "score": round(score, 4),
                    "object_score": round(visible, 3),
                    "area_pixels": int(np.count_nonzero(mask)),
                    "box": box,
                    "mask": mask_rle(_scale_mask(mask, picture_wh)),
                }
            )
    return {
        "type": "frame",
        "frame": step.frame.index,
        "time_ns": step.frame.time_ns,
        "size": [step.frame.size_hw[1], step.frame.size_hw[0]],
        "picture": list(picture_wh),
        "objects": objects,
        "paused": step.paused,
        "dropped": step.dropped,
        "problem": step.problem,
        "tracker_ms": round(step.tracker_seconds * 1000, 2),
    }


def encode_message(step: Step, max_side: int, jpeg_quality: int) -> bytes:
    """The whole message."""
    text = json.dumps(describe_step(step, max_side), separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + encode_picture(step, max_side, jpeg_quality)


def encode_picture(step: Step, max_side: int, jpeg_quality: int, drawn: bool = False) -> bytes:
    """The frame as a JPEG, with the masks drawn onto it or without."""
    pixels = step.frame.pixels
    if drawn:
        pixels = draw_step(step)
    picture_wh = picture_size_wh(step.frame.size_hw, max_side)
    if picture_wh != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, picture_wh, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    assert done
    return data.tobytes()


def draw_step(step: Step) -> np.ndarray:
    """The frame (H, W, 3) BGR with each object in its colour."""
    if step.result is None:
        return step.frame.pixels
    colors = [distinct_color(object_id - 1) for object_id in step.result.object_ids]
    return draw_masks(step.frame.pixels, step.result.masks, colors=colors)


def _scale_mask(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    if size_wh == (mask.shape[1], mask.shape[0]):
        return mask
    return cv2.resize(mask.view(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST).view(np.bool_)
