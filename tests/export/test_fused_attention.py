"""What NVIDIA's compiler makes of the float16 graphs: fused attentions, and sums of float32 where they matter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")

from sam2edge.export.precision import expected_islands  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.export.compile_rtx import compile_plan, count_fused  # noqa: E402

MICRO = find_variant("sam2/micro")


@pytest.mark.parametrize("name", ["image_encoder", "mask_decoder", "memory_attention"])
def test_every_attention_is_one_kernel(half_graphs: Path, name: str) -> None:
    fused = count_fused(compile_plan(half_graphs / f"{name}.onnx"))
    softmaxes = Counter(node.op_type for node in onnx.load(half_graphs / f"{name}.onnx").graph.node)["Softmax"]
    assert fused == softmaxes == expected_islands(MICRO, name)["attention"]


def test_no_layer_norm_sees_float16(half_graphs: Path) -> None:
    for path in half_graphs.glob("*.onnx"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
        types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input)}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
        assert norms or path.stem == "image_encoder", path.stem  # of micro: convolutions alone
        assert all(types[name] == onnx.TensorProto.FLOAT for node in norms for name in node.input), path.stem
