"""How far float16 graphs are from the float32 graphs that ship, over held-out clips.

    python -m training.evaluate_precision --clips 10 --frames 60 --out figures.json

Both run on ONNX Runtime's CPU; the float16 graphs are exported for this run alone, from the weights that ship.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sam2edge.backends.base import BackendRequest
from sam2edge.backends.registry import load_backend
from sam2edge.datatypes import BackendReport
from sam2edge.export.to_onnx import export_graphs
from sam2edge.predictor import ImagePredictor
from sam2edge.tracker import VideoTracker
from sam2edge.variants import EMBEDDED, VARIANTS
from training.batches import HELD_OUT_SEED
from training.clips import draw_clip
from training.evaluate_clips import follow
from training.publish import ASSETS

VARIANT = VARIANTS[EMBEDDED]
WEIGHTS = ASSETS / f"{EMBEDDED}.safetensors"


def evaluate_precision(
    half_graphs: Path, clips: int, frames: int, first_seed: int = HELD_OUT_SEED, most: int = 2
) -> dict[str, Any]:
    """J of both over `clips` clips, up to `most` objects of each, prompted by their boxes on the first frame.

    "difference": of the two means; "largest_difference": of one object, positive where float16 does worse.
    """
    full, half = tracker_on(ASSETS, "fp32"), tracker_on(half_graphs, "fp16")
    found: list[list[float]] = [[], []]
    for seed in range(first_seed, first_seed + clips):
        clip = draw_clip(seed, VARIANT.image_size, frames)
        for tracker, values in zip((full, half), found, strict=True):
            values += list(follow(tracker, clip, list(clip.objects[:most])).mean(0))
    with_full, with_half = np.array(found)
    apart = with_full - with_half
    largest = apart[np.abs(apart).argmax()]
    return {
        "clips": clips, "frames": frames, "first_seed": first_seed, "objects": len(apart),
        "j_fp32": round(float(with_full.mean()), 5), "j_fp16": round(float(with_half.mean()), 5),
        "difference": round(float(apart.mean()), 5), "largest_difference": round(float(largest), 5),
    }  # fmt: skip


def tracker_on(graphs: Path, precision: str) -> VideoTracker:
    """Tracks with the graphs in that folder, on ONNX Runtime's CPU."""
    request = BackendRequest(VARIANT, VARIANT.image_size, "cpu", WEIGHTS, graphs, precision=precision)
    backend = load_backend("onnxruntime").open(request)
    assert backend.precision == precision, backend.precision
    return VideoTracker(ImagePredictor(backend, BackendReport("onnxruntime")), input_color_format="rgb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export_graphs(VARIANT, WEIGHTS, VARIANT.image_size, Path(folder), precision="fp16")
        text = json.dumps(evaluate_precision(Path(folder), args.clips, args.frames), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
