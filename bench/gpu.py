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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.harness import (
    PHOTO,
    Outcome,
    Side,
    Target,
    alternate,
    make_parser,
    make_side,
    python_module,
    report,
    run_alone,
)
from bench.machine import ROOT
from bench.photo import LARGE_WH, LARGE_XY, META, MICRO, TINY, prepare_photo
from bench.table import print_result
from sam2edge import contract
from sam2edge.errors import Sam2EdgeError
from sam2edge.machine.device import find_gpu
from sam2edge.store import paths
from sam2edge.store.manifest import read_engine_manifest
from sam2edge.variants import find_variant

ENGINE, ENGINE_32, TORCH, TORCH_16 = "engines fp16", "engines fp32", "torch fp32", "torch fp16"
REPLAYING = "CUDA graphs"
OPTIONS, CLIP_FRAMES = "options", 40
BOX = [200, 100, 900, 650]  # in pixels of the clip
GROWTH_BYTES = 8 << 20
WARM_UP = 10
STEP_TIMEOUT_S = 3600

# Of the tiny model; of micro the ratios alone: run, case, side, peer, and how much of the peer's time it may take.
BOUNDS = (
    ("networks", "encode", ENGINE, META, 0.35),
    ("networks", "encode", ENGINE, TORCH_16, 0.7),
    ("networks", "encode", ENGINE, TORCH, None),
    ("networks", "encode", ENGINE_32, META, None),
    ("decoder", "decode", ENGINE, META, None),
    ("decoder", "decode", ENGINE, TORCH, None),
    ("calls", "embed", ENGINE, META, None),
    ("calls", "prompt", ENGINE, META, 0.4),
    ("calls", "prompt", ENGINE, TORCH, None),
    ("tracking", "frame", ENGINE, META, 0.35),
    ("tracking", "frame", ENGINE, TORCH, None),
    (OPTIONS, "prompt", REPLAYING, ENGINE, None),
    (OPTIONS, "frame", REPLAYING, ENGINE, None),
)


@dataclass
class Measured:
    """What came out: steps and why they failed, runs by name, targets, ratios of medians."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)


def main() -> int:
    parser = make_parser(__doc__, rounds=100)
    parser.add_argument("--photos", type=int, default=1000, help="photos over which device memory may not grow")
    parser.add_argument("--work", type=Path, help="folder that keeps engines for the next run; default: none is kept")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: go through it on stand-ins")
    args = parser.parse_args()
    missing = [] if args.dry_run else find_what_is_missing()
    if missing:
        print(f"skipped: {'; '.join(missing)}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(args.work or folder).resolve()
        os.environ["SAM2EDGE_HOME"] = str(work / "home")
        if args.dry_run:
            _use_stand_ins(work)
        return _run_all(args, work)


def find_what_is_missing() -> list[str]:
    """What stops the whole of it."""
    found = [] if find_gpu() else ["no NVIDIA GPU on this machine"]
    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        found.append("neither tensorrt nor tensorrt_rtx is installed")
    found += [f"{name} is not installed" for name in ("pycuda", "torch", "onnx") if not importlib.util.find_spec(name)]
    return found


def _run_all(args: argparse.Namespace, work: Path) -> int:
    work.mkdir(parents=True, exist_ok=True)
    clip = str(work / "clip")
    frames = 4 if args.dry_run else CLIP_FRAMES
    run_alone("bench.clip:write_clip", folder=clip, frames=frames, size_wh=LARGE_WH)
    photo = prepare_photo(work / "photo.png", LARGE_WH)
    checkpoints: dict[str, str | None] = {MICRO: None}
    if not args.dry_run:
        checkpoints[TINY] = args.checkpoint or str(work / "golden.pt")
        if args.checkpoint is None:
            run_alone("bench.prepare:write_checkpoint", model=TINY, target=checkpoints[TINY])
    measured = Measured()
    given = {"photo": photo, "point": LARGE_XY, "clip": clip, "box": BOX, "device": "cpu" if args.dry_run else "cuda"}
    for model, checkpoint in checkpoints.items():
        for precision in paths.PRECISIONS:
            _build(measured, model, precision, checkpoint, args)
    if not args.dry_run:
        _run_step(measured, "pytest -m gpu", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"])
    for model, checkpoint in checkpoints.items():
        _measure_model(measured, model, {**given, "checkpoint": checkpoint}, args)
    gpu = find_gpu()
    path = report(
        "gpu_dry_run" if args.dry_run else "gpu",
        measured.outcomes,
        measured.targets,
        measured.ratios,
        {"photo_wh": LARGE_WH, "clip_frames": frames, "rounds": args.rounds, "weights": args.checkpoint or "golden"},
        gpu=asdict(gpu) if gpu else None,
        steps=measured.steps,
        parity=_read_parities(checkpoints),
    )
    print_result(path)
    if args.dry_run:
        path.unlink()
    return 1 if any(step["status"] == "failed" for step in measured.steps.values()) else 0


def _use_stand_ins(work: Path) -> None:
    """Builds go to the tests' stand-in for TensorRT, in every process that is started from here."""
    libraries = work / "libraries"
    libraries.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "export" / "fake_tensorrt.py", libraries / "tensorrt_rtx.py")
    os.environ.update(PYTHONPATH=str(libraries), FAKE_TENSORRT="ok")


