"""float32 graph -> graph whose products with weights are int8, for a CPU.

Weights are int8 with a scale for each output channel; what they are multiplied with becomes uint8 as it comes, by its
own least and greatest value (ONNX Runtime calls this dynamic quantisation). Everything else stays float32, and so do
attention's own products, small weights, and whatever leads to a Sin or Cos: angles of pixel coordinates need digits.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from sam2edge.export.precision import ANGLES, find_islands, find_reached

MIN_WEIGHTS = 4096
"""Smaller matrices stay float32: there is little to gain."""


def quantise(model: ModelProto) -> ModelProto:
    """A copy of the float32 graph with int8 products, in standard operators alone."""
    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    chosen = _products_with_weights(wrapped.model.graph)
    if not chosen:
        return wrapped.model
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "quantised.onnx"
        root.setLevel(logging.ERROR)  # it recommends a step that folding has done already
        try:
            quantize_dynamic(
                wrapped.model,
                target,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        finally:
            root.setLevel(level)
        return onnx.load(target)


def _products_with_weights(graph: GraphProto) -> list[str]:
    """Names of the MatMul nodes whose right side is a large constant matrix."""
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2 and t.dims[0] * t.dims[1] >= MIN_WEIGHTS}
    angles = {index for members in find_islands(graph)[ANGLES].values() for index in members}
    return [
        node.name
        for index, node in enumerate(graph.node)
        if node.op_type == "MatMul" and node.input[1] in matrices and index in find_reached(graph) - angles
    ]
