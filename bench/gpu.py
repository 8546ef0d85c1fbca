"""Everything that waits for a GPU, in one command: `bench/gpu.sh`.

    python -m bench.gpu [--rounds N] [--meta-python PYTHON] [--work FOLDER] [--dry-run]

Builds engines of micro at 512 and of tiny at 1024 in both precisions and compares them with torch, runs
`pytest -m gpu`, and measures engines, torch and Meta's release in turn on the same weights: the networks by device
events, whole calls by the wall clock, device memory, and what grows over 1,000 photos. A step that fails or cannot run
here is left out, with its reason in the result, and the others go on. `--dry-run` goes through all of it without a
GPU, on the tests' stand-ins and micro alone; its figures mean nothing and are not kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gpu_measure import Models, measure_model
from bench.gpu_table import print_table
from bench.harness import PHOTO, ROOT, Outcome, Target, python_module, report
from sam2edge import contract
from sam2edge.errors import Sam2EdgeError
from sam2edge.machine.device import find_gpu
from sam2edge.store import paths
from sam2edge.store.manifest import read_manifest
from sam2edge.variants import find_variant

MICRO, TINY = "sam2/hiera_micro", "sam2/hiera_tiny"
PHOTO_WH, LARGE_WH, CLIP_WH, CLIP_FRAMES = (1280, 720), (1920, 1080), (1280, 720), 40
STEP_TIMEOUT_S = 3600
EXAMPLES = ROOT / "examples"


def main() -> int:
    args = _arguments()
    missing = [] if args.dry_run else what_is_missing()
    if missing:
        print(f"skipped: {'; '.join(missing)}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(args.work or folder).resolve()
        os.environ["SAM2EDGE_HOME"] = str(work / "home")
        if args.dry_run:
            _use_stand_ins(work)
        return _run(args, work)


def what_is_missing() -> list[str]:
    """What stops the whole of it."""
    found = []
    if find_gpu() is None:
        found.append("no NVIDIA GPU on this machine")
    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        found.append("neither tensorrt nor tensorrt_rtx is installed")
    found += [f"{name} is not installed" for name in ("pycuda", "torch", "onnx") if not importlib.util.find_spec(name)]
    return found


def _run(args: argparse.Namespace, work: Path) -> int:
    loads = os.getloadavg()
    files = _prepare(work, args.dry_run)
    steps: dict[str, dict[str, Any]] = {}
    models: list[Models] = []
    for model_id, checkpoint in files.checkpoints.items():
        built = [precision for precision in paths.PRECISIONS if _build(steps, model_id, precision, checkpoint, args)]
        models.append(Models(model_id, checkpoint, tuple(built)))
    if not args.dry_run:
        _step(steps, "pytest -m gpu", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"])
    outcomes: dict[str, Outcome] = {}
    targets: list[Target] = []
    ratios: dict[str, float] = {}
    for one in models:
        measured = measure_model(one, files, args)
        steps.update(measured.steps)
        outcomes.update(measured.outcomes)
        targets += measured.targets
        ratios.update(measured.ratios)
    gpu = find_gpu()
    settings = {
        "photo_wh": PHOTO_WH,
        "clip_frames": CLIP_FRAMES,
        "rounds": args.rounds,
        "weights": "golden; micro's own",
    }
    found = {"gpu": asdict(gpu) if gpu else None, "steps": steps, "parity": _parities(models)}
    name = "gpu_dry_run" if args.dry_run else "gpu"
    path = report(name, outcomes, targets, ratios, settings, loads, **found)
    print_table(path)
    if args.dry_run:
        path.unlink()
    return 1 if any(step["status"] == "failed" for step in steps.values()) else 0


def _build(
    steps: dict[str, Any], model_id: str, precision: str, checkpoint: Path | None, args: argparse.Namespace
) -> bool:
    """Whether there are engines now; each was compared with torch on the photos of examples/."""
    if args.dry_run and precision == "fp16":
        steps[f"build {model_id} {precision}"] = {"status": "left out", "reason": "takes an export"}
        return False
    weights = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    model = [model_id, "--precision", precision]
    build = python_module("sam2edge.cli.main", "build", *model, "--skip-built", *weights)
    if not _step(steps, f"build {model_id} {precision}", build):
        return False
    photos = [f"--photo={path}" for path in sorted(EXAMPLES.glob("*.png"))]
    parity = python_module("sam2edge.export.engine_parity", *model, *weights, *photos)
    if args.dry_run:  # the stand-ins live in one process
        return True
    return _step(steps, f"parity {model_id} {precision}", parity)


def _step(steps: dict[str, Any], name: str, command: list[str]) -> bool:
    """Runs one command; what it said last is kept, whatever happens."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as words:
        try:
            status = subprocess.run(command, cwd=ROOT, stdout=words, stderr=words, timeout=STEP_TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            status = -1
        words.seek(0)
        lines = [line for line in words.read().splitlines() if line.strip()]
    seconds = round(time.monotonic() - started, 1)
    outcome = {"status": "passed" if status == 0 else "failed", "seconds": seconds, "said": lines[-8:]}
    steps[name] = outcome
    print(f"   {outcome['status']}, {seconds} s: {lines[-1] if lines else ''}", flush=True)
    return status == 0


def _parities(models: Sequence[Models]) -> dict[str, Any]:
    """What the manifests of the engines say of their comparisons, build times and memory."""
    found = {}
    for one in models:
        variant = find_variant(one.model_id)
        for precision in paths.PRECISIONS:
            folder = paths.engine_dir(variant, variant.image_size, precision)
            for graph in contract.graph_specs(variant, variant.image_size):
                try:
                    manifest = read_manifest(folder / f"{graph}{paths.ENGINE_SUFFIX}")
                except Sam2EdgeError:
                    continue
                kept = ("parity", "builder", "builder_version", "gpu", "build_seconds", "engine_bytes")
                facts = {key: getattr(manifest, key) for key in (*kept, "device_memory_bytes", "builder_peak_bytes")}
                found[f"{variant.name} {precision} {graph}"] = facts
    return found


class Files(argparse.Namespace):
    """Photo, clip and weights that all sides share; micro has its own weights."""

    photo: Path
    large_photo: Path
    clip: Path
    checkpoints: dict[str, Path | None]


def _prepare(work: Path, dry_run: bool) -> Files:
    work.mkdir(parents=True, exist_ok=True)
    files = Files(photo=work / "photo.png", large_photo=work / "large.png", clip=work / "clip")
    files.checkpoints = {MICRO: None}
    for photo, size_wh in ((files.photo, PHOTO_WH), (files.large_photo, LARGE_WH)):
        _module("bench.prepare", "photo", str(PHOTO), str(photo), *map(str, size_wh))
    frames = 4 if dry_run else CLIP_FRAMES
    _module("bench.prepare", "clip", str(PHOTO), str(files.clip), *map(str, CLIP_WH), str(frames))
    if not dry_run:
        files.checkpoints[TINY] = work / "golden.pt"
        _module("bench.prepare", "golden", TINY, str(files.checkpoints[TINY]))
    return files


def _module(*arguments: str) -> None:
    subprocess.run(python_module(*arguments), cwd=ROOT, check=True, timeout=STEP_TIMEOUT_S)


def _use_stand_ins(work: Path) -> None:
    """Builds go to the tests' stand-in for TensorRT, in every process that is started from here."""
    libraries = work / "libraries"
    libraries.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "export" / "fake_tensorrt.py", libraries / "tensorrt_rtx.py")
    os.environ.update(PYTHONPATH=str(libraries), FAKE_TENSORRT="ok")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build, test and measure engines on a GPU.")
    parser.add_argument("--rounds", type=int, default=100, help="timed calls of each case on each side; default: 100")
    parser.add_argument("--photos", type=int, default=1000, help="photos over which device memory may not grow")
    parser.add_argument("--meta-python", default=sys.executable, help="interpreter of an environment with sam2 1.1.0")
    parser.add_argument("--work", type=Path, help="folder that keeps engines for the next run; default: none is kept")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: go through it on stand-ins")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
