"""The exported graphs on ONNX Runtime's CPU provider: small, quick to start, no torch."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from sam2edge import contract
from sam2edge.backends.base import (
    Backend,
    BackendRequest,
    DecodedPrompts,
    FloatArray,
    HostFeatures,
    IntArray,
    MemoryInputs,
)
from sam2edge.backends.slots import memory_attention_feed, memory_encoder_feed, prompt_slots
from sam2edge.contract import CONTRACT_VERSION, GraphSpec, TensorSpec
from sam2edge.errors import GraphError, InvalidInputError

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class OnnxRuntimeBackend(Backend):
    """One model's graphs as sessions: image encoder and mask decoder, and for tracking the two of the memory."""

    name = "onnxruntime"

    def __init__(self, request: BackendRequest) -> None:
        if request.graph_dir is None:
            raise GraphError(
                f"no ONNX graphs of {request.variant.model_id} at image size {request.image_size} on this machine",
                expected="image_encoder.onnx and mask_decoder.onnx",
                got="none",
                remedy=f"python -m sam2edge.export.to_onnx {request.variant.model_id} --checkpoint FILE",
            )
        self.variant = request.variant
        self.image_size = request.image_size
        self._encoder = _open_session(request.graph_dir / f"{contract.IMAGE_ENCODER}.onnx")
        self._decoder = _open_session(request.graph_dir / f"{contract.MASK_DECODER}.onnx")
        self.precision = self._encoder.get_modelmeta().custom_metadata_map.get("sam2edge_precision", "fp32")
        self._slots = _prompt_slots(self._decoder)
        specs = contract.graph_specs(self.variant, self.image_size, self._slots)
        for session, name in ((self._encoder, contract.IMAGE_ENCODER), (self._decoder, contract.MASK_DECODER)):
            check_session(session, specs[name], self.variant.name)
            _check_weights(session, request.checkpoint_sha256)
        self._graph_dir = request.graph_dir
        self._memory_sessions: dict[str, ort.InferenceSession] = {}
        self._memory_lock = threading.Lock()

    @classmethod
    def open(cls, request: BackendRequest) -> OnnxRuntimeBackend:
        if request.device not in (None, "cpu"):
            raise InvalidInputError(
                "the onnxruntime backend runs on the CPU alone",
                expected="device None or 'cpu'",
                got=repr(request.device),
                remedy="use the torch backend for a GPU",
            )
        request.check_versions()
        return cls(request)

    @property
    def max_points(self) -> int | None:
        return self._slots

    def encode_impl(self, image: FloatArray) -> HostFeatures:
        names = [output.name for output in self._encoder.get_outputs()]
        # Session.run hands out fresh arrays, so no embedding shares memory with a later call.
        return HostFeatures(dict(zip(names, self._encoder.run(names, {"image": image}), strict=True)))

    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        tensors = features.to_host().tensors
        feed = {name: tensors[name] for name in ("image_embed", "high_res_0", "high_res_1")}
        side = self.image_size // 4
        rows = []
        for k in range(len(point_coords)):
            coords, labels = prompt_slots(point_coords[k], point_labels[k], self._slots)
            mask = np.zeros((1, 1, side, side), np.float32) if mask_input is None else mask_input[k][None, None]
            given = np.array([mask_input is not None], np.float32)
            prompt = {"point_coords": coords, "point_labels": labels, "mask_input": mask, "has_mask": given}
            rows.append(self._decoder.run(list(DecodedPrompts._fields), {**feed, **prompt}))
        return DecodedPrompts(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))

    def attend_memory_impl(self, features: Any, recalled: MemoryInputs) -> HostFeatures:
        slots = self.variant.num_mask_slots
        memory = np.zeros((1, slots, (self.image_size // 16) ** 2, self.variant.memory_dim), np.float32)
        for slot, remembered in enumerate(recalled.memories):
            memory[0, slot] = remembered.to_host().tensors["memory"][0]
        feed = {"memory": memory, **memory_attention_feed(recalled, slots)}
        host = features.to_host()
        image_embed = self._run_memory_graph(contract.MEMORY_ATTENTION, "image_embed", host, feed)
        return host.with_image_embed(image_embed)

    def encode_memory_impl(self, features: Any, mask: FloatArray, object_score: float, binarise: bool) -> HostFeatures:
        feed = memory_encoder_feed(mask, object_score, binarise)
        return HostFeatures(
            {"memory": self._run_memory_graph(contract.MEMORY_ENCODER, "memory", features.to_host(), feed)}
        )

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        feed = memory_encoder_feed(mask, 1.0, True)
        return self._run_memory_graph(contract.MEMORY_ENCODER, "mask_prompt", features.to_host(), feed)[0, 0]

    def _run_memory_graph(self, name: str, output: str, host: HostFeatures, feed: dict[str, Any]) -> FloatArray:
        session = self._memory_session(name)
        feed = {**feed, "vision_features": host.tensors["vision_features"]}
        wanted = {tensor.name for tensor in session.get_inputs()}  # SAM 2.0 has fewer
        result: FloatArray = session.run([output], {k: v for k, v in feed.items() if k in wanted})[0]
        return result

    def _memory_session(self, name: str) -> ort.InferenceSession:
        """Opened at first use: images need none of it, and a model may come without."""
        with self._memory_lock:
            if name not in self._memory_sessions:
                path = self._graph_dir / f"{name}.onnx"
                if not path.is_file():
                    raise GraphError(
                        f"{self.variant.model_id} cannot track: a graph of its memory is missing",
                        expected=str(path),
                        got="no file",
                        remedy="export again with python -m sam2edge.export.to_onnx, or use the torch backend",
                    )
                session = _open_session(path)
                check_session(session, contract.graph_specs(self.variant, self.image_size)[name], self.variant.name)
                _check_weights(session, _checkpoint_of(self._encoder))
                self._memory_sessions[name] = session
            return self._memory_sessions[name]


def _open_session(path: Path) -> ort.InferenceSession:
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


def _check_weights(session: ort.InferenceSession, checkpoint_sha256: str | None) -> None:
    made_of = _checkpoint_of(session)
    if checkpoint_sha256 is not None and made_of != checkpoint_sha256:
        raise GraphError(
            "the exported graphs were made of another checkpoint",
            expected=f"SHA-256 {checkpoint_sha256[:16]}...",
            got=f"{str(made_of)[:16]}...",
            remedy="export this checkpoint with python -m sam2edge.export.to_onnx MODEL --checkpoint FILE",
        )


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
