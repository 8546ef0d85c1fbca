"""Makes the files that `sam2edge segment` writes for a photo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam2edge.cli.prompt_options import ObjectPrompt
from sam2edge.imaging.mask_formats import (
    coco_annotation,
    cut_out,
    mask_box,
    mask_polygons,
    mask_rle,
    yolo_line,
)
from sam2edge.imaging.overlay import distinct_color, draw_masks
from sam2edge.imaging.packed_mask import PackedMask

FORMATS = ("mask", "overlay", "cutout", "polygons", "rle", "yolo", "coco")
DEFAULT_FORMATS = ("mask", "overlay")


@dataclass(frozen=True)
class FoundMask:
    """A mask of an object, numbered from 1; `rank` is 0 for its best mask, 1 and 2 for alternatives."""

    number: int
    rank: int
    held: np.ndarray | PackedMask
    score: float
    prompt: ObjectPrompt

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool; one that is packed is unpacked anew at each call."""
        return self.held if isinstance(self.held, np.ndarray) else self.held.unpack()


@dataclass(frozen=True)
class PhotoResult:
    """The masks of a photo (H, W, 3) BGR; `path` is its name, `label` the name of its objects."""

    path: str
    image_bgr: np.ndarray
    masks: list[FoundMask]
    label: str | None

    @property
    def best(self) -> list[FoundMask]:
        """One mask an object."""
        return [found for found in self.masks if found.rank == 0]

    def part_name(self, found: FoundMask) -> str:
        """A mask's part of the file name: "" for the only one, "2." of several objects, "2b." of several masks."""
        number = str(found.number) if len(self.best) > 1 else ""
        letter = "abc"[found.rank] if len(self.masks) > len(self.best) else ""
        return f"{number}{letter}." if number or letter else ""


def make_files(result: PhotoResult, stem: str, formats: Sequence[str]) -> dict[str, bytes]:
    """File name -> content, in the order of `formats`. COCO is one file for all photos: see `make_coco_entry`."""
    files: dict[str, bytes] = {}
    for form in formats:
        if form == "mask":
            files |= _draw_each(result, stem, form, lambda found: found.mask.astype(np.uint8) * 255)
        elif form == "cutout":
            files |= _draw_each(result, stem, form, lambda found: cut_out(result.image_bgr, found.mask))
        elif form == "overlay" and len(result.masks) > len(result.best):
            files |= _draw_each(result, stem, form, lambda found: draw_overlay(result, [found]))
        elif form == "overlay":
            files[f"{stem}.overlay.png"] = _to_png(draw_overlay(result, result.masks))
        elif form in ("polygons", "rle"):
            files[f"{stem}.{form}.json"] = _to_json(_list_shapes(result, form))
        elif form == "yolo":
            lines = [yolo_line(mask) for mask in (found.mask for found in result.best) if mask.any()]
            files[f"{stem}.txt"] = "".join(f"{line}\n" for line in lines).encode()
    return files


def make_coco_entry(result: PhotoResult) -> tuple[str, tuple[int, int], list[dict[str, Any]]]:
    """The photo's part of a COCO data set, as `coco_dataset` takes it."""
    masks = ((found.mask, found.score) for found in result.best)
    annotations = [coco_annotation(mask, score) for mask, score in masks if mask.any()]
    return Path(result.path).name, (result.image_bgr.shape[0], result.image_bgr.shape[1]), annotations


def draw_overlay(result: PhotoResult, shown: Sequence[FoundMask]) -> np.ndarray:
    """The photo with masks, prompts, labels and scores on it, (H, W, 3) BGR."""
    prompts = [found.prompt for found in shown if found.rank == 0 or len(shown) == 1]
    points = [point for prompt in prompts for point in prompt.points]
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    return draw_masks(
        result.image_bgr,
        _Masks(shown),
        points=np.array([(point.x, point.y) for point in points]).reshape(-1, 2),
        point_labels=np.array([point.label for point in points]),
        boxes=np.array(boxes).reshape(-1, 4),
        labels=[_format_label(result, found) for found in shown],
        colors=[distinct_color(found.number - 1) for found in shown],
    )


class _Masks(Sequence[np.ndarray]):
    """The masks of what was found, one at a time."""

    def __init__(self, shown: Sequence[FoundMask]) -> None:
        self._shown = shown

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: Any) -> Any:
        return self._shown[index].mask


def _format_label(result: PhotoResult, found: FoundMask) -> str:
    if found.prompt == ObjectPrompt():  # --everything: hundreds of labels would cover the photo
        return ""
    name = result.label or (str(found.number) if len(result.best) > 1 else "")
    return f"{name} {found.score:.2f}".strip()


def describe_mask(found: FoundMask) -> dict[str, Any]:
    """A mask for JSON, with its own box, right and bottom exclusive, None if the mask is empty."""
    mask = found.mask
    box = mask_box(mask)
    return {
        "object": found.number,
        "score": round(found.score, 4),
        "area_pixels": int(np.count_nonzero(mask)),
        "box_xyxy": None if box is None else list(box),
    }


def _draw_each(result: PhotoResult, stem: str, form: str, draw: Any) -> dict[str, bytes]:
    names = {f"{stem}.{result.part_name(found)}{form}.png": found for found in result.masks}
    return {name: _to_png(draw(found)) for name, found in names.items()}


def _list_shapes(result: PhotoResult, form: str) -> list[dict[str, Any]]:
    shapes = []
    for found in result.masks:
        outlines = [np.round(polygon, 1).tolist() for polygon in mask_polygons(found.mask)] if form != "rle" else None
        shape = {"rle": mask_rle(found.mask)} if outlines is None else {"polygons": outlines}
        shapes.append({"label": result.label, **describe_mask(found), **shape})
    return shapes


def _to_png(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def _to_json(content: Any) -> bytes:
    return (json.dumps(content) + "\n").encode()
