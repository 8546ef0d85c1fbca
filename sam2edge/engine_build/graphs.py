"""The exported graphs that engines are built from: found, checked against their manifests, exported where needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from sam2edge import contract
from sam2edge.engine_build.options import BuildOptions
from sam2edge.engine_build.processes import run_script
from sam2edge.errors import BackendUnavailableError, CheckpointError, GraphError
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.manifest import Manifest, read_manifest, stated_sha256


def find_or_export_graphs(options: BuildOptions, show: Callable[[str], object], keep_output: bool) -> Path:
    """The folder of the model's graphs. They are exported first where there are none, or `checkpoint` names weights."""
    if options.checkpoint is not None and not options.checkpoint.is_file():
        raise CheckpointError(
            "checkpoint not found",
            expected="a .pt or .safetensors file",
            got=str(options.checkpoint),
            remedy="check the path",
        )
    if options.graphs is not None:
        return options.graphs
    own = _engine_graph_dir(options)
    if options.checkpoint is None and paths.has_graphs(own) and not _are_outdated(own, options):
        return own
    missing = [name for name in ("torch", "onnx", "safetensors") if importlib.util.find_spec(name) is None]
    # Graphs that were made for a CPU give the same results on a GPU, and take longer.
    other = paths.find_graphs(options.variant, options.image_size, options.precision)
    usable = other is not None and options.checkpoint is None and not _are_outdated(other, options)
    if usable and (missing or options.compiler == "torch2trt" or paths.find_checkpoint(options.variant) is None):
        assert other is not None
        return other
    if missing:
        raise BackendUnavailableError(
            f"no {options.precision} graphs of {options.variant.model_id} at image size {options.image_size}, "
            "and they cannot be exported here",
            expected="torch, onnx and safetensors",
            got=f"no {', '.join(missing)}",
            remedy=f"pip install 'sam2edge[export]', or copy graphs into {own}",
        )
    slots = [] if options.memory_slots is None else ["--memory-slots", str(options.memory_slots)]
    run_script(["to_onnx", *options.arguments, *slots, "--for-engines"], show, keep_output)
    return own


def export_frame_graph(options: BuildOptions, show: Callable[[str], object]) -> Path:
    """The graph for a camera's frames, made anew: that takes a second."""
    assert options.frame is not None
    spec = contract.frame_spec(contract.read_frame_size(options.frame), options.image_size)
    folder = _engine_graph_dir(options)
    model = [options.model, "--size", str(options.image_size), "--precision", options.precision]
    run_script(["frame_graph", *model, "--frame", options.frame, "--out", str(folder)], show)
    return folder / f"{spec.name}.onnx"


def read_graph(path: Path, graph: str, options: BuildOptions) -> Manifest:
    """The manifest of one graph. Raises GraphError where the graph is missing, damaged, or of something else."""
    remedy = f"python -m sam2edge.export.to_onnx {' '.join(options.arguments)}"
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise GraphError(f"{path.name} cannot be read", got=error.strerror, remedy=remedy) from error
    manifest = read_manifest(path)
    if digest != manifest.sha256:
        raise GraphError(
            f"{path.name} is damaged or of another export",
            expected=f"SHA-256 {manifest.sha256[:16]}...",
            got=f"{digest[:16]}...",
            remedy=remedy,
        )
    wanted = (graph, contract.CONTRACT_VERSION, options.model, options.image_size)
    stated = (manifest.graph, manifest.contract_version, manifest.model, manifest.image_size)
    if stated != wanted:
        names = "{0} of {2} at {3}, contract {1}"
        raise GraphError(
            f"{path.name} was made for something else",
            expected=names.format(*wanted),
            got=names.format(*stated),
            remedy=remedy,
        )
    return manifest


def _engine_graph_dir(options: BuildOptions) -> Path:
    kind = paths.FP32_FOR_ENGINES if options.precision == "fp32" else options.precision
    return paths.graph_dir(options.variant, options.image_size, kind)


def _are_outdated(folder: Path, options: BuildOptions) -> bool:
    """Whether the graphs were made of other weights than those at hand, as those of an older package are, or for
    another number of memories than is asked for."""
    try:
        manifest = read_manifest(folder / f"{contract.IMAGE_ENCODER}.onnx")
    except GraphError:
        return False  # told when the graph itself is read
    if options.memory_slots not in (None, manifest.memory_slots):
        return True
    wanted = stated_sha256(paths.find_checkpoint(options.variant))
    return wanted not in (None, manifest.checkpoint_sha256)
