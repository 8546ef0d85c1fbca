"""What stands beside an engine: what it was built of, by what and for what. Checked before anything is deserialised.

An engine runs on the TensorRT version and the GPU that it was built for and nowhere else; elsewhere it crashes the
process or gives nothing, so the question is settled from `<graph>.engine.json` alone.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sam2edge.contract import CONTRACT_VERSION
from sam2edge.errors import GraphError
from sam2edge.machine.device import Gpu
from sam2edge.store.paths import ENGINE_SUFFIX
from sam2edge.variants import Variant

PORTABLE_BUILDERS = {"tensorrt_rtx"}
"""Their engines are compiled to the end on the GPU that loads them, so they may be built on a machine with none."""


@dataclass(frozen=True)
class EngineManifest:
    """One engine's facts. Sizes in bytes, SHA-256 in hex, times in seconds; None where it was not known.

    `builder` is the library whose engine it is, `compiler` what drove it ("tensorrt": its ONNX parser, or "torch2trt").
    `gpu`, `compute_capability` ("8.7") and `driver_cuda` are those of the machine that built it, `machine` its
    processor's architecture. `device_memory_bytes` is the scratch that running it takes. `parity` holds the figures
    of the graph ("graph") and, where it could run, of the engine ("engine").
    """

    graph: str
    model: str
    image_size: int
    precision: str
    prompt_slots: int
    contract_version: int
    builder: str
    builder_version: str
    machine: str
    graph_sha256: str
    engine_sha256: str
    engine_bytes: int
    build_seconds: float
    compiler: str = "tensorrt"
    builder_peak_bytes: int | None = None
    checkpoint_sha256: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    driver_cuda: str | None = None
    device_memory_bytes: int | None = None
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def has_failed(self) -> bool:
        """Whether the engine was compared with its model and found over its bounds."""
        found = self.parity.get("engine")
        return isinstance(found, dict) and found.get("passed") is False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def manifest_path(engine: Path) -> Path:
    """`image_encoder.engine` -> `image_encoder.engine.json`."""
    return engine.with_name(f"{engine.name}.json")


def failed_path(engine: Path) -> Path:
    """Where an engine is kept that is over its bounds: `image_encoder.failed.engine`; its manifest stays."""
    return engine.with_suffix(f".failed{engine.suffix}")


def read_manifest(engine: Path) -> EngineManifest:
    """The manifest of an engine. Raises GraphError where it is missing or is none."""
    path = manifest_path(engine)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, error.strerror or "unreadable") from error
    except ValueError as error:
        raise _unusable(path, f"no JSON ({error})") from error
    types = {f.name: str(f.type) for f in fields(EngineManifest)}
    if not isinstance(content, dict) or not set(content) <= set(types):
        raise _unusable(path, "other entries")
    wrong = [name for name, wanted in types.items() if name in content and not _is(content[name], wanted)]
    try:
        manifest = EngineManifest(**content)
    except TypeError as error:
        raise _unusable(path, "entries missing") from error
    if wrong:
        raise _unusable(path, f"{wrong[0]} = {content[wrong[0]]!r}")
    return manifest


def check_files(
    folder: Path, graphs: tuple[str, ...], variant: Variant, image_size: int, checkpoint_sha256: str | None = None
) -> dict[str, EngineManifest]:
    """The manifests of the model's engines, by graph, after all that can be told without a GPU and in no time.

    Raises GraphError for an engine that is missing, cut short, of another contract, model or size, made of another
    checkpoint than that of `checkpoint_sha256` (where it is given), or over its bounds when it was compared with the
    model. What an engine holds is left to `check_content`, when it is read.
    """
    manifests = {}
    for name in graphs:
        engine = folder / f"{name}{ENGINE_SUFFIX}"
        manifest = manifests[name] = read_manifest(engine)
        wanted = (name, CONTRACT_VERSION, variant.name, image_size)
        stated = (manifest.graph, manifest.contract_version, manifest.model, manifest.image_size)
        if stated != wanted:
            raise _refused(engine, _described(*wanted), _described(*stated))
        if manifest.has_failed:
            raise _refused(engine, "an engine that computes what its model does", _failure(manifest), _other(manifest))
        try:
            found = engine.stat().st_size
        except OSError as error:
            raise _refused(engine, "the built engine", error.strerror or "no file") from error
        if found != manifest.engine_bytes:
            raise _refused(engine, f"{manifest.engine_bytes} bytes", f"{found} bytes: changed or cut short")
    one = next(iter(manifests.values()))
    if checkpoint_sha256 not in (None, one.checkpoint_sha256):
        raise GraphError(
            "the engines were made of another checkpoint",
            expected=f"SHA-256 {str(checkpoint_sha256)[:16]}...",
            got=f"{str(one.checkpoint_sha256)[:16]}...",
            remedy=f"{_remedy(one)} --checkpoint FILE",
        )
    for manifest in manifests.values():
        if (manifest.checkpoint_sha256, manifest.precision) != (one.checkpoint_sha256, one.precision):
            raise GraphError(
                "engines of one model were made of different weights or in different precisions",
                expected=f"{one.graph}'s {one.precision} of {str(one.checkpoint_sha256)[:16]}...",
                got=f"{manifest.graph}'s {manifest.precision} of {str(manifest.checkpoint_sha256)[:16]}...",
                remedy=_remedy(one),
            )
    return manifests


def check_content(engine: Path, manifest: EngineManifest, content: bytes) -> None:
    """Raises GraphError unless `content`, read from the engine's file, is what was built."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.engine_sha256:
        raise _refused(
            engine,
            f"{manifest.engine_bytes} bytes with SHA-256 {manifest.engine_sha256[:16]}...",
            f"{len(content)} bytes with {digest[:16]}...: changed or cut short since it was built",
        )


