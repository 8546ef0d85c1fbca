"""int8 graphs: which products are int8, and how far their answers are from float32."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from sam2edge import AutoModel, contract  # noqa: E402
from sam2edge.export.compare import open_session  # noqa: E402
from sam2edge.export.metrics import BOUNDS, compare  # noqa: E402
from sam2edge.export.quantise import quantise  # noqa: E402
from sam2edge.export.to_onnx import check_tensors  # noqa: E402
from sam2edge.export.tracing import fold, trace  # noqa: E402
from sam2edge.store import paths  # noqa: E402
from sam2edge.torch_sam2.checkpoint import load_model  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402

MICRO = find_variant("sam2/micro")


@pytest.mark.parametrize("name", [contract.MEMORY_ENCODER, contract.MEMORY_ATTENTION])
def test_products_with_weights_are_int8_and_close(name: str, tmp_path: Path) -> None:
    checkpoint, spec = paths.find_checkpoint(MICRO), contract.graph_specs(MICRO, 128)[name]
    assert checkpoint is not None
    trace(load_model(MICRO, checkpoint, 128), spec, tmp_path / "float.onnx")
    fold(tmp_path / "float.onnx")
    plain = onnx.load(tmp_path / "float.onnx")
    softmaxes = Counter(node.op_type for node in plain.graph.node)["Softmax"]
    found = quantise(plain)
    onnx.checker.check_model(found, full_check=True)
    check_tensors(found, spec)
    onnx.save(found, tmp_path / "int8.onnx")
    assert {entry.domain for entry in found.opset_import} == {""}
    kinds = Counter(node.op_type for node in found.graph.node)
    assert kinds["MatMulInteger"] >= 4
    assert kinds["MatMul"] >= 2 * softmaxes  # attention's own products are float32
    rng = np.random.default_rng(0)
    feed = {
        t.name: np.zeros(t.shape, t.dtype)
        if t.name.endswith("_mask") or t.dtype != "float32"
        else rng.normal(0, 0.5, t.shape).astype(np.float32)
        for t in spec.inputs
    }
    names = [t.name for t in spec.outputs]
    outputs = [
        dict(zip(names, open_session(tmp_path / f"{kind}.onnx").run(names, feed), strict=True))
        for kind in ("float", "int8")
    ]
    metrics = compare(*outputs)
    assert metrics.within(BOUNDS["int8"]), metrics
    assert metrics.relative_error > 1e-5  # it is int8 indeed


def test_int8_is_for_onnxruntime() -> None:
    with pytest.raises(Exception, match="no ONNX graphs"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", precision="int8")
    with pytest.raises(Exception, match=r"computes in fp32 alone; expected .*; got 'int8'"):
        AutoModel.from_pretrained("sam2/micro", backend="torch", precision="int8")
