"""What frame skipping and a smaller image cost in accuracy: IoU with the truth and with the full run, on a drawn clip.

    python -m bench.tracking_options [--model ID] [--checkpoint FILE] [--backend NAME] [--sizes S ...] [--every N ...]

The first size and every frame is the full run. Between frames that the model sees, the last masks are held, as in
`sam2edge track --every N`. Sizes other than the model's own need graphs for them, or the torch backend.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np

from bench.harness import report, use_cores
from bench.tracking_clip import DrawnClip, iou
from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.variants import find_variant

COINS = 2
SIZE_WH = (1280, 720)


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    loads = os.getloadavg()
    own = find_variant(args.model).image_size
    rows: list[dict[str, Any]] = []
    full: list[np.ndarray] | None = None
    for size in args.sizes or [own, own // 2]:
        model = AutoModel.from_pretrained(args.model, backend=args.backend, checkpoint=args.checkpoint, image_size=size)
        for every in args.every:
            masks, row = _run(model, every, args.frames)
            full = full or masks
            same = [iou(found[c], wanted[c]) for found, wanted in zip(masks, full, strict=True) for c in range(COINS)]
            rows.append({**row, "mean_iou_with_the_full_run": round(statistics.mean(same), 4)})
            print(rows[-1], flush=True)
    settings = {"model": args.model, "backend": args.backend, "frames": args.frames, "coins": COINS}
    report("tracking_options", {}, [], {}, {**settings, "frame_wh": SIZE_WH}, loads, {"runs": rows})


def _run(model: ImagePredictor, every: int, frames: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    clip, tracker = DrawnClip(SIZE_WH, COINS), VideoTracker(model)
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What frame skipping and a smaller image cost.")
    parser.add_argument("--model", default="sam2/hiera_micro")
    parser.add_argument("--checkpoint")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--sizes", type=int, nargs="+", help="default: the model's own and half of it")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
