"""SAM 2.1 tiny at 1024: time and memory of an export, and whether a build's process gives its memory back.

    python -m bench.export_tiny [--rounds N] [--model ID]

The export is the whole command, graphs compared with torch included. The build is TensorRT-RTX's (no GPU needed), the
memory that of the process which asked for it, before and after, beside the builder's own peak.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import (
    MB_PER_MIB,
    ROOT,
    Outcome,
    Side,
    Target,
    alternate,
    alternate_commands,
    python_module,
    report,
    statistics_ms,
    use_cores,
)
from sam2edge.store import paths
from sam2edge.variants import find_variant

TINY = "sam2/hiera_tiny"
BUILD = "build"


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    loads = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        weights = _weights(args.model, work)
        exports = {p: _export(args.model, p, weights, work) for p in paths.PRECISIONS}
        outcomes = {"export": alternate_commands(list(exports.values()), args.rounds, warmup=0)}
        if importlib.util.find_spec("tensorrt_rtx") is None:
            print("left out: the build, because tensorrt_rtx is not installed")
        else:
            one = python_module("bench.build_worker", "--model", args.model, "--graphs", str(work / "fp16"))
            outcomes[BUILD] = alternate([Side(BUILD, [*one, "--out", str(work / "engines")])], {BUILD: 1}, warmup=0)
    targets = [target for p, side in exports.items() for target in _targets(outcomes["export"], p, side.name)]
    if BUILD in outcomes:
        memory = outcomes[BUILD].results[BUILD][BUILD]
        share = memory["kept_mib"] / memory["builder_peak_mib"]
        targets.append(Target("kept by the process that asked for the build / builder's peak", 0.1, share))
        targets.append(Target("processes left after the build", 0, memory["processes_left"]))
    settings = {"model": args.model, "weights": "golden" if weights else "its own", "cores": args.cores}
    report("export_tiny", outcomes, targets, {}, settings, loads)


def _export(model: str, precision: str, weights: list[str], work: Path) -> Side:
    command = ["sam2edge.export.to_onnx", model, *weights, "--precision", precision, "--out", str(work / precision)]
    return Side(f"export {precision}", python_module(*command))


def _targets(outcome: Outcome, precision: str, side: str) -> list[Target]:
    seconds = statistics_ms(outcome.times_ms["command"][side])["median_ms"] / 1e3
    peak_mb = outcome.facts[side]["peak_rss_mib"] * MB_PER_MIB
    return [
        Target(f"export {precision}, s", 60, seconds),
        Target(f"export {precision}, peak memory, MB", 4000, peak_mb),
    ]


def _weights(model: str, work: Path) -> list[str]:
    if find_variant(model).checkpoint is None:
        return []
    golden = str(work / "golden.pt")
    subprocess.run(python_module("bench.prepare", "golden", model, golden), cwd=ROOT, check=True)
    return ["--checkpoint", golden]


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Time and memory of an export and of a build.")
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--rounds", type=int, default=3, help="exports of each precision")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
