"""Exports: python -m bench.export all|cost [options]

all: every model at every size in both precisions, each in a process of its own: the four graphs (onnx.checker, shape
    inference, contract and count of float32 islands included), then each read again from its file. Official models have
    golden weights. With --add the result keeps earlier exports.
cost: time and memory of the whole command for one model, graphs compared with torch included, and whether a build's
    process gives its memory back. The build is TensorRT-RTX's (no GPU needed), the memory that of the process which
    asked for it, before and after, beside the builder's own peak.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import (
    MB_PER_MIB,
    RESULTS,
    Side,
    Target,
    alternate,
    alternate_commands,
    make_parser,
    make_side,
    python_module,
    report,
    run_alone,
    use_cores,
)
from sam2edge.store import paths
from sam2edge.variants import VARIANTS, Variant, find_variant

SIZES = (512, 768, 1024)
FAILED, BUILD = "failed", "build"
MIB = 1 << 20


def main() -> None:
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("what", choices=("all", "cost"))
    parser.add_argument("--models", nargs="+", help="default: every model, of cost tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--precisions", choices=paths.PRECISIONS, nargs="+", default=list(paths.PRECISIONS))
    parser.add_argument("--add", action="store_true", help="keep what the result file has of other exports")
    args = parser.parse_args()
    use_cores(args.cores)
    {"all": check_all, "cost": measure_cost}[args.what](args)


def check_all(args: argparse.Namespace) -> None:
    result = RESULTS / "export_all.json"
    exports: dict[str, Any] = json.loads(result.read_text())["exports"] if args.add and result.exists() else {}
    for variant in map(find_variant, args.models or VARIANTS):
        with tempfile.TemporaryDirectory() as folder:
            given = {"model": variant.name, "checkpoint": _find_weights(variant, Path(folder)), "folder": folder}
            for size in args.sizes:
                for precision in args.precisions:
                    name = f"{variant.name} {size} {precision}"
                    exports[name] = _measure(size=size, precision=precision, **given)
                    print(name, exports[name].get(FAILED, "passed"), flush=True)
    failures = sum(FAILED in export for export in exports.values())
    report(
        "export_all", {}, [Target("exports that failed", 0, failures)], {}, {"exports": len(exports)}, exports=exports
    )


def _measure(**given: Any) -> dict[str, Any]:
    facts = {"model": given["model"], "image_size": given["size"], "precision": given["precision"]}
    try:
        answer = run_alone("bench.export:export_one", **given)
    except RuntimeError as error:
        return {**facts, FAILED: str(error)}
    peak_mib = round(answer["peak_rss_mib"])
    return {**facts, "seconds": answer["seconds"], "peak_mib": peak_mib, "graphs": answer["result"]}


def export_one(model: str, size: int, precision: str, checkpoint: str, folder: str) -> dict[str, Any]:
    """What stands in the files of one export, by graph: bytes, nodes, attentions.

    The exporter itself refuses another number of float32 islands than expected.
    """
    import onnx

    from sam2edge.export.compare import open_session
    from sam2edge.export.precision import expected_islands
    from sam2edge.export.to_onnx import export_graphs
    from sam2edge.files import file_sha256
    from sam2edge.store.manifest import read_manifest

    variant, found = find_variant(model), {}
    for path in export_graphs(variant, Path(checkpoint), size, Path(folder, "graphs"), precision=precision):
        open_session(path)  # ONNX Runtime takes it
        facts = read_manifest(path)
        assert (facts.precision, facts.checkpoint_sha256) == (precision, file_sha256(Path(checkpoint)))
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(path).graph
        found[path.stem] = {
            "bytes": path.stat().st_size,
            "nodes": len(graph.node),
            "softmaxes": sum(node.op_type == "Softmax" for node in graph.node),
            "islands_expected": expected_islands(variant, path.stem),
        }
    return found


def measure_cost(args: argparse.Namespace) -> None:
    model = args.models[0] if args.models else "sam2/hiera_tiny"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        weights = ["--checkpoint", str(_find_weights(find_variant(model), work))]
        exports = {}
        for precision in paths.PRECISIONS:
            options = [*weights, "--precision", precision, "--out", str(work / precision)]
            command = python_module("sam2edge.export.to_onnx", model, *options)
            exports[precision] = Side(f"export {precision}", command)
        outcomes = {"export": alternate_commands(list(exports.values()), args.rounds, warmup=0)}
        if importlib.util.find_spec("tensorrt_rtx") is None:
            print("skipped: the build, because tensorrt_rtx is not installed")
        else:
            given: dict[str, Any] = {"model": model, "graphs": work / "fp16", "out": work / "engines"}
            side = make_side(BUILD, "bench.export:make_build_case", **given)
            outcomes[BUILD] = alternate([side], {BUILD: 1}, warmup=0)
    targets = []
    for precision, side in exports.items():
        seconds = outcomes["export"].median_ms("command", side.name) / 1e3
        peak_mb = outcomes["export"].facts[side.name]["peak_rss_mib"] * MB_PER_MIB
        targets.append(Target(f"export {precision}, s", 60, seconds))
        targets.append(Target(f"export {precision}, peak memory, MB", 4000, peak_mb))
    if BUILD in outcomes:
        memory = outcomes[BUILD].results[BUILD][BUILD]
        share = memory["kept_mib"] / memory["builder_peak_mib"]
        targets.append(Target("kept by the process that asked for the build / builder's peak", 0.1, share))
        targets.append(Target("processes left after the build", 0, memory["processes_left"]))
    report("export_cost", outcomes, targets, {}, {"model": model})


def make_build_case(model: str, graphs: str, out: str) -> dict[str, Callable[[], Any]]:
    """ "build": all engines of a model, and what memory the process that asks for it keeps."""
    import gc

    from sam2edge.engine_build.build import build_engines
    from sam2edge.engine_build.options import BuildOptions
    from sam2edge.engine_build.progress import LineProgress

    variant = find_variant(model)

    def build() -> dict[str, float]:
        before = _read_rss_mib()
        options = BuildOptions(variant.name, variant.image_size, graphs=Path(graphs), out=Path(out))
        manifests = build_engines(options, LineProgress()).values()
        gc.collect()
        tasks = Path("/proc/self/task").iterdir()
        return {
            "kept_mib": round(_read_rss_mib() - before, 1),
            "builder_peak_mib": round(max(m.build.peak_bytes or 0 for m in manifests) / MIB, 1),
            "processes_left": sum(len((task / "children").read_text().split()) for task in tasks),
        }

    return {BUILD: build}


def _read_rss_mib() -> float:
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def _find_weights(variant: Variant, folder: Path) -> Path:
    """Golden weights, or the embedded model's own."""
    embedded = paths.find_checkpoint(variant) if variant.checkpoint is None else None
    if embedded is not None:
        return embedded
    run_alone("bench.prepare:write_checkpoint", model=variant.name, target=folder / "golden.pt")
    return folder / "golden.pt"


if __name__ == "__main__":
    main()
