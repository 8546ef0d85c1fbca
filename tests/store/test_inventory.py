"""What the store says of itself: contents, damage, removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2edge.store import paths
from sam2edge.store.inventory import (
    DAMAGED,
    ENGINE,
    GRAPH,
    OK,
    OTHER,
    RECORD,
    UNFINISHED,
    UNKNOWN,
    WEIGHTS,
    check_file,
    list_builds,
    list_stored_files,
    partial_path,
    remove_model,
)
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.variants import find_variant

TINY, LARGE = find_variant("sam2/hiera_tiny"), find_variant("sam2/hiera_large")
OLD_TINY = find_variant("sam2.0_hiera_tiny")


def _write(path: Path, content: bytes = b"content", record: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if record:
        write_manifest(path, describe_file(path))
    return path


def _states() -> dict[str, str]:
    return {finding.file.path.name: finding.state for finding in map(check_file, list_stored_files())}


def test_an_empty_store() -> None:
    assert list_stored_files() == []
    assert remove_model(TINY) == []


def test_kinds_and_models(written_engines: Path) -> None:
    _write(paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt")
    _write(paths.checkpoint_dir() / "sam2_hiera_tiny.safetensors", record=True)
    _write(partial_path(paths.checkpoint_dir() / "sam2.1_hiera_large.pt"))
    _write(paths.checkpoint_dir() / "somebody_else.pt")
    _write(paths.graph_dir(TINY, 512, "fp16") / "mask_decoder.onnx", record=True)
    _write(paths.graph_dir(TINY, 512, "fp16") / "image_encoder.failed.onnx")
    _write(paths.lock_path("sam2.1_hiera_tiny.pt"))
    kinds = {file.path.name: (file.kind, file.variant) for file in list_stored_files()}
    assert kinds["sam2.1_hiera_tiny.pt"] == (WEIGHTS, TINY)
    assert kinds["sam2_hiera_tiny.safetensors"] == (WEIGHTS, OLD_TINY)
    assert kinds["sam2_hiera_tiny.safetensors.json"] == (RECORD, OLD_TINY)
    assert kinds[".sam2.1_hiera_large.pt.partial"] == (UNFINISHED, LARGE)
    assert kinds["somebody_else.pt"] == (OTHER, None)
    assert kinds["mask_decoder.onnx"] == (GRAPH, TINY)
    assert kinds["image_encoder.failed.onnx"] == (OTHER, TINY)
    assert kinds["mask_decoder.engine"][0] == ENGINE
    assert list_builds(list_stored_files(TINY), GRAPH) == ["512-fp16"]
    assert list_builds(list_stored_files(find_variant("sam2/micro")), ENGINE) == ["384-fp16"]


def test_damage_is_seen_and_the_remedy_named(written_engines: Path) -> None:
    official = _write(paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt")
    by_hand = _write(paths.checkpoint_dir() / "sam2_hiera_tiny.pt", record=True)
    graph = _write(paths.graph_dir(TINY, 1024) / "image_encoder.onnx", record=True)
    unrecorded = _write(paths.graph_dir(TINY, 512) / "image_encoder.onnx")
    engine = written_engines / "mask_decoder.engine"
    findings = {finding.file.path: finding for finding in map(check_file, list_stored_files())}
    assert findings[official].state == DAMAGED
    assert findings[official].remedy == "sam2edge models pull sam2/hiera_tiny"
    assert [findings[path].state for path in (by_hand, graph, unrecorded, engine)] == [OK, OK, UNKNOWN, OK]
    for path in (by_hand, graph, engine):
        path.write_bytes(path.read_bytes() + b"x")
    findings = {finding.file.path: finding for finding in map(check_file, list_stored_files())}
    assert {findings[path].state for path in (by_hand, graph, engine)} == {DAMAGED}
    assert findings[by_hand].remedy == "copy it again: sam2edge models add FILE"
    assert findings[graph].remedy == "sam2edge models install sam2/hiera_tiny --size 1024 --again"
    assert findings[engine].remedy == "sam2edge build sam2/micro --size 384 --precision fp16"
    paths.manifest_path(engine).write_text("{")
    assert "manifest" in next(check_file(f) for f in list_stored_files() if f.path == engine).reason


def test_a_file_that_cannot_be_read_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(paths.graph_dir(TINY, 1024) / "image_encoder.onnx", record=True)

    def fail(_: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sam2edge.store.inventory.file_sha256", fail)
    finding = check_file(next(file for file in list_stored_files() if file.path == path))
    assert (finding.state, finding.reason) == (DAMAGED, "Input/output error")


def test_removal_takes_one_model_and_all_of_it(empty_store: Path) -> None:
    _write(paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt")
    _write(partial_path(paths.checkpoint_dir() / "sam2.1_hiera_tiny.pt"))
    _write(paths.graph_dir(TINY, 1024) / "image_encoder.onnx", record=True)
    kept = _write(paths.checkpoint_dir() / "sam2_hiera_tiny.pt")
    assert len(remove_model(TINY)) == 4
    assert [file.path for file in list_stored_files()] == [kept]
    assert sorted(p.name for p in empty_store.iterdir()) == [".locks", "checkpoints"]
