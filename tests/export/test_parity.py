"""The gate: a good graph gets its metrics, a wrong one is moved aside with the layer that is wrong."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import numpy_helper  # noqa: E402

from sam2edge.errors import GraphError  # noqa: E402
from sam2edge.export.metrics import BOUNDS, Metrics, compare, require_passed  # noqa: E402
from sam2edge.export.parity import check_graphs, main  # noqa: E402
from sam2edge.files import file_sha256  # noqa: E402
from sam2edge.store import paths  # noqa: E402
from sam2edge.torch_sam2.checkpoint import load_model  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402

MICRO = find_variant("sam2/micro")


@pytest.fixture
def graphs(half_graphs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(half_graphs, tmp_path / "graphs")


@pytest.fixture(scope="module")
def torch_micro() -> Any:
    checkpoint = paths.find_checkpoint(MICRO)
    assert checkpoint is not None
    return load_model(MICRO, checkpoint, 384)


def _manifest(folder: Path, graph: str) -> dict:
    return json.loads((folder / f"{graph}.onnx.json").read_text())


def test_good_graphs_get_their_metrics(graphs: Path, torch_micro: Any, photo_bgr: np.ndarray) -> None:
    outcomes = check_graphs(torch_micro, graphs, "fp16", [photo_bgr])
    require_passed(outcomes)
    for name, outcome in outcomes.items():
        manifest = _manifest(graphs, name)
        assert manifest["sha256"] == file_sha256(graphs / f"{name}.onnx")
        assert (manifest["model"], manifest["image_size"], manifest["precision"]) == (MICRO.name, 384, "fp16")
        assert manifest["parity"]["graph"]["passed"] is True
        assert manifest["parity"]["graph"]["metrics"]["cosine"] == outcome.metrics.cosine > 0.9999
    assert outcomes["mask_decoder"].metrics.mask_iou >= 0.995


def test_a_wrong_graph_is_moved_aside_with_its_wrong_layer(graphs: Path, torch_micro: Any) -> None:
    path = graphs / "mask_decoder.onnx"
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.op_type == "Gemm" and "layers.1/self_attn/v_proj" in n.name)
    weight = next(t for t in model.graph.initializer if t.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(3.0), weight.name))
    onnx.save(model, path)
    outcomes = check_graphs(torch_micro, graphs, "fp16")
    assert outcomes["image_encoder"].passed
    assert not outcomes["mask_decoder"].passed
    assert outcomes["mask_decoder"].first_bad_layer == f"{node.name} (Gemm)"
    assert not path.exists()
    manifest = _manifest(graphs, "mask_decoder")
    assert manifest["sha256"] == file_sha256(graphs / "mask_decoder.failed.onnx")
    assert manifest["parity"]["graph"]["passed"] is False
    with pytest.raises(GraphError, match=r"mask_decoder: cosine.*v_proj.*mask_decoder.failed.onnx"):
        require_passed(outcomes)
    with pytest.raises(GraphError, match="mask_decoder.onnx cannot be loaded"):
        check_graphs(torch_micro, graphs, "fp16")


def test_a_failed_graph_is_not_found(graphs: Path, empty_store: Path) -> None:
    folder = paths.graph_dir(MICRO, 384, "fp16")
    shutil.copytree(graphs, folder)
    assert paths.find_graphs(MICRO, 384, "fp16") == folder
    (folder / "mask_decoder.onnx").rename(folder / "mask_decoder.failed.onnx")
    assert paths.find_graphs(MICRO, 384, "fp16") is None


def test_by_hand(graphs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["sam2/micro", "--folder", str(graphs)]
    assert main([*options, "--precision", "fp16"]) == 0
    assert "mask_decoder: cosine" in capsys.readouterr().out
    assert main([*options, "--photo", str(tmp_path / "none.jpg")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_metrics() -> None:
    a = np.linspace(-1, 1, 100, dtype=np.float32)
    assert compare({"x": a}, {"x": a}).within(BOUNDS["fp32"])
    assert compare({"x": a}, {"x": -a}).cosine == pytest.approx(-1)
    assert not compare({"x": a}, {"x": np.where(a > 0.9, np.nan, a)}).within(BOUNDS["fp16"])
    zeros = np.zeros(100, np.float32)
    assert compare({"x": zeros}, {"x": zeros}) == Metrics()
    assert not compare({"x": zeros}, {"x": a}).within(BOUNDS["fp16"])
    # A handful of scores near zero: the error counts against 1, not against their size.
    few = np.array([0.001, -0.001], np.float32)
    assert compare({"x": few}, {"x": few + 0.0005}).relative_error == pytest.approx(0.0005, rel=1e-3)
    assert math.isnan(Metrics(math.nan).worse_of(Metrics()).cosine)
    assert math.isnan(Metrics().worse_of(Metrics(math.nan)).cosine)


def test_pixels_without_a_decision_do_not_count() -> None:
    masks = np.full((1, 4, 10, 10), 8.0, np.float32)
    masks[..., :4] = 0.01  # of a root mean square of 6.2
    turned = np.where(masks < 1, -masks, masks)
    scores = np.full((1, 4), 0.9, np.float32)
    found = compare({"low_res_masks": masks, "iou_scores": scores}, {"low_res_masks": turned, "iou_scores": scores})
    assert found.mask_iou == 1
    turned[..., 4:6] = -8
    found = compare({"low_res_masks": masks, "iou_scores": scores}, {"low_res_masks": turned, "iou_scores": scores})
    assert found.mask_iou == pytest.approx(4 / 6)


def test_mask_iou_is_that_of_the_best_mask() -> None:
    masks = np.full((1, 4, 8, 8), -1.0, np.float32)
    masks[0, 2, :4] = 1.0
    scores = np.array([[0.1, 0.2, 0.9, 0.3]], np.float32)
    shifted = masks.copy()
    shifted[0, 2, 3] = -1.0
    outputs = {"low_res_masks": masks, "iou_scores": scores}
    assert compare(outputs, {"low_res_masks": shifted, "iou_scores": scores}).mask_iou == pytest.approx(0.75)
