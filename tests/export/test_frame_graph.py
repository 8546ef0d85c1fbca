"""The graph for a camera's frames: the CPU's own result, and a plan of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("onnx")

from sam2edge.contract import frame_spec
from sam2edge.errors import InvalidInputError
from sam2edge.export.frame_graph import main, make_frame_graph, write_frame_graph
from sam2edge.imaging.frame import image_to_input
from sam2edge.store.manifest import read_manifest
from sam2edge.variants import find_variant
from tests.export.compile_rtx import compile_plan

TINY = find_variant("sam2/hiera_tiny")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("fp16", 6e-3)])
@pytest.mark.parametrize("frame_hw", [(1080, 1920), (256, 256), (120, 90)])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_it_computes_what_the_cpu_does(precision: str, tolerance: float, frame_hw: tuple[int, int], order: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*frame_hw, 3), np.uint8)
    graph = make_frame_graph(256, frame_hw, precision).SerializeToString()
    channels = np.array([2, 1, 0] if order == "bgr" else [0, 1, 2], np.int32)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(["image"], {"frame": frame, "channels": channels})
    np.testing.assert_allclose(found, image_to_input(frame, order, 256), atol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_compiles(tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = write_frame_graph(TINY, 1024, (1080, 1920), precision, tmp_path)
    assert compile_plan(path)
    stated = read_manifest(path)
    assert (stated.graph, stated.model, stated.precision) == ("frame_1920x1080", TINY.name, precision)


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sam2/micro", "--frame", "64x48", "--size", "64", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "frame_64x48.onnx")
    assert main(["sam2/micro", "--frame", "64", "--out", str(tmp_path)]) == 1
    assert "expected WxH in pixels" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "x", "1920", "1920x", "0x5", "-1x5", "1920X1080", "99999x5", "1x2x3"])
def test_sizes_that_are_none(text: str) -> None:
    from sam2edge.contract import read_frame_size

    with pytest.raises(InvalidInputError, match="frame size"):
        read_frame_size(text)


def test_the_name_tells_the_size() -> None:
    assert frame_spec((1080, 1920), 512).name == "frame_1920x1080"
