"""One model on a GPU: which sides there are, what each does, which bounds it is held to."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.harness import Outcome, Side, Target, alternate, python_module

ENGINE, ENGINE_32 = "engines fp16", "engines fp32"
TORCH, TORCH_16, META = "torch fp32", "torch fp16", "Meta's release"
NORMALISING, REPLAYING = "frames normalised on the device", "CUDA graphs"
TINY = "sam2/hiera_tiny"
POINT, BOX = "640,400", "200,100,900,650"  # in pixels of the photo and of the clip, 1280x720
OPTIONS = "options, 1920x1080"
GROWTH_BYTES = 8 << 20
WARM_UP = 10


@dataclass(frozen=True)
class Models:
    """One model, its weights (None: its own), and the precisions in which it has engines."""

    model_id: str
    checkpoint: Path | None
    built: tuple[str, ...]


@dataclass
class Measured:
    """What came out: runs by name, targets, ratios of medians, and what could not be measured."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)


def measure_model(one: Models, files: argparse.Namespace, chosen: argparse.Namespace) -> Measured:
    """Runs every case on every side that can do it; a run that fails is told and left out."""
    sides = _sides(one, files, chosen)
    measured = Measured()
    if one.model_id != TINY:
        reason = "no release of this model"
    else:
        reason = "" if META in sides else "sam2 cannot be imported by --meta-python"
    if reason:
        measured.steps[f"{one.model_id}: {META}"] = {"status": "left out", "reason": reason}
    # First each alone on the device: what its driver says is in use is in use by all processes. A side that does not
    # work is found out here, and spoils no run of the others.
    for name, side in list(sides.items()):
        case = "encode" if name == TORCH_16 else "memory"
        if not _try(measured, f"{one.model_id}: {case}, {name}", [side], {case: 1}, 0):
            del sides[name]
    for name in (s for s in (ENGINE, ENGINE_32) if s in sides):
        _try(measured, f"{one.model_id}: photos, {name}", [sides[name]], {"photos": 1}, 0)
    rounds = chosen.rounds
    whole = [s for s in sides if s != TORCH_16]
    runs: tuple[tuple[str, Sequence[str], dict[str, int]], ...] = (
        ("networks", [*sides], {"encode": rounds}),
        ("decoder", whole, {"decode": rounds}),
        ("calls", whole, {"embed": rounds, "prompt": rounds}),
        ("tracking", whole, {"frame": rounds}),
    )
    warmup = min(WARM_UP, rounds)
    for run, names, cases in runs:
        _try(measured, f"{one.model_id}: {run}", [sides[s] for s in names], cases, warmup)
    engines = next((s for s in (ENGINE, ENGINE_32) if s in sides), None)
    if engines is not None:
        options = _options(engines, one, files, chosen)
        _try(measured, f"{one.model_id}: {OPTIONS}", options, {"embed": rounds, "prompt": rounds}, warmup)
    _judge(measured, one.model_id)
    return measured


def _options(engines: str, one: Models, files: argparse.Namespace, chosen: argparse.Namespace) -> list[Side]:
    """What is off until it is known to be faster, beside the default; on a photo that is larger than the model's input,
    as frames are normalised on the device only then."""
    plain = _sides(one, argparse.Namespace(**{**vars(files), "photo": files.large_photo}), chosen)[engines]
    return [
        plain,
        replace(plain, name=NORMALISING, environment={"SAM2EDGE_DEVICE_NORMALISE": "1"}),
        replace(plain, name=REPLAYING, environment={"SAM2EDGE_CUDA_GRAPHS": "1"}),
    ]


def _sides(one: Models, files: argparse.Namespace, chosen: argparse.Namespace) -> dict[str, Side]:
    common = ["--photo", str(files.photo), "--point", POINT, "--clip", str(files.clip), "--box", BOX]
    weights = [] if one.checkpoint is None else ["--checkpoint", str(one.checkpoint)]
    device = "cpu" if chosen.dry_run else "cuda"
    own = python_module("bench.gpu_worker", "--model", one.model_id, *common, *weights, "--device", device)
    own += ["--photos", str(chosen.photos)]
    stand_ins = ["--stand-ins"] if chosen.dry_run else []

    def side(name: str, backend: str, precision: str, *more: str) -> Side:
        return Side(name, [*own, "--backend", backend, "--precision", precision, *more])

    found = [
        *(side(f"engines {precision}", "tensorrt", precision, *stand_ins) for precision in one.built),
        side(TORCH, "torch", "fp32"),
        side(TORCH_16, "torch", "fp16"),
    ]
    if one.model_id == TINY and _has_sam2(chosen.meta_python):
        command = python_module("bench.gpu_meta", *common, *weights, "--device", device, python=chosen.meta_python)
        found.append(Side(META, command))
    return {one_side.name: one_side for one_side in found}


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


def _judge(measured: Measured, model_id: str) -> None:
    """Targets of the tiny model; of micro the ratios alone."""
    bounds = (
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
        (OPTIONS, "embed", NORMALISING, ENGINE, None),
        (OPTIONS, "prompt", REPLAYING, ENGINE, None),
    )
    for run, case, side, peer, at_most in bounds:
        outcome = measured.outcomes.get(f"{model_id}: {run}")
        if outcome is None or not {side, peer} <= set(outcome.times_ms[case]):
            continue
        what, ratio = f"{model_id} {case}: {side} / {peer}", outcome.ratio(case, side, peer)
        measured.ratios[what] = ratio
        if at_most is not None and model_id == TINY:
            measured.targets.append(Target(what, at_most, ratio))
    _judge_memory(measured, model_id)


def _judge_memory(measured: Measured, model_id: str) -> None:
    held = {}
    for side in (ENGINE, ENGINE_32, TORCH, META):
        outcome = measured.outcomes.get(f"{model_id}: memory, {side}")
        if outcome is not None:
            held[side] = outcome.results["memory"][side]["held_bytes"]
    for peer in (META, TORCH):
        if held.get(ENGINE) and held.get(peer):
            what, ratio = f"{model_id} device memory: {ENGINE} / {peer}, reserved", held[ENGINE] / held[peer]
            measured.ratios[what] = ratio
            if model_id == TINY and peer == next(p for p in (META, TORCH) if held.get(p)):
                measured.targets.append(Target(what, 0.5, ratio))
    for side in (ENGINE, ENGINE_32):
        outcome = measured.outcomes.get(f"{model_id}: photos, {side}")
        if outcome is not None:
            found = outcome.results["photos"][side]
            what = f"{model_id}, {side}, over all photos: "
            over = max(0, found["cache_bytes"] - found["cache_limit_bytes"])
            measured.targets += [
                Target(f"{what}bytes grown", GROWTH_BYTES, found["grown_bytes"]),
                Target(f"{what}bytes of embeddings over the limit", 0, over),
            ]
