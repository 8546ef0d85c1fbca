"""The steps from a model's name to a model that runs, with the commands that would be run written down."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sam2edge import model_install
from sam2edge.contract import IMAGE_GRAPHS
from sam2edge.errors import GraphError, InvalidInputError, StoreError
from sam2edge.model_install import install_model, plan_install
from sam2edge.store import paths
from sam2edge.variants import Variant, find_variant

TINY = find_variant("tiny")
Missing = Callable[..., None]


class Runs:
    """Stands for the processes: keeps commands and environments, and does what the exporter does, unless `fails`."""

    def __init__(self, fails: str = "none") -> None:
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.fails = fails

    def __call__(self, command: list[str], environment: dict[str, str]) -> int:
        self.commands.append(command[1:])
        self.environments.append(environment)
        if self.fails in command:
            return 1
        if "--target" in command:
            Path(command[command.index("--target") + 1]).mkdir()
        if "sam2edge.export.to_onnx" in command:
            _write_graphs(TINY)
        return 0


def _write_graphs(variant: Variant) -> None:
    folder = paths.graph_dir(variant, variant.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    for name in IMAGE_GRAPHS:
        (folder / f"{name}.onnx").write_bytes(b"graph")


@pytest.fixture
def weights(empty_store: Path) -> None:
    assert TINY.checkpoint is not None
    paths.checkpoint_dir().mkdir()
    (paths.checkpoint_dir() / TINY.checkpoint.file_name).write_bytes(b"weights")


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Missing:
    """Lets packages be missing, or nothing and nobody else's index be set."""
    find = importlib.util.find_spec

    def leave_out(*names: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else find(name, *a))

    leave_out()
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setattr(model_install, "has_nvidia_gpu", lambda: False)
    return leave_out


def test_a_fresh_machine_without_torch(missing: Missing) -> None:
    missing("torch", "onnx", "safetensors")
    plan = plan_install(TINY)
    assert plan.download_bytes == 156_008_466 and plan.missing_packages == ("torch", "onnx", "safetensors")
    assert [step.split()[0] for step in plan.steps()] == ["download", "fetch", "export"]
    assert "156 MB" in plan.steps()[0] and "removed afterwards" in plan.steps()[1]


@pytest.mark.usefixtures("weights")
def test_the_exporter_alone_sees_what_was_fetched(missing: Missing) -> None:
    missing("torch", "safetensors")
    runs = Runs()
    install_model(plan_install(TINY), run=runs)
    pip, export = runs.commands
    assert pip[:3] == ["-m", "pip", "install"] and "torch>=2.4" in pip and "onnx>=1.16" not in pip
    assert export == ["-m", "sam2edge.export.to_onnx", TINY.name, "--size", "1024"]
    folder = pip[pip.index("--target") + 1]
    assert runs.environments[1]["PYTHONPATH"].split(os.pathsep)[0] == folder
    assert not Path(folder).exists() and not list(paths.root().glob(".export-*"))
    assert paths.find_graphs(TINY, 1024) is not None
    assert plan_install(TINY).steps() == []


@pytest.mark.usefixtures("weights")
def test_with_torch_nothing_is_fetched(missing: Missing) -> None:
    pytest.importorskip("torch")
    runs = Runs()
    install_model(plan_install(TINY), run=runs)
    assert [command[1] for command in runs.commands] == ["sam2edge.export.to_onnx"]


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(("fails", "message"), [("pip", "could not be fetched"), ("sam2edge.export.to_onnx", "graphs")])
def test_a_step_that_fails_leaves_nothing_behind(missing: Missing, fails: str, message: str) -> None:
    missing("torch")
    left = paths.root() / ".export-killed"
    left.mkdir()
    with pytest.raises((StoreError, GraphError), match=message):
        install_model(plan_install(TINY), run=Runs(fails))
    assert not list(paths.root().glob(".export-*"))


@pytest.mark.usefixtures("weights")
def test_engines_are_built_where_there_is_a_gpu(missing: Missing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_install, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(model_install, "_TENSORRT", ("json",))
    runs = Runs()
    plan = plan_install(TINY)
    assert plan.steps()[-1].startswith("build TensorRT engines")
    install_model(plan, run=runs)
    assert runs.commands[-1] == ["-m", "sam2edge", "build", TINY.name, "--size", "1024"]


def test_no_room(missing: Missing, weights: None, monkeypatch: pytest.MonkeyPatch) -> None:
    missing("torch")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Disk", (), {"free": 5_000_000}))
    runs = Runs()
    with pytest.raises(StoreError, match="no room to fetch torch.*1500000000 bytes free.*5000000"):
        install_model(plan_install(TINY), run=runs)
    assert not runs.commands


def test_what_cannot_be_installed() -> None:
    with pytest.raises(InvalidInputError, match="comes with the package"):
        plan_install(find_variant("micro"))
    with pytest.raises(InvalidInputError, match="multiple of 32"):
        plan_install(TINY, 100)
    assert plan_install(find_variant("micro"), 256).download_bytes == 0


def test_edgetam_at_a_size_that_its_windows_do_not_divide() -> None:
    with pytest.raises(InvalidInputError, match="expected a multiple of 256"):
        plan_install(find_variant("sam2/edgetam"), 672)
