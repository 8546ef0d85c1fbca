"""Lists what the store holds, and the free space on its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sam2edge.store import paths
from sam2edge.store.inventory import ENGINE, GRAPH, UNFINISHED, WEIGHTS, list_stored_files
from sam2edge.variants import EMBEDDED, VARIANTS


@dataclass(frozen=True)
class Stored:
    """Something of a model: "weights", "graph", "engine" or "unfinished", as `sam2edge.store.inventory` names them.

    `form` is image size and precision ("512-fp32") of graphs and engines, otherwise a file's name.
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
    """The store as it is; never raises, and the folder need not exist."""
    folder = paths.root()
    nearest = folder if os.path.isdir(folder) else paths.existing_parent(folder)
    try:
        free: int | None = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    try:
        stored = list(_list_stored())
    except OSError:  # a file was removed meanwhile
        stored = []
    return Storage(str(folder), os.access(nearest, os.W_OK | os.X_OK), free, (*_list_packaged(), *stored))


def _list_packaged() -> Iterator[Stored]:
    """The embedded model's files."""
    micro = VARIANTS[EMBEDDED]
    weights = paths.find_checkpoint(micro)
    if weights is not None:
        graphs = weights.parent.glob("*.onnx")
        yield Stored(micro.model_id, GRAPH, f"{micro.image_size}-fp32, in the package", sum(map(_read_size, graphs)))
        yield Stored(micro.model_id, WEIGHTS, f"{weights.name}, in the package", _read_size(weights))


def _list_stored() -> Iterator[Stored]:
    sizes: dict[tuple[str, str, str], int] = {}
    for file in list_stored_files():
        if file.kind in (WEIGHTS, GRAPH, ENGINE, UNFINISHED):
            model = file.variant.model_id if file.variant else "unknown"
            form = file.path.parent.name if file.kind in (GRAPH, ENGINE) else file.path.name
            sizes[model, file.kind, form] = sizes.get((model, file.kind, form), 0) + file.size_bytes
    return (Stored(*key, num_bytes) for key, num_bytes in sorted(sizes.items()))


def _read_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
