"""What a benchmark needs before it starts; each is called in a process of its own, `harness.run_alone`."""

from __future__ import annotations

import tempfile
from pathlib import Path


def resize_photo(source: str, target: str, size_wh: list[int]) -> None:
    import cv2

    photo = cv2.imread(source)
    assert photo is not None, source
    assert cv2.imwrite(target, cv2.resize(photo, size_wh, interpolation=cv2.INTER_CUBIC))


def write_checkpoint(model: str, target: str) -> None:
    """Deterministic weights in the official format: time and memory do not depend on them."""
    from tests.golden.golden_weights import write_golden_checkpoint

    write_golden_checkpoint(model, Path(target))


def store_checkpoint(model: str, file_name: str) -> None:
    """The same in the store, which knows its checksum from then on: it is not that of the official file."""
    from sam2edge.store.importer import add_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(model, str(Path(folder) / file_name))
        add_checkpoint(Path(folder) / file_name)


def export_graphs(model: str, checkpoint: str, size: int, precision: str = "fp32") -> None:
    """Graphs in the store, not compared with torch: of a large model that takes longer than all else."""
    from sam2edge.export.to_onnx import export_graphs
    from sam2edge.store.paths import graph_dir
    from sam2edge.variants import find_variant

    variant = find_variant(model)
    folder = graph_dir(variant, size, precision)
    export_graphs(variant, Path(checkpoint), size, folder, precision=precision)
