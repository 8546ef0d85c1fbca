"""The engine backend and its device memory on stand-ins for CUDA and TensorRT: what can be known without a GPU."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.contract import TensorSpec
from sam2edge.errors import BackendUnavailableError, GraphError, OutOfMemoryError
from tests.backends.conftest import ASSETS, MODULES, rewrite_engine
from tests.backends.fake_cuda import Error, FakeDriver, FakeLibCuda, FakeTensorRt

BOX = np.array([75, 20, 480, 385])


def test_masks_are_those_of_the_graphs(
    tensorrt: FakeTensorRt, micro_onnx: ImagePredictor, photo_bgr: np.ndarray
) -> None:
    model = AutoModel.from_pretrained("sam2/micro")
    assert str(model.report) == "tensorrt on cuda: in use"
    flipped = photo_bgr[:, ::-1].copy()
    embeddings = [model.embed_images(image)[0] for image in (photo_bgr, flipped)]
    prompts: dict[str, Any] = {"boxes": np.stack((BOX, BOX + 20)), "point_coordinates": np.full((2, 1, 2), 300.0)}
    prompts["point_labels"] = np.ones((2, 1), int)
    for embedding, image in zip(embeddings, (photo_bgr, flipped), strict=True):
        found = model.segment_images(embeddings=embedding, **prompts)[0]
        wanted = micro_onnx.segment_images(image, **prompts)[0]
        np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)
        refined = model.segment_images(embeddings=embedding, **prompts, mask_input=found.logits)[0]
        expected = micro_onnx.segment_images(image, **prompts, mask_input=wanted.logits)[0]
        np.testing.assert_allclose(refined.logits, expected.logits, atol=1e-3)


def test_embeddings_own_their_memory(tensorrt: FakeTensorRt, driver: FakeDriver, photo_bgr: np.ndarray) -> None:
    model: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    model.embeddings_cache = None
    model.segment_images(photo_bgr, boxes=BOX)
    device = model.backend._device
    rest = device.current_bytes
    held = model.embed_images(photo_bgr)[0]
    assert device.current_bytes == rest + held.nbytes
    before = held.to_host().features.tensors["image_embed"].copy()
    for _ in range(3):
        model.segment_images(255 - photo_bgr, boxes=BOX)
    np.testing.assert_array_equal(held.to_host().features.tensors["image_embed"], before)
    model.segment_images(embeddings=held.to_host(), boxes=BOX)
    assert device.current_bytes == rest + held.nbytes
    assert model.backend.peak_bytes >= device.current_bytes
    model.close()
    assert driver.used == held.nbytes
    np.testing.assert_array_equal(held.to_host().features.tensors["image_embed"], before)
    del held
    assert driver.used == 0


def test_out_of_memory_empties_the_cache_and_tries_once_more(
    tensorrt: FakeTensorRt, driver: FakeDriver, photo_bgr: np.ndarray
) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    model.embed_images([photo_bgr, 255 - photo_bgr])
    assert model.embeddings_cache is not None
    assert model.embeddings_cache.statistics.num_entries == 2
    driver.limit = driver.used + 100
    held = model.embed_images(photo_bgr // 2)[0]
    assert driver.calls.count("refused") == 1
    assert model.embeddings_cache.statistics.num_entries == 1
    backend: Any = model.backend
    backend._device.release()  # of its freed buffers none is kept for the next call
    driver.limit = driver.used
    with pytest.raises(OutOfMemoryError, match=r"no device memory for \d+ MiB; got \d+ MiB of shared memory available"):
        model.embed_images(photo_bgr // 3)
    assert held.to_host().nbytes > 0


def test_an_engine_that_does_not_load_or_run(
    tensorrt: FakeTensorRt, written_engines: Path, photo_bgr: np.ndarray
) -> None:
    tensorrt.fails_to_run = True
    by_name = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    with pytest.raises(GraphError, match=r"image_encoder could not be run; got Cuda Runtime \(an illegal memory acc"):
        by_name.embed_images(photo_bgr)
    model = AutoModel.from_pretrained("sam2/micro")
    assert model.backend_name != "tensorrt"
    assert "illegal memory access" in str(model.report)
    assert model.segment_images(photo_bgr, boxes=BOX)[0].masks.any()
    rewrite_engine(written_engines / "mask_decoder.engine", b"unreadable")
    with pytest.raises(GraphError, match="mask_decoder cannot be loaded; got Serialization assertion failed"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    rewrite_engine(written_engines / "mask_decoder.engine", str(ASSETS / "image_encoder.onnx").encode())
    with pytest.raises(GraphError, match="inputs of engine mask_decoder break the contract"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")


def test_another_version_is_refused_before_it_is_read(tensorrt: FakeTensorRt, written_engines: Path) -> None:
    tensorrt.__version__ = "10.7.0"  # type: ignore[misc]
    with pytest.raises(GraphError, match="expected an engine of tensorrt 10.7.0; got tensorrt 10.3.0"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    assert tensorrt.logger is None, "no runtime was made"


def test_libraries_that_are_missing(
    tensorrt: FakeTensorRt, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="tensorrt cannot be imported.*python3-libnvinfer"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendUnavailableError, match="backend tensorrt cannot be imported.*pycuda"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    assert AutoModel.from_pretrained("sam2/micro").backend_name != "tensorrt"


def test_cuda_without_a_device(tensorrt: FakeTensorRt, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise Error("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(driver, "init", init)
    with pytest.raises(BackendUnavailableError, match="CUDA cannot be used.*no CUDA-capable device"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    monkeypatch.setattr(sys.modules[MODULES[1]], "find_gpu", lambda index: None)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU"):
        AutoModel.from_pretrained("sam2/micro", backend="tensorrt")


def test_a_buffer_dropped_elsewhere_is_freed(device: Any, driver: FakeDriver) -> None:
    buffers = [device.allocate(1000) for _ in range(3)]
    assert {b.address % 256 for b in buffers} == {0}
    assert device.current_bytes == driver.used == 3 * 1024
    thread = threading.Thread(target=buffers.clear)
    thread.start()
    thread.join()
    assert (device.current_bytes, device.peak_bytes) == (0, 3 * 1024)
    assert driver.used == 3 * 1024, "kept for the next call"
    addresses = {device.allocate(1000).address, device.allocate(1020).address}
    assert driver.used == 3 * 1024 and len(addresses) == 1
    device.release()
    assert driver.used == 0
    with device.active():
        inner = device.allocate(10)
        del inner
        assert driver.used == 256, "nothing is freed in the middle of the work"
    device.synchronize()
    assert driver.used == 0


def test_freed_buffers_that_are_kept_give_way_when_memory_runs_out(device: Any, driver: FakeDriver) -> None:
    held = [device.allocate(1000) for _ in range(6)]
    held.clear()
    device.synchronize()
    assert driver.used == 4 * 1024, "not more than four of a size"
    driver.limit = 5000
    assert device.allocate(5000 - 256).nbytes > 4096


def test_copies(device: Any) -> None:
    specs = [TensorSpec("a", (3,)), TensorSpec("b", (2, 2), "int32")]
    tensors = device.tensors(specs)
    assert tensors["b"].address - tensors["a"].address == 256
    device.upload(np.array([1, 2, 3], np.float32), tensors["a"])
    device.upload(np.array([[4, 5], [6, 7]], np.int32), tensors["b"])
    a, b = device.download([tensors["a"], tensors["b"]])
    device.upload(np.float32(0), tensors["a"])
    assert a.tolist() == [1, 2, 3]
    assert b.tolist() == [[4, 5], [6, 7]]


def test_pinned_memory_is_not_written_while_it_is_read(device: Any, driver: FakeDriver) -> None:
    tensor = device.tensors([TensorSpec("a", (3,))])["a"]
    driver.calls.clear()
    device.upload(np.float32(1), tensor)
    assert driver.calls == ["upload"]
    device.upload(np.float32(2), tensor)
    assert driver.calls == ["upload", "synchronize", "upload"]


def test_the_engine_path_never_imports_torch() -> None:
    program = """
