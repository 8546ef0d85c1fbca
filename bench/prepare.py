"""What a benchmark needs before it starts, each made in a process of its own.

python -m bench.prepare photo SOURCE TARGET WIDTH HEIGHT   a photo of another size
python -m bench.prepare clip SOURCE FOLDER WIDTH HEIGHT FRAMES   00000.jpg and on: the photo, drifting
python -m bench.prepare golden MODEL TARGET                a checkpoint of deterministic weights
python -m bench.prepare graphs MODEL CHECKPOINT SIZE       float32 graphs in the store, not compared with torch
"""

from __future__ import annotations

import sys
from pathlib import Path


def resize_photo(source: Path, target: Path, size_wh: tuple[int, int]) -> None:
    import cv2

    photo = cv2.imread(str(source))
    assert photo is not None, source
    assert cv2.imwrite(str(target), cv2.resize(photo, size_wh, interpolation=cv2.INTER_CUBIC))


def write_clip(source: Path, folder: Path, size_wh: tuple[int, int], frames: int) -> None:
    import cv2
    import numpy as np

    photo = cv2.imread(str(source))
    assert photo is not None, source
    photo = cv2.resize(photo, size_wh, interpolation=cv2.INTER_CUBIC)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        assert cv2.imwrite(str(folder / f"{number:05d}.jpg"), np.roll(photo, (number, 2 * number), axis=(0, 1)))


def export_unchecked(model_id: str, checkpoint: Path, image_size: int) -> None:
    """Graphs for a measurement of memory: comparing those of a large model takes longer than all else."""
    from sam2edge.export.to_onnx import export_graphs
    from sam2edge.store.paths import graph_dir
    from sam2edge.variants import find_variant

    variant = find_variant(model_id)
    export_graphs(variant, checkpoint, image_size, graph_dir(variant, image_size))


def main(arguments: list[str]) -> None:
    if arguments[0] == "photo":
        source, target, width, height = arguments[1:]
        resize_photo(Path(source), Path(target), (int(width), int(height)))
    elif arguments[0] == "graphs":
        model_id, checkpoint, size = arguments[1:]
        export_unchecked(model_id, Path(checkpoint), int(size))
    elif arguments[0] == "clip":
        source, target, width, height, frames = arguments[1:]
        write_clip(Path(source), Path(target), (int(width), int(height)), int(frames))
    else:
        from tests.golden.golden_weights import write_golden_checkpoint

        model_id, target = arguments[1:]
        write_golden_checkpoint(model_id, Path(target))


if __name__ == "__main__":
    main(sys.argv[1:])
