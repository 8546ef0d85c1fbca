"""What each combination of model, image size and backend takes in memory; fills the table that "auto" picks by.

    python -m bench.memory [--models tiny,small] [--sizes 512,1024] [--backends onnxruntime,torch] [--repeats N]

Each combination runs in a fresh process (bench/memory_side.py): an embed and a prompt on a 1920x1080 photo, then a
tracked frame with every memory slot in use. Weights are deterministic stand-ins in the official format, since memory
does not depend on them; graphs are exported anew. Of the repeats the largest figure counts. The full run writes
results/memory.json and sam2edge/assets/memory_needs.json; a part of it prints alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.harness import RESULTS, ROOT, python_module
from bench.machine import describe_machine

MODELS = ("micro", "tiny", "small", "base_plus", "large")
SIZES = (512, 768, 1024)
BACKENDS = ("onnxruntime", "torch")
TABLE = ROOT / "sam2edge" / "assets" / "memory_needs.json"
FIGURES = (
    "library_bytes",
    "weights_bytes",
    "embedding_bytes",
    "bank_bytes",
    "images_peak_bytes",
    "tracking_peak_bytes",
)


def main() -> None:
    chosen = _arguments()
    rows: list[dict[str, Any]] = []
    for model in chosen.models:
        with tempfile.TemporaryDirectory() as folder:
            rows += _measured_model(model, chosen, Path(folder))
    if (tuple(chosen.models), tuple(chosen.sizes), tuple(chosen.backends)) == (MODELS, SIZES, BACKENDS):
        _write(rows)


def _measured_model(model: str, chosen: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of one model, whose checkpoint and graphs are made for the while."""
    model_id = f"sam2.1_hiera_{model}"
    checkpoint = folder / f"{model}.pt"
    environment = {**os.environ, "SAM2EDGE_HOME": str(folder)}
    if model == "micro":
        checkpoint = ROOT / "sam2edge" / "assets" / f"{model_id}.safetensors"
    else:
        _run(["bench.prepare", "golden", model_id, str(checkpoint)], environment)
    rows = []
    for size in chosen.sizes:
        for backend in chosen.backends:
            if backend == "onnxruntime":
                _run(["bench.prepare", "graphs", model_id, str(checkpoint), str(size)], environment)
            given = [str(checkpoint)] if backend == "torch" and model != "micro" else []
            command = ["bench.memory_side", model_id, str(size), backend, *given]
            runs = [json.loads(_run(command, environment).splitlines()[-1]) for _ in range(chosen.repeats)]
            figures = {name: max(run[name] for run in runs) for name in FIGURES}
            row = {"size": model, "image_size": size, "backend": backend, "precision": "fp32", **figures}
            print(json.dumps(row), flush=True)
            rows.append({**row, "runs": runs})
            shutil.rmtree(folder / "graphs", ignore_errors=True)  # those of a large model fill a small disk
    return rows


def _run(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(python_module(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def _write(rows: list[dict[str, Any]]) -> None:
    machine = describe_machine(ROOT)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    result = {"bench": "memory", "date": date, "machine": machine, "rows": rows}
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=1) + "\n")
    source = f"bench/results/memory.json, {date[:10]}, {machine['cores_used']} cores of {machine['cpu']}"
    table = {"source": source, "rows": [{k: v for k, v in row.items() if k != "runs"} for row in rows]}
    lines = ",\n  ".join(json.dumps(row) for row in table["rows"])
    TABLE.write_text(f'{{\n "source": {json.dumps(source)},\n "rows": [\n  {lines}\n ]\n}}\n')
    print(f"{RESULTS / 'memory.json'}\n{TABLE}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory of each model, image size and backend.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--sizes", type=lambda text: [int(s) for s in text.split(",")], default=list(SIZES))
    parser.add_argument("--backends", type=lambda text: text.split(","), default=list(BACKENDS))
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
