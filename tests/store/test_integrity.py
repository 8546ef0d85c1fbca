"""Files that are not what was written are never computed with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2edge import AutoModel
from sam2edge.backends.base import DecodedPrompts
from sam2edge.errors import BackendUnavailableError, CheckpointError, GraphError, Sam2EdgeError, StoreError
from sam2edge.store import integrity, inventory, paths
from sam2edge.store.integrity import check_unchanged
from sam2edge.store.inventory import list_stored_files
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.variants import EMBEDDED, find_variant
from tests.fake_backend import fake_model

MICRO, TINY = find_variant(EMBEDDED), find_variant("sam2/hiera_tiny")


@pytest.fixture
def stored_graphs() -> Path:
    """The embedded model's graphs in the store, with records, where they come before those of the package."""
    folder = paths.graph_dir(MICRO, MICRO.image_size)
    folder.mkdir(parents=True)
    for path in paths.ASSETS.glob("*.onnx"):
        shutil.copy(path, folder)
        write_manifest_of(folder / path.name, graph=path.stem)
    return folder


def write_manifest_of(path: Path, **facts: str) -> None:
    write_manifest(path, describe_file(path, **facts))


def _flip(path: Path) -> None:
    """One bit in the middle, where the weights are; the file's time stays as it was."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("graph", ["image_encoder", "mask_decoder"])
def test_a_flipped_bit_in_a_graph(graph: str, stored_graphs: Path) -> None:
    AutoModel.from_pretrained("sam2/micro", backend="onnxruntime").close()
    _flip(stored_graphs / f"{graph}.onnx")
    with pytest.raises(GraphError, match=rf"{graph}\.onnx is damaged.*remedy.*models install"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")


def test_a_flipped_bit_in_a_graph_of_the_memory(stored_graphs: Path, photo_bgr: np.ndarray) -> None:
    from sam2edge import VideoTracker

    _flip(stored_graphs / "memory_encoder.onnx")
    tracker = VideoTracker(AutoModel.from_pretrained("sam2/micro", backend="onnxruntime"))
    tracker.prompt(photo_bgr, box=[100, 100, 300, 300])
    with pytest.raises(GraphError, match="memory_encoder.onnx is damaged"):
        tracker.track(photo_bgr)


def test_graphs_of_two_checkpoints_are_not_mixed(stored_graphs: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = stored_graphs / "image_encoder.onnx"
    graph = onnx.load(path)
    next(entry for entry in graph.metadata_props if entry.key == "sam2edge_checkpoint_sha256").value = "0" * 64
    onnx.save(graph, path)
    write_manifest_of(path, graph="image_encoder")
    with pytest.raises(GraphError, match="made of another checkpoint"):
        AutoModel.from_pretrained("sam2/micro", backend="onnxruntime")


def test_stored_weights_are_compared_before_torch_reads_them() -> None:
    pytest.importorskip("torch")
    path = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights" * 1000)  # of the official name, so of the official sum
    with pytest.raises(CheckpointError, match=r"sam2.1_hiera_tiny\.pt is damaged.*remedy: sam2edge models pull"):
        AutoModel.from_pretrained("sam2/hiera_tiny", backend="torch")


def test_a_large_file_is_read_once_for_as_long_as_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_REMEMBERED_FROM_BYTES", 1)
    path = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    write_manifest_of(path)
    read: list[Path] = []
    monkeypatch.setattr(integrity, "read_digest", lambda p, like: read.append(p) or inventory.read_digest(p, like))
    check_unchanged(path)
    check_unchanged(path)
    monkeypatch.setattr(integrity, "_checked", {})  # another process
    check_unchanged(path)
    assert len(read) == 1
    _flip(path)  # its time is as before, but that of the change of its inode is not
    with pytest.raises(CheckpointError, match="damaged"):
        check_unchanged(path)
    (paths.root() / ".locks" / "checked.json").write_text("[")
    with pytest.raises(CheckpointError, match="damaged"):
        check_unchanged(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_weights_that_were_never_trained_so(value: float, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    state = load_file(paths.ASSETS / f"{EMBEDDED}.safetensors")
    name = max(state, key=lambda key: state[key].numel())
    state[name] = torch.full_like(state[name], value)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=f"damaged; expected finite weights; got .* in {name}"):
        AutoModel.from_pretrained("sam2/micro", backend="torch", checkpoint=tmp_path / "bad.safetensors")


@pytest.mark.parametrize("part", DecodedPrompts._fields)
def test_a_model_that_gives_nan_is_an_error(part: str, photo_bgr: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model()
    decode = model.backend.decode_impl

    def broken(*arguments: object) -> DecodedPrompts:
        found = decode(*arguments)  # type: ignore[arg-type]
        values = getattr(found, part).copy()
        values.flat[-1] = np.nan
        return found._replace(**{part: values})

    monkeypatch.setattr(model.backend, "decode_impl", broken)
    with pytest.raises(GraphError, match="output is not finite.*models verify"):
        model.segment_images(photo_bgr, point_coordinates=np.array([[9, 9]]), point_labels=np.array([1]))


def test_a_store_behind_links_is_checked(tmp_path: Path) -> None:
    """As on a machine whose models lie on another disk."""
    (tmp_path / "disk").mkdir()
    paths.checkpoint_dir().symlink_to(tmp_path / "disk")
    path = paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"
    path.write_bytes(bytes(1000))
    (tmp_path / "disk" / "round").symlink_to(tmp_path)
    assert [file.path for file in list_stored_files(TINY)] == [path]
    with pytest.raises(CheckpointError):
        check_unchanged(path)


def test_the_embedded_model_needs_no_store(monkeypatch: pytest.MonkeyPatch, photo_bgr: np.ndarray) -> None:
    """Root may read everything, so that a store which nobody may enter is stood in for."""
    home, stat = str(paths.root()), os.stat

    def refuse(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(home):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *rest, **more)

    monkeypatch.setattr(os, "stat", refuse)
    model = AutoModel.from_pretrained()
    assert model.variant == MICRO
    with pytest.raises(StoreError, match="cannot be read.*Permission denied"):
        list_stored_files()
    with pytest.raises((CheckpointError, BackendUnavailableError)):
        AutoModel.from_pretrained("sam2/hiera_tiny")


def test_a_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2EDGE_HOME", "~nobody-of-that-name/models")
    with pytest.raises(Sam2EdgeError, match="SAM2EDGE_HOME cannot be used"):
        AutoModel.from_pretrained()
