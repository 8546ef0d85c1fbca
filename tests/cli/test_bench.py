"""`sam2edge bench` on the model that comes with the package; times are looked at for being there alone."""

from __future__ import annotations

import json

import pytest

from sam2edge.cli.main import main
from sam2edge.machine.board import Board


def test_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rounds", "3", "--json", "--model", "micro", "--model", "tiny"]) == 0
    out, err = capsys.readouterr()
    micro, tiny = json.loads(out)["models"]
    assert (micro["backend"], micro["image_size"]) == ("onnxruntime", 384)
    for kind in ("embed", "prompt", "frame"):
        assert 0 < micro[kind]["median_ms"] <= micro[kind]["p99_ms"]
    assert micro["peak_bytes"] > 50_000_000
    assert "models install" in tiny["error"] and "tiny" in err  # the others go on


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"median_ms": 1.25, "p99_ms": 2.5}
    row = {"model": "sam2/micro", "backend": "onnxruntime", "image_size": 512, "load_seconds": 0.5}
    row |= {"embed": times, "prompt": times, "frame": None, "peak_bytes": 123_000_000}
    monkeypatch.setattr("sam2edge.cli.bench._measure", lambda *_: row)
    assert main(["bench"]) == 0
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert " ".join(head.split()) == "MODEL BACKEND SIZE LOAD S EMBED MS PROMPT MS FRAME MS PEAK MB"
    assert " ".join(line.split()) == "sam2/micro onnxruntime 512 0.5 1.2 / 2.5 1.2 / 2.5 - 123"


def test_published_figures_of_the_same_board_stand_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"model": "sam2/micro", "backend": "tensorrt", "image_size": 512, "load_seconds": 0.5}
    row |= {"embed": None, "prompt": None, "frame": None, "peak_bytes": 123_000_000}
    monkeypatch.setattr("sam2edge.cli.bench._measure", lambda *_: row)
    for module, figures in (
        ("Jetson Orin Nano 8 GB (developer kit)", [27.0, 146.0]),
        ("Jetson AGX Orin 64 GB", [8.1, 39.0, 8.2, 37.2]),
        ("Jetson T5000", [66.7, 442.0]),
        ("Jetson Orin NX 16 GB", []),  # none was found for it
        (None, []),
    ):
        monkeypatch.setattr("sam2edge.cli.bench.read_board", lambda module=module: Board(module=module))
        assert main(["bench", "--json"]) == 0
        published = json.loads(capsys.readouterr().out)["published"]
        assert [figure["milliseconds"] for figure in published] == figures
        assert main(["bench"]) == 0
        lines = capsys.readouterr().out.splitlines()[2:]
        assert len(lines) == len(figures) and all("ms for a photo" in line and "https://" in line for line in lines)


def test_nothing_can_be_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2edge.cli.bench._measure", lambda *_: {"model": "x", "error": "broken"})
    assert main(["bench"]) == 1
    assert "no model could be measured" in capsys.readouterr().err
