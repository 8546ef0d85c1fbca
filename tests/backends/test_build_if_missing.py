"""`build_if_missing=True`, from the build's own processes to masks, on stand-ins for TensorRT and CUDA."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.backends import registry
from sam2edge.errors import BackendUnavailableError, GraphError
from sam2edge.store import paths
from sam2edge.variants import find_variant
from tests.backends.conftest import MODULES
from tests.backends.fake_cuda import FakeDriver, FakeTensorRt
from tests.boards import ORIN

MICRO = find_variant("sam2/micro")
BOX = np.array([75, 20, 480, 385])


@pytest.fixture
def machine(builder: pytest.MonkeyPatch, driver: FakeDriver, tmp_path: Path) -> pytest.MonkeyPatch:
    """A GPU on which nothing was built yet, with a TensorRT whose engines may be built without one."""
    # As exported for engines; the export takes torch, and time.
    shutil.copytree(paths.ASSETS, paths.graph_dir(MICRO, 384, paths.FP32_FOR_ENGINES))
    libraries = tmp_path / "libraries"
    shutil.move(libraries / "tensorrt.py", libraries / "tensorrt_rtx.py")
    builder.setitem(sys.modules, "tensorrt_rtx", FakeTensorRt(driver, "tensorrt_rtx"))
    backend = importlib.import_module(MODULES[1])
    builder.setattr(backend, "find_gpu", lambda index: ORIN)
    builder.setattr(registry, "has_nvidia_gpu", lambda: True)
    builder.setitem(registry.BACKENDS, "torch", registry.BACKENDS["torch"]._replace(location="no_torch:Class"))
    return builder


def test_builds_once_and_segments(
    machine: Any, micro_onnx: ImagePredictor, photo_bgr: np.ndarray, capfd: pytest.CaptureFixture
) -> None:
    model = AutoModel.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True)
    assert str(model.report) == "tensorrt on cuda: in use"
    assert "mask_decoder: " in capfd.readouterr().err, "a build is not silent"
    found = model.segment_images(photo_bgr, boxes=BOX)[0].best_masks
    np.testing.assert_array_equal(found, micro_onnx.segment_images(photo_bgr, boxes=BOX)[0].best_masks)
    machine.setenv("FAKE_TENSORRT", "killed")  # a second build would fail
    tracker = VideoTracker.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True)
    assert tracker.model.backend_name == "tensorrt"


def test_a_build_that_fails_falls_back(
    machine: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], photo_bgr: np.ndarray
) -> None:
    machine.setenv("FAKE_TENSORRT", "no memory")
    model = AutoModel.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True)
    assert model.backend_name == "onnxruntime"
    label, reason = model.report.skipped[0]
    assert label == "tensorrt on cuda"
    assert "engines of sam2/micro were not built; got 0 of 4 engines built" in reason
    assert "Could not find any implementation" in reason
    assert "were not built" in caplog.text
    assert "building engines of sam2/micro" in capfd.readouterr().err
    assert model.segment_images(photo_bgr, boxes=BOX)[0].masks.any()
    with pytest.raises(GraphError, match="were not built.*Could not find any implementation"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision="fp32", build_if_missing=True)


def test_engines_that_cannot_be_used_are_built_anew(machine: Any, empty_store: Path) -> None:
    AutoModel.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True).close()
    folder = paths.engine_dir(MICRO, 384, "fp32")
    kept = (folder / "image_encoder.engine").read_bytes()
    (folder / "mask_decoder.engine").write_bytes(b"cut")
    model = AutoModel.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True)
    assert model.report.chosen == "tensorrt built anew on cuda"
    assert "mask_decoder.engine was refused" in str(model.report)
    assert (folder / "image_encoder.engine").read_bytes() == kept, "what was right stays"


def test_nothing_is_built_where_it_would_be_of_no_use(machine: pytest.MonkeyPatch, empty_store: Path) -> None:
    with machine.context() as patch:
        patch.setattr(registry, "has_nvidia_gpu", lambda: False)
        model = AutoModel.from_pretrained("sam2/micro", precision="fp32", build_if_missing=True)
        assert model.report.skipped[0] == ("tensorrt on cuda", "no NVIDIA GPU on this machine")
    machine.setitem(registry.BACKENDS, "tensorrt", registry.BACKENDS["tensorrt"]._replace(location="no_pycuda:Class"))
    with pytest.raises(BackendUnavailableError, match="pip install tensorrt pycuda"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision="fp32", build_if_missing=True)
    assert not (empty_store / "engines").exists()


def test_a_damaged_folder_gives_way_to_the_other_precision(tensorrt: FakeTensorRt, written_engines: Path) -> None:
    other = shutil.copytree(written_engines, written_engines.parent / "384-fp32")
    for path in other.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": "fp32"}))
    assert AutoModel.from_pretrained("sam2/micro").report.chosen == "tensorrt fp16 on cuda"
    (written_engines / "mask_decoder.engine").write_bytes(b"cut")
    for backend in ("auto", "tensorrt"):
        model = AutoModel.from_pretrained("sam2/micro", backend=backend)
        assert (model.backend.precision, model.report.chosen) == ("fp32", "tensorrt fp32 on cuda")
        label, reason = model.report.skipped[0]
        assert label == "tensorrt fp16 on cuda"
        assert "mask_decoder.engine was refused" in reason
    with pytest.raises(GraphError, match="mask_decoder.engine was refused"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision="fp16")
