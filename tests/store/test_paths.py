"""Where files live, and that they appear whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.variants import find_variant

MICRO, TINY = find_variant("sam2/micro"), find_variant("sam2/hiera_tiny")


def test_the_embedded_model_is_always_there() -> None:
    assert paths.is_installed(MICRO)
    assert paths.find_graphs(MICRO, 384) is not None
    assert paths.find_graphs(MICRO, 256) is None


def test_other_models_are_there_once_their_files_are(empty_store: Path) -> None:
    assert not paths.is_installed(TINY)
    folder = paths.graph_dir(TINY, 1024)
    assert folder.is_relative_to(empty_store)
    folder.mkdir(parents=True)
    (folder / "image_encoder.onnx").touch()
    assert paths.find_graphs(TINY, 1024) is None
    (folder / "mask_decoder.onnx").touch()
    assert paths.find_graphs(TINY, 1024) == folder
    assert paths.is_installed(TINY)


def test_weights_and_graphs_of_the_wheel_fit_in_24_megabytes() -> None:
    assets = paths.ASSETS
    assert sum(path.stat().st_size for path in assets.iterdir()) <= 24_000_000


def test_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"

    def write(target: Path) -> None:
        target.write_bytes(b"abc")

    paths.write_atomically(path, write)
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        paths.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