def _build(measured: Measured, model: str, precision: str, checkpoint: str | None, args: argparse.Namespace) -> None:
    """Builds engines and compares each with torch on the photos of examples/."""
    step = f"build {model} {precision}"
    if args.dry_run and precision == "fp16":
        measured.steps[step] = {"status": "left out", "reason": "takes an export"}
        return
    weights = [] if checkpoint is None else ["--checkpoint", checkpoint]
    options = [model, "--precision", precision, *weights]
    if _run_step(measured, step, python_module("sam2edge.cli.main", "build", *options, "--skip-built")):
        if args.dry_run:  # the stand-ins live in one process
            return
        photos = [f"--photo={path}" for path in sorted(PHOTO.parent.glob("*.png"))]
        compare = python_module("sam2edge.export.engine_parity", *options, *photos)
        _run_step(measured, f"parity {model} {precision}", compare)


def _run_step(measured: Measured, name: str, command: list[str]) -> bool:
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
    measured.steps[name] = outcome
    print(f"   {outcome['status']}, {seconds} s: {lines[-1] if lines else ''}", flush=True)
    return status == 0


def _measure_model(measured: Measured, model: str, given: dict[str, Any], args: argparse.Namespace) -> None:
    """Runs every case on every side that can do it; a run that fails is told and left out."""
    sides = _make_sides(measured, model, given, args)
    # First each alone on the device: what its driver says is in use is in use by all processes. A side that does not
    # work is found out here, and spoils no run of the others.
    for name, side in list(sides.items()):
        case = "encode" if name == TORCH_16 else "memory"
        if not _try(measured, f"{model}: {case}, {name}", [side], {case: 1}, 0):
            del sides[name]
    engines = [name for name in (ENGINE, ENGINE_32) if name in sides]
    for name in engines:
        _try(measured, f"{model}: photos, {name}", [sides[name]], {"photos": 1}, 0)
    warmup, whole = min(WARM_UP, args.rounds), [side for name, side in sides.items() if name != TORCH_16]
    _try(measured, f"{model}: networks", [*sides.values()], {"encode": args.rounds}, warmup)
    _try(measured, f"{model}: decoder", whole, {"decode": args.rounds}, warmup)
    _try(measured, f"{model}: calls", whole, {"embed": args.rounds, "prompt": args.rounds}, warmup)
    _try(measured, f"{model}: tracking", whole, {"frame": args.rounds}, warmup)
    if engines:
        # What is off until it is known to be faster, beside the default.
        plain = sides[engines[0]]
        options = [plain, replace(plain, name=REPLAYING, environment={"SAM2EDGE_CUDA_GRAPHS": "1"})]
        _try(measured, f"{model}: {OPTIONS}", options, {"prompt": args.rounds, "frame": args.rounds}, warmup)
    _judge_times(measured, model)
    _judge_memory(measured, model)


