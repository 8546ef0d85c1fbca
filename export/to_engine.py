"""ONNX graphs -> TensorRT engines, each with its manifest; needs no torch.

    python -m sam2edge.export.to_engine sam2/hiera_tiny --precision fp16

builds from the graphs in the store into the store. Each engine is built in a subprocess of its own, after a look at
the free memory; one that fails, crashes or is killed is reported with its cause and leaves nothing behind, and the
others go on.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sam2edge import contract
from sam2edge.contract import TensorSpec
from sam2edge.errors import CheckpointError, GraphError, Sam2EdgeError
from sam2edge.export.build_process import (
    BuildOptions,
    BuildRun,
    check_free_memory,
    check_torch2trt,
    find_library,
    library_version,
    run_builder,
)
from sam2edge.export.command_line import errors_in_one_line, exit_with
from sam2edge.export.onnx_facts import GraphFacts, read_graph
from sam2edge.export.progress import BuildProgress
from sam2edge.files import file_sha256
from sam2edge.machine.device import find_gpu
from sam2edge.store import paths
from sam2edge.store.manifest import EngineManifest, failed_path, manifest_path, read_manifest
from sam2edge.variants import Variant, find_variant

COMPILERS = ("tensorrt", "torch2trt")


def build_engines(
    graph_dir: Path, engine_dir: Path, variant: Variant, image_size: int, options: BuildOptions
) -> dict[str, EngineManifest | Sam2EdgeError]:
    """Builds an engine of every graph of the model; returns its manifest, or why there is none, by graph."""
    outcomes: dict[str, EngineManifest | Sam2EdgeError] = {}
    names = list(contract.graph_specs(variant, image_size))
    with BuildProgress(f"building {len(names)} engines of {variant.model_id}") as progress:
        for name in names:
            try:
                facts = read_graph(graph_dir / f"{name}.onnx", name, variant, image_size)
                engine = engine_dir / f"{name}{paths.ENGINE_SUFFIX}"
                with _locked(engine):
                    outcomes[name] = _build_or_keep(facts, engine, options, progress)
            except Sam2EdgeError as error:
                outcomes[name] = error
            except OSError as error:
                outcomes[name] = GraphError(f"engine of {name} cannot be written", got=str(error))
    return outcomes


@contextmanager
def _locked(engine: Path) -> Iterator[None]:
    """One build of an engine at a time, across processes; what a killed one left is cleared away first."""
    engine.parent.mkdir(parents=True, exist_ok=True)
    with (engine.parent / f".{engine.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in engine.parent.glob(f".{engine.name}.*.part"):
            left.unlink(missing_ok=True)
        yield


def _give_freed_memory_back() -> None:
    """The allocator keeps what reading a graph took and freed; on a Jetson the builder needs it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def _build_or_keep(facts: GraphFacts, engine: Path, options: BuildOptions, progress: BuildProgress) -> EngineManifest:
    if options.skip_built:
        _refuse_what_failed(engine, facts, options)
        kept = _still_right(engine, facts, options)
        if kept is not None:
            progress.note(f"{kept.graph}: built already")
            return kept
    _give_freed_memory_back()
    check_free_memory(facts.path, options)
    handle, name = tempfile.mkstemp(prefix=f".{engine.name}.", suffix=".part", dir=engine.parent)
    os.close(handle)
    part = Path(name)
    try:
        started = time.monotonic()
        run = run_builder(facts, part, options, progress)
        manifest = _describe(run, facts, part, options, time.monotonic() - started)
        _put_in_place(part, engine, manifest)
    finally:
        part.unlink(missing_ok=True)
    progress.note(f"{manifest.graph}: {manifest.engine_bytes / 1e6:.1f} MB in {manifest.build_seconds:.0f} s")
    return manifest


def _refuse_what_failed(engine: Path, facts: GraphFacts, options: BuildOptions) -> None:
    """Raises GraphError where the very same was built before and failed its comparison: it would again."""
    try:
        manifest = read_manifest(engine)
    except GraphError:
        return
    if manifest.has_failed and _is_same(manifest, facts, options):
        raise GraphError(
            f"engine of {manifest.graph} was built before and differs from its model",
            got=manifest.parity["engine"].get("figures"),
            remedy="build the other precision; without --skip-built it is tried again",
        )


def _still_right(engine: Path, facts: GraphFacts, options: BuildOptions) -> EngineManifest | None:
    try:
        manifest = read_manifest(engine)
        whole = file_sha256(engine) == manifest.engine_sha256
    except (Sam2EdgeError, OSError):
        return None
    return manifest if whole and _is_same(manifest, facts, options) else None


def _is_same(manifest: EngineManifest, facts: GraphFacts, options: BuildOptions) -> bool:
    """Whether building again would give what the manifest speaks of."""
    gpu = (None, None) if options.gpu is None else (options.gpu.name, options.gpu.compute_capability)
    return (
        manifest.graph_sha256 == facts.sha256
        and manifest.contract_version == contract.CONTRACT_VERSION
        and (manifest.builder, manifest.builder_version) == (options.library, library_version(options.library))
        and manifest.compiler == options.compiler
        and (manifest.gpu, manifest.compute_capability) == gpu
    )


