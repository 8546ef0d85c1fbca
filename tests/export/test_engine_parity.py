"""The gate behind a build, on stand-ins for CUDA and TensorRT's runtime that compute with ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, contract
from sam2edge.errors import GraphError
from sam2edge.export import to_engine
from sam2edge.export.build_process import BuildOptions
from sam2edge.export.compare import open_session, session_runner
from sam2edge.export.engine_parity import check_engines, main
from sam2edge.export.metrics import require_passed
from sam2edge.files import file_sha256
from sam2edge.machine.device import Gpu
from sam2edge.store import paths
from sam2edge.store.manifest import read_manifest
from sam2edge.variants import find_variant
from tests.backends.conftest import ASSETS, rewrite_engine
from tests.backends.fake_cuda import FakeTensorRt

MICRO = find_variant("sam2/hiera_micro")
GRAPHS = tuple(contract.graph_specs(MICRO, 512))


@pytest.fixture
def wrong_decoder(tensorrt: FakeTensorRt, written_engines: Path, tmp_path: Path) -> Path:
    """Engines of micro, that of the mask decoder with a wrong weight."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(ASSETS / "mask_decoder.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    largest.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(largest) * 3, largest.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    rewrite_engine(written_engines / "mask_decoder.engine", str(tmp_path / "wrong.onnx").encode())
    return written_engines


def _graphs_in_onnxruntime() -> Any:
    return session_runner({name: open_session(ASSETS / f"{name}.onnx") for name in GRAPHS})


def _state(folder: Path, **entries: Any) -> None:
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_good_engines_get_their_figures(
    tensorrt: FakeTensorRt, written_engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    _state(written_engines, checkpoint_sha256=file_sha256(ASSETS / "sam2.1_hiera_micro.safetensors"))
    photos = [f"--photo={ASSETS.parents[1] / 'examples' / name}" for name in ("coffee.png", "coins.png")]
    assert main(["sam2/hiera_micro", *photos]) == 0, capsys.readouterr().err
    for name in GRAPHS:
        parity = read_manifest(written_engines / f"{name}.engine").parity["engine"]
        assert (parity["against"], parity["cases"], parity["passed"]) == ("torch float32", 6, True)
        assert parity["runtime"] == "tensorrt 10.3.0 on Orin"
        assert parity["figures"]["cosine"] >= 0.9995
        assert parity["figures"]["mask_iou"] >= 0.995
    assert AutoModel.from_pretrained("sam2/hiera_micro").backend_name == "tensorrt"


def test_a_wrong_engine_is_moved_aside_and_never_loaded(wrong_decoder: Path, photo_bgr: np.ndarray) -> None:
    outcomes = check_engines(wrong_decoder, MICRO, 512, _graphs_in_onnxruntime(), "the graphs", [photo_bgr])
    assert [name for name, outcome in outcomes.items() if not outcome.passed] == ["mask_decoder"]
    with pytest.raises(GraphError, match="engines differ.*mask_decoder: cosine.*mask_decoder.failed.engine"):
        require_passed(outcomes, "engines", paths.ENGINE_SUFFIX)
    assert not (wrong_decoder / "mask_decoder.engine").exists()
    assert (wrong_decoder / "mask_decoder.failed.engine").exists()
    assert read_manifest(wrong_decoder / "mask_decoder.engine").has_failed
    model = AutoModel.from_pretrained("sam2/hiera_micro")
    assert model.backend_name != "tensorrt"
    assert "mask_decoder.engine was refused" in str(model.report)
    assert "kept aside as mask_decoder.failed.engine; remedy: build the other precision" in str(model.report)


def test_what_failed_is_built_again_only_when_asked(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "out", BuildOptions("tensorrt", skip_built=True)
    to_engine.build_engines(ASSETS, out, MICRO, 512, options)
    path = out / "mask_decoder.engine"
    paths.write_json(
        out / "mask_decoder.engine.json",
        read_manifest(path).to_json() | {"parity": {"engine": {"passed": False, "figures": {"cosine": 0.5}}}},
    )
    path.rename(out / "mask_decoder.failed.engine")
    again = to_engine.build_engines(ASSETS, out, MICRO, 512, options)["mask_decoder"]
    assert "was built before and differs from its model; got {'cosine': 0.5}" in str(again)
    to_engine.build_engines(ASSETS, out, MICRO, 512, BuildOptions("tensorrt"))
    assert path.exists()
    assert not (out / "mask_decoder.failed.engine").exists()


def test_a_build_on_a_gpu_compares_what_it_built(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared: list[Path] = []
    builder.setattr(to_engine, "find_gpu", lambda: Gpu("Orin", "8.7", 8 << 30, "12.6", True))
    builder.setattr(to_engine, "compare_with_model", lambda *given: compared.append(given[4]) or len(compared) > 1)
    command = ["sam2/hiera_micro", "--precision", "fp32", "--out", str(tmp_path / "out"), "--skip-built"]
    assert to_engine.main(command) == 1, "what differs from its model fails the build"
    assert to_engine.main(command) == 0
    assert compared == [tmp_path / "out"] * 2
    _state(tmp_path / "out", parity={"engine": {"passed": True}})
    assert to_engine.main(command) == 0
    assert len(compared) == 2, "once is enough"


def test_nothing_to_compare_with(
    tensorrt: FakeTensorRt, written_engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sam2/hiera_micro"]) == 1
    assert "nothing to compare the engines with" in capsys.readouterr().err
    (written_engines / "mask_decoder.engine.json").unlink()
    assert main(["sam2/hiera_micro"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
