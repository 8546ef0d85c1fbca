"""Engines against the model that they were built of, on the GPU that they were built for; the gate behind a build.

    python -m sam2edge.export.engine_parity sam2/hiera_tiny --precision fp16 --photo PHOTO

The reference is torch in float32 where torch and the weights are at hand, else the graphs in ONNX Runtime, which were
compared with torch when they were exported. The metrics go into each engine's manifest under "engine". One over its
bounds is moved aside as `<graph>.failed.engine`, and its manifest says so: no backend loads it.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import BackendRequest
from sam2edge.errors import BackendUnavailableError, GraphError
from sam2edge.export.command_line import errors_in_one_line, exit_with
from sam2edge.export.compare import (
    ReferenceRun,
    Runner,
    bounds_for,
    cache_runs,
    drawn_scene,
    example_cases,
    measure,
    open_session,
    run_reference,
    session_runner,
)
from sam2edge.export.metrics import ENGINE_BOUNDS, GraphParity, require_passed
from sam2edge.files import file_sha256
from sam2edge.imaging.photo import read_photo
from sam2edge.store import paths
from sam2edge.store.engine_checks import check_files, failed_path
from sam2edge.store.manifest import Manifest, read_engine_manifest, write_manifest
from sam2edge.variants import Variant, find_variant

Photo = NDArray[np.uint8]


def check_engines(
    folder: Path,
    variant: Variant,
    image_size: int,
    references: Sequence[ReferenceRun],
    against: str,
) -> dict[str, GraphParity]:
    """Measures the engines in `folder`, writes the metrics into their manifests, moves those that fail aside.

    `against` names what computed `references`. Raises BackendUnavailableError where engines cannot run here,
    GraphError where one cannot be loaded.
    """
    try:
        from sam2edge.backends.tensorrt.backend import TensorRtBackend
    except ImportError as error:
        raise BackendUnavailableError(
            "engines cannot be run here", got=str(error), remedy="pip install pycuda"
        ) from error
    manifests = check_files(folder, tuple(contract.graph_specs(variant, image_size)), variant, image_size)
    request = BackendRequest(variant, image_size, engine_dir=folder, engine_manifests=manifests)
    backend = TensorRtBackend.open(request)
    try:
        runner = cache_runs(lambda graph, feed: backend.fetch(graph, [feed])[0])
        specs = {name: backend.specs[name] for name in manifests}
        measured = measure(specs, references, runner)
    finally:
        backend.close()
    bounds = bounds_for(ENGINE_BOUNDS, references)
    outcomes = {name: GraphParity(name, metrics, bounds) for name, metrics in measured.items()}
    for name, outcome in outcomes.items():
        _write_parity(folder / f"{name}{paths.ENGINE_SUFFIX}", outcome, against, len(references))
    return outcomes


def _write_parity(engine: Path, outcome: GraphParity, against: str, cases: int) -> None:
    manifest = read_engine_manifest(engine)
    build = manifest.build
    runtime = f"{build.builder} {build.builder_version} on {build.gpu.name if build.gpu else 'a GPU'}"
    parity = {**manifest.parity, "engine": outcome.to_parity(against, runtime, cases)}
    # First what keeps a failed one from being loaded, then its move.
    write_manifest(engine, replace(manifest, parity=parity))
    if not outcome.passed:
        engine.replace(failed_path(engine))


def find_reference(
    variant: Variant, image_size: int, manifests: Mapping[str, Manifest], checkpoint: Path | None, graphs: Path
) -> tuple[Runner, str]:
    """What the engines are compared with, and its name: torch with their weights, or the graphs they were built of.

    Raises GraphError where neither is at hand.
    """
    one = manifests[contract.IMAGE_ENCODER]
    checkpoint = checkpoint or paths.find_checkpoint(variant)
    if (
        checkpoint is not None
        and importlib.util.find_spec("torch") is not None
        and file_sha256(checkpoint) == one.checkpoint_sha256
    ):
        from sam2edge.export.torch_reference import torch_runner
        from sam2edge.torch_sam2.checkpoint import load_model

        return torch_runner(load_model(variant, checkpoint, image_size)), "torch float32"
    graph_files = {name: graphs / f"{name}.onnx" for name in manifests}
    for name, path in graph_files.items():
        if not path.is_file() or file_sha256(path) != manifests[name].build.graph_sha256:
            raise GraphError(
                "nothing to compare the engines with",
                expected="torch and the weights they were made of, or the graphs they were built of",
                got=f"no such {path.name}",
                remedy="name the weights with --checkpoint FILE, or the folder with --graphs",
            )
    sessions = {name: open_session(path) for name, path in graph_files.items()}
    return session_runner(sessions), "their graphs in onnxruntime"


def compute_references(
    variant: Variant,
    image_size: int,
    manifests: Mapping[str, Manifest],
    checkpoint: Path | None,
    graphs: Path,
    photos: Sequence[Photo],
) -> tuple[list[ReferenceRun], str]:
    """What the engines are compared with, and its name; the model that computed it is freed.

    `photos` are (H, W, 3) uint8 BGR; a drawn scene is used where there are none.
    """
    decoder = manifests[contract.MASK_DECODER]
    slots = decoder.prompt_slots or contract.NUM_PROMPT_SLOTS
    cases = example_cases(image_size, slots, photos or (drawn_scene(),))
    reference, against = find_reference(variant, image_size, manifests, checkpoint, graphs)
    specs = contract.graph_specs(variant, image_size, slots, decoder.memory_slots)
    return run_reference(specs, cases, cache_runs(reference)), against


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare built engines with the model they were made of.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument("--precision", choices=paths.PRECISIONS, default="fp16", help="which engines; default: fp16")
    parser.add_argument("--checkpoint", type=Path, help="the weights they were made of; default: those in the store")
    parser.add_argument("--graphs", type=Path, help="the graphs they were built of; default: the store")
    parser.add_argument("--engines", type=Path, help="folder of the engines; default: the store")
    parser.add_argument("--photo", type=Path, action="append", default=[], help="compare on this; repeatable")
    args = parser.parse_args(arguments)
    variant = find_variant(args.model)
    size = args.size or variant.image_size
    folder = args.engines or paths.engine_dir(variant, size, args.precision)
    graphs = (
        args.graphs
        or paths.find_graphs(variant, size, args.precision)
        or paths.graph_dir(variant, size, args.precision)
    )
    names = contract.graph_specs(variant, size)
    manifests = {name: read_engine_manifest(folder / f"{name}{paths.ENGINE_SUFFIX}") for name in names}
    photos = [read_photo(path) for path in args.photo]
    references, against = compute_references(variant, size, manifests, args.checkpoint, graphs, photos)
    outcomes = check_engines(folder, variant, size, references, against)
    print("\n".join(map(str, outcomes.values())))
    require_passed(outcomes, "engines", paths.ENGINE_SUFFIX)
    return 0


if __name__ == "__main__":
    exit_with(main)
