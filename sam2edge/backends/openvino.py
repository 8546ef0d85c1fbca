"""The exported graphs on OpenVINO's CPU plug-in: in bfloat16 where the processor multiplies it, else in float32."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray

from sam2edge.backends.base import BackendRequest
from sam2edge.backends.onnx_graphs import OnnxGraph, OnnxGraphBackend
from sam2edge.contract import MASK_DECODER, TensorSpec

_DTYPES = {"f32": "float32", "i32": "int32"}


_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
# Without SNIPPETS_MODE attention in windows of 4x4 goes wrong in bfloat16 (seen in OpenVINO 2026.4).
_BFLOAT16 = {"INFERENCE_PRECISION_HINT": "bf16", "SNIPPETS_MODE": "DISABLE"}


class OpenVinoBackend(OnnxGraphBackend):
    """`precision` "auto" is bfloat16 where the processor has it, but for the mask decoder; "fp32" is float32."""

    name = "openvino"
    precisions = ("fp32",)

    def __init__(self, request: BackendRequest) -> None:
        self._core = openvino.Core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        half = request.precision == "auto" and "BF16" in capabilities
        self._options = _BFLOAT16 if half else _FLOAT32
        super().__init__(request)
        self.precision = "bf16" if half else self.precision

    def open_graph(self, path: Path) -> OnnxGraph:
        # The decoder costs masks four times as much in bfloat16 as the rest, and gains little.
        options = _FLOAT32 if path.stem == MASK_DECODER else self._options
        return _OpenVinoGraph(self._core, path, {**options, "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0))})


class _OpenVinoGraph(OnnxGraph):
    def __init__(self, core: openvino.Core, path: Path, options: Mapping[str, Any]) -> None:
        model = core.read_model(str(path))
        info = model.get_rt_info()
        stated = info["framework"] if "framework" in info else {}  # noqa: SIM401  # it is no dict
        self.metadata = {name: stated[name].astype(str) for name in stated}
        compiled = core.compile_model(model, "CPU", dict(options))
        self.inputs, self.outputs = (_specs(ports) for ports in (compiled.inputs, compiled.outputs))
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request computes one inference at a time

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        with self._lock:
            found = self._request.infer(dict(feed), share_inputs=True, share_outputs=False)
            return [found[name] for name in names]


def _specs(ports: Sequence[Any]) -> tuple[TensorSpec, ...]:
    # A port has every name that its tensor ever had; those of the tracer begin with a slash.
    names = (min(port.names, key=lambda name: name.startswith("/")) for port in ports)
    types = (port.element_type.to_string() for port in ports)
    return tuple(
        TensorSpec(name, tuple(port.shape), _DTYPES.get(kind, kind))
        for name, port, kind in zip(names, ports, types, strict=True)
    )
