"""Checkpoints that cannot be used, through the command line: one line, status 1, nothing run, nothing written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sam2edge.cli.main import main  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402
from tests.conftest import ROOT  # noqa: E402


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def _make(kind: str, path: Path) -> None:
    if kind == "code":
        path.write_bytes(pickle.dumps({"model": _Malicious(path.with_name("ran"))}))
    elif kind != "missing":
        torch.save({"model": Sam2(find_variant("sam2/micro")).state_dict()}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("kind", "model_id", "message"),
    [
        ("missing", "sam2/hiera_tiny", "checkpoint not found"),
        ("truncated", "sam2/micro", "damaged or cut short"),
        ("another variant", "sam2/hiera_tiny", "load it as sam2/micro"),
        ("code", "sam2/hiera_tiny", "nothing of it was run"),
    ],
)
def test_bad_checkpoints(
    kind: str, model_id: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "weights.pt", tmp_path / "out"
    _make(kind, checkpoint)
    photo = str(ROOT / "examples" / "coffee.png")
    arguments = ["segment", photo, "--point", "300,300", "--model", model_id, "--checkpoint", str(checkpoint)]
    assert main([*arguments, "--out", str(out)]) == 1
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()
    assert not (tmp_path / "ran").exists()
