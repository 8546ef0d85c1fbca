"""float16 graphs against float32 ones over a long clip: does the difference grow through the memories?

    python -m bench.tracking_precision [--model ID --checkpoint FILE] [--size PIXELS] [--frames N]

Both on onnxruntime's CPU, the same drawn clip of two coins, each with memories of its own. The fp16 graphs are exported
for this run alone, the fp32 ones too where a checkpoint is named. No time is measured. What onnxruntime's CPU shows of
float16 and what it does not: docs/status.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from bench.harness import Target, report
from bench.image_tiny import prepare
from bench.tracking_clip import DrawnClip, iou
from sam2edge import AutoModel, VideoTracker
from sam2edge.variants import find_variant

MICRO = "sam2/hiera_micro"
ASSETS = Path(__file__).parent.parent / "sam2edge" / "assets"
COINS = 2
STRETCH = 50
"""Frames that one figure of the trend is the mean of."""


def main() -> None:
    args = _arguments()
    loads = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        half, full = (_tracker(args, precision, Path(folder)) for precision in ("fp16", "fp32"))
        agreement, truth = _follow(half, full, args.frames)
    least = min(min(row) for row in agreement)
    report(
        "tracking_precision",
        {},
        [Target("1 - least mask IoU of fp16 and fp32 on a frame", 0.02, 1 - least)],
        {},
        {"model": args.model, "image_size": full.model.image_size, "frames": args.frames, "coins": COINS},
        loads,
        {
            "least_iou": round(least, 5),
            f"mean_iou_of_{STRETCH}_frames": _trend(agreement),
            f"iou_of_fp32_with_the_truth_of_{STRETCH}_frames": _trend(truth),
        },
    )


def _tracker(args: argparse.Namespace, precision: str, home: Path) -> VideoTracker:
    """On graphs of that precision; the embedded fp32 ones come with the package."""
    os.environ["SAM2EDGE_HOME"] = str(home)
    embedded = args.model == MICRO and args.checkpoint is None
    size = args.size or find_variant(args.model).image_size
    if precision == "fp16" or not embedded or size != find_variant(MICRO).image_size:
        checkpoint = args.checkpoint or str(next(ASSETS.glob("*.safetensors")))
        arguments = [args.model, "--checkpoint", checkpoint, "--size", str(size), "--precision", precision]
        prepare(["sam2edge.export.to_onnx", *arguments], {"SAM2EDGE_HOME": str(home)})
    model = AutoModel.from_pretrained(args.model, backend="onnxruntime", precision=precision, image_size=size)
    assert model.backend.precision == precision, model.backend.precision
    return VideoTracker(model)


def _follow(half: VideoTracker, full: VideoTracker, frames: int) -> tuple[list[list[float]], list[list[float]]]:
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


def _trend(rows: list[list[float]]) -> list[float]:
    stretches = [rows[start : start + STRETCH] for start in range(0, len(rows), STRETCH)]
    return [round(statistics.mean(value for row in stretch for value in row), 5) for stretch in stretches]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="float16 against float32 over a long clip.")
    parser.add_argument("--model", default=MICRO)
    parser.add_argument("--checkpoint")
    parser.add_argument("--size", type=int, help="side of the model's input in pixels")
    parser.add_argument("--frames", type=int, default=500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
