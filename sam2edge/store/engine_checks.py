"""Checks from the manifests, before anything is deserialised, that engines fit a model and a machine.

An engine runs on the TensorRT version and the GPU that it was built for; elsewhere it can crash the process.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import replace
from pathlib import Path

from sam2edge.contract import CONTRACT_VERSION, GraphSpec
from sam2edge.errors import GraphError
from sam2edge.machine.device import Gpu
from sam2edge.store.manifest import Manifest, read_engine_manifest
from sam2edge.store.paths import ENGINE_SUFFIX
from sam2edge.variants import Variant

PORTABLE_BUILDERS = {"tensorrt_rtx"}
"""Their engines are finished on the GPU that loads them, so they can be built on a machine without one."""

MEMORY_TOLERANCE = 0.25
"""Share of its memory by which a GPU may differ from the one an engine was built on: releases of L4T reserve different
amounts, but a board with twice the memory is another board."""


def failed_path(engine: Path) -> Path:
    """Where an engine that is over its bounds is kept: `image_encoder.failed.engine`; its manifest stays."""
    return engine.with_suffix(f".failed{engine.suffix}")


def engine_spec(spec: GraphSpec, compiler: str) -> GraphSpec:
    """The tensors that an engine of a graph has. torch2trt drops inputs that are not floating point, so its engines
    take whole numbers as float32."""
    if compiler != "torch2trt":
        return spec
    return replace(spec, inputs=tuple(replace(tensor, dtype="float32") for tensor in spec.inputs))


def check_files(
    folder: Path, graphs: tuple[str, ...], variant: Variant, image_size: int, checkpoint_sha256: str | None = None
) -> dict[str, Manifest]:
    """The manifests of the model's engines by graph, after every check that needs neither a GPU nor much time.

    Raises GraphError for an engine that is missing, cut short, of another contract, model or size, made of another
    checkpoint than that of `checkpoint_sha256` (where given), or over its bounds when it was compared with the model.
    The content of an engine is left to `check_content`, when it is read.
    """
    manifests = {name: _check_file(folder / f"{name}{ENGINE_SUFFIX}", name, variant, image_size) for name in graphs}
    first = next(iter(manifests.values()))
    if checkpoint_sha256 not in (None, first.checkpoint_sha256):
        raise GraphError(
            "the engines were made of another checkpoint",
            expected=f"SHA-256 {str(checkpoint_sha256)[:16]}...",
            got=f"{str(first.checkpoint_sha256)[:16]}...",
            remedy=f"{_rebuild(first)} --checkpoint FILE",
        )
    for manifest in manifests.values():
        if (manifest.checkpoint_sha256, manifest.precision) != (first.checkpoint_sha256, first.precision):
            raise GraphError(
                "engines of one model were made of different weights or in different precisions",
                expected=f"{first.graph}'s {first.precision} of {str(first.checkpoint_sha256)[:16]}...",
                got=f"{manifest.graph}'s {manifest.precision} of {str(manifest.checkpoint_sha256)[:16]}...",
                remedy=_rebuild(first),
            )
    return manifests


def _check_file(engine: Path, graph: str, variant: Variant, image_size: int) -> Manifest:
    manifest = read_engine_manifest(engine)
    wanted = (graph, CONTRACT_VERSION, variant.name, image_size)
    stated = (manifest.graph, manifest.contract_version, manifest.model, manifest.image_size)
    if stated != wanted:
        names = "{0} of {2} at {3}, contract {1}"
        raise _refuse(engine, names.format(*wanted), names.format(*stated))
    if manifest.has_failed:
        kept = failed_path(engine).name
        other = "fp32" if manifest.precision == "fp16" else "fp16"
        raise _refuse(
            engine,
            "an engine that computes what its model does",
            f"one that does not ({manifest.parity['engine'].metrics}), kept aside as {kept}",
            f"build the other precision: {_build_command(manifest, other)}",
        )
    try:
        found = engine.stat().st_size
    except OSError as error:
        raise _refuse(engine, "the built engine", error.strerror or "no file") from error
    if found != manifest.size_bytes:
        raise _refuse(engine, f"{manifest.size_bytes} bytes", f"{found} bytes: changed or cut short")
    return manifest


def check_content(engine: Path, manifest: Manifest, content: bytes) -> None:
    """Raises GraphError unless `content`, read from the engine's file, is what was built."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise _refuse(
            engine,
            f"{manifest.size_bytes} bytes with SHA-256 {manifest.sha256[:16]}...",
            f"{len(content)} bytes with {digest[:16]}...: changed or cut short since it was built",
        )


def check_machine(manifest: Manifest, builder: str, builder_version: str, gpu: Gpu) -> None:
    """Raises GraphError unless the engine was built by this TensorRT for this GPU."""
    engine, build = Path(f"{manifest.graph}{ENGINE_SUFFIX}"), manifest.build
    here, there = f"{builder} {builder_version}", f"{build.builder} {build.builder_version}"
    if here != there:
        raise _refuse(engine, f"an engine of {here}", there, _rebuild(manifest))
    if build.architecture != platform.machine():
        raise _refuse(engine, f"an engine for {platform.machine()}", build.architecture, _rebuild(manifest))
    if build.gpu is None and builder in PORTABLE_BUILDERS:
        return
    if build.gpu is None or not is_same_gpu(gpu, build.gpu):
        got = "one built without a GPU" if build.gpu is None else f"one for {build.gpu}"
        raise _refuse(engine, f"an engine for {gpu}", got, _rebuild(manifest))


def is_same_gpu(one: Gpu, other: Gpu) -> bool:
    """Whether an engine built on one of them is right for the other.

    AGX Orin, Orin NX and Orin Nano may all call themselves "Orin": the number of multiprocessors, the memory and the
    module's part number, where both know it, tell them apart.
    """
    if (one.name, one.compute_capability, one.sm_count) != (other.name, other.compute_capability, other.sm_count):
        return False
    if one.part and other.part and one.part != other.part:
        return False
    return abs(one.total_bytes - other.total_bytes) <= MEMORY_TOLERANCE * max(one.total_bytes, other.total_bytes)


def _build_command(manifest: Manifest, precision: str) -> str:
    return f"sam2edge build {manifest.model} --size {manifest.image_size} --precision {precision}"


def _rebuild(manifest: Manifest) -> str:
    return f"build it here: {_build_command(manifest, str(manifest.precision))}"


def _refuse(engine: Path, expected: str, got: str, remedy: str = "build it again: sam2edge build") -> GraphError:
    return GraphError(f"{engine.name} was refused", expected=expected, got=got, remedy=remedy)
