"""Lists the files of the store with their models, checks and removes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sam2edge.errors import GraphError, StoreError
from sam2edge.files import file_sha256, git_blob_id, locked
from sam2edge.store import paths
from sam2edge.store.manifest import read_manifest
from sam2edge.variants import VARIANTS, Checkpoint, Variant

WEIGHTS, GRAPH, ENGINE, RECORD, UNFINISHED, OTHER = "weights", "graph", "engine", "record", "unfinished", "other"
OK, DAMAGED, UNKNOWN = "ok", "damaged", "unknown"


@dataclass(frozen=True)
class StoredFile:
    """A file of the store: its kind (one of the names above), its model where that is known, its bytes."""

    path: Path
    kind: str
    variant: Variant | None
    size_bytes: int


@dataclass(frozen=True)
class FileCheck:
    """The result of checking a file: "ok", "damaged", or "unknown" without a checksum; why, and how to fix it."""

    file: StoredFile
    state: str
    reason: str = ""
    remedy: str = ""


def list_stored_files(variant: Variant | None = None) -> list[StoredFile]:
    """Every file in the store, or those of one model, by path; without locks and unpacked bundles."""
    found = (describe_stored(path) for path in _walk(paths.root()))
    return [file for file in found if variant is None or file.variant == variant]


def list_builds(files: list[StoredFile], kind: str) -> list[str]:
    """The sizes and precisions of stored graphs or engines, as "1024-fp16"."""
    return sorted({file.path.parent.name for file in files if file.kind == kind})


def is_official(path: Path, source: Checkpoint) -> bool:
    """Whether the file exists and has the official checksum."""
    if source.digest is None or not path.is_file() or source.size_bytes not in (None, path.stat().st_size):
        return False
    return read_digest(path, source.digest) == source.digest


def read_digest(path: Path, expected: str) -> str:
    """The file's checksum, of the same kind as `expected`: "SHA-256 ..." or "git blob ..."."""
    return f"git blob {git_blob_id(path)}" if expected.startswith("git blob ") else f"SHA-256 {file_sha256(path)}"


def partial_path(target: Path) -> Path:
    """Where a file is downloaded to until it is whole."""
    return target.with_name(f".{target.name}.partial")


def check_file(file: StoredFile) -> FileCheck:
    """Reads a whole file and compares it with its known checksum or manifest."""
    if file.kind == UNFINISHED:
        return FileCheck(file, UNKNOWN, "an unfinished download", _format_pull(file.variant))
    if file.kind not in (WEIGHTS, GRAPH, ENGINE):
        return FileCheck(file, OK)
    wanted = find_expected_sums(file)
    if not wanted and file.kind == ENGINE:
        return FileCheck(file, DAMAGED, "its manifest is missing or unreadable", suggest_remedy(file))
    if not wanted:
        return FileCheck(file, UNKNOWN, "no checksum is known")
    try:
        digest = read_digest(file.path, wanted[0])
    except OSError as error:
        return FileCheck(file, DAMAGED, error.strerror or str(error), suggest_remedy(file))
    if digest in wanted:
        return FileCheck(file, OK)
    return FileCheck(file, DAMAGED, f"expected {wanted[0][:24]}..., got {digest[:24]}...", suggest_remedy(file))


def find_expected_sums(file: StoredFile) -> tuple[str, ...]:
    """The checksums that a file may have, with their kind; while it is replaced, also that of the old file."""
    with suppress(GraphError):
        manifest = read_manifest(file.path)
        sums = (manifest.sha256, manifest.replaced_sha256)
        return tuple(f"SHA-256 {digest}" for digest in sums if digest)
    source = file.variant.checkpoint if file.variant else None
    if file.kind == WEIGHTS and source is not None and source.digest and file.path.name == source.file_name:
        return (source.digest,)
    return ()


def remove_model(variant: Variant) -> list[StoredFile]:
    """Deletes all files of a model from the store and returns them; the embedded model stays.

    Waits for a download of it to end. Raises StoreError where a file cannot be deleted; those before it are gone.
    """
    name = variant.checkpoint.file_name if variant.checkpoint else variant.name
    with locked(paths.lock_path(name)):
        files = list_stored_files(variant)
        for file in files:
            try:
                file.path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{file.path} cannot be removed", got=error.strerror, remedy="check the owner of the store"
                ) from error
        for folder in {file.path.parent for file in files}:
            _remove_empty(folder)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, also behind links: a store may use several disks. Each folder is read once."""
    seen: set[tuple[int, int]] = set()
    try:
        if not folder.is_dir():
            return
    except OSError as error:
        _cannot_read(error)
    for place, folders, names in os.walk(folder, onerror=_cannot_read, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names))


def _cannot_read(error: OSError) -> NoReturn:
    raise StoreError(
        f"the store cannot be read: {error.filename}",
        expected="folders that this user may read",
        got=error.strerror,
        remedy="check its owner, or set SAM2EDGE_HOME to another folder",
    ) from error


def describe_stored(path: Path) -> StoredFile:
    parts = path.relative_to(paths.root()).parts
    kind, variant = OTHER, None
    if parts[0] == "checkpoints" and len(parts) == 2:
        variant = _variant_of_checkpoint(path)
        kind = WEIGHTS if variant is not None else OTHER
    elif parts[0] in ("graphs", "engines") and len(parts) == 4:
        variant = VARIANTS.get(parts[1])
        kind = {".onnx": GRAPH, paths.ENGINE_SUFFIX: ENGINE}.get(path.suffix, OTHER)
    if path.name.endswith(".failed.onnx"):  # kept by the exporter because it differs from its model
        kind = OTHER
    elif path.name.startswith("."):
        kind = UNFINISHED
    elif path.suffix == ".json" and variant is not None:
        kind = RECORD
    return StoredFile(path, kind, variant, path.lstat().st_size)


def _variant_of_checkpoint(path: Path) -> Variant | None:
    """By the stem of the official name, with which the names of records, parts and safetensors begin too."""
    for variant in VARIANTS.values():
        if variant.checkpoint is not None:
            stem = Path(variant.checkpoint.file_name).stem
            if path.name.lstrip(".").startswith((f"{stem}.pt", f"{stem}.safetensors")):
                return variant
    return None


def _remove_empty(folder: Path) -> None:
    while folder != paths.root() and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def suggest_remedy(file: StoredFile) -> str:
    if file.variant is None:
        return "remove it"
    size, _, precision = file.path.parent.name.partition("-")
    if precision == paths.FP32_FOR_ENGINES:
        precision = "fp32 --for-engines"
    options = f"{file.variant.model_id} --size {size} --precision {precision}"
    if file.kind == GRAPH and precision == "fp32":
        return f"sam2edge models install {file.variant.model_id} --size {size} --again"
    if file.kind == GRAPH:
        return f"python -m sam2edge.export.to_onnx {options}"
    if file.kind == ENGINE:
        return f"sam2edge build {options}"
    if paths.manifest_path(file.path).is_file():
        return "copy it again: sam2edge models add FILE"
    return _format_pull(file.variant)


def _format_pull(variant: Variant | None) -> str:
    return "remove it" if variant is None else f"sam2edge models pull {variant.model_id}"
