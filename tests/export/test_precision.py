"""float16 graphs: islands where they belong, the contract kept, the answers of the float32 graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import ImagePredictor

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from sam2edge import AutoModel, contract  # noqa: E402
from sam2edge.errors import GraphError, InvalidInputError  # noqa: E402
from sam2edge.export.precision import ATTENTION, convert_to_half, expected_islands  # noqa: E402
from sam2edge.export.to_onnx import check_tensors, export_graphs, main  # noqa: E402
from sam2edge.store.paths import ASSETS  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402

MICRO = find_variant("sam2/micro")


@pytest.fixture(scope="module")
def graphs(half_graphs: Path) -> dict[str, Path]:
    """Paths of micro's float16 graphs by name."""
    return {path.stem: path for path in half_graphs.glob("*.onnx")}


def test_the_contract_is_that_of_float32(graphs: dict[str, Path]) -> None:
    specs = contract.graph_specs(MICRO, 384)
    assert set(graphs) == set(specs)
    for name, path in graphs.items():
        model = onnx.load(path)
        check_tensors(model, specs[name])
        stated = {entry.key: entry.value for entry in model.metadata_props}
        assert stated["sam2edge_precision"] == "fp16"


def test_arithmetic_is_float16_but_for_the_islands(graphs: dict[str, Path]) -> None:
    for name, path in graphs.items():
        model = onnx.load(path)
        values = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
        types = {v.name: v.type.tensor_type.elem_type for v in values}
        softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
        assert len(softmaxes) == expected_islands(MICRO, name)[ATTENTION]
        assert all(types[node.output[0]] == TensorProto.FLOAT for node in softmaxes)
        products = [node for node in model.graph.node if node.op_type in ("Gemm", "Conv")]
        assert products
        halved = [types.get(node.output[0]) == TensorProto.FLOAT16 for node in products]
        assert all(halved), f"{name}: {halved.count(False)} of {len(halved)} computed in float32"
        # 2,048: the grid's coordinates, of which the position table is computed in float32.
        large = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 2048]
        assert not large


def test_masks_are_those_of_float32(
    graphs: dict[str, Path], micro_onnx: ImagePredictor, photo_bgr: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM2EDGE_HOME", str(graphs["image_encoder"].parents[3]))
    half = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", precision="fp16")
    plain, found = (model.embed_images(photo_bgr)[0] for model in (micro_onnx, half))
    for name, tensor in plain.features.tensors.items():
        assert _cosine(tensor, found.features.tensors[name]) >= 0.9999, name
    for prompt in ({"boxes": [75, 20, 480, 385]}, {"point_coordinates": [[300, 300]], "point_labels": [1]}):
        arrays: dict[str, Any] = {name: np.array(value) for name, value in prompt.items()}
        masks = [
            model.segment_images(embeddings=embedding, multi_mask_output=False, **arrays)[0].masks[0]
            for model, embedding in ((micro_onnx, plain), (half, found))
        ]
        assert np.count_nonzero(masks[0] & masks[1]) / np.count_nonzero(masks[0] | masks[1]) >= 0.995


def test_another_number_of_islands_is_refused() -> None:
    model = onnx.load(ASSETS / "mask_decoder.onnx")
    with pytest.raises(GraphError, match="at least 0 of attention, 0 of angles; got 7 of attention, 2 of angles"):
        convert_to_half(model, expected_islands(MICRO, "image_encoder"))
    with pytest.raises(GraphError, match="no count of float32 islands"):
        expected_islands(MICRO, "another_graph")


def _small_graph(weight: float, before_softmax: str = "MatMul") -> Any:
    nodes = [
        helper.make_node(before_softmax, ["x", "w"] if before_softmax == "MatMul" else ["x"], ["product"]),
        helper.make_node("Add", ["product", "w"], ["scores"]),  # as a mask is added
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    constant = numpy_helper.from_array(np.full((4, 4), weight, np.float32), "w")
    value = helper.make_tensor_value_info
    ends = [value(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y", "wx")]
    nodes.append(helper.make_node("MatMul", ["y", "w"], ["wx"]))
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_constant_used_on_both_sides_is_kept_in_both_types() -> None:
    model = _small_graph(0.5)
    convert_to_half(model, {"attention": 1, "angles": 0})
    onnx.checker.check_model(model, full_check=True)
    assert sorted((t.name, t.data_type) for t in model.graph.initializer) == [
        ("w", TensorProto.FLOAT),
        ("w.half", TensorProto.FLOAT16),
    ]
    assert [output.name for output in model.graph.output] == ["y", "wx"]


def test_a_constant_that_does_not_fit_is_refused() -> None:
    with pytest.raises(GraphError, match="constant w does not fit float16.*70000.*--precision fp32"):
        convert_to_half(_small_graph(70000.0), {"attention": 1, "angles": 0})


def test_a_softmax_of_something_else_is_refused() -> None:
    with pytest.raises(GraphError, match="not fed by a matrix product"):
        convert_to_half(_small_graph(0.5, "Relu"), {"attention": 1, "angles": 0})


def test_half_weights_are_for_float32_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInputError, match="unknown precision.*'int4'"):
        export_graphs(MICRO, tmp_path / "none", 384, tmp_path, precision="int4")
    assert main(["sam2/micro", "--precision", "fp16", "--half-weights", "--out", str(tmp_path)]) == 1
    assert "no float32 weights to halve" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
