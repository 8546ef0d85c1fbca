"""What engines take from a process and give back, on stand-ins for CUDA and TensorRT."""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, VideoTracker
from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.store.paths import manifest_path
from tests.backends.conftest import rewrite_engine
from tests.backends.fake_cuda import FakeDriver, FakeTensorRt

BOX = np.array([75, 20, 480, 385])


def test_a_driver_that_is_too_old_is_a_reason_to_take_the_next(tensorrt: FakeTensorRt) -> None:
    """TensorRT's constructor then raises TypeError."""
    tensorrt.old_driver = True
    model = AutoModel.from_pretrained("sam2/micro")
    assert model.backend_name != "tensorrt"
    assert "tensorrt 10.3.0 does not start; expected an NVIDIA driver" in str(model.report)
    with pytest.raises(BackendUnavailableError, match="does not start.*got CUDA initialization failure.*update the dr"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")


def test_one_logger_for_a_library(tensorrt: FakeTensorRt) -> None:
    """Its plugin registry keeps a pointer to the first one."""
    for _ in range(2):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt").close()
    assert len(tensorrt.loggers) == 2
    assert tensorrt.loggers[0] is tensorrt.loggers[1]


@pytest.mark.parametrize(("device", "index"), [(None, 0), ("cuda", 0), ("cuda:1", 1)])
def test_the_device_that_was_asked_for(
    tensorrt: FakeTensorRt, driver: FakeDriver, device: str | None, index: int
) -> None:
    model: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt", device=device)
    assert [call for call in driver.calls if call.startswith("device")] == [f"device {index}"]
    assert model.backend.device == f"cuda:{index}"


def test_devices_that_are_not_there(tensorrt: FakeTensorRt) -> None:
    with pytest.raises(BackendUnavailableError, match="expected CUDA device 5"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt", device="cuda:5")
    with pytest.raises(InvalidInputError, match="device cannot be used.*got 'cuda:one'"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt", device="cuda:one")


def test_streams_do_not_wait_for_those_of_torch(tensorrt: FakeTensorRt, driver: FakeDriver) -> None:
    AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    assert [call for call in driver.calls if call.startswith("stream")] == ["stream 1"], "CU_STREAM_NON_BLOCKING"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_dropped_model_gives_all_back(
    tensorrt: FakeTensorRt, driver: FakeDriver, photo_bgr: np.ndarray, elsewhere: bool
) -> None:
    held = [AutoModel.from_pretrained("sam2/micro", backend="tensorrt")]
    held[0].segment_images(photo_bgr, boxes=BOX)
    assert driver.used > 0

    def drop() -> None:
        held.clear()
        gc.collect()

    if elsewhere:
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
    else:
        drop()
    assert (driver.used, driver.leaked) == (0, [])


def test_embeddings_outlive_a_dropped_model(tensorrt: FakeTensorRt, driver: FakeDriver, photo_bgr: np.ndarray) -> None:
    model: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    embedding = model.embed_images(photo_bgr)[0]
    del model
    gc.collect()
    assert np.isfinite(embedding.to_host().features.tensors["image_embed"]).all()
    del embedding
    gc.collect()
    assert (driver.used, driver.leaked) == (0, [])


def test_tensorrt_rtx_compiles_kernels_once(
    tensorrt: FakeTensorRt, written_engines: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again in every process: what was compiled lies in the store."""
    for path in written_engines.glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "engine": {**content["engine"], "builder": "tensorrt_rtx"}}))
    tensorrt.__name__ = "tensorrt_rtx"
    vars(tensorrt)["IRuntimeCache"] = object
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt)
    for _ in range(2):
        model = AutoModel.from_pretrained("sam2/micro", tracking=True)
        assert model.backend_name == "tensorrt", model.report
        model.close()
        assert tensorrt.compiled == 4
    (empty_store / "runtime_cache").rename(empty_store / "elsewhere")
    (empty_store / "runtime_cache").write_text("a file")
    assert AutoModel.from_pretrained("sam2/micro").backend_name == "tensorrt", "it costs time and no more"


def test_engines_of_torch2trt_take_whole_numbers_as_floats(
    tensorrt: FakeTensorRt, written_engines: Path, photo_bgr: np.ndarray, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    from tests.backends.conftest import ASSETS, rewrite_engine

    for engine in written_engines.glob("*.engine"):
        graph = onnx.load(ASSETS / f"{engine.stem}.onnx")
        for value in graph.graph.input:
            if value.type.tensor_type.elem_type == onnx.TensorProto.INT32:
                cast = onnx.helper.make_node("Cast", [value.name], [f"{value.name}.int"], to=onnx.TensorProto.INT32)
                for node in graph.graph.node:
                    node.input[:] = [cast.output[0] if name == value.name else name for name in node.input]
                graph.graph.node.insert(0, cast)
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        onnx.save(graph, tmp_path / f"{engine.stem}.onnx")
        rewrite_engine(engine, str(tmp_path / f"{engine.stem}.onnx").encode())
        path = manifest_path(engine)
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "engine": {**content["engine"], "compiler": "torch2trt"}}))
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    found = model.segment_images(photo_bgr, boxes=BOX)[0].best_masks
    wanted = AutoModel.from_pretrained("sam2/micro", backend="onnxruntime").segment_images(photo_bgr, boxes=BOX)
    np.testing.assert_array_equal(found, wanted[0].best_masks)


def _write_frame_engine(folder: Path, size_hw: tuple[int, int], made_for_hw: tuple[int, int]) -> None:
    """An engine that resizes frames of one size, beside those of the model."""
    pytest.importorskip("onnx")
    from sam2edge.contract import frame_spec
    from sam2edge.export.frame_graph import write_frame_graph
    from sam2edge.variants import find_variant

    graph = write_frame_graph(find_variant("sam2/micro"), 384, made_for_hw, "fp32", folder / "graphs")
    name = frame_spec(size_hw, 384).name
    engine = folder / f"{name}.engine"
    other = json.loads(manifest_path(folder / "image_encoder.engine").read_text())
    engine.write_bytes(b"")
    manifest_path(engine).write_text(json.dumps({**other, "graph": name}))
    rewrite_engine(engine, str(graph).encode())


@pytest.mark.parametrize(("objects", "on_device"), [(1, False), (3, False), (1, True)])
def test_what_a_tracked_frame_takes(
    tensorrt: FakeTensorRt,
    driver: FakeDriver,
    written_engines: Path,
    photo_bgr: np.ndarray,
    micro_onnx: Any,
    objects: int,
    on_device: bool,
) -> None:
    """In the steady state: nothing is allocated, the picture goes in, each object's masks come out, and one wait."""
    if on_device:
        _write_frame_engine(written_engines, photo_bgr.shape[:2], photo_bgr.shape[:2])
    model: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    assert list(model.backend.frame_sizes) == [photo_bgr.shape[:2]] * on_device
    model.embeddings_cache = None
    trackers = [VideoTracker(one) for one in (model, micro_onnx)]
    taken: list[Counter[str]] = []
    for number in range(12):
        frame = np.roll(photo_bgr, 2 * number, axis=1)
        before = len(driver.calls)
        if number == 0:
            found, wanted = (
                [tracker.prompt(frame, k, box=BOX + 9 * k) for k in range(objects)][-1] for tracker in trackers
            )
        else:
            found, wanted = (tracker.track(frame) for tracker in trackers)
        taken.append(Counter(driver.calls[before:]))
        different = np.count_nonzero(found.masks != wanted.masks)
        assert different <= found.masks.size // 1000, number
    for count in taken[9:]:
        assert count == {"upload": 1, "download": objects, "synchronize": 1}


def test_memories_of_a_saved_session_are_sent_once(
    tensorrt: FakeTensorRt, driver: FakeDriver, photo_bgr: np.ndarray, tmp_path: Path
) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    model.embeddings_cache = None
    tracker = VideoTracker(model)
    tracker.prompt(photo_bgr, box=BOX)
    for _ in range(3):
        wanted = tracker.track(photo_bgr)
    session = tracker.save(tmp_path / "session")
    tracker = VideoTracker(model)
    tracker.load(session)
    tracker.track(photo_bgr)
    before = len(driver.calls)
    found = tracker.track(photo_bgr)
    assert Counter(driver.calls[before:])["upload"] == 1
    assert np.count_nonzero(found.masks != wanted.masks) <= found.masks.size // 100


def test_an_engine_for_frames_that_is_wrong_is_not_used(
    tensorrt: FakeTensorRt, written_engines: Path, photo_bgr: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    _write_frame_engine(written_engines, (40, 60), (60, 40))  # its tensors are of another size
    _write_frame_engine(written_engines, (64, 64), (64, 64))
    onnx = pytest.importorskip("onnx")
    path = written_engines / "graphs" / "frame_64x64.onnx"
    graph = onnx.load(path)
    offset = next(tensor for tensor in graph.graph.initializer if tensor.name == "offset")
    offset.CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 1, 1), np.float32), "offset"))
    onnx.save(graph, path)
    model: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    assert not model.backend.frame_sizes
    assert "inputs of engine frame_60x40 break the contract" in caplog.text
    assert "engine frame_64x64 is off by" in caplog.text
    assert model.segment_images(photo_bgr, boxes=BOX)[0].masks.any()
