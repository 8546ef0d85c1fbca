"""Cameras, the store and its disk, what "auto" would pick."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2edge.diagnosis.cameras import look_at_cameras
from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, WORKS
from sam2edge.diagnosis.picking import explanation, find_auto_pick
from sam2edge.diagnosis.storage import look_at_store
from sam2edge.machine.software import Libraries
from sam2edge.selection.select import RULES
from sam2edge.store import paths
from sam2edge.variants import find_variant
from tests.trees import AGX_ORIN_64GB, CPU_CONTAINER, ORIN_NANO_8GB, write_tree

TORCH = Libraries(frozenset({"torch", "onnxruntime"}))


def test_cameras_of_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    told = "  Video I/O:\n    FFMPEG:      YES\n    GStreamer:                   YES (1.20.3)\n"
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: told)
    found = {f.name: f for f in look_at_cameras(write_tree(tmp_path, ORIN_NANO_8GB))}
    assert found["GStreamer in OpenCV"].state == WORKS and "1.20.3" in found["GStreamer in OpenCV"].detail
    assert found["video devices"].detail == "/dev/video0 vi-output, imx219 9-0010"
    assert found["CSI cameras"].state == MISSING and "nvargus-daemon" in str(found["CSI cameras"].remedy)
    write_tree(tmp_path, {"tmp/argus_socket": ""})
    assert {f.name: f for f in look_at_cameras(tmp_path)}["CSI cameras"].state == WORKS


def test_cameras_of_a_bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    found = {f.name: f for f in look_at_cameras(tmp_path)}
    assert "CSI cameras" not in found and found["video devices"].state == NOTE
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   NO\n")
    assert look_at_cameras(tmp_path)[0].state == MISSING
    monkeypatch.delattr(cv2, "getBuildInformation")
    assert look_at_cameras(tmp_path)[0].state == BROKEN


def test_what_the_store_holds(empty_store: Path) -> None:
    tiny = find_variant("hiera_tiny")
    write_tree(paths.graph_dir(tiny, 512), {"image_encoder.onnx": "x" * 300, "mask_decoder.onnx": "y" * 5})
    write_tree(paths.engine_dir(tiny, 512, "fp16"), {"image_encoder.engine": "x" * 70})
    write_tree(empty_store / "checkpoints", {"sam2.1_hiera_tiny.pt": "x" * 40, "notes.txt": "y"})
    storage = look_at_store()
    assert storage.folder == str(empty_store) and storage.is_writable and storage.free_bytes
    assert [(s.kind, s.form, s.num_bytes) for s in storage.contents if s.model == "sam2/hiera_tiny"] == [
        ("engine", "512-fp16", 70),
        ("graph", "512-fp32", 305),
        ("weights", "sam2.1_hiera_tiny.pt", 40),
    ]
    embedded = [s for s in storage.contents if s.model == "sam2/micro"]
    assert {s.kind for s in embedded} == {"weights", "graph"} and all(s.num_bytes > 1_000_000 for s in embedded)


def test_a_store_that_cannot_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2EDGE_HOME", "/proc/1/no/such/store")
    storage = look_at_store()
    assert not storage.is_writable
    assert {s.model for s in storage.contents} == {"sam2/micro"}


def test_a_larger_model_that_would_fit(tmp_path: Path) -> None:
    root = write_tree(tmp_path, AGX_ORIN_64GB)
    picking = find_auto_pick(TORCH, has_gpu=True, root=root)
    assert picking.choice is not None and picking.choice.picked.variant.size == "micro"
    assert picking.larger is not None and picking.larger_command == "sam2edge models install sam2/hiera_large"
    without = find_auto_pick(Libraries(frozenset({"onnxruntime"})), has_gpu=True, root=root)
    assert str(without.larger_command).startswith("sam2edge models install")


def test_the_explanation_has_the_rules_and_every_candidate(tmp_path: Path) -> None:
    picking = find_auto_pick(TORCH, has_gpu=False, root=write_tree(tmp_path, CPU_CONTAINER))
    lines = explanation(picking)
    assert len([line for line in lines if line.partition(". ")[2] in RULES]) == len(RULES)
    assert sum("<- picked" in line for line in lines) == 1
    assert any("torch, cpu" in line and line.endswith("fits") for line in lines)


def test_where_nothing_can_be_picked(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 100000 kB\n"})
    assert "no installed model fits" in str(find_auto_pick(TORCH, False, root).problem)
    assert "no backend works" in str(find_auto_pick(Libraries(frozenset()), False, root).problem)
