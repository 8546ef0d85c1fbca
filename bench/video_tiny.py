"""Tracking with SAM 2.1 tiny at 1024 on the CPU: sam2edge's torch and onnxruntime backends against Meta's release.

    python -m bench.video_tiny --meta-python OTHER_VENV/bin/python [--checkpoint FILE] [--rounds N] [--graphs HOME]

One object, a drawn clip of 1280x720; times of a frame from the tenth on, when memory is full. Without --checkpoint
golden weights are used, without --graphs the ONNX graphs are exported for this run alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.harness import Outcome, Side, Target, alternate, python_module, report, statistics_ms, use_cores
from bench.image_tiny import prepare, weights_of
from bench.tracking_clip import DrawnClip

MODEL = "sam2/hiera_tiny"
META, TORCH, ORT = "Meta's release", "sam2edge torch", "sam2edge onnxruntime"
SIZE_WH = (1280, 720)
FIRST_TIMED = 9
"""Frames that are tracked before: one memory of the prompted frame and six of tracked ones are in use by then."""


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loads = os.getloadavg()
        outcome = _measure(args, work)
    report(
        "video_tiny",
        {"video_tiny": outcome},
        _targets(outcome),
        {f"frame: {side} / {META}": outcome.ratio("frame", side, META) for side in (TORCH, ORT)},
        {
            "model": MODEL,
            "image_size": 1024,
            "frame_wh": SIZE_WH,
            "objects": 1,
            "frames_before": FIRST_TIMED,
            "cores": args.cores,
            "weights": weights_of(args),
        },
        loads,
    )


def _measure(args: argparse.Namespace, work: Path) -> Outcome:
    checkpoint = args.checkpoint or str(work / "golden.pt")
    home = {"SAM2EDGE_HOME": args.graphs or str(work / "home")}
    frames = 1 + FIRST_TIMED + args.rounds
    prepare(["bench.tracking_clip", str(work / "clip"), str(frames), *map(str, SIZE_WH)], home)
    if not args.checkpoint:
        prepare(["bench.prepare", "golden", MODEL, checkpoint], home)
    if not args.graphs:
        prepare(["sam2edge.export.to_onnx", MODEL, "--checkpoint", checkpoint], home)
    box = ",".join(map(str, DrawnClip(SIZE_WH).box(0, 0)))
    common = ["--checkpoint", checkpoint, "--folder", str(work / "clip"), "--box", box]
    own = python_module("bench.video_worker", "--model", MODEL, *common)
    sides = [
        Side(META, python_module("bench.meta_video", *common, python=args.meta_python)),
        Side(TORCH, [*own, "--backend", "torch"], home),
        Side(ORT, [*own, "--backend", "onnxruntime"], home),
    ]
    return alternate(sides, {"frame": args.rounds}, warmup=FIRST_TIMED)


def _targets(outcome: Outcome) -> list[Target]:
    tails = []
    for side in (TORCH, ORT):
        times = statistics_ms(outcome.times_ms["frame"][side])
        tails.append(Target(f"p99 / median, {side}", 1.5, times["p99_ms"] / times["median_ms"]))
    return [
        Target("frame: torch / Meta", 0.8, outcome.ratio("frame", TORCH, META)),
        Target("frame: onnxruntime / Meta", 0.6, outcome.ratio("frame", ORT, META)),
        *tails,
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tracking with SAM 2.1 tiny against Meta's release.")
    parser.add_argument("--meta-python", default=sys.executable, help="interpreter of the environment with sam2 1.1.0")
    parser.add_argument("--checkpoint", help="official sam2.1_hiera_tiny.pt; default: golden weights")
    parser.add_argument("--graphs", metavar="HOME", help="a SAM2EDGE_HOME with graphs of that checkpoint")
    parser.add_argument("--rounds", type=int, default=20, help="timed frames a side")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
