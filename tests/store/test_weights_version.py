"""The embedded model's weights and graphs are of one version: a mix is refused on every backend that reads them."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from sam2edge.backends.base import BackendRequest
from sam2edge.backends.registry import load_backend
from sam2edge.contract import IMAGE_GRAPHS, MEMORY_GRAPHS
from sam2edge.errors import GraphError
from sam2edge.store.weights_version import GRAPH_KEY, WEIGHTS_KEY, check_weights_version, weights_version
from sam2edge.variants import EMBEDDED, VARIANTS, find_variant

ROOT = Path(__file__).parent.parent.parent
ASSETS = ROOT / "sam2edge" / "assets"
MICRO = VARIANTS[EMBEDDED]
GRAPHS = IMAGE_GRAPHS + MEMORY_GRAPHS
WEIGHTS = f"{EMBEDDED}.safetensors"


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    for name in (WEIGHTS, *(f"{graph}.onnx" for graph in GRAPHS)):
        shutil.copy(ASSETS / name, tmp_path / name)
    return tmp_path


def _state(path: Path, version: str) -> None:
    """Rewrites the version that a file states, one digit for another."""
    key = (GRAPH_KEY if path.suffix == ".onnx" else WEIGHTS_KEY).encode()
    content, was = path.read_bytes(), str(weights_version(path)).encode()
    between = rb"\x12\x01" if path.suffix == ".onnx" else rb'":"'
    changed, count = re.subn(key + between + was, lambda m: m[0][: -len(was)] + version.encode(), content)
    assert count == 1
    path.write_bytes(changed)


def test_all_that_ships_states_the_version_of_the_model_card() -> None:
    card = re.search(r"^Version (\d+)\b", (ROOT / "docs" / "micro.md").read_text(), re.MULTILINE)
    assert card is not None
    for name in (WEIGHTS, *(f"{graph}.onnx" for graph in GRAPHS)):
        assert weights_version(ASSETS / name) == card[1], name
    check_weights_version(MICRO, ASSETS / WEIGHTS, ASSETS)


@pytest.mark.parametrize("name", [WEIGHTS, "image_encoder.onnx", "mask_decoder.onnx", "memory_encoder.onnx"])
def test_a_file_of_another_version_is_refused(assets: Path, name: str) -> None:
    _state(assets / name, "9")
    with pytest.raises(GraphError, match="different versions; expected version .*; got version .*; remedy: ") as caught:
        check_weights_version(MICRO, assets / WEIGHTS, assets)
    assert "version 9" in str(caught.value)


def test_one_graph_of_another_version_is_refused_without_weights_too(assets: Path) -> None:
    _state(assets / "memory_attention.onnx", "9")
    with pytest.raises(GraphError, match=r"memory_attention\.onnx"):
        check_weights_version(MICRO, None, assets)


def test_missing_and_damaged_files_are_left_to_their_loaders(assets: Path) -> None:
    (assets / "memory_encoder.onnx").unlink()
    whole = (assets / "mask_decoder.onnx").read_bytes()
    for content in (b"", b"\xff" * 40, whole[:9000], whole[:-3]):
        (assets / "mask_decoder.onnx").write_bytes(content)
        check_weights_version(MICRO, assets / WEIGHTS, assets)
    (assets / WEIGHTS).write_bytes(b"\xff" * 40)
    check_weights_version(MICRO, assets / WEIGHTS, assets)
    assert weights_version(assets / WEIGHTS) is None


def test_other_models_state_no_version(assets: Path) -> None:
    _state(assets / "mask_decoder.onnx", "9")
    check_weights_version(find_variant("sam2/hiera_tiny"), assets / WEIGHTS, assets)


@pytest.mark.parametrize(
    "backend",
    ["onnxruntime", pytest.param("torch", marks=pytest.mark.skipif(not find_spec("torch"), reason="no torch"))],
)
def test_backends_refuse_a_mix(assets: Path, backend: str) -> None:
    _state(assets / WEIGHTS, "9")
    request = BackendRequest(MICRO, MICRO.image_size, "cpu", assets / WEIGHTS, assets)
    with pytest.raises(GraphError, match="different versions"):
        load_backend(backend).open(request)


def test_own_weights_run_in_torch_beside_the_graphs_that_ship(assets: Path) -> None:
    """A checkpoint that the caller names is known by its sum, not by its version."""
    pytest.importorskip("torch")
    _state(assets / WEIGHTS, "9")
    request = BackendRequest(MICRO, MICRO.image_size, "cpu", assets / WEIGHTS, ASSETS, "0" * 64)
    assert load_backend("torch").open(request).name == "torch"
