"""Files added by hand: which model they are of, and what becomes of them."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sam2edge.errors import BackendUnavailableError, CheckpointError, GraphError, InvalidInputError, StoreError
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.importer import (
    add_checkpoint,
    add_graphs,
    read_safetensors_shapes,
    recognise_file,
)
from sam2edge.store.integrity import check_unchanged
from sam2edge.store.inventory import DAMAGED, OK, check_file, list_stored_files
from sam2edge.store.manifest import describe_file, read_manifest, write_manifest
from sam2edge.variants import VARIANTS, Checkpoint, Variant, find_variant, siblings
from tests.conftest import ROOT, official_parameters

TINY = find_variant("sam2/hiera_tiny")
ASSETS = paths.ASSETS


def _safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file with tensors of these shapes, all zero; sparse, so that it takes no room."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + end)
    return path


@pytest.mark.parametrize("variant", [v for v in VARIANTS.values() if v.checkpoint], ids=lambda v: v.name)
def test_every_official_model_is_told_by_its_parameters(variant: Variant, tmp_path: Path) -> None:
    shapes = official_parameters(variant.name)
    assert variant.checkpoint is not None
    stem = Path(variant.checkpoint.file_name).stem if len(siblings(variant)) > 1 else "weights"
    assert recognise_file(_safetensors(tmp_path / f"{stem}.safetensors", shapes)) == variant


def test_of_models_with_the_same_parameters_the_name_of_the_file_tells_which(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "weights.safetensors", official_parameters("efficienttam_s"))
    with pytest.raises(CheckpointError, match="several models.*named as published: efficienttam_s, efficienttam_s_1"):
        recognise_file(path)


def test_a_missing_parameter_is_another_model(tmp_path: Path) -> None:
    shapes = official_parameters("sam2.1_hiera_tiny")
    shapes.popitem()
    with pytest.raises(CheckpointError, match="not a checkpoint of a model.*got 470 tensors"):
        recognise_file(_safetensors(tmp_path / "weights.safetensors", shapes))


def test_a_safetensors_file_is_kept_under_the_models_name(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "mine.safetensors", official_parameters("sam2.1_hiera_tiny"))
    variant, target = add_checkpoint(path)
    assert variant == TINY
    assert target == paths.checkpoint_dir() / "sam2.1_hiera_tiny.safetensors" == paths.find_checkpoint(TINY)
    assert target.read_bytes() == path.read_bytes()
    assert [check_file(file).state for file in list_stored_files()] == [OK, OK]
    assert add_checkpoint(path)[1] == target


def test_other_weights_are_replaced_when_that_is_said(tmp_path: Path) -> None:
    shapes = official_parameters("sam2.1_hiera_tiny")
    first = _safetensors(tmp_path / "first.safetensors", shapes)
    second = _safetensors(tmp_path / "second.safetensors", dict(reversed(shapes.items())))
    add_checkpoint(first)
    with pytest.raises(StoreError, match="other weights of sam2/hiera_tiny already.*--replace"):
        add_checkpoint(second)
    _, target = add_checkpoint(second, replace=True)
    assert target.read_bytes() == second.read_bytes()
    target.write_bytes(b"damaged")
    assert add_checkpoint(first)[1].read_bytes() == first.read_bytes()


def test_a_pt_file_by_its_tensors(golden_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = golden_checkpoint("sam2/hiera_tiny")
    variant, target = add_checkpoint(path)
    assert (variant, target.name) == (TINY, "sam2.1_hiera_tiny.pt")
    other = _safetensors(tmp_path / "other.safetensors", official_parameters("sam2.1_hiera_tiny"))
    _, replaced = add_checkpoint(other, replace=True)
    assert paths.find_checkpoint(TINY) == replaced
    assert not target.exists() and not paths.manifest_path(target).exists()


def test_official_bytes_need_no_torch_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(b"official")
    source = Checkpoint("https://x/sam2.1_hiera_tiny.pt", file_sha256(path), 8)
    monkeypatch.setitem(VARIANTS, TINY.name, replace(TINY, checkpoint=source))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    variant, target = add_checkpoint(path)
    assert (variant.name, target.name) == (TINY.name, "sam2.1_hiera_tiny.pt")
    assert [file.path for file in list_stored_files()] == [target]


def test_other_pt_files_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.pt").write_bytes(b"anything")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="reading any other takes torch.*safetensors"):
        add_checkpoint(tmp_path / "mine.pt")


def test_the_embedded_model_has_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="comes with the package.*--checkpoint"):
        add_checkpoint(ASSETS / "sam2.1_micro.safetensors")


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_safetensors_cut_short(kept: int, tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "cut.safetensors", official_parameters("sam2.1_hiera_tiny"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_safetensors_shapes(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 3}',
        b'{"a": {"shape": [1]}}',
        b'{"a": {"shape": "x", "data_offsets": [0, 1]}}',
        b"[" * 50_000,
        b"\xff\xfe",
    ],
)
def test_headers_that_are_none(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        recognise_file(path)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 8]},  # all tensors share their bytes
        {"data_offsets": [8, 0]},
        {"data_offsets": [-8, 8]},
        {"data_offsets": [0, True]},
        {"data_offsets": [2, 10]},
        {"data_offsets": [0, 8.0]},
        {"shape": [2**62, 4]},
        {"shape": [-2, -2]},
        {"dtype": "I64"},
        {"dtype": "BOOL"},
        {"dtype": None},
    ],
    ids=str,
)
def test_a_header_whose_parts_disagree(change: dict[str, object], tmp_path: Path) -> None:
    plain = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    header = json.dumps({"a": plain, "b": {**plain, "data_offsets": [8, 16], **change}}).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_safetensors_shapes(path)


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(CheckpointError, match="damaged"):
        recognise_file(path)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        add_checkpoint(tmp_path / "none.pt")


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as the exporter leaves it, of graphs that are none."""
    folder = tmp_path / "1024-fp32"
    folder.mkdir()
    for name in ("image_encoder", "mask_decoder", "memory_encoder"):
        path = folder / f"{name}.onnx"
        path.write_bytes(name.encode() * 100)
        facts = {"graph": name, "model": TINY.name, "image_size": 1024, "precision": "fp32"}
        write_manifest(path, describe_file(path, **facts))
    return folder


