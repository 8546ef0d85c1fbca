"""The one way to build a model's engines, for the command line and for `build_if_missing`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sam2edge import contract
from sam2edge.engine_build.engine import EngineToBuild
from sam2edge.engine_build.graphs import export_frame_graph, find_or_export_graphs, read_graph
from sam2edge.engine_build.library import check_compiler, check_torch2trt_version, find_library
from sam2edge.engine_build.options import BuildOptions
from sam2edge.engine_build.processes import ScriptError, run_script
from sam2edge.engine_build.progress import LineProgress, Progress
from sam2edge.errors import CheckpointError, GraphError, Sam2EdgeError
from sam2edge.files import locked
from sam2edge.machine.device import find_gpu
from sam2edge.store import paths
from sam2edge.store.manifest import Manifest, Parity, read_engine_manifest, write_manifest
from sam2edge.variants import Variant


def build_missing(variant: Variant, image_size: int, precision: str, checkpoint: str | Path | None) -> None:
    """Builds the engines that are missing or not right; precision "auto" is fp16. Progress goes to standard error.

    Raises GraphError with the reason where that fails.
    """
    options = BuildOptions(
        variant.name,
        image_size,
        "fp16" if precision == "auto" else precision,
        skip_built=True,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    progress = LineProgress()
    progress.note(f"building engines of {variant.model_id}: this takes minutes, once")
    try:
        build_engines(options, progress)
    except Sam2EdgeError as error:
        raise GraphError(f"engines of {variant.model_id} were not built", got=str(error)) from error


def build_engines(options: BuildOptions, progress: Progress, keep_output: bool = False) -> dict[str, Manifest]:
    """Builds an engine of every graph of the model and compares them with it; returns the manifests by graph.

    Graphs are exported first where there are none. Every step that takes much memory is a process of its own, so that
    the memory comes back and a crash is survived. An engine that fails leaves nothing behind and the others go on;
    then one GraphError names every failure. With `keep_output`, the exporter prints to our standard output.
    """
    check_compiler(options.compiler)
    library, gpu = find_library(), find_gpu()
    if options.compiler == "torch2trt":
        check_torch2trt_version(library)
        _find_checkpoint(options)  # told before anything is exported
    graphs = find_or_export_graphs(options, progress.note, keep_output)
    if options.compiler == "torch2trt":
        options = replace(options, checkpoint=_find_checkpoint(options))
    outcomes: dict[str, Manifest | Sam2EdgeError] = {}
    files = [graphs / f"{name}.onnx" for name in contract.graph_specs(options.variant, options.image_size)]
    if options.frame is not None:
        files.append(export_frame_graph(options, progress.note))
    for onnx in files:
        name = onnx.stem
        engine = options.engine_dir / f"{name}{paths.ENGINE_SUFFIX}"
        try:
            graph = read_graph(onnx, name, options)
            # The graph for frames is no torch module.
            own = replace(options, compiler="tensorrt") if name.startswith(contract.FRAME) else options
            with _lock(engine):
                outcomes[name] = EngineToBuild(name, onnx, graph, engine, own, library, gpu).build_or_keep(progress)
        except Sam2EdgeError as error:
            outcomes[name] = error
        except OSError as error:
            outcomes[name] = GraphError(f"engine of {name} cannot be written", got=str(error))
    failed = [str(outcome) for outcome in outcomes.values() if isinstance(outcome, Sam2EdgeError)]
    if failed:
        raise GraphError(
            f"{len(outcomes) - len(failed)} of {len(outcomes)} engines built",
            got=" | ".join(failed),
            remedy="remove the cause and run it again with --skip-built; until then other backends are used",
        )
    built = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Manifest)}
    # The engine for frames is compared with the CPU's result whenever it is loaded.
    of_model = {name: manifest for name, manifest in built.items() if not name.startswith(contract.FRAME)}
    if gpu is None or all(manifest.was_compared for manifest in of_model.values()):
        return built
    return {**built, **compare_with_model(options, graphs, of_model, progress)}


def compare_with_model(
    options: BuildOptions, graphs: Path, manifests: Mapping[str, Manifest], progress: Progress
) -> dict[str, Manifest]:
    """Compares the engines with their model in a process of its own, which writes the metrics into their manifests.

    Raises GraphError where an engine differs or cannot run. Where the process is killed or has not enough memory, the
    manifests say that the engines were not compared, which is no failure.
    """
    if importlib.util.find_spec("pycuda") is None:
        return _note_not_compared(options, manifests, "pycuda is not installed", progress)
    try:
        script = ["engine_parity", *options.arguments, "--graphs", str(graphs), "--engines", str(options.engine_dir)]
        run_script(script, progress.note)
    except ScriptError as error:
        if error.killed_by is None and not error.out_of_memory:
            raise
        reason = f"the comparing process was ended by {error.killed_by}" if error.killed_by else str(error)
        return _note_not_compared(options, manifests, reason, progress)
    return {name: read_engine_manifest(options.engine_dir / f"{name}{paths.ENGINE_SUFFIX}") for name in manifests}


def _note_not_compared(
    options: BuildOptions, manifests: Mapping[str, Manifest], reason: str, progress: Progress
) -> dict[str, Manifest]:
    progress.note(f"the engines were not compared with their model: {reason}")
    noted = {}
    for name, manifest in manifests.items():
        parity = {"engine": Parity("", "", reason=reason), **manifest.parity}
        noted[name] = replace(manifest, parity=parity)
        write_manifest(options.engine_dir / f"{name}{paths.ENGINE_SUFFIX}", noted[name])
    return noted


def _find_checkpoint(options: BuildOptions) -> Path:
    found = options.checkpoint or paths.find_checkpoint(options.variant)
    if found is None:
        raise CheckpointError("torch2trt converts weights", expected="--checkpoint FILE", got="none in the store")
    return found


@contextmanager
def _lock(engine: Path) -> Iterator[None]:
    """One build of an engine at a time, across processes; what a killed one left is cleared away first."""
    with locked(engine.with_name(f".{engine.name}.lock")):
        for left in engine.parent.glob(f".{engine.name}.*.part"):
            left.unlink(missing_ok=True)
        yield
