"""`sam2edge build` from end to end, with the real TensorRT-RTX, and `segment` beside engines of every kind."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sam2edge.cli.main import main
from sam2edge.engine_build import build
from sam2edge.engine_build import graphs as graphs_module
from sam2edge.store import paths
from sam2edge.store.engine_checks import check_files
from sam2edge.store.manifest import read_manifest, write_manifest
from sam2edge.variants import find_variant
from tests.boards import ORIN

MICRO = find_variant("sam2/micro")
ASSETS = paths.ASSETS


def test_build_writes_engines_with_manifests(empty_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    assert main(["build", "sam2/micro", "--compiler", "tensorrt"]) == 0
    folder = paths.find_engines(MICRO, 384)
    assert folder == empty_store / "engines" / MICRO.name / "384-fp16"
    graphs = tuple(path.stem for path in paths.graph_dir(MICRO, 384, "fp16").glob("*.onnx"))
    assert len(graphs) >= 2
    for manifest in check_files(folder, graphs, MICRO, 384).values():
        assert manifest.parity["graph"].passed is True
        assert manifest.parity["graph"].metrics["mask_iou"] >= 0.995
    out, err = capfd.readouterr()
    assert "mask_decoder.engine" in out
    assert "Traceback" not in err
    assert main(["build", "sam2/micro", "--skip-built"]) == 0
    assert capfd.readouterr().err.count("built already") == len(graphs)


def test_without_torch_graphs_are_enough(
    builder: pytest.MonkeyPatch, empty_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    builder.setattr("importlib.util.find_spec", lambda name: object() if name == "tensorrt" else None)
    assert main(["build", "sam2/micro", "--precision", "fp32"]) == 0, "the package has these graphs"
    assert main(["build", "sam2/micro"]) == 1
    err = capfd.readouterr().err
    assert "no torch, onnx, safetensors; remedy: pip install 'sam2edge[export]', or copy graphs into " in err
    shutil.copytree(ASSETS, paths.graph_dir(MICRO, 384, "fp16"))
    assert main(["build", "sam2/micro"]) == 0


def test_a_build_starts_at_most_eight_processes(builder: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path) -> None:
    """This one, the export, one question for the library's version, four builders, the comparison."""
    started: list[list[str]] = []
    popen = subprocess.Popen

    class Popen(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, command: list[str], **options: Any) -> None:
            started.append(command)
            if "to_onnx" in command:
                shutil.copytree(ASSETS, paths.graph_dir(MICRO, 384, "fp16"))
            if {"to_onnx", "engine_parity"} & set(command):
                command = ["true"]
            super().__init__(command, **options)

    builder.setattr(subprocess, "Popen", Popen)
    builder.setattr(build, "find_gpu", lambda: ORIN)
    builder.setattr("importlib.util.find_spec", lambda name: object())
    assert main(["build", "sam2/micro"]) == 0
    scripts = [command[3] for command in started if command[2] == "sam2edge.export"]
    assert scripts == ["to_onnx", *["build_worker"] * 4, "engine_parity"]
    assert len(started) + 1 == 8


def test_graphs_of_older_weights_are_exported_again(builder: pytest.MonkeyPatch, empty_store: Path) -> None:
    """An upgrade of the package brings other embedded weights; the store still has graphs of the old ones."""
    exported: list[list[str]] = []
    folder = shutil.copytree(ASSETS, paths.graph_dir(MICRO, 384, "fp16"))
    path = folder / "image_encoder.onnx"
    write_manifest(path, dataclasses.replace(read_manifest(path), checkpoint_sha256="2" * 64))
    builder.setattr(graphs_module, "run_script", lambda script, *_: exported.append(script))
    assert main(["build", "sam2/micro"]) == 0
    assert exported == [["to_onnx", MICRO.name, "--size", "384", "--precision", "fp16", "--for-engines"]]


def test_fp32_engines_are_built_from_graphs_that_are_not_made_for_a_cpu(
    builder: pytest.MonkeyPatch, empty_store: Path
) -> None:
    folder = paths.graph_dir(MICRO, 384, "fp32-engines")
    exported: list[list[str]] = []

    def export(script: list[str], *_: object) -> None:
        exported.append(script)
        shutil.copytree(ASSETS, folder)

    builder.setattr(graphs_module, "run_script", export)
    for _ in range(2):
        assert main(["build", "sam2/micro", "--precision", "fp32", "--skip-built"]) == 0
    assert [script[-1] for script in exported] == ["--for-engines"], "once, though the package has graphs for a CPU"
    assert paths.find_graphs(MICRO, 384, "fp32") == ASSETS


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("sam9/none", 1, "unknown model id"),
        ("sam2/micro --size 100", 1, "multiple of 32"),
        ("sam2/micro --precision int8", 2, "int8"),
        ("sam2/micro --compiler torch2trt", 1, "pip install git+https://github.com/NVIDIA-AI-IOT/torch2trt"),
        ("sam2/micro --checkpoint none.pt", 1, "checkpoint not found"),
        ("", 2, "Usage"),
    ],
)
def test_what_is_refused(arguments: str, status: int, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["build", *arguments.split()]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err
    if arguments:
        told = [line for line in err.strip().splitlines() if not line.startswith(("note: ", "building "))]
        assert len(told) == 1


@pytest.mark.parametrize("whom", ["the whole group, as a terminal does", "the command alone"])
def test_an_interrupt_is_told_once(builder: pytest.MonkeyPatch, empty_store: Path, whom: str) -> None:
    builder.setenv("FAKE_TENSORRT", "slow")
    command = [sys.executable, "-m", "sam2edge.cli.main", "build", "sam2/micro", "--precision", "fp32"]
    command += ["--graphs", str(ASSETS)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A run of the tests in a shell's background ignores interrupts, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = paths.engine_dir(MICRO, 384, "fp32")
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if whom == "the command alone":
        process.send_signal(signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGINT)
    words = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert words.count("interrupted") == 1
    assert words.splitlines()[-1] == "sam2edge: interrupted"
    assert "Traceback" not in words
    assert not [path for path in folder.iterdir() if path.suffix != ".lock"]