def _make_sides(measured: Measured, model: str, given: dict[str, Any], args: argparse.Namespace) -> dict[str, Side]:
    own = {key: value for key, value in given.items() if key != "photo"}
    own |= {"model": model, "photo_path": given["photo"], "photos": args.photos}
    location = "bench.gpu_cases:make_cases"
    sides = []
    for precision in paths.PRECISIONS:
        if measured.steps.get(f"build {model} {precision}", {"status": "passed"})["status"] == "passed":
            engine = {"backend": "tensorrt", "precision": precision, "stand_ins": args.dry_run}
            sides.append(make_side(f"engines {precision}", location, **engine, **own))
    sides.append(make_side(TORCH, location, backend="torch", precision="fp32", **own))
    sides.append(make_side(TORCH_16, "bench.gpu_cases:make_half_cases", **own))
    if model != TINY:
        measured.steps[f"{model}: {META}"] = {"status": "left out", "reason": "no release of this model"}
    elif not _has_sam2(args.meta_python):
        measured.steps[f"{model}: {META}"] = {"status": "left out", "reason": "--meta-python has no sam2"}
    else:
        sides.append(make_side(META, "bench.meta:make_gpu_cases", python=args.meta_python, **given))
    return {side.name: side for side in sides}


def _has_sam2(python: str) -> bool:
    # Looked for and not imported: where torchvision does not load, the side puts a stand-in in its place.
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sam2') is None)"
    return subprocess.run([python, "-c", program], capture_output=True).returncode == 0


def _try(measured: Measured, name: str, sides: Sequence[Side], cases: dict[str, int], warmup: int) -> bool:
    """Whether the run came to its end; if not, why stands among the steps."""
    print(f"== {name}", flush=True)
    try:
        measured.outcomes[name] = alternate(sides, cases, warmup)
    except (RuntimeError, OSError, ValueError) as error:
        measured.steps[name] = {"status": "failed", "reason": str(error)}
        print(f"   failed: {error}", flush=True)
        return False
    return True


def _judge_times(measured: Measured, model: str) -> None:
    for run, case, side, peer, at_most in BOUNDS:
        outcome = measured.outcomes.get(f"{model}: {run}")
        if outcome is None or not {side, peer} <= set(outcome.times_ms[case]):
            continue
        what, ratio = f"{model} {case}: {side} / {peer}", outcome.ratio(case, side, peer)
        measured.ratios[what] = ratio
        if at_most is not None and model == TINY:
            measured.targets.append(Target(what, at_most, ratio))


def _judge_memory(measured: Measured, model: str) -> None:
    held = {}
    for side in (ENGINE, ENGINE_32, TORCH, META):
        outcome = measured.outcomes.get(f"{model}: memory, {side}")
        if outcome is not None:
            held[side] = outcome.results["memory"][side]["held_bytes"]
    peers = [peer for peer in (META, TORCH) if held.get(ENGINE) and held.get(peer)]
    for peer in peers:
        what, ratio = f"{model} device memory: {ENGINE} / {peer}, reserved", held[ENGINE] / held[peer]
        measured.ratios[what] = ratio
        if model == TINY and peer == peers[0]:
            measured.targets.append(Target(what, 0.5, ratio))
    for side in (ENGINE, ENGINE_32):
        outcome = measured.outcomes.get(f"{model}: photos, {side}")
        if outcome is not None:
            found = outcome.results["photos"][side]
            what = f"{model}, {side}, over all photos: "
            over = max(0, found["cache_bytes"] - found["cache_limit_bytes"])
            measured.targets += [
                Target(f"{what}bytes grown", GROWTH_BYTES, found["grown_bytes"]),
                Target(f"{what}bytes of embeddings over the limit", 0, over),
            ]


def _read_parities(models: Sequence[str] | dict[str, Any]) -> dict[str, Any]:
    """What the manifests of the engines say of their comparisons, build times and memory."""
    found = {}
    for variant in map(find_variant, models):
        for precision in paths.PRECISIONS:
            folder = paths.engine_dir(variant, variant.image_size, precision)
            for graph in contract.graph_specs(variant, variant.image_size):
                try:
                    manifest = read_engine_manifest(folder / f"{graph}{paths.ENGINE_SUFFIX}")
                except Sam2EdgeError:
                    continue
                found[f"{variant.name} {precision} {graph}"] = asdict(manifest)
    return found


if __name__ == "__main__":
    sys.exit(main())