def _describe(run: BuildRun, facts: GraphFacts, part: Path, options: BuildOptions, seconds: float) -> EngineManifest:
    """The manifest of what was built, once its tensors have been found to be the contract's."""
    for kind, wanted in (("inputs", facts.spec.inputs), ("outputs", facts.spec.outputs)):
        found = tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in run.facts[kind])
        if found != wanted:
            raise GraphError(
                f"{kind} of the built {facts.spec.name} break the contract",
                expected=", ".join(map(str, wanted)),
                got=", ".join(map(str, found)),
            )
    gpu = options.gpu
    return EngineManifest(
        graph=facts.spec.name,
        model=facts.model,
        image_size=facts.image_size,
        precision=facts.precision,
        prompt_slots=facts.prompt_slots,
        contract_version=contract.CONTRACT_VERSION,
        builder=options.library,
        builder_version=run.facts["version"],
        compiler=options.compiler,
        machine=platform.machine(),
        graph_sha256=facts.sha256,
        engine_sha256=file_sha256(part),
        engine_bytes=part.stat().st_size,
        build_seconds=round(seconds, 1),
        builder_peak_bytes=run.facts["peak_bytes"],
        checkpoint_sha256=facts.checkpoint_sha256,
        gpu=gpu.name if gpu else None,
        compute_capability=gpu.compute_capability if gpu else None,
        driver_cuda=gpu.driver_cuda if gpu else None,
        device_memory_bytes=run.facts["device_memory_bytes"],
        parity={"graph": facts.parity} if facts.parity else {},
    )


def _put_in_place(part: Path, engine: Path, manifest: EngineManifest) -> None:
    """Moves the engine and its manifest in; between the moves the engine has no manifest, and would be refused."""
    target = manifest_path(engine)

    def swap(written: Path) -> None:
        written.write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
        target.unlink(missing_ok=True)
        part.chmod(0o644)
        part.replace(engine)
        failed_path(engine).unlink(missing_ok=True)

    paths.write_atomically(target, swap)


def _with_torch2trt(options: BuildOptions, checkpoint: Path | None) -> BuildOptions:
    check_torch2trt(options.library)
    if checkpoint is None:
        raise CheckpointError(
            "torch2trt converts weights, and there are none", expected="--checkpoint FILE", got="none"
        )
    return replace(options, compiler="torch2trt", checkpoint=checkpoint)


def compare_with_model(
    variant: Variant, image_size: int, precision: str, graphs: Path, out: Path, checkpoint: Path | None
) -> bool:
    """Lets a process of its own compare the engines with their model; it tells in one line what is wrong."""
    if importlib.util.find_spec("pycuda") is None:
        print("note: the engines were not compared with their model: pycuda is not installed", file=sys.stderr)
        return True
    command = [sys.executable, "-m", "sam2edge.export", "engine_parity", variant.name, "--size", str(image_size)]
    command += ["--precision", precision, "--graphs", str(graphs), "--engines", str(out)]
    weights = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    return subprocess.run([*command, *weights], stdout=subprocess.DEVNULL).returncode == 0


def report_failures(outcomes: dict[str, EngineManifest | Sam2EdgeError]) -> None:
    """Raises one GraphError with the reason of every engine that was not built."""
    failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Sam2EdgeError)}
    if failed:
        built = len(outcomes) - len(failed)
        raise GraphError(
            f"{built} of {len(outcomes)} engines built",
            got=" | ".join(str(error) for error in failed.values()),
            remedy="mend the cause and run it again with --skip-built; until then other backends are used",
        )


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build TensorRT engines from exported graphs.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument("--precision", choices=paths.PRECISIONS, default="fp16", help="which graphs; default: fp16")
    parser.add_argument("--graphs", type=Path, help="folder of the ONNX graphs; default: the store")
    parser.add_argument("--out", type=Path, help="folder to write to; default: the store")
    parser.add_argument("--compiler", choices=COMPILERS, default="tensorrt", help="default: tensorrt")
    parser.add_argument(
        "--checkpoint", type=Path, help="their weights, for torch2trt and to compare with; default: the store"
    )
    parser.add_argument("--level", type=int, choices=range(6), default=3, help="optimisation; default: 3")
    parser.add_argument("--skip-built", action="store_true", help="keep engines that are still right")
    args = parser.parse_args(arguments)
    variant = find_variant(args.model)
    size = args.size or variant.image_size
    graphs = args.graphs or paths.find_graphs(variant, size, args.precision)
    if graphs is None:
        raise GraphError(
            f"no {args.precision} graphs of {variant.model_id} at image size {size}",
            remedy=f"sam2edge build {variant.model_id} --size {size} --precision {args.precision}",
        )
    out = args.out or paths.engine_dir(variant, size, args.precision)
    options = BuildOptions(find_library(), args.level, args.skip_built, find_gpu())
    if args.compiler == "torch2trt":
        options = _with_torch2trt(options, args.checkpoint or paths.find_checkpoint(variant))
    outcomes = build_engines(graphs, out, variant, size, options)
    for outcome in outcomes.values():
        if isinstance(outcome, EngineManifest):
            print(out / f"{outcome.graph}{paths.ENGINE_SUFFIX}")
    report_failures(outcomes)
    compared = all(isinstance(m, EngineManifest) and "engine" in m.parity for m in outcomes.values())
    if options.gpu is not None and not compared:
        return 0 if compare_with_model(variant, size, args.precision, graphs, out, args.checkpoint) else 1
    return 0


if __name__ == "__main__":
    exit_with(main)
