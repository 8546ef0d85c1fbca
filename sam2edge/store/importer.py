"""Recognises the model of a file that the user adds, without torch if possible, and copies it into the store."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sam2edge.contract import IMAGE_GRAPHS
from sam2edge.errors import BackendUnavailableError, CheckpointError, GraphError, InvalidInputError, StoreError
from sam2edge.files import file_sha256, locked
from sam2edge.store import paths
from sam2edge.store.download import Progress, copy_file, size_of
from sam2edge.store.inventory import DAMAGED, check_file, is_official, list_stored_files
from sam2edge.store.manifest import Manifest, describe_file, read_manifest, write_manifest
from sam2edge.variants import VARIANTS, Variant, find_variant, recognise_shapes, siblings

_MOST_HEADER_BYTES = 100_000_000  # as the format's own readers have it
_STAGING = ".adding-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # weights are of no other kind


def add_checkpoint(
    path: Path, replace: bool = False, progress: Progress = lambda done, total: None
) -> tuple[Variant, Path]:
    """Copies a weight file into the store; returns its model and its new path.

    Raises CheckpointError for a file that is not a SAM 2 checkpoint, BackendUnavailableError where recognising it needs
    torch, StoreError where the store has other, undamaged weights of the model and `replace` is false, or cannot be
    written.
    """
    variant = recognise_file(path)
    if variant.checkpoint is None:
        raise InvalidInputError(
            f"{path.name} holds weights of {variant.model_id}, which comes with the package",
            remedy=f"use it where it is: --model {variant.model_id} --checkpoint {path}",
        )
    file_name = variant.checkpoint.file_name
    target = paths.checkpoint_dir() / file_name
    if path.suffix == ".safetensors":
        target = target.with_suffix(".safetensors")
    try:
        with locked(paths.lock_path(file_name)):
            there = paths.find_checkpoint(variant)
            if there != target or file_sha256(target) != file_sha256(path):
                _refuse_to_replace(there, variant, replace)
                _record_replacement(path, target, variant)
                paths.write_atomically(target, lambda part: copy_file(path, part, progress))
                if there not in (None, target):
                    _forget(there)
            _record(target, variant)
    except OSError as error:
        raise _no_room_error(path, target, error) from error
    return variant, target


def add_graphs(folder: Path, replace: bool = False) -> tuple[Variant, Path]:
    """Copies a folder of exported ONNX graphs into the store; returns their model and new folder.

    Each graph must match the `<graph>.onnx.json` that the exporter wrote beside it, else GraphError is raised. Raises
    StoreError where the store has other graphs of this model, size and precision and `replace` is false.
    """
    stated = [_read_graph_manifest(folder / f"{name}.onnx") for name in IMAGE_GRAPHS]
    stated += [_read_graph_manifest(path) for path in sorted(folder.glob("memory_*.onnx")) if path.name.count(".") == 1]
    if len({(m.model, m.image_size, m.precision) for m in stated}) != 1:
        raise GraphError(f"{folder} holds graphs of several models", expected="one model, size and precision")
    variant = find_variant(str(stated[0].model))
    target = paths.graph_dir(variant, stated[0].image_size or 0, str(stated[0].precision))
    try:
        with locked(paths.lock_path(variant.checkpoint.file_name if variant.checkpoint else variant.name)):
            changed = [m for m in stated if _differs(target / f"{m.graph}.onnx", m.sha256)]
            if changed and not replace:
                raise StoreError(
                    f"the store has other graphs of {variant.model_id} at this size and precision already",
                    got=str(target),
                    remedy="give --replace",
                )
            _replace_folder(folder, target, [str(manifest.graph) for manifest in stated], keep=not changed)
    except OSError as error:
        raise _no_room_error(folder, target, error) from error
    return variant, target


def _replace_folder(source: Path, target: Path, graphs: list[str], keep: bool) -> None:
    """Replaces the folder `target` at once by `graphs` of `source` with their manifests.

    `keep`: other files in `target` stay; they are of the same weights.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{_STAGING}*"):  # of a process that was killed; the lock is ours
        shutil.rmtree(left)
    staged = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target.parent))
    try:
        for name in [f"{graph}{suffix}" for graph in graphs for suffix in (".onnx", ".onnx.json")]:
            copy_file(source / name, staged / name)
        for path in target.iterdir() if keep and target.is_dir() else ():
            if not (staged / path.name).exists():
                shutil.copy2(path, staged / path.name)
        staged.chmod(0o755)
        if target.is_dir():
            _exchange(staged, target)
        else:
            staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _exchange(first: Path, second: Path) -> None:
    """Swaps the names of two folders, in one step where the file system can, else in three."""
    names = (os.fsencode(first), os.fsencode(second))
    if ctypes.CDLL(None).renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        aside = first.with_name(f"{first.name}.aside")
        second.rename(aside)
        first.rename(second)
        aside.rename(first)


def _differs(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) != sha256


def _read_graph_manifest(path: Path) -> Manifest:
    try:
        manifest = read_manifest(path)
        digest = file_sha256(path)
    except (GraphError, OSError) as error:
        raise GraphError(
            f"{path.name} is not there as the exporter wrote it",
            expected=f"{path} and {paths.manifest_path(path).name}",
            got=getattr(error, "got", None) or getattr(error, "strerror", None),
            remedy="copy the whole folder that sam2edge.export.to_onnx wrote",
        ) from error
    plain = (
        manifest.graph == path.stem and manifest.precision in paths.GRAPH_PRECISIONS and manifest.image_size is not None
    )
    if not plain or manifest.model is None or digest != manifest.sha256:
        raise GraphError(
            f"{path.name} is damaged or of another export",
            expected=f"SHA-256 {manifest.sha256[:16]}..." if plain else "the manifest the exporter wrote",
            got=f"{digest[:16]}...",
            remedy="copy the whole folder again",
        )
    return manifest


