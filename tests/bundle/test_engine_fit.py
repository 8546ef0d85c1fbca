"""Which engines of a bundle a machine keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sam2edge.bundle import engine_fit
from sam2edge.bundle.engine_fit import explain_misfit
from sam2edge.store.paths import manifest_path
from tests.boards import ORIN


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that `written_engines` are for."""
    monkeypatch.setattr(engine_fit, "find_gpu", lambda: ORIN)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))


def test_engines_of_this_machine_fit(written_engines: Path) -> None:
    assert explain_misfit(written_engines) is None


def test_engines_of_another_tensorrt_or_gpu_do_not(written_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.7.0"))
    assert "expected an engine of tensorrt 10.7.0; got tensorrt 10.3.0" in str(explain_misfit(written_engines))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "tensorrt" in str(explain_misfit(written_engines))
    monkeypatch.setattr(engine_fit, "find_gpu", lambda: None)
    assert explain_misfit(written_engines) == "no NVIDIA GPU on this machine"


@pytest.mark.parametrize("builder", ["os", "tensorrt.something"])
def test_nothing_else_is_imported_for_a_manifest(builder: str, written_engines: Path) -> None:
    path = manifest_path(written_engines / "image_encoder.engine")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "engine": {**content["engine"], "builder": builder}}))
    assert explain_misfit(written_engines) == f"built by {builder}"


def test_a_manifest_that_is_none(written_engines: Path) -> None:
    manifest_path(written_engines / "image_encoder.engine").write_text("{")
    assert "is not usable" in str(explain_misfit(written_engines))
