"""What an exported graph says of itself, read with ONNX Runtime alone, so that building engines needs no `onnx`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from sam2edge import contract
from sam2edge.backends.onnxruntime import check_session
from sam2edge.contract import GraphSpec
from sam2edge.errors import GraphError
from sam2edge.files import file_sha256
from sam2edge.variants import Variant


@dataclass(frozen=True)
class GraphFacts:
    """One exported graph that keeps the contract; `parity` is what its manifest says, if it speaks of this file."""

    path: Path
    spec: GraphSpec
    model: str
    image_size: int
    prompt_slots: int
    precision: str
    sha256: str
    checkpoint_sha256: str | None
    parity: dict[str, Any]


def read_graph(path: Path, name: str, variant: Variant, image_size: int) -> GraphFacts:
    """The facts of one graph. Raises GraphError where it is missing, damaged, or of another contract or model."""
    session = _open(path)
    meta = session.get_modelmeta().custom_metadata_map
    slots = _stated_slots(session)
    spec = contract.graph_specs(variant, image_size, slots)[name]
    check_session(session, spec, variant.name)
    digest = file_sha256(path)
    return GraphFacts(
        path,
        spec,
        variant.name,
        image_size,
        slots,
        meta.get("sam2edge_precision", "fp32"),
        digest,
        meta.get("sam2edge_checkpoint_sha256"),
        _parity(path, digest),
    )


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own native module
        reason = str(error).splitlines()
        raise GraphError(
            f"graph {path.name} cannot be loaded",
            expected="an ONNX file written by sam2edge.export",
            got=reason[0][:160] if reason else type(error).__name__,
            remedy="export it again",
        ) from error


def _stated_slots(session: ort.InferenceSession) -> int:
    """How many points the graph takes; the usual number for a graph that takes none."""
    shapes = (t.shape for t in session.get_inputs() if t.name == "point_labels")
    found = next((shape[1] for shape in shapes if len(shape) == 2), contract.NUM_PROMPT_SLOTS)
    return found if isinstance(found, int) else contract.NUM_PROMPT_SLOTS


def _parity(path: Path, sha256: str) -> dict[str, Any]:
    try:
        manifest = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        return dict(manifest["parity"]) if manifest["sha256"] == sha256 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
