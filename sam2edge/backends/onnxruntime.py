"""The exported graphs on ONNX Runtime's CPU provider: small, quick to start, no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sam2edge.backends.native_messages import drop_cpuinfo_errors
from sam2edge.backends.onnx_graphs import OnnxGraph, OnnxGraphBackend
from sam2edge.contract import TensorSpec

with drop_cpuinfo_errors():
    import onnxruntime as ort

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class OnnxRuntimeBackend(OnnxGraphBackend):
    name = "onnxruntime"
    precisions = ("fp32", "fp16", "int8")

    def open_graph(self, path: Path) -> OnnxGraph:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        # All three cost memory and bring no measurable time: with them the encoder at 1024 peaks at twice the bytes.
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        # The fused skip-and-normalise kernel is scalar on a CPU, and slower than its two parts.
        slow = ["SkipLayerNormFusion"]
        providers = ["CPUExecutionProvider"]
        return OnnxRuntimeGraph(ort.InferenceSession(str(path), options, providers=providers, disabled_optimizers=slow))


class OnnxRuntimeGraph(OnnxGraph):
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.inputs, self.outputs = (
            tuple(TensorSpec(t.name, tuple(t.shape), _DTYPES.get(t.type, t.type)) for t in tensors)
            for tensors in (session.get_inputs(), session.get_outputs())
        )

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        values: list[NDArray[Any]] = self._session.run(list(names), dict(feed))
        return values
