"""What many tests share: the photo, the embedded model on each backend, golden checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.boards import ORIN
from tests.fake_backend import bright_square, fake_model

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
BACKENDS = ("onnxruntime", "torch")


@pytest.fixture(autouse=True)
def empty_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a store of its own, so that none reads what lies on the machine."""
    folder = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("SAM2EDGE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_openvino_in_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """What "auto" picks does not depend on whether the developer has it."""
    monkeypatch.setattr("sam2edge.backends.registry.openvino_is_faster", lambda: False)


def read_picture(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def read_video(path: str | Path) -> list[np.ndarray]:
    """Every frame that can be read, each (H, W, 3) uint8 BGR."""
    capture = cv2.VideoCapture(str(path))
    found: list[np.ndarray] = []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def write_clip(folder: Path, count: int) -> Path:
    """0.png and on: a bright square that wanders to the right."""
    folder.mkdir()
    for number in range(count):
        assert cv2.imwrite(str(folder / f"{number}.png"), bright_square(8 + 4 * number % 40))
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is loaded is the stand-in of tests/fake_backend.py."""
    from sam2edge import AutoModel

    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: fake_model())


@pytest.fixture(scope="session")
def photo_bgr() -> np.ndarray:
    """examples/coffee.png, (400, 600, 3) uint8 BGR."""
    return read_picture(ROOT / "examples" / "coffee.png")


@pytest.fixture(scope="session", params=BACKENDS)
def micro(request: pytest.FixtureRequest) -> Any:
    """The embedded model on each backend that is installed, without caches."""
    pytest.importorskip(request.param)
    return load_micro(request.param)


@pytest.fixture(scope="session")
def micro_onnx() -> Any:
    """The embedded model on onnxruntime, without caches."""
    return load_micro("onnxruntime")


def load_micro(backend: str) -> Any:
    from sam2edge import AutoModel

    model = AutoModel.from_pretrained("sam2/micro", backend=backend)
    model.embeddings_cache = None
    return model


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the golden checkpoint of a variant in the official format, once a test run."""
    pytest.importorskip("torch")
    from sam2edge.variants import find_variant
    from tests.golden.golden_weights import write_golden_checkpoint

    folder = tmp_path_factory.mktemp("golden")

    def make(model_id: str) -> Path:
        variant = find_variant(model_id)
        assert variant.checkpoint is not None
        path = folder / variant.checkpoint.file_name
        if not path.exists():
            write_golden_checkpoint(model_id, path)
        return path

    return make


@pytest.fixture(scope="session")
def golden_store(
    golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A store that holds the graphs of a variant's golden checkpoint at 1024, exported once a test run."""
    pytest.importorskip("onnx")
    from sam2edge.export.to_onnx import export_graphs
    from sam2edge.variants import find_variant

    stores: dict[str, Path] = {}

    def make(model_id: str) -> Path:
        variant = find_variant(model_id)
        if model_id not in stores:
            store = tmp_path_factory.mktemp("graphs")
            export_graphs(variant, golden_checkpoint(model_id), 1024, store / "graphs" / variant.name / "1024-fp32")
            stores[model_id] = store
        return stores[model_id]

    return make


def official_parameters(model_id: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a variant's checkpoint, from the model, which its fingerprint confirms."""
    pytest.importorskip("torch")
    from sam2edge.torch_sam2.checkpoint import parameter_shapes
    from sam2edge.variants import find_variant, recognise_shapes, siblings

    variant = find_variant(model_id)
    shapes = parameter_shapes(variant)
    assert recognise_shapes(shapes) == siblings(variant)[0]
    return shapes


@pytest.fixture
def written_engines(empty_store: Path) -> Path:
    """Engines of micro in the store that are right in all that can be told without a GPU, and run nowhere."""
    import platform

    from sam2edge import contract
    from sam2edge.store import paths
    from sam2edge.store.manifest import EngineBuild, describe_file, stated_sha256, write_manifest
    from sam2edge.variants import find_variant

    variant = find_variant("sam2/micro")
    folder = paths.engine_dir(variant, 384, "fp16")
    folder.mkdir(parents=True)
    for name in contract.graph_specs(variant, 384):
        engine = folder / f"{name}.engine"
        engine.write_bytes(f"engine of {name}".encode() * 50)
        build = EngineBuild(
            builder="tensorrt",
            builder_version="10.3.0",
            architecture=platform.machine(),
            graph_sha256="0" * 64,
            seconds=1.5,
            gpu=ORIN,
            device_memory_bytes=1 << 20,
        )
        manifest = describe_file(
            engine,
            model=variant.name,
            graph=name,
            image_size=384,
            precision="fp16",
            prompt_slots=contract.NUM_PROMPT_SLOTS,
            contract_version=contract.CONTRACT_VERSION,
            checkpoint_sha256=stated_sha256(paths.find_checkpoint(variant)),
            engine=build,
        )
        write_manifest(engine, manifest)
    return folder


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """`tensorrt` is the stand-in, here and in subprocesses; FAKE_TENSORRT in the environment says what it does."""
    import shutil

    folder = tmp_path / "libraries"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "export" / "fake_tensorrt.py", folder / "tensorrt.py")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FAKE_TENSORRT", "ok")
    monkeypatch.setattr("sam2edge.engine_build.build.find_gpu", lambda: None)
    return monkeypatch