def test_a_folder_of_graphs(exported: Path) -> None:
    (exported / "memory_attention.failed.onnx").write_bytes(b"found wanting")
    variant, target = add_graphs(exported)
    assert (variant, target) == (TINY, paths.graph_dir(TINY, 1024))
    assert paths.find_graphs(TINY, 1024) == target
    assert len(list(target.glob("*.onnx"))) == 3
    assert DAMAGED not in {check_file(file).state for file in list_stored_files(TINY)}
    (target / "mask_decoder.onnx").write_bytes(b"another export")
    with pytest.raises(StoreError, match="other graphs.*--replace"):
        add_graphs(exported)
    add_graphs(exported, replace=True)
    assert (target / "mask_decoder.onnx").read_bytes() == (exported / "mask_decoder.onnx").read_bytes()


@pytest.mark.parametrize(
    "damage", ["missing", "edited", "no record", "odd record", "two models", "a path as precision"]
)
def test_folders_of_graphs_that_are_not_whole(damage: str, exported: Path) -> None:
    decoder = exported / "mask_decoder.onnx"
    record = paths.manifest_path(decoder)
    if damage == "missing":
        decoder.unlink()
    elif damage == "edited":
        decoder.write_bytes(b"x")
    elif damage == "no record":
        record.unlink()
    else:
        content = json.loads(record.read_text())
        changes: dict[str, dict[str, object]] = {"odd record": {"image_size": "x"}, "two models": {"image_size": 512}}
        record.write_text(json.dumps({**content, **changes.get(damage, {"precision": "../../.."})}))
    with pytest.raises(GraphError):
        add_graphs(exported)
    assert list_stored_files() == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from sam2edge.store import importer, paths
copied = []
copy_file = importer.copy_file
def copy_and_die(*arguments):
    if len(copied) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    copied.append(copy_file(*arguments))
importer.copy_file = copy_and_die
source = Path(sys.argv[1])
importer.add_graphs(source, True) if source.is_dir() else importer.add_checkpoint(source, True)
"""


def _kill_while_adding(source: Path, copies: int) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(source), str(copies)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL


def test_replacing_graphs_is_all_or_nothing(exported: Path, tmp_path: Path) -> None:
    _, target = add_graphs(exported)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    newer = tmp_path / "newer"
    newer.mkdir()
    for path in exported.glob("*.onnx"):
        (newer / path.name).write_bytes(path.read_bytes() + b"newer")
        facts = {"graph": path.stem, "model": TINY.name, "image_size": 1024, "precision": "fp32"}
        write_manifest(newer / path.name, describe_file(newer / path.name, **facts))
    (newer / "memory_encoder.onnx").unlink()
    for copies in (1, 2, 3):
        _kill_while_adding(newer, copies)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    add_graphs(newer, replace=True)
    assert sorted(path.name for path in target.parent.iterdir()) == ["1024-fp32"]
    names = [f"{graph}.onnx{record}" for graph in ("image_encoder", "mask_decoder") for record in ("", ".json")]
    assert sorted(path.name for path in target.iterdir()) == names  # and no memory of other weights beside them
    assert DAMAGED not in {check_file(file).state for file in list_stored_files(TINY)}


def test_weights_that_are_being_replaced_never_look_damaged(tmp_path: Path) -> None:
    shapes = official_parameters("sam2.1_hiera_tiny")
    first = _safetensors(tmp_path / "first.safetensors", shapes)
    second = _safetensors(tmp_path / "second.safetensors", dict(reversed(shapes.items())))
    _, target = add_checkpoint(first)
    _kill_while_adding(second, 0)
    assert target.read_bytes() == first.read_bytes()
    check_unchanged(target)
    add_checkpoint(second, replace=True)
    check_unchanged(target)
    assert read_manifest(target).replaced_sha256 is None
