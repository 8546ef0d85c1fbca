"""Graphs of the embedded model, exported once a test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2edge.store import paths
from sam2edge.variants import find_variant
from tests.backends.conftest import driver, tensorrt  # noqa: F401


@pytest.fixture(scope="session")
def half_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of micro's float16 graphs at 384, in a store that holds nothing else."""
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from sam2edge.export.to_onnx import export_graphs

    variant = find_variant("sam2/micro")
    checkpoint = paths.find_checkpoint(variant)
    assert checkpoint is not None
    folder = tmp_path_factory.mktemp("store") / "graphs" / variant.name / "384-fp16"
    export_graphs(variant, checkpoint, 384, folder, precision="fp16")
    return folder
