"""Exports every model at every size in both precisions, and checks what was written.

    python -m bench.export_all [--model ID ...] [--size S ...] [--precision P ...] [--add]

Each export is a process of its own: the four graphs by `sam2edge.export` (onnx.checker, shape inference, contract and
count of float32 islands included), then each read again from its file. Official models have golden weights. Time and
peak memory of each process are written beside what it found. With --add the result keeps earlier exports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import RESULTS, ROOT, Target, python_module, report
from bench.worker import MARK
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.variants import VARIANTS, Variant, find_variant

SIZES = (512, 768, 1024)
FAILED = "failed"


def main() -> None:
    args = _arguments()
    if args.one:
        model, size, precision, checkpoint, folder = args.one
        print(MARK + json.dumps(export_one(find_variant(model), int(size), precision, Path(checkpoint), Path(folder))))
        return
    loads = os.getloadavg()
    exports = _earlier() if args.add else {}
    for name in args.model or VARIANTS:
        variant = find_variant(name)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = _checkpoint(variant, Path(folder))
            for size in args.size or SIZES:
                for precision in args.precision or paths.PRECISIONS:
                    export = _measure(variant, size, precision, checkpoint, Path(folder) / "graphs")
                    exports[f"{variant.name} {size} {precision}"] = export
                    print(_line(export), flush=True)
        # After every model: all of them take an hour or more, and may be cut off.
        failures = sum(FAILED in export for export in exports.values())
        targets = [Target("exports that failed", 0, failures)]
        report("export_all", {}, targets, {}, {"exports": len(exports)}, loads, exports=exports)


def _earlier() -> dict[str, Any]:
    path = RESULTS / "export_all.json"
    found: dict[str, Any] = json.loads(path.read_text())["exports"] if path.is_file() else {}
    return found


def export_one(variant: Variant, size: int, precision: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """What stands in the files of one export, by graph: bytes, nodes, operators, float32 islands."""
    import onnx

    from sam2edge.export.onnx_facts import read_graph
    from sam2edge.export.precision import expected_islands, find_islands
    from sam2edge.export.to_onnx import export_graphs

    found = {}
    for path in export_graphs(variant, checkpoint, size, folder, precision=precision):
        facts = read_graph(path, path.stem, variant, size)  # ONNX Runtime takes it, and it keeps the contract
        assert (facts.precision, facts.checkpoint_sha256) == (precision, file_sha256(checkpoint))
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(path).graph
        islands = {kind: len(starts) for kind, starts in find_islands(graph).items()}
        found[path.stem] = {
            "bytes": path.stat().st_size,
            "nodes": len(graph.node),
            "islands": islands,
            "islands_expected": expected_islands(variant, path.stem),
        }
    return found


def _measure(variant: Variant, size: int, precision: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    one = [variant.name, str(size), precision, str(checkpoint), str(folder)]
    started = time.monotonic()
    process = subprocess.Popen(
        python_module("bench.export_all", "--one", *one), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as stream:
        answers = [json.loads(line.removeprefix(MARK)) for line in stream if line.startswith(MARK)]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    outcome = {"graphs": answers[0]} if answers else {FAILED: f"exit status {process.returncode}; see its messages"}
    return {
        "model": variant.name,
        "image_size": size,
        "precision": precision,
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        **outcome,
    }


def _checkpoint(variant: Variant, folder: Path) -> Path:
    embedded = paths.find_checkpoint(variant) if variant.checkpoint is None else None
    if embedded is not None:
        return embedded
    golden = folder / "golden.pt"
    subprocess.run(python_module("bench.prepare", "golden", variant.name, str(golden)), cwd=ROOT, check=True)
    return golden


def _line(export: dict[str, Any]) -> str:
    what = f"{export['model']} {export['image_size']} {export['precision']}"
    return f"{what}: {export.get(FAILED, 'passed')}, {export['seconds']} s, {export['peak_mib']} MiB"


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export every model and check the graphs.")
    parser.add_argument("--model", action="append", help="model id; repeatable. Default: all nine")
    parser.add_argument("--size", type=int, action="append", help=f"repeatable. Default: {SIZES}")
    parser.add_argument("--precision", choices=paths.PRECISIONS, action="append", help="default: both")
    parser.add_argument("--add", action="store_true", help="keep what the result file has of other exports")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)  # one export, in this process
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
