"""The gate behind a build, on stand-ins for CUDA and TensorRT's runtime that compute with ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, contract
from sam2edge.contract import NUM_PROMPT_SLOTS
from sam2edge.engine_build import build
from sam2edge.engine_build.build import build_engines
from sam2edge.engine_build.options import BuildOptions
from sam2edge.engine_build.processes import ScriptError
from sam2edge.engine_build.progress import LineProgress
from sam2edge.errors import GraphError
from sam2edge.export.compare import example_cases, open_session, run_reference, session_runner
from sam2edge.export.engine_parity import check_engines, main
from sam2edge.export.metrics import require_passed
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.manifest import Parity, read_engine_manifest, write_manifest
from sam2edge.variants import find_variant
from tests.backends.conftest import ASSETS, rewrite_engine
from tests.backends.fake_cuda import FakeTensorRt
from tests.boards import ORIN

MICRO = find_variant("sam2/micro")
GRAPHS = tuple(contract.graph_specs(MICRO, 384))


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


def _references(photo: np.ndarray) -> Any:
    """What the embedded graphs give in ONNX Runtime."""
    runner = session_runner({name: open_session(ASSETS / f"{name}.onnx") for name in GRAPHS})
    specs = contract.graph_specs(MICRO, 384)
    return run_reference(specs, example_cases(512, NUM_PROMPT_SLOTS, [photo]), runner)


def _state(folder: Path, **entries: Any) -> None:
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_good_engines_get_their_metrics(
    tensorrt: FakeTensorRt, written_engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    _state(written_engines, checkpoint_sha256=file_sha256(ASSETS / "sam2.1_micro.safetensors"))
    photos = [f"--photo={ASSETS.parents[1] / 'examples' / name}" for name in ("coffee.png", "coins.png")]
    assert main(["sam2/micro", *photos]) == 0, capsys.readouterr().err
    for name in GRAPHS:
        parity = read_engine_manifest(written_engines / f"{name}.engine").parity["engine"]
        assert (parity.against, parity.cases, parity.passed) == ("torch float32", 6, True)
        assert parity.runtime == "tensorrt 10.3.0 on Orin"
        assert parity.metrics["cosine"] >= 0.9995
        assert parity.metrics["mask_iou"] >= 0.995
    assert AutoModel.from_pretrained("sam2/micro").backend_name == "tensorrt"


def test_a_wrong_engine_is_moved_aside_and_never_loaded(wrong_decoder: Path, photo_bgr: np.ndarray) -> None:
    outcomes = check_engines(wrong_decoder, MICRO, 384, _references(photo_bgr), "the graphs")
    assert [name for name, outcome in outcomes.items() if not outcome.passed] == ["mask_decoder"]
    with pytest.raises(GraphError, match="engines differ.*mask_decoder: cosine.*mask_decoder.failed.engine"):
        require_passed(outcomes, "engines", paths.ENGINE_SUFFIX)
    assert not (wrong_decoder / "mask_decoder.engine").exists()
    assert (wrong_decoder / "mask_decoder.failed.engine").exists()
    assert read_engine_manifest(wrong_decoder / "mask_decoder.engine").has_failed
    model = AutoModel.from_pretrained("sam2/micro")
    assert model.backend_name != "tensorrt"
    assert "mask_decoder.engine was refused" in str(model.report)
    assert "kept aside as mask_decoder.failed.engine; remedy: build the other precision" in str(model.report)


def _options(out: Path, skip_built: bool = True) -> BuildOptions:
    return BuildOptions(MICRO.name, 384, "fp32", skip_built=skip_built, graphs=ASSETS, out=out)


def test_what_failed_is_built_again_only_when_asked(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_engines(_options(out), LineProgress())
    path = out / "mask_decoder.engine"
    parity = {"engine": Parity("torch", "tensorrt", 1, False, {"cosine": 0.5})}
    write_manifest(path, dataclasses.replace(read_engine_manifest(path), parity=parity))
    path.rename(out / "mask_decoder.failed.engine")
    with pytest.raises(GraphError, match="was built before and differs from its model; got {'cosine': 0.5}"):
        build_engines(_options(out), LineProgress())
    build_engines(_options(out, skip_built=False), LineProgress())
    assert path.exists()
    assert not (out / "mask_decoder.failed.engine").exists()


def test_a_build_on_a_gpu_compares_what_it_built(builder: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripts: list[list[str]] = []

    def compare(script: list[str], show: Any) -> None:
        scripts.append(script)
        if len(scripts) == 1:
            raise ScriptError("engines differ from the model they were made of")
        for engine in (tmp_path / "out").glob("*.engine"):
            parity = {"engine": Parity("torch", "tensorrt", 1, True)}
            write_manifest(engine, dataclasses.replace(read_engine_manifest(engine), parity=parity))

    builder.setattr(build, "find_gpu", lambda: ORIN)
    builder.setattr(build, "run_script", compare)
    builder.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(GraphError, match="engines differ"):
        build_engines(_options(tmp_path / "out"), LineProgress())
    for _ in range(2):
        built = build_engines(_options(tmp_path / "out"), LineProgress())
        assert all(manifest.was_compared for manifest in built.values())
    assert len(scripts) == 2, "once is enough"
    assert scripts[0][:2] == ["engine_parity", MICRO.name]


def test_a_comparison_that_is_killed_is_no_failure(
    builder: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 8 GB the system may end the comparing process; the engines are good as far as anybody knows."""

    def killed(script: list[str], show: Any) -> None:
        error = ScriptError("engine_parity failed")
        error.killed_by = "SIGKILL"
        raise error

    builder.setattr(build, "find_gpu", lambda: ORIN)
    builder.setattr(build, "run_script", killed)
    builder.setattr("importlib.util.find_spec", lambda name: object())
    built = build_engines(_options(tmp_path / "out"), LineProgress())
    assert "were not compared with their model: the comparing process was ended by SIGKILL" in capsys.readouterr().err
    for name, manifest in built.items():
        assert manifest == read_engine_manifest(tmp_path / "out" / f"{name}.engine")
        assert (manifest.was_compared, manifest.has_failed) == (False, False)
        assert "SIGKILL" in str(manifest.parity["engine"].reason)


def test_nothing_to_compare_with(
    tensorrt: FakeTensorRt, written_engines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "find_checkpoint", lambda variant: None)
    assert main(["sam2/micro"]) == 1
    assert "nothing to compare the engines with" in capsys.readouterr().err
    (written_engines / "mask_decoder.engine.json").unlink()
    assert main(["sam2/micro"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