def recognise_file(path: Path) -> Variant:
    """The model that a `.pt` or `.safetensors` file holds the weights of.

    Safetensors are recognised by their header, official files by their checksum; other `.pt` files need torch, which
    reads only tensors.
    """
    if not path.is_file():
        raise CheckpointError(
            "checkpoint not found", expected="a .pt or .safetensors file", got=str(path), remedy="check the path"
        )
    official = _recognise_official(path)
    if official is not None:
        return official
    shapes = read_safetensors_shapes(path) if path.suffix == ".safetensors" else _read_pt_shapes(path)
    variant = recognise_shapes(shapes)
    if variant is None:
        raise CheckpointError(
            f"{path.name} is not a checkpoint of a model that sam2edge knows",
            expected="every parameter of one of them, by name and shape",
            got=f"{len(shapes)} tensors",
            remedy="see `sam2edge models list`; --checkpoint FILE with --model ID names what is missing",
        )
    return _choose_sibling(path, variant)


def _choose_sibling(path: Path, variant: Variant) -> Variant:
    """Of the variants that tensors do not tell apart the one that the file is named after."""
    stems = {Path(v.checkpoint.file_name).stem: v for v in siblings(variant) if v.checkpoint}
    if len(stems) > 1 and path.stem not in stems:
        raise CheckpointError(
            f"{path.name} may be the weights of several models, which differ in their attention alone",
            expected=f"a file named as published: {', '.join(stems)}",
            got=path.name,
            remedy="rename it to what it is",
        )
    return stems.get(path.stem, variant)


def _recognise_official(path: Path) -> Variant | None:
    size = size_of(path)
    likely = [v for v in VARIANTS.values() if v.checkpoint is not None and v.checkpoint.size_bytes in (size, None)]
    return next((v for v in likely if v.checkpoint is not None and is_official(path, v.checkpoint)), None)


def read_safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the header alone: eight bytes of length, little-endian, then JSON.

    Raises CheckpointError for a file that is damaged or cut short.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= min(_MOST_HEADER_BYTES, size_of(path)) else b""
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        shapes = {str(name): tuple(map(_require_whole, entry["shape"])) for name, entry in entries.items()}
        spans = [_read_span(entry, shapes[str(name)]) for name, entry in entries.items()]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damage_error(
            path, f"a header that cannot be read ({str(error)[:80] or type(error).__name__})"
        ) from error
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _damage_error(path, f"tensors that overlap or leave a gap at byte {min(start, end)}")
        end = stop
    if 8 + length + end != size_of(path):
        raise _damage_error(path, f"{size_of(path)} bytes where the header says {8 + length + end}")
    return shapes


def _read_span(entry: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, int]:
    """First byte and the one after the last; there must be as many as shape and dtype need."""
    start, stop = map(_require_whole, entry["data_offsets"])
    if stop - start != math.prod(shape) * _FLOAT_BYTES[entry["dtype"]]:
        raise ValueError(f"{stop - start} bytes for {entry['dtype']} {list(shape)}")
    return start, stop


def _require_whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _read_pt_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailableError(
            f"{path.name} is not one of the official files, and reading any other takes torch",
            expected="an official checkpoint, a .safetensors file, or torch",
            got="no torch",
            remedy="pip install 'sam2edge[torch]', or convert it to .safetensors on another machine",
        )
    from sam2edge.torch_sam2.checkpoint import read_checkpoint

    return {name: tuple(tensor.shape) for name, tensor in read_checkpoint(path).items()}


def _refuse_to_replace(there: Path | None, variant: Variant, replace: bool) -> None:
    if there is None or replace:
        return
    if any(file.path == there and check_file(file).state != DAMAGED for file in list_stored_files(variant)):
        raise StoreError(
            f"the store has other weights of {variant.model_id} already",
            got=str(there),
            remedy="give --replace, or keep them and name this file with --checkpoint",
        )


def _record_replacement(source: Path, target: Path, variant: Variant) -> None:
    """Allows the old and the new file for a moment, so that a kill in between leaves none that looks damaged."""
    if target.is_file():
        replaced = file_sha256(target)
        write_manifest(target, describe_file(source, model=variant.name, replaced_sha256=replaced))


def _record(target: Path, variant: Variant) -> None:
    """Official weights need no record; for others it is the only way to find damage later."""
    assert variant.checkpoint is not None
    if is_official(target, variant.checkpoint):
        paths.manifest_path(target).unlink(missing_ok=True)
    else:
        write_manifest(target, describe_file(target, model=variant.name))


def _no_room_error(source: Path, target: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{source.name} cannot be copied into the store",
        expected=f"room in {target.parent}",
        got=f"{error.strerror or error}, {shutil.disk_usage(paths.existing_parent(target)).free} bytes free",
        remedy="make room or set SAM2EDGE_HOME to another folder",
    )


def _forget(path: Path | None) -> None:
    assert path is not None
    path.unlink(missing_ok=True)
    paths.manifest_path(path).unlink(missing_ok=True)


def _damage_error(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path.name} is damaged or cut short",
        expected="a whole .safetensors file",
        got=got,
        remedy="fetch it again and compare its SHA-256",
    )
