"""Quality, no time: python -m bench.quality photos|options|precision [options]

photos: the embedded model on natural photos, beside what OpenCV offers without a model (needs scikit-image). One click
    (the point of the object deepest inside its outline) against flood fill from that click, and the outline's box
    against GrabCut in that box. Photos are scikit-image's; outlines are `outlines.json`, and for the coins a threshold
    after the background's brightness is taken out. Flood fill gets the tolerance that does best over all objects.
options: what frame skipping and a smaller image cost: IoU with the truth and with the full run, on a drawn clip.
    Between frames that the model sees, the last masks are held, as in `sam2edge track --every N`.
precision: float16 graphs against float32 ones over a long drawn clip, on onnxruntime's CPU, each with memories of its
    own: does the difference grow through the memories?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.clip import DrawnClip, iou
from bench.grabcut import segment_box
from bench.harness import RESULTS, Target, format_json, make_parser, report, run_alone, use_cores
from sam2edge import AutoModel, ImagePredictor, VideoTracker, draw_masks
from sam2edge.store.paths import ASSETS
from sam2edge.variants import find_variant

HERE = Path(__file__).parent
MICRO = "sam2/micro"
TOLERANCES = (5, 10, 15, 20, 30, 40)
SHOWN_TOLERANCE = 40
COINS = 2
STRETCH = 50
"""Frames that one figure of the trend is the mean of."""


def main() -> None:
    parser = make_parser(__doc__, rounds=1)
    parser.add_argument("what", choices=("photos", "options", "precision"))
    parser.add_argument("--model", default=MICRO)
    parser.add_argument("--backend", default="torch", help="of options")
    parser.add_argument("--sizes", type=int, nargs="+", help="of options; default: the model's own and half of it")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 5], help="of options")
    parser.add_argument("--frames", type=int, help="default: 120, of precision 500")
    parser.add_argument("--pictures", type=Path, help="of photos: a picture of results, to look at")
    parser.add_argument("--draw", type=int, help="of photos: so many results in the picture, by lot; default: all")
    args = parser.parse_args()
    use_cores(args.cores)
    {"photos": compare_photos, "options": compare_options, "precision": compare_precision}[args.what](args)


@dataclass(frozen=True)
class Object:
    """An outlined object: photo (H, W, 3) BGR, outline (H, W) bool, a click inside, its box."""

    photo_name: str
    name: str
    photo: np.ndarray
    outline: np.ndarray
    click_xy: tuple[int, int]
    box_xyxy: tuple[int, int, int, int]


def read_objects() -> Iterator[Object]:
    outlines = json.loads((HERE / "outlines.json").read_text())
    for photo_name, named in outlines.items():
        if photo_name.startswith("_"):
            continue
        photo = _read(photo_name)
        for name, shapes in named.items():
            yield _make_object(photo_name, name, photo, _draw(shapes, photo.shape[:2]))
    coins = _read("coins.png")
    for i, outline in enumerate(outline_coins(coins)):
        yield _make_object("coins.png", f"coin {i}", coins, outline)


def outline_coins(photo: np.ndarray) -> list[np.ndarray]:
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
    from skimage.data import data_dir

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


def _make_object(photo_name: str, name: str, photo: np.ndarray, outline: np.ndarray) -> Object:
    depth = cv2.distanceTransform(np.pad(outline, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    rows, cols = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    box = (int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1)
    return Object(photo_name, name, photo, outline, (int(x), int(y)), box)


def flood_fill(target: Object, tolerance: int) -> np.ndarray:
    mask = np.zeros((target.photo.shape[0] + 2, target.photo.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(target.photo.copy(), mask, target.click_xy, 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return mask[1:-1, 1:-1].astype(bool)


def segment_click(model: ImagePredictor, target: Object) -> np.ndarray:
    click = np.array([target.click_xy])
    return model.segment_images(target.photo, point_coordinates=click, point_labels=np.array([1]))[0].best_masks


def segment_outline_box(model: ImagePredictor, target: Object) -> np.ndarray:
    return model.segment_images(target.photo, boxes=np.array(target.box_xyxy))[0].best_masks


def measure_photos(model: ImagePredictor) -> tuple[list[dict], list[np.ndarray]]:
    """A row of figures and a picture for each object: masks of click, flood fill, box and GrabCut side by side."""
    rows, pictures = [], []
    for target in read_objects():
        cv2.setRNGSeed(0)  # of GrabCut
        click, box = segment_click(model, target), segment_outline_box(model, target)
        flooded = {t: flood_fill(target, t) for t in TOLERANCES}
        grabbed = segment_box(target.photo, target.box_xyxy)
        floods = {t: iou(mask, target.outline) for t, mask in flooded.items()}
        row = {"photo": target.photo_name, "object": target.name, "click": iou(click, target.outline)}
        rows.append(row | {"box": iou(box, target.outline), "grabcut": iou(grabbed, target.outline)} | floods)
        clicked: dict[str, Any] = {"points": np.array([target.click_xy]), "point_labels": np.array([1])}
        boxed: dict[str, Any] = {"boxes": np.array([target.box_xyxy])}
        shown = ((click, clicked), (flooded[SHOWN_TOLERANCE], clicked), (box, boxed), (grabbed, boxed))
        pictures.append(np.hstack([_fit(draw_masks(target.photo, mask, **given)) for mask, given in shown]))
    return rows, pictures


def _fit(picture: np.ndarray, size_wh: tuple[int, int] = (180, 130)) -> np.ndarray:
    scale = min(size_wh[0] / picture.shape[1], size_wh[1] / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def summarise(rows: list[dict]) -> dict:
    """Mean IoU of each way, over all objects and without the coins."""
    tolerance = max(TOLERANCES, key=lambda t: np.mean([row[t] for row in rows]))

    def means(args: list[dict]) -> dict:
        ways = {"click": "click", "flood fill": tolerance, "box": "box", "GrabCut": "grabcut"}
        return {way: round(float(np.mean([row[key] for row in args])), 3) for way, key in ways.items()}

    coins = [row for row in rows if row["photo"] == "coins.png"]
    others = [row for row in rows if row["photo"] != "coins.png"]
    return {"tolerance": tolerance, "objects": len(rows), "coins": means(coins), "others": means(others)}


def compare_photos(args: argparse.Namespace) -> None:
    rows, pictures = measure_photos(AutoModel.from_pretrained(args.model, backend="onnxruntime"))
    for row in rows:
        print(
            *(f"{k}: {v:.2f}" if isinstance(v, float) else v for k, v in row.items() if k not in TOLERANCES), sep="  "
        )
    totals = summarise(rows)
    print(json.dumps(totals, indent=1))
    (RESULTS / "quality_photos.json").write_text(
        format_json({"bench": "quality_photos", "mean_iou": totals, "rows": rows}) + "\n"
    )
    if args.pictures:
        drawn = np.random.default_rng(0).permutation(len(pictures))[: args.draw]
        pictures = [pictures[i] for i in sorted(drawn)]
        pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % 2)
        sheet = np.vstack([np.hstack(pictures[i : i + 2]) for i in range(0, len(pictures), 2)])
        cv2.imwrite(str(args.pictures), sheet)


def compare_options(args: argparse.Namespace) -> None:
    """The first size and every frame is the full run. Sizes other than the model's own need graphs or torch."""
    frames = args.frames or 120
    own = find_variant(args.model).image_size
    rows: list[dict[str, Any]] = []
    full: list[np.ndarray] | None = None
    for size in args.sizes or [own, own // 2]:
        model = AutoModel.from_pretrained(args.model, backend=args.backend, checkpoint=args.checkpoint, image_size=size)
        for every in args.every:
            masks, row = _track_clip(model, every, frames)
            full = full or masks
            same = [iou(found[c], wanted[c]) for found, wanted in zip(masks, full, strict=True) for c in range(COINS)]
            rows.append({**row, "mean_iou_with_the_full_run": round(statistics.mean(same), 4)})
            print(rows[-1], flush=True)
    settings = {"model": args.model, "backend": args.backend, "frames": frames, "coins": COINS}
    report("quality_options", {}, [], {}, {**settings, "frame_wh": (1280, 720)}, {"runs": rows})


def _track_clip(model: ImagePredictor, every: int, frames: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    clip, tracker = DrawnClip((1280, 720), COINS), VideoTracker(model)
    for coin in range(COINS):
        result = tracker.prompt(clip.frame(0), coin, box=clip.box(0, coin))
    masks, truth, seconds = [result.masks], [], 0.0
    for number in range(1, frames):
        if number % every == 0:
            frame = clip.frame(number)
            start = time.perf_counter()
            result = tracker.track(frame)
            seconds += time.perf_counter() - start
        masks.append(result.masks)
        truth += [iou(result.masks[coin], clip.mask(number, coin)) for coin in range(COINS)]
    row = {
        "image_size": model.image_size,
        "every": every,
        "ms_a_frame": round(seconds / (frames - 1) * 1e3, 2),
        "mean_iou_with_the_truth": round(statistics.mean(truth), 4),
    }
    return masks, row


def compare_precision(args: argparse.Namespace) -> None:
    frames = args.frames or 500
    with tempfile.TemporaryDirectory() as folder:
        half, full = (_load_tracker(args, precision, Path(folder)) for precision in ("fp16", "fp32"))
        agreement, truth = _track_both(half, full, frames)
    least = min(min(row) for row in agreement)
    report(
        "quality_precision",
        {},
        [Target("1 - least mask IoU of fp16 and fp32 on a frame", 0.02, 1 - least)],
        {},
        {"model": args.model, "image_size": full.model.image_size, "frames": frames, "coins": COINS},
        {
            "least_iou": round(least, 5),
            f"mean_iou_of_{STRETCH}_frames": _average_stretches(agreement),
            f"iou_of_fp32_with_the_truth_of_{STRETCH}_frames": _average_stretches(truth),
        },
    )


def _load_tracker(args: argparse.Namespace, precision: str, home: Path) -> VideoTracker:
    """On graphs of that precision, exported for this run alone; the embedded fp32 ones come with the package."""
    os.environ["SAM2EDGE_HOME"] = str(home)
    own_size = find_variant(args.model).image_size
    size = args.sizes[0] if args.sizes else own_size
    if precision == "fp16" or args.model != MICRO or args.checkpoint is not None or size != own_size:
        checkpoint = args.checkpoint or next(ASSETS.glob("*.safetensors"))
        given = {"model": args.model, "checkpoint": checkpoint, "size": size, "precision": precision}
        run_alone("bench.prepare:export_graphs", home, **given)
    model = AutoModel.from_pretrained(args.model, backend="onnxruntime", precision=precision, image_size=size)
    assert model.backend.precision == precision, model.backend.precision
    return VideoTracker(model)


def _track_both(half: VideoTracker, full: VideoTracker, frames: int) -> tuple[list[list[float]], list[list[float]]]:
    """(IoU of the two a coin, IoU of the second with the truth), a row a frame."""
    clip = DrawnClip((640, 360), COINS)
    for tracker in (half, full):
        for coin in range(COINS):
            tracker.prompt(clip.frame(0), coin, box=clip.box(0, coin))
    agreement, truth = [], []
    for number in range(1, frames):
        frame = clip.frame(number)
        left, right = half.track(frame).masks, full.track(frame).masks
        agreement.append([iou(left[coin], right[coin]) for coin in range(COINS)])
        truth.append([iou(right[coin], clip.mask(number, coin)) for coin in range(COINS)])
    return agreement, truth


def _average_stretches(rows: list[list[float]]) -> list[float]:
    stretches = [rows[start : start + STRETCH] for start in range(0, len(rows), STRETCH)]
    return [round(statistics.mean(value for row in stretch for value in row), 5) for stretch in stretches]


if __name__ == "__main__":
    main()
