"""`sam2edge doctor` as it is called: on this machine, and where libraries are missing or broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sam2edge.cli import doctor
from sam2edge.cli.main import main
from sam2edge.diagnosis.backends import try_backends
from sam2edge.diagnosis.findings import Finding
from sam2edge.machine.describe import describe_machine
from sam2edge.machine.software import Libraries
from tests.trees import TREES, write_tree

ONNX = Libraries(frozenset({"onnxruntime"}))


@pytest.fixture
def only_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of torch take seconds."""
    monkeypatch.setattr(doctor, "find_libraries", lambda: ONNX)


def test_this_machine(only_onnxruntime: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--explain"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is True
    assert {b["name"]: b["state"] for b in report["backends"]}["onnxruntime"] == "works"
    assert report["auto"]["model"] == "sam2/micro" and report["auto"]["backend"] == "onnxruntime"
    budget = report["auto"]["budgets"]["host"]
    assert report["auto"]["needs_bytes"] + report["auto"]["cache_bytes"] <= budget["usable_bytes"]
    assert report["machine"]["memory"]["total_bytes"] > 0 and report["explanation"]


@pytest.mark.parametrize("tree", TREES)
def test_a_screen_for_every_captured_machine(
    tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path, TREES[tree])
    monkeypatch.setattr(doctor, "find_libraries", lambda: ONNX)
    monkeypatch.setattr(doctor, "describe_machine", lambda: describe_machine(root))
    monkeypatch.setattr(doctor, "try_backends", _all_work)
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert "A model can run here." in screen and "onnxruntime" in screen
    expected = {
        "Orin Nano 8 GB": [
            "python3-libnvinfer",
            "MAXN_SUPER",
            "L4T 36.4.3, JetPack 6.2",
            "oc3 37",
            "zram",
            "jetson_clocks",
        ],
        "Orin NX 16 GB": ["L4T 39.2.0, JetPack 7.2", "now, by", "pinned"],
        "Thor": ["compute capability 11.0", "Jetson T5000"],
        "desktop GPU": ["Z790 Workstation", "52 C", "pip install tensorrt"],
        "CPU container": ["limited by a cgroup"],
    }
    words = " ".join(screen.split())
    assert all(part in words for part in expected.get(tree, []))


def _all_work(libraries: Libraries, has_gpu: bool, on_jetson: bool, cuda: str | None) -> list[Finding]:
    return try_backends(libraries, has_gpu, on_jetson, cuda, run=lambda trial: {"ok": True})


def test_no_model_can_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "find_libraries", lambda: Libraries(frozenset()))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "No model can run here." in shown.out and "pip install onnxruntime" in shown.out
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is False and report["auto"]["model"] is None


def test_a_cap_that_is_none(
    only_onnxruntime: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAM2EDGE_MAX_MEMORY", "plenty")
    assert main(["doctor"]) == 1
    screen = " ".join(capsys.readouterr().out.split())
    assert "SAM2EDGE_MAX_MEMORY is not an amount of memory" in screen and "-> unset SAM2EDGE_MAX_MEMORY" in screen
    assert "onnxruntime works" in screen
    monkeypatch.setenv("SAM2EDGE_MAX_MEMORY", "1GiB")
    assert main(["doctor"]) == 0
    assert "1.0 GiB usable" in capsys.readouterr().out


def test_libraries_that_break_when_they_are_loaded(tmp_path: Path) -> None:
    """onnxruntime and torch by name, but what is loaded raises, or kills the process."""
    for name, content in {
        "onnxruntime": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        "torch": "raise ImportError('libcudart.so.12: cannot open shared object file')",
    }.items():
        write_tree(tmp_path, {f"{name}/__init__.py": content})
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from sam2edge.cli.main import main; sys.exit(main(['doctor', '--json']))"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "SAM2EDGE_HOME": str(tmp_path / "store")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    found = {b["name"]: b["detail"] for b in report["backends"] if b["state"] == "broken"}
    assert "SIGILL" in found["onnxruntime"] and "libcudart" in found["torch on cpu"]
    assert report["can_run"] is False
