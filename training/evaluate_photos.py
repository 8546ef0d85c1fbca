"""How well a model follows a click and a box on photographs that it was never trained on.

    python -m training.evaluate_photos WEIGHTS --photos PHOTOS --garments HELD_OUT_GARMENTS

Objects: those outlined by hand in scikit-image's photographs and its coins (bench.quality), those
outlined by hand in held-out groceries (outlines.json), and held-out garments as `training.garments --held-out` cuts
them out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.imaging.refine import CLEAN, WAYS
from sam2edge.predictor import ImagePredictor
from training.evaluate import iou_of
from training.evaluate_clips import tracker_of
from training.photo_folder import list_photos
from training.prompts import box_of, deepest_point


@dataclass(frozen=True)
class Outlined:
    """Objects of one photograph: photo (H, W, 3) uint8 RGB, masks (K, H, W) bool."""

    kind: str
    photo: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def outlined_by_hand() -> Iterator[Outlined]:
    from bench.quality import read_objects

    by_photo: dict[str, list[Any]] = {}
    for thing in read_objects():
        by_photo.setdefault(thing.photo_name, []).append(thing)
    for name, things in by_photo.items():
        kind = "coins" if name == "coins.png" else "outlined"
        yield Outlined(kind, things[0].photo[..., ::-1], np.stack([thing.outline for thing in things]))


def outlined_groceries(photos: Path) -> Iterator[Outlined]:
    """Of the folder that training.photo_folder describes."""
    outlines = json.loads((Path(__file__).parent / "outlines.json").read_text())
    for path in list_photos(photos, held_out=True):
        if path.stem in outlines:
            photo = np.asarray(cv2.imread(str(path)), np.uint8)
            masks = [_draw(shape, photo.shape[:2]) for shape in outlines[path.stem]]
            yield Outlined("groceries", photo[..., ::-1], np.stack(masks))


def _draw(shape: dict[str, Any], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size_hw, np.uint8)
    scale = np.array([size_hw[1], size_hw[0]]) / 100.0
    if "ellipse" in shape:
        x, y, half_width, half_height = np.round(np.array(shape["ellipse"]) * np.tile(scale, 2)).astype(int).tolist()
        cv2.ellipse(mask, (x, y), (half_width, half_height), 0, 0, 360, (1,), -1)
    for name, value in (("polygon", 1), ("without", 0)):
        if name in shape:
            cv2.fillPoly(mask, [np.round(np.array(shape[name]) * scale).astype(np.int32)], (value,))
    return mask.astype(bool)


def garments(folder: Path) -> Iterator[Outlined]:
    for path in sorted(folder.glob("*.png")):
        found = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8)
        yield Outlined(folder.name, found[..., 2::-1], found[None, ..., 3] > 127)


def evaluate_photos(model: ImagePredictor, photos: Iterator[Outlined], refine: str) -> dict[str, dict[str, float]]:
    """Mean IoU for each kind of object: one click deep inside, the best of its three masks, the box.

    `refine`: how masks are refined, as `ImagePredictor.segment_images` takes it; the masks are those that it gives.
    """
    lists: dict[str, dict[str, list[float]]] = {}
    for outlined in photos:
        kept = lists.setdefault(outlined.kind, {"click": [], "best_of_three": [], "box": []})
        clicks = np.array([[deepest_point(mask)] for mask in outlined.masks], np.float32)
        boxes = np.array([box_of(mask) for mask in outlined.masks], np.float32) + (0, 0, 1, 1)
        prompts: dict[str, dict[str, Any]] = {
            "click": {"point_coordinates": clicks, "point_labels": np.ones(clicks.shape[:2])},
            "box": {"boxes": boxes},
        }
        for kind, prompt in prompts.items():
            found = model.segment_images(outlined.photo, input_color_format="rgb", refine=refine, **prompt)[0]
            # A single object comes without its axis.
            masks, scores = (part if len(clicks) > 1 else part[None] for part in (found.masks, found.scores))
            iou = iou_of(masks.reshape(len(clicks), -1, *masks.shape[-2:]), outlined.masks)
            kept[kind] += list(iou[np.arange(len(iou)), scores.reshape(iou.shape).argmax(1)])
            if kind == "click":
                kept["best_of_three"] += list(iou.max(1))
    return {
        kind: {"objects": len(by_way["click"])} | {way: round(float(np.mean(v)), 4) for way, v in by_way.items()}
        for kind, by_way in lists.items()
    }


def main() -> None:
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant
    from training.checkpoints import load_weights

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a training checkpoint (.pt) or weights (.safetensors)")
    parser.add_argument("--size", type=int, default=384, help="side of the model's input in pixels")
    parser.add_argument("--photos", type=Path, help="folder of photographs, for the groceries")
    parser.add_argument(
        "--garments", type=Path, nargs="*", default=[], help="folders of held-out objects, .png with alpha"
    )
    parser.add_argument("--refine", choices=WAYS, default=CLEAN)
    args = parser.parse_args()
    model = Sam2(find_variant(EMBEDDED), image_size=args.size).eval()
    model.load_state_dict(load_weights(args.weights))
    groceries = [outlined_groceries(args.photos)] if args.photos else []
    predictor = tracker_of(model).model
    for photos in (outlined_by_hand(), *groceries, *(garments(folder) for folder in args.garments)):
        print(json.dumps(evaluate_photos(predictor, photos, args.refine)), flush=True)


if __name__ == "__main__":
    main()
