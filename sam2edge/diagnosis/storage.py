"""What the store holds, and the room that is left on its disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sam2edge import store
from sam2edge.variants import VARIANTS


@dataclass(frozen=True)
class Stored:
    """Something of a model in the store or the package: "checkpoint", "graphs" or "engines", in bytes.

    `form` is image size and precision ("512-fp32") of graphs and engines, of a checkpoint its file name.
    """

    model: str
    kind: str
    form: str
    num_bytes: int


@dataclass(frozen=True)
class Storage:
    """The store's folder, what it holds, and its disk; `free_bytes` is None where the disk does not tell."""

    folder: str
    is_writable: bool
    free_bytes: int | None
    contents: tuple[Stored, ...]


def look_at_store() -> Storage:
    """Never raises; the folder need not exist."""
    folder = store.root()
    nearest = next((f for f in (folder, *folder.absolute().parents) if os.path.isdir(f)), Path("/"))
    try:
        free: int | None = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    contents: list[Stored] = []
    for variant in VARIANTS.values():
        checkpoint = store.find_checkpoint(variant)
        if checkpoint is not None:
            contents.append(Stored(variant.model_id, "checkpoint", checkpoint.name, _size(checkpoint)))
        packaged = store.find_graphs(variant, variant.image_size)
        if packaged is not None and folder not in packaged.parents:
            size = sum(_size(f) for f in packaged.glob("*.onnx"))
            contents.append(Stored(variant.model_id, "graphs", f"{variant.image_size}-fp32 (in the package)", size))
        for kind, suffix in (("graphs", ".onnx"), ("engines", store.ENGINE_SUFFIX)):
            for made in _folders(folder / kind / variant.name):
                size = sum(_size(f) for f in made.glob(f"[!.]*{suffix}"))
                if size:
                    contents.append(Stored(variant.model_id, kind, made.name, size))
    return Storage(str(folder), os.access(nearest, os.W_OK | os.X_OK), free, tuple(contents))


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(child for child in parent.iterdir() if child.is_dir())
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
