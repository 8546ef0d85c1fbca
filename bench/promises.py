"""Whether what "auto" picks takes no more memory than it promised: each pick in a process of its own, on the CPU.

    python -m bench.promises [--models tiny,base_plus] [--mib 200,400,...]

A store is made with weights of the models named (deterministic stand-ins; memory does not depend on them) and graphs
of the first of them. For each amount of memory "auto" picks from that and the embedded model, for photos and for a
video; then the pick is used to the full (bench/promises_worker.py).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import Target, report, run_module
from sam2edge.variants import find_variant

MIB = 1 << 20


def main() -> None:
    args = _arguments()
    loads = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SAM2EDGE_HOME": folder}
        _fill_store(args.models, Path(folder), environment)
        used: list[dict[str, Any]] = []
        for mib in args.mib:
            for work in ("photos", "video"):
                used.append({"work": work, **_used(work, mib * MIB, environment)})
                print(_line(used[-1]), flush=True)
    targets = [
        Target("taken / promised, the highest", 1.0, max(r["taken_bytes"] / r["promised_bytes"] for r in used)),
        Target("promised / usable, the highest", 1.0, max(r["promised_bytes"] / r["cap_bytes"] for r in used)),
    ]
    report("promises", {}, targets, {}, {"models": args.models, "mib": args.mib}, loads, picks=used)


def _fill_store(models: list[str], home: Path, environment: dict[str, str]) -> None:
    for number, model in enumerate(models):
        variant = find_variant(f"sam2.1_hiera_{model}")
        assert variant.checkpoint is not None
        checkpoint = home / "checkpoints" / variant.checkpoint.file_name
        checkpoint.parent.mkdir(exist_ok=True)
        run_module(["bench.prepare", "golden", variant.name, str(checkpoint)], environment)
        if number == 0:
            run_module(["bench.prepare", "graphs", variant.name, str(checkpoint), str(variant.image_size)], environment)


def _used(work: str, cap_bytes: int, environment: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_module(["bench.promises_worker", work, str(cap_bytes)], environment))
    return found


def _line(row: dict[str, Any]) -> str:
    taken, promised, cap = (round(row[f"{name}_bytes"] / MIB) for name in ("taken", "promised", "cap"))
    return f"{cap} MiB, {row['work']}: {row['pick']}; {taken} MiB taken, {promised} promised"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory taken by what 'auto' picks, against what it promised.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=["tiny", "base_plus", "large"])
    parser.add_argument(
        "--mib", type=lambda text: [int(n) for n in text.split(",")], default=[256, 700, 1400, 2600, 5000]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
