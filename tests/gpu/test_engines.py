"""Engines on a real GPU: `python -m pytest -m gpu`. Builds them, runs them, compares them with torch in float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu_cases import read_used_bytes
from sam2edge import AutoModel
from sam2edge.backends.tensorrt import cuda_graphs
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache
from sam2edge.cli.main import main
from sam2edge.machine.device import find_gpu
from sam2edge.store.manifest import read_manifest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU on this machine"),
]

BOX = np.array([75, 20, 480, 385])
FRAMES, WARM_UP = 1000, 50
GROWTH_BYTES = 8 << 20


@pytest.fixture(scope="module")
def engine_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with engines of micro in both precisions, built here."""
    pytest.importorskip("pycuda", reason="pycuda is not installed")
    pytest.importorskip("torch", reason="graphs are exported with torch")
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM2EDGE_HOME", str(folder))
        for precision in ("fp16", "fp32"):
            assert main(["build", "sam2/micro", "--precision", precision]) == 0
    return folder


@pytest.fixture(params=["fp16", "fp32"])
def engines(request: pytest.FixtureRequest, engine_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SAM2EDGE_HOME", str(engine_store))
    model = AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision=request.param)
    yield model
    model.close()


def test_masks_are_those_of_torch(engines: Any, photo_bgr: np.ndarray) -> None:
    reference = AutoModel.from_pretrained("sam2/micro", backend="torch", device="cpu")
    wanted, found = (model.embed_images(photo_bgr)[0].to_host() for model in (reference, engines))
    for name, tensor in wanted.features.tensors.items():
        assert _cosine(tensor, found.features.tensors[name]) >= 0.9995, name
    prompts: list[dict[str, Any]] = [{"boxes": BOX}]
    prompts.append({"point_coordinates": np.array([[300, 300]]), "point_labels": np.array([1])})
    for prompt in prompts:
        masks = [model.segment_images(photo_bgr, **prompt)[0].best_masks for model in (reference, engines)]
        assert np.count_nonzero(masks[0] & masks[1]) / np.count_nonzero(masks[0] | masks[1]) >= 0.995


def test_auto_takes_the_engines(engines: Any) -> None:
    assert AutoModel.from_pretrained("sam2/micro").report.chosen == "tensorrt fp16 on cuda"


def test_the_build_compared_them_with_torch(engines: Any, engine_store: Path) -> None:
    paths = [path for path in (engine_store / "engines").rglob("*.engine") if not path.name.startswith("frame_")]
    assert len(paths) == 8
    for path in paths:
        parity = read_manifest(path).parity["engine"]
        assert (parity.against, parity.passed) == ("torch float32", True)


def test_cuda_graphs_change_nothing(engines: Any, photo_bgr: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda_graphs.VARIABLE, "1")
    precision = engines.backend.precision
    replaying: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision=precision)
    embedding = replaying.embed_images(photo_bgr)[0]
    for shift in range(5):
        found = replaying.segment_images(embeddings=embedding, boxes=BOX + shift)[0]
        wanted = engines.segment_images(photo_bgr, boxes=BOX + shift)[0]
        np.testing.assert_array_equal(found.best_masks, wanted.best_masks)
    decoder = replaying.backend._engines["mask_decoder"]
    assert decoder._recorded._graphs, "nothing was recorded"
    replaying.close()


def test_frames_resized_on_the_gpu(engines: Any, photo_bgr: np.ndarray) -> None:
    height, width = photo_bgr.shape[:2]
    precision = engines.backend.precision
    built = ["build", "sam2/micro", "--precision", precision, "--skip-built", "--frame", f"{width}x{height}"]
    assert main(built) == 0
    other: Any = AutoModel.from_pretrained("sam2/micro", backend="tensorrt", precision=precision)
    assert list(other.backend.frame_sizes) == [(height, width)]  # else it was off, and said so
    wanted, found = (model.embed_images(photo_bgr)[0].to_host().features.tensors for model in (engines, other))
    for name, tensor in wanted.items():
        assert _cosine(tensor, found[name]) >= 0.9999, name
    other.close()


def test_device_memory_does_not_grow(engines: Any, photo_bgr: np.ndarray) -> None:
    engines.embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=None, max_bytes=32 << 20)
    frame = photo_bgr.copy()
    used = []
    for number in range(FRAMES + WARM_UP):
        frame[0, 0] = number % 256, number // 256, 0  # another key every time
        engines.segment_images(frame, boxes=BOX)
        assert engines.embeddings_cache.statistics.num_bytes <= 32 << 20
        if number in (WARM_UP, FRAMES + WARM_UP - 1):
            used.append(read_used_bytes("tensorrt"))
    assert used[1] - used[0] <= GROWTH_BYTES


def test_torch_in_the_same_process(engines: Any, photo_bgr: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    before = engines.segment_images(photo_bgr, boxes=BOX)[0].best_masks
    product = torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")
    after = engines.segment_images(photo_bgr // 2 * 2, boxes=BOX)[0].best_masks
    assert product.sum().item() == 64**3
    assert before.any()
    assert after.any()


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
