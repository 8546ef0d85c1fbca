"""The embedded model on natural photos, beside what OpenCV offers without a model.

    pip install scikit-image && python -m bench.natural_photos [--pictures FILE.png]

One click (the point of the object deepest inside its outline) against flood fill from that click, and the outline's
box against GrabCut in that box. Photos are scikit-image's; outlines are `outlines.json`, and for the coins a threshold
after the background's brightness is taken out. Flood fill gets the tolerance that does best over all objects.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from skimage.data import data_dir

from bench.harness import format_json
from sam2edge import AutoModel, ImagePredictor, draw_masks

HERE = Path(__file__).parent
TOLERANCES = (5, 10, 15, 20, 30, 40)
GRABCUT_ROUNDS = 5


@dataclass(frozen=True)
class Object:
    """One outlined thing: photo (H, W, 3) BGR, outline (H, W) bool, a click inside, its box."""

    photo_name: str
    name: str
    photo: np.ndarray
    outline: np.ndarray
    click_xy: tuple[int, int]
    box_xyxy: tuple[int, int, int, int]


def objects() -> Iterator[Object]:
    outlines = json.loads((HERE / "outlines.json").read_text())
    for photo_name, named in outlines.items():
        if photo_name.startswith("_"):
            continue
        photo = _read(photo_name)
        for name, shapes in named.items():
            yield _object(photo_name, name, photo, _draw(shapes, photo.shape[:2]))
    coins = _read("coins.png")
    for i, outline in enumerate(coin_outlines(coins)):
        yield _object("coins.png", f"coin {i}", coins, outline)


def coin_outlines(photo: np.ndarray) -> list[np.ndarray]:
    """Each coin of scikit-image's coins photo, (H, W) bool."""
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    flat = cv2.subtract(grey, cv2.GaussianBlur(cv2.erode(grey, np.ones((41, 41))), (0, 0), 20))
    _, bright = cv2.threshold(cv2.GaussianBlur(flat, (0, 0), 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    masks = []
    for contour in contours:
        hull = cv2.convexHull(contour)
        if cv2.contourArea(hull) > 700:
            mask = np.zeros(grey.shape, np.uint8)
            masks.append(cv2.fillPoly(mask, [hull], 1).astype(bool))
    return masks


def _read(name: str) -> np.ndarray:
    image = cv2.imread(str(Path(data_dir) / name))
    assert image is not None, f"scikit-image's {name} is missing"
    return image


def _draw(shapes: list[dict[str, list]], size_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, np.uint8)
    for shape in shapes:
        if "ellipse" in shape:
            x, y, half_width, half_height = shape["ellipse"]
            cv2.ellipse(mask, (x, y), (half_width, half_height), 0, 0, 360, 1, -1)
        else:
            cv2.fillPoly(mask, [np.array(shape["polygon"], np.int32)], 1)
    return mask.astype(bool)


def _object(photo_name: str, name: str, photo: np.ndarray, outline: np.ndarray) -> Object:
    depth = cv2.distanceTransform(np.pad(outline, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    rows, cols = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    box = (int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1)
    return Object(photo_name, name, photo, outline, (int(x), int(y)), box)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    joined = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / joined) if joined else 1.0


def flood_fill(thing: Object, tolerance: int) -> np.ndarray:
    mask = np.zeros((thing.photo.shape[0] + 2, thing.photo.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(thing.photo.copy(), mask, thing.click_xy, 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return mask[1:-1, 1:-1].astype(bool)


def grab_cut(thing: Object) -> np.ndarray:
    cv2.setRNGSeed(0)
    x1, y1, x2, y2 = thing.box_xyxy
    labels = np.zeros(thing.photo.shape[:2], np.uint8)
    scratch = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(thing.photo, labels, (x1, y1, x2 - x1, y2 - y1), *scratch, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def by_click(model: ImagePredictor, thing: Object) -> np.ndarray:
    click = np.array([thing.click_xy])
    return model.segment_images(thing.photo, point_coordinates=click, point_labels=np.array([1]))[0].best_masks


def by_box(model: ImagePredictor, thing: Object) -> np.ndarray:
    return model.segment_images(thing.photo, boxes=np.array(thing.box_xyxy))[0].best_masks


def measure(model: ImagePredictor) -> tuple[list[dict], list[np.ndarray]]:
    """A row of figures and a picture (the photo with the click's and the box's mask) for each object."""
    rows, pictures = [], []
    for thing in objects():
        click, box = by_click(model, thing), by_box(model, thing)
        floods = {t: iou(flood_fill(thing, t), thing.outline) for t in TOLERANCES}
        row = {"photo": thing.photo_name, "object": thing.name, "click": iou(click, thing.outline)}
        rows.append(row | {"box": iou(box, thing.outline), "grabcut": iou(grab_cut(thing), thing.outline)} | floods)
        click_picture = draw_masks(thing.photo, click, points=np.array([thing.click_xy]), point_labels=np.array([1]))
        box_picture = draw_masks(thing.photo, box, boxes=np.array([thing.box_xyxy]))
        pictures.append(np.hstack([_fit(click_picture), _fit(box_picture)]))
    return rows, pictures


def _fit(picture: np.ndarray, size_wh: tuple[int, int] = (360, 260)) -> np.ndarray:
    scale = min(size_wh[0] / picture.shape[1], size_wh[1] / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def summary(rows: list[dict]) -> dict:
    """Mean IoU of each way, over all objects and without the coins."""
    tolerance = max(TOLERANCES, key=lambda t: np.mean([row[t] for row in rows]))

    def means(args: list[dict]) -> dict:
        ways = {"click": "click", "flood fill": tolerance, "box": "box", "GrabCut": "grabcut"}
        return {way: round(float(np.mean([row[key] for row in args])), 3) for way, key in ways.items()}

    coins = [row for row in rows if row["photo"] == "coins.png"]
    others = [row for row in rows if row["photo"] != "coins.png"]
    return {"tolerance": tolerance, "objects": len(rows), "coins": means(coins), "others": means(others)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "natural_photos.json")
    parser.add_argument("--pictures", type=Path, help="a PNG of every result, to look at")
    args = parser.parse_args()
    rows, pictures = measure(AutoModel.from_pretrained("sam2/hiera_micro", backend="onnxruntime"))
    for row in rows:
        print(
            "  ".join(
                f"{k}: {v:.2f}" if isinstance(v, float) else f"{v}" for k, v in row.items() if k not in TOLERANCES
            )
        )
    totals = summary(rows)
    print(json.dumps(totals, indent=1))
    args.out.write_text(format_json({"mean_iou": totals, "rows": rows}) + "\n")
    if args.pictures:
        pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % 3)
        sheet = np.vstack([np.hstack(pictures[i : i + 3]) for i in range(0, len(pictures), 3)])
        cv2.imwrite(str(args.pictures), sheet)


if __name__ == "__main__":
    main()
