"""Exported graphs against the torch model they were made of, and the gate that keeps a wrong one from being loaded.

    python -m sam2edge.export.parity sam2/hiera_tiny --precision fp16 --photo PHOTO

measures every graph in ONNX Runtime, first on torch's own intermediate tensors, then graph after graph, and writes
the metrics into `<graph>.onnx.json` beside it. A graph over its bound is moved aside as `<graph>.failed.onnx`, with
the first layer that went wrong in its manifest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.errors import CheckpointError
from sam2edge.export.bisect import find_first_bad_layer
from sam2edge.export.command_line import errors_in_one_line, exit_with
from sam2edge.export.compare import (
    bounds_for,
    cache_runs,
    drawn_scene,
    example_cases,
    measure,
    open_session,
    run_reference,
    session_runner,
)
from sam2edge.export.graphs import GRAPHS
from sam2edge.export.metrics import BOUNDS, GraphParity, require_passed
from sam2edge.export.torch_reference import torch_runner
from sam2edge.imaging.photo import read_photo
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, read_manifest, write_manifest
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import Variant, find_variant


def check_graphs(
    model: Sam2, folder: Path, precision: str, photos: Sequence[NDArray[np.uint8]] = ()
) -> dict[str, GraphParity]:
    """Measures the model's graphs in `folder`, writes their manifests, moves those that fail aside.

    `photos` are (H, W, 3) uint8 BGR; without any, a drawn scene stands for them. Raises GraphError where a graph is
    missing or cannot be loaded.
    """
    sessions = {name: open_session(folder / f"{name}.onnx") for name in GRAPHS}
    slots, memory_slots = (
        next(t.shape[1] for t in sessions[graph].get_inputs() if t.name == name)
        for graph, name in ((contract.MASK_DECODER, "point_labels"), (contract.MEMORY_ATTENTION, "memory_age"))
    )
    specs = contract.graph_specs(model.variant, model.image_size, slots, memory_slots)
    cases = list(example_cases(model.image_size, slots, photos or (drawn_scene(),)))
    references = run_reference(specs, cases, cache_runs(torch_runner(model)))
    measured = measure(specs, references, cache_runs(session_runner(sessions)))
    del sessions
    outcomes = {}
    bounds = bounds_for(BOUNDS[precision], references)
    for name, metrics in measured.items():
        outcome = GraphParity(name, metrics, bounds)
        if not outcome.passed:
            feed = references[0].feeds[name]
            layer = find_first_bad_layer(model, folder / f"{name}.onnx", specs[name], feed, outcome.bounds)
            outcome = GraphParity(name, metrics, outcome.bounds, layer)
        outcomes[name] = outcome
        _write_parity(folder / f"{name}.onnx", outcome, len(cases))
    return outcomes


def _write_parity(path: Path, outcome: GraphParity, cases: int) -> None:
    """Adds the comparison to the graph's manifest; a graph that failed is moved aside first."""
    measured = describe_file(path)
    manifest = replace(read_manifest(path), sha256=measured.sha256, size_bytes=measured.size_bytes)
    failed = path.with_suffix(".failed.onnx")
    if outcome.passed:
        failed.unlink(missing_ok=True)
    else:
        path.replace(failed)
    parity = outcome.to_parity("torch float32", f"onnxruntime {ort.__version__} on cpu", cases)
    write_manifest(path, replace(manifest, parity={**manifest.parity, "graph": parity}))


def find_checkpoint_to_export(variant: Variant, given: Path | None) -> Path:
    """The weights that a command line names, or those in the store. Raises CheckpointError where there are none."""
    checkpoint = given or paths.find_checkpoint(variant)
    if checkpoint is None:
        raise CheckpointError(
            f"no weights of {variant.model_id}",
            expected="--checkpoint FILE, or weights in the store",
            got="none",
            remedy=f"sam2edge models pull {variant.model_id}",
        )
    return checkpoint


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare exported graphs with the torch model.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--checkpoint", type=Path, help="the weights they were made of; default: those in the store")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument(
        "--precision", choices=paths.GRAPH_PRECISIONS, default="fp32", help="which graphs; default: fp32"
    )
    parser.add_argument("--folder", type=Path, help="where the graphs are; default: the store")
    parser.add_argument("--photo", type=Path, action="append", default=[], help="compare on this; repeatable")
    args = parser.parse_args(arguments)
    variant = find_variant(args.model)
    size = args.size or variant.image_size
    checkpoint = find_checkpoint_to_export(variant, args.checkpoint)
    folder = args.folder or paths.graph_dir(variant, size, args.precision)
    photos = [read_photo(path) for path in args.photo]
    outcomes = check_graphs(load_model(variant, checkpoint, size), folder, args.precision, photos)
    print("\n".join(map(str, outcomes.values())))
    require_passed(outcomes)
    return 0


if __name__ == "__main__":
    exit_with(main)
