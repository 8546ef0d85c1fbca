"""Masks in the forms other tools read: boxes, polygons, COCO annotations, YOLO lines, cut-outs.

Boxes and polygons lie on the edges of pixels: a mask of the one pixel (x, y) covers x..x+1 and y..y+1, as COCO and YOLO
have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

POLYGON_TOLERANCE_PIXELS = 0.5
"""How far a polygon may be from the mask's edge: half a pixel leaves out the steps of slanted edges."""


def mask_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x_min, y_min, x_max, y_max in pixels of a mask (H, W), right and bottom exclusive; None where it is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (x, y, x + width, y + height) if width else None


def mask_centroid(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """x, y of the centre of a mask's pixels, in pixels; None where it is empty."""
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    area = moments["m00"]
    return (moments["m10"] / area + 0.5, moments["m01"] / area + 0.5) if area else None


def mask_polygons(
    mask: NDArray[np.bool_], tolerance_pixels: float = POLYGON_TOLERANCE_PIXELS
) -> list[NDArray[np.float32]]:
    """The outlines of a mask (H, W), one polygon (P, 2) of x, y for each connected part, the largest first.

    Holes are filled, since these formats have none; run-length encoding keeps them.
    """
    box = mask_box(mask)
    if box is None:
        return []
    x, y, right, bottom = box
    inside = mask[y:bottom, x:right].view(np.uint8)
    height, width = inside.shape
    # Twice as fine, with a sample at the pixels' edges: the outline through these samples is the edge itself.
    fine = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    for row in range(3):
        for column in range(3):
            fine[row : row + 2 * height : 2, column : column + 2 * width : 2] |= inside
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True):
        simple = cv2.approxPolyDP(contour, 2 * tolerance_pixels, True)
        chosen = simple if len(simple) >= 3 else contour
        polygons.append((chosen.reshape(-1, 2) / 2 + (x, y)).astype(np.float32))
    return polygons


def mask_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) in COCO's compressed run-length encoding: {"size": [H, W], "counts": text}.

    Runs go down the columns and start with one of zeros. From the third on, a run is stored as the difference to the
    one two before it, in groups of five bits, the lowest first, with a sixth bit where more follow (`maskApi.c` of
    pycocotools).
    """
    flat = np.concatenate(([False], mask.ravel(order="F"), [True]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    if len(runs) > 1 and runs[-1] == 0:  # the added True is no pixel
        runs.pop()
    characters = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(chr(48 + bits + 32 * more))
    return {"size": [int(side) for side in mask.shape], "counts": "".join(characters)}


def coco_annotation(mask: NDArray[np.bool_], score: float, *, as_rle: bool = False) -> dict[str, Any]:
    """A mask that is not empty as a COCO annotation without ids: segmentation, bbox (x, y, width, height), area, score.

    The segmentation is polygons, or with `as_rle` the run-length encoding, which keeps holes.
    """
    box = mask_box(mask)
    assert box is not None
    x, y, right, bottom = box
    outlines = [np.round(polygon, 1).ravel().tolist() for polygon in mask_polygons(mask)]
    return {
        "segmentation": mask_rle(mask) if as_rle else outlines,
        "bbox": [x, y, right - x, bottom - y],
        "area": int(np.count_nonzero(mask)),
        "iscrowd": 0,
        "score": round(score, 4),
    }


def coco_dataset(photos: Sequence[tuple[str, tuple[int, int], list[dict[str, Any]]]], category: str) -> dict[str, Any]:
    """A COCO data set of (file name, (height, width), annotations without ids); ids count from 1."""
    images = [
        {"id": i, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
        for i, (name, size_hw, _) in enumerate(photos, 1)
    ]
    found = [(i, annotation) for i, (_, _, annotations) in enumerate(photos, 1) for annotation in annotations]
    numbered = [{"id": n, "image_id": i, "category_id": 1, **entry} for n, (i, entry) in enumerate(found, 1)]
    return {"images": images, "annotations": numbered, "categories": [{"id": 1, "name": category}]}


def yolo_line(mask: NDArray[np.bool_], class_id: int = 0) -> str:
    """A mask that is not empty as a line of a YOLO segmentation label: class, then x, y in shares of width and height.

    A label holds one polygon: the parts of a mask are joined by lines of no width, there and back.
    """
    polygons = mask_polygons(mask)
    first = polygons[0][:1]
    joined = [polygons[0]] + [part for p in polygons[1:] for part in (first, p, p[:1])]
    corners = np.concatenate([*joined, first] if len(polygons) > 1 else joined)
    shares = corners / (mask.shape[1], mask.shape[0])
    return " ".join([str(class_id), *(f"{share:.6f}" for share in shares.ravel())])


def cut_out(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the mask as its alpha: (H, W, 4), 255 inside and 0 outside."""
    return np.dstack((image, mask.view(np.uint8) * np.uint8(255)))