import sys, types
sys.modules["torch"] = sys.modules["onnxruntime"] = None
sys.modules["pycuda"] = package = types.ModuleType("pycuda")
sys.modules["pycuda.driver"] = package.driver = types.ModuleType("pycuda.driver")
import sam2edge.backends.tensorrt.backend
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_memories_are_those_of_the_graphs(
    tensorrt: FakeTensorRt, driver: FakeDriver, micro_onnx: ImagePredictor
) -> None:
    from sam2edge.backends.base import MemoryInputs

    random = np.random.default_rng(0)
    image = random.standard_normal((1, 3, 384, 384)).astype(np.float32)
    y, x = np.mgrid[:384, :384].astype(np.float32)
    disc = (90 - np.hypot(x - 200, y - 260)) / 20
    logits = disc[::4, ::4].copy()
    pointers, ages = random.standard_normal((4, 128)).astype(np.float32), np.linspace(0, 0.2, 4, dtype=np.float32)
    engines = AutoModel.from_pretrained("sam2/micro", backend="tensorrt").backend
    found = []
    for backend in (micro_onnx.backend, engines):
        features = backend.encode(image)
        memories = [backend.encode_memory(features, logits - i, 3.0 - i, binarise=i == 0) for i in range(3)]
        recalled = MemoryInputs(memories, np.arange(3, dtype=np.int32), pointers, ages)
        attended = backend.attend_memory(features, recalled)
        found.append({**attended.to_host().tensors, "memory": memories[1].to_host().tensors["memory"]})
        found[-1]["mask_prompt"] = backend.mask_prompt(features, disc)
    for name, wanted in found[0].items():
        np.testing.assert_allclose(found[1][name], wanted, atol=1e-5, err_msg=name)
    on_host = recalled._replace(memories=[memory.to_host() for memory in memories])
    again = engines.attend_memory(features.to_host(), on_host)
    np.testing.assert_allclose(again.to_host().tensors["image_embed"], found[0]["image_embed"], atol=1e-5)


