"""What each combination of model, image size and backend takes in memory; fills the table that "auto" picks by.

    python -m bench.memory [--models tiny,small] [--sizes 512,1024] [--backends onnxruntime,torch] [--repeats N]

Each combination runs in a fresh process (bench/memory_worker.py): an embed and a prompt on a 1920x1080 photo, then four
objects tracked, and memory attention with every slot in use. Weights are deterministic stand-ins in the official
format, since memory does not depend on them; graphs are exported anew. Of the repeats the largest figure counts. Each
row goes into results/memory.json at once, in place of an older one, and sam2edge/assets/memory_estimate.json is
written from that; a combination that was never measured is estimated there from the largest smaller model that was,
and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.harness import RESULTS, ROOT, format_json, run_module
from bench.machine import describe_machine
from sam2edge.selection.memory_estimate import PARAMETERS
from sam2edge.variants import find_variant

MODELS = ("micro", "tiny", "small", "base_plus", "large")
SIZES = (512, 768, 1024)
BACKENDS = ("onnxruntime", "torch")
RESULT = RESULTS / "memory.json"
TABLE = ROOT / "sam2edge" / "assets" / "memory_estimate.json"
FIGURES = (
    "library_bytes",
    "weights_bytes",
    "embedding_bytes",
    "bank_bytes",
    "images_peak_bytes",
    "tracking_peak_bytes",
)


def main() -> None:
    args = _arguments()
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for row in _measured_model(model, args, Path(folder)):
                print(json.dumps(row), flush=True)
                _keep(row)


def _measured_model(model: str, args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one model, whose checkpoint and graphs are made for the while."""
    model_id = f"sam2.1_hiera_{model}"
    checkpoint = folder / f"{model}.pt"
    environment = {**os.environ, "SAM2EDGE_HOME": str(folder)}
    if model == "micro":
        checkpoint = ROOT / "sam2edge" / "assets" / f"{model_id}.safetensors"
    else:
        run_module(["bench.prepare", "golden", model_id, str(checkpoint)], environment)
    for size in args.sizes:
        for backend in args.backends:
            if backend == "onnxruntime":
                run_module(["bench.prepare", "graphs", model_id, str(checkpoint), str(size)], environment)
            given = [str(checkpoint)] if backend == "torch" and model != "micro" else []
            command = ["bench.memory_worker", model_id, str(size), backend, *given]
            runs = [json.loads(run_module(command, environment).splitlines()[-1]) for _ in range(args.repeats)]
            figures = {name: max(run[name] for run in runs) for name in FIGURES}
            kept = {name: runs[0][name] for name in ("tracked_objects", "versions")}
            row = {"size": model, "image_size": size, "backend": backend, "precision": "fp32", **figures}
            yield {**row, "repeats": len(runs), **kept}
            shutil.rmtree(folder / "graphs", ignore_errors=True)  # those of a large model fill a small disk


def _keep(row: dict[str, Any]) -> None:
    """Puts a row into the result file, and writes the table anew."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = [kept for kept in old if _key(kept) != _key(row)] + [{**row, "date": date}]
    rows.sort(key=lambda r: (MODELS.index(r["size"]), r["image_size"], r["backend"]))
    machine = describe_machine(ROOT)
    RESULT.write_text(format_json({"bench": "memory", "date": date, "machine": machine, "rows": rows}) + "\n")
    source = f"bench/results/memory.json, {date[:10]}, {machine['cores_used']} cores of {machine['cpu']}"
    lines = ",\n  ".join(json.dumps(r) for r in _table(rows))
    TABLE.write_text(f'{{\n "source": {json.dumps(source)},\n "rows": [\n  {lines}\n ]\n}}\n')


def _table(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for every combination; those that were not measured are marked as estimated."""
    measured = {_key(row): row for row in rows}
    for model in MODELS:
        for image_size in SIZES:
            for backend in BACKENDS:
                key = (model, image_size, backend)
                smaller = [m for m in MODELS[: MODELS.index(model)] if (m, *key[1:]) in measured]
                if key in measured:
                    row = measured[key]
                    yield {name: row[name] for name in ("size", "image_size", "backend", "precision", *FIGURES)}
                elif smaller:
                    yield _estimated(measured[smaller[-1], image_size, backend], model)


def _estimated(row: dict[str, Any], model: str) -> dict[str, Any]:
    """The row of a smaller model, its weights scaled by file size, its scratch memory by the width of the trunk."""
    smaller, larger = find_variant(f"hiera_{row['size']}"), find_variant(f"hiera_{model}")
    weights = row["weights_bytes"] * PARAMETERS[model] / PARAMETERS[row["size"]]
    width = larger.embed_dim / smaller.embed_dim
    loaded = row["library_bytes"] + row["weights_bytes"]
    peaks = {
        name: int(row["library_bytes"] + weights + width * (row[name] - loaded))
        for name in ("images_peak_bytes", "tracking_peak_bytes")
    }
    kept = {name: row[name] for name in ("image_size", "backend", "precision", *FIGURES)}
    return {"size": model, **kept, "weights_bytes": int(weights), **peaks, "estimated_from": row["size"]}


def _key(row: dict[str, Any]) -> tuple[str, int, str]:
    return (row["size"], row["image_size"], row["backend"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory of each model, image size and backend.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--sizes", type=lambda text: [int(s) for s in text.split(",")], default=list(SIZES))
    parser.add_argument("--backends", type=lambda text: text.split(","), default=list(BACKENDS))
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
