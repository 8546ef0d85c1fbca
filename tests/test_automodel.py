"""From an id to a model: what is found, what is refused, what the report says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sam2edge import AutoModel
from sam2edge.backends import registry
from sam2edge.errors import (
    BackendUnavailableError,
    CheckpointError,
    GraphError,
    InvalidInputError,
    Sam2EdgeError,
    UnknownModelError,
)
from sam2edge.store import paths
from sam2edge.store.importer import add_checkpoint
from sam2edge.variants import find_variant

ASSETS = paths.ASSETS


def test_auto_is_the_embedded_model_on_onnxruntime() -> None:
    model = AutoModel.from_pretrained(api_key="any", device="cpu")
    assert (model.variant.model_id, model.backend_name) == ("sam2/micro", "onnxruntime")
    assert str(model.report) == "onnxruntime on cpu: in use"


def test_the_report_tells_why_a_backend_was_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")

    def refuse(request: object) -> None:
        raise GraphError("no graphs today")

    from sam2edge.backends.onnxruntime import OnnxRuntimeBackend

    monkeypatch.setattr(OnnxRuntimeBackend, "open", refuse)
    model = AutoModel.from_pretrained("sam2/micro", device="cpu")
    assert model.backend_name == "torch"
    assert "onnxruntime on cpu: no graphs today" in str(model.report)


def test_a_backend_asked_for_by_name_fails_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        GraphError,
        match="no ONNX graphs of sam2/micro at image size 256.*models install sam2/micro --size 256",
    ):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", image_size=256)


def test_another_image_size_falls_back_to_torch(photo_bgr: np.ndarray) -> None:
    pytest.importorskip("torch")
    model = AutoModel.from_pretrained("sam2/micro", device="cpu", image_size=256)
    assert (model.backend_name, model.image_size) == ("torch", 256)
    assert model.segment_images(photo_bgr, boxes=np.array([75, 20, 480, 385]))[0].logits.shape == (3, 64, 64)


def test_a_missing_library_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = registry.BACKENDS["onnxruntime"]._replace(location="no_such_library:Class")
    monkeypatch.setitem(registry.BACKENDS, "onnxruntime", gone)
    with pytest.raises(BackendUnavailableError, match="remedy: pip install onnxruntime"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")


def test_no_weights_on_this_machine() -> None:
    pytest.importorskip("torch")
    for backend in ("auto", "torch"):
        with pytest.raises(CheckpointError, match="sam2edge models install sam2/hiera_tiny"):
            AutoModel.from_pretrained("sam2/hiera_tiny", backend=backend)


def test_when_nothing_can_run_every_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in registry.BACKENDS.items():
        monkeypatch.setitem(registry.BACKENDS, name, entry._replace(location="no_such_library:Class"))
    with pytest.raises(BackendUnavailableError, match=r"onnxruntime on cpu: .*pip install.*torch on cpu: .*torch\]"):
        AutoModel.from_pretrained("sam2/micro")


def test_without_a_gpu_auto_does_not_load_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "has_nvidia_gpu", lambda: False)
    monkeypatch.setitem(registry.BACKENDS, "torch", registry.BACKENDS["torch"]._replace(location="never_loaded:Class"))
    model = AutoModel.from_pretrained()
    (engines, reason), torch_on_cuda = model.report.skipped
    assert engines == "tensorrt on cuda"
    assert reason.startswith("no engine of sam2/micro at image size 384 was built; remedy: sam2edge build")
    assert torch_on_cuda == ("torch on cuda", "no NVIDIA GPU on this machine")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model_id": "sam9/giant"}, UnknownModelError, "sam2/micro"),
        ({"backend": "tpu"}, InvalidInputError, "unknown backend"),
        ({"precision": "fp4"}, InvalidInputError, "precision"),
        ({"checkpoint": "/no/such/file.pt"}, CheckpointError, "not found"),
        ({"chekpoint": "typo.pt"}, InvalidInputError, "unknown option.*chekpoint"),
        ({"device": "cuda", "backend": "onnxruntime"}, InvalidInputError, "CPU alone"),
        ({"device": "tpu"}, BackendUnavailableError, "device 'tpu'"),
        ({"image_size": 100, "backend": "torch"}, InvalidInputError, "multiple of 32"),
        ({"image_size": 0}, InvalidInputError, "multiple of 32"),
    ],
)
def test_refused_options(options: dict[str, object], error: type[Sam2EdgeError], message: str) -> None:
    if options.get("backend") == "torch":
        pytest.importorskip("torch")
    with pytest.raises(error, match=message):
        AutoModel.from_pretrained(**options)  # type: ignore[arg-type]


def test_a_checkpoint_in_the_store_is_found(empty_store: Path, golden_checkpoint: Callable[[str], Path]) -> None:
    pytest.importorskip("torch")
    checkpoint = golden_checkpoint("sam2/hiera_tiny")
    add_checkpoint(checkpoint)
    assert paths.is_installed(find_variant("sam2/hiera_tiny"))
    assert AutoModel.from_pretrained("sam2/hiera_tiny", device="cpu").backend_name == "torch"


@pytest.fixture
def stored_micro(empty_store: Path) -> Path:
    """Graphs of micro in the store, where a test may damage them."""
    folder = empty_store / "graphs" / "sam2.1_micro" / "384-fp32"
    folder.mkdir(parents=True)
    for name in ("image_encoder.onnx", "mask_decoder.onnx"):
        shutil.copy(ASSETS / name, folder)
    return folder


def test_graphs_of_another_checkpoint_are_refused(stored_micro: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes((ASSETS / "sam2.1_micro.safetensors").read_bytes() + b"\0")
    with pytest.raises(GraphError, match="made of another checkpoint"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", checkpoint=other)
    same = ASSETS / "sam2.1_micro.safetensors"
    assert AutoModel.from_pretrained("sam2/micro", backend="onnxruntime", checkpoint=same)


@pytest.mark.parametrize("kept", [0, 10, 5000, -500])
def test_truncated_graphs(stored_micro: Path, kept: int) -> None:
    path = stored_micro / "mask_decoder.onnx"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GraphError, match=r"mask_decoder.onnx cannot be loaded.*export it again"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")


def test_graphs_that_break_the_contract(stored_micro: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = stored_micro / "image_encoder.onnx"
    graph = onnx.load(path)
    graph.metadata_props[0].value, kept = "99", graph.metadata_props[0].value
    onnx.save(graph, path)
    with pytest.raises(GraphError, match="made for something else.*contract 99"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")
    graph.metadata_props[0].value = kept
    for node in graph.graph.node:
        node.output[:] = ["renamed" if name == "high_res_0" else name for name in node.output]
    graph.graph.output[1].name = "renamed"
    onnx.save(graph, path)
    with pytest.raises(GraphError, match=r"break the contract.*high_res_0 float32\[1, 16, 96, 96\].*renamed"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")


def test_the_base_install_never_imports_torch() -> None:
    program = """
import sys
import numpy as np
sys.modules["torch"] = None
from sam2edge import AutoModel
model = AutoModel.from_pretrained()
found = model.segment_images(np.zeros((40, 60, 3), np.uint8), boxes=np.array([5, 5, 30, 30]))
assert found[0].masks.shape == (3, 40, 60)
assert not {name for name in sys.modules if name.partition(".")[0] in {"onnx", "safetensors", "click", "rich"}}
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
