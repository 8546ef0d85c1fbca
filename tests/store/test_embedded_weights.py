"""The embedded model's weights and graphs belong together: graphs and engines of other weights are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sam2edge import AutoModel
from sam2edge.contract import IMAGE_GRAPHS, MEMORY_GRAPHS
from sam2edge.errors import GraphError
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.manifest import read_manifest
from sam2edge.variants import EMBEDDED, VARIANTS

ROOT = Path(__file__).parent.parent.parent
MICRO = VARIANTS[EMBEDDED]
WEIGHTS = paths.ASSETS / f"{EMBEDDED}.safetensors"


def test_all_that_ships_belongs_together() -> None:
    assert read_manifest(WEIGHTS).sha256 == file_sha256(WEIGHTS)
    for name in IMAGE_GRAPHS + MEMORY_GRAPHS:
        path = paths.ASSETS / f"{name}.onnx"
        manifest = read_manifest(path)
        assert (manifest.sha256, manifest.size_bytes) == (file_sha256(path), path.stat().st_size)
        assert manifest.checkpoint_sha256 == file_sha256(WEIGHTS)
        assert (manifest.graph, manifest.model, manifest.image_size) == (name, EMBEDDED, MICRO.image_size)


def test_the_weights_state_the_version_of_the_model_card() -> None:
    card = re.search(r"^Version (\d+)\b", (ROOT / "docs" / "micro.md").read_text(), re.MULTILINE)
    assert card is not None
    content = WEIGHTS.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["version"] == card[1]


def test_graphs_of_other_weights_are_refused(empty_store: Path) -> None:
    """As an upgrade of the package leaves them in the store."""
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(paths.ASSETS, paths.graph_dir(MICRO, 384))
    model = onnx.load(folder / "image_encoder.onnx")
    for entry in model.metadata_props:
        if entry.key == "sam2edge_checkpoint_sha256":
            entry.value = "2" * 64
    onnx.save(model, folder / "image_encoder.onnx")
    (folder / "image_encoder.onnx.json").unlink()  # the graph is whole, as its own manifest would say
    with pytest.raises(GraphError, match="graphs were made of another checkpoint"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")