def test_the_same_array_with_other_pixels_is_sent_again(tensorrt: FakeTensorRt) -> None:
    backend = AutoModel.from_pretrained("sam2/micro", backend="tensorrt").backend
    buffer = np.zeros((1, 3, 384, 384), np.float32)
    frame = buffer.view()
    frame.flags.writeable = False
    found = []
    for value in (0.0, 1.0):
        buffer[:] = value
        found.append(backend.encode(frame).to_host().tensors["image_embed"])
    assert not np.allclose(*found)


@pytest.fixture
def libcuda(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeLibCuda:
    """CUDA graphs wanted, and a driver that has them."""
    from sam2edge.backends.tensorrt import cuda_graphs

    found = FakeLibCuda(driver)
    monkeypatch.setenv(cuda_graphs.VARIABLE, "1")
    original = cuda_graphs.CudaGraphCache
    monkeypatch.setattr(cuda_graphs, "CudaGraphCache", lambda: original(lambda name: found))
    return found


def test_the_same_launch_again_is_replayed(
    libcuda: FakeLibCuda, tensorrt: FakeTensorRt, micro_onnx: ImagePredictor, photo_bgr: np.ndarray
) -> None:
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    embedding = model.embed_images(photo_bgr)[0]
    for shift in (0, 10, 20, 30):
        found = model.segment_images(embeddings=embedding, boxes=BOX + shift)[0]
        wanted = micro_onnx.segment_images(photo_bgr, boxes=BOX + shift)[0]
        np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)
    assert libcuda.calls == ["begin", "end", "instantiate", "destroy", *["launch"] * 3]
    other = model.embed_images(255 - photo_bgr)[0]
    libcuda.calls.clear()
    found = model.segment_images(embeddings=other, boxes=BOX)[0]
    np.testing.assert_allclose(found.logits, micro_onnx.segment_images(255 - photo_bgr, boxes=BOX)[0].logits, atol=1e-4)
    assert libcuda.calls == [], "other addresses, no replay"
    model.close()
    assert libcuda.graphs == {}


def test_a_stream_replays_every_launch(
    libcuda: FakeLibCuda, tensorrt: FakeTensorRt, micro_onnx: ImagePredictor, photo_bgr: np.ndarray
) -> None:
    """Embeddings and memories take turns in a fixed ring of buffers, and each turn is recorded once."""
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    model.embeddings_cache = None
    trackers = [VideoTracker(one) for one in (model, micro_onnx)]
    for tracker in trackers:
        tracker.prompt(photo_bgr, box=BOX)
    for number in range(40):
        before = len(libcuda.calls)
        found, wanted = (tracker.track(np.roll(photo_bgr, number % 5, axis=1)) for tracker in trackers)
    assert libcuda.calls[before:] == ["launch"] * 4
    assert np.count_nonzero(found.masks != wanted.masks) <= found.masks.size // 1000


@pytest.mark.parametrize("call", ["begin", "end", "instantiate"])
def test_without_cuda_graphs_it_goes_on(
    libcuda: FakeLibCuda, tensorrt: FakeTensorRt, photo_bgr: np.ndarray, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    libcuda.fails = call
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt")
    embedding = model.embed_images(photo_bgr)[0]
    masks = [model.segment_images(embeddings=embedding, boxes=BOX)[0].best_masks for _ in range(4)]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert caplog.text.count("CUDA graphs are not used") == 1
    assert "launch" not in libcuda.calls


def test_a_stream_goes_on_elsewhere_when_memory_runs_out(
    tensorrt: FakeTensorRt, driver: FakeDriver, micro_onnx: Any, photo_bgr: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    expected, tracker = VideoTracker(micro_onnx), VideoTracker.from_pretrained("sam2/micro", device=None)
    mask = np.zeros(photo_bgr.shape[:2], bool)
    mask[100:300, 150:350] = True
    for one in (expected, tracker):
        one.prompt(photo_bgr, 1, mask=mask)
        one.prompt(None, 2, box=BOX)
        one.track(np.roll(photo_bgr, 4, axis=1))
    assert tracker.model.backend_name == "tensorrt"
    driver.limit = driver.used
    for shift in (8, 12):
        found, wanted = (one.track(np.roll(photo_bgr, shift, axis=1)) for one in (tracker, expected))
        np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-2)
    assert tracker.model.backend_name != "tensorrt"
    assert caplog.text.count("tensorrt has no memory left") == 1
    assert [label for label, _ in tracker.stats().fallbacks] == ["tensorrt on cuda", "torch on cuda"]
