"""Resident memory over thousands of frames while objects come and go: it must stay what it was after the first 500.

    python -m bench.long_run [--frames N] [--size PIXELS] [--backend NAME]

The embedded model at a small image size, so that it ends in minutes; its graphs for that size are exported for this run
alone. Device memory is told where the backend knows it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from bench.harness import Target, report
from bench.image_tiny import prepare
from bench.tracking_clip import DrawnClip
from sam2edge import VideoTracker

MODEL = "sam2/hiera_micro"
ASSETS = Path(__file__).parent.parent / "sam2edge" / "assets"
SETTLED = 500
"""Frames after which memory has to be flat."""
SAMPLE, CHANGE = 100, 40
"""Frames between two looks at memory, and between two changes of who is followed."""
COINS = 4


def main() -> None:
    args = _arguments()
    loads = os.getloadavg()
    with tempfile.TemporaryDirectory() as home:
        if args.backend == "onnxruntime":
            checkpoint = str(next(ASSETS.glob("*.safetensors")))
            arguments = [MODEL, "--checkpoint", checkpoint, "--size", str(args.size)]
            prepare(["sam2edge.export.to_onnx", *arguments], {"SAM2EDGE_HOME": home})
        os.environ["SAM2EDGE_HOME"] = home
        samples = _run(args)
    flat = [sample for sample in samples if sample["frame"] >= SETTLED]
    highest = max(flat, key=lambda sample: sample["resident_mib"])
    report(
        "long_run",
        {},
        [
            Target(
                f"most resident memory after frame {SETTLED} / at frame {SETTLED}",
                1.02,
                highest["resident_mib"] / flat[0]["resident_mib"],
            )
        ],
        {},
        {
            "model": MODEL,
            "image_size": args.size,
            "backend": args.backend,
            "frames": args.frames,
            "changed_every": CHANGE,
        },
        loads,
        {"samples": len(samples), "settled": flat[0], "highest": highest, "last": samples[-1]},
    )


def _run(args: argparse.Namespace) -> list[dict[str, float]]:
    tracker = VideoTracker.from_pretrained(MODEL, backend=args.backend, image_size=args.size, device=args.device)
    clip = DrawnClip((320, 240), COINS)
    tracker.prompt(clip.frame(0), 0, box=clip.box(0, 0))
    samples = []
    for number in range(1, args.frames):
        tracker.track(clip.frame(number))
        if number % CHANGE == 0:
            _change(tracker, clip, number)
        if number % SAMPLE == 0:
            memory = {"frame": number, "resident_mib": _resident_mib(), "objects": len(tracker.object_ids)}
            samples.append({**memory, "memory_bytes": tracker.memory_nbytes, **_device_mib()})
            print(json.dumps(samples[-1]), flush=True)  # a run that is ended early has told something
    return samples


def _change(tracker: VideoTracker, clip: DrawnClip, number: int) -> None:
    """One coin after another joins; then the oldest goes before the next comes, and one is corrected in between."""
    turn = number // CHANGE
    coin = turn % COINS
    if coin in tracker.object_ids:
        tracker.remove_object(coin)
    elif turn % 3 and tracker.object_ids:
        coin = tracker.object_ids[0]
    tracker.prompt(None, coin, box=clip.box(number, coin))


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def _device_mib() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"device_mib": round(torch.cuda.memory_reserved() / 2**20, 2)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory over thousands of frames.")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128, help="side of the model's input in pixels")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--device", help="cpu or cuda, for the torch backend")
    args = parser.parse_args()
    if args.frames <= SETTLED + SAMPLE:
        parser.error(
            f"--frames {args.frames}: expected more than {SETTLED + SAMPLE}, so that there is something to compare"
        )
    return args


if __name__ == "__main__":
    main()
