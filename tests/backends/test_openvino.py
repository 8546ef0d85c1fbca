"""The graphs on OpenVINO: the answers of ONNX Runtime, and when "auto" takes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sam2edge import AutoModel, ImagePredictor
from sam2edge.backends import registry
from sam2edge.contract import IMAGE_GRAPHS
from sam2edge.errors import GraphError
from sam2edge.machine.processor import has_bfloat16
from sam2edge.store import paths
from sam2edge.variants import find_variant
from tests.trees import write_tree

openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is optional")
BOX = np.array([75, 20, 480, 385])


def _iou(models: tuple[ImagePredictor, ImagePredictor], photo: np.ndarray) -> float:
    a, b = (model.segment_images(photo, boxes=BOX, multi_mask_output=False)[0].masks[0] for model in models)
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


@openvino
def test_float32_gives_what_onnxruntime_gives(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="openvino", precision="fp32")
    assert (model.backend_name, model.backend.precision) == ("openvino", "fp32")
    features, wanted = (m.embed_images(photo_bgr)[0].features.to_host().tensors for m in (model, micro_onnx))
    for name, tensor in wanted.items():
        np.testing.assert_allclose(features[name], tensor, atol=2e-3, rtol=1e-3)
    assert _iou((model, micro_onnx), photo_bgr) >= 0.999


@openvino
@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_bfloat16_is_close(micro_onnx: ImagePredictor, photo_bgr: np.ndarray) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="openvino", tracking=True)
    assert model.backend.precision == "bf16"
    assert _iou((model, micro_onnx), photo_bgr) >= 0.99


@openvino
def test_auto_takes_it_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "openvino_is_faster", lambda: True)
    assert AutoModel.from_pretrained("sam2/micro", device="cpu").backend_name == "openvino"
    assert AutoModel.from_pretrained("sam2/micro", device="cpu", precision="fp32").backend_name == "onnxruntime"


def test_a_library_that_fails_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "openvino_is_faster", lambda: True)
    gone = registry.BACKENDS["openvino"]._replace(location="no_such_library:Class")
    monkeypatch.setitem(registry.BACKENDS, "openvino", gone)
    model = AutoModel.from_pretrained("sam2/micro", device="cpu")
    assert model.backend_name == "onnxruntime"
    assert "openvino on cpu: backend openvino cannot be imported" in str(model.report)


@openvino
def test_graphs_of_another_precision_are_refused() -> None:
    onnx = pytest.importorskip("onnx")
    folder = paths.graph_dir(find_variant("sam2/micro"), 384, "fp16")
    folder.mkdir(parents=True)
    for name in IMAGE_GRAPHS:
        graph = onnx.load(paths.ASSETS / f"{name}.onnx")
        next(entry for entry in graph.metadata_props if entry.key == "sam2edge_precision").value = "fp16"
        onnx.save(graph, folder / f"{name}.onnx")
    with pytest.raises(GraphError, match="openvino cannot run fp16 graphs; expected fp32"):
        AutoModel.from_pretrained("sam2/micro", backend="openvino", precision="fp16")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("Features : fp asimd bf16\n", False),  # Arm: its kernels were not measured
        ("", False),
    ],
)
def test_bfloat16_is_read_from_the_processor(text: str, found: bool, tmp_path: Path) -> None:
    assert has_bfloat16(write_tree(tmp_path, {"proc/cpuinfo": text})) is found
