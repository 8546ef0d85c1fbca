"""The exported graphs on ONNX Runtime's CPU provider: small, quick to start, no torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2edge import contract
from sam2edge.backends.base import BackendRequest, HostFeatures
from sam2edge.backends.graph_backend import GraphBackend
from sam2edge.backends.native_messages import drop_cpuinfo_errors
from sam2edge.contract import CONTRACT_VERSION, GraphSpec, TensorSpec
from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.store.integrity import check_unchanged

with drop_cpuinfo_errors():
    import onnxruntime as ort

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


def _size_option(request: BackendRequest) -> str:
    return "" if request.image_size == request.variant.image_size else f" --size {request.image_size}"


class OnnxRuntimeBackend(GraphBackend):
    """One model's graphs as sessions: image encoder and mask decoder, and for tracking the two of the memory."""

    name = "onnxruntime"

    def __init__(self, request: BackendRequest) -> None:
        if request.graph_dir is None:
            raise GraphError(
                f"no ONNX graphs of {request.variant.model_id} at image size {request.image_size} on this machine",
                expected="image_encoder.onnx and mask_decoder.onnx",
                got="none",
                remedy=f"sam2edge models install {request.variant.model_id}{_size_option(request)}",
            )
        self._graph_dir = request.graph_dir
        sessions = {name: _open_session(self._graph_dir / f"{name}.onnx") for name in contract.IMAGE_GRAPHS}
        decoder = sessions[contract.MASK_DECODER]
        super().__init__(request.variant, request.image_size, _prompt_slots(decoder))
        # Without a checkpoint that the caller named, the graphs are at least all of one.
        self._checkpoint_sha256 = request.checkpoint_sha256 or _checkpoint_of(decoder)
        for name, session in sessions.items():
            self._check(name, session)
        self.precision = decoder.get_modelmeta().custom_metadata_map.get("sam2edge_precision", "fp32")
        self._sessions = sessions
        self._sessions_lock = threading.Lock()

    @classmethod
    def open(cls, request: BackendRequest) -> OnnxRuntimeBackend:
        if request.device not in (None, "cpu"):
            raise InvalidInputError(
                "the onnxruntime backend runs on the CPU alone",
                expected="device None or 'cpu'",
                got=repr(request.device),
                remedy="use the torch backend for a GPU",
            )
        return cls(request)

    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> HostFeatures:
        session, spec = self._session(graph), self.specs[graph]
        names = outputs or [tensor.name for tensor in spec.outputs]
        # Session.run gives new arrays, so no embedding shares memory with a later call.
        values = session.run(names, {tensor.name: feed[tensor.name] for tensor in spec.inputs})
        return HostFeatures(dict(zip(names, values, strict=True)))

    def _session(self, graph: str) -> ort.InferenceSession:
        """Those of the memory are opened at first use: images need none of them, and a model may come without."""
        with self._sessions_lock:
            if graph not in self._sessions:
                path = self._graph_dir / f"{graph}.onnx"
                if not path.is_file():
                    raise GraphError(
                        f"{self.variant.model_id} cannot track: a graph of its memory is missing",
                        expected=str(path),
                        got="no file",
                        remedy="export again with python -m sam2edge.export.to_onnx, or use the torch backend",
                    )
                session = _open_session(path)
                self._check(graph, session)
                self._sessions[graph] = session
            return self._sessions[graph]

    def _check(self, graph: str, session: ort.InferenceSession) -> None:
        check_session(session, self.specs[graph], self.variant.name)
        made_of = _checkpoint_of(session)
        if self._checkpoint_sha256 not in (None, made_of):
            raise GraphError(
                "the exported graphs were made of another checkpoint",
                expected=f"SHA-256 {str(self._checkpoint_sha256)[:16]}...",
                got=f"{str(made_of)[:16]}...",
                remedy="export this checkpoint with python -m sam2edge.export.to_onnx MODEL --checkpoint FILE",
            )


def _open_session(path: Path) -> ort.InferenceSession:
    check_unchanged(path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # All three cost memory and bring no measurable time: with them the encoder at 1024 peaks at twice the bytes.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        # The fused skip-and-normalise kernel is scalar on a CPU, and slower than its two parts.
        slow = ["SkipLayerNormFusion"]
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
    except Exception as error:  # onnxruntime raises classes of its own native module
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        reason = str(error).strip().splitlines()
        raise GraphError(
            f"graph {path.name} cannot be loaded",
            expected="an ONNX file written by sam2edge.export",
            got=f"{found} ({reason[0][:160] if reason else type(error).__name__})",
            remedy="export it again, or reinstall sam2edge for the embedded model",
        ) from error


def _checkpoint_of(session: ort.InferenceSession) -> str | None:
    made_of: str | None = session.get_modelmeta().custom_metadata_map.get("sam2edge_checkpoint_sha256")
    return made_of


def _prompt_slots(session: ort.InferenceSession) -> int:
    for tensor in session.get_inputs():
        if tensor.name == "point_labels" and len(tensor.shape) == 2 and isinstance(tensor.shape[1], int):
            return tensor.shape[1]
    raise GraphError("mask decoder has no static prompt slots", expected="point_labels (1, N)", got="none")


def check_session(session: ort.InferenceSession, spec: GraphSpec, variant_name: str) -> None:
    """Raises GraphError unless the loaded graph keeps the contract: version, model, names, shapes, dtypes."""
    meta = session.get_modelmeta().custom_metadata_map
    stated = (meta.get("sam2edge_contract"), meta.get("sam2edge_model"))
    if stated != (str(CONTRACT_VERSION), variant_name):
        raise GraphError(
            f"graph {spec.name} was made for something else",
            expected=f"contract {CONTRACT_VERSION} of {variant_name}",
            got=f"contract {stated[0]} of {stated[1]}",
            remedy="export the graphs again with this version of sam2edge",
        )
    for kind, wanted, found in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        actual = tuple(TensorSpec(t.name, tuple(t.shape), _DTYPES.get(t.type, t.type)) for t in found)
        if actual != wanted:
            raise GraphError(
                f"{kind} of graph {spec.name} break the contract",
                expected=", ".join(map(str, wanted)),
                got=", ".join(map(str, actual)),
                remedy="export the graphs again with this version of sam2edge",
            )
