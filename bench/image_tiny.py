"""SAM 2.1 tiny at 1024 on the CPU: sam2edge's torch and onnxruntime backends against Meta's release.

    python -m bench.image_tiny --meta-python OTHER_VENV/bin/python [--checkpoint FILE] [--rounds N]

Without --checkpoint the golden weights of tests/data are used; the ONNX graphs are exported for this run alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.harness import PHOTO, ROOT, Outcome, Side, Target, alternate, python_module, report, use_cores

MODEL = "sam2/hiera_tiny"
META, TORCH, ORT = "Meta's release", "sam2edge torch", "sam2edge onnxruntime"
POINT = "640,400"  # in pixels of the photo below
PHOTO_WH = (1280, 720)
EXPORT_TIMEOUT_S = 900


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loads = os.getloadavg()
        outcome = _measure(args, work)
    report(
        "image_tiny",
        {"image_tiny": outcome},
        _targets(outcome),
        {
            f"{case}: {side} / {META}": outcome.ratio(case, side, META)
            for case in ("embed", "prompt")
            for side in (TORCH, ORT)
        },
        {
            "model": MODEL,
            "image_size": 1024,
            "photo_wh": PHOTO_WH,
            "cores": args.cores,
            "weights": weights_of(args),
        },
        loads,
    )


def _measure(args: argparse.Namespace, work: Path) -> Outcome:
    photo, checkpoint = str(work / "photo.png"), args.checkpoint or str(work / "golden.pt")
    home = {"SAM2EDGE_HOME": str(work / "home")}
    prepare(["bench.prepare", "photo", str(args.photo), photo, *map(str, PHOTO_WH)], home)
    if not args.checkpoint:
        prepare(["bench.prepare", "golden", MODEL, checkpoint], home)
    prepare(["sam2edge.export.to_onnx", MODEL, "--checkpoint", checkpoint], home)
    common = ["--checkpoint", checkpoint, "--photo", photo, "--point", POINT]
    own = python_module("bench.sam2edge_worker", "--model", MODEL, *common)
    sides = [
        Side(META, python_module("bench.meta_release", *common, python=args.meta_python)),
        Side(TORCH, [*own, "--backend", "torch"], home),
        Side(ORT, [*own, "--backend", "onnxruntime"], home),
    ]
    return alternate(sides, {"embed": args.rounds, "prompt": 4 * args.rounds})


def prepare(module: list[str], environment: dict[str, str]) -> None:
    subprocess.run(
        python_module(*module), cwd=ROOT, env={**os.environ, **environment}, check=True, timeout=EXPORT_TIMEOUT_S
    )


def _targets(outcome: Outcome) -> list[Target]:
    peaks = {side: facts["peak_rss_mib"] for side, facts in outcome.facts.items()}
    return [
        Target("embed: torch / Meta", 1.0, outcome.ratio("embed", TORCH, META)),
        Target("embed: onnxruntime / Meta", 0.6, outcome.ratio("embed", ORT, META)),
        Target("prompt: torch / Meta", 1.0, outcome.ratio("prompt", TORCH, META)),
        Target("prompt: onnxruntime / Meta", 0.6, outcome.ratio("prompt", ORT, META)),
        Target("peak memory: onnxruntime / Meta", 0.5, peaks[ORT] / peaks[META]),
    ]


def weights_of(args: argparse.Namespace) -> str:
    return Path(args.checkpoint).name if args.checkpoint else "golden"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="SAM 2.1 tiny against Meta's release.")
    parser.add_argument("--meta-python", default=sys.executable, help="interpreter of the environment with sam2 1.1.0")
    parser.add_argument("--checkpoint", help="official sam2.1_hiera_tiny.pt; default: golden weights")
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=12, help="timed embeds a side; four times as many prompts")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