def check_machine(manifest: EngineManifest, builder: str, builder_version: str, gpu: Gpu) -> None:
    """Raises GraphError unless the engine was built by this TensorRT for this GPU."""
    engine = Path(f"{manifest.graph}{ENGINE_SUFFIX}")
    wanted = f"{builder} {builder_version}"
    stated = f"{manifest.builder} {manifest.builder_version}"
    if wanted != stated:
        raise _refused(engine, f"an engine of {wanted}", stated, _remedy(manifest))
    if manifest.machine != platform.machine():
        raise _refused(engine, f"an engine for {platform.machine()}", manifest.machine, _remedy(manifest))
    here, there = (gpu.name, gpu.compute_capability), (manifest.gpu, manifest.compute_capability)
    if here != there and not (manifest.gpu is None and builder in PORTABLE_BUILDERS):
        raise _refused(
            engine,
            f"an engine for {here[0]} (compute capability {here[1]})",
            "one built without a GPU" if there[0] is None else f"one for {there[0]} ({there[1]})",
            _remedy(manifest),
        )


def _described(graph: str, contract: int, model: str, image_size: int) -> str:
    return f"{graph} of {model} at {image_size}, contract {contract}"


def _remedy(manifest: EngineManifest) -> str:
    return f"build it here: {_build_command(manifest, manifest.precision)}"


def _build_command(manifest: EngineManifest, precision: str) -> str:
    return f"sam2edge build {manifest.model} --size {manifest.image_size} --precision {precision}"


def _other(manifest: EngineManifest) -> str:
    other = "fp32" if manifest.precision == "fp16" else "fp16"
    return f"build the other precision: {_build_command(manifest, other)}"


def _failure(manifest: EngineManifest) -> str:
    figures = manifest.parity["engine"].get("figures")
    kept = failed_path(Path(f"{manifest.graph}{ENGINE_SUFFIX}")).name
    return f"one that does not ({figures}), kept aside as {kept}"


def _refused(engine: Path, expected: str, got: str, remedy: str = "build it again: sam2edge build") -> GraphError:
    return GraphError(f"{engine.name} was refused", expected=expected, got=got, remedy=remedy)


def _unusable(path: Path, got: str) -> GraphError:
    return GraphError(
        f"{path.name} is not usable",
        expected="the manifest that sam2edge build wrote",
        got=got,
        remedy="build it again: sam2edge build",
    )


def _is(value: object, annotation: str) -> bool:
    names = {"str": str, "int": int, "float": (int, float), "dict[str, Any]": dict, "None": type(None)}
    kinds = [names[part.strip()] for part in annotation.split("|")]
    return not isinstance(value, bool) and any(isinstance(value, kind) for kind in kinds)  # type: ignore[arg-type]
