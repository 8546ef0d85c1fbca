"""The manifest of a stored file: what it holds, what it was made of, how it compares with its model.

Weights, graphs and engines have the same kind of manifest, as JSON in `<file>.json` beside the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2edge.errors import GraphError
from sam2edge.files import file_sha256
from sam2edge.machine.device import Gpu
from sam2edge.store import paths
from sam2edge.store.typed_json import parse_as


@dataclass(frozen=True)
class Parity:
    """One comparison of a graph or engine with what it was made of.

    `against` and `runtime` name the two sides, `cases` counts the inputs. `metrics` and `bounds` are those of
    `sam2edge.export.metrics`: cosine and mask IoU at least, relative error at most the bound. `passed` is None where
    no comparison could be made, and `reason` says why.
    """

    against: str
    runtime: str
    cases: int = 0
    passed: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    first_bad_layer: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class EngineBuild:
    """How an engine was built, and for which machine.

    `builder` is the library that runs the engine ("tensorrt" or "tensorrt_rtx"), `compiler` what drove the library
    ("tensorrt": its ONNX parser, or "torch2trt"). `architecture` is that of the CPU ("aarch64"); `gpu` is None for an
    engine that was built where there is no GPU. `device_memory_bytes` is the scratch memory that the engine takes
    while it runs, `peak_bytes` the most host memory that the build took.
    """

    builder: str
    builder_version: str
    architecture: str
    graph_sha256: str
    seconds: float
    compiler: str = "tensorrt"
    gpu: Gpu | None = None
    peak_bytes: int | None = None
    device_memory_bytes: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a stored file holds. SHA-256 in hex, sizes in bytes; None where a kind of file has no such entry.

    Weights state `model` alone. Graphs and engines state all from `graph` to `parity`; `checkpoint_sha256` is the sum
    of the weights they were made of. Only engines have `engine`. `parity` has the comparison of the graph under
    "graph" and that of the engine under "engine". `replaced_sha256` is that of the previous file, which may still be
    there while it is being replaced.
    """

    sha256: str
    size_bytes: int
    model: str | None = None
    graph: str | None = None
    image_size: int | None = None
    precision: str | None = None
    prompt_slots: int | None = None
    memory_slots: int | None = None
    contract_version: int | None = None
    checkpoint_sha256: str | None = None
    parity: dict[str, Parity] = field(default_factory=dict)
    engine: EngineBuild | None = None
    replaced_sha256: str | None = None

    @property
    def build(self) -> EngineBuild:
        """`engine` of a manifest that `read_engine_manifest` has read."""
        assert self.engine is not None
        return self.engine

    @property
    def has_failed(self) -> bool:
        """Whether the engine was compared with its model and differs by more than its bounds."""
        return "engine" in self.parity and self.parity["engine"].passed is False

    @property
    def was_compared(self) -> bool:
        """Whether the engine was compared with its model."""
        return "engine" in self.parity and self.parity["engine"].passed is not None

    def to_text(self) -> str:
        """The manifest as it is written, in JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


def describe_file(path: Path, **facts: Any) -> Manifest:
    """A manifest with the SHA-256 and the size that the file has now, and the given facts."""
    return Manifest(file_sha256(path), path.stat().st_size, **facts)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes the manifest of the file `path` atomically."""
    paths.write_text(paths.manifest_path(path), manifest.to_text())


def read_manifest(path: Path) -> Manifest:
    """The manifest of the file `path`. Raises GraphError where it is missing or cannot be read."""
    beside = paths.manifest_path(path)
    remedy = "build it again: sam2edge build" if path.suffix == paths.ENGINE_SUFFIX else "export it again"
    try:
        return parse_as(Manifest, json.loads(beside.read_text(encoding="utf-8")))
    except OSError as error:
        got = error.strerror or "unreadable"
    except (ValueError, RecursionError) as error:
        got = f"no JSON ({error})" if isinstance(error, (json.JSONDecodeError, UnicodeError)) else str(error)
    raise GraphError(f"{beside.name} is not usable", expected="the manifest of the file", got=got, remedy=remedy)


def read_engine_manifest(engine: Path) -> Manifest:
    """Like `read_manifest`, for an engine; raises GraphError also for the manifest of another kind of file."""
    manifest = read_manifest(engine)
    if manifest.engine is None or manifest.graph is None or manifest.model is None or manifest.precision is None:
        raise GraphError(
            f"{paths.manifest_path(engine).name} is not usable",
            expected="the manifest of an engine",
            got="no entry engine" if manifest.engine is None else "no graph, model or precision",
            remedy="build it again: sam2edge build",
        )
    return manifest


def stated_sha256(weights: Path | None) -> str | None:
    """The SHA-256 that the manifest of a weight file states; None where there is no manifest, or no weights."""
    if weights is None or not paths.manifest_path(weights).is_file():
        return None
    try:
        return read_manifest(weights).sha256
    except GraphError:
        return None
