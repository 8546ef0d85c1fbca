"""What was made for one model is refused by another, also where every shape fits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam2edge import AutoModel, VideoTracker
from sam2edge.contract import MEMORY_ATTENTION, MEMORY_GRAPHS
from sam2edge.datatypes import BackendReport
from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.predictor import ImagePredictor
from sam2edge.store.engine_checks import check_files
from sam2edge.store.manifest import read_engine_manifest, write_manifest
from sam2edge.store.paths import ASSETS
from sam2edge.variants import find_variant

MICRO = find_variant("sam2/micro")


def _predictor(model_id: str, image_size: int) -> ImagePredictor:
    torch = pytest.importorskip("torch")
    from sam2edge.backends.torch import TorchBackend
    from sam2edge.torch_sam2.model import Sam2

    torch.manual_seed(0)
    model = Sam2(find_variant(model_id), image_size).eval()
    return ImagePredictor(TorchBackend(model, torch.device("cpu")), BackendReport("torch"))


@pytest.mark.parametrize(
    ("saved_by", "loaded_by", "image_size"),
    [("efficienttam_ti_1", "efficienttam_ti_2", 64), ("edgetam", "tiny", 256)],
)
def test_a_session_of_another_model(saved_by: str, loaded_by: str, image_size: int, tmp_path: Path) -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    tracker = VideoTracker(_predictor(saved_by, image_size))
    tracker.prompt(frame, object_id=1, points=[(20, 20)], labels=[1])
    session = tracker.save(tmp_path / "session")
    other = VideoTracker(_predictor(loaded_by, image_size))
    with pytest.raises(
        InvalidInputError, match=rf"saved by another model; .*{loaded_by}.*; got .*{saved_by} at.*remedy"
    ):
        other.load(session)
    assert other.object_ids == ()


def test_a_graph_of_another_kind_of_memory(empty_store: Path, photo_bgr: np.ndarray) -> None:
    onnx = pytest.importorskip("onnx")
    folder = empty_store / "graphs" / MICRO.name / f"{MICRO.image_size}-fp32"
    folder.mkdir(parents=True)
    for path in ASSETS.glob("*.onnx"):
        shutil.copy(path, folder)
    graph = onnx.load(folder / f"{MEMORY_ATTENTION}.onnx")
    next(entry for entry in graph.metadata_props if entry.key == "sam2edge_model").value = "edgetam"
    onnx.save(graph, folder / f"{MEMORY_ATTENTION}.onnx")
    tracker = VideoTracker(AutoModel.from_pretrained("sam2/micro", backend="onnxruntime"))
    tracker.prompt(photo_bgr, object_id=1, box=(75, 20, 480, 385))  # a prompted frame attends to nothing
    with pytest.raises(
        GraphError, match=rf"{MEMORY_ATTENTION} was made for something else.*{MICRO.name}; got .*edgetam"
    ):
        tracker.track(photo_bgr)


def test_an_engine_of_another_kind_of_memory(written_engines: Path) -> None:
    engine = written_engines / f"{MEMORY_ATTENTION}.engine"
    write_manifest(engine, replace(read_engine_manifest(engine), model="edgetam"))
    with pytest.raises(
        GraphError, match=rf"{engine.name} was refused; expected .*{MICRO.name}.*; got .*edgetam.*build"
    ):
        check_files(written_engines, MEMORY_GRAPHS, MICRO, MICRO.image_size)
