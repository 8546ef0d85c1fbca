"""Where weights, graphs and engines are on this machine.

The store is `$SAM2EDGE_HOME`, or the user's data folder. Layout: `checkpoints/<official file name>`, or the same name
with `.safetensors`, `graphs/<variant>/<image size>-<precision>/<graph>.onnx`, precision being fp32, fp16 or int8,
likewise `engines/.../<graph>.engine`. Each file has a manifest, `<file>.json`; official checkpoints need none,
their checksums are in `variants.py`. The embedded model is in the package itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from sam2edge.contract import IMAGE_GRAPHS
from sam2edge.errors import StoreError
from sam2edge.variants import EMBEDDED, Variant

ENGINE_SUFFIX = ".engine"
PRECISIONS = ("fp16", "fp32")
"""Of engines; and of graphs:"""
GRAPH_PRECISIONS = (*PRECISIONS, "int8")

ASSETS = Path(__file__).parent.parent / "assets"  # the embedded model


def root() -> Path:
    """The store's folder, which may not exist yet."""
    chosen = os.environ.get("SAM2EDGE_HOME")
    try:
        return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("sam2edge"))
    except RuntimeError as error:  # of "~nobody"
        raise StoreError(
            "SAM2EDGE_HOME cannot be used", expected="a folder", got=repr(chosen), remedy="name one that is there"
        ) from error


def checkpoint_dir() -> Path:
    """Where weight files belong; the folder may not exist."""
    return root() / "checkpoints"


def lock_path(name: str) -> Path:
    """The file of the lock `name` of this store, see `files.locked`."""
    return root() / ".locks" / name


def existing_parent(path: Path) -> Path:
    """The nearest existing folder above `path`, on whose disk it would be."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def require_room(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises StoreError unless the disk of an existing folder has so many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StoreError(
            f"no room {purpose}",
            expected=f"{needed_bytes} bytes free in {folder}",
            got=free,
            remedy="make room (`sam2edge models list`, `sam2edge models remove MODEL`) or set SAM2EDGE_HOME",
        )


def graph_dir(variant: Variant, image_size: int, precision: str = "fp32") -> Path:
    """Where exported graphs of a model belong; the folder may not exist."""
    return root() / "graphs" / variant.name / f"{image_size}-{precision}"


FP32_FOR_ENGINES = "fp32-engines"
"""Stands for the precision in the folder's name of float32 graphs that were not made for a CPU."""


def has_graphs(folder: Path) -> bool:
    """Whether the folder holds the graphs that images need."""
    return all(is_readable(folder / f"{name}.onnx") for name in IMAGE_GRAPHS)


def find_graphs(variant: Variant, image_size: int, precision: str = "auto") -> Path | None:
    """The folder that holds the model's graphs at this size: the store first, then the package.

    "auto" takes float32 before float16, which a CPU computes no faster, and that before int8. Graphs of the memory may
    be missing there: images do not need them.
    """
    folders = []
    if precision in ("auto", "fp32"):
        folders.append(graph_dir(variant, image_size))
        if variant.name == EMBEDDED and image_size == variant.image_size:
            folders.append(ASSETS)
    folders += [graph_dir(variant, image_size, name) for name in ("fp16", "int8") if precision in ("auto", name)]
    return next((folder for folder in folders if has_graphs(folder)), None)


def engine_dir(variant: Variant, image_size: int, precision: str) -> Path:
    """Where engines of a model belong; the folder may not exist."""
    return root() / "engines" / variant.name / f"{image_size}-{precision}"


def find_engines(variant: Variant, image_size: int, precision: str = "auto") -> Path | None:
    """The folder in which engines of the model were built, float16 first; they may be damaged or incomplete."""
    wanted = ("fp16", "fp32") if precision == "auto" else (precision,)
    folders = (engine_dir(variant, image_size, name) for name in wanted)
    return next((d for d in folders if _has_engines(d)), None)


def _has_engines(folder: Path) -> bool:
    try:
        return any(folder.glob(f"[!.]*{ENGINE_SUFFIX}*"))
    except OSError:  # as in `is_readable`
        return False


def find_checkpoint(variant: Variant) -> Path | None:
    """The model's weight file in the store, `.pt` before `.safetensors`, or the embedded one; None without either."""
    if variant.checkpoint is None:
        embedded = ASSETS / f"{variant.name}.safetensors"
        return embedded if is_readable(embedded) else None
    stored = checkpoint_dir() / variant.checkpoint.file_name
    return next((path for path in (stored, stored.with_suffix(".safetensors")) if is_readable(path)), None)


def is_installed(variant: Variant) -> bool:
    """Whether weights, or graphs at the model's own image size, are on this machine."""
    return find_checkpoint(variant) is not None or find_graphs(variant, variant.image_size) is not None


def is_readable(path: Path) -> bool:
    """Whether a file exists; False in a store that this user may not read, which the embedded model does not need."""
    try:
        return path.is_file()
    except OSError:
        return False


def manifest_path(path: Path) -> Path:
    """`image_encoder.onnx` -> `image_encoder.onnx.json`, which holds the manifest of that file."""
    return path.with_name(f"{path.name}.json")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""

    def write(part: Path) -> None:
        part.write_bytes(content)

    write_atomically(path, write)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a unique temporary file beside `path`, then moves it there; a failure leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
